"""An experiment's confidence sequences as a picture. Entry point: :func:`plotted`."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from training.readout import METRICS, RELATIVE, Readout, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {"cost_usd": "cost, relative", "latency_s": "latency, relative", "quality": "quality", "failures": "failures"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def plotted(readout: Readout) -> bytes:
    """Draw every metric's difference to the control over the units so far.

    Parameters
    ----------
    readout : Readout

    Returns
    -------
    bytes
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2, sharex=True)
    for panel, metric in zip(panels.flat, METRICS, strict=True):
        own = [trace for trace in readout.traces if trace.metric == metric]
        _draw(panel, readout, metric, own)
    panels[0, 0].legend(loc="upper right", frameon=False)
    ratio = readout.sample_ratio
    suspicion = "" if ratio is None else f"; sample ratio p = {ratio.p_value:.2g}"
    figure.suptitle(
        f"{readout.name}: difference to {readout.control}, {1 - readout.alpha:.0%} confidence sequences{suspicion}"
    )
    figure.supxlabel("units so far, all arms")
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(panel: Axes, readout: Readout, metric: str, traces: list[Trace]) -> None:
    widest = 0.0
    for trace, colour in zip(traces, _COLOURS * 2, strict=False):
        shown = trace.relative if metric in RELATIVE else trace.difference
        is_said = np.asarray(shown.is_said)
        value, low, high = (np.where(is_said, part, np.nan) for part in (shown.value, shown.low, shown.high))
        panel.fill_between(readout.n_units, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.plot(readout.n_units, value, color=colour, label=f"{trace.arm}: {trace.says}" if is_said.any() else None)
        if is_said.any():
            # The first looks are wide; what matters comes later.
            late = np.flatnonzero(is_said)[len(np.flatnonzero(is_said)) // 4 :]
            widest = max(widest, float(np.nanmax(np.abs([low[late], high[late]]))))
    panel.axhline(0, color="#555555", linewidth=0.8)
    good = "lower is better" if METRICS[metric] else "higher is better"
    panel.set_title(f"{_TITLES[metric]} ({good})", fontsize=10)
    if widest:
        panel.set_ylim(-1.15 * widest, 1.15 * widest)
    else:
        _say(panel, "too early to say")
    if metric in RELATIVE:
        panel.yaxis.set_major_formatter(_percent())
    panel.grid(alpha=0.25)


def _say(panel: Axes, words: str) -> None:
    panel.text(0.5, 0.6, words, transform=panel.transAxes, ha="center", color="#555555")


def _percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1.0, decimals=0)
