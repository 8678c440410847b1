"""How much one key may say: caps on its share, and doubt where it contradicts everybody else.

A client's key can send thousands of votes, and can send the requests they are about. So a key's weight is capped by
its share of the whole (:func:`capped`), and a key whose votes differ from what was predicted in a way that the other
keys' votes do not is believed less (:func:`trust`). Both only ever lower weights. Pure numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import NotEnoughData

Vector = NDArray[np.float64]

#: A candidate's votes of a key say something from this many on, and compare with others from as many other keys on.
_LEAST_VOTES, _LEAST_OTHERS = 10, 2
#: Disagreement below this many standard errors is chance.
_STANDARD_ERRORS = 2.5


def capped(weights: Vector, keys: Sequence[str], share: float, *, is_strict: bool = False) -> dict[str, float]:
    """Return the factor, at most 1, for each key's weights so that none has more than its share of what is left.

    Water-filling: totals above one level are lowered to it, and the level is the highest that keeps the promise. Where
    keys are few or most of them nearly silent that would silence everybody, so the level is never below the median
    key's total: then no key has more than ``max(share, 2 / n_keys)``, and one loud key still weighs no more than the
    median one.

    Parameters
    ----------
    weights : ndarray of shape (n,), at least 0
    keys : sequence of n str
    share : float in (0, 1]
    is_strict : bool, default=False
        Keep to the share whatever it costs.

    Returns
    -------
    dict of str to float

    Raises
    ------
    NotEnoughData
        Strict, and there are too few keys for any level.
    """
    names, key = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)
    totals: Vector = np.bincount(key, weights, len(names)).astype(np.float64)
    present = totals[totals > 0]
    if not len(present):
        return dict.fromkeys(names.tolist(), 1.0)
    level = _level(present, share)
    if is_strict and level == 0:
        raise NotEnoughData(
            f"{len(present)} keys gave feedback; with at most {share:.1%} each, at least {int(np.ceil(1 / share))} are "
            "needed (or leave out --strict)"
        )
    if not is_strict:
        level = max(level, float(np.median(present)))
    factors = np.ones(len(totals))
    np.divide(level, totals, out=factors, where=totals > level)
    return dict(zip(names.tolist(), factors.tolist(), strict=True))


def _level(totals: Vector, share: float) -> float:
    """Return the highest level at which no total, lowered to it, exceeds the share of their sum; 0 where none is."""
    falling = np.sort(totals)[::-1]
    if falling[0] <= share * falling.sum():
        return float(falling[0])
    # Summed from the smallest on: what a subtraction left of them would be noise of the largest.
    rests = np.append(np.cumsum(falling[::-1])[::-1][1:], 0.0)
    for n_capped, rest in enumerate(rests, 1):
        if share * n_capped >= 1:
            break
        # level = share · (n_capped · level + rest), of the keys below the level
        level = share * rest / (1 - share * n_capped)
        following = falling[n_capped] if n_capped < len(falling) else 0.0
        if level >= following * (1 - 1e-12):
            return float(level)
    # Exactly 1 / share keys can only all weigh the same.
    return float(falling[-1]) if len(falling) * share >= 1 - 1e-9 else 0.0


def trust(
    scores: Vector, predicted: Vector, keys: Sequence[str], candidates: Sequence[str], tolerance: float
) -> dict[str, float]:
    """Return how far each key is believed, from 1 to 0.

    A key's residual is the mean of score − prediction over its votes on one candidate. What all keys share (the
    prediction is off, the candidate has changed) is their median and says nothing against any; what a key has beyond
    it, less 2.5 binomial standard errors, is disagreement that is no chance. Averaged over its votes and divided by
    the tolerance it is what the key loses. With fewer than three keys on a candidate nobody is doubted.

    Whom most keys agree with is believed, so that this holds as long as most keys are honest; and a key whose prompts
    alone a candidate has become worse at looks like one with a grudge: name it among the trusted.

    Parameters
    ----------
    scores : ndarray of shape (n,), in [0, 1]
    predicted : ndarray of shape (n,), in [0, 1]
        What was predicted of the answer before it was given; NaN where nothing was.
    keys, candidates : sequence of n str
    tolerance : float, above 0
        Mean disagreement at which a key is not believed at all.

    Returns
    -------
    dict of str to float
    """
    names, key = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)
    disagreement, n_votes = np.zeros(len(names)), np.zeros(len(names))
    known = np.isfinite(predicted)
    about = np.asarray(candidates, dtype=np.str_)
    for candidate in np.unique(about):
        here = known & (about == candidate)
        n = np.bincount(key[here], minlength=len(names))
        enough = np.flatnonzero(n >= _LEAST_VOTES)
        n_votes += n
        if len(enough) <= _LEAST_OTHERS:
            continue
        residual = np.bincount(key[here], scores[here] - predicted[here], len(names))[enough] / n[enough]
        p = np.clip(predicted[here], 0.02, 0.98)
        error = np.sqrt(np.bincount(key[here], p * (1 - p), len(names))[enough]) / n[enough]
        beyond = np.abs(residual - np.median(residual)) - _STANDARD_ERRORS * error
        disagreement[enough] += n[enough] * np.maximum(beyond, 0)
    lost = disagreement / np.maximum(n_votes, 1) / tolerance
    return dict(zip(names.tolist(), np.clip(1 - lost, 0, 1).tolist(), strict=True))
