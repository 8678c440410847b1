"""Pictures of a contest, as PNG bytes: cost against quality, and reliability. The only importer of matplotlib.

Entry points: :func:`cost_quality`, :func:`reliability`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from training.evaluate import Rows
from training.metrics import N_ECE_BINS, hull
from training.operating import dial_of, outcome_of, sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#4c6a92", "#c2571a", "#3d8f5f", "#8b5a9f", "#9a8a3c", "#5b5b5b")
_LEAST_ROWS_A_BIN = 10


def cost_quality(rows: Mapping[str, Rows]) -> bytes:
    """Draw what each bundle's dial reaches, beside the single candidates and the oracle.

    Parameters
    ----------
    rows : Mapping of str to Rows
        By the name in the legend; the same prompts, of which those with every outcome and cost count.

    Returns
    -------
    bytes
        PNG.
    """
    figure, axes = _figure(1)
    (ax,) = axes
    complete = np.logical_and.reduce([own.complete for own in rows.values()])
    first = next(iter(rows.values())).select(complete)
    if len(first.tasks) and len(first.candidates) > 1:
        dial = dial_of(first.cost_usd)
        for colour, (name, own) in zip(_COLOURS, rows.items(), strict=False):
            kept = own.select(complete)
            choices = sweep(kept.predicted, kept.predicted_cost, dial)
            x, y = outcome_of(choices, kept.cost_usd).mean(axis=0), outcome_of(choices, kept.quality).mean(axis=0)
            ax.plot(1000 * x, y, "o-", ms=3, lw=1.2, color=colour, label=name)
        best = sweep(first.quality, first.cost_usd, dial)
        x, y = outcome_of(best, first.cost_usd).mean(axis=0), outcome_of(best, first.quality).mean(axis=0)
        ax.plot(1000 * x, y, ":", lw=1, color="#999999", label="oracle")
        cost, quality = first.cost_usd.mean(axis=0), first.quality.mean(axis=0)
        ax.plot(1000 * cost, quality, "s", ms=5, color="black", label="one candidate always")
        for x1, y1, name in zip(cost, quality, first.candidates, strict=True):
            ax.annotate(name, (1000 * x1, y1), textcoords="offset points", xytext=(4, -9), fontsize=7)
        hull_x, hull_y = hull(cost, quality)
        ax.plot(1000 * hull_x, hull_y, "--", lw=0.8, color="black")
        ax.set_xscale("log")
        ax.margins(x=0.12)
        ax.legend(fontsize=8, loc="lower right")
    else:
        _say(ax, "no held-out prompt has every candidate's outcome and cost")
    ax.set_xlabel("USD per 1,000 calls")
    ax.set_ylabel("mean quality")
    ax.set_title(f"Cost and quality on {int(complete.sum()):,} held-out prompts", fontsize=10)
    return _png(figure)


def reliability(rows: Mapping[str, Rows]) -> bytes:
    """Draw, for each candidate, mean quality against what was predicted, in bins of equal mass.

    Parameters
    ----------
    rows : Mapping of str to Rows
        By the name in the legend; columns and order are those of the first.

    Returns
    -------
    bytes
        PNG.
    """
    names = next(iter(rows.values())).candidates
    figure, axes = _figure(len(names))
    for j, (ax, candidate) in enumerate(zip(axes, names, strict=True)):
        ax.plot([0, 1], [0, 1], "--", lw=0.8, color="#999999")
        for colour, (name, own) in zip(_COLOURS, rows.items(), strict=False):
            observed = np.flatnonzero(np.isfinite(own.quality[:, j]))
            if not len(observed):
                continue
            order = observed[np.argsort(own.predicted[observed, j], kind="stable")]
            counts = np.ones(len(order)) if own.weights is None else own.weights[order, j]
            parts = np.array_split(np.arange(len(order)), min(N_ECE_BINS, max(1, len(order) // _LEAST_ROWS_A_BIN)))
            kept = [part for part in parts if counts[part].sum() > 0]
            x = [np.average(own.predicted[order[part], j], weights=counts[part]) for part in kept]
            y = [np.average(own.quality[order[part], j], weights=counts[part]) for part in kept]
            ax.plot(x, y, "o-", ms=3, lw=1, color=colour, label=name)
        ax.set_title(candidate, fontsize=9)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_aspect("equal")
    axes[0].set_xlabel("predicted quality")
    axes[0].set_ylabel("mean quality")
    axes[0].legend(fontsize=7, loc="upper left")
    return _png(figure)


def _figure(n: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(n, 4)
    lines = -(-n // columns)
    figure = Figure(figsize=(6.4, 4.4) if n == 1 else (2.9 * columns, 3.0 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(lines, columns, i + 1) for i in range(n)]


def _say(ax: Axes, words: str) -> None:
    ax.text(0.5, 0.5, words, ha="center", va="center", transform=ax.transAxes, fontsize=9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
