"""The default encoder: no transformer, a regular expression, a stable hash and one small learned table.

A text is cut into pieces (words, numbers by their shape, marks, line ends); each piece and each pair of neighbours is
hashed to a bucket; buckets seen often enough in training have a row in the table. The features are the
tf-idf-weighted sum of those rows, then the surface counts, and last the share of words that have no row. It needs
numpy alone and holds no words, so nothing of the training prompts can be read from it. Fitting is
:mod:`training.lexical`; entry point: :class:`LexicalEncoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.arrays import read_arrays, write_arrays
from router.domain import Floats
from router.errors import BundleCorrupt, BundleMissing
from router.pieces import Pieces, pieces_of
from router.surface import N_SURFACE, SURFACE_LIMIT, counts_of, logarithms_of

ENCODER_FILE = "encoder.npz"
N_BUCKET_BITS = 18
N_BUCKETS = 1 << N_BUCKET_BITS
#: Bytes of known words that every text is taken to have besides its own, so that one odd name is not a foreign text.
FAMILIAR_BYTES = 16

Buckets = NDArray[np.uint32]

_SHIFT = np.uint32(32 - N_BUCKET_BITS)
_SINGLE, _LEFT, _RIGHT, _STIR = (np.uint32(c) for c in (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F))


def buckets_of(pieces: Pieces) -> Buckets:
    """Return the bucket of every piece and of every pair of neighbouring pieces.

    Parameters
    ----------
    pieces : Pieces

    Returns
    -------
    ndarray of shape (n_pieces + n_pairs,), uint32, below N_BUCKETS
        With repetitions; the same on every machine and in every Python.
    """
    hashes = pieces.hashes
    n = len(hashes)
    if not n:
        return hashes
    buckets = np.empty(2 * n - 1, np.uint32)
    np.multiply(hashes, _SINGLE, out=buckets[:n])
    pairs = (hashes[:-1] * _LEFT) ^ (hashes[1:] * _RIGHT)
    pairs ^= pairs >> np.uint32(15)
    np.multiply(pairs, _STIR, out=buckets[n:])
    buckets >>= _SHIFT
    return buckets


def buckets_of_words(hashes: Buckets) -> Buckets:
    """Return the bucket of each single piece, shape (n,), for pieces given by their hashes."""
    buckets: Buckets = (hashes * _SINGLE) >> _SHIFT
    return buckets


@dataclass(frozen=True, slots=True, eq=False)
class LexicalEncoder:
    """Text to (table columns, surface counts, novelty).

    Parameters
    ----------
    buckets : ndarray of shape (r,), uint32, strictly increasing
        Which buckets have a row.
    idf : ndarray of shape (r,), float32, above 0
    table : ndarray of shape (r, k), int8
        Learned rows; the value of an entry is ``table * row_scale * column_scale``.
    row_scale : ndarray of shape (r,), float32
    column_scale : ndarray of shape (k,), float32
    surface_mean, surface_scale : ndarray of shape (N_SURFACE,), float32
    """

    buckets: Buckets
    idf: Floats
    table: NDArray[np.int8]
    row_scale: Floats
    column_scale: Floats
    surface_mean: Floats
    surface_scale: Floats
    _row_of: NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay out the bucket-to-row index; refuse arrays that do not fit together."""
        r, k = self.table.shape if self.table.ndim == 2 else (-1, -1)
        shapes = {
            "buckets": (r,),
            "idf": (r,),
            "row_scale": (r,),
            "column_scale": (k,),
            "surface_mean": (N_SURFACE,),
            "surface_scale": (N_SURFACE,),
        }
        for name, expected in shapes.items():
            if getattr(self, name).shape != expected:
                raise BundleCorrupt(f"{ENCODER_FILE}: {name} has shape {getattr(self, name).shape}, not {expected}")
        if r and (int(self.buckets[-1]) >= N_BUCKETS or (np.diff(self.buckets.astype(np.int64)) <= 0).any()):
            raise BundleCorrupt(f"{ENCODER_FILE}: buckets must increase and stay below {N_BUCKETS}")
        row_of = np.full(N_BUCKETS, -1, np.int32)
        row_of[self.buckets] = np.arange(r, dtype=np.int32)
        object.__setattr__(self, "_row_of", row_of)

    @property
    def tier(self) -> str:
        """``"lexical"``."""
        return "lexical"

    @property
    def dim(self) -> int:
        """Table columns, surface counts and novelty together."""
        return int(self.table.shape[1]) + N_SURFACE + 1

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the features of n texts, shape (n, dim), float32."""
        features = np.empty((len(texts), self.dim), np.float32)
        width = self.table.shape[1]
        counted = []
        for row, text in zip(features, texts, strict=True):
            pieces = pieces_of(text)
            found = self._row_of.take(buckets_of(pieces))
            row[:width] = self._embed(found)
            row[-1] = _novelty(pieces, found)
            counted.append(counts_of(pieces))
        counts = logarithms_of(counted)
        counts -= self.surface_mean
        counts /= self.surface_scale
        np.minimum(counts, SURFACE_LIMIT, out=counts)
        np.maximum(counts, -SURFACE_LIMIT, out=features[:, width:-1])
        return features

    def weights_of(self, pieces: Pieces) -> tuple[NDArray[np.int32], Floats]:
        """Return the table rows of a text and their tf-idf weights, a vector of length 1 (or nothing)."""
        return self._weighted(self._row_of.take(buckets_of(pieces)))

    def _weighted(self, found: NDArray[np.int32]) -> tuple[NDArray[np.int32], Floats]:
        """Weigh the rows that were found, those below 0 being none."""
        rows = found[found >= 0]
        if not len(rows):
            return rows, np.zeros(0, np.float32)
        rows.sort()
        # Where a run of equal rows ends, and by difference how long it is; numpy's own names for this cost more.
        ends = np.empty(len(rows), np.bool_)
        ends[-1] = True
        np.not_equal(rows[1:], rows[:-1], out=ends[:-1])
        last = ends.nonzero()[0]
        counts = last.astype(np.float32)
        counts[1:] -= last[:-1]
        counts[0] += 1
        rows = rows.take(last)
        weights = (1 + np.log(counts)) * self.idf.take(rows)
        return rows, weights / np.sqrt(weights @ weights)

    def _embed(self, found: NDArray[np.int32]) -> Floats:
        rows, weights = self._weighted(found)
        embedded: Floats = (
            (weights * self.row_scale.take(rows)) @ self.table.take(rows, 0).astype(np.float32) * self.column_scale
        )
        return embedded

    def files(self) -> dict[str, bytes]:
        """Return ``encoder.npz``."""
        return {ENCODER_FILE: write_arrays({name: getattr(self, name) for name in _ARRAYS})}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> LexicalEncoder:
        """Make the encoder again.

        Raises
        ------
        BundleMissing
            No ``encoder.npz``.
        BundleCorrupt, BundleUnsafe
            It does not hold the arrays it must.
        """
        if ENCODER_FILE not in files:
            raise BundleMissing(f"the bundle has no {ENCODER_FILE}")
        arrays = read_arrays(files[ENCODER_FILE], ENCODER_FILE)
        for name, dtype in _ARRAYS.items():
            if name not in arrays or arrays[name].dtype != dtype:
                found = arrays[name].dtype if name in arrays else "nothing"
                raise BundleCorrupt(f"{ENCODER_FILE}: {name} must be an array of {np.dtype(dtype)}, found {found}")
        return cls(
            buckets=arrays["buckets"].astype(np.uint32),
            idf=arrays["idf"].astype(np.float32),
            table=arrays["table"].astype(np.int8),
            row_scale=arrays["row_scale"].astype(np.float32),
            column_scale=arrays["column_scale"].astype(np.float32),
            surface_mean=arrays["surface_mean"].astype(np.float32),
            surface_scale=arrays["surface_scale"].astype(np.float32),
        )


def _novelty(pieces: Pieces, found: NDArray[np.int32]) -> float:
    """Return the share, in bytes, of words never seen in training; in [0, 1). The rows of single pieces come first."""
    lengths = pieces.word_lengths
    unseen = found.take(pieces.words) < 0
    # The ufunc itself: an array's own sum() is a function in Python around it.
    return float(np.add.reduce(lengths[unseen]) / (np.add.reduce(lengths) + FAMILIAR_BYTES))


_ARRAYS: Mapping[str, type[np.generic]] = {
    "buckets": np.uint32,
    "idf": np.float32,
    "table": np.int8,
    "row_scale": np.float32,
    "column_scale": np.float32,
    "surface_mean": np.float32,
    "surface_scale": np.float32,
}
