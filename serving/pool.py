"""Live status of deployments: which to call next, how long to wait for it, how fast its candidate is.

In memory, of this process; no request is ever held up here. What is counted of a deployment is in
:mod:`serving.tally`, whom to avoid is said by :mod:`serving.health`, how many calls at once one takes by
:mod:`serving.capacity`. There are no active probes: they cost money, and half-open deployments are tried by a request
that another can answer. All methods run on the event loop's thread. Entry points: :meth:`Pool.begin`,
:meth:`Pool.choose`, :meth:`Pool.speeds`, :meth:`Pool.snapshot`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from math import inf

from router import Speed
from serving.health import RetryBudget
from serving.latency import Histogram
from serving.tally import DEADLINE_OF, Call, DeploymentStatus, Tally

__all__ = ["Call", "DeploymentStatus", "Pool"]

#: An answer that is so much older than another's says no more how fast a deployment is: it gets its turn again.
STALE_S = 600.0
#: For how long the speeds of candidates are taken as they were.
SPEEDS_FOR_S = 1.0
#: When to ask again where all are at their limits.
FULL_S = 1.0
#: Output tokens at which the deployments of one candidate are compared.
_TYPICAL_TOKENS = 300


class Pool:
    """The live status of every deployment.

    Parameters
    ----------
    deployments : Mapping[str, str]
        Deployment name to candidate name, in the order of the settings.
    clock : Callable[[], float]
        Monotonic seconds.
    seed : int or None
        Of the choice of two; None takes one from the system.

    Attributes
    ----------
    retries : RetryBudget
        Of all further attempts together.
    """

    def __init__(
        self, deployments: Mapping[str, str], clock: Callable[[], float] = time.monotonic, seed: int | None = None
    ) -> None:
        self.retries = RetryBudget()
        self._clock = clock
        self._random = random.Random(seed)
        self._by_name: dict[str, Tally] = {}
        self._by_candidate: dict[str, list[Tally]] = {}
        self._speeds: Mapping[str, Speed] = {}
        self._speeds_until = -inf
        self.replace(deployments)

    def replace(self, deployments: Mapping[str, str]) -> None:
        """Swap the configured set; a deployment that stays for the same candidate keeps its history.

        Calls in flight at one that goes end well: they hold their own counters.
        """
        by_name: dict[str, Tally] = {}
        by_candidate: dict[str, list[Tally]] = {}
        for name, candidate in deployments.items():
            known = self._by_name.get(name)
            status = known if known and known.candidate == candidate else Tally(name, candidate)
            by_name[name] = status
            by_candidate.setdefault(candidate, []).append(status)
        self._by_name, self._by_candidate = by_name, by_candidate
        self._speeds_until = -inf

    def choose(
        self, candidate: str, tried: Collection[str] = (), *, or_ejected: bool = False, is_stream: bool = False
    ) -> str | None:
        """Name the deployment for the next call: of two at random the lesser (in flight + 1) x average latency.

        The latency is that to the first content for a streamed answer, of the whole answer for another. One that never
        answered so, or whose last answer is ten minutes older than the other's, counts as the other does. Ties go to
        the fewest requests so far, then to the first in the settings.

        Parameters
        ----------
        candidate : str
        tried : collection of str
            Deployments not to name.
        or_ejected : bool, default=False
            Name one that is at its limit, or else one that is ejected, rather than none: the last one is never ejected.
            Of those at their limit it is the least loaded, and only where calls beyond it were not refused just now
            (:meth:`serving.capacity.Capacity.may_exceed`). One that is cooling asked for it.
        is_stream : bool, default=False
            Whether the answer will be streamed.

        Returns
        -------
        str or None
            None when every deployment of the candidate was tried, is at its limit or is to be left alone.
        """
        now = self._clock()
        tallies = self._by_candidate.get(candidate, ())
        if tried:
            tallies = [d for d in tallies if d.name not in tried]
        available = [
            d
            for d in tallies
            if d.health.is_available(now) and (d.capacity.limit is None or d.capacity.has_room(now, d.n_in_flight))
        ]
        if not available and or_ejected:
            available = _last_resort(tallies, now)
        if len(available) < 2:
            return available[0].name if available else None
        a, b = available if len(available) == 2 else self._two_of(available)
        fresh_since = max(a.answered_at, b.answered_at) - STALE_S
        a_s, b_s = a.average_s(is_stream, fresh_since), b.average_s(is_stream, fresh_since)
        if a_s is None or b_s is None:
            a_s = b_s = a_s or b_s or 1.0
        a_burden = (a.n_in_flight + 1) * a_s / a.health.weight(now)
        b_burden = (b.n_in_flight + 1) * b_s / b.health.weight(now)
        return b.name if (b_burden, b.n_requests) < (a_burden, a.n_requests) else a.name

    def _two_of(self, available: Sequence[Tally]) -> tuple[Tally, Tally]:
        """Draw two, in the order of the settings."""
        n = len(available)
        i, j = int(self._random.random() * n), int(self._random.random() * (n - 1))
        j += j >= i
        return available[min(i, j)], available[max(i, j)]

    def signal(self, deployment: str, signs: Iterable[str]) -> None:
        """Count signs against an answer of a deployment, unless it is no longer configured."""
        tally = self._by_name.get(deployment)
        if tally is not None:
            tally.signals.update(signs)

    def wait_s(self, candidates: Iterable[str], among: Container[str] | None = None) -> float | None:
        """Return how long until one of these candidates may be asked again; None where none has a deployment.

        One that is at its limit may have room at any moment: a second. ``among`` are the deployments that count; None
        is all of them.
        """
        now = self._clock()
        tallies = [
            d for name in candidates for d in self._by_candidate.get(name, ()) if among is None or d.name in among
        ]
        return min((_wait_s(d, d.health.cooling_until, now) for d in tallies), default=None)

    def free_in_s(self, candidates: Iterable[str], among: Container[str], but: Container[str] = ()) -> float | None:
        """Return how long until one of these may be called as a matter of course: neither resting nor ejected.

        Parameters
        ----------
        candidates : iterable of str
        among, but : container of str
            The deployments that count, and those that do not.

        Returns
        -------
        float or None
            Seconds; of one that is at its limit a second, though it may have room at any moment. None without any.
        """
        now = self._clock()
        tallies = [d for name in candidates for d in self._by_candidate.get(name, ()) if d.name in among]
        waits = (_wait_s(d, d.health.available_at(now), now) for d in tallies if d.name not in but)
        return min(waits, default=None)

    def now(self) -> float:
        """Return the pool's own time, in monotonic seconds."""
        return self._clock()

    def begin(self, deployment: str, is_stream: bool = False) -> Call:
        """Start the clock of one call.

        One that a reload took away is counted by itself.
        """
        tally = self._by_name.get(deployment) or Tally(deployment, "")
        now = self._clock()
        tally.n_in_flight += 1
        tally.n_requests += 1
        tally.health.begin(now)
        tally.capacity.begin(now, tally.n_in_flight)
        return Call(tally, self._clock, now, is_stream)

    def first_content_deadline_s(self, deployment: str, is_stream: bool = False) -> float:
        """Return how long to wait for a deployment while another could be asked; see :meth:`waits_s`.

        Parameters
        ----------
        deployment : str
        is_stream : bool, default=False
            Until the first content of a streamed answer; else until the whole answer is there.

        Returns
        -------
        float
            Seconds: twice the 99 % quantile of its latest 256 answers of the same sort, 10 to 120 of streamed ones, at
            least 10 of whole ones; infinite before 20 of them.
        """
        return self.waits_s(deployment, is_stream)[1]

    def waits_s(self, deployment: str, is_stream: bool = False) -> tuple[float, float]:
        """Return what an attempt needs to be worth while, twice the 99 % quantile, and the deadline made of it."""
        tally = self._by_name.get(deployment)
        return (inf, inf) if tally is None else tally.waits_s(is_stream)

    def quantile_s(self, deployment: str, q: float, is_stream: bool = False) -> float | None:
        """Return the q-quantile, q in (0, 1], of the times to first content (streamed) or of whole answers.

        Parameters
        ----------
        deployment : str
        q : float
        is_stream : bool, default=False

        Returns
        -------
        float or None
            Seconds; None before any such answer.
        """
        tally = self._by_name.get(deployment)
        return None if tally is None else tally.durations(is_stream).quantile_s(q)

    def has_another(
        self, candidates: Iterable[str], tried: Collection[str], among: Container[str] | None = None
    ) -> bool:
        """Say whether one of these candidates has a deployment, of those that count, that was not tried and is free."""
        now = self._clock()
        for candidate in candidates:
            for d in self._by_candidate.get(candidate, ()):
                if d.name not in tried and d.health.is_available(now) and (among is None or d.name in among):
                    return True
        return False

    def speed(self, candidate: str) -> Speed | None:
        """Return how fast a candidate answers, at its fastest deployment that may be called.

        Parameters
        ----------
        candidate : str
            Name.

        Returns
        -------
        Speed or None
            The 90 % quantile of the time to first content, and the average time of an output token after it; None
            until a call has succeeded. Where none of its deployments may be called, all of them count.
        """
        return self._speed(candidate, self._clock(), -inf)

    def speeds(self) -> Mapping[str, Speed]:
        """Return how fast every candidate answers of which that is known; as it was within the last second.

        One whose last answer is ten minutes older than the newest of all is not known any more: another's place in the
        ranking should not rest for ever on how slow it once was.
        """
        now = self._clock()
        if now >= self._speeds_until:
            newest = max((d.answered_at for d in self._by_name.values()), default=now)
            found = {name: self._speed(name, now, newest - STALE_S) for name in self._by_candidate}
            self._speeds = {name: speed for name, speed in found.items() if speed is not None}
            self._speeds_until = now + SPEEDS_FOR_S
        return self._speeds

    def _speed(self, candidate: str, now: float, since: float) -> Speed | None:
        tallies = self._by_candidate.get(candidate, ())
        tallies = [d for d in tallies if d.health.is_available(now)] or tallies
        known = [d.speed() for d in tallies if d.answered_at >= since]
        return min((s for s in known if s is not None), key=_typical_s, default=None)

    def slow_after_s(self, deployment: str, is_stream: bool) -> float | None:
        """Return after which time without content a call is slower than 95 in 100; None until enough are known."""
        status = self._by_name.get(deployment)
        if status is None:
            return None
        seen = status.durations(is_stream)
        return seen.quantile_s(0.95) if seen.n_recent() >= DEADLINE_OF else None

    def snapshot(self) -> tuple[DeploymentStatus, ...]:
        """Return the status of every deployment, in the order of the settings."""
        now = self._clock()
        return tuple(d.status(now) for d in self._by_name.values())

    def histograms(self) -> Mapping[str, tuple[Histogram, Histogram]]:
        """Return, by deployment, the times to first content of streamed answers and the durations of whole ones."""
        return {d.name: (d.first_content.histogram(), d.whole.histogram()) for d in self._by_name.values()}


def _last_resort(tallies: Sequence[Tally], now: float) -> list[Tally]:
    """Return who is tried rather than nobody: the least loaded of those at their limit, or those that are ejected."""
    busy = [d for d in tallies if d.health.is_available(now) and d.capacity.may_exceed(now)]
    if busy:
        return [min(busy, key=lambda d: d.n_in_flight / (d.capacity.limit or inf))]
    return [d for d in tallies if now >= d.health.cooling_until and d.capacity.has_room(now, d.n_in_flight)]


def _wait_s(d: Tally, until: float, now: float) -> float:
    """Return how long until then, and at least a second where a deployment is at its limit."""
    return max(until - now, 0.0 if d.capacity.has_room(now, d.n_in_flight) else FULL_S)


def _typical_s(speed: Speed) -> float:
    return speed.first_content_s + _TYPICAL_TOKENS * speed.s_per_output_token
