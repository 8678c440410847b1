"""What inference needs of one arm of an experiment: sums over its units, kept current while they go on.

Entry points: :class:`ArmTotals`, :class:`Accumulator`. Fields are floats, or arrays of one shape (simulations).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Number = float | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ArmTotals:
    """Sums over the units u of one arm, for one metric: u has n_u requests, over which the metric sums to y_u.

    Only requests on which the metric was observed count. The metric is at least 0 and has a mean: cost_usd,
    latency_s, a score, or 0 and 1 for whether a request failed.

    Parameters
    ----------
    n_units : float or ndarray
        Units with at least one request.
    n_requests : float or ndarray
        Σ n_u.
    value_sum : float or ndarray
        Σ y_u, in the metric's unit.
    n_squares : float or ndarray
        Σ n_u².
    value_squares : float or ndarray
        Σ y_u².
    products : float or ndarray
        Σ n_u y_u.
    """

    n_units: Number = 0.0
    n_requests: Number = 0.0
    value_sum: Number = 0.0
    n_squares: Number = 0.0
    value_squares: Number = 0.0
    products: Number = 0.0

    @classmethod
    def of(cls, n_requests: NDArray[np.floating], values: NDArray[np.floating]) -> ArmTotals:
        """Sum over units.

        Parameters
        ----------
        n_requests, values : ndarray of shape (..., n_units)
            n_u, at least 0, and y_u; the last axis is summed, units without a request count for nothing.

        Returns
        -------
        ArmTotals
        """
        n, y = n_requests.astype(np.float64), values.astype(np.float64)
        there = (n > 0).astype(np.float64)
        return cls(*(part.sum(axis=-1)[()] for part in (there, n, y, n * n, y * y, n * y)))

    def __add__(self, other: ArmTotals) -> ArmTotals:
        """Return the totals of both, which share no unit."""
        return ArmTotals(
            self.n_units + other.n_units,
            self.n_requests + other.n_requests,
            self.value_sum + other.value_sum,
            self.n_squares + other.n_squares,
            self.value_squares + other.value_squares,
            self.products + other.products,
        )

    def scaled(self, factor: float) -> ArmTotals:
        """Return the totals of the metric times a factor, at least 0."""
        return replace(
            self,
            value_sum=self.value_sum * factor,
            value_squares=self.value_squares * factor * factor,
            products=self.products * factor,
        )

    @property
    def mean(self) -> Number:
        """The metric's mean over requests; NaN without any."""
        return quotient(self.value_sum, self.n_requests)

    @property
    def deviation_squares(self) -> Number:
        """Σ (y_u − mean · n_u)²: how far units are from what the mean says of them, at least 0."""
        mean = self.mean
        raw = self.value_squares - 2 * mean * self.products + mean * mean * self.n_squares
        return np.maximum(raw, 0.0)  # below zero is rounding

    @property
    def variance(self) -> Number:
        """Variance of :attr:`mean` by the delta method, units being independent; NaN with fewer than two of them."""
        own = quotient(self.n_units, np.maximum(self.n_units - 1, 0.0)) * self.deviation_squares
        return quotient(own, self.n_requests * self.n_requests)

    @property
    def spread_requests(self) -> Number:
        """Among how many units the requests are spread: (Σn)² / Σn²; 0 without any."""
        return np.nan_to_num(quotient(self.n_requests * self.n_requests, self.n_squares))

    @property
    def spread_values(self) -> Number:
        """Among how many units the metric's sum is spread: (Σy)² / Σy²; 0 where it is 0."""
        return np.nan_to_num(quotient(self.value_sum * self.value_sum, self.value_squares))


class Accumulator:
    """The totals of one arm and metric, kept current in constant time while its units go on.

    Whoever uses it remembers (n_u, y_u) of each unit and says what they were and what they are now; a value that is
    corrected later is the same call with the same n.
    """

    __slots__ = ("_sums",)

    def __init__(self, totals: ArmTotals | None = None) -> None:
        start = totals or ArmTotals()
        self._sums = [
            float(part)
            for part in (
                start.n_units,
                start.n_requests,
                start.value_sum,
                start.n_squares,
                start.value_squares,
                start.products,
            )
        ]

    def move(self, n_before: int, value_before: float, n_after: int, value_after: float) -> None:
        """Take one unit from what it was to what it is.

        Parameters
        ----------
        n_before, n_after : int
            Its requests, at least 0; 0 before is a new unit, 0 after one that leaves.
        value_before, value_after : float
            Its sum of the metric; 0 where n is 0.
        """
        sums = self._sums
        sums[0] += (n_after > 0) - (n_before > 0)
        sums[1] += n_after - n_before
        sums[2] += value_after - value_before
        sums[3] += n_after * n_after - n_before * n_before
        sums[4] += value_after * value_after - value_before * value_before
        sums[5] += n_after * value_after - n_before * value_before

    @property
    def totals(self) -> ArmTotals:
        """The sums as they are now."""
        return ArmTotals(*self._sums)


def quotient(above: Number, below: Number) -> Number:
    """Divide; NaN where there is nothing to divide by."""
    positive = np.asarray(below) > 0
    return np.where(positive, above / np.where(positive, below, 1.0), np.nan)[()]
