"""One attempt: a request on its way to one deployment, whether it answers or not.

A request may have several, one after another, or two at once (:mod:`serving.hedging`); its
:class:`~serving.exchange.Exchange` knows the one that counts. Entry point: :class:`Attempt`.
"""

from __future__ import annotations

from serving.deployment import Deployment
from serving.dialects.losses import Loss
from serving.errand import Relay
from serving.errors import UpstreamError, UpstreamTimeout
from serving.pool import Call, Pool

#: The outcome of one that the caller gave too little time.
CALLER_DEADLINE = "caller_deadline"
#: The outcome of one that another began its answer before; it says nothing of the deployment.
OVERTAKEN = "overtaken"


class Attempt:
    """A call to one deployment.

    Parameters
    ----------
    deployment : Deployment
    relay : Relay
        The way there and back.
    mode : str
        What the client wants to be told of losses: one of :data:`~serving.dialects.losses.MODES`.

    Attributes
    ----------
    call : Call or None
        As the pool counts it; None until it has begun.
    told : tuple of Loss
        Of the losses, those that the client is told.
    is_hurried : bool
        The caller leaves less until the first content than is normally needed.
    is_bounded : bool
        The caller leaves less for everything than we would.
    """

    __slots__ = ("call", "deployment", "is_bounded", "is_hurried", "relay", "told")

    def __init__(self, deployment: Deployment, relay: Relay, mode: str = "warn") -> None:
        self.deployment = deployment
        self.relay = relay
        self.call: Call | None = None
        self.is_hurried = self.is_bounded = False
        self.told: tuple[Loss, ...] = (
            () if mode == "silent" else tuple(loss for loss in relay.losses if not loss.is_hint)
        )

    def begin(self, pool: Pool, is_stream: bool) -> None:
        """Start the pool's clock."""
        self.call = pool.begin(self.deployment.name, is_stream)

    def first_content(self) -> None:
        """Note that the answer itself has begun to come."""
        if self.call is not None:
            self.call.first_byte()

    def judged(self, error: UpstreamError, *, has_begun: bool = False) -> UpstreamError:
        """Return an error with its true outcome: a time-out may be the caller's own."""
        if isinstance(error, UpstreamTimeout):
            phases = ("total",) if has_begun else ("first_byte", "total")
            if error.phase in phases and (self.is_bounded if has_begun else self.is_hurried):
                error.outcome = CALLER_DEADLINE
        return error

    def finish(self, outcome: str, wait_s: float | None = None) -> None:
        """End it without an answer; only the first end counts."""
        if self.call is not None:
            self.call.finish(outcome, wait_s=wait_s)
