"""Quality estimators: features in, one logit per candidate out; NaN in the labels means unobserved.

The contract is scikit-learn's (``fit``, ``decision_function``); columns are candidates, and a quality may lie anywhere
in [0, 1]. ``mlp`` and ``forest`` learn all candidates jointly, so that one with few labels leans on the others; the
other kinds are one scikit-learn estimator per candidate, fitted on the rows where it was observed. :data:`KINDS` is the
table of them, :mod:`training.fitting` averages or chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from router.domain import Floats
from training.fitted_encoder import FittedEncoder
from training.forest import JointForest
from training.network import JointNetwork
from training.settings import ForestSettings, HeadSettings, Settings
from training.topics import TopicModel, logit_of

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Columns = NDArray[np.intp]
_TOKENS_WEIGHT = 0.1  # of the side task beside quality
_LEAST_COUNT = 1e-9
_SMALLEST_GAIN = 2  # labels of either side that a classifier needs; with fewer the mean is all there is to say


class QualityEstimator(Protocol):
    """What every kind is."""

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> QualityEstimator:
        """Fit on (n, dim) feature rows of the encoder and (n, m) qualities.

        ``weights`` of shape (n, m), at least 0, say for how many outcomes each counts; None is 1 each.
        """

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""


@dataclass(frozen=True, slots=True, eq=False)
class Hints:
    """What else is known of the training rows; learning it on the side makes better features.

    Parameters
    ----------
    topics : ndarray of shape (n, K) or None
        One where the row is of the topic.
    log_tokens : ndarray of shape (n, m) or None
        Logarithm of the answers' tokens, standardised; NaN where unknown.
    """

    topics: Floats | None = None
    log_tokens: Floats | None = None


class JointQuality(BaseEstimator):  # type: ignore[misc]
    """The joint network over all candidates, with topic and output tokens as side tasks.

    Parameters
    ----------
    settings : HeadSettings
    columns : ndarray of shape (c,), intp
        What it reads of a feature row.
    seed : int, default=0

    Attributes
    ----------
    network_ : JointNetwork
    n_candidates_ : int
        Its first outputs; the side tasks' come after and are not used for prediction.
    """

    def __init__(self, settings: HeadSettings, columns: Columns, *, seed: int = 0) -> None:
        self.settings = settings
        self.columns = columns
        self.seed = seed

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> JointQuality:
        """Fit; see :class:`QualityEstimator`."""
        hints = hints or Hints()
        self.n_candidates_ = y.shape[1]
        targets = y if hints.topics is None else np.hstack([y, hints.topics])
        network = network_of(self.settings, self.seed, n_logistic=targets.shape[1], squared_weight=_TOKENS_WEIGHT)
        if hints.log_tokens is not None:
            targets = np.hstack([targets, hints.log_tokens])
        wider = None
        if weights is not None:  # what is learned on the side counts once a row
            wider = np.ones(targets.shape)
            wider[:, : self.n_candidates_] = weights
        self.network_ = network.fit(X[:, self.columns], targets, wider)
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        logits: Matrix = self.network_.decision_function(X[:, self.columns])[:, : self.n_candidates_]
        return logits


def network_of(
    settings: HeadSettings, seed: int, *, n_logistic: int | None = None, squared_weight: float = 1.0
) -> JointNetwork:
    """Make an unfitted network with these settings."""
    return JointNetwork(
        n_logistic=n_logistic,
        squared_weight=squared_weight,
        hidden=settings.hidden,
        n_nets=settings.n_nets,
        epochs=settings.epochs,
        min_steps=settings.min_steps,
        batch=settings.batch,
        dropout=settings.dropout,
        feature_dropout=settings.feature_dropout,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=seed,
    )


class ForestQuality(BaseEstimator):  # type: ignore[misc]
    """Randomised trees over all candidates, which read topic probabilities beside the features.

    The topic model has seen the training rows, so its probabilities are surer there than elsewhere; out-of-fold
    probabilities make worse trees all the same (notebooks/LOG.md).

    Parameters
    ----------
    settings : ForestSettings
    columns : ndarray of shape (c,), intp
        What it reads of a feature row.
    topics : TopicModel or None
    seed : int, default=0

    Attributes
    ----------
    forest_ : JointForest
    """

    def __init__(
        self, settings: ForestSettings, columns: Columns, topics: TopicModel | None = None, *, seed: int = 0
    ) -> None:
        self.settings = settings
        self.columns = columns
        self.topics = topics
        self.seed = seed

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> ForestQuality:
        """Fit; where a candidate was not observed, its mean in the row's topic shapes the trees."""
        guess = None
        if hints is not None and hints.topics is not None:
            observed = ~np.isnan(y)
            counts = observed.astype(np.float64) if weights is None else np.where(observed, weights, 0.0)
            total = np.where(observed, y, 0.0) * counts
            overall = total.sum(axis=0) / np.maximum(counts.sum(axis=0), _LEAST_COUNT)
            guess = hints.topics @ ((hints.topics.T @ total + overall) / (hints.topics.T @ counts + 1))
        self.forest_ = JointForest(self.settings, seed=self.seed).fit(self.inputs(X), y, guess, weights)
        return self

    def inputs(self, X: Floats) -> Floats:
        """Return what the trees read, shape (n, c + K), float32."""
        parts = [X[:, self.columns]]
        if self.topics is not None:
            parts.append(self.topics.predict(X).astype(np.float32))
        return np.hstack(parts)

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        return logit_of(self.forest_.predict(self.inputs(X)))


class HeadsQuality(BaseEstimator):  # type: ignore[misc]
    """What a fine-tuned encoder says itself: there is nothing left to fit.

    Parameters
    ----------
    columns : ndarray of shape (m,), intp
        Feature columns that are logits.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> HeadsQuality:
        """Do nothing; see :class:`QualityEstimator`."""
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        return X[:, self.columns].astype(np.float64)


class PerCandidate(BaseEstimator):  # type: ignore[misc]
    """One scikit-learn estimator per candidate.

    Parameters
    ----------
    prototype : estimator
        A classifier (fitted on labels weighted by quality and 1 − quality) or a regressor.
    columns : ndarray of shape (c,), intp
        What it reads of a feature row.

    Attributes
    ----------
    members_ : list of (estimator or float)
        A float where the labels say nothing but their mean, as a logit.
    """

    def __init__(self, prototype: BaseEstimator, columns: Columns) -> None:
        self.prototype = prototype
        self.columns = columns

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> PerCandidate:
        """Fit; ``hints`` are not used. See :class:`QualityEstimator`."""
        read = X[:, self.columns]
        counts = [None] * y.shape[1] if weights is None else list(weights.T)
        self.members_ = [self._fit_column(read, y[:, j], counts[j]) for j in range(y.shape[1])]
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        read = X[:, self.columns]
        return np.column_stack([self._logits(member, read) for member in self.members_])

    def _fit_column(self, X: Floats, quality: Vector, counts: Vector | None) -> Any:
        from sklearn.base import clone, is_classifier

        observed = ~np.isnan(quality)
        X, quality = X[observed], quality[observed]
        counts = None if counts is None else counts[observed]
        once = np.ones(len(quality)) if counts is None else counts
        least = min((quality * once).sum(), ((1 - quality) * once).sum()) if len(quality) else 0
        if least < _SMALLEST_GAIN:
            mean = np.average(quality, weights=counts) if once.sum() > 0 else 0.5
            return float(logit_of(np.array([mean]))[0])
        if not is_classifier(self.prototype):
            return clone(self.prototype).fit(X, quality, sample_weight=counts)
        # A graded label counts as both answers, each with its share.
        positive, negative = quality > 0, quality < 1
        return clone(self.prototype).fit(
            np.vstack([X[positive], X[negative]]),
            np.concatenate([np.ones(positive.sum(), int), np.zeros(negative.sum(), int)]),
            sample_weight=np.concatenate([(quality * once)[positive], ((1 - quality) * once)[negative]]),
        )

    def _logits(self, member: Any, X: Floats) -> NDArray[np.float64]:
        from sklearn.base import is_classifier

        if isinstance(member, float):
            return np.full(len(X), member)
        if isinstance(member, LogisticRegression):
            return np.asarray(member.decision_function(X), np.float64)
        return logit_of(member.predict_proba(X)[:, 1] if is_classifier(member) else member.predict(X))


class Average(BaseEstimator):  # type: ignore[misc]
    """The mean logit of fitted estimators.

    Parameters
    ----------
    members : list of QualityEstimator
        Already fitted.
    """

    def __init__(self, members: list[QualityEstimator]) -> None:
        self.members = members

    def fit(self, X: Floats, y: Matrix, hints: Hints | None = None, weights: Matrix | None = None) -> Average:
        """Fit every member again; see :class:`QualityEstimator`."""
        for member in self.members:
            member.fit(X, y, hints, weights)
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        logits: Matrix = np.mean([member.decision_function(X) for member in self.members], axis=0)
        return logits


KINDS: Mapping[str, Callable[[Settings, FittedEncoder], QualityEstimator]] = {
    "mlp": lambda settings, encoder: JointQuality(settings.heads, encoder.columns, seed=settings.seed),
    "forest": lambda settings, encoder: ForestQuality(
        settings.forest, encoder.columns, encoder.topics, seed=settings.seed
    ),
    "heads": lambda settings, encoder: HeadsQuality(np.arange(0) if encoder.heads is None else encoder.heads),
    "logistic": lambda settings, encoder: PerCandidate(
        LogisticRegression(C=0.02, max_iter=300, tol=1e-3), encoder.columns
    ),
    "ridge": lambda settings, encoder: PerCandidate(Ridge(alpha=300.0), encoder.columns),
    "boosting": lambda settings, encoder: PerCandidate(
        HistGradientBoostingClassifier(
            max_iter=120,
            learning_rate=0.05,
            max_leaf_nodes=12,
            min_samples_leaf=40,
            l2_regularization=5.0,
            max_features=0.3,
            random_state=settings.seed,
        ),
        encoder.columns,
    ),
}
