"""Inference that may be looked at as often as one likes: confidence sequences and a sample-ratio test, from sums.

An experiment assigns units (keys, users, conversations) to arms, and a unit sends several requests; so every interval
here treats the unit as what was drawn (clustered), and needs of an arm only :class:`ArmTotals`, which
:class:`Accumulator` keeps current while units go on sending. The mean of a metric is a ratio of sums, its variance
that of the delta method. An interval at ``alpha`` holds at all looks at once with probability 1 − ``alpha``: looking
early, often, or until something shows costs nothing. Several metrics are several statements, each at an ``alpha`` of
its own.

The sequences are asymptotic (normal mixture, [1]_): nothing is said before a burn-in. They stay valid while units that
are already counted send more, as long as a unit's own requests are alike rather than opposed: the estimates of two
looks are then correlated at least as those of independent requests would be, and by Slepian's inequality the boundary
is crossed no more often. All functions are pure, and take floats or arrays of one shape (simulations).

Entry points: :func:`interval`, :func:`difference`, :func:`relative`, :func:`sample_ratio`, :func:`units_needed`.

References
----------
.. [1] Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
   sequences", Annals of Statistics 52 (2024), arXiv 2103.06476, theorem 2.2 and (for ρ) appendix B.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isfinite, log
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from router.errors import InvalidInference
from router.sample_ratio import RatioCheck, sample_ratio
from router.totals import Accumulator, ArmTotals, Number, quotient

__all__ = [
    "LEAST_SPREAD",
    "LEAST_UNITS",
    "TUNED_FOR_REQUESTS",
    "Accumulator",
    "ArmTotals",
    "Interval",
    "RatioCheck",
    "difference",
    "half_width",
    "interval",
    "is_compared",
    "is_sampled",
    "p_value",
    "relative",
    "sample_ratio",
    "units_needed",
]

Flag = bool | np.bool_ | NDArray[np.bool_]

#: Nothing is said of an arm with fewer units than this.
LEAST_UNITS = 50
#: Nor before requests and metric are spread over so many units, counted as (Σx)² / Σx²: one key that sends nearly all
#: requests, three failures in all, or one answer dearer than all others together are no sample.
LEAST_SPREAD = 20.0
#: Requests of a comparison at which the sequences are narrowest; a twentieth or a hundredfold of them costs a fifth of
#: the width. Validity depends on it being fixed beforehand, not on its value.
TUNED_FOR_REQUESTS = 10_000.0
_MOST_UNITS = 10**9


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds of its confidence sequence at this look.

    Parameters
    ----------
    value : float or ndarray
        NaN without data.
    low, high : float or ndarray
        −inf and inf during the burn-in.
    """

    value: Number
    low: Number
    high: Number

    @property
    def is_said(self) -> Flag:
        """Whether the burn-in is over."""
        return np.isfinite(self.low) & np.isfinite(self.high)

    def excludes(self, value: float) -> Flag:
        """Say whether a value is outside: for 0 and a difference, whether the arms differ."""
        return (self.low > value) | (self.high < value)

    def within(self, low: float, high: float) -> Interval:
        """Cut the bounds to what is possible, such as [0, 1] for a share; those of the burn-in stay infinite."""
        is_said = self.is_said
        return Interval(
            self.value,
            np.where(is_said, np.clip(self.low, low, high), self.low)[()],
            np.where(is_said, np.clip(self.high, low, high), self.high)[()],
        )


def interval(arm: ArmTotals, alpha: float, *, tuned_for_requests: float = TUNED_FOR_REQUESTS) -> Interval:
    """Bound the mean of one arm at every look.

    A sample that has missed what is rare and dear underestimates mean and spread together. So the upper bound is the
    mean whose own standard error, growing in proportion to it, still reaches down to the estimate: above by
    w / (1 − w / mean), where it is w below. Differences need no such care, as both arms err alike.

    Parameters
    ----------
    arm : ArmTotals
    alpha : float in (0, 1)
        Chance that the bounds are ever wrong.
    tuned_for_requests : float, default=TUNED_FOR_REQUESTS
        Where the sequence is narrowest; fixed before the first look.

    Returns
    -------
    Interval

    Raises
    ------
    InvalidInference
        ``alpha`` or ``tuned_for_requests`` cannot be.
    """
    width = half_width(arm.variance, arm.n_requests, alpha, tuned_for_requests)
    is_said = is_sampled(arm) & (arm.spread_values >= LEAST_SPREAD) & (width < arm.mean)
    found = _interval(arm.mean, width, is_said)
    above = quotient(arm.mean, 1 - quotient(width, arm.mean))
    return Interval(found.value, found.low, np.where(found.is_said, above, inf)[()])


def difference(
    arm: ArmTotals, control: ArmTotals, alpha: float, *, tuned_for_requests: float = TUNED_FOR_REQUESTS
) -> Interval:
    """Bound the mean of an arm minus that of the control, at every look.

    The variance is the larger of two: the sum of both arms' own, and what that sum would be if units of both arms
    were equally variable. A small arm that has seen none of what is rare otherwise looks certain.

    Parameters
    ----------
    arm, control : ArmTotals
    alpha : float in (0, 1)
        Chance that the bounds are ever wrong; under "no difference", of ever claiming one.
    tuned_for_requests : float, default=TUNED_FOR_REQUESTS

    Returns
    -------
    Interval

    Raises
    ------
    InvalidInference
        ``alpha`` or ``tuned_for_requests`` cannot be.
    """
    width = half_width(_variance_of_difference(arm, control), _requests(arm, control), alpha, tuned_for_requests)
    return _interval(arm.mean - control.mean, width, is_compared(arm, control))


def relative(
    arm: ArmTotals, control: ArmTotals, alpha: float, *, tuned_for_requests: float = TUNED_FOR_REQUESTS
) -> Interval:
    """Bound the mean of an arm relative to that of the control (−0.1 is 10 % less), at every look.

    For metrics with a mean above 0; by the delta method on the logarithm.

    Parameters
    ----------
    arm, control : ArmTotals
    alpha : float in (0, 1)
    tuned_for_requests : float, default=TUNED_FOR_REQUESTS

    Returns
    -------
    Interval
        NaN where a mean is not above 0.

    Raises
    ------
    InvalidInference
        ``alpha`` or ``tuned_for_requests`` cannot be.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.log(arm.mean) - np.log(control.mean)
        variance = arm.variance / arm.mean**2 + control.variance / control.mean**2
        width = half_width(variance, _requests(arm, control), alpha, tuned_for_requests)
        found = _interval(shift, width, is_compared(arm, control) & np.isfinite(shift))
        low = np.where(found.is_said, np.expm1(found.low), -inf)[()]
        return Interval(np.expm1(found.value), low, np.expm1(found.high))


def p_value(arm: ArmTotals, control: ArmTotals, *, tuned_for_requests: float = TUNED_FOR_REQUESTS) -> Number:
    """Return the smallest alpha at which :func:`difference` excludes 0 at this look; 1 during the burn-in.

    Valid at any look chosen in any way; the smallest over all looks so far is valid too.
    """
    variance = _variance_of_difference(arm, control)
    x = _clock(_requests(arm, control), 0.05, tuned_for_requests)
    z_squared = quotient((arm.mean - control.mean) ** 2, variance)
    p = np.sqrt(1 + x) * np.exp(-z_squared * x / (2 * (1 + x)))
    is_said = is_compared(arm, control) & np.isfinite(z_squared)
    return np.where(is_said, np.minimum(p, 1.0), 1.0)[()]


def is_sampled(arm: ArmTotals) -> Flag:
    """Say whether an arm has enough units, and requests spread among enough of them."""
    return (arm.n_units >= LEAST_UNITS) & (arm.spread_requests >= LEAST_SPREAD)


def is_compared(arm: ArmTotals, control: ArmTotals) -> Flag:
    """Say whether the burn-in of a comparison is over: both arms sampled, and the metric spread over enough units."""
    both = arm + control
    return is_sampled(arm) & is_sampled(control) & (both.spread_values >= LEAST_SPREAD)


def half_width(variance: Number, n_requests: Number, alpha: float, tuned_for_requests: float) -> Number:
    """Return half the width of the confidence sequence.

    With x = ρ² t, it is sqrt(variance · (1 + 1/x) · (ln(1 + x) + 2 ln(1/alpha))) ([1]_, theorem 2.2, the variance
    being that of the mean). The clock t counts requests: counted in units it would stand still while known units send
    on, and estimates that still move need a boundary that still widens.

    Parameters
    ----------
    variance : float or ndarray
        Of the estimate.
    n_requests : float or ndarray
        Of all arms it is about.
    alpha : float in (0, 1)
    tuned_for_requests : float above 0
        ρ² is what makes the width least there.

    Returns
    -------
    float or ndarray

    Raises
    ------
    InvalidInference
        ``alpha`` or ``tuned_for_requests`` cannot be.
    """
    x = _clock(n_requests, alpha, tuned_for_requests)
    with np.errstate(divide="ignore", invalid="ignore"):
        width: Number = np.sqrt(variance * (1 + quotient(1.0, x)) * (np.log1p(x) - 2 * log(alpha)))
    return width


def units_needed(
    pilot: ArmTotals,
    effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    share: float = 0.5,
    tuned_for_requests: float = TUNED_FOR_REQUESTS,
) -> int | None:
    """Plan: units in both arms together until :func:`difference` shows an effect with some probability.

    The probability that a Brownian motion with drift crosses the boundary by then, that is, the line which touches the
    boundary there: the boundary bends down from it, so the plan is a little high. Units are taken to be like the
    pilot's, in both arms.

    Parameters
    ----------
    pilot : ArmTotals
        What is known of units, such as those of the control so far.
    effect : float
        Difference of means to be found, in the metric's unit, not 0.
    alpha, power : float in (0, 1)
    share : float in (0, 1)
        Share of the units that come to the arm; the others come to the control.
    tuned_for_requests : float, default=TUNED_FOR_REQUESTS

    Returns
    -------
    int or None
        At least what the burn-in asks for; None above a thousand million.

    Raises
    ------
    InvalidInference
        A number cannot be, or the pilot has fewer than two units or no variance.
    """
    for name, number in (("power", power), ("share", share)):
        if not 0 < number < 1:
            raise InvalidInference(f"{name} must be in (0, 1), got {number}")
    variance = float(pilot.variance)
    if not (isfinite(effect) and effect != 0):
        raise InvalidInference(f"effect must be a number other than 0, got {effect}")
    if not (isfinite(variance) and variance > 0):
        raise InvalidInference(f"pilot must have at least 2 units that differ, got {float(pilot.n_units):g} units")
    per_unit = variance * float(pilot.n_units) / (share * (1 - share))
    requests = float(pilot.n_requests / pilot.n_units)
    clock = float(_clock(requests, alpha, tuned_for_requests))
    drift = abs(effect) / (per_unit * clock) ** 0.5

    def shows(units: int) -> bool:
        return _crossed_by(units * clock, drift, alpha) >= power

    low, high = 0, int(LEAST_UNITS / min(share, 1 - share)) + 1
    if shows(high):
        return high
    while not shows(high):
        low, high = high, 2 * high
        if high > _MOST_UNITS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def _clock(n_requests: Number, alpha: float, tuned_for_requests: float) -> Number:
    """Return x = ρ² t, with the ρ² of [1]_, appendix B.2, for the alpha 0.05 whatever alpha is asked for.

    One boundary for all levels, so that intervals are nested and :func:`p_value` is their inverse.
    """
    if not 0 < alpha < 1:
        raise InvalidInference(f"alpha must be in (0, 1), got {alpha}")
    if not (isfinite(tuned_for_requests) and tuned_for_requests > 0):
        raise InvalidInference(f"tuned_for_requests must be a number above 0, got {tuned_for_requests}")
    twice = -2 * log(0.05)
    return n_requests * ((twice + log(twice + 1)) / tuned_for_requests)


def _crossed_by(x: float, drift: float, alpha: float) -> float:
    """Return how probably a Brownian motion with drift crosses, by x, the line that touches the boundary at x.

    Of the line a + c·x: Φ((d x − a) / √x) + exp(2 a d) Φ((−d x − a) / √x), d = drift − c (Siegmund 1985, eq. 3.15).
    """
    level = log(1 + x) - 2 * log(alpha)
    bound = ((1 + x) * level) ** 0.5
    slope = (level + 1) / (2 * bound)
    start, own = bound - slope * x, drift - slope
    phi = NormalDist().cdf
    late = phi((-own * x - start) / x**0.5)
    return phi((own * x - start) / x**0.5) + (exp(min(2 * start * own, 700.0)) * late if late > 0 else 0.0)


def _variance_of_difference(arm: ArmTotals, control: ArmTotals) -> Number:
    own = arm.variance + control.variance
    units = arm.n_units + control.n_units
    per_unit = quotient(arm.deviation_squares + control.deviation_squares, np.maximum(units - 2, 0.0))
    alike = per_unit * (quotient(arm.n_units, arm.n_requests**2) + quotient(control.n_units, control.n_requests**2))
    return np.maximum(own, alike)


def _requests(arm: ArmTotals, control: ArmTotals) -> Number:
    return arm.n_requests + control.n_requests


def _interval(value: Number, width: Number, is_said: Flag) -> Interval:
    is_said = is_said & np.isfinite(width) & (width > 0)
    return Interval(value, np.where(is_said, value - width, -inf)[()], np.where(is_said, value + width, inf)[()])
