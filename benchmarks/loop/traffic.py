"""Users of the demo: they ask the gateway questions of the world, and some say whether the answer was right.

Entry point: :meth:`Traffic.serve`.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import numpy as np
from world import CANDIDATES, World

N_USERS = 3_000
#: Of those who answer whether they were helped, how many are wrong about it.
MISTAKEN = 0.05
_VOTES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Served:
    """One answered request: which question, in which phase, who answered, by which bundle and arm."""

    question: int
    phase: str
    candidate: int
    bundle: str
    experiment: str
    id: str


class Traffic:
    """Asks and votes.

    Parameters
    ----------
    world : World
    origin : str
        Of the gateway.
    secrets : sequence of str
        Keys of clients; a user always comes by the same.
    seed : int
    vote_share : float
        Of the requests that are voted on.
    """

    def __init__(self, world: World, origin: str, secrets: Sequence[str], seed: int, vote_share: float) -> None:
        self._world = world
        self._origin = origin
        self._secrets = secrets
        self._random = random.Random(seed)
        self._vote_share = vote_share
        self.n_failed = 0

    def serve(self, questions: Sequence[int], phase: str, *, n_connections: int = 12) -> list[Served]:
        """Ask questions and return what came of each, in no order; what failed is counted and left out."""
        return asyncio.run(self._serve(list(questions), phase, n_connections))

    async def _serve(self, questions: list[int], phase: str, n_connections: int) -> list[Served]:
        left, served = iter(questions), list[Served]()
        votes: dict[str, list[dict[str, object]]] = defaultdict(list)
        connector = aiohttp.TCPConnector(limit=n_connections)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def work() -> None:
                for i in left:
                    user = self._random.randrange(N_USERS)
                    secret = self._secrets[user % len(self._secrets)]
                    body = {
                        "model": "auto",
                        "user": f"user-{user}",
                        "messages": [{"role": "user", "content": self._world.texts[i]}],
                    }
                    headers = {"authorization": f"Bearer {secret}"}
                    async with session.post(
                        f"{self._origin}/v1/chat/completions", json=body, headers=headers
                    ) as response:
                        await response.read()
                        said = response.headers
                        if response.status != 200:
                            self.n_failed += 1
                            continue
                    j = CANDIDATES.index(said["x-turnout-candidate"])
                    arm = said.get("x-turnout-experiment", "")
                    served.append(Served(i, phase, j, said["x-turnout-bundle"], arm, said["x-request-id"]))
                    if self._random.random() < self._vote_share:
                        was_right = self._world.is_right(phase, i, j) != (self._random.random() < MISTAKEN)
                        votes[secret].append({"request_id": said["x-request-id"], "correct": was_right})

            await asyncio.gather(*(work() for _ in range(n_connections)))
            for secret, cast in votes.items():
                for start in range(0, len(cast), _VOTES_AT_ONCE):
                    await self._vote(session, secret, cast[start : start + _VOTES_AT_ONCE])
        return served

    async def _vote(self, session: aiohttp.ClientSession, secret: str, votes: list[dict[str, object]]) -> None:
        headers = {"authorization": f"Bearer {secret}"}
        async with session.post(f"{self._origin}/v1/feedback", json={"votes": votes}, headers=headers) as response:
            text = await response.text()
            if response.status != 200:
                raise RuntimeError(f"votes were refused: {response.status} {text[:300]}")


def choices_of(served: Sequence[Served]) -> tuple[np.ndarray, np.ndarray]:
    """Return questions and who answered them."""
    return np.array([one.question for one in served], np.intp), np.array([one.candidate for one in served], np.intp)
