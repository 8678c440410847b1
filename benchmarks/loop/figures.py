"""The picture of the demo: what each request was truly worth, over time. Entry point: :func:`draw`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from traffic import Served, choices_of
from world import World

_WINDOW = 400


def draw(world: World, stages: Sequence[tuple[str, list[Served]]], figures: Mapping[str, Any], path: Path) -> None:
    """Draw quality, cost and regret, in moving means over 400 requests of a stage, with the stages marked."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    worth = figures["worth_usd"]
    own: dict[str, list[np.ndarray]] = {"quality": [], "cost": [], "regret": []}
    ideal: dict[str, list[np.ndarray]] = {"quality": [], "cost": []}
    starts = [0]
    for _, served in stages:
        rows, chosen = choices_of(served)
        quality, cost = world.quality[served[0].phase][rows], world.cost_usd[rows]
        utility, pick = worth * quality - cost, np.arange(len(rows))
        best = utility.argmax(axis=1)
        own["quality"].append(quality[pick, chosen])
        own["cost"].append(1000 * cost[pick, chosen])
        own["regret"].append(1000 * (utility[pick, best] - utility[pick, chosen]))
        ideal["quality"].append(quality[pick, best])
        ideal["cost"].append(1000 * cost[pick, best])
        starts.append(starts[-1] + len(served))
    labels = {
        "quality": "true quality",
        "cost": "true cost, USD per 1,000 requests",
        "regret": "regret to the oracle, USD per 1,000",
    }
    figure, axes = plt.subplots(3, 1, figsize=(11, 9), sharex=True)
    for axis, (name, label) in zip(axes, labels.items(), strict=True):
        for i, start in enumerate(starts[:-1]):
            # A mean over the end of one stage and the beginning of the next would blur what the stages show.
            axis.plot(*_moving(own[name][i], start), label="Turnout" if i == 0 else None, color="tab:blue")
            if name in ideal:
                axis.plot(*_moving(ideal[name][i], start), label="oracle" if i == 0 else None, color="tab:gray")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        for start in starts[1:-1]:
            axis.axvline(start, color="black", linewidth=0.8, linestyle=":")
    axes[1].set_ylim(bottom=0)
    axes[2].set_ylim(bottom=0)
    axes[0].legend(loc="lower left")
    words = {
        "before": "first bundle",
        "changed": "world changed",
        "shadow": "shadow",
        "experiment": "A/B: champion | challenger",
        "after": "promoted",
    }
    for (name, _), start, end in zip(stages, starts[:-1], starts[1:], strict=True):
        axes[0].annotate(
            words[name],
            ((start + end) / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=9,
            rotation=0 if end - start > 0.08 * starts[-1] else 30,
        )
    axes[-1].set_xlabel("request (moving means within a stage; providers are SIMULATED, their true quality is known)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _moving(values: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles and the means of the windows within one stage; of a short stage at least three windows."""
    window = max(1, min(_WINDOW, len(values) // 3))
    sums = np.cumsum(np.concatenate([[0.0], values]))
    middles = start + np.arange(window, len(values) + 1) - window / 2
    return middles, (sums[window:] - sums[:-window]) / window
