"""Judge what a bundle's graphs say: operating points chosen on validation rows, measures and promises on test rows.

Entry points: :func:`judge`, :func:`certified`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from router.certificate import Certificate
from router.domain import Policy, Price
from training.certify import Goal, certify
from training.evaluate import Report, Rows, evaluate
from training.fitting import main_pool
from training.operating import choose_points, choose_presets
from training.settings import Settings


def judge(rows: Rows, parts: NDArray[np.str_], settings: Settings) -> tuple[Report, dict[str, Policy]]:
    """Choose operating points on validation rows and measure on test rows.

    The pool whose decisions are measured is every candidate, or those observed on nearly all rows, where others were
    observed on only a part; then the report has both, the smaller pool first and the whole under ``all_candidates``.
    Validation rows here are the validation and the calibration part together: neither taught an estimator.

    Parameters
    ----------
    rows : Rows
        Every row of the table.
    parts : ndarray of shape (n,), str
    settings : Settings

    Returns
    -------
    report : dict
        See :func:`training.evaluate.evaluate`, with ``training_mean_quality`` and ``points``.
    presets : dict of str to Policy
        Empty where deciding cannot be measured.
    """
    train = parts == "train"
    train_mean = _training_mean(rows, train)
    pool = pool_of(rows)
    report, presets = _judge_pool(rows.columns(pool), parts, train_mean[pool], settings)
    if len(pool) < len(rows.candidates):
        whole, _ = _judge_pool(rows, parts, _comparable_mean(rows, train), settings)
        report = {**report, "all_candidates": whole}
    report["training_mean_quality"] = dict(zip(rows.candidates, train_mean.tolist(), strict=True))
    return report, presets


def certified(
    rows: Rows, parts: NDArray[np.str_], prices: Sequence[Price | None], settings: Settings
) -> dict[str, tuple[Certificate, Policy]]:
    """Certify on the test rows what the settings ask for, for the pool whose decisions are measured.

    Parameters
    ----------
    rows : Rows
        Every row of the table.
    parts : ndarray of shape (n,), str
    prices : sequence of m (Price or None)
    settings : Settings

    Returns
    -------
    dict of str to (Certificate, Policy)
        By preset; empty where deciding cannot be measured.
    """
    pool = pool_of(rows)
    anchor = int(np.argmax(_training_mean(rows, parts == "train")[pool]))
    test = rows.columns(pool).select(parts == "test")
    if len(pool) < 2 or not test.complete.any():
        return {}
    levels = {"fall_below": settings.certify.fall_below, "keep": settings.certify.keep}
    goals = [Goal(kind, level, settings.certify.confidence) for kind, level in levels.items() if level]
    found = [certify(test, goal, anchor, [prices[j] for j in pool]) for goal in goals]
    return {certificate.preset: (certificate, policy) for certificate, policy in found}


def pool_of(rows: Rows) -> NDArray[np.intp]:
    """Return the columns of the candidates whose decisions are measured: those observed on nearly all rows."""
    known = np.isfinite(rows.quality) & np.isfinite(rows.predicted_cost) & np.isfinite(rows.cost_usd)
    return main_pool(known) if known.any() else np.arange(len(rows.candidates))


def _judge_pool(
    rows: Rows, parts: NDArray[np.str_], train_mean: NDArray[np.float64], settings: Settings
) -> tuple[Report, dict[str, Policy]]:
    chosen_on = rows.select(((parts == "validation") | (parts == "calibration")) & rows.complete)
    best_single = int(np.argmax(train_mean))
    points, presets = None, {}
    if len(chosen_on.tasks) and len(rows.candidates) > 1:
        arrays = (chosen_on.predicted, chosen_on.predicted_cost, chosen_on.quality, chosen_on.cost_usd)
        points = choose_points(*arrays, best_single)
        presets = choose_presets(*arrays, best_single, rows.candidates[best_single])
    test = rows.select(parts == "test")
    report = evaluate(test, points, presets, best_single, settings.evaluation.n_resamples, settings.seed)
    return {**report, "points": None if points is None else asdict(points)}, presets


def _training_mean(rows: Rows, train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean quality per candidate; of weighted rows, over those that compare it with others, where there are any.

    A vote is on the answer that was chosen, and hard prompts go to good candidates: their means do not compare.
    """
    mean: NDArray[np.float64] = np.nanmean(rows.quality[train], axis=0)
    if rows.weights is not None:
        comparing = rows.quality[train & (np.isfinite(rows.quality).sum(axis=1) > 1)]
        known = np.isfinite(comparing).any(axis=0)
        mean[known] = np.nanmean(comparing[:, known], axis=0)
    return mean


def _comparable_mean(rows: Rows, train: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean quality on the training rows where all were observed: means over different prompts do not compare."""
    complete = train & rows.complete
    mean: NDArray[np.float64] = np.nanmean(rows.quality[complete if complete.any() else train], axis=0)
    return mean
