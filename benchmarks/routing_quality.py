"""Measure routing quality over several seeds, and draw cost against quality.

Run with ``python benchmarks/routing_quality.py --data DIR [--seeds 6]``: trains and measures one bundle per seed
(split, networks and bootstrap all follow the seed; operating points from validation rows, figures from test rows),
prints the table and writes ``benchmarks/results/routing_quality_NAME.json`` and ``cost_quality_NAME.png``, NAME being
the data folder's.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

SHOWN = (
    ("naiq", "nAIQ", 0.17),
    ("naiq_at_validation_points", "nAIQ, points from validation", None),
    ("gap_closed", "G", 0.08),
    ("gap_closed_quality_preset", "G, quality preset", None),
    ("gain_over_hull_at_best", "gain over hull at best quality", None),
    ("auc_macro", "AUC, macro", 0.742),
    ("brier_skill_macro", "Brier skill, macro", 0.175),
    ("ece_macro", "ECE, macro (at most)", 0.02),
    ("ece_largest_slice", "ECE, worst slice", None),
    ("save_95", "Save@95", 0.93),
    ("save_95_quality", "  quality reached", None),
    ("save_99", "Save@99", 0.76),
    ("save_99_quality", "  quality reached", None),
    ("save_100", "Save@100", 0.62),
    ("save_100_quality", "  quality reached", None),
    ("regret", "regret (random = 1)", None),
    ("cost_error_mean", "cost error", None),
    ("p90_coverage_mean", "p90 coverage", None),
)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--config", type=click.Path(path_type=Path))
@click.option("--seeds", default=6, show_default=True)
@click.option("--results", type=click.Path(path_type=Path), default=Path(__file__).parent / "results")
def main(data: Path, config: Path | None, seeds: int, results: Path) -> None:
    """Train and measure once per seed."""
    from training.pipeline import finite, train
    from training.settings import read_settings

    reports, seconds = [], []
    for seed in range(seeds):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            settings = replace(read_settings(config), seed=seed)
            reports.append(train([data], Path(folder) / "bundle" / str(seed), settings).report)
        seconds.append(time.perf_counter() - started)
        click.echo(f"seed {seed}: {seconds[-1]:.0f} s, nAIQ {reports[-1]['metrics']['naiq']['value']:.3f}")
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    table = summarise(reports)
    show(table, reports, seconds, peak_gb)
    results.mkdir(parents=True, exist_ok=True)
    document = {
        "data": data.name,
        "seeds": seeds,
        "seconds_per_seed": seconds,
        "peak_memory_gb": peak_gb,
        "mean_over_seeds": table,
        "per_seed": [
            {key: report.get(key) for key in ("metrics", "presets", "singles", "best_single", "oracle", "selection")}
            for report in reports
        ],
    }
    (results / f"routing_quality_{data.name}.json").write_text(json.dumps(finite(document), indent=1) + "\n")
    draw(reports, results / f"cost_quality_{data.name}.png")


def summarise(reports: list[dict]) -> dict[str, dict[str, float]]:
    """Return mean, least and most over the seeds of each measure."""
    table = {}
    for name, _, _ in SHOWN:
        values = [r["metrics"][name]["value"] for r in reports if name in r["metrics"]]
        if values:
            table[name] = {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}
    return table


def show(table: dict[str, dict[str, float]], reports: list[dict], seconds: list[float], peak_gb: float) -> None:
    """Print."""
    click.echo(f"\n{len(reports)} seeds, {np.mean(seconds):.0f} s each, {peak_gb:.2f} GB at most\n")
    click.echo(f"{'measure':34}{'mean':>8}  {'range':>16}  goal")
    for name, words, goal in SHOWN:
        if name in table:
            t = table[name]
            wanted = "" if goal is None else f"{goal:g}"
            click.echo(f"{words:34}{t['mean']:8.3f}  {t['least']:7.3f} –{t['most']:7.3f}  {wanted}")
    click.echo("\npresets, test rows, mean over seeds")
    for preset in reports[0]["presets"]:
        entries = [r["presets"][preset] for r in reports]
        gains = [e["quality_minus_best_single"] for e in entries]
        worse = sum(g["high"] < 0 for g in gains)
        click.echo(
            f"  {preset:9} quality − best single {np.mean([g['value'] for g in gains]):+.4f} "
            f"({min(g['value'] for g in gains):+.4f} to {max(g['value'] for g in gains):+.4f}; "
            f"below it beyond the interval in {worse} of {len(gains)}), "
            f"saving {np.mean([e['saving']['value'] for e in entries]):.1%}"
        )
    best = [r["singles"][r["best_single"]] for r in reports]
    cost = 1e3 * np.mean([b["cost_usd"] for b in best])
    click.echo(
        f"\nbest single {np.mean([b['quality'] for b in best]):.4f} at {cost:.3f} "
        f"USD per 1,000 calls; oracle {np.mean([r['oracle']['quality'] for r in reports]):.4f}; hull: "
        + ", ".join(f"{p['quality']:.3f} at {1e3 * p['cost_usd']:.3f}" for p in reports[0]["hull"])
    )


def draw(reports: list[dict], path: Path) -> None:
    """Draw the curves: thin lines are seeds, thick their mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.4), dpi=150)
    per_1000 = 1_000.0

    def hull_of(points: list[dict]) -> tuple[np.ndarray, np.ndarray]:
        from training.metrics import hull

        return hull(np.array([p["cost_usd"] for p in points]), np.array([p["quality"] for p in points]))

    low = min(s["cost_usd"] for r in reports for s in r["singles"].values())
    high = max(s["cost_usd"] for r in reports for s in r["singles"].values())
    grid = np.geomspace(low, high, 200)
    styles = (("curve", "tab:blue", "Turnout"), ("oracle_curve", "tab:green", "oracle"), ("hull", "tab:gray", "hull"))
    for key, colour, label in styles:
        lines = [np.interp(grid, *hull_of(r[key])) for r in reports]
        for line in lines if key == "curve" else []:
            axes.plot(per_1000 * grid, line, color=colour, alpha=0.18, linewidth=0.8)
        axes.plot(
            per_1000 * grid,
            np.mean(lines, axis=0),
            color=colour,
            linewidth=2.2 if key == "curve" else 1.3,
            linestyle="-" if key == "curve" else "--",
            label={"hull": "best mix of single models (hull)"}.get(key, label),
        )
    for name in reports[0]["singles"]:
        x = per_1000 * np.mean([r["singles"][name]["cost_usd"] for r in reports])
        y = np.mean([r["singles"][name]["quality"] for r in reports])
        axes.plot(x, y, "o", color="black", markersize=4)
        right = x < per_1000 * high / 3
        axes.annotate(
            name, (x, y), xytext=(5, -10) if right else (-5, -16), textcoords="offset points", fontsize=7.5,
            ha="left" if right else "right",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("USD per 1,000 calls (2024 list prices)")
    axes.set_ylabel("mean quality on test prompts")
    axes.set_title(f"Cost and quality, {len(reports)} splits, held-out prompts", fontsize=10)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
