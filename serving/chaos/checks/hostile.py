"""Slow, big and ambiguous requests, and what honest callers feel of them.

Entry point: :func:`slow_and_big`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

import orjson

from serving.chaos.client import Ask
from serving.chaos.load import affordable_per_s, open_loop
from serving.chaos.question import asking, is_right
from serving.chaos.scratch import SERVER, Gateway, Scratch
from serving.chaos.verdict import Measured

#: What a gateway gives a head to arrive; not in its settings.
_HEAD_WITHIN_S = 10.0
#: On top of a limit, for a busy machine.
_MARGIN_S = 5.0
_PIECE_EVERY_S = 0.5
#: Of honest callers.
_PER_S = 60.0


async def slow_and_big(scratch: Scratch) -> Measured:
    """Hold 200 slow connections against the gateway, and send it what is too much."""
    async with scratch.gateway() as gateway:
        ask, judge = asking("plain"), is_right(("plain",))
        n_slow, duration_s = int(scratch.of(40, 200)), scratch.of(3.0, 12.0)
        per_s = await affordable_per_s(gateway.client, ask, judge, _PER_S)
        before = await open_loop(gateway.client, ask, judge, per_s=per_s, duration_s=duration_s)
        slow = [asyncio.create_task(_slow(gateway, is_head=number % 2 == 0)) for number in range(n_slow)]
        await asyncio.sleep(0.5)
        during = await open_loop(gateway.client, ask, judge, per_s=per_s, duration_s=duration_s)
        head_s: list[float] = []
        body_s: list[float] = []
        for number, closed_s in enumerate(await asyncio.gather(*slow)):
            (body_s if number % 2 else head_s).append(closed_s)
        odd = [f"{name}: {got}" for name, got, good in await _too_much(gateway) if got not in good]
        return Measured(
            {
                "p99_during_against_before": during.quantile_s(0.99) / before.quantile_s(0.99),
                "slow_heads_closed_after": max(head_s),
                "slow_bodies_closed_after": max(body_s),
                "wrong_statuses": len(odd),
                "visible_failures": during.failed_share,
                "p99_before": before.quantile_s(0.99),
                "slow_connections": n_slow,
                "requests_per_s": per_s,
            },
            ", ".join(odd),
        )


async def _too_much(gateway: Gateway) -> list[tuple[str, int, Sequence[int]]]:
    """Send what must be refused; return what was answered (0: nothing), and what may be."""
    client, port = gateway.client, gateway.process.port
    key = next(line for line in client.head().splitlines() if line.startswith("authorization"))
    path, body = "/v1/chat/completions", asking("plain")(1).body
    messages = [{"role": "user", "content": "1 + 1"}] * 3_000
    deep = b'{"model":"plain","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    long_head = Ask(body, path, headers=(("x-filler", "x" * 200_000),))
    too_big = Ask(body + b" " * int(SERVER["max_body_bytes"]), path)
    two_hosts = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nhost: localhost\r\n{key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    two_lengths = two_hosts.replace("host: localhost", f"content-length: {len(body)}")
    many = orjson.dumps({"model": "plain", "messages": messages})
    cases: list[tuple[str, Ask, Sequence[int]]] = [
        ("200 KB of head", long_head, (400, 431)),
        ("a body above the cap", too_big, (413,)),
        ("JSON 100,000 deep", Ask(deep, path), (400,)),
        ("3,000 messages", Ask(many, path), (400,)),
        ("two Host headers", Ask(raw=two_hosts.encode() + body), (400,)),
        ("two Content-Lengths", Ask(raw=two_lengths.encode() + body), (400,)),
        ("no JSON", Ask(b"{not json", path), (400,)),
    ]
    return [(name, (await client.ask(ask)).status, good) for name, ask, good in cases]


async def _slow(gateway: Gateway, *, is_head: bool) -> float:
    """Send a request a byte at a time; return how long until the connection was closed."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    within_s = (_HEAD_WITHIN_S if is_head else float(SERVER["receive_timeout_s"])) + 2 * _MARGIN_S
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{gateway.client.head()}"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.process.port)
    except OSError:
        return 0.0
    # Attackers do not keep step: all of them writing at once would be another check.
    await asyncio.sleep(random.uniform(0, _PIECE_EVERY_S))
    writer.write(head.encode() + (b"x-slow: " if is_head else b"content-length: 100000\r\n\r\n{"))
    reading = asyncio.ensure_future(reader.read())
    try:
        while not reading.done() and loop.time() - began_s < within_s:
            writer.write(b"x")
            await asyncio.wait({reading}, timeout=_PIECE_EVERY_S)
    finally:
        is_closed = reading.done()
        reading.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await reading
        writer.close()
    return loop.time() - began_s if is_closed else float("inf")
