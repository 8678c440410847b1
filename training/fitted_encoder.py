"""An encoder after fitting: what serves, and what of its features the estimators may read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.features import Encoder
from training.topics import TopicModel


@dataclass(frozen=True, slots=True, eq=False)
class FittedEncoder:
    """An encoder, and what the estimators may read of it.

    Parameters
    ----------
    encoder : Encoder
    columns : ndarray of shape (c,), intp
        Feature columns for the quality and token estimators.
    topics : TopicModel or None
        What the encoder itself learned of topics; None where it did not, or where the data tells none apart.
    heads : ndarray of shape (m,), intp, or None
        Feature columns that are logits of quality themselves, one per candidate.
    novelty : int or None
        Feature column that says how unfamiliar a text is, where the encoder can tell.
    """

    encoder: Encoder
    columns: NDArray[np.intp]
    topics: TopicModel | None
    heads: NDArray[np.intp] | None = None
    novelty: int | None = None
