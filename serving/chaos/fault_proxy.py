"""A proxy that spoils answers: between the gateway and a provider, on loopback, aware of HTTP/1.1.

::

    gateway ──request, whole──▶ _Downstream ──as it came──▶ _Upstream ──▶ provider
       ▲                             │ draws a fault, notes an arrival        │
       └──────── answer, spoilt ─────┴────────────── answer ─────────────────┘

Callbacks on the running loop; no task, no thread, and an untouched answer costs a few microseconds. What is wrong
with an answer is a :class:`~serving.chaos.fault.ProxyFault`; :attr:`FaultProxy.weather` may be changed at any time.
Every request is noted with when it came and how it ended. Entry points: :class:`FaultProxy`, :class:`Arrival`.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import httptools

from serving.chaos.fault import ProxyFault, Weather

#: What the suite writes into a question, so that a request can be known again behind the gateway.
_TAG = re.compile(rb'"(\d+) \+ 1"')
#: Between the last bytes and a reset, which may overtake them.
_BEFORE_RESET_S = 0.02


@dataclass(slots=True)
class Arrival:
    """One request as the proxy saw it; times are the loop's seconds.

    ``ending`` is "" while it is under way, then "whole", "fault" (the proxy saw to it) or "left" (the gateway closed
    the connection first).
    """

    tag: int | None
    at_s: float
    fault: ProxyFault
    ended_s: float | None = None
    ending: str = ""

    def end(self, ending: str, at_s: float) -> None:
        """Note how it ended; only the first time counts."""
        if not self.ending:
            self.ending, self.ended_s = ending, at_s


class FaultProxy:
    """The proxy before one provider.

    Parameters
    ----------
    provider_port : int
        Where the provider listens on loopback.
    seed : int, default=0
        Of the weather.
    once : deque of ProxyFault, optional
        Faults for the next requests, before any weather; several proxies may share one.

    Attributes
    ----------
    weather : Weather
    arrivals : list of Arrival
    n_open : int
        Connections that the gateway holds open.
    port : int
        0 before :meth:`start`.
    """

    def __init__(self, provider_port: int, *, seed: int = 0, once: deque[ProxyFault] | None = None) -> None:
        self.weather = Weather()
        self.arrivals: list[Arrival] = []
        self.n_open = 0
        self.port = 0
        self._provider_port = provider_port
        self._once = once if once is not None else deque()
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[_Downstream] = set()

    async def start(self) -> int:
        """Listen on a free loopback port; return it."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Downstream(self), host="127.0.0.1", port=self.port
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Refuse connections from now on and drop those that are open; :meth:`start` listens on the same port again."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.drop()
        await asyncio.sleep(0)

    def seed(self, seed: int) -> None:
        """Begin the draws of the weather anew."""
        self._random.seed(seed)

    @property
    def n_in_flight(self) -> int:
        """Requests under way."""
        return sum(not arrival.ending for arrival in self.arrivals[-5_000:])

    def arrivals_since(self, at_s: float) -> list[Arrival]:
        """Return the requests that came at or after a moment."""
        return [arrival for arrival in self.arrivals if arrival.at_s >= at_s]

    def next_fault(self) -> ProxyFault:
        """Draw what strikes the next request."""
        return self._once.popleft() if self._once else self.weather.draw(self._random)

    async def reach(self, downstream: _Downstream) -> _Upstream:
        """Open a connection to the provider."""
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: _Upstream(downstream), "127.0.0.1", self._provider_port)
        return upstream

    def opened(self, connection: _Downstream) -> None:
        """Count a connection of the gateway's."""
        self.n_open += 1
        self._connections.add(connection)

    def closed(self, connection: _Downstream) -> None:
        """Count it no more."""
        self.n_open -= 1
        self._connections.discard(connection)


class _Downstream(asyncio.Protocol):
    """One connection of the gateway's, and the answer that is on its way there."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._raw = bytearray()
        self._is_whole = False
        self._arrival: Arrival | None = None
        self._upstream: _Upstream | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._drops = deque[bytes]()
        self._n_sent = 0
        self._n_events = 0
        self._is_over = self._is_answered = False
        self.transport: asyncio.Transport

    # What arrives from the gateway.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._proxy.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("left")
        self._proxy.closed(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._upstream is not None:
            self._upstream.transport.abort()

    def eof_received(self) -> bool:
        return False

    def on_message_complete(self) -> None:
        self._is_whole = True

    def data_received(self, data: bytes) -> None:
        self._raw += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.drop()
            return
        if self._is_whole:
            raw, self._raw, self._is_whole = bytes(self._raw), bytearray(), False
            self._parser = httptools.HttpRequestParser(self)
            self._begin(raw)

    # What is done about it.

    def _begin(self, raw: bytes) -> None:
        found = _TAG.search(raw)
        fault = self._proxy.next_fault()
        self._arrival = Arrival(int(found[1]) if found else None, self._loop.time(), fault)
        self._proxy.arrivals.append(self._arrival)
        self._n_sent = self._n_events = 0
        self._is_over = self._is_answered = False
        self._drops.clear()
        if fault.latency_s:
            self._timer = self._loop.call_later(fault.latency_s, self._act, raw, fault)
        else:
            self._act(raw, fault)

    def _act(self, raw: bytes, fault: ProxyFault) -> None:
        self._timer = None
        if fault.reset_after_bytes == 0:
            self._break(is_reset=True)
        elif fault.is_half_open:
            self._end("fault")
            self.transport.write_eof()
        elif fault.status is not None:
            self._end("fault")
            self.transport.write(_canned(fault.status, fault))
        elif fault.comments_every_s is not None:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._comment(fault.comments_every_s)
        elif not fault.is_black_hole:
            self._forward(raw)

    def _comment(self, every_s: float) -> None:
        self.transport.write(_chunk(b": still here\n\n"))
        self._timer = self._loop.call_later(every_s, self._comment, every_s)

    def _forward(self, raw: bytes) -> None:
        upstream = self._upstream
        if upstream is not None and not upstream.transport.is_closing():
            upstream.ask(raw)
        else:
            self._connecting = self._loop.create_task(self._connect(raw))

    async def _connect(self, raw: bytes) -> None:
        try:
            self._upstream = await self._proxy.reach(self)
        except OSError:
            self._break(is_reset=True)
            return
        self._upstream.ask(raw)

    # What the provider answers.

    def answered(self, data: bytes) -> None:
        """Take bytes of the answer as they come."""
        fault = self._arrival.fault if self._arrival is not None else None
        if self._is_over or fault is None or fault.cut_after_events is not None:
            return
        if fault.drip_bytes is not None:
            self._drops.extend(data[i : i + fault.drip_bytes] for i in range(0, len(data), fault.drip_bytes))
            if self._timer is None:
                self._drip(fault.drip_every_s)
            return
        if fault.reset_after_bytes is not None and self._n_sent + len(data) >= fault.reset_after_bytes:
            data = data[: fault.reset_after_bytes - self._n_sent]
            self._break_soon(is_reset=True)
        self._n_sent += len(data)
        self.transport.write(data)

    def answered_head(self, status: int, content_type: bytes) -> None:
        """Take the head of an answer that is to be cut between events."""
        if self._cuts() is not None:
            head = b"HTTP/1.1 %d OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % (status, content_type)
            self.transport.write(head)

    def answered_event(self, event: bytes) -> None:
        """Take one event of an answer that is to be cut between events."""
        fault = self._cuts()
        if fault is None or self._is_over:
            return
        if fault.mark in event:
            if self._n_events == fault.cut_after_events:
                self._break_soon(is_reset=fault.is_reset)
                return
            self._n_events += 1
        self.transport.write(_chunk(event))

    def answered_whole(self) -> None:
        """Note that the provider has finished."""
        if self._is_over:
            return
        if self._cuts() is not None:
            self.transport.write(b"0\r\n\r\n")
        self._is_answered = True
        if not self._drops:
            self._end("whole")

    def provider_left(self) -> None:
        """Do to the gateway what the provider did."""
        if self._arrival is not None and not self._arrival.ending and not self._is_over:
            self._break(is_reset=False)

    def _cuts(self) -> ProxyFault | None:
        fault = self._arrival.fault if self._arrival is not None else None
        return fault if fault is not None and fault.cut_after_events is not None else None

    def _drip(self, every_s: float) -> None:
        self._timer = None
        if self._drops:
            self.transport.write(self._drops.popleft())
            self._timer = self._loop.call_later(every_s, self._drip, every_s)
        if self._is_answered and not self._drops:
            self._end("whole")

    def _break_soon(self, *, is_reset: bool) -> None:
        self._is_over = True
        self._timer = self._loop.call_later(_BEFORE_RESET_S, lambda: self._break(is_reset=is_reset))

    def _break(self, *, is_reset: bool) -> None:
        self._is_over = True
        self._end("fault")
        if is_reset:
            reset(self.transport)
        else:
            self.transport.close()

    def _end(self, ending: str) -> None:
        if self._arrival is not None:
            self._arrival.end(ending, self._loop.time())

    def drop(self) -> None:
        """Reset the connection."""
        self._end("fault")
        reset(self.transport)


class _Upstream(asyncio.Protocol):
    """One connection to the provider."""

    def __init__(self, downstream: _Downstream) -> None:
        self._downstream = downstream
        self._parser = httptools.HttpResponseParser(self)
        self._content_type = b"application/octet-stream"
        self._rest = b""
        self.transport: asyncio.Transport

    def ask(self, raw: bytes) -> None:
        """Send a request on, as it came."""
        self._rest = b""
        self._parser = httptools.HttpResponseParser(self)
        self.transport.write(raw)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._downstream.answered(data)
        with suppress(httptools.HttpParserError):
            self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._downstream.provider_left()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._content_type = value

    def on_headers_complete(self) -> None:
        self._downstream.answered_head(self._parser.get_status_code(), self._content_type)

    def on_body(self, body: bytes) -> None:
        *events, self._rest = (self._rest + body).split(b"\n\n")
        for event in events:
            self._downstream.answered_event(event + b"\n\n")

    def on_message_complete(self) -> None:
        if self._rest:
            self._downstream.answered_event(self._rest)
        self._downstream.answered_whole()


def reset(transport: asyncio.BaseTransport) -> None:
    """End a connection with RST instead of FIN."""
    connection = transport.get_extra_info("socket")
    with suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()  # type: ignore[attr-defined]


def _canned(status: int, fault: ProxyFault) -> bytes:
    wait = b"" if fault.retry_after_s is None else b"retry-after: %g\r\n" % fault.retry_after_s
    head = b"HTTP/1.1 %d Fault\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n"
    return head % (status, fault.content_type.encode(), wait, len(fault.body)) + fault.body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
