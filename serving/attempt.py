"""One attempt: a request on its way to one deployment, whether it answers or not.

A request may have several, one after another, or two at once (:mod:`serving.hedging`); its
:class:`~serving.exchange.Exchange` knows the one that counts. Entry point: :class:`Attempt`.
"""

from __future__ import annotations

from serving.deployment import Deployment
from serving.dialects.losses import Loss
from serving.errand import Relay
from serving.pool import Call, Pool

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
    """

    __slots__ = ("call", "deployment", "relay", "told")

    def __init__(self, deployment: Deployment, relay: Relay, mode: str = "warn") -> None:
        self.deployment = deployment
        self.relay = relay
        self.call: Call | None = None
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

    def finish(self, outcome: str, wait_s: float | None = None) -> None:
        """End it without an answer; only the first end counts."""
        if self.call is not None:
            self.call.finish(outcome, wait_s=wait_s)
