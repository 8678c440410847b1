"""Quality estimators: features in, one logit per candidate out; NaN in the labels means unobserved.

The contract is scikit-learn's (``fit``, ``decision_function``); columns are candidates, and a quality may lie anywhere
in [0, 1]. ``mlp`` learns all candidates jointly, so that one with few labels leans on the others; the other kinds are
one scikit-learn estimator per candidate, fitted on the rows where it was observed. :data:`KINDS` is the table of
them; which one is used is chosen on validation rows by :mod:`training.fitting`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from router.domain import Floats
from training.network import JointNetwork
from training.settings import HeadSettings
from training.topics import logit_of

Matrix = NDArray[np.float64]
_SMALLEST_GAIN = 2  # labels of either side that a classifier needs; with fewer the mean is all there is to say


class QualityEstimator(Protocol):
    """What every kind is."""

    def fit(self, X: Floats, y: Matrix, side: Floats | None = None) -> QualityEstimator:
        """Fit on (n, d) features and (n, m) qualities; ``side`` (n, k) holds further targets to learn from."""

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""


class JointQuality(BaseEstimator):  # type: ignore[misc]
    """The joint network over all candidates, which also learns the topic as a side task.

    Parameters
    ----------
    settings : HeadSettings
    seed : int, default=0

    Attributes
    ----------
    network_ : JointNetwork
    n_candidates_ : int
        Its first outputs; the side task's come after and are not used for prediction.
    """

    def __init__(self, settings: HeadSettings, *, seed: int = 0) -> None:
        self.settings = settings
        self.seed = seed

    def fit(self, X: Floats, y: Matrix, side: Floats | None = None) -> JointQuality:
        """Fit; see :class:`QualityEstimator`."""
        self.n_candidates_ = y.shape[1]
        targets = y if side is None else np.hstack([y, side])
        self.network_ = network_of(self.settings, "log", self.seed).fit(X, targets)
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        logits: Matrix = self.network_.decision_function(X)[:, : self.n_candidates_]
        return logits


def network_of(settings: HeadSettings, loss: str, seed: int) -> JointNetwork:
    """Make an unfitted network with these settings."""
    return JointNetwork(
        loss=loss,
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


class PerCandidate(BaseEstimator):  # type: ignore[misc]
    """One scikit-learn estimator per candidate.

    Parameters
    ----------
    prototype : estimator
        A classifier (fitted on labels weighted by quality and 1 − quality) or a regressor.

    Attributes
    ----------
    members_ : list of (estimator or float)
        A float where the labels say nothing but their mean, as a logit.
    """

    def __init__(self, prototype: BaseEstimator) -> None:
        self.prototype = prototype

    def fit(self, X: Floats, y: Matrix, side: Floats | None = None) -> PerCandidate:
        """Fit; ``side`` is not used. See :class:`QualityEstimator`."""
        self.members_ = [self._fit_column(X, y[:, j]) for j in range(y.shape[1])]
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        return np.column_stack([self._logits(member, X) for member in self.members_])

    def _fit_column(self, X: Floats, quality: NDArray[np.float64]) -> Any:
        from sklearn.base import clone, is_classifier

        observed = ~np.isnan(quality)
        X, quality = X[observed], quality[observed]
        least = min(quality.sum(), (1 - quality).sum()) if len(quality) else 0
        if least < _SMALLEST_GAIN:
            return float(logit_of(np.array([quality.mean() if len(quality) else 0.5]))[0])
        if not is_classifier(self.prototype):
            return clone(self.prototype).fit(X, quality)
        # A graded label counts as both answers, each with its share.
        positive, negative = quality > 0, quality < 1
        return clone(self.prototype).fit(
            np.vstack([X[positive], X[negative]]),
            np.concatenate([np.ones(positive.sum(), int), np.zeros(negative.sum(), int)]),
            sample_weight=np.concatenate([quality[positive], 1 - quality[negative]]),
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

    def fit(self, X: Floats, y: Matrix, side: Floats | None = None) -> Average:
        """Fit every member again; see :class:`QualityEstimator`."""
        for member in self.members:
            member.fit(X, y, side)
        return self

    def decision_function(self, X: Floats) -> Matrix:
        """Return logits, shape (n, m)."""
        logits: Matrix = np.mean([member.decision_function(X) for member in self.members], axis=0)
        return logits


KINDS: Mapping[str, Callable[[HeadSettings, int], QualityEstimator]] = {
    "mlp": lambda settings, seed: JointQuality(settings, seed=seed),
    "logistic": lambda settings, seed: PerCandidate(LogisticRegression(C=0.02, max_iter=300, tol=1e-3)),
    "ridge": lambda settings, seed: PerCandidate(Ridge(alpha=300.0)),
    "boosting": lambda settings, seed: PerCandidate(
        HistGradientBoostingClassifier(
            max_iter=120,
            learning_rate=0.05,
            max_leaf_nodes=12,
            min_samples_leaf=40,
            l2_regularization=5.0,
            max_features=0.3,
            random_state=seed,
        )
    ),
}
