"""The outermost layer: how much, how long and in what form a request may arrive, and how errors leave.

Plain ASGI. It knows no protocol beyond HTTP and authenticates nobody. A stream passes through it untouched.
Heads that never finish arriving are cut off below it, in :mod:`serving.arrival`. Entry points: :class:`Edge`,
:func:`read_body`, :func:`send_error`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from serving import logs
from serving.errors import (
    BodyTooLarge,
    ClientDisconnected,
    GatewayError,
    HeadersTooLarge,
    InvalidRequest,
    ReceiveTimeout,
    UnsupportedEncoding,
)

# ASGI's own types: the values are whatever the server puts there, which only the reader of a key knows.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
#: (error, request id) -> the error in a caller's own form.
Envelope = Callable[[GatewayError, str], Mapping[str, object]]
#: In a scope: the whole body had arrived when the application was called. Set by :mod:`serving.arrival`.
IS_WHOLE = "turnout.is_whole"
#: In a scope: drops the connection at once, and with it what the client has not read. Set by :mod:`serving.arrival`.
ABORT = "turnout.abort"
#: Request headers that may make a head ambiguous or refused.
_CHECKED = frozenset({b"content-length", b"host", b"transfer-encoding", b"content-encoding"})


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a request may be, and how long it may take to arrive.

    Parameters
    ----------
    max_body_bytes : int
        Enforced while reading; what ``Content-Length`` claims is only believed when it is too much.
    receive_timeout_s : float
        For the whole body, from the moment it is asked for.
    header_timeout_s : float
        For the whole head, from its first byte (or from connecting).
    max_headers, max_header_bytes : int
        Header fields, and bytes of names and values together.
    """

    max_body_bytes: int = 10 * 2**20
    receive_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    max_headers: int = 100
    max_header_bytes: int = 16 * 1024


class Edge:
    """ASGI middleware around the whole application.

    Parameters
    ----------
    app : App
        What is protected.
    limits : Limits
        The caps.
    envelopes : Mapping of str to callable
        The paths whose handlers call :func:`read_body` themselves (the hot ones), and how each writes an error. For
        every other path the body is read here, capped and timed, and replayed; errors leave in OpenAI's envelope.
    """

    def __init__(self, app: App, limits: Limits, envelopes: Mapping[str, Envelope] | None = None) -> None:
        self._app = app
        self._limits = limits
        self._envelopes = envelopes or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; errors that nobody answered are answered here, in the envelope of the path."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started = False

        def noting_send(message: Message) -> Awaitable[None]:
            nonlocal is_started
            is_started = True
            return send(message)

        try:
            has_body = _check_head(scope["headers"], self._limits)
            if has_body and scope["path"] not in self._envelopes:
                receive = _replaying(await read_body(scope, receive, self._limits), receive)
            await self._app(scope, receive, noting_send)
        except ClientDisconnected:
            return
        except GatewayError as error:
            if not is_started:
                await send_error(send, error, None, self._envelope_of(scope, error))
        except Exception as error:
            logs.failure("unexpected_error", error, {"method": scope["method"]})
            if not is_started:
                failure = GatewayError("the gateway failed; its log says where")
                await send_error(send, failure, None, self._envelope_of(scope, failure))

    def _envelope_of(self, scope: Scope, error: GatewayError) -> Mapping[str, object] | None:
        write = self._envelopes.get(scope["path"])
        return None if write is None else write(error, "")


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """Read a whole request body.

    Raises
    ------
    BodyTooLarge
        As soon as more than ``limits.max_body_bytes`` are announced or have arrived. The connection stays
        open, so that the client, still sending, gets to read the answer; :mod:`serving.arrival` sees to its end.
    ReceiveTimeout
        If it has not arrived whole within ``limits.receive_timeout_s``.
    ClientDisconnected
        If the client leaves before its end.
    """
    for name, value in scope["headers"]:
        if name == b"content-length":
            _check_size(int(value), limits)
    if IS_WHOLE in scope:  # nothing to wait for, so no timer
        return await _read(receive, limits)
    try:
        async with asyncio.timeout(limits.receive_timeout_s):
            return await _read(receive, limits)
    except TimeoutError as error:
        raise ReceiveTimeout(f"the request body did not arrive whole within {limits.receive_timeout_s:g} s") from error


async def send_error(
    send: Send,
    error: GatewayError,
    headers: list[tuple[bytes, bytes]] | None = None,
    envelope: Mapping[str, object] | None = None,
) -> None:
    """Answer with an error's status, body and headers.

    Parameters
    ----------
    send : Send
        Nothing may have been sent on it.
    error : GatewayError
        What went wrong.
    headers : list of (bytes, bytes) or None
        More headers, such as the request's id.
    envelope : Mapping or None
        The error in the caller's own form; None is OpenAI's. A provider's own body, where there is one, goes before.
    """
    body, content_type = error.to_wire(envelope)
    own = [
        (b"content-type", content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(body)),
        *error.headers(),
        *(headers or ()),
    ]
    if isinstance(error, ReceiveTimeout):
        own.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": own})
    await send({"type": "http.response.body", "body": body})


async def _read(receive: Receive, limits: Limits) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    parts, n_bytes = [body], len(body)
    while message["type"] == "http.request" and message.get("more_body", False):
        _check_size(n_bytes, limits)
        message = await receive()
        parts.append(message.get("body", b""))
        n_bytes += len(parts[-1])
    if message["type"] == "http.disconnect":
        raise ClientDisconnected("the client left before its request had arrived")
    _check_size(n_bytes, limits)
    return body if len(parts) == 1 else b"".join(parts)


def _check_size(n_bytes: int, limits: Limits) -> None:
    if n_bytes > limits.max_body_bytes:
        raise BodyTooLarge(f"the request body is longer than {limits.max_body_bytes} bytes")


def _check_head(headers: list[tuple[bytes, bytes]], limits: Limits) -> bool:
    """Refuse heads that are too much or that two readers could read differently; tell if a body follows."""
    if len(headers) > limits.max_headers:
        raise HeadersTooLarge(f"more than {limits.max_headers} request headers")
    n_bytes = 0
    length: bytes | None = None
    has_host = is_chunked = False
    for name, value in headers:
        n_bytes += len(name) + len(value)
        if name not in _CHECKED:
            continue
        if name == b"content-length":
            if length is not None:
                raise InvalidRequest("Content-Length is given more than once", code="invalid_header")
            length = value
        elif name == b"host":
            if has_host:
                raise InvalidRequest("Host is given more than once", code="invalid_header")
            has_host = True
        elif name == b"transfer-encoding":
            is_chunked = True
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedEncoding("the request body must not be compressed (Content-Encoding)")
    if n_bytes > limits.max_header_bytes:
        raise HeadersTooLarge(f"more than {limits.max_header_bytes} bytes of request headers")
    if length is None:
        return is_chunked
    if is_chunked:
        raise InvalidRequest("both Content-Length and Transfer-Encoding are given", code="invalid_header")
    if not (length.isdigit() and len(length) < 20):
        raise InvalidRequest("Content-Length is not a number of bytes", code="invalid_header")
    return int(length) > 0


def _replaying(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body once, then whatever the server says next."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
