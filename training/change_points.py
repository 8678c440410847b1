"""Has a mean changed, and when? Confidence sequences over every split of a series of periods, from sums.

A series is a ratio of sums, Σ y / Σ n, over rows that came in periods (days). For every boundary between two periods,
what came after it is compared with what came before by :func:`router.sequences.difference`, at a level of its own: the
k-th boundary has ``alpha / (k (k + 1))``, which sums to ``alpha`` however long the series goes on. So looking at every
boundary, again after every period, is allowed. The boundary named is where the step is most plain (of a step, the
likeliest place). Entry points: :class:`Series`, :func:`level`, :func:`change`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.sequences import ArmTotals, Interval, difference, half_width, interval

Vector = NDArray[np.float64]
#: Rows at which the sequences are narrowest. Fewer than for experiments: the level of one boundary of one series is so
#: small that the logarithm of the clock hardly counts.
_TUNED_FOR_ROWS = 500.0
#: Below this, what is left of a unit's weight is rounding.
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Rows of one mean.

    Parameters
    ----------
    period : ndarray of shape (n,), intp
        Number of the period each row came in, from 0.
    y, n : ndarray of shape (n,)
        Numerator and denominator, both at least 0; the mean is Σ y / Σ n.
    unit : ndarray of shape (n,), intp, optional
        Rows of one unit move together. Default: each row is a unit.
    variance : ndarray of shape (n,), optional
        Of y, if all is as expected. Rows that have missed what is rare vary too little, so :func:`level` takes this
        where it is more.
    """

    period: NDArray[np.intp]
    y: Vector
    n: Vector
    unit: NDArray[np.intp] | None = None
    variance: Vector | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """The plainest step of a series.

    Parameters
    ----------
    period : int
        The first one after it.
    before, after : float
        Means.
    difference : Interval
        After − before, with bounds that hold for every boundary at every look.
    """

    period: int
    before: float
    after: float
    difference: Interval


def level(series: Series, alpha: float) -> Interval:
    """Bound the mean of all rows, at every look.

    Parameters
    ----------
    series : Series
    alpha : float in (0, 1)

    Returns
    -------
    Interval
        NaN without rows.
    """
    whole = _sums_of(series).sides(0)[1]
    found = interval(whole, alpha, tuned_for_requests=_TUNED_FOR_ROWS)
    value, low, high = float(found.value), float(found.low), float(found.high)
    if series.variance is not None and found.is_said:
        expected = float(series.variance.sum() / series.n.sum() ** 2)
        width = float(half_width(expected, whole.n_requests, alpha, _TUNED_FOR_ROWS))
        low, high = min(low, value - width), max(high, value + width)
    return Interval(value, low, high)


def change(series: Series, alpha: float, tolerance: float = 0.0) -> Change | None:
    """Look for a step.

    Parameters
    ----------
    series : Series
    alpha : float in (0, 1)
        Chance of ever claiming one that is not there.
    tolerance : float, default=0
        A step shown to be larger comes before one that is not.

    Returns
    -------
    Change or None
        The plainest step; whether it is shown, its interval says. None where no boundary has enough on both sides.
    """
    sums = _sums_of(series)
    found: list[tuple[bool, float, Change]] = []
    for k in range(1, sums.n_periods):
        old, new = sums.sides(k)
        clock = _clock(old, new)
        step = _step(old, new, alpha / (k * (k + 1)), clock)
        if step.is_said:
            # Of one step in rows that vary alike, the likeliest place is where this is largest.
            plain = abs(float(step.value)) * clock**0.5
            found.append((is_beyond(step, tolerance), plain, Change(k, float(old.mean), float(new.mean), step)))
    return max(found, key=lambda each: each[:2])[2] if found else None


def is_beyond(found: Interval, tolerance: float, expected: float = 0.0) -> bool:
    """Say whether bounds exclude everything within a tolerance of what is expected."""
    return bool(found.low > expected + tolerance or found.high < expected - tolerance)


def _clock(old: ArmTotals, new: ArmTotals) -> float:
    """Return for how many rows a comparison counts, 4 / (1/old + 1/new): what its variance says.

    Not all rows, of which most were there before the second side began: the sides come one after the other.
    """
    rows = float(old.n_requests + new.n_requests)
    return 4 * float(old.n_requests) * float(new.n_requests) / rows if rows else 0.0


def _step(old: ArmTotals, new: ArmTotals, alpha: float, clock: float) -> Interval:
    if clock <= 0:
        return Interval(np.nan, -np.inf, np.inf)
    slower = float(old.n_requests + new.n_requests) / clock
    found = difference(new, old, alpha, tuned_for_requests=_TUNED_FOR_ROWS * slower)
    return Interval(float(found.value), float(found.low), float(found.high))


class _Rows(NamedTuple):
    """Cumulated sums by period, first a period of nothing: each row is a unit."""

    parts: Vector  # (6, n_periods + 1): the fields of ArmTotals

    @property
    def n_periods(self) -> int:
        return int(self.parts.shape[1]) - 1

    def sides(self, k: int) -> tuple[ArmTotals, ArmTotals]:
        """Return the totals of the first k periods, and of the others."""
        whole, old = self.parts[:, -1], self.parts[:, k]
        return ArmTotals(*old.tolist()), ArmTotals(*np.maximum(whole - old, 0.0).tolist())


class _Units(NamedTuple):
    """The same where units come again, on both sides of a boundary too, so that their squares do not subtract."""

    n: Vector  # (n_periods + 1, n_units)
    y: Vector

    @property
    def n_periods(self) -> int:
        return len(self.n) - 1

    def sides(self, k: int) -> tuple[ArmTotals, ArmTotals]:
        """Return the totals of the first k periods, and of the others."""
        n = self.n[-1] - self.n[k]
        n = np.where(n > _NOTHING, n, 0.0)
        return ArmTotals.of(self.n[k], self.y[k]), ArmTotals.of(n, np.where(n > 0, self.y[-1] - self.y[k], 0.0))


def _sums_of(series: Series) -> _Rows | _Units:
    kept = np.flatnonzero(series.n > 0)
    period, y, n = series.period[kept], series.y[kept], series.n[kept]
    # The clock counts rows, so that a row counts 1 in the mean.
    scale = n.mean() if len(n) else 1.0
    y, n = y / scale, n / scale
    n_periods = int(period.max(initial=-1)) + 1
    if series.unit is None:
        parts = (np.ones(len(n)), n, y, n * n, y * y, n * y)
        sums = np.stack([np.bincount(period, part, n_periods) for part in parts])
        return _Rows(np.pad(sums, ((0, 0), (1, 0))).cumsum(axis=1))
    names, number = np.unique(series.unit[kept], return_inverse=True)
    shape = (n_periods, len(names))
    cells = period * len(names) + number
    n_of, y_of = (np.bincount(cells, part, shape[0] * shape[1]).reshape(shape) for part in (n, y))
    return _Units(*(np.pad(part, ((1, 0), (0, 0))).cumsum(axis=0) for part in (n_of, y_of)))
