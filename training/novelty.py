"""When a prompt is unlike everything the training prompts were: say so, and let the candidates' averages decide.

The lexical encoder ends in a column that says which share of a prompt's words it has never seen. Beyond nearly all
prompts held out from training, what the estimators make of the few words they know is guesswork that sounds sure.
Entry point: :func:`fit_novelty`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats

Matrix = NDArray[np.float64]
#: At most this share of held-out prompts is called unfamiliar, and never one with fewer unseen words than this.
_SHARE = 0.005
_LEAST_LIMIT = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """Which prompts are unfamiliar, and what is said of them.

    Parameters
    ----------
    column : int
        Of a feature row.
    limit : float, in (0, 1]
        Prompts above it are unfamiliar.
    means : ndarray of shape (m,), float64
        Mean predicted quality over familiar held-out prompts: of all candidates on the same prompts.
    """

    column: int
    limit: float
    means: NDArray[np.float64]

    def score(self, features: Floats) -> NDArray[np.float64]:
        """Return how unfamiliar each prompt is, shape (n,); above 1 is unfamiliar."""
        scores: NDArray[np.float64] = features[:, self.column].astype(np.float64) / self.limit
        return scores

    def apply(self, features: Floats, quality: Matrix, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Put the means, and an interval that says nothing, where a prompt is unfamiliar; all of shape (n, m)."""
        unfamiliar = self.score(features)[:, None] > 1
        return np.where(unfamiliar, self.means, quality), np.where(unfamiliar, 0, low), np.where(unfamiliar, 1, high)


def fit_novelty(column: int, features: Floats, quality: Matrix) -> Novelty:
    """Set the limit.

    Parameters
    ----------
    column : int
    features : ndarray of shape (n, dim), float32
        Of prompts that taught nothing.
    quality : ndarray of shape (n, m)
        What is predicted of them.

    Returns
    -------
    Novelty
    """
    scores = features[:, column]
    limit = max(_LEAST_LIMIT, float(np.quantile(scores, 1 - _SHARE)))
    return Novelty(column, limit, quality[scores <= limit].mean(axis=0))
