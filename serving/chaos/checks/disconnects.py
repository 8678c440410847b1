"""Clients that leave at any moment, some of them twice.

Entry point: :func:`disconnects`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from serving.chaos.client import Ask, Reply
from serving.chaos.fault import ProxyFault, always
from serving.chaos.fault_proxy import Arrival
from serving.chaos.figures import quantile
from serving.chaos.question import asking, pieces
from serving.chaos.scratch import MODELS, Scratch
from serving.chaos.verdict import Measured

N_PIECES = 40
#: Of a provider before its first byte, and between its events.
_LATENCY_S, _EVENT_EVERY_S = 0.15, 0.01
_N_AT_ONCE = 20
_SETTLE_S = 2.0
#: Moments, in turn: amid the body, waiting for the first content, amid the stream twice as often.
_MOMENTS = ("body", "waiting", "stream", "stream")


async def disconnects(scratch: Scratch) -> Measured:
    """Leave 1,000 times, at moments drawn by lot; look at what is left behind."""
    async with scratch.gateway() as gateway:
        for model in MODELS:
            await scratch.script(model, "".join(pieces(model, N_PIECES)))
            await scratch.pace(model, _EVENT_EVERY_S)
        scratch.alpha.weather = scratch.beta.weather = always(ProxyFault(latency_s=_LATENCY_S))
        n = int(scratch.of(80, 1_000))
        plan = [_leaving(scratch, number) for number in range(n)]
        left_at_s: dict[int, float] = {}
        gate = asyncio.Semaphore(_N_AT_ONCE)

        async def leave(number: int, ask: Ask) -> Reply:
            async with gate:
                reply = await gateway.client.ask(ask)
                left_at_s[number] = reply.ended_s
                return reply

        replies = await asyncio.gather(*(leave(number, ask) for number, (_, ask) in enumerate(plan)))
        await asyncio.sleep(_SETTLE_S)
        arrivals = [a for proxy in (scratch.alpha, scratch.beta) for a in proxy.arrivals]
        delays_s = [_closed_after_s(arrival, left_at_s) for arrival in arrivals]
        n_whole = sum(moment != "body" for moment, _ in plan)
        n_in_flight = await gateway.total("n_in_flight") + await scratch.n_in_flight_at_providers()
        n_against = await gateway.total("n_errors") + await gateway.total("n_ejections")
        records = await gateway.records("id, outcome")
        n_left = sum(reply.ending == "left" for reply in replies)
        # A body that never arrived whole was no request: it may leave a record, the others must.
        n_missing = max(0, n_whole - len(records)) + max(0, len(records) - n)
        return Measured(
            {
                "upstream_closed_after": max(delays_s, default=0.0),
                "upstream_closed_after_p50": quantile(delays_s, 0.5) if delays_s else 0.0,
                "still_in_flight": n_in_flight,
                "records_missing_or_double": n_missing,
                "errors_held_against_a_deployment": n_against,
                "disconnects": n_left,
                "records": len(records),
                "reached_a_provider": len(arrivals),
            }
        )


def _leaving(scratch: Scratch, number: int) -> tuple[str, Ask]:
    """Draw when one client leaves, and how."""
    ask = asking(is_stream=True)(number)
    moment = _MOMENTS[number % len(_MOMENTS)]
    is_double = scratch.rng.random() < 0.3
    if moment == "body":
        # Somewhere in the head or the body, both of which are longer than that.
        n_sent = scratch.rng.randint(20, 180 + len(ask.body) // 2)
        return moment, replace(ask, n_sent=n_sent, leave_after_s=0.02, is_double=is_double)
    if moment == "waiting":
        after_s = scratch.rng.uniform(0.03, _LATENCY_S)
        return moment, replace(ask, leave_after_s=after_s, is_double=is_double)
    return moment, replace(ask, leave_after_reads=scratch.rng.randint(1, N_PIECES - 5), is_double=is_double)


def _closed_after_s(arrival: Arrival, left_at_s: dict[int, float]) -> float:
    """Return how long after its client had left the connection to the provider was closed; infinite is never."""
    if arrival.ended_s is None:
        return float("inf")
    return max(0.0, arrival.ended_s - left_at_s.get(arrival.tag if arrival.tag is not None else -1, float("inf")))
