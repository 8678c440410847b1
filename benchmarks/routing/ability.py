"""Bilinear logistic models in numpy: matrix factorisation and multidimensional item response."""

from __future__ import annotations

import numpy as np


class Ability:
    """Logits ``a(x) · v + c``, with ``a(x) = x W`` (factorisation) or ``softplus(x W)`` less a difficulty (response).

    Parameters
    ----------
    rank : int
        Latent dimensions.
    response : bool
        Item response: discrimination is positive, and each prompt has a difficulty.
    decay : float
        Of the weights, per step and unit of learning rate.
    """

    def __init__(self, rank: int, response: bool, decay: float, seed: int) -> None:
        self.rank, self.response, self.decay, self.seed = rank, response, decay, seed

    def fit(self, X: np.ndarray, y: np.ndarray, epochs: int = 20, batch: int = 256, rate: float = 0.003) -> Ability:
        """Minimise the log loss by AdamW; NaN is unobserved."""
        rng = np.random.default_rng(self.seed)
        observed, target = np.isfinite(y), np.nan_to_num(y)
        mean = np.clip(target.sum(0) / np.maximum(observed.sum(0), 1), 0.02, 0.98)
        self.p = [
            rng.normal(0, 0.5 / np.sqrt(X.shape[1]), (X.shape[1], self.rank)),
            rng.normal(0, 0.5, (self.rank, y.shape[1])),
            np.zeros((X.shape[1], 1)),
            np.log(mean / (1 - mean)),
        ]
        first, second = [np.zeros_like(p) for p in self.p], [np.zeros_like(p) for p in self.p]
        step, total = 0, epochs * -(-len(X) // batch)
        for _ in range(epochs):
            order = rng.permutation(len(X))
            for start in range(0, len(X), batch):
                rows = order[start : start + batch]
                step += 1
                now = rate * 0.5 * (1 + np.cos(np.pi * step / total))
                for i, gradient in enumerate(self._gradients(X[rows], target[rows], observed[rows])):
                    first[i] += 0.1 * (gradient - first[i])
                    second[i] += 0.001 * (gradient**2 - second[i])
                    move = (first[i] / (1 - 0.9**step)) / (np.sqrt(second[i] / (1 - 0.999**step)) + 1e-8)
                    self.p[i] -= now * (move + (self.decay * self.p[i] if i in (0, 2) else 0))
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return logits, shape (n, m)."""
        W, v, d, c = self.p
        return self._abilities(X @ W) @ v + c - (X @ d if self.response else 0)

    def _abilities(self, z: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, z) if self.response else z

    def _gradients(self, X: np.ndarray, y: np.ndarray, observed: np.ndarray) -> tuple[np.ndarray, ...]:
        W, v, _, _ = self.p
        z = X @ W
        error = (1 / (1 + np.exp(-np.clip(self.decision_function(X), -30, 30))) - y) * observed / len(X)
        slope = 1 / (1 + np.exp(-np.clip(z, -30, 30))) if self.response else 1.0
        difficulty = -X.T @ error.sum(1, keepdims=True) if self.response else np.zeros((X.shape[1], 1))
        return X.T @ (error @ v.T * slope), self._abilities(z).T @ error, difficulty, error.sum(0)
