"""One request on its way: what is known of it, until it is settled.

Settling ends the pool's call, writes one record and one log line; it happens once, is synchronous (so nothing can
cancel it half-way) and keeps numbers and configured names only, never a word of the request or the answer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from functools import partial

from router import Decision, Policy
from router.pricing import Usage, charge_usd
from serving import logs
from serving.conversations import Turn
from serving.deployment import Deployment
from serving.dialects.losses import Loss
from serving.errors import GatewayError, UpstreamError
from serving.keys import Principal
from serving.pool import Call
from serving.records import RecordStore, RequestRecord
from serving.state import State

Header = tuple[bytes, bytes]
_NOTHING_USED = Usage()
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
    usage : Usage
        As the provider counted it.
    cost_usd : float or None
        What the usage cost, once settled; None when price or usage is unknown.
    api : str
        The API it came by, such as "messages".
    upstream_dialect : str
        What the provider was spoken to in.
    losses : tuple of Loss
        What of the request the provider could not be sent as it was.
    attempts : tuple of (str, str)
        Deployments that failed before the one that answered, and how.
    time_unix_s : float
        When it arrived.
    turn : Turn or None
        Its place in a conversation, where one is recognised.
    """

    __slots__ = (
        "_began_at",
        "_is_settled",
        "_state",
        "api",
        "attempts",
        "call",
        "cost_usd",
        "decision",
        "deployment",
        "id",
        "is_stream",
        "losses",
        "principal",
        "requested_model",
        "time_unix_s",
        "told",
        "turn",
        "upstream_dialect",
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
        self.deployment: Deployment | None = None
        self.call: Call | None = None
        self.usage = _NOTHING_USED
        self.cost_usd: float | None = None
        self.api = ""
        self.attempts: tuple[tuple[str, str], ...] = ()
        self.upstream_dialect = ""
        self.losses: tuple[Loss, ...] = ()
        self.told: tuple[Loss, ...] = ()
        self.turn: Turn | None = None
        self._state: State | None = None
        self._is_settled = False
        self._began_at = time.perf_counter()

    def decided(self, state: State, model: str, decision: Decision) -> None:
        """Note the decision; from here on the request is bound to this state."""
        self._state = state
        self.requested_model = model
        self.decision = decision

    def relayed(self, upstream_dialect: str, losses: tuple[Loss, ...], mode: str) -> None:
        """Note how the request goes on, what it loses thereby, and whether the client is told."""
        self.upstream_dialect = upstream_dialect
        self.losses = losses
        self.told = () if mode == "silent" else tuple(loss for loss in losses if not loss.is_hint)

    def attempt_failed(self, error: UpstreamError) -> None:
        """Note that one attempt failed before anything of it was sent; the exchange goes on."""
        if self.deployment is not None:
            self.attempts = (*self.attempts, (self.deployment.name, error.outcome))
        if self.call is not None:
            self.call.finish(error.outcome, wait_s=error.retry_after_s)

    def headers(self) -> list[Header]:
        """Return the response headers that say who answers, why and at what cost; unknown ones are absent."""
        request_id = self.id.encode()
        headers = [(b"x-request-id", request_id), (b"request-id", request_id)]
        if self.deployment is not None:
            headers += self.deployment.marks
            if self.turn is not None:
                headers.append((b"x-turnout-conversation", self.turn.became(self.deployment.candidate)))
            if self.told:
                headers.append((b"x-turnout-lost", lost(self.told).encode("latin-1")[:MAX_LOST_BYTES]))
            if self.attempts:
                failed = ", ".join(f"{name};{outcome}" for name, outcome in self.attempts)
                headers.append((b"x-turnout-failed-attempts", failed.encode("latin-1", "replace")))
            if self.upstream_dialect not in ("", self.api):
                headers.append((b"x-turnout-translated", f"{self.api}>{self.upstream_dialect}".encode()))
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
        if self._state is not None and self.deployment is not None:
            price = self._state.candidate(self.deployment.candidate).price
            self.cost_usd = charge_usd(self.usage, price)
            if self.turn is not None and outcome == "ok":
                self.turn.answered(self.deployment.candidate, self.usage, price)
        if self.call is not None:
            self.call.finish(outcome, self.usage.output_tokens, self.cost_usd)
        record = self._record(outcome, status)
        records.add(record)
        logs.event(
            "request",
            partial(_logged, record, self.deployment.is_emulated if self.deployment else None),
            level="info" if status < 500 and outcome in ("ok", "caller_error") else "warning",
        )

    def fail(self, records: RecordStore, error: GatewayError) -> None:
        """Settle a request that ended in an error before anything was sent."""
        self.settle(records, error.outcome, error.status)

    def _record(self, outcome: str, status: int) -> RequestRecord:
        decision, policy, call, usage = self.decision, None, self.call, self.usage
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
            deployment=self.deployment.name if self.deployment else None,
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
            first_byte_s=call.first_byte_s if call else None,
            total_s=time.perf_counter() - self._began_at,
            api=self.api or None,
            upstream_dialect=self.upstream_dialect or None,
            losses=lost(self.losses) or None,
            attempts=", ".join(f"{name};{outcome}" for name, outcome in self.attempts) or None,
        )

    def _who(self) -> str | None:
        """Return the candidate that answered, else the one decided for."""
        if self.deployment is not None:
            return self.deployment.candidate
        return self.decision.candidate if self.decision else None


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
        "binding": record.binding,
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
