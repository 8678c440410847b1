"""Fit the lexical encoder: which buckets get a row, what the rows say, how surface counts are scaled.

The rows are a truncated SVD of the tf-idf matrix of the training prompts, then general word vectors for the rows of
single words (:mod:`training.words`), and, where the data names tasks, one further column per topic: the weights of a
sparse multinomial regression. On training rows the last know too much to be features of a network. Inference is
:class:`router.lexical.LexicalEncoder`, which also does all the reading of texts here. Entry point: :func:`fit_lexical`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from router.domain import Floats
from router.lexical import N_BUCKETS, LexicalEncoder, buckets_of, buckets_of_words
from router.pieces import Pieces, pieces_of
from router.surface import N_SURFACE, counts_of, logarithms_of
from training import words
from training.fitted_encoder import FittedEncoder
from training.settings import LexicalSettings
from training.topics import TopicModel

_TOPIC_REGULARISATION = 10.0
_TOPIC_ITERATIONS = 60


def fit_lexical(
    texts: Sequence[str], topics: Sequence[str] | None, settings: LexicalSettings, seed: int
) -> FittedEncoder:
    """Fit the encoder on training prompts.

    Parameters
    ----------
    texts : sequence of n str
        Training prompts only.
    topics : sequence of n str or None
        Topic of each; None where the data tells none apart.
    settings : LexicalSettings
    seed : int

    Returns
    -------
    FittedEncoder
    """
    cut = [pieces_of(text) for text in texts]
    blank = _blank_encoder(cut, settings.min_prompts)
    weights = _sparse_weights(blank, cut)
    directions = np.hstack(
        [_directions(weights, settings.n_columns, seed), _word_columns(blank, settings.word_vectors)]
    )
    topic_model = None
    columns = directions
    if topics is not None:
        labels, topic_rows, bias = _topic_columns(weights, topics)
        columns = np.hstack([directions, topic_rows])
    encoder = _with_table(blank, columns)
    # Unit variance on training rows; the topic columns stay what they are, logits.
    spread = encoder.encode(texts)[:, : directions.shape[1]].std(axis=0)
    scale = encoder.column_scale.copy()
    scale[: directions.shape[1]] /= np.where(spread > 0, spread, 1.0)
    encoder = replace(encoder, column_scale=scale)
    read = np.concatenate([np.arange(directions.shape[1]), np.arange(columns.shape[1], encoder.dim - 1)])
    if topics is not None:
        selector = np.zeros((encoder.dim, len(labels)), np.float32)
        selector[np.arange(directions.shape[1], columns.shape[1]), np.arange(len(labels))] = 1
        topic_model = TopicModel(labels, selector, bias)
    return FittedEncoder(encoder, read, topic_model, novelty=encoder.dim - 1)


def _blank_encoder(cut: Sequence[Pieces], min_prompts: int) -> LexicalEncoder:
    """Make an encoder with rows but no columns: it knows buckets, idf and the scale of surface counts."""
    n_prompts_with = np.zeros(N_BUCKETS, np.int64)
    for pieces in cut:
        n_prompts_with[np.unique(buckets_of(pieces))] += 1
    buckets = np.flatnonzero(n_prompts_with >= min_prompts)
    counts = logarithms_of([counts_of(pieces) for pieces in cut])
    spread = counts.std(axis=0)
    return LexicalEncoder(
        buckets=buckets.astype(np.uint32),
        idf=(np.log((1 + len(cut)) / (1 + n_prompts_with[buckets])) + 1).astype(np.float32),
        table=np.zeros((len(buckets), 0), np.int8),
        row_scale=np.ones(len(buckets), np.float32),
        column_scale=np.ones(0, np.float32),
        surface_mean=counts.mean(axis=0).astype(np.float32),
        surface_scale=np.where(spread > 1e-6, spread, 1.0).astype(np.float32).reshape(N_SURFACE),
    )


def _sparse_weights(encoder: LexicalEncoder, cut: Sequence[Pieces]) -> sp.csr_matrix:
    pairs = [encoder.weights_of(pieces) for pieces in cut]
    ends = np.cumsum([0, *(len(rows) for rows, _ in pairs)])
    return sp.csr_matrix(
        (
            np.concatenate([weights for _, weights in pairs]).astype(np.float32),
            np.concatenate([rows for rows, _ in pairs]),
            ends,
        ),
        shape=(len(cut), len(encoder.buckets)),
    )


def _directions(weights: sp.csr_matrix, n_columns: int, seed: int) -> NDArray[np.float32]:
    """Return the leading right singular vectors as columns, shape (rows of the table, at most n_columns)."""
    most = min(weights.shape) - 1
    if most < 1:
        return np.zeros((weights.shape[1], 0), np.float32)
    *_, components = randomized_svd(weights, min(n_columns, most), n_iter=3, random_state=seed)
    return np.asarray(components.T, np.float32)


def _word_columns(blank: LexicalEncoder, wanted: bool) -> NDArray[np.float32]:
    """Return word vectors as columns, zero for rows that are no word of the table; words in one bucket are averaged."""
    if not wanted:
        return np.zeros((len(blank.buckets), 0), np.float32)
    hashes, vectors = words.load()
    buckets = buckets_of_words(hashes)
    sums = np.zeros((N_BUCKETS, vectors.shape[1]), np.float32)
    np.add.at(sums, buckets, vectors)
    shared = np.maximum(np.bincount(buckets, minlength=N_BUCKETS), 1)
    rows: NDArray[np.float32] = (sums[blank.buckets] / shared[blank.buckets, None]).astype(np.float32)
    return rows


def _topic_columns(
    weights: sp.csr_matrix, topics: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.float32], Floats]:
    """Return labels, columns and bias of a multinomial regression on the sparse weights."""
    model = LogisticRegression(C=_TOPIC_REGULARISATION, max_iter=_TOPIC_ITERATIONS, tol=1e-3)
    with warnings.catch_warnings():
        # Stopped early on purpose: the last digits of the optimum do not generalise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(weights, np.asarray(topics))
    coefficients, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn then keeps one row: the logit of the second class
        coefficients, bias = np.vstack([-coefficients, coefficients]) / 2, np.concatenate([-bias, bias]) / 2
    labels = tuple(str(label) for label in model.classes_)
    return labels, coefficients.T.astype(np.float32), bias.astype(np.float32)


def _with_table(blank: LexicalEncoder, columns: NDArray[np.float32]) -> LexicalEncoder:
    """Return the encoder with these columns as int8 rows, one scale per row and one per column."""
    spread = columns.std(axis=0) if len(columns) else np.ones(columns.shape[1])
    column_scale = np.where(spread > 0, spread, 1.0).astype(np.float32)
    normal = columns / column_scale
    largest = np.abs(normal).max(axis=1, initial=0.0)
    row_scale = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    table = np.round(normal / row_scale[:, None]).astype(np.int8)
    return replace(blank, table=table, row_scale=row_scale, column_scale=column_scale)
