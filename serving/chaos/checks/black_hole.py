"""A provider that accepts and never answers.

Entry point: :func:`black_hole`.
"""

from __future__ import annotations

import asyncio

from serving.chaos.fault import BLACK_HOLE, ProxyFault, always
from serving.chaos.load import affordable_per_s, open_loop
from serving.chaos.question import asking, is_right
from serving.chaos.scratch import Gateway, Scratch
from serving.chaos.verdict import Measured

#: A provider's own time, so that "1.2 × normal" is said of something longer than the noise of a machine.
_NORMAL = ProxyFault(latency_s=0.08)
_PER_S = 60.0
_LOOK_EVERY_S = 0.01


async def black_hole(scratch: Scratch) -> Measured:
    """Swallow every request at one of two providers; compare what callers feel before and after it is ejected."""
    async with scratch.gateway(first_byte_timeout_s=1.0) as gateway:
        loop, client = asyncio.get_running_loop(), gateway.client
        per_s = await affordable_per_s(client, asking(), is_right(), _PER_S)
        scratch.alpha.weather = scratch.beta.weather = always(_NORMAL)
        before = await open_loop(client, asking(), is_right(), per_s=per_s, duration_s=scratch.of(4.0, 15.0))
        scratch.alpha.weather = always(BLACK_HOLE)
        fell_s, duration_s = loop.time(), scratch.of(8.0, 40.0)
        watching = asyncio.create_task(_ejection(gateway, fell_s + duration_s))
        during = await open_loop(client, asking(), is_right(), per_s=per_s, duration_s=duration_s, first=200_000)
        ejected_s, n_before, n_by_then, n_in_flight = await watching
        if ejected_s is None:
            return Measured({"requests": during.n}, "never ejected; " + during.failures())
        # Those that were sent there before may have to wait for a second provider still: they began earlier.
        after = during.since(ejected_s)
        n_probes = len(scratch.alpha.arrivals_since(ejected_s + 0.1))
        return Measured(
            {
                # Between two looks: those before the first were not enough, and at least one more was.
                "failures_until_ejected": n_before + 1,
                "failures_seen_when_ejected": n_by_then,
                "in_flight_at_ejection": n_in_flight,
                "ejected_after": ejected_s - fell_s,
                "p99_after_against_normal": after.quantile_s(0.99) / before.quantile_s(0.99),
                "normal_p99": before.quantile_s(0.99),
                "probes_per_30_s": n_probes / max(1.0, (fell_s + duration_s - ejected_s) / 30.0),
                "visible_failures": during.failed_share,
                "requests_per_s": per_s,
            },
            during.failures(),
        )


async def _ejection(gateway: Gateway, until_s: float) -> tuple[float | None, float, float, float]:
    """Return when the black hole was seen to be ejected, its errors just before and by then, and its in-flight."""
    loop = asyncio.get_running_loop()
    n_before = 0.0
    while loop.time() < until_s:
        status = await gateway.status_of("alpha")
        n_errors = _number(status, "n_errors")
        if _number(status, "ejected_for_s") > 0:
            return loop.time(), min(n_before, n_errors - 1), n_errors, _number(status, "n_in_flight")
        n_before = n_errors
        await asyncio.sleep(_LOOK_EVERY_S)
    return None, 0.0, 0.0, 0.0


def _number(status: dict[str, object], name: str) -> float:
    value = status.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
