"""A streamed answer on its way: the provider's bytes in, whole events for the client out, settled once at the end.

Entry points: :class:`StreamedAnswer`, :func:`events_of`, :func:`broken`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress

from serving import logs
from serving.asked import written
from serving.deployment import Deployment
from serving.errand import Conveyor
from serving.errors import ClientDisconnected, GatewayError, UpstreamBroken, UpstreamError, UpstreamTimeout
from serving.exchange import Exchange
from serving.fields import document
from serving.providers.upstream import UpstreamResponse
from serving.records import RecordStore
from serving.sse import EventSplitter, data_of

#: How long a provider may take to end its stream after the event that ends the answer; a connection ended whole can
#: be used again.
_LAST_WORDS_S = 0.05
_ENDING = re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete)"')
#: Keeps a whole response, as it was sent to the client.
Keep = Callable[[bytes], None]


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
        pending: asyncio.Future[bytes | None] | None = None,
    ) -> None:
        self._records = records
        self._exchange = exchange
        self._response = response
        self._conveyor = conveyor
        self._first = first
        self._events = events
        self._keep = keep
        self._pending = pending
        self._failure: GatewayError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._settle_if_done()
        yield self._first
        last = self._first
        try:
            if self._pending is not None and (awaited := await self._pending) is not None:
                last = awaited
                self._settle_if_done()
                yield last
            async for last in self._events:
                self._settle_if_done()
                yield last
        except UpstreamError as error:
            attempt = self._exchange.attempt
            self._failure = error if attempt is None else attempt.judged(error, has_begun=True)
            yield self._conveyor.broken(error)
        except Exception as error:
            # A fault of ours; the client is told in the form of its API, as of any other.
            logs.failure("unexpected_error", error, {"method": "stream"})
            self._failure = GatewayError("the gateway failed; its log says where")
            yield self._conveyor.broken(self._failure)
        if self._keep is not None and self._conveyor.is_done:
            _keep_last(self._keep, last)

    def interrupted(self, error: GatewayError) -> bytes:
        """Note that we end the stream ourselves; return the event that says so, nothing where it has its end."""
        if self._failure is not None or self._conveyor.is_done or self._conveyor.is_failed:
            return b""
        self._failure = error
        return self._conveyor.broken(error)

    async def close(self) -> None:
        """Settle, then let go of the provider; idempotent.

        Settling comes first and cannot be cancelled; a client that left is told from a provider that broke off.
        """
        self._settle()
        if self._pending is not None:
            self._pending.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, UpstreamError):
                await self._pending
        await self._response.close()
        await self._events.aclose()

    def _settle_if_done(self) -> None:
        """Settle before the event leaves that ends the answer: who reads it may ask about its record at once."""
        if self._conveyor.is_done:
            self._settle()

    def _settle(self) -> None:
        self._exchange.usage = self._conveyor.usage
        if self._failure is not None:
            outcome = self._failure.outcome
        elif self._conveyor.is_failed:
            outcome = UpstreamBroken.outcome
        else:
            outcome = "ok" if self._conveyor.is_done else ClientDisconnected.outcome
        if outcome != "ok":
            self._exchange.cut_off(self._conveyor.n_characters)
        self._exchange.is_abandoned = outcome == ClientDisconnected.outcome and self._conveyor.has_content
        self._exchange.settle(self._records, outcome, 200)


async def events_of(
    deployment: Deployment, response: UpstreamResponse, conveyor: Conveyor, idle_s: float
) -> AsyncGenerator[bytes]:
    """Yield whole events for the client, up to the one that ends the stream; any other end raises."""
    splitter = EventSplitter()
    chunks = aiter(response.chunks())
    heard_at = time.monotonic()
    async for chunk in chunks:
        if b"data:" in chunk:
            heard_at = time.monotonic()
        elif time.monotonic() - heard_at > idle_s:
            # Comments keep a connection open for ever; only data is progress.
            raise _silent(deployment, idle_s)
        kept, error = _passed_on(conveyor, splitter.feed(chunk))
        if kept:
            yield kept
        if error is not None:
            raise error
        if conveyor.is_failed:
            return
        if conveyor.is_done:
            await _hear_out(chunks)
            return
    if rest := conveyor.pass_on_rest(splitter.rest()):
        yield rest
    if not conveyor.is_done and not conveyor.is_failed:
        raise broken(deployment, "ended its stream without finishing the answer")


def _passed_on(conveyor: Conveyor, events: list[bytes]) -> tuple[bytes, UpstreamError | None]:
    """Return what the client gets for some events, and what broke the stream among them: what came before counts."""
    told: list[bytes] = []
    try:
        for event in events:
            told.append(conveyor.pass_on(event))
    except UpstreamError as error:
        return b"".join(told), error
    return b"".join(told), None


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
        if _ENDING.search(event):
            keep(written(document(data_of(event) or b"{}").get("response")))


def _silent(deployment: Deployment, idle_s: float) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"{deployment.provider} sent nothing but comments for {idle_s:g} s",
        phase="idle",
        provider=deployment.provider,
        deployment=deployment.name,
    )


def broken(deployment: Deployment, what: str) -> UpstreamBroken:
    """Make the error for an answer that is none."""
    return UpstreamBroken(
        f"{deployment.provider} {what}",
        provider=deployment.provider,
        deployment=deployment.name,
        upstream_status=200,
    )
