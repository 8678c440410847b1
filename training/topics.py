"""Topics: which kinds of question there are, and how good each candidate is at each.

The differences between candidates are far smaller than the noise of one graded answer; averaged over a topic they
show. So the data's ``task`` column (where there is one) teaches a classifier, and each candidate's mean quality per
topic is what its difference from the other candidates is shrunk towards (:mod:`training.blend`). Entry points:
:func:`topics_of`, :class:`TopicModel`, :func:`topic_means`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from router.domain import Floats

REST = "rest"
_PRIOR_PROMPTS = 20.0
#: Qualities this near 0 or 1 are not told apart when turned into logits.
EDGE = 1e-3


def topics_of(tasks: Sequence[str], min_prompts: int) -> tuple[str, ...] | None:
    """Merge tasks that are too small to learn anything from.

    Parameters
    ----------
    tasks : sequence of n str
        ``"a/b"`` is a part of ``"a"``.
    min_prompts : int
        A smaller task becomes its parent; what is still smaller becomes the rest.

    Returns
    -------
    tuple of n str, or None
        None where fewer than two topics remain.
    """
    topics = list(tasks)
    while True:
        sizes = Counter(topics)
        merged = [topic if sizes[topic] >= min_prompts else (topic.rpartition("/")[0] or REST) for topic in topics]
        if merged == topics:
            break
        topics = merged
    return tuple(topics) if len(set(topics)) > 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class TopicModel:
    """A linear classifier on features.

    Parameters
    ----------
    labels : tuple of K str
    weights : ndarray of shape (dim, K), float32
    bias : ndarray of shape (K,), float32
    """

    labels: tuple[str, ...]
    weights: Floats
    bias: Floats

    def predict(self, features: Floats) -> NDArray[np.float64]:
        """Return topic probabilities, shape (n, K)."""
        logits = (features @ self.weights + self.bias).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return result

    def widened(self, dim: int) -> TopicModel:
        """Return the model for feature rows with further columns, which it does not read."""
        more = np.zeros((dim - self.weights.shape[0], self.weights.shape[1]), np.float32)
        return TopicModel(self.labels, np.vstack([self.weights, more]), self.bias)


def fit_topics(features: Floats, topics: Sequence[str]) -> TopicModel:
    """Fit the classifier on dense features, for encoders without topic columns of their own."""
    model = LogisticRegression(C=0.02, max_iter=100, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, np.asarray(topics))
    coefficients, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn then keeps one row: the logit of the second class
        coefficients, bias = np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    labels = tuple(str(label) for label in model.classes_)
    return TopicModel(labels, coefficients.T.astype(np.float32), bias.astype(np.float32))


def topic_means(
    topics: Sequence[str],
    labels: Sequence[str],
    quality: NDArray[np.float64],
    predicted: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the mean quality per topic and candidate.

    Parameters
    ----------
    topics : sequence of n str
    labels : sequence of K str
    quality : ndarray of shape (n, m), in [0, 1]
        NaN where unobserved.
    predicted : ndarray of shape (n, m), in [0, 1]
        What an estimator says of the same rows; its mean is the prior where few outcomes were observed.
    weights : ndarray of shape (n, m), optional
        For how many outcomes each counts, at least 0; default 1.

    Returns
    -------
    ndarray of shape (K, m), float64, in [EDGE, 1 - EDGE]
    """
    member = (np.asarray(topics)[None, :] == np.asarray(labels)[:, None]).astype(np.float64)
    observed = ~np.isnan(quality)
    counts = observed.astype(np.float64) if weights is None else np.where(observed, weights, 0.0)
    prior = (member @ predicted) / np.maximum(member.sum(axis=1, keepdims=True), 1)
    total = member @ (np.where(observed, quality, 0.0) * counts) + _PRIOR_PROMPTS * prior
    means: NDArray[np.float64] = np.clip(total / (member @ counts + _PRIOR_PROMPTS), EDGE, 1 - EDGE)
    return means


def logit_of(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln(p / (1 - p)), with p kept within [EDGE, 1 - EDGE]."""
    clipped = np.clip(probability, EDGE, 1 - EDGE)
    result: NDArray[np.float64] = np.log(clipped) - np.log1p(-clipped)
    return result
