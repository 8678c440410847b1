"""A mean difference whose rows come in groups, with bounds, and what many such questions asked at once may each spend.

Entry points: :func:`difference`, :func:`shares`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Vector = NDArray[np.float64]

#: Fewer groups than this have no interval.
LEAST_GROUPS = 5
#: Of the error allowed, what is spread evenly over all questions.
_EVEN = 0.2


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference with one-sided bounds.

    Parameters
    ----------
    value, low, high : float
        The bounds hold with the confidence asked for, each on its own; NaN from fewer than five groups.
    n_groups : int
    """

    value: float
    low: float
    high: float
    n_groups: int


def difference(numerator: Vector, denominator: Vector, groups: Sequence[str], confidence: float) -> Difference:
    """Return a ratio of sums with bounds that take rows of one group as one observation.

    Linearised variance of a ratio estimator over clusters (Cochran 1977, §6.3) and Student's t.

    Parameters
    ----------
    numerator, denominator : ndarray of shape (n,)
        Per row; the ratio of their sums is the difference.
    groups : sequence of n str
    confidence : float in (0, 1)
        Of each bound.

    Returns
    -------
    Difference
    """
    names, group = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    total = np.bincount(group, numerator, len(names)) if len(names) else np.zeros(0)
    count = np.bincount(group, denominator, len(names)) if len(names) else np.zeros(0)
    present = count > 0
    total, count, n = total[present], count[present], int(present.sum())
    if n == 0:
        return Difference(float("nan"), float("nan"), float("nan"), 0)
    value = float(total.sum() / count.sum())
    if n < LEAST_GROUPS:
        return Difference(value, float("nan"), float("nan"), n)
    error = np.sqrt(((total - value * count) ** 2).sum() * n / (n - 1)) / count.sum()
    half = float(student.ppf(confidence, n - 1) * error)
    return Difference(value, value - half, value + half, n)


def shares(moved: Sequence[float]) -> list[float]:
    """Return which share of the error allowed each of several questions gets: most where most has moved.

    A slice where the two bundles say nearly the same cannot have got much worse, so there is little to ask. What moved
    is known without any outcome, so the bounds hold together as with equal shares (weighted Bonferroni: Genovese,
    Roeder and Wasserman 2006). A damaged slice moves more than honest ones: fewer rows show it.

    Parameters
    ----------
    moved : sequence of k float, at least 0
        How much, for instance :meth:`training.contest.Contest.moved`.

    Returns
    -------
    list of k float
        Their sum is 1: four fifths go by the square of what moved, the rest is spread evenly.
    """
    if not moved:
        return []
    squares = np.asarray(moved, np.float64) ** 2
    if not squares.sum() > 0:
        squares = np.ones(len(squares))
    found: list[float] = ((1 - _EVEN) * squares / squares.sum() + _EVEN / len(squares)).tolist()
    return found
