"""The outermost layer: how much, how long, in what form a request may arrive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass

from serving.errors import GatewayError

Scope = MutableMapping[str, object]
Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a request may be."""

    max_body_bytes: int = 10 * 1024 * 1024
    receive_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    max_headers: int = 100
    max_header_bytes: int = 16 * 1024


class Edge:
    """ASGI: ``Edge(app, limits, reads_own_body={"/v1/chat/completions"})``.

    Checks the head of every request; buffers the body (capped, timed) for every path but those in
    ``reads_own_body``, whose handlers call :func:`read_body`; turns any error that escapes before the response
    has started into the OpenAI envelope, and never lets an exception text out.
    """

    def __init__(self, app: App, limits: Limits, reads_own_body: frozenset[str] = frozenset()) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """Read the whole body; raise BodyTooLarge, ReceiveTimeout or ClientDisconnected."""
    raise NotImplementedError


async def send_error(send: Send, error: GatewayError, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Answer with the error's status, envelope and headers."""
    raise NotImplementedError
