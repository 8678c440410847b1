"""Hedging: a second attempt beside one that is slower to begin than it usually is; the first to begin answers.

Off by default, since both calls may be billed, and never for more than a twentieth of the requests. The loser is
cancelled at once, and that says nothing of its deployment. Entry point: :func:`race`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from serving.attempt import Attempt
from serving.beginning import Begun
from serving.errors import ClientDisconnected, UpstreamError

#: Most of the requests that may be hedged.
MOST_SHARE = 0.05


async def race(
    first: Attempt,
    begin: Callable[[Attempt], Awaitable[Begun]],
    rival: Callable[[], Attempt | None],
    after_s: float,
    failed: Callable[[Attempt, UpstreamError], None],
) -> tuple[Attempt, Begun]:
    """Begin one attempt and, when it takes longer, another; return who began first.

    Parameters
    ----------
    first : Attempt
    begin : callable (attempt) -> awaitable of Begun
    rival : callable () -> Attempt or None
        Makes the second attempt; None where there is nobody or no budget.
    after_s : float
        How long the first is alone.
    failed : callable (attempt, error)
        Told of an attempt that failed while the other still runs.

    Returns
    -------
    attempt : Attempt
    begun : Begun

    Raises
    ------
    UpstreamError
        Both failed (or the only one); of the last, which ``failed`` was not told.
    """
    running: dict[asyncio.Future[Begun], Attempt] = {asyncio.ensure_future(begin(first)): first}
    try:
        done, _ = await asyncio.wait(running, timeout=after_s)
        if not done and (second := rival()) is not None:
            running[asyncio.ensure_future(begin(second))] = second
        while True:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            # Both at once: whoever began goes before whoever failed.
            task = min(done, key=lambda one: one.exception() is not None)
            attempt, error = running.pop(task), task.exception()
            if error is None:
                break
            if not running or not isinstance(error, UpstreamError):
                raise error
            failed(attempt, error)
    except BaseException:
        # The exchange settles the first attempt, whatever happened; nobody else would settle the second.
        for other in running.values():
            if other is not first:
                other.finish(ClientDisconnected.outcome)
        await _end(running)
        raise
    try:
        await _end(running)
    except asyncio.CancelledError:
        await _let_go(task.result())  # the client left just now
        raise
    return attempt, task.result()


async def _end(running: Iterable[asyncio.Future[Begun]]) -> None:
    """Cancel who is still under way, and let go of an answer that came too late."""
    tasks = list(running)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await _let_go(task.result())


async def _let_go(begun: Begun) -> None:
    if begun.stream is not None and begun.stream.pending is not None:
        begun.stream.pending.cancel()
    await begun.response.close()
