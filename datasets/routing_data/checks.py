"""Apply the schema to a raw frame: every problem found, and the clean columns.

All checks are whole-column operations; rows are only looked at one by one once something is wrong.
No message quotes prompt text.

Entry point: ``check_frame`` for one file, ``check_ids`` and ``check_pairs`` for what spans columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing_data.errors import Problem, nearest
from routing_data.schema import Column

SHOWN_PER_KIND = 10
"""Rows named per kind of problem and column; the last one counts the rest."""


def check_frame(frame: pd.DataFrame, columns: Sequence[Column], file: str) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Check every column of one file on its own.

    Parameters
    ----------
    frame : DataFrame
        As read, index = data row from 1.
    columns : sequence of Column
        What the file may hold.
    file : str
        Its name, for messages.

    Returns
    -------
    clean : DataFrame
        Known columns under their canonical names, text as str, numbers as float64 with NaN for
        missing; values that broke a rule are missing too.
    problems : tuple of Problem
        Empty if the file keeps to the schema.
    """
    problems = _check_header(frame, columns, file)
    clean: dict[str, pd.Series] = {}
    ids = _shown_ids(frame)
    for column in columns:
        stored = _position(frame, column)
        if stored is None:
            continue
        values = frame.iloc[:, stored]
        check = _check_number if column.kind == "number" else _check_text
        clean[column.name], found = check(values, column, str(frame.columns[stored]), file, ids)
        problems.extend(found)
    if not len(frame) and not problems:
        problems.append(Problem("no-rows", file, "no rows", "at least one"))
    return pd.DataFrame(clean, index=frame.index), tuple(problems)


def check_ids(prompts: pd.DataFrame, file: str) -> tuple[Problem, ...]:
    """Check that no prompt_id occurs twice among the prompts.

    Parameters
    ----------
    prompts : DataFrame
        Clean prompts, with ``prompt_id``.
    file : str
        Its name, for messages.

    Returns
    -------
    tuple of Problem
        One per repeated row, capped.
    """
    repeated = prompts["prompt_id"].duplicated() & prompts["prompt_id"].notna()
    found, expected = "a second row for this prompt_id", "one row per prompt"
    ids = prompts["prompt_id"]
    return tuple(_per_row(repeated.to_numpy(), "duplicate-prompt", file, "prompt_id", found, expected, ids))


def check_pairs(outcomes: pd.DataFrame, file: str, known_ids: pd.Series | None = None) -> tuple[Problem, ...]:
    """Check prompt_id x candidate: each pair once, each prompt known.

    Parameters
    ----------
    outcomes : DataFrame
        Clean outcomes, with ``prompt_id`` and ``candidate``.
    file : str
        Its name, for messages.
    known_ids : Series of str, optional
        The prompts there are; not checked if absent.

    Returns
    -------
    tuple of Problem
        One per offending row, capped.
    """
    ids, candidates = outcomes["prompt_id"], outcomes["candidate"]
    problems: list[Problem] = []
    # Integer codes: comparing them is some ten times faster than comparing pairs of strings.
    id_codes, candidate_codes = pd.factorize(ids)[0], pd.factorize(candidates)[0]
    pairs = pd.Series(id_codes.astype(np.int64) * (candidate_codes.max(initial=0) + 1) + candidate_codes)
    repeated = pairs.duplicated().to_numpy() & (id_codes >= 0) & (candidate_codes >= 0)
    for row in np.flatnonzero(repeated)[:SHOWN_PER_KIND]:
        found = f"a second row for candidate {candidates.iloc[row]!r}"
        expected = "one row per prompt_id and candidate"
        number, prompt_id = int(outcomes.index[row]), str(ids.iloc[row])
        problems.append(Problem("duplicate-outcome", file, found, expected, row=number, prompt_id=prompt_id))
    problems = _count_rest(problems, int(repeated.sum()))
    if known_ids is not None:
        orphan = (~ids.isin(known_ids) & ids.notna()).to_numpy()
        found, expected = "an outcome without a prompt", "a prompt_id that is in the prompts"
        problems += _per_row(orphan, "no-such-prompt", file, "prompt_id", found, expected, ids)
    return tuple(problems)


def check_consistent(long: pd.DataFrame, columns: Sequence[str], file: str) -> tuple[Problem, ...]:
    """Check that rows of one prompt_id agree about the prompt.

    Parameters
    ----------
    long : DataFrame
        Clean rows of a long file, with ``prompt_id``.
    columns : sequence of str
        Columns that must have one value per prompt_id.
    file : str
        Its name, for messages.

    Returns
    -------
    tuple of Problem
        One per row that differs from the first of its prompt, capped.
    """
    problems: list[Problem] = []
    ids = long["prompt_id"]
    for name in columns:
        first = long[name].groupby(ids).transform("first")
        differs = long[name].notna() & ids.notna() & (long[name] != first)
        found, expected = f"another {name} than in the first row of this prompt", f"one {name} per prompt_id"
        problems += _per_row(differs.to_numpy(), "inconsistent", file, name, found, expected, ids)
    return tuple(problems)


def _check_header(frame: pd.DataFrame, columns: Sequence[Column], file: str) -> list[Problem]:
    known = {column.name: column for column in columns} | {c.alias: c for c in columns if c.alias}
    problems = []
    for name in frame.columns:
        if name not in known:
            hint = f"a known column ({nearest(str(name), [column.name for column in columns])})"
            problems.append(Problem("unknown-column", file, f"unknown column {str(name)!r}", hint))
    for column in columns:
        present = [name for name in frame.columns if name in (column.name, column.alias)]
        if len(present) > 1:
            found = f"columns {' and '.join(repr(name) for name in present)}"
            problems.append(Problem("duplicate-column", file, found, f"one column {column.name!r}"))
        if column.required and not present:
            also = f" (or {column.alias!r})" if column.alias else ""
            expected = f"{column.name!r}{also}: {column.help}"
            problems.append(Problem("missing-column", file, f"no column {column.name!r}", expected))
    return problems


def _check_text(
    values: pd.Series, column: Column, stored: str, file: str, ids: pd.Series
) -> tuple[pd.Series, list[Problem]]:
    null = values.isna().to_numpy()
    whole_too = (str, int) if column.kind == "id" else str
    wrong = np.array([not isinstance(v, whole_too) or isinstance(v, bool) for v in values], dtype=bool) & ~null
    cells = [None if bad else str(v) for v, bad in zip(values, null | wrong, strict=True)]
    blank = np.array([cell is not None and not cell.strip() for cell in cells], dtype=bool)
    problems = _per_row(wrong, "wrong-type", file, stored, "a value that is not text", "text", ids)
    if column.nullable:
        cells = [None if empty else cell for cell, empty in zip(cells, blank, strict=True)]
    else:
        problems += _per_row(null, "missing-value", file, stored, "no value", "text", ids)
        problems += _per_row(blank, "empty-text", file, stored, "empty or only white space", "text", ids)
    broken = _not_unicode(cells)
    problems += _per_row(broken, "not-unicode", file, stored, "an unpaired surrogate", "valid Unicode", ids)
    return pd.Series(cells, index=values.index, dtype=object), problems


def _check_number(
    values: pd.Series, column: Column, stored: str, file: str, ids: pd.Series
) -> tuple[pd.Series, list[Problem]]:
    null = values.isna().to_numpy()
    if pd.api.types.is_bool_dtype(values.dtype):
        numbers = values.astype(np.float64).to_numpy()  # right / wrong is a fair way to store quality
    elif pd.api.types.is_numeric_dtype(values.dtype):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        blank = [isinstance(value, str) and value.strip().lower() in ("", "nan") for value in values]
        null = null | np.array(blank, dtype=bool)
        numbers = np.array([_as_number(value) for value in values], dtype=np.float64)
    wrong = np.isnan(numbers) & ~null
    infinite = np.isinf(numbers)
    with np.errstate(invalid="ignore"):
        outside = ((numbers < 0) | (numbers > column.maximum)) & ~infinite
    problems = _per_row(wrong, "not-a-number", file, stored, values, column.expected, ids)
    problems += _per_row(infinite, "infinite", file, stored, values, column.expected, ids)
    problems += _per_row(outside, "out-of-range", file, stored, values, column.expected, ids)
    if not column.nullable:
        problems += _per_row(null, "missing-value", file, stored, "no value (NaN)", column.expected, ids)
    clean = np.where(infinite | outside, np.nan, numbers)
    return pd.Series(clean, index=values.index), problems


def _as_number(value: object) -> float:
    """Return NaN for what is not a number, and infinity for an integer too large to hold."""
    if not isinstance(value, (str, int, float)) or (isinstance(value, str) and "_" in value):
        return math.nan
    try:
        return float(value)
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf


def _per_row(
    mask: NDArray[np.bool_],
    kind: str,
    file: str,
    column: str,
    found: str | pd.Series,
    expected: str,
    ids: pd.Series,
) -> list[Problem]:
    problems = []
    for position in np.flatnonzero(mask)[:SHOWN_PER_KIND]:
        shown = found if isinstance(found, str) else _shown_value(found.iloc[position])
        row, prompt_id = int(ids.index[position]), ids.iloc[position]
        named = prompt_id if isinstance(prompt_id, str) else None
        problems.append(Problem(kind, file, shown, expected, column=column, row=row, prompt_id=named))
    return _count_rest(problems, int(mask.sum()))


def _shown_value(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _count_rest(problems: list[Problem], n: int) -> list[Problem]:
    if problems and n > len(problems):
        problems[-1] = replace(problems[-1], n_more=n - len(problems))
    return problems


def _position(frame: pd.DataFrame, column: Column) -> int | None:
    """Return where a column is; by position, since a broken file may hold a name twice."""
    names = (column.name, column.alias)
    return next((place for place, name in enumerate(frame.columns) if name in names), None)


def _shown_ids(frame: pd.DataFrame) -> pd.Series:
    names = list(frame.columns)
    if "prompt_id" in names:
        return frame.iloc[:, names.index("prompt_id")]
    return pd.Series(None, index=frame.index, dtype=object)


def _not_unicode(cells: Sequence[str | None]) -> NDArray[np.bool_]:
    if _encodes("".join(cell for cell in cells if cell is not None)):
        return np.zeros(len(cells), dtype=bool)
    return np.array([cell is not None and not _encodes(cell) for cell in cells], dtype=bool)


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
