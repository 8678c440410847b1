"""An encoder after fitting: what serves, and what of its features the estimators may read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from router.bundle import Bundle
from router.features import Encoder
from router.stacked import StackedEncoder
from router.surface import N_SURFACE
from training.topics import TopicModel

N_TOPIC_COLUMNS = "n_topic_columns"
"""In a manifest's ``training``: how many of the encoder's columns are topics, where its tasks do not say."""


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


def kept_encoder(bundle: Bundle) -> tuple[FittedEncoder, int]:
    """Return the encoder of a bundle, to fit others on it, and how many of its columns are topics.

    Its own topic model stays behind: a bundle keeps that inside its graph.

    Parameters
    ----------
    bundle : Bundle

    Returns
    -------
    tuple of (FittedEncoder, int)
    """
    encoder, training = bundle.encoder, bundle.manifest.training
    if encoder.tier not in ("lexical", "stacked"):
        return FittedEncoder(encoder, np.arange(encoder.dim), None), 0
    n_topics = cast(int, training.get(N_TOPIC_COLUMNS, len(bundle.manifest.tasks)))
    n_lexical = cast(StackedEncoder, encoder).lexical.dim if encoder.tier == "stacked" else encoder.dim
    # A table's columns, of which the last are topics; surface counts; novelty. See training.lexical.
    n_table = n_lexical - N_SURFACE - 1
    columns = np.concatenate([np.arange(n_table - n_topics), np.arange(n_table, n_lexical - 1)])
    heads = np.arange(n_lexical, encoder.dim) if encoder.tier == "stacked" else None
    return FittedEncoder(encoder, columns, None, heads, n_lexical - 1), n_topics
