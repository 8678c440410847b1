"""Streams side by side, and how much later their first chunk comes.

Entry points: :func:`streams`, :func:`first_chunk`.
"""

from __future__ import annotations

import asyncio
from math import inf

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
_OPENED_PER_S = 60.0


async def streams(scratch: Scratch) -> Measured:
    """Read 500 streams at once, past the gateway and through it, and poke the gateway's event loop meanwhile."""
    async with scratch.gateway() as gateway:
        n = int(scratch.of(100, 500))
        n_chunks = int(scratch.of(10, N_CHUNKS))
        text = "".join(pieces("plain", n_chunks))
        await scratch.script("plain", text)
        await scratch.pace("plain", _EVENT_EVERY_S)
        bare, bare_stall_s = await _watched(scratch.provider, "/v1/models", n)
        ours, stall_s = await _watched(gateway.client, "/healthz", n)
        told = [CHAT.told(bytes(reply.body)) for reply in ours]
        n_complete = sum(one.ending == "done" and one.text == text for one in told)
        gaps_s, bare_gaps_s = ([reply.longest_gap_s() for reply in replies] for replies in (ours, bare))
        return Measured(
            {
                "complete": n_complete / n,
                "longest_gap_added": max(gaps_s) - max(bare_gaps_s),
                "loop_stall_added": stall_s - bare_stall_s,
                "loop_stall": stall_s,
                "loop_stall_bare": bare_stall_s,
                "longest_gap": max(gaps_s),
                "longest_gap_bare": max(bare_gaps_s),
                "median_longest_gap_added": quantile(gaps_s, 0.5) - quantile(bare_gaps_s, 0.5),
                "first_chunk_p99": quantile([(reply.first_s or inf) - reply.began_s for reply in ours], 0.99),
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


async def _watched(client: Client, quiet_path: str, n: int) -> tuple[list[Reply], float]:
    """Read so many streams at once; return them, and the longest that a quiet page took while all were open, in s.

    While they are being opened a page waits its turn behind requests: that is load, and no stall.
    """
    looks: list[Reply] = []

    async def look() -> None:
        while True:
            looks.append(await client.get(quiet_path))
            await asyncio.sleep(_LOOK_EVERY_S)

    looking = asyncio.create_task(look())
    try:
        replies = await _read(client, n)
    finally:
        looking.cancel()
    all_open_s = max((reply.first_s or reply.ended_s for reply in replies), default=0.0)
    first_ended_s = min((reply.ended_s for reply in replies), default=0.0)
    stalls_s = [one.total_s for one in looks if all_open_s <= one.began_s and one.ended_s <= first_ended_s]
    return replies, max(stalls_s, default=float("nan"))


async def _read(client: Client, n: int) -> list[Reply]:
    """Read so many streams at once, opened one after another.

    All of them ask for the usage: the gateway asks for it anyway, and what it kept from the client would look like
    a pause.
    """
    ask = asking("plain", is_stream=True, timeout_s=120.0, more={"stream_options": {"include_usage": True}})

    async def read(number: int) -> Reply:
        await asyncio.sleep(number / _OPENED_PER_S)
        return await client.ask(ask(number))

    return list(await asyncio.gather(*(read(number) for number in range(n))))
