"""Do the gates refuse what is worse and let pass what is not? Real trainings, many seeds.

Run with ``python benchmarks/gates.py --data DIR [--seeds 10] [--first-seed 0] [--config TOML]``. For each seed (another
split, another holdout) a champion is trained on half of the training prompts, then challengers: an honest ``equal`` one
on the other half, a ``better`` one on both, one on ``shuffled`` labels, and those of which one task slice (another for
each seed) is damaged: its labels ``inverted`` or ``mixed up`` among its prompts and candidates. Labels of held-out rows
are never touched. Prints and writes how often each was refused, with a 95 % Clopper–Pearson interval, by which gates,
and what harm was done in the damaged slice; ``benchmarks/results/gates_NAME.json``.

Harm is measured against the champion on the slice's held-out rows: squared error, that of differences between
candidates, and quality net of cost, the mean over the presets. Where the table says what is true (``truth.parquet``:
the probability of every outcome), that stands for the outcomes, and harm is exact.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import beta

KINDS = ("equal", "better", "shuffled", "slice inverted", "slice mixed up")
HONEST = {"equal", "better"}
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Match:
    """A challenger against its champion."""

    kind: str
    damaged: str
    n_damaged: int
    contest: Any


def held_out(table, settings, seed: int):
    """Return the numbers of the rows that judge."""
    from routing_data import split

    return np.flatnonzero(split(table.groups, asdict(settings.training.split), seed) == "test")


def matches(table, settings, seed: int, least: float) -> Iterator[Match]:
    """Train a champion and every kind of challenger; the damaged slice is of at least this share of the prompts."""
    from router.bundle import load
    from routing_data import split
    from training.contest import meet
    from training.duplicates import Overlap
    from training.embed import embed
    from training.fitted_encoder import N_TOPIC_COLUMNS, kept_encoder
    from training.pipeline import Taught, build

    rng = np.random.default_rng(seed)
    training = replace(settings.training, seed=seed)
    parts = split(table.groups, asdict(training.split), seed)
    half = split(table.groups, {"one": 0.5, "other": 0.5}, seed + 1_000_000)
    one, other = (np.flatnonzero((parts != "train") | (half == name)) for name in ("one", "other"))
    taught = np.flatnonzero(parts != "test")
    tasks = np.asarray(table.tasks)
    large = [task for task in np.unique(tasks) if (tasks == task).mean() >= least]
    damaged = str(rng.choice(large))
    slice_rows = taught[tasks[taught] == damaged]

    def relabelled(rows, values):
        quality = table.quality.copy()
        quality[rows] = values
        return replace(table, quality=quality)

    every = np.arange(len(tasks))
    mixed = table.quality[slice_rows].ravel()
    shuffled = table.quality[rng.permutation(taught)]
    tables = {
        "equal": (table, other),
        "better": (table, every),
        "shuffled": (
            relabelled(taught, np.where(np.isnan(table.quality[taught]), np.nan, mean_filled(shuffled))),
            every,
        ),
        "slice inverted": (relabelled(slice_rows, 1 - table.quality[slice_rows]), every),
        "slice mixed up": (relabelled(slice_rows, rng.permutation(mixed).reshape(len(slice_rows), -1)), every),
    }
    at = held_out(table, settings, seed)
    held, n_damaged = table.select(at), int((tasks[at] == damaged).sum())
    with tempfile.TemporaryDirectory() as folder:
        build(table.select(one), Path(folder) / "champion" / "1", training)
        champion = load(Path(folder) / "champion" / "1")
        encoder, features, provenance = None, None, {}
        if settings.retrain.encoder == "champion":
            encoder, n_topics = kept_encoder(champion)
            features, provenance = embed(encoder.encoder, table.prompts, None), {N_TOPIC_COLUMNS: n_topics}
        for kind, (lessons, rows) in tables.items():
            out = Path(folder) / "challenger" / kind.replace(" ", "-")
            own = None if features is None else features[rows]
            build(
                lessons.select(rows),
                out,
                training,
                taught=Taught(encoder=encoder, features=own, provenance=provenance),
            )
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
            yield Match(kind, damaged, n_damaged, contest)


def mean_filled(quality):
    return np.where(np.isnan(quality), np.nanmean(quality, axis=0), quality)


def harm_of(match: Match, truth: dict[str, np.ndarray] | None, held_ids: list[str]) -> dict[str, float]:
    """Return what the damaged slice lost against the champion; see the module."""
    contest = match.contest
    if truth is not None:
        probability, cost = (np.array([truth[i][k] for i in held_ids]) for k in (0, 1))
        old, new = (replace(rows, quality=probability, cost_usd=cost) for rows in (contest.old, contest.new))
        contest = replace(contest, old=old, new=new)
    kept = np.array([task == match.damaged for task in contest.old.tasks])
    presets = contest.presets()
    return {
        "loss": contest.loss(kept).value,
        "order": contest.order(kept).value,
        "utility": float(np.mean([contest.utility_loss(preset, kept).value for preset in presets])),
    }


def truth_of(data: Path, candidates: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """Return true probabilities and costs by prompt, each of shape (2, m), where the table says them."""
    import pandas as pd

    if not (data / "truth.parquet").exists():
        return None
    frame = pd.read_parquet(data / "truth.parquet")
    wide = frame.pivot(index="prompt_id", columns="candidate", values=["probability", "expected_cost_usd"])
    return {i: np.array([wide.loc[i, name][list(candidates)] for name in wide.columns.levels[0]]) for i in wide.index}


def interval(n: int, of: int) -> tuple[float, float]:
    low = 0.0 if n == 0 else float(beta.ppf(0.025, n, of - n + 1))
    return low, 1.0 if n == of else float(beta.ppf(0.975, n + 1, of - n))


def summary(runs: list[dict], kind: str, bound: float) -> dict[str, object]:
    """Count the refusals of one kind of challenger, of all and of those whose slice lost more than the gate allows."""
    n, reasons = sum(bool(run["refused_by"]) for run in runs), Counter(g for run in runs for g in run["refused_by"])
    low, high = interval(n, len(runs))
    found = {"is_honest": kind in HONEST, "n_refused": n, "n": len(runs), "low": low, "high": high}
    found["n_refused_by_certificates_alone"] = sum(
        bool(run["refused_by"]) and all(gate.startswith("certificate") for gate in run["refused_by"]) for run in runs
    )
    beyond = [run for run in runs if max(run["harm"]["loss"], run["harm"]["order"]) > bound]
    if kind.startswith("slice"):
        found["n_beyond_bound"] = len(beyond)
        found["n_refused_beyond_bound"] = sum(bool(run["refused_by"]) for run in beyond)
        found["n_slice_named"] = sum(any(run["damaged"] in gate for gate in run["refused_by"]) for run in runs)
        found["mean_harm"] = {name: float(np.mean([run["harm"][name] for run in runs])) for name in runs[0]["harm"]}
    return {**found, "reasons": dict(reasons.most_common()), "runs": runs}


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--seeds", default=10, show_default=True)
@click.option("--first-seed", default=0, show_default=True)
@click.option("--config", type=click.Path(path_type=Path), default=HERE / "gates.toml", help="As of 'turnout retrain'.")
@click.option("--least", default=0.02, show_default=True, help="Share of the prompts that a slice to damage has.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE / "results")
def main(data: Path, seeds: int, first_seed: int, config: Path, least: float, results: Path) -> None:
    """Train, damage, judge, count."""
    from training.gates import judge
    from training.pipeline import load
    from training.retrain_settings import read_retrain_settings

    settings, table = read_retrain_settings(config), load([data])
    truth = truth_of(data, table.candidates)
    runs: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    results.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + seeds):
        begun, held = time.process_time(), held_out(table, settings, seed)
        for match in matches(table, settings, seed, least):
            failed = [gate.name for gate in judge(match.contest, settings.gates) if not gate.is_passed]
            harm = harm_of(match, truth, [table.prompt_ids[i] for i in held])
            runs[match.kind].append(
                {
                    "seed": seed,
                    "damaged": match.damaged,
                    "n_held_out": match.n_damaged,
                    "harm": harm,
                    "refused_by": failed,
                }
            )
            said = f"refused by {', '.join(failed)}" if failed else "passed"
            click.echo(f"seed {seed} {match.kind:16} {match.damaged}: {_words(harm)}: {said}")
        click.echo(f"seed {seed}: {time.process_time() - begun:.0f} s of CPU")
        document = {
            "data": data.name,
            "first_seed": first_seed,
            "seeds": seed + 1 - first_seed,
            "prompts": len(table.prompts),
            "harm_is_exact": truth is not None,
            "gates": asdict(settings.gates),
            "kinds": {kind: summary(found, kind, settings.gates.slice_loss) for kind, found in runs.items()},
        }
        (results / f"gates_{data.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    click.echo(f"\n{'challenger':16}{'refused':>10}{'95 % interval':>18}  most often by")
    for kind, found in document["kinds"].items():
        often = ", ".join(f"{name} ({k})" for name, k in list(found["reasons"].items())[:3])
        share = f"{found['n_refused']:>6}/{found['n']}{found['low']:>11.0%} to {found['high']:.0%}"
        click.echo(f"{kind:16}{share}  {often}")
        if "mean_harm" in found:
            beyond = f"{found['n_refused_beyond_bound']} of {found['n_beyond_bound']}"
            click.echo(f"{'':16}mean harm there {_words(found['mean_harm'])}; beyond the bound, refused: {beyond}")


def _words(harm: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:+.4f}" for name, value in harm.items())


if __name__ == "__main__":
    main()
