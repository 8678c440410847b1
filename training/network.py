"""A small network for many targets of which any may be missing.

One hidden layer, several targets, a loss that skips what was not observed, AdamW, dropout, a cosine learning rate, and
several networks averaged. scikit-learn's own takes no missing target and no target strictly between 0 and 1; the
contract here is scikit-learn's. No GPU, no autograd: one hundred lines of numpy. Entry point: :class:`JointNetwork`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from router.domain import Floats

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_EXPONENT_LIMIT = 30.0


class Layers(NamedTuple):
    """Weights of one network: features → hidden → targets."""

    hidden_weights: Floats
    hidden_bias: Floats
    weights: Floats
    bias: Floats


class JointNetwork(BaseEstimator):  # type: ignore[misc]
    """Average of small networks with one output per target.

    Parameters
    ----------
    n_logistic : int or None, default=None
        The first so many targets lie in [0, 1] and are learned by log loss, their outputs being logits; the others are
        any numbers, learned by squared loss. None: all are logistic.
    squared_weight : float, default=1.0
        Of the squared loss beside the other.
    hidden, n_nets, epochs, min_steps, batch : int
        See :class:`training.settings.HeadSettings`.
    dropout, feature_dropout : float in [0, 1)
    learning_rate, weight_decay : float
    seed : int, default=0

    Attributes
    ----------
    layers_ : list of Layers
    """

    def __init__(
        self,
        *,
        n_logistic: int | None = None,
        squared_weight: float = 1.0,
        hidden: int = 192,
        n_nets: int = 4,
        epochs: int = 30,
        min_steps: int = 600,
        batch: int = 256,
        dropout: float = 0.4,
        feature_dropout: float = 0.25,
        learning_rate: float = 0.002,
        weight_decay: float = 0.03,
        seed: int = 0,
    ) -> None:
        self.n_logistic = n_logistic
        self.squared_weight = squared_weight
        self.hidden = hidden
        self.n_nets = n_nets
        self.epochs = epochs
        self.min_steps = min_steps
        self.batch = batch
        self.dropout = dropout
        self.feature_dropout = feature_dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed

    def fit(
        self, X: Floats, y: NDArray[np.floating[Any]], weights: NDArray[np.floating[Any]] | None = None
    ) -> JointNetwork:
        """Fit.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32
        y : ndarray of shape (n, t)
            NaN where unobserved.
        weights : ndarray of shape (n, t), optional
            Of each target in the loss, at least 0; default 1.

        Returns
        -------
        JointNetwork
            Itself.
        """
        observed = ~np.isnan(y)
        target = np.where(observed, y, 0.0).astype(np.float32)
        weight = observed.astype(np.float32)
        if weights is not None:
            weight *= np.asarray(weights, np.float32)
        X = np.ascontiguousarray(X, np.float32)
        self.layers_ = [
            self._fit_one(X, target, weight, np.random.default_rng([self.seed, i])) for i in range(self.n_nets)
        ]
        return self

    def decision_function(self, X: Floats) -> NDArray[np.float64]:
        """Return the mean raw output of the networks, shape (n, t): logits of the logistic targets."""
        total = np.zeros((len(X), self.layers_[0].bias.shape[0]))
        for net in self.layers_:
            total += np.maximum(X @ net.hidden_weights + net.hidden_bias, 0) @ net.weights + net.bias
        result: NDArray[np.float64] = total / len(self.layers_)
        return result

    def _n_logistic(self, n_targets: int) -> int:
        return n_targets if self.n_logistic is None else self.n_logistic

    def _fit_one(self, X: Floats, target: Floats, weight: Floats, rng: np.random.Generator) -> Layers:
        n = len(target)
        parameters = self._start(X.shape[1], target, weight, rng)
        weight = weight.copy()
        weight[:, self._n_logistic(target.shape[1]) :] *= self.squared_weight
        steps_per_epoch = -(-n // self.batch)
        epochs = max(self.epochs, -(-self.min_steps // steps_per_epoch))
        optimiser = _AdamW(parameters, self.learning_rate, self.weight_decay, epochs * steps_per_epoch)
        for _ in range(epochs):
            order = rng.permutation(n)
            for start in range(0, n, self.batch):
                rows = order[start : start + self.batch]
                optimiser.step(self._gradients(parameters, X[rows], target[rows], weight[rows], rng))
        return parameters

    def _start(self, n_features: int, target: Floats, weight: Floats, rng: np.random.Generator) -> Layers:
        mean = (target * weight).sum(axis=0) / np.maximum(weight.sum(axis=0, dtype=np.float64), _EPSILON)
        logistic = slice(0, self._n_logistic(len(mean)))
        share = np.clip(mean[logistic], 0.01, 0.99)
        mean[logistic] = np.log(share / (1 - share))

        def normal(rows: int, columns: int, variance: float) -> Floats:
            drawn: Floats = (rng.standard_normal((rows, columns)) * np.sqrt(variance)).astype(np.float32)
            return drawn

        return Layers(
            normal(n_features, self.hidden, 2 / max(n_features, 1)),
            np.zeros(self.hidden, np.float32),
            normal(self.hidden, target.shape[1], 1 / self.hidden),
            mean.astype(np.float32),
        )

    def _gradients(
        self, net: Layers, X: Floats, target: Floats, weight: Floats, rng: np.random.Generator
    ) -> tuple[Floats, ...]:
        X = X * _mask(X.shape, self.feature_dropout, rng)
        raw = X @ net.hidden_weights + net.hidden_bias
        kept = _mask(raw.shape, self.dropout, rng) * (raw > 0)
        active = raw * kept
        output = active @ net.weights + net.bias
        logistic = slice(0, self._n_logistic(output.shape[1]))
        output[:, logistic] = 1 / (1 + np.exp(-np.clip(output[:, logistic], -_EXPONENT_LIMIT, _EXPONENT_LIMIT)))
        # Both losses have this derivative with respect to the raw output.
        error: Floats = ((output - target) * weight / len(X)).astype(np.float32)
        hidden_error: Floats = (error @ net.weights.T) * kept
        gradients = (X.T @ hidden_error, hidden_error.sum(axis=0), active.T @ error, error.sum(axis=0))
        return tuple(np.asarray(gradient, np.float32) for gradient in gradients)


def _mask(shape: tuple[int, ...], rate: float, rng: np.random.Generator) -> Floats:
    if rate == 0:
        return np.ones(shape, np.float32)
    return (rng.random(shape, dtype=np.float32) >= rate) * np.float32(1 / (1 - rate))


class _AdamW:
    """Adam with decoupled weight decay on matrices and a learning rate that falls to zero along a cosine."""

    def __init__(self, parameters: Layers, learning_rate: float, weight_decay: float, n_steps: int) -> None:
        self._parameters = parameters
        self._learning_rate, self._weight_decay, self._n_steps = learning_rate, weight_decay, n_steps
        self._first = [np.zeros_like(p) for p in parameters]
        self._second = [np.zeros_like(p) for p in parameters]
        self._step = 0

    def step(self, gradients: tuple[Floats, ...]) -> None:
        """Move the parameters, in place."""
        self._step += 1
        rate = np.float32(self._learning_rate * 0.5 * (1 + np.cos(np.pi * self._step / self._n_steps)))
        correct1, correct2 = 1 - _BETA1**self._step, 1 - _BETA2**self._step
        for parameter, gradient, first, second in zip(
            self._parameters, gradients, self._first, self._second, strict=True
        ):
            first += np.float32(1 - _BETA1) * (gradient - first)
            second += np.float32(1 - _BETA2) * (gradient * gradient - second)
            move = (first / np.float32(correct1)) / (np.sqrt(second / np.float32(correct2)) + np.float32(_EPSILON))
            if parameter.ndim == 2:
                move += np.float32(self._weight_decay) * parameter
            parameter -= rate * move
