"""The beginning of an answer: everything up to the first content, which is as far as an attempt may fail unseen.

What only says that an answer begins (lifecycle events) promises nothing and is held back: at most so many bytes, and
so long after the first of it, then the client is given what there is. Entry points: :func:`begin`, :class:`Begun`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from router.pricing import Usage
from serving.attempt import Attempt
from serving.dialects.registry import DIALECTS
from serving.errand import Conveyor
from serving.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from serving.providers.refusals import error_of, failure_of
from serving.providers.upstream import Upstream, UpstreamRequest, UpstreamResponse
from serving.streamed_answer import broken, events_of

#: Of a stream, held back before its first content at most, and for how long after its first event.
MAX_HELD_BYTES = 64 * 1024
HOLD_S = 10.0


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that is sure to be one: whole, or a stream with its first content. Its response must be closed.

    Parameters
    ----------
    response : UpstreamResponse
    body : bytes or None
        The whole answer as the client gets it; None for a stream.
    usage : Usage
        Of a whole answer.
    stream : BegunStream or None
    """

    response: UpstreamResponse
    body: bytes | None = field(default=None, repr=False)
    usage: Usage = field(default_factory=Usage)
    stream: BegunStream | None = None


class BegunStream(NamedTuple):
    """A stream with what was held back of it; ``pending`` is the next event, awaited already, of a silent one."""

    first: bytes
    conveyor: Conveyor
    events: AsyncGenerator[bytes]
    pending: asyncio.Future[bytes | None] | None


async def begin(
    upstream: Upstream, attempt: Attempt, request: UpstreamRequest, *, is_stream: bool, content_s: float = inf
) -> Begun:
    """Call a deployment and wait until its answer has begun.

    Parameters
    ----------
    upstream : Upstream
    attempt : Attempt
    request : UpstreamRequest
    is_stream : bool
    content_s : float, default=inf
        How long the first content of a stream is waited for, or a whole answer, or what an error says.

    Raises
    ------
    UpstreamError
        It did not; nothing was sent to the client, and the response is closed.
    """
    content_by = None if content_s == inf else asyncio.get_running_loop().time() + content_s
    try:
        response = await upstream.send(request)
    except UpstreamError as error:
        raise attempt.judged(error) from None
    try:
        if content_by is None:
            return await _begun(attempt, response, request.idle_timeout_s, is_stream)
        async with asyncio.timeout_at(content_by):
            return await _begun(attempt, response, request.idle_timeout_s, is_stream)
    except TimeoutError:
        await response.close()
        late = UpstreamTimeout(
            f"{attempt.deployment.provider} sent no content within {content_s:g} s",
            phase="first_byte",
            provider=attempt.deployment.provider,
            deployment=attempt.deployment.name,
        )
        raise attempt.judged(late) from None
    except UpstreamError as error:
        await response.close()
        raise attempt.judged(error) from None
    except BaseException:
        await response.close()
        raise


async def _begun(attempt: Attempt, response: UpstreamResponse, idle_s: float, is_stream: bool) -> Begun:
    if response.status >= 400:
        raise error_of(
            response.status,
            response.headers,
            await response.read(),
            provider=attempt.deployment.provider,
            deployment=attempt.deployment.name,
            dialect=DIALECTS[attempt.relay.line.dialect],
            is_translated=attempt.relay.is_translated,
        )
    return await (_streamed(attempt, response, idle_s) if is_stream else _whole(attempt, response))


async def _whole(attempt: Attempt, response: UpstreamResponse) -> Begun:
    attempt.first_content()
    body = await response.read()
    await response.close()
    try:
        turned, usage = attempt.relay.whole(body)
    except UpstreamBroken as error:
        raise broken(attempt.deployment, error.message) from None
    return Begun(response, turned, usage)


async def _streamed(attempt: Attempt, response: UpstreamResponse, idle_s: float) -> Begun:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise broken(attempt.deployment, "answered a streaming request with something that is not a stream")
    conveyor = attempt.relay.conveyor()
    events = events_of(attempt.deployment, response, conveyor, idle_s)
    first = b""
    pending: asyncio.Future[bytes | None] | None = None
    loop, hold_until = asyncio.get_running_loop(), inf
    while not (conveyor.has_content or conveyor.is_done or len(first) > MAX_HELD_BYTES):
        if not first:
            held = await anext(events, None)
        else:
            # Who falls silent after its beginning is given to the client as it is, and pinged: it may be thinking.
            pending = asyncio.ensure_future(_next_of(events))
            try:
                done, _ = await asyncio.wait({pending}, timeout=max(0.0, hold_until - loop.time()))
            except asyncio.CancelledError:
                pending.cancel()
                raise
            if not done:
                break
            held, pending = pending.result(), None
        if conveyor.is_failed and not conveyor.has_content:
            raise failure_of(
                *conveyor.failure, provider=attempt.deployment.provider, deployment=attempt.deployment.name
            )
        if held is None:
            break
        if not first:
            hold_until = loop.time() + HOLD_S
        first += held
    attempt.first_content()
    return Begun(response, stream=BegunStream(first, conveyor, events, pending))


async def _next_of(events: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(events, None)
