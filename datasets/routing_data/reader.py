"""Read a routing table from disk, in either form, and say everything that is wrong with it.

The folder form is ``prompts.parquet`` + ``outcomes.parquet`` (+ ``source.json``); the long form is
one CSV, JSONL or Parquet file with a row per prompt and candidate (+ ``NAME.source.json``). This
module puts the steps together: ``files`` reads, ``checks`` judges. It neither downloads nor writes.

Entry point: ``read``, and ``validate`` for the problems alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd

from routing_data import schema
from routing_data.checks import check_consistent, check_frame, check_ids, check_pairs
from routing_data.errors import InvalidTable, Problem, UnreadableFile
from routing_data.files import fingerprint, read_frame, read_source_json
from routing_data.frames import id_of_text, to_table
from routing_data.table import OutcomeTable, Source

_PROMPTS, _OUTCOMES, _SOURCE = "prompts.parquet", "outcomes.parquet", "source.json"


def read(path: str | os.PathLike[str]) -> OutcomeTable:
    """Read and validate a table.

    Parameters
    ----------
    path : path
        A folder with ``prompts.parquet`` and ``outcomes.parquet``, or one ``.csv``, ``.jsonl`` or
        ``.parquet`` file in long form.

    Returns
    -------
    OutcomeTable
        Prompts in the order of the file, candidates sorted.

    Raises
    ------
    UnreadableFile
        If a file is missing, empty, of an unknown kind, or cannot be decoded.
    InvalidTable
        If the rows break the schema; it carries every problem.
    """
    place = Path(path)
    frames, problems = _load(place)
    if problems or frames is None:
        raise InvalidTable(problems)
    prompts, outcomes = frames
    return to_table(prompts, outcomes, _source(place, len(prompts)))


def validate(path: str | os.PathLike[str]) -> tuple[Problem, ...]:
    """Find everything that is wrong with a table.

    Parameters
    ----------
    path : path
        As for ``read``.

    Returns
    -------
    tuple of Problem
        Empty if ``read`` would succeed. At most ten rows are listed per kind of problem and
        column; ``n_more`` of the last counts the rest.
    """
    try:
        return _load(Path(path))[1]
    except UnreadableFile as error:
        return (Problem("unreadable", error.file, error.found, error.expected),)


_Frames = tuple[pd.DataFrame, pd.DataFrame]


def _load(path: Path) -> tuple[_Frames | None, tuple[Problem, ...]]:
    if not path.exists():
        raise UnreadableFile(path.name, "no such file or folder", "one that exists")
    frames, problems = _load_folder(path) if path.is_dir() else _load_long(path)
    return frames, problems + read_source_json(_source_path(path))[1]


def _load_folder(path: Path) -> tuple[_Frames | None, tuple[Problem, ...]]:
    if not (path / _PROMPTS).is_file():
        raise UnreadableFile(path.name, f"a folder without {_PROMPTS}", f"one with {_PROMPTS} and {_OUTCOMES}")
    return check_folder(read_frame(path / _PROMPTS)[0], read_frame(path / _OUTCOMES)[0])


def check_folder(raw_prompts: pd.DataFrame, raw_outcomes: pd.DataFrame) -> tuple[_Frames | None, tuple[Problem, ...]]:
    """Check the two frames of the folder form, alone and against each other.

    Parameters
    ----------
    raw_prompts, raw_outcomes : DataFrame
        As read, index = data row from 1.

    Returns
    -------
    frames : (DataFrame, DataFrame) or None
        Clean prompts and outcomes; None if there is any problem.
    problems : tuple of Problem
        Everything found.
    """
    prompts, problems = check_frame(raw_prompts, schema.PROMPTS, _PROMPTS)
    outcomes, found = check_frame(raw_outcomes, schema.OUTCOMES, _OUTCOMES)
    problems += found
    if "prompt_id" in prompts:
        problems += check_ids(prompts, _PROMPTS)
    if {"prompt_id", "candidate"} <= set(outcomes):
        problems += check_pairs(outcomes, _OUTCOMES, prompts.get("prompt_id"))
    return (None if problems else (prompts, outcomes)), problems


def _load_long(path: Path) -> tuple[_Frames | None, tuple[Problem, ...]]:
    raw, broken = read_frame(path)
    rows, problems = check_frame(raw, schema.LONG, path.name)
    problems = broken + problems
    if "prompt" in rows and "prompt_id" not in rows:
        rows["prompt_id"] = _ids_from_text(rows["prompt"])
    elif {"prompt", "prompt_id"} <= set(rows):
        per_prompt = [name for name in ("prompt", "task", "group") if name in rows]
        problems += check_consistent(rows, per_prompt, path.name)
    if {"prompt_id", "candidate"} <= set(rows):
        problems += check_pairs(rows, path.name)
    if problems:
        return None, problems
    return (rows.drop_duplicates("prompt_id"), rows), ()


def _ids_from_text(prompts: pd.Series) -> pd.Series:
    codes, texts = pd.factorize(prompts)
    ids = [id_of_text(str(text)) for text in texts]
    return pd.Series([ids[code] if code >= 0 else None for code in codes], index=prompts.index, dtype=object)


def _source_path(path: Path) -> Path:
    return path / _SOURCE if path.is_dir() else path.with_name(f"{path.stem}.{_SOURCE}")


def _source(path: Path, n_prompts: int) -> Source:
    stated, _ = read_source_json(_source_path(path))
    name = path.resolve().name
    if path.is_dir():
        parts = "".join(f"{file}:{fingerprint(path / file)}\n" for file in (_PROMPTS, _OUTCOMES))
        sha256 = hashlib.sha256(parts.encode()).hexdigest()
    else:
        sha256 = fingerprint(path)
    return Source(
        name=str(stated.get("name", name)),
        path=name,
        sha256=sha256,
        licence=None if "licence" not in stated else str(stated["licence"]),
        attribution=None if "attribution" not in stated else str(stated["attribution"]),
        simulated=bool(stated.get("simulated", False)),
        n_prompts=n_prompts,
    )
