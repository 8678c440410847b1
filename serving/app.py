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

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from router.errors import RouterError
from serving import logs
from serving.api_page import PAGE_HEADERS, describe, page
from serving.control_api import control_api
from serving.edge import App, Edge, Limits, Receive, Scope, Send, read_body, send_error
from serving.emulator import EmulatorServer
from serving.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound, NotLocal, Unauthenticated
from serving.exchange import Exchange
from serving.gateway import Answer, Gateway
from serving.pool import Pool
from serving.providers.upstream import AiohttpUpstream, Upstream
from serving.records import NullRecordStore, RecordStore, SqliteRecordStore
from serving.reload import Reloader
from serving.settings import Settings
from serving.state import State, build

CHAT = "/v1/chat/completions"
#: How long after its body arrived a request is served before anybody listens for its client leaving.
_WATCH_AFTER_S = 0.02


class ChatEndpoint:
    """``POST /v1/chat/completions``, between ASGI and :meth:`Gateway.chat`.

    It listens for the client leaving from the moment the body has arrived, and then drops everything at once,
    the call to the provider included.
    """

    def __init__(self, gateway: Gateway, limits: Limits) -> None:
        self._gateway = gateway
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange()
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{CHAT} takes POST, not {scope['method']}")
            exchange.principal = self._gateway.ready().keys.authenticate(scope["headers"])
            body = await read_body(scope, receive, self._limits)
            await self._serve(exchange, scope, body, receive, send)
        except GatewayError as error:
            if exchange.principal is not None:
                exchange.fail(self._gateway.records, error)
            else:
                _note_refused(error, exchange.id)
            headers = [*exchange.headers(), *([(b"allow", b"POST")] if isinstance(error, MethodNotAllowed) else [])]
            await send_error(send, error, headers)

    async def _serve(self, exchange: Exchange, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None, "ASGI servers run applications in tasks"
        has_left = False

        async def watch() -> None:
            nonlocal has_left
            while (await receive())["type"] != "http.disconnect":
                pass
            has_left = True
            task.cancel()

        watcher: asyncio.Task[None] | None = None

        def begin_watch() -> None:
            nonlocal watcher
            watcher = asyncio.ensure_future(watch())

        # A task costs as much as parsing the request; an answer quicker than this needs no watcher.
        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, begin_watch)
        try:
            await _send(await self._gateway.chat(exchange, scope["headers"], body), send)
        except asyncio.CancelledError:
            if not has_left:
                raise
            task.uncancel()
        finally:
            timer.cancel()
            if watcher is not None:
                watcher.cancel()


def _note_refused(error: GatewayError, request_id: str | None = None) -> None:
    """Log a request of nobody we know. It leaves no record: strangers shall not fill the disk."""
    logs.event(
        "refused",
        {"id": request_id, "status": error.status, "outcome": error.outcome, "code": error.code},
        level="warning",
    )


async def _send(answer: Answer, send: Send) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": answer.headers}
    if answer.stream is None:
        await send(start)
        await send({"type": "http.response.body", "body": answer.body})
        return
    try:
        await send(start)
        async for event in answer.stream:
            await send({"type": "http.response.body", "body": event, "more_body": True})
    finally:
        await answer.stream.close()
    await send({"type": "http.response.body", "body": b""})


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
        records: RecordStore,
        emulator: EmulatorServer,
    ) -> None:
        self._settings = settings
        self._reread = reread
        self.emulator = emulator
        self.gateway = Gateway(upstream, Pool({}), records)
        self.reloader = Reloader(self.gateway, self._rebuild)
        self.failure: Exception | None = None
        self.start_s: float | None = None
        limits = Limits(
            max_body_bytes=settings.server.max_body_bytes, receive_timeout_s=settings.server.receive_timeout_s
        )
        self.limits = limits
        self._hot: dict[str, App] = {CHAT: ChatEndpoint(self.gateway, limits)}
        self._api = _api(self)
        self._edge = Edge(self._dispatch, limits, frozenset(self._hot))

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
            gateway.records.open()
            stack.callback(gateway.records.close)
            stack.push_async_callback(self.emulator.stop)
            gateway.swap(await self._build(self._settings))
            watching = asyncio.create_task(self.reloader.run())
            stack.push_async_callback(_stop, watching)
            if threading.current_thread() is threading.main_thread():
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGHUP, self.reloader.ask)
                stack.callback(loop.remove_signal_handler, signal.SIGHUP)
            self.start_s = time.perf_counter() - began_at
            logs.event("ready", self._facts())
            yield
            gateway.state = None

    async def _rebuild(self) -> State:
        return await self._build(await asyncio.to_thread(self._reread))

    async def _build(self, settings: Settings) -> State:
        if not self.emulator.base_url and any(provider.emulated for provider in settings.providers):
            await self.emulator.start()
        # The socket is bound once: what a reloaded file says of the host opens and closes nothing.
        host = self._settings.server.host
        return await asyncio.to_thread(build, settings, self.emulator.base_url or None, host=host)

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
        Default: the SQLite file of the settings, or none.
    emulator : EmulatorServer, optional
        Started only when a provider is emulated.

    Returns
    -------
    Application
    """
    path = settings.database_path()
    if records is None:
        records = NullRecordStore() if path is None else SqliteRecordStore(path)
    return Application(
        settings, reread or (lambda: settings), upstream or AiohttpUpstream(), records, emulator or EmulatorServer()
    )


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
    describe(api)

    @api.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(page(api.openapi(), str(request.base_url)), headers=PAGE_HEADERS)

    return api


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer any error of the control API in the OpenAI envelope."""
    if isinstance(error, HTTPException):
        error = _of_http(error)
    elif isinstance(error, RequestValidationError):
        error = InvalidRequest("the request does not have the documented form")
    elif not isinstance(error, GatewayError):
        # Edge logs it: Starlette raises it again after this answer.
        error = GatewayError("the gateway failed; its log says where")
    elif isinstance(error, Unauthenticated | NotLocal):
        _note_refused(error)
    body, content_type = error.to_wire()
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(body, error.status, headers, content_type)


def _of_http(error: HTTPException) -> GatewayError:
    if error.status_code == 405:
        return MethodNotAllowed("this path takes another method")
    if error.status_code == 404:
        return NotFound("nothing is served at this path", code="not_found")
    return InvalidRequest("the request cannot be served")


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
