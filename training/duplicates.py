"""Prompts that are the same, or nearly: found by their own words, in whatever wrapping.

Two texts are the same when :func:`normal` makes one of them. They are nearly the same when their runs of three words
overlap, by MinHash (Broder 1997) with the usual bands. Runs that many texts have in common (instructions, examples
before the question) say nothing of the question and are left out. Entry points: :func:`normal`, :func:`near_pairs`,
:func:`overlap`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.canonical import canonical

Pairs = NDArray[np.intp]

_RUN = 3
_N_HASHES, _BAND = 64, 4
#: Estimated Jaccard similarity; of 64 hashes, so give or take .05.
_ALIKE = 0.8
#: A run of words in more texts than this, and in more than this share of them, is boilerplate.
_COMMON, _COMMON_SHARE = 20, 0.005
#: Words read from the beginning and from the end of a text.
_READ = 300


def normal(text: str) -> str:
    """Return the form that two askings of one question share: canonical, without case, single spaces."""
    return " ".join(canonical(text).casefold().split())


def near_pairs(texts: Sequence[str]) -> Pairs:
    """Return pairs of texts that are nearly the same.

    Parameters
    ----------
    texts : sequence of n str
        Normal forms, each once.

    Returns
    -------
    ndarray of shape (k, 2), intp
        Row numbers, the smaller first. Of many texts alike, enough pairs to connect them, not all.
    """
    if len(texts) < 2:
        return np.empty((0, 2), np.intp)
    signatures = _signatures(texts)
    found: set[tuple[int, int]] = set()
    for start in range(0, _N_HASHES, _BAND):
        band = np.ascontiguousarray(signatures[:, start : start + _BAND])
        key = band.view([("", band.dtype)] * _BAND).ravel()
        order = np.argsort(key, kind="stable")
        same = key[order][1:] == key[order][:-1]
        for left, right in zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True):
            found.add((min(left, right), max(left, right)))
    pairs = np.array(sorted(found), np.intp).reshape(-1, 2)
    alike = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) >= _ALIKE
    result: Pairs = pairs[alike]
    return result


def _signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    runs = [_runs(text) for text in texts]
    flat = np.concatenate(runs)
    _, run, n_texts = np.unique(flat, return_inverse=True, return_counts=True)
    is_common = (n_texts > max(_COMMON, _COMMON_SHARE * len(texts)))[run]
    ends = np.cumsum([len(part) for part in runs])
    starts = ends - [len(part) for part in runs]
    # Where nothing is left of a text, all of it counts.
    n_rare = np.add.reduceat((~is_common).astype(np.int64), starts)
    is_common &= np.repeat(n_rare > 0, ends - starts)
    hashes = flat.astype(np.uint64)
    rng = np.random.default_rng(20261126)
    signatures = np.empty((len(texts), _N_HASHES), np.uint32)
    for column in range(_N_HASHES):
        factor, offset = rng.integers(1 << 62, size=2, dtype=np.uint64)
        values = ((hashes * (factor | np.uint64(1)) + offset) >> np.uint64(32)).astype(np.uint32)
        values[is_common] = np.iinfo(np.uint32).max
        signatures[:, column] = np.minimum.reduceat(values, starts)
    return signatures


def _runs(text: str) -> NDArray[np.uint32]:
    """Return hashes of the text's runs of three words, each once; of the whole text where it has fewer words."""
    words = text.split()
    if len(words) > 2 * _READ:
        words = words[:_READ] + words[-_READ:]
    runs = [" ".join(words[i : i + _RUN]) for i in range(max(len(words) - _RUN + 1, 1))]
    return np.array(sorted({zlib.crc32(run.encode("utf-8", "replace")) for run in runs}), np.uint32)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of a holdout is also among the other rows.

    Parameters
    ----------
    n_holdout : int
        Prompts held out.
    n_same, n_near : int
        Of them, how many are there word for word, and how many nearly.
    """

    n_holdout: int
    n_same: int
    n_near: int


def overlap(texts: Sequence[str], is_holdout: NDArray[np.bool_]) -> Overlap:
    """Look for prompts on both sides of a holdout.

    Parameters
    ----------
    texts : sequence of n str
        As they are.
    is_holdout : ndarray of shape (n,), bool

    Returns
    -------
    Overlap
    """
    row_of: dict[str, int] = {}
    number = np.array([row_of.setdefault(normal(text), len(row_of)) for text in texts], np.intp)
    held, other = np.zeros(len(row_of), bool), np.zeros(len(row_of), bool)
    held[number[is_holdout]] = True
    other[number[~is_holdout]] = True
    pairs = near_pairs(list(row_of))
    near = np.zeros(len(row_of), bool)
    for one, two in (pairs.T, pairs.T[::-1]):
        near[one[held[one] & other[two]]] = True
    return Overlap(int(held.sum()), int((held & other).sum()), int((near & ~(held & other)).sum()))
