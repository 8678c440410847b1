"""Output tokens: how long each candidate's answer will be, in the mean and at the 90 % quantile.

A joint network learns log tokens; the mean is its exponential times a factor, and the quantile its exponential times
another, both taken from the calibration rows (the latter as split conformal prediction does, so it covers 90 % of new
answers). Entry point: :class:`TokenModel`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats
from training.estimators import network_of
from training.network import JointNetwork
from training.settings import HeadSettings

Matrix = NDArray[np.float64]
COVERAGE = 0.9
_HIDDEN, _N_NETS = 64, 2
#: exp of more than this is no token count.
LOG_LIMIT = 15.0


@dataclass(frozen=True, slots=True, eq=False)
class TokenModel:
    """The fitted predictor of output tokens.

    Parameters
    ----------
    network : JointNetwork or None
        One output per known candidate, log tokens; None where no candidate is known.
    known : ndarray of shape (m,), bool
        Candidates with token counts in the data.
    mean_factor, p90_factor : ndarray of shape (m,), float64
        1 for unknown candidates, whose predictions are 1 token and mean nothing.
    """

    network: JointNetwork | None
    known: NDArray[np.bool_]
    mean_factor: NDArray[np.float64]
    p90_factor: NDArray[np.float64]

    def log_tokens(self, features: Floats) -> Matrix:
        """Return the network's log tokens, shape (n, m); 0 for unknown candidates."""
        result = np.zeros((len(features), len(self.known)))
        if self.network is not None:
            result[:, self.known] = np.clip(self.network.decision_function(features), 0, LOG_LIMIT)
        return result

    def predict(self, features: Floats) -> tuple[Matrix, Matrix]:
        """Return mean and 90 % quantile, each of shape (n, m), at least 1."""
        base = np.exp(self.log_tokens(features))
        mean = np.maximum(base * self.mean_factor, 1)
        return mean, np.maximum(base * self.p90_factor, mean)


def fit_tokens(
    features: Floats, tokens: Matrix, settings: HeadSettings, seed: int, weights: Matrix | None = None
) -> TokenModel:
    """Fit the network on training rows; factors stay 1 until :func:`calibrate_tokens`.

    Parameters
    ----------
    features : ndarray of shape (n, d), float32
    tokens : ndarray of shape (n, m), float64
        NaN where unknown.
    settings : HeadSettings
    seed : int
    weights : ndarray of shape (n, m), optional
        For how many answers each counts, at least 0; default 1.

    Returns
    -------
    TokenModel
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(tokens).any(axis=0))
    ones = np.ones(tokens.shape[1])
    if not known.any():
        return TokenModel(None, known, ones, ones)
    small = replace(settings, hidden=_HIDDEN, n_nets=_N_NETS, dropout=0.1, feature_dropout=0.1)
    network = network_of(small, seed, n_logistic=0).fit(
        features, np.log(np.maximum(tokens[:, known], 1)), None if weights is None else weights[:, known]
    )
    return TokenModel(network, known, ones, ones)


def calibrate_tokens(model: TokenModel, features: Floats, tokens: Matrix, weights: Matrix | None = None) -> TokenModel:
    """Return the model with its two factors, from calibration rows; arguments as of :func:`fit_tokens`."""
    base = np.exp(model.log_tokens(features))
    mean, p90 = np.ones(len(model.known)), np.ones(len(model.known))
    for j in np.flatnonzero(model.known):
        observed = np.isfinite(tokens[:, j])
        true, predicted = np.maximum(tokens[observed, j], 1), base[observed, j]
        if not len(true):
            continue
        if weights is None:
            mean[j] = true.sum() / predicted.sum()
            rank = int(np.ceil(COVERAGE * (len(true) + 1)))
            p90[j] = np.sort(true / predicted)[min(rank, len(true)) - 1]
        elif (counts := weights[observed, j]).sum() > 0:
            mean[j] = (true * counts).sum() / (predicted * counts).sum()
            order = np.argsort(true / predicted, kind="stable")
            reached = np.cumsum(counts[order]) >= COVERAGE * (counts.sum() + counts.mean())
            p90[j] = (true / predicted)[order[int(reached.argmax()) if reached.any() else -1]]
    return TokenModel(model.network, model.known, mean, p90)
