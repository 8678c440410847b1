"""Are certificates kept, and what do they cost? Over many draws of labelled rows.

Run with ``python benchmarks/certificate.py --data DIR [--seeds 5] [--draws 200]``: trains one bundle per seed, then
takes its test rows as the whole population, so that the true risk of every policy is known exactly, and certifies on
as many rows drawn from it with replacement. A violation is a certified policy whose true risk misses the promise; its
share must not exceed δ. The saving is compared with that of the boldest policy which keeps the promise on the drawn
rows without any bound. Prints a table and writes ``benchmarks/results/certificate_NAME.json``.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

GOALS = (
    ("fall_below", 0.01),
    ("fall_below", 0.02),
    ("fall_below", 0.05),
    ("fall_below", 0.1),
    ("keep", 0.95),
    ("keep", 0.99),
    ("keep", 1.0),
)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=5, show_default=True)
@click.option("--draws", default=200, show_default=True, help="Per seed.")
@click.option("--candidates", multiple=True, help="Glob; may be given again.")
@click.option("--name", help="Of the result file. Default: the data folder's.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, seeds: int, draws: int, candidates: tuple[str, ...], name: str | None, results: Path) -> None:
    """Draw, certify, count."""
    table = {goal: {"violations": 0, "abstained": 0, "saving": [], "uncertified": [], "n": []} for goal in GOALS}
    for seed in range(seeds):
        rows, anchor = population(data, seed, candidates)
        for goal in GOALS:
            run(rows, anchor, goal, draws, seed, table[goal])
        click.echo(f"seed {seed}: {len(rows.tasks)} rows, {len(rows.candidates)} candidates")
    found = [summarise(goal, entry, seeds * draws) for goal, entry in table.items()]
    click.echo(f"\n{'promise':>18} {'violations':>22} {'abstained':>10} {'saving':>8} {'uncertified':>12} {'ratio':>6}")
    for row in found:
        low, high = row["violation_interval"]
        share = f"{row['violation_rate']:.3f} ({low:.3f}–{high:.3f})"
        click.echo(
            f"{row['goal']:>11} {row['level']:6.2f} {share:>22} {row['abstained_rate']:10.2f} {row['saving']:8.3f} "
            f"{row['uncertified_saving']:12.3f} {row['saving_ratio']:6.2f}"
        )
    results.mkdir(parents=True, exist_ok=True)
    document = {"data": name or data.name, "seeds": seeds, "draws_per_seed": draws, "delta": 0.1, "goals": found}
    (results / f"certificate_{name or data.name}.json").write_text(json.dumps(document, indent=1) + "\n")


def population(data: Path, seed: int, candidates: tuple[str, ...]):
    """Return one row per group of the test part of a freshly trained bundle, and the anchor."""
    from routing_data import implied_prices, split
    from training.certify import independent
    from training.fitting import fit
    from training.judgement import pool_of
    from training.pipeline import export, load, rows_of
    from training.settings import Settings

    settings = Settings(seed=seed, candidates=candidates)
    table = load([data], candidates)
    parts = split(table.groups, asdict(settings.split), seed)
    with threadpool_limits(limits=1):
        fitted = fit(table, parts, implied_prices(table), settings)
        rows = rows_of(table, fitted, export(fitted))
    rows = rows.columns(pool_of(rows))
    anchor = int(np.argmax(np.nanmean(rows.quality[parts == "train"], axis=0)))
    test = rows.select((parts == "test") & rows.complete)
    return independent(test), anchor


def run(rows, anchor: int, goal: tuple[str, float], draws: int, seed: int, entry: dict) -> None:
    """Certify on many draws; the population is what is true."""
    from router.policy import choose
    from training.certify import Goal, loss_of, p_value, sequence

    wanted = Goal(*goal)
    steps = sequence(wanted, rows.candidates[anchor])
    choices = [choose(rows.predicted, rows.predicted_cost, step, anchor=anchor) for step in steps]
    losses = np.array([loss_of(rows, wanted, anchor, choice) for choice in choices])
    every = np.arange(len(rows.tasks))
    savings = np.array([1 - rows.cost_usd[every, c].sum() / rows.cost_usd[:, anchor].sum() for c in choices])
    most = wanted.level if wanted.kind == "fall_below" else 0.5
    true = losses.mean(axis=1)
    for draw in range(draws):
        drawn = np.random.default_rng([seed, draw]).integers(len(every), size=len(every))
        passed = 0
        while passed < len(steps) and p_value(losses[passed, drawn], wanted) <= 1 - wanted.confidence:
            passed += 1
        seeming = losses[:, drawn].mean(axis=1) <= most
        without = int(np.argmin(seeming)) if not seeming.all() else len(steps)
        entry["violations"] += bool(passed and true[passed - 1] > most)
        entry["abstained"] += not passed
        entry["saving"].append(float(savings[passed - 1]) if passed else 0.0)
        entry["uncertified"].append(float(savings[without - 1]) if without else 0.0)
        entry["n"].append(len(every))


def summarise(goal: tuple[str, float], entry: dict, n_draws: int) -> dict:
    """Return rates with exact binomial intervals, and mean savings."""
    interval = binomtest(entry["violations"], n_draws).proportion_ci(0.95)
    saving, uncertified = float(np.mean(entry["saving"])), float(np.mean(entry["uncertified"]))
    return {
        "goal": goal[0],
        "level": goal[1],
        "violation_rate": entry["violations"] / n_draws,
        "violation_interval": [float(interval.low), float(interval.high)],
        "abstained_rate": entry["abstained"] / n_draws,
        "saving": saving,
        "uncertified_saving": uncertified,
        "saving_ratio": saving / uncertified if uncertified else float("nan"),
        "labels": [min(entry["n"]), max(entry["n"])],
    }


if __name__ == "__main__":
    main()
