"""Measure how many labels a new candidate needs: each candidate in turn is left out and brought back from k labels.

Run with ``python benchmarks/onboarding.py --data DIR [--cache DIR]``: per seed, one bundle is trained on all candidates
and one on all but each; the one left out is onboarded from k labels drawn among the training rows (with the outcomes of
the others on the same prompts, and once without), and joins the pool on the test rows. It prints the table and writes
``benchmarks/results/onboarding_NAME.json``, NAME being the data folder's. Trained bundles are kept in the cache.

G is measured twice: at the stop of the dial chosen for the pool without the newcomer, since presets stay as they were,
and at one chosen anew on validation rows (``gap_retuned``), as the bundle trained jointly has it. Coverage of the 90 %
interval too: of the jointly trained bundle's prediction for the same prompt, and of the mean outcome in ten bins of
prompts scored alike.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

KS = (8, 16, 32, 64, 128, 256, None)
NEIGHBOURS = (4, 8, 16, 32, 64, 128)
FIGURES = (
    "naiq",
    "gap_closed",
    "gap_retuned",
    "auc",
    "brier_skill",
    "level_error",
    "covers_full",
    "covers_bins",
    "width",
    "p90",
)


@dataclass
class Said:
    """A bundle and what it says of every row of the table."""

    manifest: Any
    features: np.ndarray
    outputs: dict[str, np.ndarray]


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--cache", type=click.Path(path_type=Path), help="Keeps the bundles for the next run.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--draws", default=5, show_default=True, help="Of labels, per k.")
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, cache: Path | None, seeds: int, draws: int, results: Path) -> None:
    """Leave out, onboard, measure."""
    from training.pipeline import finite, load

    table = load([data])
    scratch = tempfile.TemporaryDirectory()
    folder = cache or Path(scratch.name)
    found: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for seed in range(seeds):
        full = said_by(data, table, folder / f"{data.name}-{seed}" / "full", seed, table.candidates)
        for newcomer in table.candidates:
            others = tuple(name for name in table.candidates if name != newcomer)
            before = said_by(data, table, folder / f"{data.name}-{seed}" / newcomer.replace("/", "_"), seed, others)
            for method, k, figures in measured(table, full, before, newcomer, seed, draws):
                found.setdefault((method, k, newcomer), []).append(figures)
        click.echo(f"seed {seed} done", err=True)
    scratch.cleanup()
    summary = {
        method: {
            k: {"all": mean_of([f for (a, b, _), fs in found.items() if (a, b) == (method, k) for f in fs])}
            | {name: mean_of(found[method, k, name]) for name in table.candidates}
            for k in dict.fromkeys(b for (a, b, _) in found if a == method)
        }
        for method in dict.fromkeys(a for a, _, _ in found)
    }
    show(summary)
    document = {"data": data.name, "seeds": seeds, "draws": draws, "commit": commit(), "mean": summary}
    results.mkdir(parents=True, exist_ok=True)
    (results / f"onboarding_{data.name}.json").write_text(json.dumps(rounded(finite(document)), indent=1) + "\n")


def said_by(data: Path, table: Any, folder: Path, seed: int, candidates: tuple[str, ...]) -> Said:
    """Train, unless it is in the cache, and predict every row once."""
    from router.bundle import load
    from training.pipeline import train
    from training.settings import read_settings

    if not (folder / "bundle").exists():
        settings = replace(read_settings(None), seed=seed, candidates=candidates)
        train([data], folder / "bundle", settings)
    bundle = load(folder / "bundle")
    if not (folder / "said.npz").exists():
        starts = range(0, len(table.prompts), 256)
        features = np.concatenate([bundle.encoder.encode(table.prompts[start : start + 256]) for start in starts])
        np.savez(folder / "said.npz", features=features, **bundle.predictor.predict(features))
    outputs = dict(np.load(folder / "said.npz"))
    return Said(bundle.manifest, outputs.pop("features"), outputs)


class Scene:
    """One candidate left out: what there is to learn from, and the test rows to route on.

    Parameters
    ----------
    table : OutcomeTable
    bundle : Said
        Of all candidates, or of all but the newcomer.
    newcomer : str
    seed : int
    """

    def __init__(self, table: Any, bundle: Said, newcomer: str, seed: int) -> None:
        from router.domain import Price
        from routing_data import implied_prices, split
        from training.operating import OperatingPoints

        parts = split(table.groups, bundle.manifest.training["config"]["split"], seed)
        self.table, self.outputs, self.new = table, bundle.outputs, table.candidates.index(newcomer)
        self.train, self.test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
        self.validation = np.flatnonzero((parts == "validation") | (parts == "calibration"))
        self.old = [j for j in range(len(table.candidates)) if j != self.new]
        self.known = bundle.outputs["quality"].astype(float)
        self.tasks = bundle.outputs["task_probability"].astype(float)
        self.known_tokens = bundle.outputs["output_tokens"].astype(float)
        self.best_single = int(np.argmax(table.quality[self.train].mean(axis=0)))
        points = bundle.manifest.metrics["points"]
        saving = {float(level): stop for level, stop in points["saving"].items()}
        self.points = OperatingPoints(points["best"], saving, tuple(points["frontier"]))
        self.prices = [Price(*price) for price in map(implied_prices(table).get, table.candidates)]
        per_character = np.mean([column.input_tokens_per_character for column in bundle.manifest.candidates])
        lengths = np.array([len(prompt) for prompt in table.prompts])
        self.input_tokens = (lengths * per_character)[:, None].repeat(len(table.candidates), axis=1)

    def route(self, quality: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
        """Route the test rows by predictions for all candidates."""
        from router.pricing import expected_cost_usd
        from training.evaluate import Rows, evaluate
        from training.operating import choose_points

        table, cost = self.table, expected_cost_usd(self.prices, self.input_tokens, tokens)
        given = (quality, cost, tokens, tokens, table.quality.astype(float), table.cost_usd, table.output_tokens)
        rows = Rows(
            table.candidates,
            *(values[self.test] for values in given),
            tasks=[table.tasks[i] for i in self.test],
            groups=[table.groups[i] for i in self.test],
        )
        seen = (array[self.validation] for array in (quality, cost, table.quality.astype(float), table.cost_usd))
        again = choose_points(*seen, self.best_single)
        first, second = (
            evaluate(rows, points, {}, self.best_single, 0, 0)["metrics"] for points in (self.points, again)
        )
        return {
            "naiq": first["naiq"]["value"],
            "gap_closed": first["gap_closed"]["value"],
            "gap_retuned": second["gap_closed"]["value"],
        }

    def add(self, quality: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
        """Route among the known candidates and one of these predictions."""
        return self.route(
            np.insert(self.known, self.new, quality, axis=1), np.insert(self.known_tokens, self.new, tokens, axis=1)
        )


def measured(
    table: Any, full: Said, before: Said, newcomer: str, seed: int, draws: int
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield (method, k, figures) for one candidate and seed."""
    from training.ability import fit_quality, fit_tokens

    whole, scene = Scene(table, full, newcomer, seed), Scene(table, before, newcomer, seed)
    new, test = scene.new, scene.test
    labels, outcomes = table.quality[:, new].astype(float), table.quality[:, scene.old].astype(float)
    jointly = whole.known[:, new]
    bounds = tuple(full.outputs[name][:, new] for name in ("quality_low", "quality_high"))
    figures = predicting(jointly, bounds, jointly, labels, test)
    yield "trained with all labels", "all", whole.route(whole.known, whole.known_tokens) | figures
    yield "without the newcomer", "0", scene.add(np.zeros(len(labels)), whole.known_tokens[:, new])

    for k in KS:
        for draw in range(draws if k else 1):
            rows = np.random.default_rng(draw).choice(scene.train, k, replace=False) if k else scene.train
            if labels[rows].min() == labels[rows].max():
                continue
            mean, p90 = fit_tokens(scene.known_tokens[rows], table.output_tokens[rows, new]).tokens(scene.known_tokens)
            covered = {"p90": float((table.output_tokens[test, new] <= p90[test]).mean())}
            columns = {
                method: fit_quality(scene.known[rows], scene.tasks[rows], labels[rows], seen[rows]).quality(
                    scene.known, scene.tasks
                )
                for method, seen in (("onboard", outcomes), ("onboard, no outcomes of others", np.nan * outcomes))
            }
            for method, quality in baselines(scene.known, before.features, labels, rows).items():
                columns[method] = (quality,)
            for method, (quality, *bounds) in columns.items():
                figures = predicting(quality, bounds, jointly, labels, test) | covered
                yield method, str(k or "all"), scene.add(quality, mean) | figures


def baselines(known: np.ndarray, features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Predict the newcomer in three simple ways."""
    mean = (labels[rows].sum() + 1) / (len(rows) + 2)
    fit = ((known[rows] - labels[rows, None]) ** 2).mean(axis=0)
    found = {"constant": np.full(len(labels), mean), "copy of the most similar": known[:, int(fit.argmin())]}
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    if len(rows) <= 512:  # with all labels this is another benchmark's business
        order = np.argsort(-(unit @ unit[rows].T), axis=1)
        errors = {}
        for n in (n for n in NEIGHBOURS if n < len(rows)):
            left_out = labels[rows][order[rows, 1 : n + 1]].mean(axis=1)
            errors[n] = float(((left_out - labels[rows]) ** 2).mean())
        found["nearest neighbours"] = labels[rows][order[:, : min(errors, key=lambda n: errors[n])]].mean(axis=1)
    return found


def predicting(
    quality: np.ndarray, bounds: Any, jointly: np.ndarray, labels: np.ndarray, test: np.ndarray
) -> dict[str, float]:
    """Measure the newcomer's own column on test rows."""
    from training import metrics

    ones, said, label = np.ones((1, len(test))), quality[test], labels[test]
    figures = {
        "auc": float(metrics.auc(said, label, ones)[0]),
        "brier_skill": float(metrics.brier_skill(said, label, ones)[0]),
        "level_error": float(abs(said.mean() - label.mean())),
    }
    if bounds:
        low, high = (bound[test] for bound in bounds)
        bins = np.array_split(np.argsort(said, kind="stable"), 10)
        figures["covers_full"] = float(((low <= jointly[test]) & (jointly[test] <= high)).mean())
        covered = [low[b].mean() <= label[b].mean() <= high[b].mean() for b in bins]
        figures["covers_bins"] = float(np.mean(covered))
        figures["width"] = float((high - low).mean())
    return figures


def show(summary: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    """Print means over candidates, seeds and draws; nAIQ also as a share of that of the bundle trained jointly."""
    goal = summary["trained with all labels"]["all"]["all"]["naiq"]
    click.echo(f"{'method':32}{'k':>5}{'share':>7}" + "".join(f"{name:>13}" for name in FIGURES))
    for method, by_k in summary.items():
        for k, entry in by_k.items():
            figures = entry["all"]
            shown = "".join(f"{figures[name]:13.3f}" if name in figures else f"{'–':>13}" for name in FIGURES)
            click.echo(f"{method:32}{k:>5}{figures['naiq'] / goal:7.0%}{shown}")


def mean_of(entries: list[dict[str, float]]) -> dict[str, float]:
    """Average each figure."""
    return {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0]} if entries else {}


def rounded(value: Any) -> Any:
    """Keep four digits after the point."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def commit() -> str:
    """Return the commit this ran at."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()


if __name__ == "__main__":
    main()
