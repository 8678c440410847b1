"""Loads: many requests, at a rate or over so many connections, every answer looked at.

A closed loop asks again as soon as it is answered and shows what can be done; an open loop asks when its time has
come, whatever became of the requests before, and shows what callers feel. Entry points: :func:`closed_loop`,
:func:`open_loop`, :func:`affordable_per_s`, :class:`Tally`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.chaos.client import Ask, Client, Reply
from serving.chaos.figures import quantile

#: How long is looked at what a machine can do, and the share of it that it does with ease.
_LOOK_S, _AT_EASE = 1.5, 0.4
#: Number of the request -> the request.
Asking = Callable[[int], Ask]
#: (reply, number) -> what is wrong with it, "" for nothing.
Judging = Callable[[Reply, int], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request of a load: when it began (the loop's seconds), how long it took, and what was wrong."""

    began_s: float
    total_s: float
    status: int
    failure: str
    label: str = ""


@dataclass(slots=True)
class Tally:
    """What came of a load."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Requests."""
        return len(self.outcomes)

    @property
    def n_failed(self) -> int:
        """Requests that the caller saw fail."""
        return sum(bool(outcome.failure) for outcome in self.outcomes)

    @property
    def failed_share(self) -> float:
        """Share of the requests that failed; 1 where there was none."""
        return self.n_failed / self.n if self.n else 1.0

    def failures(self) -> str:
        """Return what was wrong and how often, for people."""
        counts = Counter(outcome.failure for outcome in self.outcomes if outcome.failure)
        return ", ".join(f"{n} × {what}" for what, n in counts.most_common(4))

    def since(self, at_s: float) -> Tally:
        """Return those that began at or after a moment."""
        return Tally([outcome for outcome in self.outcomes if outcome.began_s >= at_s])

    def of(self, label: str) -> Tally:
        """Return those of one label."""
        return Tally([outcome for outcome in self.outcomes if outcome.label == label])

    def quantile_s(self, q: float) -> float:
        """Return a quantile of the durations of those that succeeded; infinite where none did."""
        durations = [outcome.total_s for outcome in self.outcomes if not outcome.failure]
        return quantile(durations, q) if durations else float("inf")

    def per_s(self) -> float:
        """Return how many succeeded a second."""
        if not self.outcomes:
            return 0.0
        began_s = min(outcome.began_s for outcome in self.outcomes)
        ended_s = max(outcome.began_s + outcome.total_s for outcome in self.outcomes)
        return (self.n - self.n_failed) / max(1e-9, ended_s - began_s)


async def closed_loop(
    client: Client,
    asking: Asking,
    judging: Judging,
    *,
    n_connections: int,
    n: int | None = None,
    duration_s: float | None = None,
    first: int = 0,
) -> Tally:
    """Ask over so many connections, each again as soon as it is answered.

    Parameters
    ----------
    client : Client
    asking : callable
    judging : callable
    n_connections : int
    n : int or None
        How many requests in all; None is as many as there is time for.
    duration_s : float or None
        When to begin no more.
    first : int, default=0
        Number of the first request.

    Returns
    -------
    Tally
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + duration_s if duration_s is not None else float("inf")
    tally = Tally()
    next_number = first

    async def work() -> None:
        nonlocal next_number
        while (n is None or next_number - first < n) and loop.time() < until_s:
            number, next_number = next_number, next_number + 1
            await _asked(client, asking, judging, number, tally)

    await asyncio.gather(*(work() for _ in range(n_connections)))
    return tally


async def open_loop(
    client: Client,
    asking: Asking,
    judging: Judging,
    *,
    per_s: float,
    duration_s: float,
    first: int = 0,
    label: Callable[[int], str] = lambda number: "",
    most_at_once: int = 4_000,
) -> Tally:
    """Ask at a rate, whatever becomes of the requests before.

    Parameters
    ----------
    client : Client
    asking : callable
    judging : callable
    per_s : float
        Requests a second, evenly.
    duration_s : float
    first : int, default=0
        Number of the first request.
    label : callable, optional
        Number of a request -> its label in the tally.
    most_at_once : int, default=4000
        Beyond it requests are left out, so that the machine survives; the tally then holds fewer.

    Returns
    -------
    Tally
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    tally = Tally()
    under_way: set[asyncio.Task[None]] = set()
    n_begun = 0
    while (elapsed_s := loop.time() - began_s) < duration_s:
        n_due = int(elapsed_s * per_s) + 1
        while n_begun < n_due:
            number, n_begun = first + n_begun, n_begun + 1
            if len(under_way) >= most_at_once:
                continue
            task = loop.create_task(_asked(client, asking, judging, number, tally, label(number)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.sleep(max(0.001, began_s + n_begun / per_s - loop.time()))
    if under_way:
        await asyncio.wait(under_way)
    return tally


async def affordable_per_s(client: Client, asking: Asking, judging: Judging, wanted_per_s: float) -> float:
    """Return the rate wanted, or less where the machine, shared with the load itself, could not do it with ease.

    Beyond it a queue would be measured, and not what a check is about.
    """
    await closed_loop(client, asking, judging, n_connections=4, n=40, first=900_000)
    found = await closed_loop(client, asking, judging, n_connections=4, duration_s=_LOOK_S, first=910_000)
    return max(1.0, min(wanted_per_s, _AT_EASE * found.per_s()))


async def _asked(client: Client, asking: Asking, judging: Judging, number: int, tally: Tally, label: str = "") -> None:
    reply = await client.ask(asking(number))
    tally.outcomes.append(Outcome(reply.began_s, reply.total_s, reply.status, judging(reply, number), label))
