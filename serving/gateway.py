"""The gateway: the story of one request, free of any web framework.

:meth:`Gateway.answer` reads top to bottom: parse, decide, call, answer, settle. It takes raw headers and a body and
returns an :class:`Answer`, whole or as a stream; who listens on the network is no matter of its. A request keeps the
:class:`~serving.state.State` it began with. Attempts follow one another around :meth:`Gateway._attempt`, which fails
before any content was sent to the client or not at all; what breaks after that ends in an error event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from serving.asked import Asked
from serving.client_api import ClientApi
from serving.conversations import Conversations
from serving.deciding import decide, embedder, order_of, turn_in
from serving.deployment import Deployment
from serving.dialects.registry import DIALECTS
from serving.errand import Errand, Relay
from serving.errors import ClientDisconnected, GatewayError, InvalidRequest, NotReady, UpstreamBroken, UpstreamError
from serving.exchange import Exchange, Header
from serving.failover import Failover
from serving.fields import document
from serving.pool import Pool
from serving.providers.refusals import error_of, failure_of
from serving.providers.upstream import Upstream, UpstreamResponse
from serving.reasoning_states import ReasoningStates
from serving.records import RecordStore
from serving.relay import relay_of
from serving.response_store import ResponseStore, items_of
from serving.sending import patience_s, returned, to_send
from serving.state import State
from serving.streamed_answer import Keep, StreamedAnswer, broken, events_of

#: Of a stream, held back before its first content at most, and for how long after its first event.
MAX_HELD_BYTES = 64 * 1024
HOLD_S = 10.0
_STREAM_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back to the client: a whole ``body``, or a ``stream`` where that is None."""

    headers: list[Header]
    body: bytes | None = None
    stream: StreamedAnswer | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One request that is decided, on its way through its attempts."""

    state: State
    api: ClientApi
    exchange: Exchange
    asked: Asked
    sent: Mapping[str, object]
    headers: list[Header]
    query: bytes
    until: float
    keep: Keep | None


class Gateway:
    """What serves requests: the present state, and what outlives every state.

    Parameters
    ----------
    upstream : Upstream
    pool : Pool
    records : RecordStore
    states : ReasoningStates, optional
    responses : ResponseStore, optional
    conversations : Conversations, optional

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
        conversations: Conversations | None = None,
    ) -> None:
        self.upstream = upstream
        self.pool = pool
        self.records = records
        self.states = states or ReasoningStates()
        self.responses = responses or ResponseStore()
        self.conversations = conversations if conversations is not None else Conversations()
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
            model = state.meant(asked.model)
            if api.embeds:
                decision = embedder(state, exchange.principal, model)
            else:
                turn = turn_in(self.conversations, state, exchange.principal, model, asked, headers, body)
                history = None if turn is None else turn.history()
                exchange.turn = turn
                decision = decide(state, self.pool, exchange.principal, model, asked.dials, asked.prompt, history)
            exchange.decided(state, model, decision)
            job = Job(
                state,
                api,
                exchange,
                asked,
                sent,
                headers,
                query,
                self._until(state, headers),
                self._keeping(state, api, exchange, asked.body),
            )
            return await self._first_answer(job, order_of(state, exchange.principal, decision))
        except GatewayError as error:
            exchange.fail(self.records, error)
            raise
        except asyncio.CancelledError:
            exchange.fail(self.records, ClientDisconnected("the client left before it was answered"))
            raise
        except BaseException:
            exchange.fail(self.records, GatewayError("the gateway failed"))
            raise

    async def _first_answer(self, job: Job, order: Sequence[str]) -> Answer:
        """Try one deployment after another: until the first content byte nobody notices."""
        settings = job.state.settings.server
        failover = Failover(
            self.pool,
            order,
            job.state.everyone,
            job.state.deployments,
            max_attempts=settings.max_attempts,
            until=job.until,
        )
        name = failover.first()
        failure: UpstreamError | None = None
        while True:
            deployment = job.state.deployments[name]
            try:
                relay = self._relay(job, deployment)
            except InvalidRequest as refusal:
                # This one cannot be sent the request; another, of another dialect, may.
                another = failover.instead()
                if another is None:
                    raise (failure or refusal) from None
                name = another
                continue
            try:
                return await self._attempt(job, deployment, relay)
            except UpstreamError as error:
                failure = error
                job.exchange.attempt_failed(error)
                further = failover.after(error, deployment.candidate)
                if further is None:
                    raise
                name, pause_s = further
            if pause_s:
                await asyncio.sleep(pause_s)

    def _relay(self, job: Job, deployment: Deployment) -> Relay:
        """Make the way to one deployment and back; InvalidRequest where the request cannot go there."""
        exchange, asked, state = job.exchange, job.asked, job.state
        assert exchange.principal is not None
        errand = Errand(
            id=exchange.id,
            key=exchange.principal.name,
            candidate=deployment.candidate,
            created_unix_s=int(exchange.time_unix_s),
            request=job.sent,
            mode=asked.dials.losses or state.settings.routing.losses,
            max_output_tokens=state.candidate(deployment.candidate).capabilities.max_output_tokens,
        )
        relay = relay_of(job.api, asked, deployment, self.states, errand)
        exchange.relayed(relay.line.dialect, relay.losses, errand.mode)
        return relay

    async def _attempt(self, job: Job, deployment: Deployment, relay: Relay) -> Answer:
        """Try one deployment: a whole answer, or a stream up to its first content, or an UpstreamError."""
        exchange, asked, state = job.exchange, job.asked, job.state
        exchange.deployment = deployment
        body = relay.body()
        exchange.call = self.pool.begin(deployment.name)
        response = await self.upstream.send(
            to_send(
                state.settings.server,
                deployment,
                relay.line,
                body,
                job.headers,
                url=relay.url,
                is_translated=relay.is_translated,
                query=job.query,
                left_s=job.until - self.pool.now(),
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
                    dialect=DIALECTS[relay.line.dialect],
                    is_translated=relay.is_translated,
                )
            if asked.is_stream:
                idle_s = state.settings.server.idle_timeout_s
                return await self._streamed(exchange, relay, response, job.keep, idle_s)
            return await self._whole(exchange, relay, response, job.keep)
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
            raise broken(exchange, error.message) from None
        headers = [*exchange.headers(), *returned(response), (b"content-type", b"application/json")]
        exchange.settle(self.records, "ok", 200)
        if exchange.cost_usd is not None:
            headers.append((b"x-turnout-cost-usd", b"%.9f" % exchange.cost_usd))
        headers.append((b"content-length", b"%d" % len(turned)))
        if keep is not None:
            keep(turned)
        return Answer(headers, turned)

    async def _streamed(
        self, exchange: Exchange, relay: Relay, response: UpstreamResponse, keep: Keep | None, idle_s: float = inf
    ) -> Answer:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise broken(exchange, "answered a streaming request with something that is not a stream")
        conveyor = relay.conveyor()
        events = events_of(exchange, response, conveyor, idle_s)
        # Until its first content nothing is promised: what only says that an answer begins is held back.
        first = b""
        pending: asyncio.Future[bytes | None] | None = None
        while not (conveyor.has_content or conveyor.is_done or len(first) > MAX_HELD_BYTES):
            if not first:
                held = await anext(events, None)
            else:
                # Who falls silent after its beginning is given to the client as it is, and pinged: it may be thinking.
                pending = asyncio.ensure_future(_next_of(events))
                try:
                    done, _ = await asyncio.wait({pending}, timeout=HOLD_S)
                except asyncio.CancelledError:
                    pending.cancel()
                    raise
                if not done:
                    break
                held, pending = pending.result(), None
            if conveyor.is_failed and not conveyor.has_content:
                who = exchange.deployment
                raise failure_of(
                    *conveyor.failure, provider=who.provider if who else "", deployment=who.name if who else ""
                )
            if held is None:
                break
            first += held
        if exchange.call is not None:
            exchange.call.first_byte()
        headers = [*exchange.headers(), *returned(response), *_STREAM_HEADERS]
        return Answer(
            headers, stream=StreamedAnswer(self.records, exchange, response, conveyor, first, events, keep, pending)
        )

    def _until(self, state: State, headers: Iterable[Header]) -> float:
        """Return when the caller's patience ends, or ours, in the pool's seconds."""
        return self.pool.now() + patience_s(headers, state.settings.server.total_timeout_s)

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


async def _next_of(events: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(events, None)
