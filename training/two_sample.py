"""Can a classifier tell two lots of prompts apart? If so, they are not of one kind.

A logistic regression learns which lot a prompt is from and is judged on prompts it has not seen: the area under its
curve is the chance that it ranks one of the later lot above one of the earlier; one half is no difference that it can
see. Entry point: :func:`tell_apart`.

References
----------
.. [1] Lopez-Paz, Oquab, "Revisiting classifier two-sample tests", ICLR 2017, arXiv 1610.06545.
.. [2] DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
   characteristic curves", Biometrics 44 (1988): the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

#: Fewer distinct prompts in a lot teach a classifier nothing worth telling.
LEAST_PROMPTS = 200
#: More are not needed to see what matters, and take time; they are taken evenly.
MOST_PROMPTS = 3_000
_N_FOLDS = 5
_N_WORDS = 2**13
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Apart:
    """How well two lots can be told apart.

    Parameters
    ----------
    n_before, n_after : int
        Distinct prompts.
    auc : float in [0, 1]
    low, high : float
        95 % interval, of this one look.
    """

    n_before: int
    n_after: int
    auc: float
    low: float
    high: float


def tell_apart(
    before: Sequence[str] | NDArray[np.floating], after: Sequence[str] | NDArray[np.floating]
) -> Apart | None:
    """Try to tell two lots of prompts apart.

    Parameters
    ----------
    before, after : sequence of str, or ndarray of shape (n, dim)
        Texts, read as words, or feature rows; both of one kind. What comes again in a lot counts once.

    Returns
    -------
    Apart or None
        None where a lot has fewer than :data:`LEAST_PROMPTS`.
    """
    lots = [_distinct(lot) for lot in (before, after)]
    if min(len(lot) for lot in lots) < LEAST_PROMPTS:
        return None
    is_after = np.repeat([False, True], [len(lot) for lot in lots])
    rows = [row for lot in lots for row in lot]
    # A prompt of both lots stands on one side of every fold, else the other lot's copy would give it away.
    keys = [row if isinstance(row, str) else row.tobytes() for row in rows]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    fold = np.array([number[key] % _N_FOLDS for key in keys])
    score = _scored(rows, is_after, fold)
    auc, error = _auc(score[~is_after], score[is_after])
    return Apart(len(lots[0]), len(lots[1]), auc, max(0.0, auc - _Z * error), min(1.0, auc + _Z * error))


def _distinct(lot: Sequence[str] | NDArray[np.floating]) -> list[str] | list[NDArray[np.floating]]:
    distinct = list({row if isinstance(row, str) else row.tobytes(): row for row in lot}.values())
    if len(distinct) > MOST_PROMPTS:
        distinct = [distinct[i] for i in np.linspace(0, len(distinct) - 1, MOST_PROMPTS).astype(int)]
    return distinct


def _scored(rows: list[str | NDArray[np.floating]], is_after: NDArray[np.bool_], fold: NDArray[np.intp]) -> Vector:
    """Score every row by a model of the other folds."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if isinstance(rows[0], str):
        features, strength = HashingVectorizer(n_features=_N_WORDS, alternate_sign=False).transform(rows), 1.0
    else:
        features, strength = StandardScaler().fit_transform(np.stack(rows)), 0.01
    model = LogisticRegression(C=strength, tol=1e-3, max_iter=1_000, class_weight="balanced")
    score = np.zeros(len(rows))
    for k in range(_N_FOLDS):
        taught, asked = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        model.fit(features[taught], is_after[taught])
        score[asked] = model.decision_function(features[asked])
    return score


def _auc(before: Vector, after: Vector) -> tuple[float, float]:
    """Return the area and its standard error ([2]_)."""
    above = _placements(after, before)
    below = 1 - _placements(before, after)
    variance = below.var(ddof=1) / len(before) + above.var(ddof=1) / len(after)
    return float(above.mean()), float(np.sqrt(variance))


def _placements(these: Vector, among: Vector) -> Vector:
    """Return for each the share of the others that is below it, ties counting half."""
    ordered = np.sort(among)
    found: Vector = (
        (np.searchsorted(ordered, these, "left") + np.searchsorted(ordered, these, "right")) / 2 / len(among)
    )
    return found
