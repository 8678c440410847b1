"""Place a new candidate among known ones from few labels: what is fitted when nothing is trained.

A bundle predicts m candidates; what their logits share says how hard a prompt is, and their deviations from it what
each is good at. The newcomer's logit is taken to be linear in both, and in the kinds of task the bundle tells apart::

    z = level + slope · difficulty + Σ_j weight_j · deviation_j + Σ_t strength_t · P(task t) + noise

with a Gaussian prior learned from how the known candidates, each seen from the others, behave in the same way: with a
handful of labels the newcomer is an average candidate of its own level, with hundreds also one with its own strengths.
What the known candidates did on the labelled prompts beyond expectation tells how lucky the labels were and is taken
out. Entry points: :func:`fit_quality` and :func:`fit_tokens`, which make a :class:`Placement` and :class:`Lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.tokens import COVERAGE, LOG_LIMIT

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

#: Qualities are clipped to this distance from 0 and 1 before their logit is taken.
EDGE = 0.01
#: Half-width of a 90 % interval, in standard deviations.
Z90 = 1.6448536269514722
#: Least standard deviations of a prior: what a handful of known candidates leave unsaid.
_LEAST_SD_LEVEL, _LEAST_SD_SLOPE, _LEAST_SD_OWN = 0.7, 0.2, 0.3
#: Of the variance that is a candidate's own, the part that a mix of the others' deviations is believed to show. The
#: interval allows for all of it nevertheless.
_SHARED = 0.5
#: How far a newcomer's strength on one kind of task may lie from what the known candidates suggest, in logits.
_SD_TASK = 0.3
#: Prior evidence that slopes are 1 and that luck is not shared, in sums of squares.
_DOUBT = 0.5
_N_STEPS, _N_NOISE_STEPS = 30, 3
_WORDY, _LEAST_NOISE = 5.0, 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """The newcomer's logit, Gaussian given the m known candidates' logits z.

    Parameters
    ----------
    bias : float
    weights : ndarray of shape (m + K,), float64
        The mean is ``bias + x @ weights``, where x is z and the probabilities of K tasks, side by side.
    root : ndarray of shape (1 + m + K, r), float64
        The variance of that mean is the sum of squares of ``[1, x] @ root``.
    own : float
        Variance of what is the newcomer's own and no label of another prompt tells.
    """

    bias: float
    weights: Vector
    root: Matrix
    own: float

    def quality(self, known: Matrix, tasks: Matrix) -> tuple[Vector, Vector, Vector]:
        """Return quality and the bounds of its 90 % interval, each of shape (n,).

        Quality is the mean over what the level and the weights may be, by the usual approximation.

        Parameters
        ----------
        known : ndarray of shape (n, m), float64
            Qualities of the known candidates.
        tasks : ndarray of shape (n, K), float64
            Probabilities of the tasks; K is 0 for a bundle that knows none.
        """
        x = np.hstack([logit(known), tasks])
        mean = self.bias + x @ self.weights
        variance = ((self.root[0] + x @ self.root[1:]) ** 2).sum(axis=1)
        expected = sigmoid(mean / np.sqrt(1 + np.pi / 8 * variance))
        half = Z90 * np.sqrt(variance + self.own)
        return expected, np.minimum(sigmoid(mean - half), expected), np.maximum(sigmoid(mean + half), expected)


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """The newcomer's output tokens given those of the m known candidates.

    Parameters
    ----------
    bias : float
    weights : ndarray of shape (m,), float64
        Log tokens are typically ``bias + log(tokens) @ weights``.
    mean_factor, p90_factor : float
        What makes of the typical number the mean and the 90 % quantile.
    """

    bias: float
    weights: Vector
    mean_factor: float
    p90_factor: float

    @classmethod
    def unknown(cls, m: int) -> Lengths:
        """Return what a bundle holds for a candidate of unknown lengths: 1 token always."""
        return cls(0.0, np.zeros(m), 1.0, 1.0)

    def tokens(self, known: Matrix) -> tuple[Vector, Vector]:
        """Return mean and 90 % quantile, each of shape (n,), at least 1, from known tokens of shape (n, m)."""
        base = np.exp(np.clip(self.bias + np.log(np.maximum(known, 1)) @ self.weights, 0, LOG_LIMIT))
        mean = np.maximum(base * self.mean_factor, 1)
        return mean, np.maximum(base * self.p90_factor, mean)


@dataclass(frozen=True, slots=True, eq=False)
class _Prior:
    """What is believed of a newcomer before any label: Gaussian weights of a basis, and the variance of its own."""

    centre: float
    mean: Vector
    variance: Vector
    own: float

    def basis(self, z: Matrix) -> Matrix:
        """Return 1, centred difficulty and deviations, shape (n, 2 + m), from z of shape (n, m)."""
        difficulty = z.mean(axis=1, keepdims=True)
        return np.hstack([np.ones_like(difficulty), difficulty - self.centre, z - difficulty])

    def with_tasks(self, n: int) -> _Prior:
        """Return the prior for a basis with n further columns, probabilities of tasks."""
        return replace(self, mean=np.pad(self.mean, (0, n)), variance=np.append(self.variance, [_SD_TASK**2] * n))

    def over_known(self, m: int) -> Matrix:
        """Return the matrix that takes weights of the basis to a bias and weights of z, and of what follows it."""
        n = len(self.mean)
        matrix = np.zeros((n - 1, n))
        matrix[0, :2] = 1, -self.centre
        matrix[1 : 1 + m, 1] = 1 / m
        matrix[1:, 2:] = np.eye(n - 2)
        matrix[1 : 1 + m, 2 : 2 + m] -= 1 / m
        return matrix


def fit_quality(known: Matrix, tasks: Matrix, labels: Vector, outcomes: Matrix) -> Placement:
    """Place the newcomer by its labels.

    Parameters
    ----------
    known : ndarray of shape (n, m), float64
        What the bundle predicts for its candidates: labelled rows, and others if there are any.
    tasks : ndarray of shape (n, K), float64
        What it says of the kind of task; K may be 0.
    labels : ndarray of shape (n,), float64, in [0, 1]
        Of the newcomer; NaN where there is none.
    outcomes : ndarray of shape (n, m), float64, in [0, 1]
        What the known candidates did; NaN where unobserved.

    Returns
    -------
    Placement
    """
    prior = _prior_of(logit(known)).with_tasks(tasks.shape[1])
    labelled = np.isfinite(labels)
    basis = np.hstack([prior.basis(logit(known[labelled])), tasks[labelled]])
    target = labels[labelled] - _luck(outcomes[labelled] - known[labelled])
    weights = prior.mean.copy()
    precision = np.diag(1 / prior.variance)
    # Newton's steps on a convex loss, shortened when long; the noise of a candidate's own is not part of the mean.
    for _ in range(_N_STEPS):
        p = sigmoid(basis @ weights)
        curvature = (basis * (p * (1 - p))[:, None]).T @ basis + precision
        step = np.linalg.solve(curvature, basis.T @ (target - p) - precision @ (weights - prior.mean))
        weights = weights + step * min(1.0, 1 / np.abs(step).max())
        if np.abs(step).max() < 1e-8:
            break
    over_known = prior.over_known(known.shape[1])
    bias, *raw = over_known @ weights
    values, vectors = np.linalg.eigh(over_known @ np.linalg.inv(curvature) @ over_known.T)
    return Placement(float(bias), np.array(raw), vectors * np.sqrt(np.maximum(values, 0)), prior.own)


def fit_tokens(known: Matrix, tokens: Vector) -> Lengths:
    """Place the newcomer by the lengths of its answers.

    Parameters
    ----------
    known : ndarray of shape (n, m), float64
        Predicted output tokens of the known candidates; 1 where the bundle does not know.
    tokens : ndarray of shape (n,), float64
        Of the newcomer, on the same rows; NaN where unknown, but not everywhere.

    Returns
    -------
    Lengths
    """
    told = np.flatnonzero((known > 1).any(axis=0))
    z = np.log(np.maximum(known[:, told], 1)) if len(told) else np.zeros((len(known), 1))
    prior = _prior_of(z)
    counted = np.isfinite(tokens)
    basis, target = prior.basis(z[counted]), np.log(np.maximum(tokens[counted], 1))
    start = basis @ prior.mean
    # A newcomer may be many times as wordy as any other: its level is for its answers alone to say.
    precision = np.diag(1 / np.concatenate([[_WORDY**2], prior.variance[1:]]))
    noise = max(float(np.var(target - start)), _LEAST_NOISE)
    for _ in range(_N_NOISE_STEPS):
        covariance = np.linalg.inv(basis.T @ basis / noise + precision)
        weights = prior.mean + covariance @ basis.T @ (target - start) / noise
        leverage = np.einsum("ij,jk,ik->i", basis, covariance, basis) / noise
        # What the residual would be had the row been left out.
        residual = (target - basis @ weights) / np.maximum(1 - leverage, 0.1)
        noise = max(float(np.mean(residual**2)), _LEAST_NOISE)
    ratio, typical = np.exp(residual), np.exp(target - residual)
    mean_factor = float((ratio * typical).sum() / typical.sum())
    rank = min(int(np.ceil(COVERAGE * (len(ratio) + 1))), len(ratio))
    bias, *over_told = prior.over_known(z.shape[1]) @ weights
    over_known = np.zeros(known.shape[1])
    over_known[told] = over_told[: len(told)]
    return Lengths(float(bias), over_known, mean_factor, max(float(np.sort(ratio)[rank - 1]), mean_factor))


def _prior_of(z: Matrix) -> _Prior:
    """See every known candidate from the others: how far its level lies, how steep it is, how much is its own."""
    n, m = z.shape
    levels = z.mean(axis=0)
    centred = z - levels
    slopes, own = np.ones(m), np.zeros(m)
    if m > 1 and n > 2:
        for j in range(m):
            others = np.delete(centred, j, axis=1).mean(axis=1)
            slopes[j] = (centred[:, j] @ others + _DOUBT) / (others @ others + _DOUBT)
            own[j] = np.mean((centred[:, j] - slopes[j] * others) ** 2)
    total = max(float(own.mean()), _LEAST_SD_OWN**2)
    deviations = float(((centred - centred.mean(axis=1, keepdims=True)) ** 2).mean(axis=0).sum())
    shared = _SHARED * total / max(deviations, total)
    spread = float(levels.var(ddof=1)) if m > 1 else 1.0
    variance = np.full(2 + m, shared)
    variance[0] = max(spread, _LEAST_SD_LEVEL**2)
    variance[1] = max(float(slopes.var()), _LEAST_SD_SLOPE**2)
    mean = np.concatenate([[levels.mean(), slopes.mean()], np.zeros(m)])
    return _Prior(float(levels.mean()), mean, variance, total)


def _luck(residual: Matrix) -> Vector:
    """Return by how much each row went better than expected for everyone, as far as that concerns a newcomer.

    Each known candidate's residual is regressed on the mean of the others'; the slope, one for all, is applied to the
    mean of all. It vanishes on average, so taking it out of labels removes noise and no signal.
    """
    observed = np.isfinite(residual)
    filled, n = np.where(observed, residual, 0.0), observed.sum(axis=1, keepdims=True)
    total = filled.sum(axis=1, keepdims=True)
    others = np.where(observed & (n > 1), total - filled, 0.0) / np.maximum(n - 1, 1)
    slope = (filled * others).sum() / ((others**2).sum() + _DOUBT * residual.shape[1])
    luck: Vector = max(float(slope), 0.0) * (total / np.maximum(n, 1))[:, 0]
    return luck


def logit(quality: Matrix) -> Matrix:
    """Return log-odds of qualities, which are first kept :data:`EDGE` away from 0 and 1."""
    clipped = np.clip(quality, EDGE, 1 - EDGE)
    result: Matrix = np.log(clipped) - np.log1p(-clipped)
    return result


def sigmoid(z: Vector) -> Vector:
    """Return the logistic function."""
    result: Vector = 1 / (1 + np.exp(-np.clip(z, -40, 40)))
    return result
