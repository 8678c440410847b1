"""Do off-policy estimates tell the truth? Logs replayed from an outcome table, whose every answer is known.

Run with ``python benchmarks/ope.py [--data DIR] [--logs 300]``. The rows of the table are the population, so that the
true quality and cost of every policy are known exactly. A logging policy (a willingness to pay, with a share of
uniform exploration) is run on rows drawn with replacement; ``training.ope`` sees who was chosen, with which
propensity, and what came of it, and evaluates other policies. Counted are bias and coverage of the 95 % intervals,
where the log was not refused, and how often it was. The predictions are those of a ridge regression on words, made
out of fold; nothing here depends on their worth but how much ``dr`` gains. Prints a table and writes
``benchmarks/results/ope_NAME.json``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import click
import numpy as np
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parent.parent
EXPLORED = (0.0, 0.05, 0.2)
N_REQUESTS = (1_000, 5_000)
METHODS = ("ips", "snips", "dr")
_N_FOLDS = 4


class World:
    """Prompts with the outcome of every candidate, predictions for them, and the policies in question."""

    def __init__(self, data: Path) -> None:
        from router.domain import Policy
        from router.policy import choose
        from training.operating import dial_of
        from training.pipeline import load

        table = load([data])
        complete = np.isfinite(table.quality).all(axis=1) & np.isfinite(table.cost_usd).all(axis=1)
        if not complete.any():
            raise click.ClickException(f"{data}: no prompt has quality and cost of every candidate")
        table = table.select(np.flatnonzero(complete))
        self.quality, self.cost = table.quality.astype(float), table.cost_usd.astype(float)
        self.predicted = out_of_fold(table.prompts, self.quality, table.groups)
        self.predicted_cost = np.tile(self.cost.mean(axis=0), (len(self.cost), 1))
        dial = dial_of(self.cost)

        def at(part: float) -> np.ndarray:
            stop = dial[round(part * (len(dial) - 1))]
            return choose(self.predicted, self.predicted_cost, Policy("willingness_to_pay_usd", stop))

        n, m = self.quality.shape
        self.logging = at(0.6)
        best, cheapest = int(self.quality.mean(axis=0).argmax()), int(self.cost.mean(axis=0).argmin())
        one = np.eye(m)
        self.targets = {
            "a little bolder": one[at(0.5)],
            "much bolder": one[at(0.2)],
            "more careful": one[at(0.8)],
            "always the best single": one[np.full(n, best)],
            "always the cheapest": one[np.full(n, cheapest)],
            "uniform": np.full((n, m), 1 / m),
        }


def out_of_fold(prompts, quality: np.ndarray, groups) -> np.ndarray:
    """Predict each row by a ridge regression on hashed words that has not seen its group."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import Ridge

    from routing_data import split

    words = HashingVectorizer(n_features=2**12, norm="l2").transform(list(prompts))
    folds = split(groups, {str(k): 1 / _N_FOLDS for k in range(_N_FOLDS)}, 0)
    predicted = np.empty_like(quality)
    for fold in np.unique(folds):
        own = folds == fold
        predicted[own] = Ridge(1.0, solver="sparse_cg").fit(words[~own], quality[~own]).predict(words[own])
    return np.clip(predicted, 0, 1)


def replayed(world: World, explored: float, n_requests: int, n_logs: int) -> list[dict]:
    """Draw logs, evaluate every target on each; quality and cost."""
    from training.errors import NoOverlap
    from training.ope import Logged, evaluate

    n, m = world.quality.shape
    propensities = np.full((n, m), explored / m)
    propensities[np.arange(n), world.logging] += 1 - explored
    upto = propensities.cumsum(axis=1)[:, :-1]
    rewards = {"quality": (world.quality, world.predicted), "cost_usd": (world.cost, world.predicted_cost)}
    cells: dict = {}
    for seed in range(n_logs):
        rng = np.random.default_rng([seed, n_requests])
        row = rng.integers(n, size=n_requests)
        chosen = (rng.random((n_requests, 1)) > upto[row]).sum(axis=1)
        propensity = propensities[row, chosen]
        for metric, (truth, predicted) in rewards.items():
            log = Logged(chosen, propensity, truth[row, chosen], predicted[row])
            for name, target in world.targets.items():
                cell = cells.setdefault((metric, name), {"refused": 0, "effective": [], "found": []})
                try:
                    found = evaluate(log, target[row])
                except NoOverlap:
                    cell["refused"] += 1
                    continue
                cell["effective"].append(found.overlap.effective)
                cell["found"].append([(e.value, e.low, e.high) for e in map(found.estimates.get, METHODS)])
    entries = []
    for (metric, name), cell in cells.items():
        true = float((rewards[metric][0] * world.targets[name]).sum(axis=1).mean())
        entry = {
            "metric": metric,
            "explored": explored,
            "requests": n_requests,
            "target": name,
            "true": true,
            "refused_share": cell["refused"] / n_logs,
            "effective_median": float(np.median(cell["effective"])) if cell["effective"] else None,
        }
        if cell["found"]:
            found = np.array(cell["found"])  # (logs, methods, value and bounds)
            inside = (found[:, :, 1] <= true) & (true <= found[:, :, 2])
            for j, method in enumerate(METHODS):
                interval = binomtest(int(inside[:, j].sum()), len(found)).proportion_ci(0.95)
                entry[method] = {
                    "bias": float(found[:, j, 0].mean() - true),
                    "error": float(np.sqrt(((found[:, j, 0] - true) ** 2).mean())),
                    "coverage": float(inside[:, j].mean()),
                    "coverage_interval": [float(interval.low), float(interval.high)],
                }
        entries.append(entry)
    return entries


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=ROOT / "datasets/samples/checkable")
@click.option("--logs", default=300, show_default=True, type=click.IntRange(2))
@click.option("--name", help="Of the result file. Default: the data folder's.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, logs: int, name: str | None, results: Path) -> None:
    """Log, evaluate, compare with the truth."""
    started = time.process_time()
    world = World(data)
    click.echo(f"{data.name}: {len(world.quality)} prompts, {world.quality.shape[1]} candidates, {logs} logs a cell")
    click.echo(
        f"{'metric':9}{'explored':>9}{'requests':>9}  {'target':24}{'refused':>8}{'worth':>7}  "
        + "".join(f"{m + ': bias/error, coverage':>32}" for m in METHODS)
    )
    cells = [cell for e in EXPLORED for n in N_REQUESTS for cell in replayed(world, e, n, logs)]
    for cell in cells:
        worth = "" if cell["effective_median"] is None else f"{cell['effective_median']:.0f}"
        shown = ""
        for method in METHODS:
            part = cell.get(method)
            words = "" if part is None else f"{part['bias']:+.5f}/{part['error']:.5f}, {part['coverage']:.3f}"
            shown += f"{words:>32}"
        click.echo(
            f"{cell['metric']:9}{cell['explored']:9.2f}{cell['requests']:9,}  {cell['target']:24}"
            f"{cell['refused_share']:8.2f}{worth:>7}  {shown}"
        )
    kept = [c for c in cells if c["refused_share"] < 0.5]
    summary = {
        f"{metric}, {method}": float(np.mean([c[method]["coverage"] for c in kept if c["metric"] == metric]))
        for metric in ("quality", "cost_usd")
        for method in METHODS
    }
    document = {
        "data": name or data.name,
        "prompts": len(world.quality),
        "logs": logs,
        "mean_coverage_where_not_refused": summary,
        "cpu_s": round(time.process_time() - started, 1),
        "cells": cells,
    }
    click.echo(f"mean coverage where at most half of the logs are refused: {summary}; {document['cpu_s']} s of CPU")
    results.mkdir(parents=True, exist_ok=True)
    (results / f"ope_{name or data.name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
