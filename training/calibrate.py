"""Calibration: what a logit is worth, and how sure that is; learned on rows used for nothing else.

Per candidate one of three maps is chosen by cross-validated log loss, the simplest unless another is clearly better:
``platt``, ``beta`` (both are sigmoid(a · ln p − b · ln(1 − p) + c), Platt with a = b) and ``isotonic`` (piecewise
linear in the logit); with too few rows to learn from, ``identity``. The interval is Wilson's for the mean quality of
prompts scored alike, in bins of equal mass, interpolated. Every map is plain sums of ramps and logarithms, so
:mod:`training.export` puts the very same numbers into the graph. Entry points: :func:`calibrate`,
:class:`Calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
#: For how many outcomes each counts; None is 1 each.
Counts = Vector | None

METHODS = ("platt", "beta", "isotonic")
N_KNOTS = 12
_FOLDS = 5
_LEAST_ROWS = 60
_LEAST_ROWS_ISOTONIC = 1_000
#: A more flexible map must lower the log loss by this many standard errors.
_STANDARD_ERRORS = 1.0
#: Pull of a Platt or beta map towards the identity: scores of averaged networks are nearly calibrated, and what a
#: thousand rows say beyond that is half noise.
_PRIOR = 25.0
LOGIT_LIMIT = 12.0
_Z90 = 1.6448536269514722
_ROWS_PER_BIN = 100
_LEAST_GAP = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Ramps:
    """Piecewise linear functions, one per candidate: ``start + Σ slope · max(x − knot, 0)``.

    Parameters
    ----------
    start : ndarray of shape (m,), float64
    knots, slopes : ndarray of shape (m, k), float64
        ``slopes`` are changes of slope at the knots; unused knots have slope 0.
    """

    start: Vector
    knots: Matrix
    slopes: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """Evaluate at x, shape (n, m)."""
        value: Matrix = self.start + (np.maximum(x[:, :, None] - self.knots, 0) * self.slopes).sum(axis=2)
        return value

    @classmethod
    def through(cls, points: list[tuple[Vector, Vector]]) -> Ramps:
        """Make the functions through the given (x, y) points of each candidate, constant outside them."""
        width = max(len(x) for x, _ in points)
        start, knots, slopes = np.zeros(len(points)), np.zeros((len(points), width)), np.zeros((len(points), width))
        for j, (x, y) in enumerate(points):
            rise = np.diff(y) / np.diff(x) if len(x) > 1 else np.zeros(0)
            start[j] = y[0]
            knots[j, : len(x)] = x
            slopes[j, : len(x)] = np.diff(np.concatenate([[0.0], rise, [0.0]]))
        return cls(start, knots, slopes)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The calibration of m candidates.

    Parameters
    ----------
    methods : tuple of m str
        One of :data:`METHODS` each, or ``identity``.
    a, b, c : ndarray of shape (m,), float64
        Of ``sigmoid(a · ln p − b · ln(1 − p) + c)``, with p the sigmoid of the logit.
    isotonic : Ramps or None
        From logit to quality; None where no candidate uses it.
    low, high : Ramps
        From calibrated quality to the bounds of its interval.
    """

    methods: tuple[str, ...]
    a: Vector
    b: Vector
    c: Vector
    isotonic: Ramps | None
    low: Ramps
    high: Ramps

    @property
    def is_isotonic(self) -> NDArray[np.bool_]:
        """Which candidates use the isotonic map, shape (m,)."""
        return np.array([method == "isotonic" for method in self.methods])

    def quality(self, logits: Matrix) -> Matrix:
        """Return calibrated quality, shape (n, m), in [0, 1]."""
        z = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
        quality = _sigmoid(-self.a * np.logaddexp(0, -z) + self.b * np.logaddexp(0, z) + self.c)
        if self.isotonic is not None:
            quality = np.where(self.is_isotonic, np.clip(self.isotonic(z), 0, 1), quality)
        return quality

    def interval(self, quality: Matrix) -> tuple[Matrix, Matrix]:
        """Return the bounds for calibrated qualities, each of shape (n, m), around them and in [0, 1]."""
        low = np.minimum(np.clip(self.low(quality), 0, 1), quality)
        return low, np.maximum(np.clip(self.high(quality), 0, 1), quality)


def calibrate(logits: Matrix, quality: Matrix, seed: int, weights: Matrix | None = None) -> Calibration:
    """Learn the calibration of m candidates.

    Parameters
    ----------
    logits : ndarray of shape (n, m), float64
        Of rows that nothing was fitted on.
    quality : ndarray of shape (n, m), float64, in [0, 1]
        NaN where unobserved.
    seed : int
        Of the folds.
    weights : ndarray of shape (n, m), optional
        For how many outcomes each counts, at least 0; default 1. Intervals take weights for what they are worth, the
        effective number (Σw)² / Σw² of Kish (1965), since weighing an outcome twice does not make it two.

    Returns
    -------
    Calibration
    """
    logits = np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    m = logits.shape[1]
    methods, parameters, steps = [], np.ones((m, 3)) * (1.0, 1.0, 0.0), []
    for j in range(m):
        observed = ~np.isnan(quality[:, j])
        z, y = logits[observed, j], quality[observed, j]
        counts = None if weights is None else weights[observed, j]
        method = _choose(z, y, seed, counts)
        methods.append(method)
        steps.append(_isotonic_points(z, y, counts) if method == "isotonic" else (np.zeros(1), np.zeros(1)))
        if method in _FITS:
            parameters[j] = _FITS[method](z, y, counts)
    isotonic = Ramps.through(steps) if "isotonic" in methods else None
    a, b, c = parameters.T
    flat = Ramps(np.zeros(m), np.zeros((m, 1)), np.zeros((m, 1)))
    without_interval = Calibration(tuple(methods), a, b, c, isotonic, flat, flat)
    calibrated = without_interval.quality(logits)
    of_column = [None] * m if weights is None else list(weights.T)
    bounds = [_interval_points(calibrated[:, j], quality[:, j], of_column[j]) for j in range(m)]
    low = Ramps.through([(x, low) for x, low, _ in bounds])
    high = Ramps.through([(x, high) for x, _, high in bounds])
    return Calibration(tuple(methods), a, b, c, isotonic, low, high)


def _choose(z: Vector, y: Vector, seed: int, counts: Counts = None) -> str:
    """Return the simplest method that no other beats clearly, by cross-validated log loss; or ``identity``."""
    if _effective(len(z), counts) < _LEAST_ROWS or y.min() == y.max():
        return "identity"
    folds = np.random.default_rng(seed).permutation(len(z)) % _FOLDS
    methods = METHODS if _effective(len(z), counts) >= _LEAST_ROWS_ISOTONIC else METHODS[:-1]
    losses = {method: np.empty(len(z)) for method in methods}
    for fold in range(_FOLDS):
        fit, held_out = folds != fold, folds == fold
        for method in methods:
            at = _apply(method, z[fit], y[fit], z[held_out], None if counts is None else counts[fit])
            losses[method][held_out] = _log_loss(at, y[held_out])
    best = methods[0]
    for method in methods[1:]:
        gain = losses[best] - losses[method]
        if np.average(gain, weights=counts) > _STANDARD_ERRORS * _standard_error(gain, counts):
            best = method
    return best


def _effective(n: int, counts: Counts) -> float:
    """Return what n weighted outcomes are worth: (Σw)² / Σw² (Kish 1965)."""
    return n if counts is None else float(counts.sum() ** 2 / max((counts**2).sum(), 1e-12))


def _standard_error(values: Vector, counts: Counts) -> float:
    """Return that of the mean of n values, or of their weighted mean."""
    if counts is None:
        return float(values.std() / np.sqrt(len(values)))
    centred = values - np.average(values, weights=counts)
    return float(np.sqrt(((counts * centred) ** 2).sum()) / counts.sum())


def _bins(n: int, n_bins: int, counts: Counts) -> list[NDArray[np.intp]]:
    """Cut 0 … n − 1 into runs of equal mass, none empty."""
    if counts is None:
        return np.array_split(np.arange(n), n_bins)
    middle = (np.cumsum(counts) - counts / 2) / counts.sum()
    cuts = np.searchsorted(middle, np.arange(1, n_bins) / n_bins)
    return [part for part in np.split(np.arange(n), cuts) if counts[part].sum() > 0]


def _apply(method: str, z: Vector, y: Vector, at: Vector, counts: Counts) -> Vector:
    if method == "isotonic":
        return np.interp(at, *_isotonic_points(z, y, counts))
    a, b, c = _FITS[method](z, y, counts)
    return _sigmoid(-a * np.logaddexp(0, -at) + b * np.logaddexp(0, at) + c)


def _platt(z: Vector, y: Vector, counts: Counts = None) -> tuple[float, float, float]:
    def loss(parameters: Vector) -> float:
        a, c = parameters
        return float(_total(_log_loss(_sigmoid(a * z + c), y), counts) + _PRIOR * ((a - 1) ** 2 + c**2))

    a, c = minimize(loss, (1.0, 0.0), method="L-BFGS-B", bounds=((0, None), (None, None))).x
    return float(a), float(a), float(c)


def _beta(z: Vector, y: Vector, counts: Counts = None) -> tuple[float, float, float]:
    positive, negative = -np.logaddexp(0, -z), np.logaddexp(0, z)

    def loss(parameters: Vector) -> float:
        a, b, c = parameters
        fitted = _sigmoid(a * positive + b * negative + c)
        return float(_total(_log_loss(fitted, y), counts) + _PRIOR * ((a - 1) ** 2 / 2 + (b - 1) ** 2 / 2 + c**2))

    bounds = ((0, None), (0, None), (None, None))
    a, b, c = minimize(loss, (1.0, 1.0, 0.0), method="L-BFGS-B", bounds=bounds).x
    return float(a), float(b), float(c)


_FITS: Mapping[str, Callable[[Vector, Vector, Counts], tuple[float, float, float]]] = {"platt": _platt, "beta": _beta}


def _isotonic_points(z: Vector, y: Vector, counts: Counts = None) -> tuple[Vector, Vector]:
    """Return few points of the isotonic fit: its mean in bins of equal mass."""
    order = np.argsort(z, kind="stable")
    z, y, counts = z[order], y[order], None if counts is None else counts[order]
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(z, y, sample_weight=counts)
    parts = _bins(len(z), N_KNOTS, counts)
    return _spread(*(np.array([_average(values[p], counts, p) for p in parts]) for values in (z, fitted)))


def _spread(x: Vector, y: Vector) -> tuple[Vector, Vector]:
    """Drop points too near the one before for single precision."""
    kept = [0]
    for i in range(1, len(x)):
        if x[i] - x[kept[-1]] >= _LEAST_GAP:
            kept.append(i)
    return x[kept], y[kept]


def _interval_points(calibrated: Vector, quality: Vector, counts: Counts = None) -> tuple[Vector, Vector, Vector]:
    """Return points (score, low, high), each nondecreasing."""
    observed = ~np.isnan(quality) if counts is None else ~np.isnan(quality) & (counts > 0)
    p, y = calibrated[observed], quality[observed]
    if not len(p):
        return np.array([0.0]), np.array([0.0]), np.array([1.0])
    order = np.argsort(p, kind="stable")
    p, y, counts = p[order], y[order], None if counts is None else counts[observed][order]
    n_bins = int(np.clip(_effective(len(p), counts) // _ROWS_PER_BIN, 1, N_KNOTS))
    groups = [
        (_average(p[at], counts, at), _average(y[at], counts, at), _effective(len(at), _of(counts, at)))
        for at in _bins(len(p), n_bins, counts)
    ]
    x, mean, n = np.array(groups).T
    low, high = _wilson(mean, n)
    x, low = _spread(x, np.maximum.accumulate(low))
    # The same points survive, since they depend on x alone.
    high = np.interp(x, np.array(groups)[:, 0], np.maximum.accumulate(high))
    return x, low, high


def _wilson(mean: Vector, n: Vector) -> tuple[Vector, Vector]:
    """Return Wilson's 90 % interval for means of n values in [0, 1]; exact coverage only if the values are binary."""
    z2 = _Z90**2
    centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z90 / (1 + z2 / n) * np.sqrt(mean * (1 - mean) / n + z2 / (4 * n**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _of(counts: Counts, part: NDArray[np.intp]) -> Counts:
    return None if counts is None else counts[part]


def _average(values: Vector, counts: Counts, part: NDArray[np.intp]) -> float:
    return float(np.average(values, weights=_of(counts, part)))


def _total(losses: Vector, counts: Counts) -> float:
    return float(losses.sum() if counts is None else (losses * counts).sum())


def _sigmoid(x: Matrix) -> Matrix:
    result: Matrix = 1 / (1 + np.exp(-np.clip(x, -LOGIT_LIMIT * 4, LOGIT_LIMIT * 4)))
    return result


def _log_loss(p: Vector, y: Vector) -> Vector:
    p = np.clip(p, 1e-6, 1 - 1e-6)
    result: Vector = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return result
