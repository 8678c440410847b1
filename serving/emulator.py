"""Emulated providers on loopback: OpenAI Chat Completions without any LLM, able to fail on request.

Everything it sends says that it is emulated: the text, the header ``x-turnout-emulated``, the model list. It
keeps no prompt. It is what the demo settings serve from and what the tests call. How to make it fail:
:mod:`serving.emulated_faults`; ``GET /emulator/requests`` counts what it saw, a client that left included.

Entry points: :class:`Emulator` (a plain ASGI application), :class:`EmulatorServer` (it, listening).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving import logs
from serving.edge import Limits, Message, Receive, Scope, Send, read_body, send_error
from serving.emulated_answers import CANDIDATES, Answer, answer_of
from serving.emulated_faults import NO_FAULT, Fault, StickyFaults, fault_of
from serving.emulated_wire import Stamp, completion_of, events_of, models_of, refusal_of
from serving.errors import ClientDisconnected, GatewayError, InvalidRequest, NotFound

LABEL = (b"x-turnout-emulated", b"true")
_LIMITS = Limits(max_body_bytes=64 * 2**20)
_JSON, _SSE = b"application/json", b"text/event-stream; charset=utf-8"


@dataclass(slots=True)
class Seen:
    """What one model was asked: counts only."""

    n_requests: int = 0
    n_in_flight: int = 0
    n_cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived, kept only for tests that ask for it."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Cut(Exception):
    """The connection is to be dropped here."""


class Emulator:
    """The ASGI application.

    Parameters
    ----------
    speed : float, default=1.0
        Factor on every made-up duration: 0.1 is ten times quicker, 0 never sleeps. Faults keep their own times.
    n_kept : int, default=0
        How many requests to keep in ``received``, newest last; for tests.
    """

    def __init__(self, *, speed: float = 1.0, n_kept: int = 0) -> None:
        self.received: list[Received] = []
        self.seen: dict[str, Seen] = {}
        self.faults = StickyFaults()
        self._speed = speed
        self._n_kept = n_kept
        self._ids = count(1)
        self._stopping: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            body = await read_body(scope, receive, _LIMITS)
            match scope["method"], scope["path"]:
                case "POST", "/v1/chat/completions":
                    await self._chat(scope, body, receive, send)
                case "GET", "/v1/models":
                    await _send_json(send, models_of([row.name for row in CANDIDATES]))
                case "POST", "/emulator/faults":
                    await _send_json(send, self._put_fault(_object(body)))
                case "GET", "/emulator/requests":
                    await _send_json(send, self.counts())
                case _:
                    raise NotFound("an emulated provider has no such path", code="not_found")
        except (ClientDisconnected, _Cut):
            return
        except GatewayError as error:
            await send_error(send, error, [LABEL])

    def counts(self) -> dict[str, object]:
        """Return what was seen: in all, and by model."""
        by_model = {model: asdict(seen) for model, seen in self.seen.items()}
        total = {
            name: sum(seen[name] for seen in by_model.values()) for name in ("n_requests", "n_in_flight", "n_cancelled")
        }
        return {**total, "models": by_model}

    def stop(self) -> None:
        """Let every wait end now."""
        self._stop_event().set()

    def _stop_event(self) -> asyncio.Event:
        if self._stopping is None:
            self._stopping = asyncio.Event()
        return self._stopping

    def _put_fault(self, asked: dict[str, object]) -> dict[str, object]:
        model, times = asked.get("model"), asked.get("times")
        if not isinstance(model, str) or not model:
            raise InvalidRequest('model must be a name, or "*"', param="model")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise InvalidRequest("times must be a whole number, at least 1, or null", param="times")
        fault = fault_of(asked.get("fault"), "fault")
        self.faults.put(model, None if fault == NO_FAULT else fault, times)
        return {"model": model, "fault": asdict(fault), "times": times}

    async def _chat(self, scope: Scope, raw: bytes, receive: Receive, send: Send) -> None:
        body = _object(raw)
        model = body.get("model")
        if not isinstance(model, str) or not isinstance(body.get("messages"), list):
            raise InvalidRequest("model and messages are required", param="messages")
        if self._n_kept:
            self.received = [*self.received, Received(tuple(scope["headers"]), raw)][-self._n_kept :]
        asked = fault_of(body.get("emulate"))
        fault = asked if asked != NO_FAULT else self.faults.take(model)
        with self._counted(model):
            patience = _Patience(receive, self._stop_event())
            try:
                await self._answer(model, body, fault, patience, send)
            finally:
                patience.end()

    @contextmanager
    def _counted(self, model: str) -> Iterator[None]:
        seen = self.seen.setdefault(model, Seen())
        seen.n_requests += 1
        seen.n_in_flight += 1
        try:
            yield
        except (ClientDisconnected, asyncio.CancelledError):
            seen.n_cancelled += 1
            raise
        finally:
            seen.n_in_flight -= 1

    async def _answer(self, model: str, body: dict[str, object], fault: Fault, patience: _Patience, send: Send) -> None:
        if fault.delay_s:
            await patience.wait(fault.delay_s)
        if fault.hang:
            await patience.wait(None)
        if fault.redirect:
            await _send_head(send, 302, _JSON, 0, (b"location", b"/elsewhere"))
            await send({"type": "http.response.body", "body": b""})
            return
        if fault.status is not None:
            await _send_refusal(send, fault, fault.status)
            return
        answer = answer_of(model, body)
        stamp = Stamp(f"chatcmpl-emulated-{next(self._ids)}", int(time.time()), model)
        if body.get("stream"):
            options = body.get("stream_options")
            has_usage = isinstance(options, dict) and bool(options.get("include_usage"))
            await self._stream(events_of(stamp, answer, has_usage=has_usage), answer, fault, patience, send)
        else:
            seconds = answer.first_token_s + answer.output_tokens / answer.tokens_per_s
            await patience.wait(seconds * self._speed)
            await _send_whole(completion_of(stamp, answer), fault, send)

    async def _stream(
        self,
        events: list[bytes],
        answer: Answer,
        fault: Fault,
        patience: _Patience,
        send: Send,
    ) -> None:
        await patience.wait(answer.first_token_s * self._speed)
        extra = (b"content-encoding", b"gzip") if fault.compressed else (b"cache-control", b"no-cache")
        await _send_head(send, 200, _SSE, None, extra)
        pause_s = self._speed / answer.tokens_per_s + fault.event_delay_s
        # A truncated stream lacks the finish chunk and whatever would follow it.
        if fault.truncate:
            events = events[: len(events) // 2]
        for n, event in enumerate(events):
            if fault.cut_after_events == n:
                raise _Cut
            if fault.hang_after_events == n:
                await patience.wait(None)
            if fault.error_after_events == n:
                await _send_event(send, refusal_of(500, None))
                break
            if n:
                await patience.wait(pause_s)
            await _send_event(send, b"{not json" if fault.garbage and n == 1 else event)
        await send({"type": "http.response.body", "body": b""})


class EmulatorServer:
    """The emulator listening on a loopback port, as a few callbacks on the running loop.

    It takes no signal, starts no thread and does not poll, so it can live in the gateway's process.

    Parameters
    ----------
    port : int, default=0
        0 takes a free one.
    speed : float, default=1.0
        As for :class:`Emulator`.
    n_kept : int, default=0
        As for :class:`Emulator`.

    Attributes
    ----------
    app : Emulator
        For tests: counts, faults, requests received.
    base_url : str
        Up to and with ``/v1``; "" before :meth:`start`.
    """

    def __init__(self, *, port: int = 0, speed: float = 1.0, n_kept: int = 0) -> None:
        self.app = Emulator(speed=speed, n_kept=n_kept)
        self.base_url = ""
        self._port = port
        self._server: asyncio.Server | None = None
        self._state = ServerState()

    async def start(self) -> str:
        """Listen; return the base URL.

        Raises
        ------
        OSError
            If the port is taken.
        """
        config = uvicorn.Config(
            self.app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_keep_alive=75
        )
        config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _QuietProtocol(config, self._state, {}), host="127.0.0.1", port=self._port
        )
        port: int = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        logs.event("emulator_started", {"host": "127.0.0.1", "port": port, "is_emulated": True})
        return self.base_url

    async def stop(self) -> None:
        """Stop listening and end every connection. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self.app.stop()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=1.0)
        for connection in list(self._state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.transport.abort()
        await asyncio.sleep(0)  # let the transports say that they are gone


class _QuietProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which must not complain in the log about answers cut on purpose."""

    def __init__(self, config: uvicorn.Config, state: ServerState, app_state: dict[str, object]) -> None:
        super().__init__(config, state, app_state)
        self.logger = logging.getLogger("turnout.emulator.http")
        self.logger.setLevel(logging.CRITICAL)


class _Patience:
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
            raise _Cut
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


async def _send_whole(body: bytes, fault: Fault, send: Send) -> None:
    if fault.garbage:
        body = b"<html><body>502 Bad Gateway</body></html>"
    if fault.truncate:
        body = body[: len(body) // 2]
    extra = (b"content-encoding", b"gzip") if fault.compressed else None
    await _send_head(send, 200, _JSON, len(body), extra)
    if fault.cut_after_events is not None:
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        raise _Cut
    await send({"type": "http.response.body", "body": body})


async def _send_refusal(send: Send, fault: Fault, status: int) -> None:
    body = refusal_of(status, fault.code)
    wait = None if fault.retry_after_s is None else (b"retry-after", b"%g" % fault.retry_after_s)
    await _send_head(send, status, _JSON, len(body), wait)
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, value: object) -> None:
    body = orjson.dumps(value)
    await _send_head(send, 200, _JSON, len(body), None)
    await send({"type": "http.response.body", "body": body})


async def _send_head(
    send: Send, status: int, content_type: bytes, n_bytes: int | None, extra: tuple[bytes, bytes] | None
) -> None:
    headers = [(b"content-type", content_type), LABEL, (b"x-request-id", b"req-emulated")]
    if n_bytes is not None:
        headers.append((b"content-length", b"%d" % n_bytes))
    if extra is not None:
        headers.append(extra)
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_event(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})


def _object(body: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("the body is not JSON", code="invalid_json") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return value
