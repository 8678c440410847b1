"""Measure what a bundle predicts and decides on rows it was not fitted on, with a bootstrap interval for each measure.

It reads predictions (the bundle's own, out of its graphs) and outcomes; it fits and chooses nothing: operating points
are given. Resamples draw whole groups. Measures of deciding need every candidate's quality and cost, so they use the
rows where all of the pool's candidates were observed; measures of predicting use each candidate's observed rows.
Entry point: :func:`evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.domain import Policy
from router.policy import choose
from training import metrics
from training.metrics import Vector, Weights
from training.operating import LEVELS, OperatingPoints, dial_of, outcome_of, sweep
from training.topics import topics_of

Matrix = NDArray[np.float64]
Report = dict[str, Any]

_LEAST_SLICE = 300
_LATENCY_KINDS = ("latency",)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Predictions and outcomes of the same n prompts and m candidates.

    Parameters
    ----------
    candidates : tuple of m str
    predicted, predicted_cost, output_tokens, output_tokens_p90 : ndarray of shape (n, m), float64
        What the bundle says; NaN where it does not know.
    quality, cost_usd, true_output_tokens : ndarray of shape (n, m), float64
        What happened; NaN where unobserved.
    tasks, groups : sequence of n str
    weights : ndarray of shape (n, m), float64, or None
        For how many outcomes each counts in the measures of predicting; None is 1 each.
    """

    candidates: tuple[str, ...]
    predicted: Matrix
    predicted_cost: Matrix
    output_tokens: Matrix
    output_tokens_p90: Matrix
    quality: Matrix
    cost_usd: Matrix
    true_output_tokens: Matrix
    tasks: Sequence[str]
    groups: Sequence[str]
    weights: Matrix | None = None

    def select(self, mask: NDArray[np.bool_]) -> Rows:
        """Return the rows of a mask."""
        return self.take(np.flatnonzero(mask))

    def take(self, kept: NDArray[np.intp]) -> Rows:
        """Return rows by number, in that order."""
        return replace(
            self,
            predicted=self.predicted[kept],
            predicted_cost=self.predicted_cost[kept],
            output_tokens=self.output_tokens[kept],
            output_tokens_p90=self.output_tokens_p90[kept],
            quality=self.quality[kept],
            cost_usd=self.cost_usd[kept],
            true_output_tokens=self.true_output_tokens[kept],
            tasks=[self.tasks[i] for i in kept.tolist()],
            groups=[self.groups[i] for i in kept.tolist()],
            weights=None if self.weights is None else self.weights[kept],
        )

    def columns(self, kept: NDArray[np.intp]) -> Rows:
        """Return some candidates, by column number."""
        return replace(
            self,
            candidates=tuple(self.candidates[j] for j in kept),
            predicted=self.predicted[:, kept],
            predicted_cost=self.predicted_cost[:, kept],
            output_tokens=self.output_tokens[:, kept],
            output_tokens_p90=self.output_tokens_p90[:, kept],
            quality=self.quality[:, kept],
            cost_usd=self.cost_usd[:, kept],
            true_output_tokens=self.true_output_tokens[:, kept],
            weights=None if self.weights is None else self.weights[:, kept],
        )

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Where quality and cost of every candidate are known, predicted and observed, shape (n,)."""
        known = [np.isfinite(a).all(axis=1) for a in (self.predicted_cost, self.quality, self.cost_usd)]
        result: NDArray[np.bool_] = np.logical_and.reduce(known)
        return result


def evaluate(
    rows: Rows,
    points: OperatingPoints | None,
    presets: Mapping[str, Policy],
    best_single: int,
    n_resamples: int,
    seed: int,
) -> Report:
    """Measure.

    Parameters
    ----------
    rows : Rows
    points : OperatingPoints or None
        Chosen on other rows; None leaves out the measures of deciding.
    presets : Mapping of str to Policy
        Reported as points of their own.
    best_single : int
        Column of the candidate that was best on the training rows.
    n_resamples : int
    seed : int

    Returns
    -------
    dict
        ``metrics`` (name to value, low, high: a 95 % bootstrap interval), ``candidates`` (per candidate), and, where
        outcomes are complete, ``singles``, ``oracle``, ``curve`` and ``presets``.
    """
    report: Report = {
        "n_prompts": len(rows.tasks),
        "n_groups": len(set(rows.groups)),
        "n_resamples": n_resamples,
        "metrics": {},
        "candidates": {},
    }
    weights = resamples(rows.groups, n_resamples, seed)
    _predicting(report, rows, weights)
    complete = rows.complete
    report["n_complete"] = int(complete.sum())
    if points is not None and len(rows.candidates) > 1 and complete.any():
        rows = rows.select(complete)
        _deciding(report, rows, points, presets, best_single, resamples(rows.groups, n_resamples, seed))
    return report


def resamples(groups: Sequence[str], n_resamples: int, seed: int) -> Weights:
    """Return row weights: first all ones, then one bootstrap draw of whole groups per row.

    Parameters
    ----------
    groups : sequence of n str
    n_resamples : int
    seed : int

    Returns
    -------
    ndarray of shape (1 + n_resamples, n), float64
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    return np.vstack([np.ones(len(names)), draws]).astype(np.float64)[:, group]


def summary(values: Vector) -> dict[str, float]:
    """Return value (the first, of the plain rows) and a 95 % interval from the others.

    The quantiles of the resamples are shifted so that their median is the value: a measure made of absolute values,
    such as the calibration error, is larger in nearly every resample than in the rows themselves.
    """
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return {"value": value, "low": float("nan"), "high": float("nan")}
    low, middle, high = np.quantile(drawn, (0.025, 0.5, 0.975))
    return {"value": value, "low": float(value + low - middle), "high": float(value + high - middle)}


def _predicting(report: Report, rows: Rows, weights: Weights) -> None:
    measures = {"auc": metrics.auc, "brier": metrics.brier, "brier_skill": metrics.brier_skill, "ece": metrics.ece}
    collected: dict[str, list[Vector]] = {name: [] for name in measures}
    floors: list[float] = []
    slices: dict[str, list[tuple[float, float]]] = {}
    # A task with few rows joins its parent, then the rest.
    joined = topics_of(rows.tasks, _LEAST_SLICE)
    tasks = np.asarray(rows.tasks if joined is None else joined)
    large = [task for task in np.unique(tasks) if (tasks == task).sum() >= _LEAST_SLICE]
    for j, candidate in enumerate(rows.candidates):
        observed = np.isfinite(rows.quality[:, j]) & np.isfinite(rows.predicted[:, j])
        entry: Report = {"n_observed": int(observed.sum())}
        if observed.any():
            score, label, drawn = rows.predicted[observed, j], rows.quality[observed, j], weights[:, observed]
            entry["mean_quality"] = float(label.mean())
            if rows.weights is not None:
                drawn = drawn * rows.weights[observed, j]
            for name, measure in measures.items():
                values = measure(score, label, drawn)
                collected[name].append(values)
                entry[name] = summary(values)
            floors.append(metrics.ece_floor(score))
            entry["ece_floor"] = _exact(floors[-1])
            for task in large:
                part = tasks[observed] == task
                if part.sum() >= _LEAST_SLICE:
                    error = float(metrics.ece(score[part], label[part], np.ones((1, int(part.sum()))))[0])
                    slices.setdefault(str(task), []).append((error, metrics.ece_floor(score[part])))
        entry.update(_cost_of(rows, j, weights))
        report["candidates"][candidate] = entry
    for name, columns in collected.items():
        if columns:
            report["metrics"][f"{name}_macro"] = summary(_mean_over_candidates(columns))
    if floors:
        report["metrics"]["ece_macro_floor"] = _exact(float(np.mean(floors)))
    if slices:
        error, floor = max(max(errors) for errors in slices.values())
        report["metrics"]["ece_largest_slice"] = _exact(error)
        report["metrics"]["ece_largest_slice_floor"] = _exact(floor)
    report["ece_by_task"] = {
        task: {
            "n_prompts": int((tasks == task).sum()),
            "ece": float(np.mean([error for error, _ in errors])),
            "ece_worst_candidate": max(error for error, _ in errors),
            "floor": float(np.mean([floor for _, floor in errors])),
        }
        for task, errors in slices.items()
    }
    for name in ("cost_error", "p90_coverage"):
        entries = [entry[name] for entry in report["candidates"].values() if name in entry]
        if entries:
            average = float(np.mean([abs(entry["value"]) for entry in entries]))
            report["metrics"][f"{name}_mean"] = _exact(average)


def _exact(value: float) -> dict[str, float | None]:
    """Return an entry without an interval."""
    return {"value": value, "low": None, "high": None}


def _mean_over_candidates(columns: list[Vector]) -> Vector:
    """Average over candidates; one whose labels do not vary has no AUC and is left out."""
    stacked = np.array(columns)
    defined = np.isfinite(stacked)
    total = np.where(defined, stacked, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        result: Vector = total / defined.sum(axis=0)
    return result


def _cost_of(rows: Rows, j: int, weights: Weights) -> Report:
    entry: Report = {}
    known = np.isfinite(rows.cost_usd[:, j]) & np.isfinite(rows.predicted_cost[:, j])
    if known.any() and rows.cost_usd[known, j].sum() > 0:
        true, predicted = rows.cost_usd[known, j], rows.predicted_cost[known, j]
        drawn = weights[:, known]
        entry["cost_error"] = summary(metrics.mean(predicted, drawn) / metrics.mean(true, drawn) - 1)
        entry["mean_cost_usd"] = float(true.mean())
    known = np.isfinite(rows.true_output_tokens[:, j]) & np.isfinite(rows.output_tokens_p90[:, j])
    if known.any():
        covered = (rows.true_output_tokens[known, j] <= rows.output_tokens_p90[known, j]).astype(np.float64)
        entry["p90_coverage"] = summary(metrics.mean(covered, weights[:, known]))
    return entry


def _deciding(
    report: Report,
    rows: Rows,
    points: OperatingPoints,
    presets: Mapping[str, Policy],
    best_single: int,
    weights: Weights,
) -> None:
    quality, cost = rows.quality, rows.cost_usd
    dial = dial_of(cost)
    choices, oracle_choices = sweep(rows.predicted, rows.predicted_cost, dial), sweep(quality, cost, dial)
    router = _curve(choices, rows, weights)
    oracle = _curve(oracle_choices, rows, weights)
    singles = metrics.mean(cost, weights), metrics.mean(quality, weights)
    best_quality, best_cost = singles[1][:, best_single], singles[0][:, best_single]
    oracle_quality = metrics.mean(quality.max(axis=1), weights)

    def at(stop: float) -> tuple[Vector, Vector]:
        choice = sweep(rows.predicted, rows.predicted_cost, (stop,))
        return tuple(curve[:, 0] for curve in _curve(choice, rows, weights))  # type: ignore[return-value]

    found: dict[str, Vector] = {}
    found["naiq"] = metrics.naiq(router, singles, oracle)
    frontier = _curve(sweep(rows.predicted, rows.predicted_cost, points.frontier), rows, weights)
    found["naiq_at_validation_points"] = metrics.naiq(frontier, singles, oracle)
    top_cost, top_quality = at(points.best)
    with np.errstate(invalid="ignore", divide="ignore"):
        found["gap_closed"] = (top_quality - best_quality) / (oracle_quality - best_quality)
    found["gain_over_hull_at_best"] = metrics.gain_over_hull(top_cost, top_quality, singles)
    for level in LEVELS:
        spent, reached = at(points.saving[level])
        found[f"save_{round(level * 100)}"] = 1 - spent / best_cost
        found[f"save_{round(level * 100)}_quality"] = reached / best_quality
    found.update(_regrets(rows, choices, dial, weights))
    if len(rows.candidates) == 2:
        weak, strong = np.argsort(cost.mean(axis=0))
        preference = rows.predicted[:, strong] - rows.predicted[:, weak]
        apgr, cpt = metrics.performance_gap_recovered(preference, quality[:, weak], quality[:, strong], weights)
        found["apgr"] = apgr
        found.update({f"cpt_{round(level * 100)}": values for level, values in cpt.items()})
    report["metrics"].update({name: summary(values) for name, values in found.items()})

    report["singles"] = {
        name: {"cost_usd": float(singles[0][0, j]), "quality": float(singles[1][0, j])}
        for j, name in enumerate(rows.candidates)
    }
    hull_cost, hull_quality = metrics.hull(singles[0][0], singles[1][0])
    report["hull"] = [{"cost_usd": float(x), "quality": float(y)} for x, y in zip(hull_cost, hull_quality, strict=True)]
    report["best_single"] = rows.candidates[best_single]
    report["oracle"] = {"quality": float(oracle_quality[0])}
    report["curve"] = _points(dial, router)
    report["oracle_curve"] = _points(dial, oracle)
    report["presets"] = {name: _preset(rows, policy, weights, singles, best_single) for name, policy in presets.items()}
    if "quality" in presets:
        gain = report["presets"]["quality"]["quality_minus_best_single"]
        headroom = float(oracle_quality[0] - best_quality[0])
        report["metrics"]["gap_closed_quality_preset"] = {
            name: value / headroom if headroom > 0 else float("nan") for name, value in gain.items()
        }


def _curve(choices: NDArray[np.intp], rows: Rows, weights: Weights) -> tuple[Matrix, Matrix]:
    """Return mean cost and mean quality per resample and stop."""
    return (
        metrics.mean(outcome_of(choices, rows.cost_usd), weights),
        metrics.mean(outcome_of(choices, rows.quality), weights),
    )


def _points(dial: tuple[float, ...], curve: tuple[Matrix, Matrix]) -> list[dict[str, float]]:
    return [
        {"willingness_to_pay_usd": stop, "cost_usd": float(x), "quality": float(y)}
        for stop, x, y in zip(dial, curve[0][0], curve[1][0], strict=True)
    ]


def _regrets(rows: Rows, choices: NDArray[np.intp], dial: tuple[float, ...], weights: Weights) -> dict[str, Vector]:
    """Regret to the oracle at a few stops, each divided by that of a random choice, and their mean."""
    ratios = []
    for stop, choice in list(zip(dial, choices, strict=True))[1::6]:
        utility = rows.quality * stop - rows.cost_usd
        best = metrics.mean(utility.max(axis=1), weights)
        own = metrics.mean(np.take_along_axis(utility, choice[:, None], axis=1)[:, 0], weights)
        random = metrics.mean(utility.mean(axis=1), weights)
        ratios.append((best - own) / np.maximum(best - random, 1e-12))
    return {"regret": np.mean(ratios, axis=0)}


def _preset(rows: Rows, policy: Policy, weights: Weights, singles: tuple[Matrix, Matrix], best_single: int) -> Report:
    # Without measured latencies the router itself falls back on expected output tokens.
    latency = rows.output_tokens if policy.kind in _LATENCY_KINDS else None
    anchor = rows.candidates.index(policy.anchor) if policy.anchor in rows.candidates else None
    choice = choose(rows.predicted, rows.predicted_cost, policy, latency_s=latency, anchor=anchor)
    spent, reached = (curve[:, 0] for curve in _curve(choice[None, :], rows, weights))
    shares = np.bincount(choice, minlength=len(rows.candidates)) / len(choice)
    return {
        "kind": policy.kind,
        "value": policy.value,
        "cost_usd": summary(spent),
        "quality": summary(reached),
        "quality_minus_best_single": summary(reached - singles[1][:, best_single]),
        "saving": summary(1 - spent / singles[0][:, best_single]),
        "gain_over_hull": summary(metrics.gain_over_hull(spent, reached, singles)),
        "shares": {name: float(share) for name, share in zip(rows.candidates, shares, strict=True) if share > 0},
    }
