"""More connections, and more requests than can be served.

Entry points: :func:`throughput`, :func:`overload`, :func:`overload_of_work`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from serving.chaos.client import Ask, Reply
from serving.chaos.figures import quantile
from serving.chaos.load import Tally, closed_loop, open_loop
from serving.chaos.question import asking, is_right
from serving.chaos.scratch import Gateway, Scratch
from serving.chaos.verdict import Measured

FEW, MANY = 16, 128
_PLAIN = is_right(("plain",))
#: Places and a provider's time: together they set how much the scratch gateway can do, whatever the machine can.
N_PLACES, _ANSWER_S = 20, 0.4
#: Longest wait for a place here: it is part of the time that a shed answer takes.
_QUEUE_WAIT_S = 0.05
#: Of callers, and how many of one class there are at most.
_PATIENCE_S, _MOST_AT_ONCE = 10.0, 500
TIMES = 4
_SHARES = (("high", 0.1), ("normal", 0.45), ("batch", 0.45))
#: How long the return to normal is watched.
_CALM_WITHIN_S = 20.0
#: What a gateway says when it sheds a request, by API.
_SHED = (503, 529)


async def throughput(scratch: Scratch) -> Measured:
    """Measure requests a second over 16 and over 128 connections, in turn."""
    async with scratch.gateway() as gateway:
        rates: dict[int, list[float]] = {FEW: [], MANY: []}
        ask, failures = asking("auto"), 0
        await closed_loop(gateway.client, ask, _PLAIN, n_connections=FEW, n=200)
        for _ in range(int(scratch.of(1, 3))):
            for n in (FEW, MANY):
                tally = await closed_loop(gateway.client, ask, _PLAIN, n_connections=n, duration_s=scratch.of(1.5, 4.0))
                rates[n].append(tally.per_s())
                failures += tally.n_failed
        return Measured(
            {
                "many_against_few": median(rates[MANY]) / median(rates[FEW]),
                "failures": failures,
                "per_s_at_16": median(rates[FEW]),
                "per_s_at_128": median(rates[MANY]),
            }
        )


async def overload(scratch: Scratch) -> Measured:
    """Offer four times what there are places for: slow providers, little work."""
    if "server.max_in_flight" not in scratch.keys:
        return Measured({}, "this gateway has no server.max_in_flight: it takes on whatever comes")
    async with scratch.gateway(max_in_flight=N_PLACES, queue_wait_s=_QUEUE_WAIT_S) as gateway:
        await scratch.pace("plain", 0.0, _ANSWER_S)
        return await _overloaded(scratch, gateway, N_PLACES // 2, 2.0)


async def overload_of_work(scratch: Scratch) -> Measured:
    """Offer four times what the processor can do: quick providers, places enough.

    Whoever offers it shares the processor, and so do the providers: what is offered is told, and is less than asked
    where the machine has no more.
    """
    async with scratch.gateway() as gateway:
        return await _overloaded(scratch, gateway, 32, 1.0)


async def _overloaded(scratch: Scratch, gateway: Gateway, n_connections: int, of_measured: float) -> Measured:
    """Measure what can be done over so many connections, offer four times that, and watch the return to normal."""
    ask, duration_s = asking("plain"), scratch.of(6.0, 30.0)
    await closed_loop(gateway.client, ask, _PLAIN, n_connections=4, n=20)
    normal = await closed_loop(
        gateway.client, ask, _PLAIN, n_connections=n_connections, duration_s=scratch.of(2.0, 5.0), first=1_000
    )
    capacity_per_s = of_measured * normal.per_s()
    tallies = await asyncio.gather(
        *(_offered(gateway, name, share * TIMES * capacity_per_s, duration_s) for name, share in _SHARES)
    )
    high, middle, batch = tallies
    everybody = Tally([outcome for tally in tallies for outcome in tally.outcomes])
    shed_s = [outcome.total_s for outcome in everybody.outcomes if outcome.status in _SHED]
    calm_s = await _calm_again_s(gateway, 1.5 * normal.quantile_s(0.95))
    return Measured(
        {
            "high_success": 1 - high.failed_share,
            "shed_p99": quantile(shed_s, 0.99) if shed_s else float("nan"),
            "shed_p50": quantile(shed_s, 0.5) if shed_s else float("nan"),
            "shed_without_retry_after": sum("without" in outcome.failure for outcome in everybody.outcomes),
            "failed_otherwise": sum(bool(o.failure) and o.status not in _SHED for o in everybody.outcomes),
            "normal_again_after": calm_s,
            "served_against_capacity": (everybody.n - everybody.n_failed) / duration_s / capacity_per_s,
            "capacity_per_s": capacity_per_s,
            "offered_against_capacity": everybody.n / duration_s / capacity_per_s,
            "high_p99": high.quantile_s(0.99),
            "normal_success": 1 - middle.failed_share,
            "batch_success": 1 - batch.failed_share,
        },
        everybody.failures(),
    )


async def _offered(gateway: Gateway, priority: str, per_s: float, duration_s: float) -> Tally:
    """Offer one class of requests."""
    client = {"normal": gateway.normal, "batch": gateway.batch}.get(priority, gateway.client)
    ask = asking("plain")

    def asked(number: int) -> Ask:
        return replace(ask(number), headers=(("x-turnout-priority", priority),), timeout_s=_PATIENCE_S)

    return await open_loop(
        client, asked, _shedding(_PLAIN), per_s=per_s, duration_s=duration_s, most_at_once=_MOST_AT_ONCE
    )


def _shedding(judge: Callable[[Reply, int], str]) -> Callable[[Reply, int], str]:
    """Return a judge who looks at refusals more closely."""

    def look(reply: Reply, number: int) -> str:
        if reply.status in _SHED and "retry-after" not in reply.headers:
            return f"status {reply.status} without Retry-After"
        return judge(reply, number)

    return look


async def _calm_again_s(gateway: Gateway, usual_s: float) -> float:
    """Return how long until ten answers in a row took no longer than usual; infinite after a while."""
    loop, ask = asyncio.get_running_loop(), asking("plain")
    began_s, n_usual, since_s = loop.time(), 0, loop.time()
    for number in range(1_000_000):
        now_s = loop.time()
        if now_s - began_s > _CALM_WITHIN_S:
            break
        reply = await gateway.client.ask(ask(number))
        if _PLAIN(reply, number) or reply.total_s > usual_s:
            n_usual = 0
            await asyncio.sleep(0.02)
            continue
        since_s = since_s if n_usual else now_s
        n_usual += 1
        if n_usual == 10:
            return since_s - began_s
    return float("inf")
