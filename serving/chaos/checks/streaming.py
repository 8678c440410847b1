"""Streams side by side, and how much later their first chunk comes.

Entry points: :func:`streams`, :func:`first_chunk`.
"""

from __future__ import annotations

import asyncio

from serving.chaos.api import CHAT
from serving.chaos.client import Client, Reply
from serving.chaos.figures import quantile
from serving.chaos.question import PIECE_MARK, asking, pieces
from serving.chaos.scratch import Scratch
from serving.chaos.verdict import Measured

N_CHUNKS = 60
#: Of the provider, between two chunks: slow enough that two cores send those of 500 streams without falling behind.
_EVENT_EVERY_S = 0.4
_LOOK_EVERY_S = 0.02


async def streams(scratch: Scratch) -> Measured:
    """Read 500 streams at once, past the gateway and through it, and poke the gateway's event loop meanwhile."""
    async with scratch.gateway() as gateway:
        n = int(scratch.of(100, 500))
        n_chunks = int(scratch.of(10, N_CHUNKS))
        text = "".join(pieces("plain", n_chunks))
        await scratch.script("plain", text)
        await scratch.pace("plain", _EVENT_EVERY_S)
        bare = await _read(scratch.provider, n)
        watching = asyncio.create_task(_longest_stall_s(gateway.client))
        ours = await _read(gateway.client, n)
        watching.cancel()
        stall_s = (await asyncio.gather(watching, return_exceptions=True))[0]
        told = [CHAT.told(bytes(reply.body)) for reply in ours]
        n_complete = sum(one.ending == "done" and one.text == text for one in told)
        gaps_s, bare_gaps_s = ([reply.longest_gap_s() for reply in replies] for replies in (ours, bare))
        return Measured(
            {
                "complete": n_complete / n,
                "longest_gap_added": max(gaps_s) - max(bare_gaps_s),
                "loop_stall": stall_s if isinstance(stall_s, float) else float("nan"),
                "longest_gap": max(gaps_s),
                "longest_gap_bare": max(bare_gaps_s),
                "median_longest_gap_added": quantile(gaps_s, 0.5) - quantile(bare_gaps_s, 0.5),
                "streams": n,
                "chunks": n_chunks,
            }
        )


async def first_chunk(scratch: Scratch) -> Measured:
    """Ask in turn, past the gateway and through it, one stream at a time; compare when the first word comes."""
    async with scratch.gateway() as gateway:
        await scratch.script("plain", "".join(pieces("plain", 8)))
        ask = asking("plain", is_stream=True)
        waits_s: dict[str, list[float]] = {"ours": [], "bare": []}
        n, n_warm_up = int(scratch.of(60, 400)), 20
        for number in range(n + n_warm_up):
            for name, client in (("ours", gateway.client), ("bare", scratch.provider)):
                one = ask(number)
                reply = await client.ask(type(one)(one.body, one.path, mark=PIECE_MARK))
                if number >= n_warm_up and reply.marked_s is not None:
                    waits_s[name].append(reply.marked_s - reply.began_s)
        if not all(waits_s.values()):
            return Measured({}, "a stream had no text")
        p50_s, bare_p50_s = quantile(waits_s["ours"], 0.5), quantile(waits_s["bare"], 0.5)
        return Measured(
            {
                "added_p50": p50_s - bare_p50_s,
                "p50": p50_s,
                "bare_p50": bare_p50_s,
                "added_p99": quantile(waits_s["ours"], 0.99) - quantile(waits_s["bare"], 0.99),
                "streams": n,
            }
        )


async def _read(client: Client, n: int) -> list[Reply]:
    """Read so many streams at once, begun evenly over the time between two chunks."""
    ask = asking("plain", is_stream=True, timeout_s=120.0)

    async def read(number: int) -> Reply:
        await asyncio.sleep(_EVENT_EVERY_S * number / n)
        return await client.ask(ask(number))

    return list(await asyncio.gather(*(read(number) for number in range(n))))


async def _longest_stall_s(client: Client) -> float:
    """Ask for nothing again and again; return, once cancelled, the longest that it took."""
    longest_s = 0.0
    try:
        while True:
            reply = await client.get("/healthz")
            longest_s = max(longest_s, reply.total_s)
            await asyncio.sleep(_LOOK_EVERY_S)
    except asyncio.CancelledError:
        return longest_s
