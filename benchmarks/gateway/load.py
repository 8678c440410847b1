"""The load generator: bodies to a server over some connections, every answer looked at.

Entry points: :class:`Load` (what to send where), :func:`send` (in a process of its own), :func:`run`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import quantiles

from bodies import PATHS, made
from processes import Server, environment, ours

_KEY = "TURNOUT_BENCHMARK_KEY"
#: What an answer of each API holds, and a stream of it at its end.
_WHOLE = {"chat": b'"choices"', "messages": b'"content"', "responses": b'"output"'}
_LAST = {"chat": b"data: [DONE]", "messages": b'"message_stop"', "responses": b'"response.completed"'}


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where.

    Parameters
    ----------
    shape : str
        One of :data:`bodies.BODIES`.
    says_whom : bool
        Whether the server must say which candidate it chose.
    n_tokens : int
        Of the question in each body.
    """

    origin: str
    shape: str
    model: str
    says_whom: bool
    is_stream: bool
    n_tokens: int
    n_requests: int
    n_connections: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a load: events and reads of streams, a request; milliseconds a request."""

    n_events: float
    n_reads: float
    p50_ms: float
    p99_ms: float


def send(server: Server, load: Load, secret: str) -> Sent:
    """Send a load from a process of its own; raises CalledProcessError when an answer is not one."""
    done = subprocess.run(
        ours("load", json.dumps({**asdict(load), "origin": server.origin})),
        env={**environment(), _KEY: secret},
        stdout=subprocess.PIPE,
        check=True,
        timeout=600,
    )
    return Sent(**json.loads(done.stdout))


def run(load: Load) -> None:
    """Send it from here; print what came of it as JSON. The key comes in the environment."""
    import uvloop

    sys.stdout.write(json.dumps(asdict(uvloop.run(_sent(load)))))


async def _sent(load: Load) -> Sent:
    import aiohttp

    bodies = iter(made(load.shape, load.model, load.n_tokens, load.n_requests, load.seed, is_stream=load.is_stream))
    headers = {"content-type": "application/json"}
    if key := os.environ.get(_KEY):
        headers["authorization"] = f"Bearer {key}"
    url = load.origin + PATHS[load.shape]
    api = "messages" if load.shape == "agent" else load.shape
    mark = (_LAST if load.is_stream else _WHOLE)[api]
    taken_ms: list[float] = []
    n_events = n_reads = 0

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=load.n_connections), headers=headers
    ) as session:

        async def work() -> None:
            nonlocal n_events, n_reads
            for body in bodies:
                began = time.perf_counter()
                async with session.post(url, data=body) as response:
                    reads = [chunk async for chunk in response.content.iter_any()]
                answer = b"".join(reads)
                if response.status != 200 or mark not in answer:
                    sys.exit(f"{url} answered {response.status}: {answer[-300:]!r}")
                if load.says_whom and "x-turnout-candidate" not in response.headers:
                    sys.exit("the gateway did not say whom it chose")
                n_events += answer.count(b"\n\n")
                n_reads += len(reads)
                taken_ms.append((time.perf_counter() - began) * 1e3)

        await asyncio.gather(*(work() for _ in range(load.n_connections)))
    assert len(taken_ms) == load.n_requests
    cuts = quantiles(taken_ms, n=100)
    n = load.n_requests
    return Sent(n_events / n, n_reads / n, round(cuts[49], 3), round(cuts[98], 3))
