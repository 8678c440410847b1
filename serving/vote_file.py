"""Files of votes: CSV, JSON lines or Parquet, read row by row into what ``POST /v1/feedback`` takes.

A row that cannot be read is no end of the file: it is given with its line and what is wrong with it. Entry points:
:func:`rows_of`, :class:`Row`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from serving.errors import InvalidRequest

COLUMNS = ("request_id", "key", "rating", "thumbs", "correct", "grader", "score", "tags", "time", "time_unix_s")
#: How truth is written in tables.
_TRUTH: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_BETWEEN = re.compile(r"[,;|\s]+")
_N_BATCH = 1_000


class Row(NamedTuple):
    """One row.

    Parameters
    ----------
    line : int
        Of the file, from 1; of Parquet the row.
    given : Mapping
        A vote as :func:`serving.feedback.read_vote` reads it.
    key : str or None
        Whose vote it is, where the file says so.
    problem : str
        What is wrong with the row, where it cannot be read; "" else.
    """

    line: int
    given: Mapping[str, object]
    key: str | None = None
    problem: str = ""


def rows_of(path: Path) -> Iterator[Row]:
    """Read a file of votes.

    Parameters
    ----------
    path : Path
        Its ending says its form: ``.csv``, ``.jsonl`` (or ``.ndjson``), ``.parquet``.

    Yields
    ------
    Row

    Raises
    ------
    InvalidRequest
        The file cannot be read at all, or has a column that is none of :data:`COLUMNS`.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidRequest(f"{path}: expected a name that ends in {', '.join(_READERS)}")
    try:
        yield from reader(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {type(error).__name__}") from error


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="\0more", strict=True)
        try:
            _check(path, reader.fieldnames or ())
            for cells in reader:
                # Texts; cells left empty say nothing, as columns that are not there.
                said: dict[str, object] = {name: cell.strip() for name, cell in cells.items() if isinstance(cell, str)}
                if "\0more" in cells:
                    yield Row(reader.line_num, {}, problem="more cells than columns")
                else:
                    yield _row(reader.line_num, {name: cell for name, cell in said.items() if cell != ""})
        except csv.Error as error:
            raise InvalidRequest(f"{path}, line {reader.line_num}: this is no CSV") from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for n, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                said = orjson.loads(line)
            except orjson.JSONDecodeError:
                yield Row(n, {}, problem="expected a JSON object")
                continue
            yield _row(n, said) if isinstance(said, dict) else Row(n, {}, problem="expected a JSON object")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InvalidRequest("Parquet needs pyarrow: pip install 'turnout[training]'") from error
    try:
        file = parquet.ParquetFile(path)
        _check(path, file.schema_arrow.names)
        n = 0
        for batch in file.iter_batches(_N_BATCH):
            for said in batch.to_pylist():
                n += 1
                yield _row(n, said)
    except pyarrow.ArrowException as error:
        raise InvalidRequest(f"{path} cannot be read: {type(error).__name__}") from error


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}


def _check(path: Path, names: Sequence[str]) -> None:
    """Refuse a table with columns that nobody would read: a comment in one would be lost unseen."""
    for name in names:
        if name not in COLUMNS:
            raise InvalidRequest(f"{path}: unknown column {name!r}; expected only {', '.join(COLUMNS)}")
    if "request_id" not in names:
        raise InvalidRequest(f"{path}: expected a column request_id")


def _row(line: int, said: Mapping[str, object]) -> Row:
    """Turn the cells of a row into the fields of a vote; what cannot be turned stays, for its error."""
    given = {name: value for name, value in said.items() if not _is_empty(value)}
    key = given.pop("key", None)
    if key is not None and not isinstance(key, str):
        return Row(line, {}, problem="key must be a string")
    for name in ("rating", "score", "time_unix_s"):
        if isinstance(given.get(name), str):
            given[name] = _number(given[name])
    if isinstance(correct := given.get("correct"), str | int | float):
        # Parquet made of a column with gaps may hold 1.0 for true.
        given["correct"] = _TRUTH.get(str(correct).lower().removesuffix(".0"), correct)
    if isinstance(given.get("tags"), str):
        given["tags"] = [tag for tag in _BETWEEN.split(str(given["tags"])) if tag]
    if "time" in given:
        given["time_unix_s"] = _unix_s(given.pop("time"))
    return Row(line, given, key)


def _is_empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _number(text: object) -> object:
    try:
        return float(str(text))
    except ValueError:
        return text


def _unix_s(value: object) -> object:
    """Return unix seconds: of a number, or of ISO 8601, in UTC where no offset stands there."""
    if isinstance(value, str):
        number = _number(value)
        if isinstance(number, float):
            return number
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return value
