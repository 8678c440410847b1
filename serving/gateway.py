"""The gateway: the story of one request, free of any web framework.

:meth:`Gateway.answer` reads top to bottom: parse, decide, call, answer, settle. It takes raw headers and a body and
returns an :class:`Answer`, whole or as a stream; who listens on the network is no matter of its. A request keeps the
:class:`~serving.state.State` it began with. There is one attempt at one deployment; whatever tries another one does
so around :meth:`Gateway._attempt`, which fails before anything was sent to the client or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from serving.asked import Asked, written
from serving.client_api import ClientApi
from serving.deciding import decide, embedder
from serving.dialects.registry import DIALECTS
from serving.errand import Conveyor, Errand, Relay
from serving.errors import ClientDisconnected, GatewayError, NotReady, UpstreamBroken, UpstreamError
from serving.exchange import Exchange, Header
from serving.fields import document
from serving.pool import Pool
from serving.providers.refusals import error_of
from serving.providers.upstream import Upstream, UpstreamResponse
from serving.reasoning_states import ReasoningStates
from serving.records import RecordStore
from serving.relay import relay_of
from serving.response_store import ResponseStore, items_of
from serving.sending import returned, to_send
from serving.sse import EventSplitter, data_of
from serving.state import State

#: Keeps a whole response, as it was sent to the client.
Keep = Callable[[bytes], None]
_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
#: How long a provider may take to end its stream after the event that ends the answer; a connection ended whole can
#: be used again.
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
    states : ReasoningStates, optional
    responses : ResponseStore, optional

    Attributes
    ----------
    state : State or None
        Swapped whole; None until the gateway is ready.
    """

    def __init__(
        self,
        upstream: Upstream,
        pool: Pool,
        records: RecordStore,
        states: ReasoningStates | None = None,
        responses: ResponseStore | None = None,
    ) -> None:
        self.upstream = upstream
        self.pool = pool
        self.records = records
        self.states = states or ReasoningStates()
        self.responses = responses or ResponseStore()
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

    async def answer(
        self, api: ClientApi, exchange: Exchange, headers: list[Header], body: bytes, query: bytes = b""
    ) -> Answer:
        """Answer one request.

        Parameters
        ----------
        api : ClientApi
            By which it came.
        exchange : Exchange
            Its principal is known already: strangers are turned away before their body is read.
        headers : list of (bytes, bytes)
            Raw request headers, lower-case names.
        body : bytes
        query : bytes

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
            assert exchange.principal is not None, "authenticate before answer()"
            exchange.api = api.dialect.name
            sent = document(body)
            asked = api.parse(self._with_history(state, api, exchange, sent), headers)
            exchange.is_stream = asked.is_stream
            if api.embeds:
                decision = embedder(state, exchange.principal, asked.model)
            else:
                decision = decide(state, self.pool, exchange.principal, asked.model, asked.dials, asked.prompt)
            exchange.decided(state, asked.model, decision)
            # No await between taking the state and here, so the pool and the state know the same deployments.
            name = self.pool.choose(decision.candidate)
            assert name is not None, "settings give every candidate a deployment"
            deployment = state.deployments[name]
            exchange.deployment = deployment
            errand = Errand(
                id=exchange.id,
                key=exchange.principal.name,
                candidate=decision.candidate,
                created_unix_s=int(exchange.time_unix_s),
                request=sent,
                mode=asked.dials.losses or state.settings.routing.losses,
                max_output_tokens=state.candidate(decision.candidate).capabilities.max_output_tokens,
            )
            relay = relay_of(api, asked, deployment, self.states, errand)
            exchange.relayed(relay.line.dialect, relay.losses, errand.mode)
            keep = self._keeping(state, api, exchange, asked.body)
            return await self._attempt(state, api, exchange, asked, relay, headers, query, keep)
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
        api: ClientApi,
        exchange: Exchange,
        asked: Asked,
        relay: Relay,
        headers: list[Header],
        query: bytes,
        keep: Keep | None,
    ) -> Answer:
        """Try one deployment: a whole answer, or the first event of a stream, or an UpstreamError."""
        deployment, line = exchange.deployment, relay.line
        assert deployment is not None
        body = relay.body()
        exchange.call = self.pool.begin(deployment.name)
        response = await self.upstream.send(
            to_send(
                state.settings.server,
                deployment,
                line,
                body,
                headers,
                url=relay.url,
                is_translated=relay.is_translated,
                query=query,
            )
        )
        try:
            if response.status >= 400:
                raise error_of(
                    response.status,
                    response.headers,
                    await response.read(),
                    provider=deployment.provider,
                    deployment=deployment.name,
                    dialect=DIALECTS[line.dialect],
                    is_translated=relay.is_translated,
                )
            if asked.is_stream:
                return await self._streamed(exchange, relay, response, keep)
            return await self._whole(exchange, relay, response, keep)
        except BaseException:
            await response.close()
            raise

    async def _whole(self, exchange: Exchange, relay: Relay, response: UpstreamResponse, keep: Keep | None) -> Answer:
        if exchange.call is not None:
            exchange.call.first_byte()
        body = await response.read()
        await response.close()
        try:
            turned, exchange.usage = relay.whole(body)
        except UpstreamBroken as error:
            raise _broken(exchange, error.message) from None
        headers = [*exchange.headers(), *returned(response), (b"content-type", b"application/json")]
        exchange.settle(self.records, "ok", 200)
        if exchange.cost_usd is not None:
            headers.append((b"x-turnout-cost-usd", b"%.9f" % exchange.cost_usd))
        headers.append((b"content-length", b"%d" % len(turned)))
        if keep is not None:
            keep(turned)
        return Answer(headers, turned)

    async def _streamed(
        self, exchange: Exchange, relay: Relay, response: UpstreamResponse, keep: Keep | None
    ) -> Answer:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise _broken(exchange, "answered a streaming request with something that is not a stream")
        conveyor = relay.conveyor()
        events = _events(exchange, response, conveyor)
        # Until the first event nothing is promised: an upstream that dies before it gets a proper status.
        first = await anext(events, b"")
        if conveyor.is_failed and conveyor.n_events == 1:
            raise _broken(exchange, "answered with an error event")
        if exchange.call is not None:
            exchange.call.first_byte()
        headers = [*exchange.headers(), *returned(response), *_STREAM_HEADERS]
        return Answer(headers, stream=StreamedAnswer(self.records, exchange, response, conveyor, first, events, keep))

    def _with_history(
        self, state: State, api: ClientApi, exchange: Exchange, body: dict[str, object]
    ) -> dict[str, object]:
        """Put the history in that a request refers to by ``previous_response_id``."""
        if api.dialect.name != "responses" or exchange.principal is None:
            return body
        return self.responses.expanded(exchange.principal.name, body, is_on=state.settings.responses.keep_for_s > 0)

    def _keeping(self, state: State, api: ClientApi, exchange: Exchange, body: Mapping[str, object]) -> Keep | None:
        """Return what keeps the response, or None where nothing is to be kept."""
        keep_for_s = state.settings.responses.keep_for_s
        if api.dialect.name != "responses" or not keep_for_s or body.get("store") is False:
            return None
        assert exchange.principal is not None
        key = exchange.principal.name
        return lambda answer: self.responses.put(key, items_of(body), document(answer), keep_for_s)


class StreamedAnswer:
    """The events of one answer, as they come; iterate once, and :meth:`close` in any case: that settles."""

    def __init__(
        self,
        records: RecordStore,
        exchange: Exchange,
        response: UpstreamResponse,
        conveyor: Conveyor,
        first: bytes,
        events: AsyncGenerator[bytes],
        keep: Keep | None = None,
    ) -> None:
        self._records = records
        self._exchange = exchange
        self._response = response
        self._conveyor = conveyor
        self._first = first
        self._events = events
        self._keep = keep
        self._failure: UpstreamError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        last = self._first
        try:
            async for last in self._events:
                yield last
        except UpstreamError as error:
            self._failure = error
            yield self._conveyor.broken(error)
        if self._keep is not None and self._conveyor.is_done:
            _keep_last(self._keep, last)

    async def close(self) -> None:
        """Settle, then let go of the provider; idempotent.

        Settling comes first and cannot be cancelled; a client that left is told from a provider that broke off.
        """
        self._exchange.usage = self._conveyor.usage
        if self._failure is not None:
            outcome = self._failure.outcome
        elif self._conveyor.is_failed:
            outcome = UpstreamBroken.outcome
        else:
            outcome = "ok" if self._conveyor.is_done else ClientDisconnected.outcome
        self._exchange.settle(self._records, outcome, 200)
        await self._response.close()
        await self._events.aclose()


async def _events(exchange: Exchange, response: UpstreamResponse, conveyor: Conveyor) -> AsyncGenerator[bytes]:
    """Yield whole events for the client, up to the one that ends the stream; any other end raises."""
    splitter = EventSplitter()
    chunks = aiter(response.chunks())
    async for chunk in chunks:
        kept = b"".join([conveyor.pass_on(event) for event in splitter.feed(chunk)])
        if kept:
            yield kept
        if conveyor.is_failed:
            return
        if conveyor.is_done:
            await _hear_out(chunks)
            return
    if rest := conveyor.pass_on_rest(splitter.rest()):
        yield rest
    if not conveyor.is_done and not conveyor.is_failed:
        raise _broken(exchange, "ended its stream without finishing the answer")


async def _hear_out(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the end of an answer, normally nothing, so that the connection ends whole."""
    try:
        async with asyncio.timeout(_LAST_WORDS_S):
            async for _ in chunks:
                pass
    except (TimeoutError, UpstreamError):
        return


def _keep_last(keep: Keep, events: bytes) -> None:
    """Keep the response that the last event of a Responses stream holds whole."""
    for event in EventSplitter().feed(events):
        if b"response.completed" in event[:64]:
            keep(written(document(data_of(event) or b"{}").get("response")))


def _broken(exchange: Exchange, what: str) -> UpstreamBroken:
    deployment = exchange.deployment
    provider = deployment.provider if deployment else ""
    return UpstreamBroken(
        f"{provider or 'the provider'} {what}",
        provider=provider,
        deployment=deployment.name if deployment else "",
        upstream_status=200,
    )
