"""One request on its way: what is known of it, until it is settled.

Settling ends the pool's call, writes one record (:mod:`serving.recording`) and one log line; it happens once and is
synchronous, so nothing can cancel it half-way. Entry point: :class:`Exchange`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import isfinite

from router import Policy, Prompt
from router.pricing import charge_usd
from router.routing import DEFAULT_TOKENS_PER_CHARACTER
from serving import logs
from serving.attempt import OVERTAKEN, Attempt
from serving.deciding import Decided
from serving.errors import GatewayError, UpstreamError
from serving.explanation import headers_of
from serving.feedback import ABANDONED
from serving.recording import Recording, logged, lost
from serving.records import RecordStore
from serving.regenerations import Saying
from serving.state import State

Header = tuple[bytes, bytes]
#: What a token of English is, roughly, of text that nobody counted.
CHARACTERS_PER_TOKEN = 4
#: Of the report in a header; the record has it whole.
MAX_LOST_BYTES = 2_048


class Exchange(Recording):
    """One request and what becomes of it, told as it happens; the attributes are those of :class:`Recording`, and two.

    Attributes
    ----------
    saying : Saying or None
        What is asked, as far as needed to notice that it is asked again.
    is_abandoned : bool
        Its caller left after some of the answer had come.
    """

    __slots__ = ("_is_settled", "_said", "is_abandoned", "saying")

    def __init__(self) -> None:
        super().__init__()
        self._said: tuple[Header, ...] = ()
        self.saying: Saying | None = None
        self.is_abandoned = False
        self._is_settled = False

    def decided(self, state: State, decided: Decided, prompt: Prompt | None = None) -> None:
        """Note the decision; from here on the request is bound to this state."""
        self.state = state
        self.prompt = prompt
        self.requested_model = decided.model
        self.how = decided
        self.decision = decided.decision
        self._said = headers_of(decided)

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
                headers.append((b"x-turnout-failed-attempts", self.failed().encode("latin-1", "replace")))
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
        if self.state is not None and attempt is not None:
            price = self.state.candidate(attempt.deployment.candidate).price
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
        self.signals = self._signals(outcome)
        record = self.record(outcome, status, is_kept=records.is_on)
        if records.is_on:
            records.add(record, self.retained())
        logs.event(
            "request",
            partial(logged, record),
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

    def _foreseen_tokens(self) -> tuple[int | None, int | None]:
        """Return input and output tokens as the decision foresaw them for who was called; None where it did not."""
        assert self.attempt is not None
        foreseen = self.decision.outlook if self.decision else None
        name = self.attempt.deployment.candidate
        if foreseen is not None and name in foreseen.candidates:
            i = foreseen.candidates.index(name)
            n_read, n_written = foreseen.input_tokens[i], foreseen.output_tokens[i]
            return round(n_read), round(n_written) if isfinite(n_written) else None
        if self.prompt is None:
            return None, None
        return round(self.prompt.shape.n_characters * DEFAULT_TOKENS_PER_CHARACTER), None


def _said(policy: Policy) -> bytes:
    """Write a policy for a header: ``threshold=0.75; preset=balanced``, or ``designated``."""
    said = policy.kind if policy.kind == "designated" else f"{policy.kind}={policy.value:g}"
    if policy.name:
        said += f"; preset={policy.name}"
    return said.encode("latin-1", "replace")
