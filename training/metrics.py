"""The measures of a router, each defined once, on plain arrays.

Every measure takes one or many weightings of the rows: a bootstrap resample is a weighting (how often each row was
drawn), and the plain estimate is the weighting of ones. So weights have shape (b, n) and results (b,). Definitions
follow the literature on learned routing; what is chosen on validation rows is chosen in :mod:`training.operating`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Weights = NDArray[np.float64]

N_ECE_BINS = 15


def mean(values: NDArray[np.floating[Any]], weights: Weights) -> Matrix:
    """Return weighted means of columns.

    Parameters
    ----------
    values : ndarray of shape (n,) or (n, k)
    weights : ndarray of shape (b, n)

    Returns
    -------
    ndarray of shape (b,) or (b, k)
        NaN for a resample that drew no row.
    """
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore"):
        result: Matrix = (weights @ values) / (total if values.ndim == 1 else total[:, None])
    return result


def auc(score: NDArray[np.floating[Any]], label: NDArray[np.floating[Any]], weights: Weights) -> Vector:
    """Return the probability that a good answer scores above a bad one; ties count half.

    Parameters
    ----------
    score : ndarray of shape (n,)
    label : ndarray of shape (n,), in [0, 1]
        A graded label counts as both answers, each with its share.
    weights : ndarray of shape (b, n)

    Returns
    -------
    ndarray of shape (b,)
        NaN where the labels are all 0 or all 1.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    weights, label = weights[:, order], label[order]
    good = np.add.reduceat(weights * label, starts, axis=1)
    bad = np.add.reduceat(weights * (1 - label), starts, axis=1)
    below = np.cumsum(bad, axis=1) - bad / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Vector = (good * below).sum(axis=1) / (good.sum(axis=1) * bad.sum(axis=1))
    return result


def brier(score: NDArray[np.floating[Any]], label: NDArray[np.floating[Any]], weights: Weights) -> Vector:
    """Return the mean squared difference, shape (b,)."""
    return mean((score - label) ** 2, weights)


def brier_skill(score: NDArray[np.floating[Any]], label: NDArray[np.floating[Any]], weights: Weights) -> Vector:
    """Return 1 − Brier score / Brier score of the constant mean, shape (b,); NaN where labels do not vary."""
    constant = mean(label**2, weights) - mean(label, weights) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant > 1e-12, 1 - brier(score, label, weights) / constant, np.nan)


def ece(
    score: NDArray[np.floating[Any]],
    label: NDArray[np.floating[Any]],
    weights: Weights,
    n_bins: int = N_ECE_BINS,
) -> Vector:
    """Return the expected calibration error in bins of equal mass, shape (b,).

    The mean over rows of |mean score − mean label| of their bin. Bins are those of the unweighted rows. Even perfect
    scores show about 0.8 · sqrt(p (1 − p) / rows per bin), so the figure of a small sample is mostly that.
    """
    order, starts = _bins(score, n_bins)
    gaps = np.add.reduceat(weights[:, order] * (score - label)[order], starts, axis=1)
    with np.errstate(invalid="ignore"):
        result: Vector = np.abs(gaps).sum(axis=1) / weights.sum(axis=1)
    return result


def ece_floor(score: NDArray[np.floating[Any]], n_bins: int = N_ECE_BINS) -> float:
    """Return the calibration error that these scores would show on as many rows if each were exactly right.

    The gap of a bin is then nearly normal around 0 with the variance of binary labels; graded labels vary less, so for
    them it says too much.
    """
    order, starts = _bins(score, n_bins)
    variances = np.add.reduceat((score * (1 - score))[order], starts)
    return float(np.sqrt(2 / np.pi * variances).sum() / len(score))


def _bins(score: NDArray[np.floating[Any]], n_bins: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order of scores, and where each bin of equal mass begins in it."""
    starts = np.unique([part[0] for part in np.array_split(np.arange(len(score)), n_bins) if len(part)])
    return np.argsort(score, kind="stable"), starts


def hull(cost: NDArray[np.floating[Any]], quality: NDArray[np.floating[Any]]) -> tuple[Vector, Vector]:
    """Return the vertices of the upper, non-decreasing, concave envelope of points, by rising cost.

    Parameters
    ----------
    cost, quality : ndarray of shape (k,)

    Returns
    -------
    tuple of two ndarray
        Costs and qualities of the vertices.
    """
    vertices: list[tuple[float, float]] = []
    for index in np.lexsort((-quality, cost)):
        x, y = float(cost[index]), float(quality[index])
        if vertices and y <= vertices[-1][1]:
            continue
        while len(vertices) >= 2:
            (x0, y0), (x1, y1) = vertices[-2:]
            if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0):
                break
            vertices.pop()
        vertices.append((x, y))
    xs, ys = zip(*vertices, strict=True)
    return np.array(xs), np.array(ys)


def area(cost: NDArray[np.floating[Any]], quality: NDArray[np.floating[Any]], low: float, high: float) -> float:
    """Return the mean height of the hull of points over costs from ``low`` to ``high``.

    Left of the first vertex the hull has the height of the first, right of the last that of the last.
    """
    x, y = hull(cost, quality)
    if high <= low:
        return float(np.interp(low, x, y))
    at = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
    return float(np.trapezoid(np.interp(at, x, y), at) / (high - low))


def naiq(router: tuple[Matrix, Matrix], singles: tuple[Matrix, Matrix], oracle: tuple[Matrix, Matrix]) -> Vector:
    """Return which part of the room between the hull of single candidates and the oracle a router fills.

    Parameters
    ----------
    router, singles, oracle : tuple of (cost, quality), each ndarray of shape (b, k)
        Mean cost and quality of the router's points, of the single candidates, of the oracle's points.

    Returns
    -------
    ndarray of shape (b,)
        (area of router − area of singles) / (area of oracle − area of singles), areas under the hulls from the cheapest
        to the dearest single candidate; NaN where there is no room. A router may always answer with the cheapest
        candidate instead, so that point is under its hull too: one that has no cheap points is not given any.
    """
    values = np.empty(len(router[0]))
    for i in range(len(values)):
        low, high = float(singles[0][i].min()), float(singles[0][i].max())
        cheapest = int(singles[0][i].argmin())
        cost, quality = (np.append(a[i], b[i][cheapest]) for a, b in zip(router, singles, strict=True))
        own = area(cost, quality, low, high)
        base, best = (area(x[i], y[i], low, high) for x, y in (singles, oracle))
        values[i] = (own - base) / (best - base) if best - base > 1e-12 else np.nan
    return values


def gain_over_hull(cost: Vector, quality: Vector, singles: tuple[Matrix, Matrix]) -> Vector:
    """Return a router's quality minus the hull of single candidates at its own cost, shape (b,)."""
    heights = [np.interp(cost[i], *hull(singles[0][i], singles[1][i])) for i in range(len(cost))]
    result: Vector = quality - np.array(heights)
    return result


def performance_gap_recovered(
    preference: Vector, weak: Vector, strong: Vector, weights: Weights, levels: tuple[float, ...] = (0.5, 0.8)
) -> tuple[Vector, dict[float, Vector]]:
    """Return APGR and CPT for two candidates.

    Parameters
    ----------
    preference : ndarray of shape (n,)
        The higher, the sooner the strong candidate is called.
    weak, strong : ndarray of shape (n,), in [0, 1]
        Quality of the two.
    weights : ndarray of shape (b, n)
    levels : tuple of float
        For CPT.

    Returns
    -------
    apgr : ndarray of shape (b,)
        Mean over the share of strong calls, from 0 to 1, of (quality − weak) / (strong − weak).
    cpt : dict of float to ndarray of shape (b,)
        Smallest share of strong calls that recovers this part of the gap; NaN where none does.
    """
    order = np.argsort(-preference, kind="stable")
    weights = weights[:, order]
    zero = np.zeros((len(weights), 1))
    calls = np.hstack([zero, np.cumsum(weights, axis=1)]) / weights.sum(axis=1, keepdims=True)
    gained = np.hstack([zero, np.cumsum(weights * (strong - weak)[order], axis=1)])
    with np.errstate(invalid="ignore", divide="ignore"):
        recovered = gained / gained[:, -1:]
    apgr: Vector = np.trapezoid(recovered, calls, axis=1)
    cpt = {}
    for level in levels:
        reached = recovered >= level
        first = calls[np.arange(len(calls)), reached.argmax(axis=1)]
        cpt[level] = np.where(reached.any(axis=1), first, np.nan)
    return apgr, cpt
