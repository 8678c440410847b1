"""A small table of word vectors, so that the lexical tier knows which words mean alike.

Made once from a sentence-transformers model (:func:`make`): the model's vector of each whole word of its own
vocabulary, centred, reduced to a few principal directions, eight bits each. Words are kept as the hashes of
:mod:`router.pieces`, so the table joins the learned one of the lexical encoder and serving needs nothing new. The table
shipped here comes from all-MiniLM-L6-v2 (Apache-2.0). Entry points: :func:`load` and :func:`make`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.arrays import read_arrays, write_arrays
from router.domain import Floats
from router.pieces import pieces_of

FILE = "words.npz"
N_DIRECTIONS = 64
_BATCH = 512


@cache
def load() -> tuple[NDArray[np.uint32], Floats]:
    """Return the shipped table.

    Returns
    -------
    hashes : ndarray of shape (w,), uint32, strictly increasing
    vectors : ndarray of shape (w, N_DIRECTIONS), float32
        The first direction has unit variance over words, the others keep their proportion to it.
    """
    arrays = read_arrays(files("training").joinpath(FILE).read_bytes(), FILE)
    return arrays["hashes"].astype(np.uint32), arrays["vectors"].astype(np.float32) * arrays["scale"].astype(np.float32)


def make(model: Any) -> bytes:
    """Make the table.

    Parameters
    ----------
    model : sentence_transformers.SentenceTransformer
        With a WordPiece vocabulary: whole words do not begin with ``##``.

    Returns
    -------
    bytes
        The contents of ``words.npz``.
    """
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha())
    return _table(words, np.asarray(model.encode(words, batch_size=_BATCH, show_progress_bar=False), np.float32))


def _table(words: Sequence[str], vectors: Floats) -> bytes:
    hashed = [pieces_of(word).hashes for word in words]
    whole = [i for i, hashes in enumerate(hashed) if len(hashes) == 1]
    hashes, first = np.unique(np.array([hashed[i][0] for i in whole], np.uint32), return_index=True)
    kept = vectors[[whole[i] for i in first]]
    kept = kept - kept.mean(axis=0)
    variances, directions = np.linalg.eigh(kept.T @ kept / len(kept))
    reduced = kept @ directions[:, ::-1][:, :N_DIRECTIONS] / np.sqrt(variances[-1])
    scale = (np.abs(reduced).max(axis=0) / 127).astype(np.float32)
    return write_arrays({"hashes": hashes, "vectors": np.round(reduced / scale).astype(np.int8), "scale": scale})
