"""A client that sees everything: raw HTTP/1.1 on loopback, when each byte came, and how the connection ended.

It keeps connections for the next request, as clients do, and can leave whenever it is told to. Entry points:
:class:`Client`, :class:`Ask`, :class:`Reply`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httptools

from serving.chaos.fault_proxy import reset

#: A kept connection older than this is not used again: servers close idle ones without asking.
_KEPT_S = 2.0
_BETWEEN_TWO_CANCELS_S = 0.01


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Parameters
    ----------
    body : bytes
    path : str
    method : str
    headers : tuple of (str, str)
        Besides host, length, type and key.
    timeout_s : float
        The client's patience for the whole of it.
    mark : bytes
        When bytes that hold it first came is noted.
    leave_after_s : float or None
        Leave so long after the request was written.
    leave_after_reads : int or None
        Leave after so many reads of the answer's body.
    is_double : bool
        Leave by closing the sending side first, and the rest a moment later.
    n_sent : int or None
        Send only so many bytes of the whole request, head included, before leaving.
    raw : bytes
        Sent in the place of all that; on a connection of its own.
    """

    body: bytes = b""
    path: str = "/v1/chat/completions"
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 30.0
    mark: bytes = b""
    leave_after_s: float | None = None
    leave_after_reads: int | None = None
    is_double: bool = False
    n_sent: int | None = None
    raw: bytes = b""


@dataclass(slots=True)
class Reply:
    """What came of a request; times are the loop's seconds, None is "never".

    ``ending``: "whole", "closed" (the server ended the connection early), "reset", "refused" (no connection), "left"
    (we did), "timeout" (our patience ended).
    """

    began_s: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ending: str = ""
    ended_s: float = 0.0
    first_s: float | None = None
    marked_s: float | None = None
    read_s: list[float] = field(default_factory=list)

    @property
    def total_s(self) -> float:
        """How long all of it took."""
        return self.ended_s - self.began_s

    def longest_gap_s(self) -> float:
        """Return the longest pause between two reads of the body."""
        return max((b - a for a, b in zip(self.read_s, self.read_s[1:], strict=False)), default=0.0)


class Client:
    """Somebody who asks one server.

    Parameters
    ----------
    port : int
        On loopback.
    key : str
        Shown as a bearer token, where there is one.
    """

    def __init__(self, port: int, key: str = "") -> None:
        self._port = port
        self._kept: list[_Line] = []
        self._common = f"host: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        if key:
            self._common += f"authorization: Bearer {key}\r\n"

    async def ask(self, ask: Ask, reply: Reply | None = None) -> Reply:
        """Send one request and wait for what comes of it; never raises for the server's sake.

        Parameters
        ----------
        ask : Ask
        reply : Reply or None
            Filled as things come, for those who watch; None makes one.

        Returns
        -------
        Reply
        """
        loop = asyncio.get_running_loop()
        reply = reply or Reply(0.0)
        reply.began_s = loop.time()
        try:
            line = await self._line(ask)
        except (OSError, TimeoutError):
            reply.ending, reply.ended_s = "refused", loop.time()
            return reply
        done = line.begin(reply, ask)
        data = ask.raw or self._written(ask)
        line.transport.write(data if ask.n_sent is None else data[: ask.n_sent])
        if ask.leave_after_s is not None:
            line.timers.append(loop.call_later(ask.leave_after_s, line.leave))
        line.timers.append(loop.call_later(ask.timeout_s, line.give_up))
        try:
            await done
        except asyncio.CancelledError:
            line.transport.abort()
            raise
        if reply.ending == "whole" and not ask.raw and line.keeps_alive():
            line.idle_since_s = loop.time()
            self._kept.append(line)
        elif reply.ending != "left":
            line.transport.abort()
        return reply

    async def get(self, path: str) -> Reply:
        """Ask for a page."""
        return await self.ask(Ask(path=path, method="GET"))

    def head(self) -> str:
        """Return the header lines that every request begins with."""
        return self._common

    def close(self) -> None:
        """Drop the connections kept."""
        for line in self._kept:
            line.transport.abort()
        self._kept.clear()

    async def _line(self, ask: Ask) -> _Line:
        """Return a kept connection that is still good, or a new one."""
        loop = asyncio.get_running_loop()
        while self._kept and not ask.raw:
            line = self._kept.pop()
            if not line.transport.is_closing() and loop.time() - line.idle_since_s < _KEPT_S:
                return line
            line.transport.abort()
        async with asyncio.timeout(ask.timeout_s):
            _, line = await loop.create_connection(_Line, "127.0.0.1", self._port)
        return line

    def _written(self, ask: Ask) -> bytes:
        more = "".join(f"{name}: {value}\r\n" for name, value in ask.headers)
        head = f"{ask.method} {ask.path} HTTP/1.1\r\n{self._common}{more}content-length: {len(ask.body)}\r\n\r\n"
        return head.encode("latin-1") + ask.body


class _Line(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self) -> None:
        self.timers: list[asyncio.TimerHandle] = []
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._reply = Reply(0.0)
        self._ask = Ask()
        self._is_kept = False
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._parser = httptools.HttpResponseParser(self)

    def begin(self, reply: Reply, ask: Ask) -> asyncio.Future[None]:
        """Wait for the answer to one request."""
        self._reply, self._ask, self._is_kept = reply, ask, False
        self._done = self._loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        return self._done

    def keeps_alive(self) -> bool:
        """Say whether another request may follow."""
        return self._is_kept and not self.transport.is_closing()

    def leave(self) -> None:
        """Go away, as a client does that has lost interest."""
        if self._done.done():
            return
        if self._ask.is_double:
            with suppress(OSError, RuntimeError):
                self.transport.write_eof()
            self._loop.call_later(_BETWEEN_TWO_CANCELS_S, reset, self.transport)
        else:
            self.transport.abort()
        self._end("left")

    def give_up(self) -> None:
        """Note that our patience has ended."""
        self._end("timeout")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("reset" if isinstance(exc, ConnectionError) else "closed")

    def data_received(self, data: bytes) -> None:
        if self._done.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end("closed")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        # Known now and no longer when the message is complete.
        self._is_kept = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        reply, now_s = self._reply, self._loop.time()
        if reply.first_s is None:
            reply.first_s = now_s
        if reply.marked_s is None and self._ask.mark and self._ask.mark in body:
            reply.marked_s = now_s
        reply.read_s.append(now_s)
        reply.body += body
        if self._ask.leave_after_reads is not None and len(reply.read_s) >= self._ask.leave_after_reads:
            self.leave()

    def on_message_complete(self) -> None:
        self._end("whole")

    def _end(self, ending: str) -> None:
        if self._done.done():
            return
        self._reply.ending, self._reply.ended_s = ending, self._loop.time()
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
        self._done.set_result(None)


def endings_of(replies: Sequence[Reply]) -> dict[str, int]:
    """Count replies by ending."""
    counts: dict[str, int] = {}
    for reply in replies:
        counts[reply.ending] = counts.get(reply.ending, 0) + 1
    return counts
