"""Tables and figures from measured cells, nothing else. Entry point: :func:`write`."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training.pipeline import finite

COLUMNS = (
    ("naiq", "nAIQ", 1),
    ("auc_macro", "AUC", 1),
    ("brier_skill_macro", "Brier skill", 1),
    ("ece_macro", "ECE", 1),
    ("gap_closed", "G", 1),
    ("gap_closed_quality_preset", "G, quality preset", 1),
    ("save_95", "Save@95 %", 100),
    ("save_99", "Save@99 %", 100),
    ("save_100", "Save@100 %", 100),
    ("save_100_quality", "reached", 1),
    ("regret", "regret", 1),
    ("cost_error_mean", "cost error", 1),
)
SHIFT = (("quality_minus_best_single", "quality − best single", 1), ("gap_closed_quality_preset", "G", 1), COLUMNS[0])
REFERENCES = ("random", "cheapest", "best single", "hull of singles", "oracle")
TARGETS = (("naiq", 0.17), ("auc_macro", 0.742), ("brier_skill_macro", 0.175), ("gap_closed", 0.08),
           ("save_95", 0.93), ("save_99", 0.76), ("save_100", 0.62))  # fmt: skip


def write(cells: list[dict], results: Path, report: Path) -> None:
    """Write the report, the JSON and the figures."""
    sets: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        sets[cell["set"]][cell["router"]].append(cell)
    results.mkdir(parents=True, exist_ok=True)
    commits = ", ".join(sorted({cell["commit"] for cell in cells}))
    lines = [
        "# Every router on the same rows",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, run at commit {commits}. Made by `make benchmark-routing`.",
        "Mean over split seeds (least to most). Peers are re-implementations, tuned on validation rows by regret, "
        "calibrated on validation and calibration rows as the product is, on frozen embeddings ("
        + cells[0]["features"]
        + "); one cost "
        "predictor serves all but CARROT and Turnout, which have their own. Operating points are chosen on validation "
        "and calibration rows and scored on test rows. *Hull of singles* and *oracle* see the test rows: bounds. "
        "Save@f is against the best single candidate; beside Save@100 the quality really reached. Macro ECE has a "
        "floor of about .024 at 3,100 test rows. Random, cheapest and best single are no curves: no nAIQ. "
        "Commits before 5fce01e chose the quality preset with a bound of one standard error instead of 1.645, "
        "and their runs were cut short for want of time: sets and seeds that are missing were not run.",
        "",
    ]
    for name in sorted(sets, key=lambda n: (n.startswith("mix-"), n != "mix", n)):
        routers = sets[name]
        columns = SHIFT if name.startswith("mix-without-") else COLUMNS
        seeds = sorted({c["seed"] for group in routers.values() for c in group})
        lines += [f"## {name}", "", f"{len(next(iter(routers.values()))[0]['singles'])} candidates, "
                  f"{len(seeds)} seeds at most; a row has fewer where it says so.", ""]  # fmt: skip
        lines.append("| router | " + " | ".join(words for _, words, _ in columns) + " | seeds with G < 0 |")
        lines.append("|---" * (len(columns) + 2) + "|")
        for router in sorted(routers, key=_order(routers)):
            group = routers[router]
            note = "" if len(group) == len(seeds) else f" ({len(group)} seeds)"
            below = sum(c["metrics"]["gap_closed_quality_preset"]["value"] < 0 for c in group)
            sure = sum(c["metrics"]["gap_closed_quality_preset"]["high"] < 0 for c in group)
            shown = ["–" if _void(router, key) else _shown(group, key, s) for key, _, s in columns]
            lines.append(f"| {router}{note} | " + " | ".join(shown) + f" | {below} ({sure} beyond the interval) |")
        lines.append("")
        lines += _verdict(name, routers)
        _draw(name, routers, results)
    report.write_text("\n".join(lines) + "\n")
    document = [
        {k: c[k] for k in ("set", "router", "seed", "commit", "features", "settings", "seconds", "metrics")}
        for c in cells
    ]
    for cell in document:
        cell["metrics"] = {
            name: [_digits(m[k]) for k in ("value", "low", "high")] for name, m in cell["metrics"].items()
        }
    text = "[\n" + ",\n".join(json.dumps(finite(cell), ensure_ascii=False) for cell in document) + "\n]\n"
    (results / "routing_peers.json").write_text(text)


def _void(router: str, key: str) -> bool:
    """Tell where a figure would mean nothing: bounds predict nothing."""
    return router in REFERENCES and key not in ("naiq", *(k for k, _, _ in SHIFT), "gap_closed", "regret")


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _values(group: list[dict], key: str) -> list[float]:
    return [c["metrics"][key]["value"] for c in group if c["metrics"].get(key, {}).get("value") is not None]


def _order(routers: dict[str, list[dict]]):
    def key(name: str) -> tuple:
        rank = 0 if name.startswith("Turnout") else 2 if name in REFERENCES else 1
        return rank, -float(np.mean(_values(routers[name], "naiq"))), name

    return key


def _shown(group: list[dict], key: str, scale: float) -> str:
    values = [scale * v for v in _values(group, key)]
    if not values or not np.isfinite(values).all():
        return "–"
    digits = 0 if scale == 100 else 3
    middle, low, high = (f"{v:.{digits}f}" for v in (np.mean(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _verdict(name: str, routers: dict[str, list[dict]]) -> list[str]:
    """Say for each tier which targets are met, and compare it with the best peer on the seeds both have."""
    lines = []
    peers = [r for r in routers if r not in REFERENCES and not r.startswith("Turnout")]
    for tier in (r for r in routers if r.startswith("Turnout")):
        mine = {c["seed"]: c["metrics"] for c in routers[tier]}
        if name == "mix":
            said = []
            for key, goal in TARGETS:
                value = float(np.mean(_values(routers[tier], key)))
                said.append(f"{key} {value:.3f} ({'met' if value >= goal else 'not met'}: {goal:g})")
            lines += [f"**{tier}** against the default tier's targets: " + "; ".join(said) + ".", ""]
        key = "quality_minus_best_single" if name.startswith("mix-without-") else "naiq"
        paired = {}
        for peer in peers:
            both = [
                (mine[c["seed"]][key]["value"], c["metrics"][key]["value"]) for c in routers[peer] if c["seed"] in mine
            ]
            if both:
                paired[peer] = np.array(both)
        if paired:
            best = max(paired, key=lambda p: paired[p][:, 1].mean())
            own, other = paired[best].T
            lines += [f"{tier} minus the best peer there ({best}), {key}, same seeds: {(own - other).mean():+.4f}; "
                      f"above it on {int((own > other).sum())} of {len(own)} seeds.", ""]  # fmt: skip
    return lines


def _draw(name: str, routers: dict[str, list[dict]], results: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from training.metrics import hull

    first = {router: group[0] for router, group in routers.items()}
    shown = sorted((r for r in first if r not in REFERENCES), key=_order(routers))
    shown = [r for r in shown if r.startswith("Turnout")] + [r for r in shown if not r.startswith("Turnout")][:4]
    if not shown or name.startswith("mix-without-"):
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=90)
    cell = first[shown[0]]
    for label, points, style in [
        *((r, first[r]["curve"], "-") for r in shown),
        ("oracle", cell["oracle_curve"], "--"),
        ("hull of singles", cell["hull"], "--"),
    ]:
        x, y = hull(np.array([p["cost_usd"] for p in points]), np.array([p["quality"] for p in points]))
        left.plot(1e3 * x, y, style, label=label, linewidth=2 if label.startswith("Turnout") else 1)
    for single in cell["singles"].values():
        left.plot(1e3 * single["cost_usd"], single["quality"], "k.", markersize=4)
    left.set(xscale="log", xlabel="USD per 1,000 calls", ylabel="mean quality, test", title=f"{name}, first seed")
    left.legend(fontsize=6, frameon=False)
    for r in shown:
        bins = np.mean([c["reliability"] for c in routers[r]], axis=0)
        right.plot(bins[:, 0], bins[:, 1], ".-", label=r, linewidth=1)
    right.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    right.set(xlabel="predicted quality", ylabel="observed, mean over seeds", title="reliability")
    figure.tight_layout()
    figure.savefig(results / f"routing_{name}.png")
    plt.close(figure)
