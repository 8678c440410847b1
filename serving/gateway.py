"""The gateway: the story of one request, free of any web framework.

:meth:`Gateway.answer` reads top to bottom: parse, decide, call, answer, settle. It takes raw headers and a body and
returns an :class:`Answer`, whole or as a stream; who listens on the network is no matter of its. A request keeps the
:class:`~serving.state.State` it began with. Attempts follow one another around :meth:`Gateway._begun`, which fails
before any content was sent to the client or not at all; what breaks after that ends in an error event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from serving.admission import Admission
from serving.attempt import Attempt
from serving.beginning import Begun, begin
from serving.client_api import ClientApi
from serving.conversations import Conversations
from serving.deciding import Decided, decide, embedder, turn_in
from serving.drain import Drain
from serving.errand import Errand
from serving.errors import GatewayError, InvalidRequest, NotReady, UpstreamError, UpstreamOverloaded
from serving.exchange import Exchange, Header
from serving.exploration_budget import ExplorationBudget
from serving.exploring import explore, reserved
from serving.failover import BATCH_PATIENCE_S, PATIENCE_S, Failover
from serving.feedback import FeedbackStore, NullFeedbackStore
from serving.fields import document, request_of
from serving.health import RetryBudget
from serving.hedging import race
from serving.idempotency import IdempotencyStore
from serving.job import Job
from serving.pool import Pool
from serving.providers.upstream import Upstream
from serving.reasoning_states import ReasoningStates
from serving.records import RecordStore
from serving.regenerations import Regenerations
from serving.relay import relay_of
from serving.response_store import ResponseStore, items_of
from serving.sending import patience_s, returned, to_send
from serving.shadow import Shadow
from serving.state import State
from serving.streamed_answer import Keep, StreamedAnswer

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
    feedback : FeedbackStore, optional
        What is said of answers; default: nothing is kept.

    Attributes
    ----------
    state : State or None
        Swapped whole; None until the gateway is ready.
    hedges : RetryBudget
        Of second attempts beside slow ones.
    admission : Admission
        Who may come in now.
    drain : Drain
        Whether the process is about to end.
    idempotency : IdempotencyStore
        Answers that may be asked for again.
    exploration : ExplorationBudget
        What exploring may still cost today.
    shadow : Shadow
        What a challenger would decide.
    """

    def __init__(
        self,
        upstream: Upstream,
        pool: Pool,
        records: RecordStore,
        states: ReasoningStates | None = None,
        responses: ResponseStore | None = None,
        conversations: Conversations | None = None,
        feedback: FeedbackStore | None = None,
    ) -> None:
        self.upstream = upstream
        self.pool = pool
        self.records = records
        self.states = states or ReasoningStates()
        self.responses = responses or ResponseStore()
        self.conversations = conversations if conversations is not None else Conversations()
        self.feedback = feedback or NullFeedbackStore()
        self.regenerations = Regenerations(self.feedback, pool)
        self.hedges = RetryBudget(0.0)
        self.admission = Admission()
        self.drain = Drain()
        self.idempotency = IdempotencyStore()
        self.exploration = ExplorationBudget()
        self.shadow = Shadow()
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
        self.hedges = RetryBudget(state.settings.server.hedge_share, per_s=0.0, most=1.0)
        server = state.settings.server
        self.admission.resize(server.max_in_flight, server.queue_wait_s)
        self.idempotency.keep_for_s = server.idempotency_keep_for_s
        self.shadow.follow(state)
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
            sent = request_of(body)
            asked = api.parse(self._with_history(state, api, exchange, sent), headers)
            exchange.is_stream = asked.is_stream
            if api.embeds:
                decided = embedder(state, exchange.principal, asked)
            else:
                exchange.turn = turn = turn_in(self.conversations, state, exchange.principal, asked, headers, body)
                decided = decide(state, self.pool, exchange.principal, asked, exchange.api, None, turn, exchange.enter)
                if state.explores:
                    at, name = exchange.time_unix_s, exchange.id
                    decided = explore(decided, state, self.pool, self.exploration, asked.prompt, turn, at, name)
                    exchange.reservation = reserved(decided, self.exploration, at)
                exchange.shadow = self.shadow.ask(state, decided, asked.prompt, self.pool.speeds(), exchange.id)
            exchange.decided(state, decided, asked.prompt)
            if self.feedback.is_on:
                exchange.saying = self.regenerations.note(
                    exchange.principal.name,
                    asked.body,
                    headers,
                    n_bytes=len(body),
                    priority=decided.priority,
                    within_s=0.0 if api.embeds else state.settings.feedback.regenerated_within_s,
                )
            wait_s = patience_s(headers, state.settings.server.total_timeout_s)
            job = Job(
                state,
                api,
                exchange,
                asked,
                sent,
                headers,
                query,
                self.pool.now() + wait_s,
                wait_s < state.settings.server.total_timeout_s,
                self._keeping(state, api, exchange, asked.body),
                decided.priority,
            )
            return await self._first_answer(job, decided)
        except GatewayError as error:
            exchange.fail(self.records, error)
            raise
        except asyncio.CancelledError:
            # A stream was cut off before its first word; of a whole answer nobody knows how far it had come.
            exchange.cut_off(0 if exchange.is_stream else None)
            exchange.fail(self.records, self.drain.cause())
            raise
        except BaseException:
            exchange.fail(self.records, GatewayError("the gateway failed"))
            raise

    async def _first_answer(self, job: Job, decided: Decided) -> Answer:
        """Try one deployment after another: until the first content nobody notices."""
        failover = Failover(
            self.pool,
            decided.order,
            job.state.everyone,
            decided.deployments,
            max_attempts=job.state.settings.server.max_attempts,
            until=job.until,
            is_stream=job.asked.is_stream,
            patience_s=BATCH_PATIENCE_S if decided.priority == "batch" else PATIENCE_S,
        )
        name = await _named(failover)
        failure: UpstreamError | None = None
        while True:
            try:
                attempt = self._attempt(job, name)
            except InvalidRequest as refusal:
                # This one cannot be sent the request; another, of another dialect, may.
                another = failover.instead()
                if another is None:
                    raise (failure or refusal) from None
                name = another
                continue
            job.exchange.attempt = attempt
            try:
                begun = await self._begun(job, attempt, failover)
            except UpstreamError as error:
                failure, last = error, job.exchange.attempt
                job.exchange.attempt_failed(last, error)
                further = failover.after(error, last.deployment.candidate)
                if further is None:
                    raise
                next_name, pause_s = further
            else:
                return self._answer(job, begun)
            if pause_s:
                await asyncio.sleep(pause_s)
            name = next_name or await _named(failover)

    def _attempt(self, job: Job, name: str) -> Attempt:
        """Make the way to one deployment and back; InvalidRequest where the request cannot go there."""
        exchange, asked, state = job.exchange, job.asked, job.state
        assert exchange.principal is not None
        deployment = state.deployments[name]
        errand = Errand(
            id=exchange.id,
            key=exchange.principal.name,
            candidate=deployment.candidate,
            created_unix_s=int(exchange.time_unix_s),
            request=job.sent,
            mode=asked.dials.losses or state.settings.routing.losses,
            max_output_tokens=state.candidate(deployment.candidate).capabilities.max_output_tokens,
        )
        return Attempt(deployment, relay_of(job.api, asked, deployment, self.states, errand), errand.mode)

    async def _begun(self, job: Job, attempt: Attempt, failover: Failover) -> Begun:
        """Wait until an attempt has begun to answer, or the one that was begun beside it."""
        after_s = self._hedge_after_s(job, attempt)
        if after_s is None:
            return await self._begin(job, failover, attempt)
        exchange = job.exchange
        running = [attempt]

        def rival() -> Attempt | None:
            name = failover.beside(attempt.deployment.candidate, self.hedges)
            with suppress(InvalidRequest):
                if name is not None:
                    running.append(self._attempt(job, name))
            return running[1] if len(running) > 1 else None

        def failed(one: Attempt, error: UpstreamError) -> None:
            exchange.attempt_failed(one, error)
            running.remove(one)
            exchange.attempt = running[0]

        winner, begun = await race(attempt, partial(self._begin, job, failover), rival, after_s, failed)
        exchange.attempt = winner
        for slower in running:
            if slower is not winner:
                exchange.overtaken(slower)
        return begun

    def _hedge_after_s(self, job: Job, attempt: Attempt) -> float | None:
        """Return after which time without content a second attempt is worth its price; None where it never is."""
        if not job.state.settings.server.hedge_share or job.priority == "batch":
            return None
        self.hedges.earn(self.pool.now())
        return self.pool.slow_after_s(attempt.deployment.name, job.asked.is_stream)

    async def _begin(self, job: Job, failover: Failover, attempt: Attempt) -> Begun:
        is_stream, server = job.asked.is_stream, job.state.settings.server
        content_s, left_s = failover.first_content_s(attempt.deployment.name), job.until - self.pool.now()
        if job.is_bounded:
            given_s = min(content_s, left_s)
            attempt.is_bounded = True
            attempt.is_hurried = failover.is_hurried(attempt.deployment.name, given_s, server.first_byte_timeout_s)
        attempt.begin(self.pool, is_stream)
        request = to_send(
            server,
            attempt.deployment,
            attempt.relay.line,
            attempt.relay.body(),
            job.headers,
            url=attempt.relay.url,
            is_translated=attempt.relay.is_translated,
            query=job.query,
            left_s=left_s,
            first_byte_s=content_s,
        )
        return await begin(self.upstream, attempt, request, is_stream=is_stream, content_s=content_s)

    def _answer(self, job: Job, begun: Begun) -> Answer:
        """Give the client what has begun; a whole answer is settled here, a stream when it is closed."""
        exchange = job.exchange
        headers = [*exchange.headers(), *returned(begun.response)]
        if begun.stream is not None:
            first, conveyor, events, pending = begun.stream
            stream = StreamedAnswer(self.records, exchange, begun.response, conveyor, first, events, job.keep, pending)
            return Answer([*headers, *_STREAM_HEADERS], stream=stream)
        assert begun.body is not None
        exchange.usage = begun.usage
        exchange.settle(self.records, "ok", 200)
        headers.append((b"content-type", b"application/json"))
        if exchange.cost_usd is not None:
            headers.append((b"x-turnout-cost-usd", b"%.9f" % exchange.cost_usd))
        headers.append((b"content-length", b"%d" % len(begun.body)))
        if job.keep is not None:
            job.keep(begun.body)
        return Answer(headers, begun.body)

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


async def _named(failover: Failover) -> str:
    """Name the next deployment, after a short rest where all of them asked for one."""
    while True:
        try:
            return failover.first()
        except UpstreamOverloaded:
            rest_s = failover.rest_s()
            if rest_s is None:
                raise
            await asyncio.sleep(rest_s)
