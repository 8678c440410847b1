"""The end of the process, told to whoever must know: from the first SIGTERM no one new, at the last nobody at all.

::

    serving ──begin()──▶ draining: /readyz 503, what has begun goes on ──end()──▶ over: what is left is interrupted

Who hears the signals is :class:`serving.server.Server`. Entry point: :class:`Drain`.
"""

from __future__ import annotations

from serving.errors import ClientDisconnected, GatewayError, NotReady, ShuttingDown


class Drain:
    """How far the process has come to its end.

    Attributes
    ----------
    is_draining : bool
        What has begun may finish.
    is_over : bool
        What has begun is interrupted: whoever is cancelled now is cancelled for this.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self.is_over = False

    def begin(self) -> None:
        """Let what has begun finish. Idempotent."""
        self.is_draining = True

    def end(self) -> None:
        """Let nothing finish any more. Idempotent."""
        self.is_draining = self.is_over = True

    def check(self) -> None:
        """Raise NotReady once the end has begun."""
        if self.is_draining:
            raise NotReady("the gateway is shutting down: it finishes what it has begun")

    def cause(self) -> GatewayError:
        """Return why a request that was cancelled before it was answered was cancelled."""
        if self.is_over:
            return ShuttingDown("the gateway is shutting down and could not wait for the answer", retry_after_s=1.0)
        return ClientDisconnected("the client left before it was answered")
