"""The composition root: settings in, one ASGI application out.

The hot path is a plain ASGI endpoint found by a dictionary; everything else is FastAPI. Around both stands
:class:`~serving.edge.Edge`. Nothing is opened before the lifespan begins; what it opens it closes. There is never a
``BaseHTTPMiddleware`` around a stream.

Entry point: :func:`create_app`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from router.errors import RouterError
from serving import heap, logs
from serving.api_page import PAGE_HEADERS, describe, page
from serving.client_api import CLIENT_APIS, MESSAGES_PATH
from serving.control_api import control_api
from serving.counting import count_tokens
from serving.dialects.messages.dialect import MESSAGES
from serving.edge import Edge, Limits, Message, Receive, Scope, Send
from serving.emulator import EmulatorServer
from serving.endpoints import Endpoint, note_refused
from serving.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, NotLocal, Unauthenticated
from serving.experiment_api import experiment_api
from serving.experiments import Experiments
from serving.expiry import Expiry
from serving.exploring import restore
from serving.feedback import FeedbackStore
from serving.feedback_api import feedback_api
from serving.gateway import Gateway
from serving.log_settings import LogSettings
from serving.pool import Pool
from serving.providers.upstream import AiohttpUpstream, Upstream
from serving.reasoning_states import ReasoningStates
from serving.records import RecordStore
from serving.reload import Reloader
from serving.settings import Settings, state_secret
from serving.state import State, build
from serving.storage.storage import NullStorage, SqliteStorage, Storage
from serving.turns import quick_turns


class Application:
    """The gateway as an ASGI application; made by :func:`create_app`.

    Attributes
    ----------
    gateway : Gateway
    failure : Exception or None
        Why it could not start: of the settings, the bundle or the system.
    start_s : float or None
        How long starting took.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings],
        upstream: Upstream,
        storage: Storage,
        emulator: EmulatorServer,
    ) -> None:
        self._settings = settings
        self._reread = reread
        self.emulator = emulator
        self.storage = storage
        states = ReasoningStates(state_secret(settings))
        self.gateway = Gateway(upstream, Pool({}), storage.records, states, feedback=storage.feedback)
        self.experiments = Experiments(self.gateway, storage.experiments)
        self.reloader = Reloader(self.gateway, self._rebuild)
        self.failure: Exception | None = None
        self.start_s: float | None = None
        limits = Limits(
            max_body_bytes=settings.server.max_body_bytes, receive_timeout_s=settings.server.receive_timeout_s
        )
        self.limits = limits
        self._hot = _endpoints(self.gateway, limits)
        self._api = _api(self)
        self._edge = Edge(self._dispatch, limits, {path: hot.write_error for path, hot in self._hot.items()})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection, or the lifespan."""
        await self._edge(scope, receive, send)

    def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._hot.get(scope["path"], self._api)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Speak ASGI's lifespan protocol; a failure is kept for whoever started us, not sent as a traceback."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.lifespan())
            except (GatewayError, RouterError, OSError) as error:
                self.failure = error
                await send({"type": "lifespan.startup.failed", "message": ""})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open everything, load everything, serve, close everything."""
        began_at = time.perf_counter()
        gateway = self.gateway
        async with AsyncExitStack() as stack:
            await gateway.upstream.open()
            stack.push_async_callback(gateway.upstream.close)
            self.storage.open()
            stack.callback(self.storage.close)
            stack.callback(gateway.shadow.close)
            stack.push_async_callback(self.emulator.stop)
            gateway.swap(await self._build(self._settings))
            beside = [self.reloader.run(), self.experiments.run(), Expiry(self.storage, self._log_settings).run()]
            stack.push_async_callback(_stop, *map(asyncio.create_task, beside))
            if threading.current_thread() is threading.main_thread():
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGHUP, self.reloader.ask)
                stack.callback(loop.remove_signal_handler, signal.SIGHUP)
            await self._warm_up()
            await asyncio.to_thread(heap.trim)
            self.start_s = time.perf_counter() - began_at
            logs.event("ready", self._facts())
            yield
            gateway.state = None

    def _log_settings(self) -> LogSettings:
        """Return the present ones."""
        state = self.gateway.state
        return (self._settings if state is None else state.settings).log

    async def _warm_up(self) -> None:
        """Call the control API once: it is put together at its first call, and nobody's stream shall wait for that."""

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None: ...

        head = {"type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "query_string": b""}
        await self._api({**head, "path": "/healthz", "raw_path": b"/healthz", "headers": []}, receive, send)

    async def _rebuild(self) -> State:
        return await self._build(await asyncio.to_thread(self._reread))

    async def _build(self, settings: Settings) -> State:
        if not self.emulator.base_url and any(provider.emulated for provider in settings.providers):
            await self.emulator.start()
        # The socket is bound once: what a reloaded file says of the host opens and closes nothing.
        host = self._settings.server.host
        made = partial(build, settings, self.emulator.base_url or None, host=host, before=self.gateway.state)
        with quick_turns():
            state = await asyncio.to_thread(made)
        if state.explores:
            await restore(self.gateway.exploration, self.gateway.records, time.time())
        return await self.experiments.prepared(state)

    def _facts(self) -> dict[str, str | int | float | bool | None]:
        state = self.gateway.ready()
        return {
            "host": state.settings.server.host,
            "bundle": state.bundle_id,
            "settings": str(state.settings.source),
            "n_candidates": len(state.candidates),
            "n_keys": len(state.settings.keys),
            "is_emulated": any(deployment.is_emulated for deployment in state.deployments.values()),
            "start_s": self.start_s,
        }


def create_app(
    settings: Settings,
    *,
    reread: Callable[[], Settings] | None = None,
    upstream: Upstream | None = None,
    records: RecordStore | None = None,
    emulator: EmulatorServer | None = None,
    feedback: FeedbackStore | None = None,
) -> Application:
    """Put the gateway together; nothing is opened until its lifespan begins.

    Parameters
    ----------
    settings : Settings
    reread : callable, optional
        Reads the settings again for a reload; default: they stay, and only the bundle is read again.
    upstream : Upstream, optional
        Default: aiohttp.
    records : RecordStore, optional
        Keeps records in the place of the settings' database, which then is not opened.
    emulator : EmulatorServer, optional
        Started only when a provider is emulated.
    feedback : FeedbackStore, optional
        Beside records that are given: keeps feedback, default none.

    Returns
    -------
    Application
    """
    path = settings.database_path()
    storage: Storage = NullStorage(records, feedback) if records is not None or path is None else SqliteStorage(path)
    return Application(
        settings, reread or (lambda: settings), upstream or AiohttpUpstream(), storage, emulator or EmulatorServer()
    )


def _endpoints(gateway: Gateway, limits: Limits) -> dict[str, Endpoint]:
    """Return the hot path: every path that answers, and what serves it."""
    hot = {
        api.path: Endpoint(gateway, limits, api.path, api.dialect, partial(gateway.answer, api), api.ping)
        for api in CLIENT_APIS.values()
    }
    counting = f"{MESSAGES_PATH}/count_tokens"
    hot[counting] = Endpoint(gateway, limits, counting, MESSAGES, partial(count_tokens, gateway))
    return hot


def _api(application: Application) -> FastAPI:
    api = FastAPI(
        title="Turnout",
        summary="A self-hosted AI router.",
        # FastAPI's own pages load scripts from a content network.
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            GatewayError: _answer_error,
            RequestValidationError: _answer_error,
            HTTPException: _answer_error,
            Exception: _answer_error,
        },
    )
    api.include_router(control_api(application.gateway))
    api.include_router(experiment_api(application.gateway, application.experiments))
    api.include_router(feedback_api(application.gateway))
    describe(api)

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(page(api.openapi(), str(request.base_url)), headers=PAGE_HEADERS)

    return api


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer any error of the control API in the OpenAI envelope, or in Anthropic's for its clients."""
    if isinstance(error, HTTPException):
        error = _of_http(error)
    elif isinstance(error, RequestValidationError):
        error = InvalidRequest("the request does not have the documented form")
    elif not isinstance(error, GatewayError):
        # Edge logs it: Starlette raises it again after this answer.
        error = GatewayError("the gateway failed; its log says where")
    elif isinstance(error, Unauthenticated | NotLocal):
        note_refused(error)
    is_messages = "anthropic-version" in request.headers
    body, content_type = error.to_wire(MESSAGES.write_error(error, "") if is_messages else None)
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(body, error.status, headers, content_type)


def _of_http(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed("this path takes another method")
    if error.status_code == 404:
        return NotFound("nothing is served at this path", code="not_found")
    return InvalidRequest("the request cannot be served")


async def _stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
