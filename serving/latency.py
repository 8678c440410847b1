"""Running summaries of durations: a moving average, recent quantiles, counts for a histogram, and tokens per second.

Bounded memory, no clock, a few additions per call. The latest durations are kept sorted, so that a quantile is one
look-up: deadlines ask for some on every request. Used by :mod:`serving.tally`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from math import ceil

N_RECENT = 256
#: Weight of the newest call in every moving sum: the last ten or so decide.
WEIGHT = 0.1
#: Upper bounds of the histogram's buckets, in seconds; one more takes what is longer.
BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(frozen=True, slots=True)
class Timing:
    """A summary of durations, in seconds; None is "nothing observed yet".

    ``average_s`` is a moving average that the last ten or so decide; the quantiles are of the last 256; ``n`` counts
    them all.
    """

    n: int
    average_s: float | None
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """All durations ever, counted: ``counts[i]`` are at most ``BOUNDS_S[i]`` and above the bound before it."""

    counts: tuple[int, ...]
    sum_s: float


class Durations:
    """A moving average, the latest durations in order, and counts of all of them, in seconds.

    Attributes
    ----------
    average_s : float or None
        Exponentially weighted; the first duration as it is; None before.
    n : int
        How many there were.
    """

    __slots__ = ("_counts", "_next", "_ring", "_sorted", "_sum_s", "average_s", "n")

    def __init__(self) -> None:
        self.average_s: float | None = None
        self.n = 0
        self._ring: list[float] = []
        self._sorted: list[float] = []
        self._next = 0
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Take one more duration."""
        average_s = self.average_s
        self.average_s = seconds if average_s is None else average_s + WEIGHT * (seconds - average_s)
        self.n += 1
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds
        self.add_at_least(seconds)

    def add_at_least(self, seconds: float) -> None:
        """Take one that was cut short: for the quantiles it took this long, of the average nothing is known."""
        ring = self._ring
        if len(ring) < N_RECENT:
            ring.append(seconds)
        else:
            at = self._next
            del self._sorted[bisect_left(self._sorted, ring[at])]
            ring[at] = seconds
            self._next = (at + 1) % N_RECENT
        insort(self._sorted, seconds)

    def n_recent(self) -> int:
        """Return how many durations a quantile is of."""
        return len(self._ring)

    def quantile_s(self, q: float) -> float | None:
        """Return the q-quantile (nearest rank, q in (0, 1]) of the latest durations; None before any."""
        latest = self._sorted
        # The hair is against products such as 100 * 0.07, which lie one above their whole number.
        return latest[max(1, ceil(len(latest) * q - 1e-9)) - 1] if latest else None

    def timing(self) -> Timing:
        """Return the summary as it is now."""
        return Timing(self.n, self.average_s, self.quantile_s(0.5), self.quantile_s(0.95), self.quantile_s(0.99))

    def histogram(self) -> Histogram:
        """Return the counts of all durations."""
        return Histogram(tuple(self._counts), self._sum_s)


class TokenRate:
    """Tokens and the seconds they took, of the latest answers; older ones fade by the same weight as the averages."""

    __slots__ = ("_n_tokens", "_total_s")

    def __init__(self) -> None:
        self._n_tokens = self._total_s = 0.0

    def add(self, n_tokens: float, seconds: float) -> None:
        """Take one more answer."""
        keep = 1.0 - WEIGHT
        self._n_tokens = keep * self._n_tokens + WEIGHT * n_tokens
        self._total_s = keep * self._total_s + WEIGHT * seconds

    def tokens_per_s(self) -> float | None:
        """Return tokens over time, both weighted; None before any answer."""
        return self._n_tokens / self._total_s if self._total_s > 0 else None

    def s_per_token(self) -> float | None:
        """Return time over tokens, both weighted; None before any answer."""
        return self._total_s / self._n_tokens if self._n_tokens > 0 else None
