"""An emulated answer on its way to the client, with whatever goes wrong there.

Entry points: :class:`Delivery`, :class:`Patience`, :class:`Cut`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from serving.dialects.dialect import Dialect
from serving.dialects.gemini.dialect import GEMINI
from serving.edge import Message, Receive, Send
from serving.emulated_faults import EmulatedFailure, Fault
from serving.emulated_replays import Replay
from serving.errors import ClientDisconnected, GatewayError

LABEL = (b"x-turnout-emulated", b"true")
REQUEST_ID = "req-emulated"
_JSON, _SSE = b"application/json", b"text/event-stream; charset=utf-8"
#: Between the chunks of a replay: enough for each to be read by itself.
_APART_S = 0.002


class Cut(Exception):
    """The connection is to be dropped here."""


class Patience:
    """Waits that end early, with an exception, when the client leaves or the server stops."""

    def __init__(self, receive: Receive, stopping: asyncio.Event) -> None:
        self._receive = receive
        self._stopping = stopping
        self._watches: tuple[asyncio.Task[object], ...] = ()

    async def wait(self, seconds: float | None) -> None:
        """Wait so long, None for ever; not at all for 0."""
        if seconds == 0:
            return
        if not self._watches:
            self._watches = (
                asyncio.create_task(self._gone(), name="client gone"),
                asyncio.create_task(self._stopping.wait(), name="emulator stops"),
            )
        done, _ = await asyncio.wait(self._watches, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._watches[1] in done:
            raise Cut
        if done:
            raise ClientDisconnected("the client left")

    def end(self) -> None:
        """Stop watching."""
        for watch in self._watches:
            watch.cancel()

    async def _gone(self) -> None:
        message: Message = {"type": "http.request"}
        while message["type"] != "http.disconnect":
            message = await self._receive()


class Delivery:
    """One answer in one dialect, under one fault.

    Parameters
    ----------
    send : Send
    patience : Patience
    dialect : Dialect
        Of errors.
    fault : Fault
    """

    def __init__(self, send: Send, patience: Patience, dialect: Dialect, fault: Fault) -> None:
        self._send = send
        self._patience = patience
        self._dialect = dialect
        self._fault = fault

    async def fails_at_once(self) -> bool:
        """Let go wrong what does before an answer; say whether that was all."""
        fault = self._fault
        if fault.delay_s:
            await self._patience.wait(fault.delay_s)
        if fault.hang:
            await self._patience.wait(None)
        if fault.redirect:
            await send_head(self._send, 302, _JSON, 0, (b"location", b"/elsewhere"))
            await self._send({"type": "http.response.body", "body": b""})
        elif fault.status is not None:
            failure = EmulatedFailure(fault.status, fault.code, fault.retry_after_s)
            await send_failure(self._send, self._dialect, failure)
        return fault.redirect or fault.status is not None

    async def whole(self, body: bytes, after_s: float) -> None:
        """Send an unstreamed answer."""
        await self._patience.wait(after_s)
        if self._fault.garbage:
            body = b"<html><body>502 Bad Gateway</body></html>"
        if self._fault.truncate:
            body = body[: len(body) // 2]
        extra = (b"content-encoding", b"gzip") if self._fault.compressed else None
        await send_head(self._send, 200, _JSON, len(body), extra)
        if self._fault.cut_after_events is not None:
            await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            raise Cut
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, events: Sequence[bytes], after_s: float, pause_s: float) -> None:
        """Send a streamed answer, a write for every event."""
        fault = self._fault
        await self._patience.wait(after_s)
        extra = (b"content-encoding", b"gzip") if fault.compressed else (b"cache-control", b"no-cache")
        await send_head(self._send, 200, _SSE, None, extra)
        if fault.truncate:
            events = events[: len(events) // 2]
        garbled = min(1, len(events) - 1) if fault.garbage else None
        for n, event in enumerate(events):
            if fault.cut_after_events == n:
                raise Cut
            if fault.hang_after_events == n:
                await self._patience.wait(None)
            if fault.error_after_events == n:
                await self._write(self._dialect.error_event(EmulatedFailure(500), REQUEST_ID))
                break
            if n:
                await self._patience.wait(pause_s + fault.event_delay_s)
            await self._write(_garbled(event) if n == garbled else event)
        await self._send({"type": "http.response.body", "body": b""})

    async def replay(self, replay: Replay) -> None:
        """Send exactly these bytes, a write for every chunk."""
        head = {"type": "http.response.start", "status": replay.status, "headers": [LABEL, *replay.headers]}
        await self._send(head)
        for chunk in replay.chunks:
            await self._write(chunk)
            await self._patience.wait(_APART_S)
        if replay.is_cut:
            raise Cut
        await self._send({"type": "http.response.body", "body": b""})

    async def _write(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})


async def send_failure(send: Send, dialect: Dialect, error: GatewayError) -> None:
    """Answer with an error as providers of a dialect do; Gemini says in the body alone how long to wait."""
    body = orjson.dumps(dialect.write_error(error, REQUEST_ID))
    seconds = None if dialect is GEMINI else error.retry_after_s
    wait = None if seconds is None else (b"retry-after", b"%g" % seconds)
    await send_head(send, error.status, _JSON, len(body), wait)
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: object) -> None:
    """Answer with a JSON value."""
    body = orjson.dumps(value)
    await send_head(send, 200, _JSON, len(body), None)
    await send({"type": "http.response.body", "body": body})


async def send_head(
    send: Send, status: int, content_type: bytes, n_bytes: int | None, extra: tuple[bytes, bytes] | None
) -> None:
    """Send status and headers; the request's id under both names that providers give it."""
    request_id = REQUEST_ID.encode()
    headers = [(b"content-type", content_type), LABEL, (b"x-request-id", request_id), (b"request-id", request_id)]
    if n_bytes is not None:
        headers.append((b"content-length", b"%d" % n_bytes))
    if extra is not None:
        headers.append(extra)
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _garbled(event: bytes) -> bytes:
    """Return an event of the same name whose data is no JSON."""
    return event[: event.index(b"data: ")] + b"data: {not json\n\n"
