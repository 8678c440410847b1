"""The uvicorn protocol with a deadline and a cap for what ASGI never sees arriving, or never sees leave.

uvicorn waits for ever for a head that trickles in, and for the rest of a body that was refused. Here a head must
be complete within ``Limits.header_timeout_s`` (from connecting, or from its first bytes on a kept connection), and a
body that nobody wants any more has ``Limits.header_timeout_s`` to end; else the connection is closed without a word. A
head of more than twice ``Limits.max_header_bytes`` (request line and separators included) is answered 431 and closed.
Trailers, which uvicorn would add to the headers of a request that is under way, are dropped; more than
``Limits.max_header_bytes`` of them, or of anything else that is no body, close the connection.

A client that stops reading is cut off when nothing of what waits for it has left for :data:`UNREAD_FOR_S`, be it the
middle of a stream or the end of an answer; the application hears what it hears of any client that leaves.
Bodies that are wanted are timed by :func:`serving.edge.read_body`, told here which have arrived already. Entry point:
:func:`protocol_of`, for ``uvicorn.Config(http=...)``.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.edge import ABORT, IS_WHOLE, Limits

_REFUSAL = (
    b'{"error":{"message":"the request head is too long","type":"invalid_request_error",'
    b'"param":null,"code":"headers_too_large"}}'
)
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
)
#: How long whoever still sends a head that was refused may take to read why.
_LAST_WORDS_S = 1.0
#: How long a client may take nothing of what waits for it. Slow is allowed: any byte that leaves begins the time anew.
UNREAD_FOR_S = 60.0


def protocol_of(limits: Limits) -> type[HttpToolsProtocol]:
    """Return uvicorn's httptools protocol with these limits built in."""

    class LimitedProtocol(_ArrivalProtocol):
        header_timeout_s = limits.header_timeout_s
        max_head_bytes = 2 * limits.max_header_bytes
        max_trailer_bytes = limits.max_header_bytes

    return LimitedProtocol


class _Coalescing:
    """A transport whose writes of one turn of the loop leave together: head and body in one system call."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport = transport
        self._waiting: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self.watch_unread()  # it stays open until all is sent, for as long as that takes

    def abort(self) -> None:
        self._waiting.clear()
        self._transport.abort()

    def watch_unread(self) -> None:
        """Abort when a whole :data:`UNREAD_FOR_S` passes in which nothing of what is unsent leaves."""
        n_bytes = self._transport.get_write_buffer_size()
        if self._timer is None and n_bytes:
            self._timer = self._loop.call_later(UNREAD_FOR_S, self._look, n_bytes)

    def stop_watching(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, n_bytes_before: int) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() >= n_bytes_before:
            self.abort()
        else:
            self.watch_unread()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and not self._transport.is_closing():
            self._transport.writelines(waiting)


class _ArrivalProtocol(HttpToolsProtocol):
    """A timer runs only while something is overdue to arrive: never for a head that comes in one piece."""

    header_timeout_s: float
    max_head_bytes: int
    max_trailer_bytes: int
    transport: _Coalescing  # type: ignore[assignment]
    _deadline: asyncio.TimerHandle | None = None
    _n_head_bytes = 0
    _n_trailer_bytes = 0
    _is_in_head = False
    _is_in_body = False
    _has_body_come = False
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Coalescing(transport, self.loop))  # type: ignore[arg-type]
        self._start_timing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timing()
        super().connection_lost(exc)
        self.transport.stop_watching()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.watch_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self.transport.stop_watching()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return  # the rest of a head that was too long: read, so that our answer is not lost in a reset
        self._has_body_come = False
        super().data_received(data)
        if self._is_in_body and not self._has_body_come:
            self._n_trailer_bytes += len(data)
            if self._n_trailer_bytes > self.max_trailer_bytes:
                self.transport.close()
        if self._is_in_head:
            self._n_head_bytes += len(data)
            if self._n_head_bytes > self.max_head_bytes:
                self._refuse_head()
            self._start_timing()

    def _refuse_head(self) -> None:
        self._is_refused = True
        self.transport.write(_TOO_LONG)
        self.loop.call_later(_LAST_WORDS_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._is_in_head = True
        self._n_head_bytes = 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._is_in_body = True
        self._n_trailer_bytes = 0
        self._stop_timing()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_body_come = True
        self._n_trailer_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        self._stop_timing()
        # The application runs when this piece of data is parsed: a body that came with its head is whole by then.
        self.scope[IS_WHOLE] = True  # type: ignore[literal-required]
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:
            self._start_timing()

    def _start_timing(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _stop_timing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
