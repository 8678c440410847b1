"""Running summaries of durations: a moving average, recent percentiles, and time as a line in tokens.

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

    def quantile_s(self, q: float) -> float | None:
        """Return the q-quantile (nearest rank, q in (0, 1]) of the latest durations; None before any."""
        if not self._ring:
            return None
        rank = max(1, -(-len(self._ring) * q // 1))
        return sorted(self._ring)[int(rank) - 1]


class TotalModel:
    """Total time of an answer as ``start + seconds per token x tokens``, by weighted least squares.

    One line serves streamed and unstreamed calls alike, and says what a longer answer costs in time, which an
    average cannot. Older calls fade by the same weight as the averages.
    """

    __slots__ = ("_n", "_nn", "_s", "_sn", "_weight")

    def __init__(self) -> None:
        self._weight = self._n = self._s = self._nn = self._sn = 0.0

    def add(self, output_tokens: float, seconds: float) -> None:
        """Take one more answer."""
        keep = 1.0 - WEIGHT
        self._weight = keep * self._weight + WEIGHT
        self._n = keep * self._n + WEIGHT * output_tokens
        self._s = keep * self._s + WEIGHT * seconds
        self._nn = keep * self._nn + WEIGHT * output_tokens * output_tokens
        self._sn = keep * self._sn + WEIGHT * output_tokens * seconds

    def expect_s(self, output_tokens: float) -> float | None:
        """Return the time expected for an answer of so many tokens, above 0; None before any answer."""
        if not self._weight:
            return None
        mean_n, mean_s = self._n / self._weight, self._s / self._weight
        variance = self._nn / self._weight - mean_n * mean_n
        # Answers of one length say nothing about the slope; nor does a slope that runs backwards.
        if variance <= 1e-6 * mean_n * mean_n:
            return mean_s
        per_token_s = max(0.0, (self._sn / self._weight - mean_n * mean_s) / variance)
        start_s = mean_s - per_token_s * mean_n
        if start_s < 0:  # no answer takes less than no time: a line through the origin instead
            return mean_s * output_tokens / mean_n
        return start_s + per_token_s * output_tokens

    def tokens_per_s(self) -> float | None:
        """Return output tokens over total time, both weighted; None before any answer."""
        return self._n / self._s if self._s > 0 else None
