"""How far to trust an estimator's differences between candidates, and how far those of the topic.

Differences between candidates are what routing lives on, and are far smaller than the noise of one graded answer. An
estimator exaggerates them, the more the fewer its labels. So on rows that taught nothing the differences that happened
are regressed on those predicted and those of the topic, all candidates together::

    y_ij − y_i· ≈ own · (p_ij − p_i·) + topical · (t_ij − t_i·)

each column and row centred, with a Gaussian prior around one half for both, so that few rows say little (stacked
regression: Breiman 1996). Entry points: :func:`fit_blend` and :class:`TopicBlend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats
from training.topics import EDGE, REST, TopicModel, logit_of, topic_means

Matrix = NDArray[np.float64]

#: Of the two weights before any row is seen.
_PRIOR_WEIGHT, _PRIOR_SD = 0.5, 0.25
_LARGEST_OWN, _LARGEST_TOPICAL = 0.9, 1.5


@dataclass(frozen=True, slots=True, eq=False)
class TopicBlend:
    """Shrink differences between candidates towards those of the topic.

    Parameters
    ----------
    model : TopicModel
    means : ndarray of shape (K, m), float64, in (0, 1)
        Quality per topic and candidate.
    share : float in [0, 1]
        What is kept of the estimator's own differences; 1 ignores topics.
    anchors : ndarray of shape (m,), bool
        Candidates whose mean is the level that differences are measured from: those observed nearly everywhere.
    """

    model: TopicModel
    means: Matrix
    share: float
    anchors: NDArray[np.bool_]

    def apply(self, features: Floats, logits: Matrix) -> Matrix:
        """Return blended logits, shape (n, m): the mean over anchors stays the estimator's."""
        topical = logit_of(self.model.predict(features) @ self.means)
        own, other = self.mixing()
        return logits @ own + topical @ other

    def mixing(self) -> tuple[Matrix, Matrix]:
        """Return the two (m, m) matrices that blend the estimator's logits and the topic's."""
        average = np.repeat(self.anchors[:, None] / self.anchors.sum(), len(self.anchors), axis=1)
        identity = np.eye(len(self.anchors))
        own = self.share * identity + (1 - self.share) * average
        return own, (1 - self.share) * (identity - average)


def fit_blend(
    topics: tuple[TopicModel, Sequence[str]] | None,
    taught: tuple[Matrix, Matrix],
    features: Floats,
    logits: Matrix,
    quality: Matrix,
    anchors: NDArray[np.bool_],
    weights: tuple[Matrix, Matrix] | None = None,
) -> tuple[TopicBlend, dict[str, float]]:
    """Learn the two weights, and fold what they leave over into means that lean towards each candidate's own.

    Parameters
    ----------
    topics : (TopicModel, sequence of n str) or None
        And the topics of the training rows; None where the data tells none apart: then all rows are one topic.
    taught : tuple of two ndarray of shape (n, m)
        Logits and qualities of the training rows; NaN where unobserved.
    features : ndarray of shape (k, dim), float32
    logits, quality : ndarray of shape (k, m)
        Of rows that taught nothing; those where every anchor was observed count.
    anchors : ndarray of shape (m,), bool
        See :class:`TopicBlend`.
    weights : tuple of two ndarray of shapes (n, m) and (k, m), optional
        For how many outcomes each counts, of the training rows and of the others; default 1.

    Returns
    -------
    tuple of (TopicBlend, dict of str to float)
        The blend, and the weights ``own`` and ``topic`` for the report.
    """
    model, labels = topics or (_one_topic(features.shape[1]), [REST] * len(taught[1]))
    of_taught, of_others = weights or (None, None)
    means = topic_means(labels, model.labels, taught[1], _sigmoid(taught[0]), of_taught)
    topical = model.predict(features) @ means
    complete = np.isfinite(quality[:, anchors]).all(axis=1)
    counts = None if of_others is None else of_others[np.ix_(complete, anchors)].mean(axis=1)
    happened, predicted, usual = (
        _differences(values[np.ix_(complete, anchors)], counts).ravel()
        for values in (quality, _sigmoid(logits), topical)
    )
    each = None if counts is None else np.repeat(counts, int(anchors.sum()))
    own, other = _weights(np.column_stack([predicted, usual]), happened, each)
    overall = topical.mean(axis=0)
    leaning = np.clip(overall + other / (1 - own) * (means - overall), EDGE, 1 - EDGE)
    return TopicBlend(model, leaning, own, anchors), {"own": own, "topic": other}


def _weights(
    predictors: Matrix, happened: NDArray[np.float64], counts: NDArray[np.float64] | None
) -> tuple[float, float]:
    """Return the posterior mean of the two weights, within bounds."""
    prior = np.full(2, _PRIOR_WEIGHT)
    if not len(happened):
        return _PRIOR_WEIGHT, _PRIOR_WEIGHT
    noise = float(np.average((happened - predictors @ prior) ** 2, weights=counts))
    pull = max(noise, 1e-9) / _PRIOR_SD**2 * np.eye(2)
    weighed = predictors.T if counts is None else predictors.T * counts
    found = np.linalg.solve(weighed @ predictors + pull, weighed @ happened + pull @ prior)
    return float(np.clip(found[0], 0, _LARGEST_OWN)), float(np.clip(found[1], 0, _LARGEST_TOPICAL))


def _differences(values: Matrix, counts: NDArray[np.float64] | None) -> Matrix:
    """Centre columns, then rows: what is left when levels of candidates and of prompts are taken out."""
    if not len(values):
        return values
    values = values - np.average(values, axis=0, weights=counts)
    centred: Matrix = values - values.mean(axis=1, keepdims=True)
    return centred


def _one_topic(dim: int) -> TopicModel:
    return TopicModel((REST,), np.zeros((dim, 1), np.float32), np.zeros(1, np.float32))


def _sigmoid(logits: Matrix) -> Matrix:
    result: Matrix = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return result
