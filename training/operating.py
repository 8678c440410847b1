"""Operating points: the dial, and what is chosen with it on validation rows.

The dial is ``willingness_to_pay_usd``; every choice goes through :mod:`router.policy`, so what is measured is what
serves.
Entry points: :func:`dial_of`, :func:`sweep`, :func:`choose_points` and :func:`choose_presets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import Policy
from router.policy import choose

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Choices = NDArray[np.intp]

LEVELS = (0.95, 0.99, 1.0)
_N_STOPS = 48
#: Presets aim this much above the quality they promise, since validation rows flatter what was chosen on them.
MARGIN = 0.002
#: Predicted gains that leaving the best single candidate may ask for.
_MARGINS = (-0.02, 0.0, 0.01, 0.02, 0.03, 0.05, 0.08)
#: Of a one-sided bound at 95 %. With one standard error small data lost beyond the interval (notebooks/LOG.md).
_STANDARD_ERRORS = 1.645
_PRESET_LEVELS: Mapping[str, float] = {"balanced": 0.99, "price": 0.95}


@dataclass(frozen=True, slots=True)
class OperatingPoints:
    """Stops of the dial, in USD per unit of quality, chosen on validation rows.

    Parameters
    ----------
    best : float
        Highest quality.
    saving : Mapping of float to float
        Per level f: the cheapest stop whose quality is at least f times that of the best single candidate.
    frontier : tuple of float
        The stops on the validation rows' own hull.
    """

    best: float
    saving: Mapping[float, float]
    frontier: tuple[float, ...]


def dial_of(cost_usd: Matrix) -> tuple[float, ...]:
    """Return the stops of the dial for calls that cost about this.

    Parameters
    ----------
    cost_usd : ndarray of shape (n, m)

    Returns
    -------
    tuple of float
        0, then stops in geometric steps from where money is nearly all to where quality is nearly all.
    """
    means = cost_usd.mean(axis=0)
    low, high = max(means.min(), 1e-9) / 10, max(means.max(), 1e-9) * 1_000
    return (0.0, *(float(stop) for stop in np.geomspace(low, high, _N_STOPS)))


def sweep(quality: Matrix, cost_usd: Matrix, dial: tuple[float, ...]) -> Choices:
    """Return the candidate chosen at every stop of the dial, shape (stops, n)."""
    return np.array([choose(quality, cost_usd, Policy("willingness_to_pay_usd", stop)) for stop in dial])


def outcome_of(choices: Choices, values: Matrix) -> Matrix:
    """Return what the chosen candidates did, shape (n, stops), out of values of shape (n, m)."""
    return np.take_along_axis(values, choices.T, axis=1)


def choose_points(
    predicted: Matrix, predicted_cost: Matrix, quality: Matrix, cost_usd: Matrix, best_single: int
) -> OperatingPoints:
    """Choose stops of the dial on validation rows.

    Parameters
    ----------
    predicted, predicted_cost, quality, cost_usd : ndarray of shape (n, m)
        Without NaN.
    best_single : int
        Column of the candidate that was best on the training rows.

    Returns
    -------
    OperatingPoints
    """
    dial = dial_of(cost_usd)
    choices = sweep(predicted, predicted_cost, dial)
    reached, spent = outcome_of(choices, quality).mean(axis=0), outcome_of(choices, cost_usd).mean(axis=0)
    single = quality[:, best_single].mean()
    best = int(reached.argmax())
    saving = {}
    for level in LEVELS:
        enough = np.flatnonzero(reached >= level * single)
        saving[level] = dial[int(enough[spent[enough].argmin()]) if len(enough) else best]
    return OperatingPoints(dial[best], saving, _frontier(dial, spent, reached))


def choose_presets(
    predicted: Matrix, predicted_cost: Matrix, quality: Matrix, cost_usd: Matrix, best_single: int, anchor: str
) -> dict[str, Policy]:
    """Choose the presets on validation rows; parameters as of :func:`choose_points`, and the name of the best single.

    ``quality`` must not lose against the best single candidate: :func:`no_regret`. ``balanced`` and ``price`` are the
    cheapest stops that keep 99 % and 95 % of the best single candidate's quality, with a margin. ``latency`` asks for
    the quality that ``balanced`` expects.
    """
    dial = dial_of(cost_usd)
    choices = sweep(predicted, predicted_cost, dial)
    reached, spent = outcome_of(choices, quality).mean(axis=0), outcome_of(choices, cost_usd).mean(axis=0)
    single = quality[:, best_single].mean()
    nearly = np.flatnonzero(reached >= reached.max() - MARGIN)
    dearest = dial[int(nearly[-1])]
    stops = {}
    for name, level in _PRESET_LEVELS.items():
        enough = np.flatnonzero(reached >= level * single + MARGIN)
        stops[name] = dial[int(enough[spent[enough].argmin()])] if len(enough) else dearest
    presets = {"quality": no_regret(predicted, predicted_cost, quality, dial, best_single, anchor)}
    for name, stop in stops.items():
        presets[name] = Policy("willingness_to_pay_usd", _rounded(stop), name)
    balanced = choose(predicted, predicted_cost, presets["balanced"])
    expected = float(np.take_along_axis(predicted, balanced[:, None], axis=1).mean())
    return {**presets, "latency": Policy("latency", round(expected, 3), "latency")}


def no_regret(
    predicted: Matrix,
    predicted_cost: Matrix,
    quality: Matrix,
    dial: tuple[float, ...],
    best_single: int,
    anchor: str,
) -> Policy:
    """Return the policy whose gain over the best single candidate has the highest lower confidence bound.

    The bound is one-sided, 95 %, on the mean gain on these rows. Where no stop of the dial and no margin has one
    above zero, the policy is to choose the best single candidate always.
    """
    always = Policy("willingness_to_pay_usd", _rounded(dial[-1]), "quality", anchor, 1.0)
    best, policy = 0.0, always
    for stop in dial[1::2]:
        for margin in _MARGINS:
            tried = Policy("willingness_to_pay_usd", _rounded(stop), "quality", anchor, margin)
            choice = choose(predicted, predicted_cost, tried, anchor=best_single)
            gain = np.take_along_axis(quality, choice[:, None], axis=1)[:, 0] - quality[:, best_single]
            low = float(gain.mean() - _STANDARD_ERRORS * gain.std() / np.sqrt(len(gain)))
            if low > best:
                best, policy = low, tried
    return policy


def regret(predicted: Matrix, predicted_cost: Matrix, quality: Matrix, cost_usd: Matrix) -> float:
    """Return the mean regret to the oracle over the dial, each stop's divided by that of a random choice."""
    dial = dial_of(cost_usd)[1::6]
    chosen = sweep(predicted, predicted_cost, dial)
    ratios = []
    for stop, choice in zip(dial, chosen, strict=True):
        utility = quality * stop - cost_usd
        best = utility.max(axis=1).mean()
        own = np.take_along_axis(utility, choice[:, None], axis=1).mean()
        ratios.append((best - own) / max(best - utility.mean(), 1e-12))
    return float(np.mean(ratios))


def _frontier(dial: tuple[float, ...], spent: Vector, reached: Vector) -> tuple[float, ...]:
    from training.metrics import hull

    on_hull = set(zip(*(vertex.tolist() for vertex in hull(spent, reached)), strict=True))
    points = zip(dial, spent.tolist(), reached.tolist(), strict=True)
    return tuple(stop for stop, x, y in points if (x, y) in on_hull)


def _rounded(value: float) -> float:
    """Keep three digits: more would promise a precision that a choice among few stops has not."""
    return float(f"{value:.3g}")
