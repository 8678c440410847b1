"""What another policy would have achieved, from the log of the one that ran: off-policy evaluation.

Requests are weighted by how much likelier the target policy makes what was chosen than the logged policy did. That
says something only where the logged policy ever does what the target does; where it does not, this module refuses
with the numbers (:class:`training.errors.NoOverlap`) instead of answering from nothing. Intervals are normal, of the
estimators' influence functions summed over clusters. Pure arrays; knows no log and no policy.

Entry points: :func:`evaluate`, :func:`overlap`, :func:`estimate`.

References
----------
.. [1] Horvitz, Thompson, "A generalization of sampling without replacement", JASA 47 (1952): ``ips``.
.. [2] Swaminathan, Joachims, "The self-normalized estimator for counterfactual learning", NIPS 2015: ``snips``.
.. [3] Dudík, Langford, Li, "Doubly robust policy evaluation and learning", ICML 2011: ``dr``.
.. [4] Owen, "Monte Carlo theory, methods and examples", 2013, section 9.3: effective sample size and mean weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from training.errors import NoOverlap, NotEnoughData

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Choices = NDArray[np.intp]

LEVEL = 0.95
#: Of the bound on support: a log with full overlap must not be refused by chance, since that would spoil the estimates
#: of those that are not.
_SUPPORT_LEVEL = 0.999
#: Fewer requests' worth of evidence than this is none.
LEAST_EFFECTIVE = 50.0
#: Of what the target policy does, the logged one must do at least this share now and then.
LEAST_SUPPORT = 0.95
_LEAST_CLUSTERS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """What was logged of n requests, of m candidates.

    Parameters
    ----------
    chosen : ndarray of shape (n,), intp
        Column of who was chosen.
    propensity : ndarray of shape (n,), in (0, 1]
        Probability with which the logged policy chose it.
    reward : ndarray of shape (n,)
        What came of it: a score, a cost; never NaN.
    predicted : ndarray of shape (n, m), optional
        A model of the reward, of every candidate; NaN where it says nothing. It must not have learned from these
        rewards. With it the estimators ``dr`` and ``model`` are had too.
    clusters : ndarray of shape (n,), optional
        Requests of one cluster are not independent. Default: each is.
    """

    chosen: Choices
    propensity: Vector
    reward: Vector
    predicted: Matrix | None = None
    clusters: NDArray[np.generic] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its standard error and the bounds of its 95 % interval."""

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of a target policy a log can speak of.

    Parameters
    ----------
    n : int
        Requests.
    matched_share : float in [0, 1]
        Of them, with a choice that the target might make.
    support : float
        Mean weight: estimates the share of what the target does that the logged policy may do too; about 1 with full
        overlap ([4]_).
    support_high : float
        Upper bound of its 99.9 % interval.
    effective : float
        Effective sample size (Σw)² / Σw², at most n.
    largest_share : float in [0, 1]
        Of all weight, that of the heaviest request.
    """

    n: int
    matched_share: float
    support: float
    support_high: float
    effective: float
    largest_share: float

    @property
    def problem(self) -> str | None:
        """What is wrong with it, with the numbers; None where it is enough."""
        if self.effective < LEAST_EFFECTIVE:
            return (
                f"{self.matched_share:.1%} of {self.n:,} logged choices are ones that the target policy might make, "
                f"worth {self.effective:.0f} requests; expected at least {LEAST_EFFECTIVE:.0f}"
            )
        if self.support_high < LEAST_SUPPORT:
            return (
                f"the logged policy ever makes only {self.support:.0%} of the target policy's choices (at most "
                f"{self.support_high:.0%}); expected {LEAST_SUPPORT:.0%}"
            )
        return None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a target policy would have achieved.

    Parameters
    ----------
    overlap : Overlap
    logged : Estimate
        The mean reward of what was done.
    estimates : Mapping of str to Estimate
        ``ips``, ``snips``; with a model also ``dr``, and ``model``: what the model alone says, with the interval of
        its mean over requests, which knows nothing of the model's own error.
    changes : Mapping of str to Estimate
        The same minus ``logged``, on the same requests.
    """

    overlap: Overlap
    logged: Estimate
    estimates: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]


def evaluate(log: Logged, target: Matrix | Choices) -> Evaluation:
    """Evaluate a policy that did not run.

    Parameters
    ----------
    log : Logged
    target : ndarray of shape (n, m), float64, or of shape (n,), intp
        The target policy's probabilities, each row with sum 1; or its choices.

    Returns
    -------
    Evaluation

    Raises
    ------
    NoOverlap
        The log says nothing of this policy; names the numbers.
    NotEnoughData
        Fewer than ten clusters, or arrays that cannot be; names the field.
    """
    probabilities = _probabilities(log, target)
    weight = _weight(log, probabilities)
    clusters = _numbered(log)
    seen = _overlap(weight, clusters)
    if seen.problem is not None:
        raise NoOverlap(f"the log cannot say what this policy would do: {seen.problem}")
    reward = log.reward.astype(np.float64)
    values = {"ips": weight * reward}
    influence = dict(values)
    ratio = float((weight * reward).sum() / weight.sum())
    values["snips"] = np.full(len(reward), ratio)
    influence["snips"] = weight * (reward - ratio) / weight.mean() + ratio
    if log.predicted is not None:
        expected, own = _predicted(log, probabilities)
        values["model"] = influence["model"] = expected
        values["dr"] = influence["dr"] = expected + weight * (reward - own)
    logged = estimate(float(reward.mean()), reward, clusters)
    estimates = {name: estimate(float(v.mean()), influence[name], clusters) for name, v in values.items()}
    changes = {
        name: estimate(float(v.mean() - reward.mean()), influence[name] - reward, clusters)
        for name, v in values.items()
    }
    return Evaluation(seen, logged, estimates, changes)


def overlap(log: Logged, target: Matrix | Choices) -> Overlap:
    """Say how much of a policy a log can speak of; parameters and errors as of :func:`evaluate`, but NoOverlap."""
    return _overlap(_weight(log, _probabilities(log, target)), _numbered(log))


def _probabilities(log: Logged, target: Matrix | Choices) -> Matrix:
    n = len(log.reward)
    if len(log.chosen) != n or len(log.propensity) != n or len(target) != n:
        raise NotEnoughData(
            f"chosen, propensity, reward and target must have the same length, got {len(log.chosen)}, "
            f"{len(log.propensity)}, {n} and {len(target)}"
        )
    if n and not ((log.propensity > 0) & (log.propensity <= 1)).all():
        worst = log.propensity[~((log.propensity > 0) & (log.propensity <= 1))][0]
        raise NotEnoughData(f"propensity must be in (0, 1], got {worst}")
    if not np.isfinite(log.reward).all():
        raise NotEnoughData("reward must be a number for each request; leave out those without one")
    if target.ndim == 2:
        if not (np.isfinite(target).all() and (target >= 0).all() and np.allclose(target.sum(axis=1), 1)):
            raise NotEnoughData("target must be probabilities, each row with sum 1")
        return target.astype(np.float64)
    widest = int(max(target.max(initial=0), log.chosen.max(initial=0))) + 1
    if log.predicted is not None and log.predicted.shape != (n, max(widest, log.predicted.shape[1])):
        raise NotEnoughData(f"predicted must have {n} rows and at least {widest} columns, got {log.predicted.shape}")
    probabilities = np.zeros((n, widest if log.predicted is None else log.predicted.shape[1]))
    probabilities[np.arange(n), target] = 1.0
    return probabilities


def _weight(log: Logged, probabilities: Matrix) -> Vector:
    weight: Vector = probabilities[np.arange(len(log.chosen)), log.chosen] / log.propensity
    return weight


def _predicted(log: Logged, probabilities: Matrix) -> tuple[Vector, Vector]:
    """Return what the model expects of the target policy, and of what was chosen, each of shape (n,)."""
    predicted = np.asarray(log.predicted, dtype=np.float64)
    # Where the model says nothing of a candidate, the log's mean stands in: any guess leaves ``dr`` unbiased.
    predicted = np.where(np.isfinite(predicted), predicted, log.reward.mean())
    every = np.arange(len(log.chosen))
    return (probabilities * predicted).sum(axis=1), predicted[every, log.chosen]


def _numbered(log: Logged) -> Choices:
    n = len(log.reward)
    if log.clusters is None:
        numbered: Choices = np.arange(n)
    else:
        numbered = np.unique(log.clusters, return_inverse=True)[1]
    if not n or int(numbered.max()) + 1 < _LEAST_CLUSTERS:
        n_clusters = int(numbered.max()) + 1 if n else 0
        raise NotEnoughData(f"{n_clusters} independent clusters of requests; expected at least {_LEAST_CLUSTERS}")
    return numbered


def _overlap(weight: Vector, clusters: Choices) -> Overlap:
    total, squares = float(weight.sum()), float((weight**2).sum())
    support = estimate(float(weight.mean()), weight, clusters, _SUPPORT_LEVEL)
    return Overlap(
        n=len(weight),
        matched_share=float((weight > 0).mean()),
        support=support.value,
        support_high=support.high,
        effective=total**2 / squares if squares else 0.0,
        largest_share=float(weight.max()) / total if total else 0.0,
    )


def estimate(value: float, influence: Vector, clusters: Choices, level: float = LEVEL) -> Estimate:
    """Bound a mean whose rows' contributions are known.

    Parameters
    ----------
    value : float
    influence : ndarray of shape (n,)
        Each row's part; their mean is taken out.
    clusters : ndarray of shape (n,), intp
        Numbers from 0; rows of one move together.
    level : float in (0, 1), default=0.95

    Returns
    -------
    Estimate
        With Student's quantile, of one degree less than there are clusters.
    """
    n = len(influence)
    sums = np.bincount(clusters, influence - influence.mean())
    k = len(sums)
    error = float(np.sqrt(k / (k - 1) * (sums**2).sum()) / n)
    half = float(t.ppf((1 + level) / 2, k - 1)) * error
    return Estimate(value, error, value - half, value + half)
