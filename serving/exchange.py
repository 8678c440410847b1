"""One request on its way: what is known of it, until it is settled.

Settling ends the pool's call, writes one record and one log line; it happens once, is synchronous (so nothing can
cancel it half-way) and keeps numbers and configured names only, never a word of the request or the answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from math import isfinite

from router import Decision, Policy, Prompt
from router.pricing import Usage, charge_usd
from router.routing import DEFAULT_TOKENS_PER_CHARACTER
from serving import logs
from serving.attempt import OVERTAKEN, Attempt
from serving.conversations import Turn
from serving.deciding import Decided
from serving.dialects.losses import Loss
from serving.errors import GatewayError, UpstreamError
from serving.explanation import headers_of
from serving.exploration_budget import Reservation
from serving.feedback import ABANDONED
from serving.keys import Principal
from serving.records import RecordStore, RequestRecord
from serving.regenerations import Saying
from serving.state import State
from serving.trial import Entry

Header = tuple[bytes, bytes]
_NOTHING_USED = Usage()
#: What a token of English is, roughly, of text that nobody counted.
CHARACTERS_PER_TOKEN = 4
#: Of the report in a header; the record has it whole.
MAX_LOST_BYTES = 2_048


class Exchange:
    """One request and what became of it.

    Attributes
    ----------
    id : str
        Names the request and its decision, in headers, records and logs.
    requested_model : str
        What was asked for, once it is known to be configured: a stranger's word is not kept.
    attempt : Attempt or None
        The one that counts: under way, or what answered.
    decision : Decision or None
        Who shall answer.
    scenario, rule : str or None
        By which the decision was made.
    entry : Entry or None
        Its place in an experiment.
    usage : Usage
        As the provider counted it.
    is_usage_estimated : bool
        It did not, since the answer was cut off: it is our estimate of what was sent.
    cost_usd : float or None
        What the usage cost, once settled; None when price or usage is unknown.
    api : str
        The API it came by, such as "messages".
    attempts : tuple of (str, str)
        Deployments that failed before the one that answered, and how.
    time_unix_s : float
        When it arrived.
    outcome : str
        How it ended, once settled.
    turn : Turn or None
        Its place in a conversation, where one is recognised.
    saying : Saying or None
        What is asked, as far as needed to notice that it is asked again.
    is_abandoned : bool
        Its caller left after some of the answer had come.
    reservation : Reservation or None
        What was set aside for it, where it explores.
    """

    __slots__ = (
        "_began_at",
        "_is_settled",
        "_prompt",
        "_said",
        "_state",
        "api",
        "attempt",
        "attempts",
        "cost_usd",
        "decision",
        "entry",
        "id",
        "is_abandoned",
        "is_stream",
        "is_usage_estimated",
        "outcome",
        "principal",
        "requested_model",
        "reservation",
        "rule",
        "saying",
        "scenario",
        "time_unix_s",
        "turn",
        "usage",
    )

    def __init__(self) -> None:
        self.time_unix_s = time.time()
        # Later ids sort later, so that the index of the records grows at its end. An id names; it admits nobody.
        self.id = f"req_{int(self.time_unix_s * 1000):011x}{random.getrandbits(52):013x}"
        self.principal: Principal | None = None
        self.requested_model = ""
        self.is_stream = False
        self.decision: Decision | None = None
        self.attempt: Attempt | None = None
        self.scenario: str | None = None
        self.rule: str | None = None
        self.entry: Entry | None = None
        self._said: tuple[Header, ...] = ()
        self.usage = _NOTHING_USED
        self.cost_usd: float | None = None
        self.api = ""
        self.attempts: tuple[tuple[str, str], ...] = ()
        self.is_usage_estimated = False
        self._prompt: Prompt | None = None
        self.outcome = ""
        self.turn: Turn | None = None
        self.saying: Saying | None = None
        self.is_abandoned = False
        self.reservation: Reservation | None = None
        self._state: State | None = None
        self._is_settled = False
        self._began_at = time.perf_counter()

    def decided(self, state: State, decided: Decided, prompt: Prompt | None = None) -> None:
        """Note the decision; from here on the request is bound to this state."""
        self._state = state
        self._prompt = prompt
        self.requested_model = decided.model
        self.decision = decided.decision
        self.scenario = decided.scenario
        self.rule = decided.rule
        self._said = headers_of(decided)

    def enter(self, entry: Entry) -> None:
        """Note its place in an experiment."""
        self.entry = entry

    def attempt_failed(self, attempt: Attempt, error: UpstreamError) -> None:
        """Note that one attempt failed before anything of it was sent; the exchange goes on."""
        self.attempts = (*self.attempts, (attempt.deployment.name, error.outcome))
        attempt.finish(error.outcome, error.retry_after_s)

    def overtaken(self, attempt: Attempt) -> None:
        """Note that another attempt began its answer before this one."""
        self.attempts = (*self.attempts, (attempt.deployment.name, OVERTAKEN))
        attempt.finish(OVERTAKEN)

    def cut_off(self, n_characters: int | None) -> None:
        """Estimate what an answer cost that nobody counted, since it was cut off.

        Providers bill what they have read and written, so zero is no estimate. What was read is estimated as for the
        decision; of what was written a token is taken to be four characters.

        Parameters
        ----------
        n_characters : int or None
            Written until then; None where nobody saw them, of an answer that was to come whole: it counts as long as
            the decision thought.
        """
        call = None if self.attempt is None else self.attempt.call
        if call is None or call.total_s is not None or self.usage.output_tokens is not None:
            return  # nobody was asked, it had failed already, or it is known
        n_read, n_written = self._foreseen_tokens()
        if n_characters is not None:
            n_written = -(-n_characters // CHARACTERS_PER_TOKEN)
        if self.usage.input_tokens is not None:
            n_read = self.usage.input_tokens
        self.usage = replace(self.usage, input_tokens=n_read, output_tokens=n_written)
        self.is_usage_estimated = True

    def headers(self) -> list[Header]:
        """Return the response headers that say who answers, why and at what cost; unknown ones are absent."""
        request_id = self.id.encode()
        headers = [(b"x-request-id", request_id), (b"request-id", request_id)]
        attempt = self.attempt
        if attempt is not None:
            headers += attempt.deployment.marks
            if self.turn is not None:
                headers.append((b"x-turnout-conversation", self.turn.became(attempt.deployment.candidate)))
            if attempt.told:
                headers.append((b"x-turnout-lost", lost(attempt.told).encode("latin-1")[:MAX_LOST_BYTES]))
            if self.attempts:
                headers.append((b"x-turnout-failed-attempts", self._failed().encode("latin-1", "replace")))
            if (spoken := attempt.relay.line.dialect) != self.api:
                headers.append((b"x-turnout-translated", f"{self.api}>{spoken}".encode()))
        if self.decision is not None:
            headers += (
                (b"x-turnout-decision-id", request_id),
                (b"x-turnout-bundle", self.decision.bundle.encode("latin-1", "replace")),
                (b"x-turnout-policy", _said(self.decision.policy)),
            )
            if self.decision.cost_usd is not None:
                headers.append((b"x-turnout-expected-cost-usd", b"%.9f" % self.decision.cost_usd))
            if self.decision.like is not None:
                headers.append((b"x-turnout-like", self.decision.like.encode("latin-1", "replace")))
            headers += self._said
        return headers

    def settle(self, records: RecordStore, outcome: str, status: int) -> None:
        """End the request: only the first time counts.

        Parameters
        ----------
        records : RecordStore
        outcome : str
            "ok", or the ``outcome`` of the :class:`~serving.errors.GatewayError` that ended it.
        status : int
            What the client was sent.
        """
        if self._is_settled:
            return
        self._is_settled = True
        attempt = self.attempt
        if self._state is not None and attempt is not None:
            price = self._state.candidate(attempt.deployment.candidate).price
            self.cost_usd = charge_usd(self.usage, price)
            if self.turn is not None and outcome == "ok":
                self.turn.answered(attempt.deployment.candidate, self.usage, price)
            if self.saying is not None and outcome == "ok":
                self.saying.answered(self.id, attempt.deployment.name)
        if self.reservation is not None:
            was_asked = attempt is not None and attempt.call is not None
            self.reservation.settle(self.cost_usd if was_asked else 0.0)
        if attempt is not None and attempt.call is not None:
            attempt.call.finish(outcome, self.usage.output_tokens, self.cost_usd, usage=self.usage)
        self.outcome = outcome
        record = self._record(outcome, status, self._signals(outcome))
        records.add(record)
        logs.event(
            "request",
            partial(_logged, record, attempt.deployment.is_emulated if attempt else None),
            level="info" if status < 500 and outcome in ("ok", "replayed", "caller_error") else "warning",
        )

    def fail(self, records: RecordStore, error: GatewayError) -> None:
        """Settle a request that ended in an error before anything was sent."""
        self.settle(records, error.outcome, error.status)

    def _signals(self, outcome: str) -> tuple[str, ...]:
        """Return, and count, the signs against the answer."""
        attempt = self.attempt
        signals: tuple[str, ...] = ()
        if self.is_abandoned:
            signals = (ABANDONED,)
        elif outcome == "ok" and attempt is not None and attempt.relay.inspection is not None:
            signals = attempt.relay.inspection.found()
        if signals and attempt is not None and attempt.call is not None:
            attempt.call.signal(signals)
        return signals

    def _record(self, outcome: str, status: int, signals: tuple[str, ...]) -> RequestRecord:
        decision, policy, attempt, usage, entry = self.decision, None, self.attempt, self.usage, self.entry
        if decision is not None:
            policy = decision.policy
        return RequestRecord(
            self.id,
            self.time_unix_s,
            self.principal.name if self.principal else "",
            self.requested_model,
            status,
            outcome,
            self.is_stream,
            candidate=self._who(),
            deployment=attempt.deployment.name if attempt else None,
            policy_kind=policy.kind if policy else None,
            policy_value=policy.value if policy else None,
            policy_name=policy.name if policy else None,
            binding=decision.binding if decision else None,
            propensity=decision.propensity if decision else None,
            bundle=decision.bundle if decision else None,
            predicted_quality=decision.quality if decision else None,
            expected_cost_usd=decision.cost_usd if decision else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=self.cost_usd,
            first_byte_s=attempt.call.first_byte_s if attempt and attempt.call else None,
            total_s=time.perf_counter() - self._began_at,
            api=self.api or None,
            upstream_dialect=attempt.relay.line.dialect if attempt else None,
            losses=(lost(attempt.relay.losses) if attempt else "") or None,
            attempts=self._failed() or None,
            is_usage_estimated=self.is_usage_estimated,
            scenario=self.scenario,
            rule=self.rule,
            experiment=entry.experiment if entry else None,
            arm=entry.arm if entry else None,
            arm_share=entry.share if entry else None,
            unit=entry.unit if entry else None,
            signals=",".join(signals) or None,
            is_explored=decision is not None and decision.is_explored,
            explorable=",".join(decision.explorable) or None if decision else None,
            explore_usd=self.reservation.extra_usd if self.reservation else None,
        )

    def _failed(self) -> str:
        """Write the attempts that did not answer, such as ``large@provider/model;overloaded``."""
        return ", ".join(f"{name};{outcome}" for name, outcome in self.attempts)

    def _who(self) -> str | None:
        """Return the candidate that answered, else the one decided for."""
        if self.attempt is not None:
            return self.attempt.deployment.candidate
        return self.decision.candidate if self.decision else None

    def _foreseen_tokens(self) -> tuple[int | None, int | None]:
        """Return input and output tokens as the decision foresaw them for who was called; None where it did not."""
        assert self.attempt is not None
        foreseen = self.decision.outlook if self.decision else None
        name = self.attempt.deployment.candidate
        if foreseen is not None and name in foreseen.candidates:
            i = foreseen.candidates.index(name)
            n_read, n_written = foreseen.input_tokens[i], foreseen.output_tokens[i]
            return round(n_read), round(n_written) if isfinite(n_written) else None
        if self._prompt is None:
            return None, None
        return round(self._prompt.shape.n_characters * DEFAULT_TOKENS_PER_CHARACTER), None


def lost(losses: Iterable[Loss]) -> str:
    """Write a loss report: paths, each dropped unless it says otherwise, such as ``seed, tools[1];emulated``."""
    return ", ".join(loss.field if loss.what == "dropped" else f"{loss.field};{loss.what}" for loss in losses)


def _logged(record: RequestRecord, is_emulated: bool | None) -> dict[str, logs.Value]:
    """Return what the log says of a record."""
    return {
        "id": record.id,
        "key": record.key,
        "status": record.status,
        "outcome": record.outcome,
        "requested_model": record.requested_model,
        "candidate": record.candidate,
        "deployment": record.deployment,
        "is_emulated": is_emulated,
        "is_stream": record.is_stream,
        "api": record.api,
        "upstream_dialect": record.upstream_dialect,
        "lost": record.losses or "",
        "is_usage_estimated": record.is_usage_estimated,
        "binding": record.binding,
        "scenario": record.scenario,
        "rule": record.rule,
        "experiment": record.experiment,
        "arm": record.arm,
        "bundle": record.bundle,
        "expected_cost_usd": record.expected_cost_usd,
        "cost_usd": record.cost_usd,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "total_s": record.total_s,
    }


def _said(policy: Policy) -> bytes:
    """Write a policy for a header: ``threshold=0.75; preset=balanced``, or ``designated``."""
    said = policy.kind if policy.kind == "designated" else f"{policy.kind}={policy.value:g}"
    if policy.name:
        said += f"; preset={policy.name}"
    return said.encode("latin-1", "replace")
