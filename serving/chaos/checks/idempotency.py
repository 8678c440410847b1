"""The same request many times over, under one Idempotency-Key.

Entry point: :func:`idempotency`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from serving.chaos.client import Ask
from serving.chaos.fault import ProxyFault, always
from serving.chaos.question import asking
from serving.chaos.scratch import Scratch
from serving.chaos.verdict import Measured

N_AT_ONCE = 50
_KEY = ("idempotency-key", "chaos-1")


async def idempotency(scratch: Scratch) -> Measured:
    """Ask the same 50 times at once, once more afterwards, and then something else under the same key."""
    async with scratch.gateway() as gateway:
        scratch.alpha.weather = scratch.beta.weather = always(ProxyFault(latency_s=0.2))
        ask = replace(asking()(1), headers=(_KEY,))
        other = replace(asking()(2), headers=(_KEY,))
        replies = await asyncio.gather(*(gateway.client.ask(ask) for _ in range(N_AT_ONCE)))
        later = await gateway.client.ask(ask)
        n_calls = scratch.n_arrivals
        conflict = await gateway.client.ask(other)
        n_charged = sum(cost is not None for (cost,) in await gateway.records("cost_usd"))
        answered = {bytes(reply.body) for reply in (*replies, later) if reply.status == 200}
        n_odd = sum(reply.status not in (200, 409) for reply in replies) + (later.status != 200)
        fresh = await gateway.client.ask(_with_key(asking()(3), "chaos-2"))
        return Measured(
            {
                "upstream_calls": n_calls,
                "charges": n_charged,
                "different_answers": len(answered),
                "odd_statuses": n_odd,
                "status_of_another_body": conflict.status,
                "status_of_another_key": fresh.status,
                "replayed": sum(reply.status == 200 for reply in replies),
            }
        )


def _with_key(ask: Ask, key: str) -> Ask:
    return replace(ask, headers=(("idempotency-key", key),))
