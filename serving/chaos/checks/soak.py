"""Half of what can be done, for long, with callers that leave and providers that throttle.

Entry point: :func:`soak`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from serving.chaos.client import Ask
from serving.chaos.fault import ProxyFault, Weather
from serving.chaos.figures import slope
from serving.chaos.load import closed_loop, open_loop
from serving.chaos.question import asking, is_right
from serving.chaos.scratch import Gateway, Scratch
from serving.chaos.verdict import Measured

_LOOK_EVERY_S = 5.0
#: Memory grows while caches fill; so long it is not looked at, or a sixth of a short soak.
_WARM_UP_S = 300.0
#: Until kept connections of the gateway to its providers have been let go.
_IDLE_AFTER_S = 20.0
_LATENCY_S = 0.02
_THROTTLING = ((0.05, ProxyFault(status=429, latency_s=_LATENCY_S)),)


async def soak(scratch: Scratch) -> Measured:
    """Keep half load up; watch memory, and what is open afterwards."""
    async with scratch.gateway() as gateway:
        judge, ask = is_right(), asking()
        scratch.alpha.weather = scratch.beta.weather = Weather(otherwise=ProxyFault(latency_s=_LATENCY_S))
        full = await closed_loop(gateway.client, ask, judge, n_connections=16, duration_s=5.0)
        await asyncio.sleep(_IDLE_AFTER_S)
        idle = gateway.process.n_descriptors()
        scratch.alpha.weather = scratch.beta.weather = Weather(_THROTTLING, ProxyFault(latency_s=_LATENCY_S))
        samples: list[tuple[float, float]] = []
        watching = asyncio.create_task(_watch(gateway, samples))
        forgetting = asyncio.create_task(_forget(scratch))

        def leaving(number: int) -> Ask:
            return replace(ask(number), leave_after_s=_LATENCY_S / 2) if number % 10 == 0 else ask(number)

        tally = await open_loop(gateway.client, leaving, judge, per_s=full.per_s() / 2, duration_s=scratch.soak_s)
        for task in (watching, forgetting):
            task.cancel()
        await asyncio.sleep(_IDLE_AFTER_S)
        after = gateway.process.n_descriptors()
        warm_up_s = min(_WARM_UP_S, scratch.soak_s / 6)
        kept = [(at_s, mb) for at_s, mb in samples if at_s - samples[0][0] >= warm_up_s]
        if idle is None or after is None or len(kept) < 2:
            return Measured({}, "memory and descriptors cannot be read here: there is no /proc")
        failures = sum(bool(outcome.failure) and outcome.failure != "left" for outcome in tally.outcomes)
        return Measured(
            {
                "memory_slope": slope([at_s / 60 for at_s, _ in kept], [mb for _, mb in kept]),
                "descriptors_above_idle": after - idle,
                "still_in_flight": await gateway.total("n_in_flight"),
                "memory_at_end": kept[-1][1],
                "requests": tally.n,
                "per_s": tally.n / scratch.soak_s,
                "visible_failures": failures / max(1, tally.n),
            },
            tally.failures(),
        )


async def _watch(gateway: Gateway, samples: list[tuple[float, float]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        mb = gateway.process.memory_mb()
        if mb is not None:
            samples.append((loop.time(), mb))
        await asyncio.sleep(_LOOK_EVERY_S)


async def _forget(scratch: Scratch) -> None:
    """Keep the suite's own memory bounded."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        for proxy in (scratch.alpha, scratch.beta):
            del proxy.arrivals[:-1_000]
