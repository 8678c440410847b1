"""What is true of the project's own sample, and how it may shift: SIMULATED, for logs and labels of known truth.

Entry points: :class:`Shift`, :func:`shifted`, :func:`after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing_data.sample import Sample

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shift:
    """From some request on, the truth is another; what is predicted stays as it was.

    Parameters
    ----------
    candidate : str
    quality : float, default=0
        Added to its true quality.
    length : float, default=1
        Its answers are so many times as long, and as dear.
    task : str, optional
        Of that task only.
    at : float in [0, 1], default=0.5
        After which share of the requests.
    """

    candidate: str
    quality: float = 0.0
    length: float = 1.0
    task: str | None = None
    at: float = 0.5


def columns_of(sample: Sample) -> tuple[str, ...]:
    """Return the candidates in the order of a simulated log's columns: by name."""
    return tuple(sorted(sample.table.candidates))


def shifted(
    quality: Matrix, names: Sequence[str], tasks: NDArray[np.str_], shifts: Iterable[Shift]
) -> tuple[Matrix, Matrix]:
    """Let the truth shift along requests.

    Parameters
    ----------
    quality : ndarray of shape (n, m)
        True before any shift, by request.
    names : sequence of m str
    tasks : ndarray of shape (n,), str
    shifts : iterable of Shift

    Returns
    -------
    quality, length : ndarray of shape (n, m)
        True quality, and how many times as long answers are.
    """
    true, length = quality.copy(), np.ones_like(quality)
    for shift in shifts:
        after = np.arange(len(quality)) >= shift.at * len(quality)
        rows = after if shift.task is None else after & (tasks == shift.task)
        column = names.index(shift.candidate)
        true[rows, column] = np.clip(true[rows, column] + shift.quality, 0, 1)
        length[rows, column] *= shift.length
    return true, length


def after(sample: Sample, shifts: Iterable[Shift], seed: int = 0) -> Sample:
    """Return the sample of the world after shifts: the truth is another, and outcomes are drawn from it again."""
    names, tasks = columns_of(sample), dict(zip(sample.table.prompt_ids, sample.table.tasks, strict=True))
    whole = [replace(shift, at=0.0) for shift in shifts]
    chance = sample.truth.pivot(index="prompt_id", columns="candidate", values="probability")[list(names)]
    true, length = shifted(chance.to_numpy(), names, np.array([tasks[own] for own in chance.index]), whole)
    at = (
        chance.index.get_indexer(pd.Index(sample.truth["prompt_id"])),
        chance.columns.get_indexer(pd.Index(sample.truth["candidate"])),
    )
    truth = sample.truth.assign(
        probability=true[at], expected_cost_usd=sample.truth["expected_cost_usd"].to_numpy() * length[at]
    )
    table = sample.table
    rows = np.ix_(
        chance.index.get_indexer(pd.Index(table.prompt_ids)), chance.columns.get_indexer(pd.Index(table.candidates))
    )
    drawn = np.random.default_rng(seed).random(table.quality.shape) < true[rows]
    quality = np.where(np.isnan(table.quality), np.nan, drawn).astype(np.float32)
    amounts = {name: getattr(table, name) * length[rows] for name in ("cost_usd", "output_tokens")}
    return Sample(replace(table, quality=quality, **amounts), truth, sample.answers)
