"""Running summaries of durations: a moving average, recent percentiles, and tokens per second.

Bounded memory, no clock, a few additions per call. Used by :mod:`serving.pool`.
"""

from __future__ import annotations

N_RECENT = 256
#: Weight of the newest call in every moving sum: the last ten or so decide.
WEIGHT = 0.1


class Durations:
    """A moving average and a ring of the latest durations, in seconds.

    Attributes
    ----------
    average_s : float or None
        Exponentially weighted; the first duration as it is; None before.
    """

    __slots__ = ("_next", "_ring", "average_s")

    def __init__(self) -> None:
        self.average_s: float | None = None
        self._ring: list[float] = []
        self._next = 0

    def add(self, seconds: float) -> None:
        """Take one more duration."""
        average_s = self.average_s
        self.average_s = seconds if average_s is None else average_s + WEIGHT * (seconds - average_s)
        if len(self._ring) < N_RECENT:
            self._ring.append(seconds)
        else:
            self._ring[self._next] = seconds
            self._next = (self._next + 1) % N_RECENT

    @property
    def n_seen(self) -> int:
        """How many of the latest are known, at most 256."""
        return len(self._ring)

    def quantile_s(self, q: float) -> float | None:
        """Return the q-quantile (nearest rank, q in (0, 1]) of the latest durations; None before any."""
        if not self._ring:
            return None
        rank = max(1, -(-len(self._ring) * q // 1))
        return sorted(self._ring)[int(rank) - 1]


class TokenRate:
    """Output tokens per second of the latest answers; older ones fade by the same weight as the averages."""

    __slots__ = ("_n_tokens", "_total_s")

    def __init__(self) -> None:
        self._n_tokens = self._total_s = 0.0

    def add(self, output_tokens: float, seconds: float) -> None:
        """Take one more answer."""
        keep = 1.0 - WEIGHT
        self._n_tokens = keep * self._n_tokens + WEIGHT * output_tokens
        self._total_s = keep * self._total_s + WEIGHT * seconds

    def tokens_per_s(self) -> float | None:
        """Return output tokens over total time, both weighted; None before any answer."""
        return self._n_tokens / self._total_s if self._total_s > 0 else None
