"""Do the gates refuse what is worse and let pass what is not? Real trainings, many seeds.

Run with ``python benchmarks/gates.py --data DIR [--seeds 10] [--config TOML]``. For each seed (another split, another
holdout) a champion is trained on half of the training prompts, then challengers: an honest ``equal`` one on the other
half, a ``better`` one on both, one on ``shuffled`` labels, and those of which one task slice (another for each seed) is
damaged: its labels ``inverted`` or ``mixed up`` among its prompts and candidates. Labels of held-out rows are never
touched. Prints and writes how often each was refused, with a 95 % Clopper–Pearson interval, and by which gates:
``benchmarks/results/gates_NAME.json``.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
from scipy.stats import beta

KINDS = ("equal", "better", "shuffled", "slice inverted", "slice mixed up")
HONEST = {"equal", "better"}


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=10, show_default=True)
@click.option("--config", type=click.Path(path_type=Path), help="TOML as of 'turnout retrain'.")
@click.option("--least", default=0.02, show_default=True, help="Share of the prompts that a slice to damage has.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, seeds: int, config: Path | None, least: float, results: Path) -> None:
    """Train, damage, judge, count."""
    from training.pipeline import load
    from training.retrain_settings import read_retrain_settings

    settings, table = read_retrain_settings(config), load([data])
    found: dict[str, list[list[str]]] = {kind: [] for kind in KINDS}
    for seed in range(seeds):
        for kind, failed in one_seed(table, settings, seed, least).items():
            found[kind].append(failed)
            click.echo(f"seed {seed} {kind:16} {'refused by ' + ', '.join(failed) if failed else 'passed'}")
    document = {"data": data.name, "seeds": seeds, "gates": asdict(settings.gates), "kinds": {}}
    click.echo(f"\n{'challenger':16}{'refused':>10}{'95 % interval':>18}  most often by")
    for kind, runs in found.items():
        n = sum(bool(failed) for failed in runs)
        low, high = interval(n, len(runs))
        reasons = Counter(name for failed in runs for name in failed)
        document["kinds"][kind] = {
            "is_honest": kind in HONEST,
            "n_refused": n,
            "n": len(runs),
            "low": low,
            "high": high,
            "reasons": dict(reasons.most_common()),
        }
        often = ", ".join(f"{name} ({k})" for name, k in reasons.most_common(3))
        click.echo(f"{kind:16}{n:>6}/{len(runs)}{low:>11.0%} to {high:.0%}  {often}")
    results.mkdir(parents=True, exist_ok=True)
    (results / f"gates_{data.name}.json").write_text(json.dumps(document, indent=1) + "\n")


def interval(n: int, of: int) -> tuple[float, float]:
    low = 0.0 if n == 0 else float(beta.ppf(0.025, n, of - n + 1))
    return low, 1.0 if n == of else float(beta.ppf(0.975, n + 1, of - n))


def one_seed(table, settings, seed: int, least: float) -> dict[str, list[str]]:
    """Return, by kind of challenger, the gates that refused it."""
    from router.bundle import load
    from routing_data import split
    from training.contest import meet
    from training.duplicates import Overlap
    from training.gates import judge
    from training.pipeline import build

    rng = np.random.default_rng(seed)
    training = replace(settings.training, seed=seed)
    parts = split(table.groups, asdict(training.split), seed)
    half = split(table.groups, {"one": 0.5, "other": 0.5}, seed + 1_000_000)
    both = (parts != "train") | (half == "one"), (parts != "train") | (half == "other")
    taught = np.flatnonzero(parts != "test")
    tasks = np.asarray(table.tasks)
    large = [task for task in np.unique(tasks) if (tasks == task).mean() >= least]
    slice_rows = taught[tasks[taught] == rng.choice(large)]

    def relabelled(rows, values):
        quality = table.quality.copy()
        quality[rows] = values
        return replace(table, quality=quality)

    mixed = table.quality[slice_rows].ravel()
    shuffled = table.quality[rng.permutation(taught)]
    tables = {
        "equal": table.select(np.flatnonzero(both[1])),
        "better": table,
        "shuffled": relabelled(taught, np.where(np.isnan(table.quality[taught]), np.nan, mean_filled(shuffled))),
        "slice inverted": relabelled(slice_rows, 1 - table.quality[slice_rows]),
        "slice mixed up": relabelled(slice_rows, rng.permutation(mixed).reshape(len(slice_rows), -1)),
    }
    held = table.select(np.flatnonzero(parts == "test"))
    with tempfile.TemporaryDirectory() as folder:
        build(table.select(np.flatnonzero(both[0])), Path(folder) / "champion" / "1", training)
        champion = load(Path(folder) / "champion" / "1")
        failed = {}
        for kind, taught_table in tables.items():
            out = Path(folder) / "challenger" / kind.replace(" ", "-")
            build(taught_table, out, training)
            contest = meet(
                champion,
                load(out),
                held,
                None,
                Overlap(len(held.prompts), 0, 0),
                min_slice=settings.gates.min_slice,
                confidence=settings.gates.confidence,
                time_ratio=lambda *_: 1.0,
            )
            failed[kind] = [gate.name for gate in judge(contest, settings.gates) if not gate.is_passed]
    return failed


def mean_filled(quality):
    return np.where(np.isnan(quality), np.nanmean(quality, axis=0), quality)


if __name__ == "__main__":
    main()
