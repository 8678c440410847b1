"""Providers that fail now and then, throttle always, or are all down.

Entry points: :func:`random_failures`, :func:`throttled`, :func:`both_down`.
"""

from __future__ import annotations

import asyncio

from serving.chaos.client import Client
from serving.chaos.fault import RESET, ProxyFault, Weather, always
from serving.chaos.load import affordable_per_s, closed_loop, open_loop
from serving.chaos.question import asking, is_right
from serving.chaos.scratch import Scratch
from serving.chaos.verdict import Measured

_OTHERS = ((0.007, ProxyFault(status=500)), (0.006, RESET), (0.007, ProxyFault(status=503)))
#: 5 % of the answers, three fifths of them 429.
MIXED = Weather(((0.03, ProxyFault(status=429)), *_OTHERS))
#: The same, and each 429 says how long to wait.
MIXED_WITH_WAITS = Weather(((0.03, ProxyFault(status=429, retry_after_s=1.0)), *_OTHERS))
RETRY_AFTER_S = 5.0
#: A slow machine asks as many questions as it can in that time, and the figures say how many.
_LONGEST_S = 180.0
_PER_S, _DOWN_PER_S = 100.0, 200.0
#: What is under way when the first 429 comes back is a burst that nobody could have held back.
_BURST_S = 0.25


async def random_failures(scratch: Scratch) -> Measured:
    """Ask 10,000 questions while both providers fail at random; then a few at a modest rate while 429s name a time.

    The second part has no bound: where both say "leave me alone" at once, a refusal is what they asked for.
    """
    async with scratch.gateway() as gateway:
        scratch.alpha.weather = scratch.beta.weather = MIXED
        n = int(scratch.of(600, 10_000))
        tally = await closed_loop(gateway.client, asking(), is_right(), n_connections=16, n=n, duration_s=_LONGEST_S)
        n_struck = sum(a.ending == "fault" for p in (scratch.alpha, scratch.beta) for a in p.arrivals)
        n_attempts = max(1, scratch.n_arrivals)
        scratch.alpha.weather = scratch.beta.weather = MIXED_WITH_WAITS
        duration_s = scratch.of(2.0, 15.0)
        told = await open_loop(gateway.client, asking(), is_right(), per_s=20, duration_s=duration_s, first=100_000)
        return Measured(
            {
                "visible_failures": tally.failed_share,
                "requests": tally.n,
                "attempts_struck": n_struck / n_attempts,
                "attempts_per_request": n_attempts / max(1, tally.n),
                "requests_per_s": tally.per_s(),
                "visible_failures_where_429s_name_a_time": told.failed_share,
            },
            tally.failures(),
        )


async def throttled(scratch: Scratch) -> Measured:
    """Let one provider answer 429 with a time to wait, always."""
    async with scratch.gateway() as gateway:
        per_s = await affordable_per_s(gateway.client, asking(), is_right(), _PER_S)
        before = await open_loop(gateway.client, asking(), is_right(), per_s=per_s, duration_s=2.0, first=200_000)
        scratch.calm()
        scratch.alpha.weather = always(ProxyFault(status=429, retry_after_s=RETRY_AFTER_S))
        duration_s = scratch.of(5.5, 26.0)
        tally = await open_loop(gateway.client, asking(), is_right(), per_s=per_s, duration_s=duration_s)
        arrivals = [arrival.at_s for arrival in scratch.alpha.arrivals]
        first_s = arrivals[0] if arrivals else 0.0
        n_burst = sum(at_s <= first_s + _BURST_S for at_s in arrivals)
        n_after = len(arrivals) - n_burst
        return Measured(
            {
                "success": 1 - tally.failed_share,
                "requests_per_5_s_after_the_first_burst": n_after / max(1.0, (duration_s - _BURST_S) // RETRY_AFTER_S),
                "first_burst": n_burst,
                "all_told": len(arrivals),
                "added_p99": tally.quantile_s(0.99) - before.quantile_s(0.99),
                "normal_p99": before.quantile_s(0.99),
                "requests_per_s": per_s,
            },
            tally.failures(),
        )


async def both_down(scratch: Scratch) -> Measured:
    """Take both providers down under load, and give them back."""
    async with scratch.gateway() as gateway:
        per_s = await affordable_per_s(gateway.client, asking(), is_right(), _DOWN_PER_S)
        scratch.alpha.weather = scratch.beta.weather = always(RESET)
        n_before, loop = scratch.n_arrivals, asyncio.get_running_loop()
        began_s, duration_s = loop.time(), scratch.of(5.0, 60.0)
        tally = await open_loop(gateway.client, asking(), is_right(), per_s=per_s, duration_s=duration_s, first=1_000)
        down_s = loop.time() - began_s
        n_attempts = scratch.n_arrivals - n_before
        scratch.calm()
        recovered_s = await _recovery_s(gateway.client)
        return Measured(
            {
                "attempts_over_budget": n_attempts - (1.2 * tally.n + 3 * down_s),
                "attempts_per_request": n_attempts / max(1, tally.n),
                "requests_per_s": tally.n / duration_s,
                "refused_p99": sorted(o.total_s for o in tally.outcomes)[int(0.99 * (tally.n - 1))] if tally.n else 0,
                "recovery": recovered_s,
            },
            tally.failures(),
        )


async def _recovery_s(client: Client) -> float:
    """Return how long until twenty answers in a row were right; infinite after half a minute."""
    loop = asyncio.get_running_loop()
    began_s, right_since_s, n_right = loop.time(), 0.0, 0
    ask, judge = asking(), is_right()
    for number in range(100_000, 200_000):
        asked_s = loop.time()
        if asked_s - began_s > 30.0:
            break
        if judge(await client.ask(ask(number)), number):
            n_right = 0
            await asyncio.sleep(0.01)
            continue
        right_since_s = right_since_s if n_right else asked_s
        n_right += 1
        if n_right == 20:
            return right_since_s - began_s
    return float("inf")
