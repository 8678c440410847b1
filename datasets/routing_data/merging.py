"""Join several tables into one, so that no question ends up on two sides of a split.

Prompts with the same text become one row. Groups are joined wherever two tables (or two rows)
show that they hold the same text; a group name means the same thing only within one source.

Entry point: ``merge``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from routing_data.table import Amounts, OutcomeTable


def merge(tables: Sequence[OutcomeTable]) -> OutcomeTable:
    """Unite tables: all prompts, all candidates.

    Parameters
    ----------
    tables : sequence of OutcomeTable
        At least one.

    Returns
    -------
    OutcomeTable
        Rows in order of first appearance; observations of the same prompt and candidate averaged;
        sources concatenated, each once. A prompt_id or group name that means different things
        in two tables gets a suffix in the later one.

    Raises
    ------
    ValueError
        If there is no table.
    """
    if not tables:
        raise ValueError("no tables to merge; expected at least one")
    rows: dict[str, int] = {}
    ids: list[str] = []
    tasks: list[str] = []
    taken: set[str] = set()
    row_of: list[NDArray[np.intp]] = []
    for table in tables:
        for prompt_id, text, task in zip(table.prompt_ids, table.prompts, table.tasks, strict=True):
            if text not in rows:
                rows[text] = len(rows)
                ids.append(_unique(prompt_id, text, taken))
                tasks.append(task)
            elif tasks[rows[text]] == "unknown":
                tasks[rows[text]] = task
        row_of.append(np.array([rows[text] for text in table.prompts], dtype=np.intp))
    candidates = tuple(sorted({name for table in tables for name in table.candidates}))
    stacked = {
        name: _average(tables, row_of, candidates, len(rows), name)
        for name in ("quality", "input_tokens", "output_tokens", "cost_usd")
    }
    return OutcomeTable(
        prompt_ids=tuple(ids),
        prompts=tuple(rows),
        tasks=tuple(tasks),
        groups=_join_groups(tables, row_of, tuple(rows)),
        candidates=candidates,
        quality=stacked["quality"].astype(np.float32),
        input_tokens=stacked["input_tokens"],
        output_tokens=stacked["output_tokens"],
        cost_usd=stacked["cost_usd"],
        sources=tuple(dict.fromkeys(source for table in tables for source in table.sources)),
    )


def _average(
    tables: Sequence[OutcomeTable],
    row_of: Sequence[NDArray[np.intp]],
    candidates: tuple[str, ...],
    n_rows: int,
    name: str,
) -> Amounts:
    total, count = np.zeros((n_rows, len(candidates))), np.zeros((n_rows, len(candidates)))
    for table, rows in zip(tables, row_of, strict=True):
        values: Amounts = getattr(table, name).astype(np.float64)
        cells = np.ix_(rows, np.searchsorted(candidates, table.candidates))
        # add.at, because one table may hold the same text twice.
        np.add.at(total, cells, np.nan_to_num(values, nan=0.0))
        np.add.at(count, cells, ~np.isnan(values))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _join_groups(
    tables: Sequence[OutcomeTable], row_of: Sequence[NDArray[np.intp]], texts: tuple[str, ...]
) -> tuple[str, ...]:
    parent = list(range(len(texts)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[Hashable, int] = {}
    names: dict[int, list[str]] = {}
    for table, rows in zip(tables, row_of, strict=True):
        # Two halves of one source share its group names; two sources do not.
        space = tuple(source.sha256 for source in table.sources) or id(table)
        for row, group in zip(rows.tolist(), table.groups, strict=True):
            parent[root(row)] = root(first.setdefault((space, group), row))
            names.setdefault(row, []).append(group)
    members: dict[int, list[int]] = {}
    for row in range(len(texts)):
        members.setdefault(root(row), []).append(row)
    joined = [""] * len(texts)
    taken: set[str] = set()
    for component in members.values():
        smallest_text = min(texts[row] for row in component)
        name = _unique(min(name for row in component for name in names[row]), smallest_text, taken)
        for row in component:
            joined[row] = name
    return tuple(joined)


def _unique(name: str, text: str, taken: set[str]) -> str:
    """Return a name not yet taken, with a suffix from the text if need be, and take it."""
    if name in taken:
        name = f"{name}~{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    while name in taken:
        name += "~"
    taken.add(name)
    return name
