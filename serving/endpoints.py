"""The inference endpoints, plain ASGI: between the wire and the gateway, errors in the caller's own envelope.

One class serves every path: it authenticates, admits, reads the body, lets something answer, and sends that. It listens
for the client leaving from the moment the body has arrived, and then drops everything at once, the call to the provider
included. When the process ends before an answer does, it says so to the client. A client that takes nothing more
counts as one that left: at once where the request's whole time is over, else when :mod:`serving.arrival` says so. Entry
point: :class:`Endpoint`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serving import logs
from serving.admission import PRIORITY_HEADER, Priority, priority_of
from serving.dialects.dialect import Dialect
from serving.edge import ABORT, Limits, Receive, Scope, Send, read_body, send_error
from serving.errors import GatewayError, InvalidRequest, MethodNotAllowed, Overloaded, UpgradeRequired
from serving.exchange import Exchange, Header
from serving.gateway import Answer, Gateway
from serving.idempotency import HEADER as IDEMPOTENCY_HEADER
from serving.idempotency import Replay
from serving.sending import patience_s

#: How long after its body arrived a request is served before anybody listens for its client leaving.
_WATCH_AFTER_S = 0.02
#: How long a stream may be silent before the client is told that it still lives.
PING_AFTER_S = 12.0
#: (exchange, headers, body, query) -> what goes back.
Answering = Callable[[Exchange, list[Header], bytes, bytes], Awaitable[Answer]]


class Endpoint:
    """``POST`` to one path.

    Parameters
    ----------
    gateway : Gateway
    limits : Limits
    path : str
    dialect : Dialect
        In whose envelope errors leave.
    answering : callable
    ping : bytes
        What a silent stream sends now and then.
    """

    def __init__(
        self,
        gateway: Gateway,
        limits: Limits,
        path: str,
        dialect: Dialect,
        answering: Answering,
        ping: bytes = b": still waiting for the provider\n\n",
    ) -> None:
        self._gateway = gateway
        self._limits = limits
        self._path = path
        self.write_error = dialect.write_error
        self._overloaded_status = dialect.overloaded_status
        self._answering = answering
        self._ping = ping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange()
        try:
            if scope["method"] != "POST":
                raise _refused_method(self._path, scope)
            gateway, headers = self._gateway, scope["headers"]
            exchange.principal = gateway.ready().keys.authenticate(headers)
            claim, key = _marks(headers)
            priority = priority_of(exchange.principal, claim)
            # Who is turned away for want of time or places is turned away before its body is looked at.
            gateway.admission.screen(priority)
            body = await read_body(scope, receive, self._limits)
            if not gateway.idempotency.keep_for_s:
                key = None
            task = asyncio.current_task()
            assert task is not None, "ASGI servers run applications in tasks"
            await self._serve(_Request(exchange, priority, key, scope, body, task), receive, send)
        except GatewayError as error:
            await self._refuse(exchange, error, send)

    async def _serve(self, request: _Request, receive: Receive, send: Send) -> None:
        task = request.task

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            request.leave()

        watcher: asyncio.Task[None] | None = None

        def begin_watch() -> None:
            nonlocal watcher
            watcher = asyncio.ensure_future(watch())

        # A task costs as much as parsing the request; an answer quicker than this needs no watcher.
        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, begin_watch)
        try:
            if request.key is None:
                await self._answer(request, send)
            else:
                await self._answer_once(request, request.key, send)
        except asyncio.CancelledError:
            if request.has_left:
                task.uncancel()
            elif self._gateway.drain.is_over and not request.is_begun:
                task.uncancel()
                raise self._gateway.drain.cause() from None
            else:
                raise
        finally:
            timer.cancel()
            if watcher is not None:
                watcher.cancel()

    async def _answer_once(self, request: _Request, key: bytes, send: Send) -> None:
        """Answer a request that may come again: repeat what was answered, or take note of what is."""
        gateway, exchange = self._gateway, request.exchange
        assert exchange.principal is not None
        claimed = await gateway.idempotency.claim(exchange.principal.name, self._path, key, request.body)
        if isinstance(claimed, Replay):
            exchange.settle(gateway.records, "replayed", claimed.status)
            await claimed.send(send)
            return
        send = claimed.recording(send)
        try:
            await self._answer(request, send)
        except GatewayError as error:
            await self._refuse(exchange, error, send)
        finally:
            claimed.end(exchange.outcome)

    async def _answer(self, request: _Request, send: Send) -> None:
        """Answer a request, in a place of its own among those in flight."""
        admission, scope = self._gateway.admission, request.scope
        if not admission.take(request.priority):
            await admission.wait(request.priority)
        try:
            answer = await self._answering(
                request.exchange, scope["headers"], request.body, scope.get("query_string", b"")
            )
            request.is_begun = True
            await self._send(request, answer, send)
        finally:
            admission.give_back(request.priority)

    async def _send(self, request: _Request, answer: Answer, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": answer.headers}
        if answer.stream is None:
            await send(start)
            await send({"type": "http.response.body", "body": answer.body})
            return
        pinging = _Pinging(send, self._ping, lambda: self._overdue(request))
        try:
            await send(start)
            async for event in answer.stream:
                pinging.last_sent_at = time.monotonic()
                pinging.is_sending = True
                await send({"type": "http.response.body", "body": event, "more_body": True})
                pinging.is_sending = False
        except asyncio.CancelledError:
            drain = self._gateway.drain
            if not drain.is_over or request.has_left:
                raise
            request.task.uncancel()
            last = answer.stream.interrupted(drain.cause())
            # The provider is let go of at once, whether or not the client takes our last words.
            await answer.stream.close()
            await send({"type": "http.response.body", "body": last, "more_body": True})
        finally:
            pinging.stop()
            await answer.stream.close()
        await send({"type": "http.response.body", "body": b""})

    def _overdue(self, request: _Request) -> None:
        """Look at a stream whose client takes nothing just now: let go of it once the time of the request is over."""
        most_s = self._gateway.ready().settings.server.total_timeout_s
        if time.monotonic() - request.began_at >= patience_s(request.scope["headers"], most_s):
            abort = request.scope.get(ABORT)
            if abort is not None:
                abort()
            request.leave()

    async def _refuse(self, exchange: Exchange, error: GatewayError, send: Send) -> None:
        """Answer with an error, and settle, or note, what it was the answer to."""
        if isinstance(error, Overloaded):
            # Counted, not recorded: who turns away thousands a second has no time to write of each.
            error.status = self._overloaded_status
        elif exchange.principal is not None:
            exchange.fail(self._gateway.records, error)
        else:
            note_refused(error, exchange.id)
        headers = [*exchange.headers(), *([(b"allow", b"POST")] if isinstance(error, MethodNotAllowed) else [])]
        await send_error(send, error, headers, self.write_error(error, exchange.id))


@dataclass(slots=True)
class _Request:
    """One request that has arrived, and the task that answers it.

    ``key`` is its idempotency key, ``is_begun`` says that it is being answered, ``has_left`` that nobody listens.
    """

    exchange: Exchange
    priority: Priority
    key: bytes | None
    scope: Scope
    body: bytes
    task: asyncio.Task[None]
    is_begun: bool = False
    has_left: bool = False
    began_at: float = field(default_factory=time.monotonic)

    def leave(self) -> None:
        """Stop answering: the client has left. Idempotent."""
        if not self.has_left:
            self.has_left = True
            self.task.cancel()


class _Pinging:
    """Says now and then that a silent stream lives: one timer a stream, next to nothing per event.

    Events are sent whole, one write each, so a ping always falls between two. While something is being sent still, a
    ping would only wait behind it: then the client is blocked, and ``blocked`` is called instead.
    """

    def __init__(self, send: Send, ping: bytes, blocked: Callable[[], None]) -> None:
        self.last_sent_at = time.monotonic()
        self.is_sending = False
        self._blocked = blocked
        self._send = send
        self._ping = ping
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PING_AFTER_S, self._look)

    def stop(self) -> None:
        """Send no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _look(self) -> None:
        silent_s = time.monotonic() - self.last_sent_at
        if self.is_sending or (self._task is not None and not self._task.done()):
            silent_s = 0.0
            self._blocked()
        elif silent_s >= PING_AFTER_S:
            self._task = self._loop.create_task(self._say())
            self.last_sent_at += silent_s
            silent_s = 0.0
        self._timer = self._loop.call_later(PING_AFTER_S - silent_s, self._look)

    async def _say(self) -> None:
        await self._send({"type": "http.response.body", "body": self._ping, "more_body": True})


def note_refused(error: GatewayError, request_id: str | None = None) -> None:
    """Log a request of nobody we know. It leaves no record: strangers shall not fill the disk."""
    logs.event(
        "refused",
        {"id": request_id, "status": error.status, "outcome": error.outcome, "code": error.code},
        level="warning",
    )


def _marks(headers: list[Header]) -> tuple[bytes | None, bytes | None]:
    """Return the priority that a request claims and its idempotency key."""
    claim = key = None
    for name, value in headers:
        if name == PRIORITY_HEADER:
            claim = value
        elif name == IDEMPOTENCY_HEADER:
            if key is not None:
                raise InvalidRequest("Idempotency-Key is given more than once", param="Idempotency-Key")
            key = value
    return claim, key


def _refused_method(path: str, scope: Scope) -> GatewayError:
    if any(name == b"upgrade" for name, _ in scope["headers"]):
        # Codex tries a WebSocket first and goes on by POST as soon as it is refused.
        return UpgradeRequired(f"{path} is not served over WebSockets: send it as a POST")
    return MethodNotAllowed(f"{path} takes POST, not {scope['method']}")
