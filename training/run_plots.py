"""The plots of a training run, for whoever looks at it in MLflow. Entry point: :func:`write_plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from router.bundle import load
from training.errors import NotEnoughData
from training.measure import rows_of, usable
from training.pipeline import Trained
from training.pipeline import load as load_tables
from training.plots import cost_quality, reliability


def write_plots(trained: Trained, paths: Sequence[Path], candidates: Sequence[str], folder: Path) -> None:
    """Draw what the bundle does on the rows held out: cost against quality, and reliability.

    Parameters
    ----------
    trained : Trained
    paths, candidates : sequence
        What it was trained on.
    folder : Path
        Where the PNG files go; nothing where no row was held out, as after a refit.
    """
    bundle = load(trained.directory)
    try:
        table, _, _ = usable(bundle, load_tables(paths, candidates))
    except NotEnoughData:
        return
    rows = {trained.manifest.id: rows_of(bundle, table)}
    for name, draw in (("cost_quality", cost_quality), ("reliability", reliability)):
        (folder / f"{name}.png").write_bytes(draw(rows))
