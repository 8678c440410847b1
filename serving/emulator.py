"""Emulated providers on loopback: all four dialects without any LLM, able to fail on request.

Everything it sends says that it is emulated: the text (but for scripts), the header ``x-turnout-emulated``, the
model list. It keeps no prompt. It is what the demo settings serve from and what the tests call. Where it listens for
what: :mod:`serving.emulated_endpoints`; how to make it fail: :mod:`serving.emulated_faults`; how to put words into its
mouth: :mod:`serving.emulated_scripts`, :mod:`serving.emulated_replays`. ``GET /emulator/requests`` counts what it saw,
a client that left included.

::

    body ──read_request──▶ Conversation ──answer_of──▶ Answer, timed ──write_answer / writer──▶ Delivery ──▶ client
                                ▲                                                                  ▲
                          tolerance of providers                                                 Fault

Entry points: :class:`Emulator` (a plain ASGI application), :class:`EmulatorServer` (it, listening).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving import logs
from serving.dialects.answer import Answer, UsageSeen, events_of
from serving.dialects.chat.dialect import CHAT
from serving.dialects.dialect import Dialect, Reply
from serving.dialects.gemini.dialect import GEMINI
from serving.dialects.messages.dialect import MESSAGES
from serving.edge import Limits, Receive, Scope, Send, read_body, send_error
from serving.emulated_answers import CANDIDATES, CHARACTERS_PER_TOKEN, answer_of, n_input_tokens_of
from serving.emulated_delivery import LABEL, Cut, Delivery, Patience, send_failure, send_json
from serving.emulated_embeddings import gemini_embedding, gemini_embeddings, openai_embeddings
from serving.emulated_endpoints import Endpoint, Service, conversation_of, endpoint_of
from serving.emulated_faults import NO_FAULT, StickyFaults, fault_of
from serving.emulated_replays import Replays
from serving.emulated_scripts import Scripts
from serving.emulated_wire import Stamp, chunks_of, completion_of, models_of
from serving.errors import ClientDisconnected, GatewayError, InvalidRequest, NotFound

_LIMITS = Limits(max_body_bytes=64 * 2**20)
#: The dialects whose providers sign a call and not the reasoning before it.
_SIGNS_CALLS = (CHAT, GEMINI)
_COUNTS = {"messages": "input_tokens", "responses": "input_tokens", "gemini": "totalTokens"}


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
    path: str
    query: str


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
        self.scripts = Scripts()
        self.replays = Replays()
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
            endpoint = endpoint_of(scope["path"]) if scope["method"] == "POST" else None
            if endpoint is None:
                await self._control(scope, body, send)
                return
            try:
                await self._serve(endpoint, scope, body, receive, send)
            except ClientDisconnected:
                return
            except GatewayError as error:
                await send_failure(send, endpoint.dialect, error)
        except (ClientDisconnected, Cut):
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

    async def _control(self, scope: Scope, body: bytes, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "GET", "/v1/models":
                await send_json(send, models_of([row.name for row in CANDIDATES]))
            case "POST", "/emulator/faults":
                await send_json(send, self._put_fault(_object(body)))
            case "POST", "/emulator/script":
                await send_json(send, self._put_script(_object(body)))
            case "GET", "/emulator/requests":
                await send_json(send, self.counts())
            case _:
                raise NotFound("an emulated provider has no such path", code="not_found")

    def _put_fault(self, asked: dict[str, object]) -> dict[str, object]:
        model, times = _model_or_star(asked), asked.get("times")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise InvalidRequest("times must be a whole number, at least 1, or null", param="times")
        fault = fault_of(asked.get("fault"), "fault")
        self.faults.put(model, None if fault == NO_FAULT else fault, times)
        return {"model": model, "fault": asdict(fault), "times": times}

    def _put_script(self, asked: dict[str, object]) -> dict[str, object]:
        model = _model_or_star(asked)
        if "steps" not in asked:
            raise InvalidRequest("steps must be a list of at least one step, or null", param="steps")
        self.scripts.put(model, asked["steps"])
        return {"model": model, "steps": asked["steps"]}

    async def _serve(self, endpoint: Endpoint, scope: Scope, raw: bytes, receive: Receive, send: Send) -> None:
        body = _object(raw)
        model = endpoint.model or body.get("model")
        if not isinstance(model, str) or not model:
            raise InvalidRequest("model must be the name of a model", param="model")
        if endpoint.is_stream and endpoint.dialect is GEMINI and b"alt=sse" not in scope["query_string"]:
            raise InvalidRequest("an emulated provider streams with alt=sse only", param="alt")
        if self._n_kept:
            query = scope["query_string"].decode("latin-1")
            received = Received(tuple(scope["headers"]), raw, scope["path"], query)
            self.received = [*self.received, received][-self._n_kept :]
        asked = fault_of(body.pop("emulate", None))
        with self._counted(model):
            patience = Patience(receive, self._stop_event())
            try:
                replay = self.replays.take(model)
                if replay is not None:
                    await Delivery(send, patience, endpoint.dialect, NO_FAULT).replay(replay)
                    return
                fault = asked if asked != NO_FAULT else self.faults.take(model)
                delivery = Delivery(send, patience, endpoint.dialect, fault)
                if not await delivery.fails_at_once():
                    await self._answer(endpoint, model, body, delivery)
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

    async def _answer(self, endpoint: Endpoint, model: str, body: dict[str, object], delivery: Delivery) -> None:
        if endpoint.service is not Service.ANSWER:
            await delivery.whole(orjson.dumps(_served(endpoint, model, body)), 0)
            return
        conversation = conversation_of(endpoint, body)
        step = self.scripts.step_for(model, conversation)
        timed = answer_of(model, conversation, step, signs_calls=endpoint.dialect in _SIGNS_CALLS)
        reply = Reply(f"req_emulated{next(self._ids)}", model, int(time.time()), body)
        is_stream = conversation.is_stream if endpoint.is_stream is None else endpoint.is_stream
        if is_stream:
            events = _events(endpoint.dialect, timed.answer, reply)
            await delivery.stream(events, timed.first_token_s * self._speed, self._speed / timed.tokens_per_s)
        else:
            await delivery.whole(_whole(endpoint.dialect, timed.answer, reply), timed.total_s * self._speed)


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
        For tests: counts, faults, scripts, replays, requests received.
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


def _served(endpoint: Endpoint, model: str, body: dict[str, object]) -> Mapping[str, object]:
    """Return the answer of an endpoint that is no answer of a model."""
    if endpoint.service is Service.EMBED_MANY:
        return gemini_embeddings(body)
    if endpoint.service is Service.EMBED:
        return gemini_embedding(body) if endpoint.dialect is GEMINI else openai_embeddings(model, body)
    counted = {_COUNTS[endpoint.dialect.name]: n_input_tokens_of(conversation_of(endpoint, body))}
    return {"object": "response.input_tokens", **counted} if endpoint.dialect.name == "responses" else counted


def _whole(dialect: Dialect, answer: Answer, reply: Reply) -> bytes:
    if dialect is CHAT:
        return completion_of(_stamp(reply), answer)
    return orjson.dumps(dialect.write_answer(answer, reply))


def _events(dialect: Dialect, answer: Answer, reply: Reply) -> list[bytes]:
    """Return the events of a stream one by one, however many its writer writes at once."""
    if dialect is CHAT:
        options = reply.request.get("stream_options")
        has_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return chunks_of(_stamp(reply), answer, has_usage=has_usage)
    writer = dialect.writer(reply)
    if dialect is MESSAGES:  # whose first event already tells what was read
        writer.write(UsageSeen(replace(answer.usage, output_tokens=1, reasoning_tokens=None)))
    written = b"".join(writer.write(event) for event in events_of(answer, CHARACTERS_PER_TOKEN))
    return [event + b"\n\n" for event in written.split(b"\n\n")[:-1]]


def _stamp(reply: Reply) -> Stamp:
    return Stamp(f"chatcmpl-{reply.id.removeprefix('req_')}", reply.created_unix_s, reply.model)


def _model_or_star(asked: Mapping[str, object]) -> str:
    model = asked.get("model")
    if not isinstance(model, str) or not model:
        raise InvalidRequest('model must be a name, or "*"', param="model")
    return model


def _object(body: bytes) -> dict[str, object]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("the body is not JSON", code="invalid_json") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    return value
