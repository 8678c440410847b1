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
from serving.errors import UpstreamBroken, UpstreamTimeout
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


async def begin(upstream: Upstream, attempt: Attempt, request: UpstreamRequest, content_s: float | None) -> Begun:
    """Call a deployment and wait until its answer has begun.

    Parameters
    ----------
    upstream : Upstream
    attempt : Attempt
    request : UpstreamRequest
    content_s : float or None
        How long the first content of a stream is waited for, perhaps for ever; None for a whole answer.

    Raises
    ------
    UpstreamError
        It did not; nothing was sent to the client, and the response is closed.
    """
    content_by = None
    if content_s is not None and content_s < inf:
        content_by = asyncio.get_running_loop().time() + content_s
    response = await upstream.send(request)
    try:
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
        if content_s is None:
            return await _whole(attempt, response)
        async with asyncio.timeout_at(content_by):
            return await _streamed(attempt, response, request.idle_timeout_s)
    except TimeoutError:
        await response.close()
        raise UpstreamTimeout(
            f"{attempt.deployment.provider} sent no content within {content_s:g} s",
            phase="first_byte",
            provider=attempt.deployment.provider,
            deployment=attempt.deployment.name,
        ) from None
    except BaseException:
        await response.close()
        raise


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
            raise failure_of(
                *conveyor.failure, provider=attempt.deployment.provider, deployment=attempt.deployment.name
            )
        if held is None:
            break
        first += held
    attempt.first_content()
    return Begun(response, stream=BegunStream(first, conveyor, events, pending))


async def _next_of(events: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(events, None)
