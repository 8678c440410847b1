"""Do the gates refuse what is worse and let pass what is not? Real trainings, many seeds.

Run with ``python benchmarks/gates.py --data DIR [--seeds 10] [--first-seed 0] [--config TOML]``. For each seed (another
split, another holdout) a champion is trained on half of the training prompts, then challengers: an honest ``equal`` one
on the other half, a ``better`` one on both, one on ``shuffled`` labels, and those of which one task slice (another for
each seed) is damaged: its labels ``inverted`` or ``mixed up`` among its prompts and candidates. Labels of held-out rows
are never touched. Prints and writes how often each was refused, with a 95 % Clopper–Pearson interval, by which gates,
and what harm was done in the damaged slice: ``benchmarks/results/gates_NAME.json``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

KINDS = ("equal", "better", "shuffled", "slice inverted", "slice mixed up")
HONEST = {"equal", "better"}
HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Match:
    """A challenger against its champion."""

    kind: str
    damaged: str
    contest: object


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
    held = table.select(np.flatnonzero(parts == "test"))
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
            yield Match(kind, damaged, contest)


def mean_filled(quality):
    return np.where(np.isnan(quality), np.nanmean(quality, axis=0), quality)


if __name__ == "__main__":
    pass
