"""uvicorn's server with an end that resets nobody.

At the first SIGTERM or ctrl-c it takes no more connections, closes idle ones and lets the others finish. When the
grace is over, or at a second signal, what is left is interrupted: :mod:`serving.endpoints` then says so in the form
of the client's API, and settles. Who does not even take that within :data:`LAST_WORDS_S` is left behind, as are all
at a third signal. Entry point: :class:`Server`.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.drain import Drain

#: How long the interrupted have to say so.
LAST_WORDS_S = 2
#: Connections taken in one turn of the loop.
N_LISTENERS = 16


class Server(uvicorn.Server):
    """Serves until it is told to end, and then ends in an orderly way.

    Parameters
    ----------
    config : uvicorn.Config
        Its ``timeout_graceful_shutdown`` is set here.
    drain : Drain
        Told of the end.
    grace_s : float
        How long requests in flight may take after the first signal.
    ready : callable
        Called with the port once requests are accepted.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, grace_s: float, ready: Callable[[int], None]) -> None:
        # uvicorn counts whole seconds, and takes none at all for ever.
        config.timeout_graceful_shutdown = math.ceil(grace_s) + LAST_WORDS_S
        super().__init__(config)
        self._drain = drain
        self._grace_s = grace_s
        self._ready = ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._n_signals = 0

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and not self.should_exit:
            await self._accept_more(self._loop)
            # What start-up left behind lives as long as the process: no collection need look at it again.
            gc.collect()
            gc.freeze()
            self._ready(self.servers[0].sockets[0].getsockname()[1])

    async def _accept_more(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen on the same sockets several times.

        libuv takes one connection a turn of the loop from each listener. When the turns are long (overload), one
        listener takes so few that callers wait for seconds to be turned away, and the queue fills with who has left.
        """

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        for listening in [sock for server in self.servers for sock in server.sockets]:
            for _ in range(N_LISTENERS - 1):
                again = socket.socket(listening.family, listening.type, fileno=os.dup(listening.fileno()))
                self.servers.append(await loop.create_server(protocol, sock=again, backlog=self.config.backlog))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first begins the end, the second hurries it, the third is obeyed at once."""
        self._captured_signals.append(sig)
        self._n_signals += 1
        self.should_exit = True
        self._drain.begin()
        if self._n_signals == 2 and self._loop is not None:
            self._loop.call_soon_threadsafe(self._interrupt)
        self.force_exit = self._n_signals > 2

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Let what is in flight finish, interrupt what does not, and close the application."""
        self._drain.begin()
        timer = asyncio.get_running_loop().call_later(self._grace_s, self._interrupt)
        try:
            await super().shutdown(sockets)  # type: ignore[arg-type]
        finally:
            timer.cancel()
        if self.force_exit:  # uvicorn would leave the application open
            await self.lifespan.shutdown()

    def _interrupt(self) -> None:
        if not self._drain.is_over:
            self._drain.end()
            for task in list(self.server_state.tasks):
                task.cancel()
            assert self._loop is not None
            self._loop.call_later(LAST_WORDS_S, self._leave)

    def _leave(self) -> None:
        """Drop who does not take our last words; their requests are settled, and end by this."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.abort()
        self.force_exit = True
