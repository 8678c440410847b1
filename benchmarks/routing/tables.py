"""The data sets of the benchmark: which rows, which candidates, which part each row belongs to.

Entry point: :func:`problems_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from routing_data import OutcomeTable, split
from training.pipeline import load
from training.settings import SplitSettings

#: Eight of `zeroeval` from dear to cheap, from several makers; o1 is out, as its hidden tokens are not counted.
EIGHT = (
    "claude-3-5-sonnet-20240620",
    "gpt-4o-2024-08-06",
    "Mistral-Large-2",
    "gemini-1.5-pro",
    "Meta-Llama-3.1-70B-Instruct",
    "gpt-4o-mini-2024-07-18",
    "deepseek-v2.5-0908",
    "Meta-Llama-3.1-8B-Instruct",
)
#: Of `bfcl`: one variant per model, known cost, no formatting artefact.
CALLERS = (
    "claude-3-5-sonnet-20240620",
    "gpt-4-0125-preview",
    "mistral-large-2407-FC-Any",
    "gpt-4o-mini-2024-07-18",
    "meta-llama_Meta-Llama-3-70B-Instruct",
    "claude-3-haiku-20240307",
    "gemini-1.5-flash-preview-0514",
    "open-mistral-nemo-2407-FC-Any",
)
_SHIFT = {"train": 0.7, "validation": 0.15, "calibration": 0.15}


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows with their outcomes, and the part of each."""

    name: str
    table: OutcomeTable
    parts: np.ndarray
    seed: int


def problems_of(folder: Path, seeds: int, wanted: tuple[str, ...]) -> Iterator[Problem]:
    """Yield every set of a data folder, each with every seed; a folder that is itself a table is one set."""
    if (folder / "prompts.parquet").is_file():
        sets: dict[str, tuple[Path, Callable[[OutcomeTable], OutcomeTable]]] = {folder.name: (folder, lambda t: t)}
    else:
        sets = {
            "mix": (folder / "mix", lambda t: t),
            "routerbench": (folder / "routerbench", lambda t: t),
            "zeroeval-8": (folder / "zeroeval", lambda t: t.select(candidates=EIGHT)),
            "zeroeval-27": (folder / "zeroeval", _complete_without_o1),
            "bfcl": (folder / "bfcl", lambda t: t.select(candidates=CALLERS)),
        }
    for name, (path, cut) in sets.items():
        if not (path / "prompts.parquet").is_file():
            continue
        shifted = name == "mix" and (not wanted or any(w.startswith("mix-without-") for w in wanted))
        if wanted and name not in wanted and not shifted:
            continue
        table = cut(load([path]))
        for seed in range(seeds) if not wanted or name in wanted else ():
            yield Problem(name, table, split(table.groups, asdict(SplitSettings()), seed), seed)
        benchmarks = np.array([task.partition("/")[0] for task in table.tasks])
        for left_out in sorted(set(benchmarks)) if shifted else ():
            if not wanted or f"mix-without-{left_out}" in wanted or "mix-without-" in wanted:
                yield from (shifted_problem(table, benchmarks, left_out, seed) for seed in range(seeds))


def shifted_problem(table: OutcomeTable, benchmarks: np.ndarray, left_out: str, seed: int) -> Problem:
    """Test on one benchmark and learn from the others; a question asked in both is not learned from."""
    test = benchmarks == left_out
    seen = set(np.asarray(table.groups)[test])
    parts = np.where(test, "test", split(table.groups, _SHIFT, seed))
    parts[~test & np.array([group in seen for group in table.groups])] = "dropped"
    return Problem(f"mix-without-{left_out}", table, parts, seed)


def _complete_without_o1(table: OutcomeTable) -> OutcomeTable:
    """Keep the candidates observed on every prompt, o1 out."""
    complete = np.isfinite(table.quality).all(axis=0) & np.isfinite(table.cost_usd).all(axis=0)
    return table.select(
        candidates=[n for n, ok in zip(table.candidates, complete, strict=True) if ok and "o1-" not in n]
    )
