"""The gateway: the story of one request, free of any web framework.

:meth:`Gateway.chat` reads top to bottom: parse, decide, call, answer, settle. It takes raw headers and a body and
returns an :class:`Answer`, whole or as a stream; who listens on the network is no matter of its. A request keeps the
:class:`~serving.state.State` it began with. There is one attempt at one deployment; whatever tries another one does
so around :meth:`Gateway._attempt`, which fails before anything was sent to the client or not at all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass

import orjson

from serving.deciding import decide
from serving.errors import ClientDisconnected, GatewayError, NotReady, UpstreamBroken, UpstreamError
from serving.exchange import Exchange, Header
from serving.fields import document
from serving.openai_chat import ChatRequest, ChatStream, error_event, parse, to_upstream, usage_of
from serving.pool import Pool
from serving.providers.refusals import error_of
from serving.providers.upstream import Upstream, UpstreamRequest, UpstreamResponse
from serving.records import RecordStore
from serving.sse import EventSplitter
from serving.state import Deployment, State

#: Of the client's headers, what a provider may see; everything else stays here.
_FORWARDED = frozenset({b"user-agent", b"openai-beta", b"idempotency-key", b"x-client-request-id"})
#: Of a provider's headers, what the client may see, and under which name.
_RETURNED = {
    "openai-processing-ms": b"openai-processing-ms",
    "openai-version": b"openai-version",
    "x-request-id": b"x-upstream-request-id",
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
#: How long a provider may take to end its stream after ``[DONE]``; a connection ended whole can be used again.
_LAST_WORDS_S = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client: a whole ``body``, or a ``stream`` where that is None."""

    headers: list[Header]
    body: bytes | None = None
    stream: StreamedAnswer | None = None


class Gateway:
    """What serves requests: the present state, and what outlives every state.

    Parameters
    ----------
    upstream : Upstream
    pool : Pool
    records : RecordStore

    Attributes
    ----------
    state : State or None
        Swapped whole; None until the gateway is ready.
    """

    def __init__(self, upstream: Upstream, pool: Pool, records: RecordStore) -> None:
        self.upstream = upstream
        self.pool = pool
        self.records = records
        self.state: State | None = None

    def ready(self) -> State:
        """Return the present state.

        Raises
        ------
        NotReady
            There is none yet.
        """
        if self.state is None:
            raise NotReady("the gateway is not ready: it is loading its bundle", retry_after_s=1.0)
        return self.state

    def swap(self, state: State) -> None:
        """Serve from another state from now on; requests in flight keep theirs."""
        self.pool.replace(state.candidate_of())
        self.state = state

    async def chat(self, exchange: Exchange, headers: list[Header], body: bytes) -> Answer:
        """Answer one chat completion.

        Parameters
        ----------
        exchange : Exchange
            Its principal is known already: strangers are turned away before their body is read.
        headers : list of (bytes, bytes)
            Raw request headers, lower-case names.
        body : bytes

        Returns
        -------
        Answer
            A whole one is settled; a streamed one settles when it is closed.

        Raises
        ------
        GatewayError
            Nothing was sent, and the exchange is settled.
        """
        try:
            state = self.ready()
            request = parse(document(body), headers)
            exchange.is_stream = request.is_stream
            assert exchange.principal is not None, "authenticate before chat()"
            decision = decide(state, self.pool, exchange.principal, request.model, request.dials, request.prompt)
            exchange.decided(state, request.model, decision)
            # No await between taking the state and here, so the pool and the state know the same deployments.
            name = self.pool.choose(decision.candidate)
            assert name is not None, "settings give every candidate a deployment"
            return await self._attempt(state, exchange, request, state.deployments[name], headers)
        except GatewayError as error:
            exchange.fail(self.records, error)
            raise
        except asyncio.CancelledError:
            exchange.fail(self.records, ClientDisconnected("the client left before it was answered"))
            raise
        except BaseException:
            exchange.fail(self.records, GatewayError("the gateway failed"))
            raise

    async def _attempt(
        self,
        state: State,
        exchange: Exchange,
        request: ChatRequest,
        deployment: Deployment,
        headers: Iterable[Header],
    ) -> Answer:
        """Try one deployment: a whole answer, or the first event of a stream, or an UpstreamError."""
        exchange.deployment = deployment
        exchange.call = self.pool.begin(deployment.name)
        body, exchange.lost = to_upstream(request, deployment.model, deployment.parameters, deployment.quirks)
        response = await self.upstream.send(_to_send(state, deployment, body, headers))
        try:
            if response.status >= 400:
                raise error_of(
                    response.status,
                    response.headers,
                    await response.read(),
                    provider=deployment.provider,
                    deployment=deployment.name,
                )
            if request.is_stream:
                return await self._streamed(exchange, request, response)
            return await self._whole(exchange, response)
        except BaseException:
            await response.close()
            raise

    async def _whole(self, exchange: Exchange, response: UpstreamResponse) -> Answer:
        if exchange.call is not None:
            exchange.call.first_byte()
        body = await response.read()
        await response.close()
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise _broken(exchange, "answered 200 with something that is not JSON") from None
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
            raise _broken(exchange, "answered 200 without choices")
        exchange.usage = usage_of(answer)
        headers = [*exchange.headers(), *_returned(response), (b"content-type", b"application/json")]
        exchange.settle(self.records, "ok", 200)
        if exchange.cost_usd is not None:
            headers.append((b"x-turnout-cost-usd", b"%.9f" % exchange.cost_usd))
        headers.append((b"content-length", b"%d" % len(body)))
        return Answer(headers, body)

    async def _streamed(self, exchange: Exchange, request: ChatRequest, response: UpstreamResponse) -> Answer:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise _broken(exchange, "answered a streaming request with something that is not a stream")
        watch = ChatStream(keeps_usage=request.wants_usage, n_choices=request.n_choices)
        events = _events(exchange, response, watch)
        # Until the first event nothing is promised: an upstream that dies before it gets a proper status.
        first = await anext(events, b"")
        if watch.is_failed and watch.n_events == 1:
            raise _broken(exchange, "answered with an error event")
        if exchange.call is not None:
            exchange.call.first_byte()
        headers = [*exchange.headers(), *_returned(response), *_STREAM_HEADERS]
        return Answer(headers, stream=StreamedAnswer(self.records, exchange, response, watch, first, events))


class StreamedAnswer:
    """The events of one answer, as they come; iterate once, and :meth:`close` in any case: that settles."""

    def __init__(
        self,
        records: RecordStore,
        exchange: Exchange,
        response: UpstreamResponse,
        watch: ChatStream,
        first: bytes,
        events: AsyncGenerator[bytes],
    ) -> None:
        self._records = records
        self._exchange = exchange
        self._response = response
        self._watch = watch
        self._first = first
        self._events = events
        self._failure: UpstreamError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        try:
            async for event in self._events:
                yield event
        except UpstreamError as error:
            self._failure = error
            yield error_event(error)

    async def close(self) -> None:
        """Settle, then let go of the provider; idempotent.

        Settling comes first and cannot be cancelled; a client that left is told from a provider that broke off.
        """
        self._exchange.usage = self._watch.usage
        if self._failure is not None:
            outcome = self._failure.outcome
        elif self._watch.is_failed:
            outcome = UpstreamBroken.outcome
        else:
            outcome = "ok" if self._watch.is_done else ClientDisconnected.outcome
        self._exchange.settle(self._records, outcome, 200)
        await self._response.close()
        await self._events.aclose()


async def _events(exchange: Exchange, response: UpstreamResponse, watch: ChatStream) -> AsyncGenerator[bytes]:
    """Yield whole events, untouched, up to the one that ends the stream; any other end raises."""
    splitter = EventSplitter()
    chunks = aiter(response.chunks())
    async for chunk in chunks:
        kept = b"".join(event for event in splitter.feed(chunk) if watch.pass_on(event))
        if kept:
            yield kept
        if watch.is_failed:
            return
        if watch.is_done:
            await _hear_out(chunks)
            return
    if rest := watch.pass_on_rest(splitter.rest()):
        yield rest
    if not watch.is_done and not watch.is_failed:
        raise _broken(exchange, "ended its stream without finishing the answer")


async def _hear_out(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows ``[DONE]``, normally nothing, so that the connection ends whole."""
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            async for _ in chunks:
                pass
    except (TimeoutError, UpstreamError):
        return


def _to_send(state: State, deployment: Deployment, body: bytes, headers: Iterable[Header]) -> UpstreamRequest:
    server = state.settings.server
    sent = dict(deployment.headers)
    for name, value in headers:
        if name in _FORWARDED:
            sent[name.decode("latin-1")] = value.decode("latin-1")
    return UpstreamRequest(
        url=deployment.url,
        headers=sent,
        body=body,
        connect_timeout_s=server.connect_timeout_s,
        first_byte_timeout_s=server.first_byte_timeout_s,
        idle_timeout_s=server.idle_timeout_s,
        total_timeout_s=server.total_timeout_s,
        provider=deployment.provider,
        deployment=deployment.name,
    )


def _returned(response: UpstreamResponse) -> list[Header]:
    """Pick the provider's headers that the client may see, made fit for the wire: they are foreign words."""
    theirs = response.headers
    return [
        (ours, _CONTROL.sub("", theirs[name]).encode("latin-1", "replace"))
        for name, ours in _RETURNED.items()
        if name in theirs
    ]


def _broken(exchange: Exchange, what: str) -> UpstreamBroken:
    deployment = exchange.deployment
    provider = deployment.provider if deployment else ""
    return UpstreamBroken(
        f"{provider or 'the provider'} {what}",
        provider=provider,
        deployment=deployment.name if deployment else "",
        upstream_status=200,
    )
