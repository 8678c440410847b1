"""Raw files to raw frames: Parquet, CSV, JSONL and ``source.json``.

It knows bytes, encodings and lines, not columns: what the values mean is for ``checks``. Every
frame is indexed by the data row, counted from 1, so that a message can name the row even after a
broken one was left out.

Entry point: ``read_frame``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from routing_data.errors import Problem, UnreadableFile, nearest
from routing_data.schema import SOURCE_KEYS


def read_frame(path: Path) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    """Read one table file as it is.

    Parameters
    ----------
    path : Path
        A ``.parquet``, ``.csv`` or ``.jsonl`` file.

    Returns
    -------
    frame : DataFrame
        Columns as in the file, index = data row from 1.
    problems : tuple of Problem
        Broken lines, which are not in the frame.

    Raises
    ------
    UnreadableFile
        If nothing of it can be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        found = f"a file ending in {path.suffix!r}" if path.suffix else "a file without an ending"
        raise UnreadableFile(path.name, found, f"one of {', '.join(_READERS)}, or a folder")
    return reader(path)


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_source_json(path: Path) -> tuple[dict[str, str | bool], tuple[Problem, ...]]:
    """Read the optional statement of origin beside a table.

    Parameters
    ----------
    path : Path
        ``source.json``; it may be absent.

    Returns
    -------
    stated : dict
        What it states; empty if there is no such file.
    problems : tuple of Problem
        Unknown keys and values of the wrong type.

    Raises
    ------
    UnreadableFile
        If it is there and is not a JSON object.
    """
    if not path.exists():
        return {}, ()
    try:
        stated = json.loads(_utf8(path))
    except json.JSONDecodeError as error:
        found = f"malformed JSON at line {error.lineno}"
        raise UnreadableFile(path.name, found, "one JSON object") from error
    if not isinstance(stated, dict):
        raise UnreadableFile(path.name, f"a JSON {type(stated).__name__}", "one JSON object")
    problems = []
    for key, value in stated.items():
        if key not in SOURCE_KEYS:
            hint = f"a known key ({nearest(key, SOURCE_KEYS)})"
            problems.append(Problem("unknown-key", path.name, f"unknown key {key!r}", hint))
        elif not isinstance(value, SOURCE_KEYS[key]):
            wanted = "true or false" if SOURCE_KEYS[key] is bool else "text"
            problems.append(Problem("wrong-type", path.name, f"{key!r} is {value!r}", wanted))
    return {key: value for key, value in stated.items() if isinstance(value, (str, bool))}, tuple(problems)


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableFile(path.name, "no such file", "a file that exists") from error
    except OSError as error:
        raise UnreadableFile(path.name, error.strerror or "an I/O error", "a readable file") from error
    if not data.strip():
        raise UnreadableFile(path.name, "an empty file", "at least one row")
    return data


def _utf8(path: Path) -> str:
    data = _bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start} (line {line})"
        raise UnreadableFile(path.name, found, "UTF-8 text") from error


def _read_parquet(path: Path) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    data = _bytes(path)
    try:
        table = pa.parquet.read_table(io.BytesIO(data), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        # Arrow's own words are left out: they can quote the bytes of a cell.
        raise UnreadableFile(path.name, "not Parquet, or damaged", "a Parquet file") from error
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise UnreadableFile(path.name, "text that is not UTF-8", "UTF-8 text") from error
    frame = table.to_pandas().reset_index(drop=True)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame, ()


def _read_csv(path: Path) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    text = _utf8(path)
    try:
        header = next(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise UnreadableFile(path.name, "a first line that is not CSV", "the names of the columns") from error
    data = text.encode()
    problems: list[Problem] = []
    broken: list[int] = []

    def note(row: pa.csv.InvalidRow) -> str:
        number = row.number - 1  # Arrow counts the header as row 1
        broken.append(number)
        found = f"{row.actual_columns} fields"
        problems.append(Problem("ragged-row", path.name, found, f"{row.expected_columns} fields", row=number))
        return "skip"

    try:
        table = pa.csv.read_csv(
            io.BytesIO(data),
            # One block: row numbers are only known, and long prompts only fit, when it is not cut up.
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in header}, strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise UnreadableFile(path.name, "not CSV, or damaged", "comma-separated values") from error
    frame = table.to_pandas()
    n_rows = len(frame) + len(broken)
    frame.index = pd.Index(sorted(set(range(1, n_rows + 1)) - set(broken)))
    return frame, tuple(problems)


def _read_jsonl(path: Path) -> tuple[pd.DataFrame, tuple[Problem, ...]]:
    problems: list[Problem] = []
    rows: dict[int, dict[str, object]] = {}
    columns: dict[str, None] = {}
    for number, line in enumerate(_utf8(path).rstrip("\r\n").split("\n"), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
            found = f"malformed JSON{at}" if line.strip() else "an empty line"
            problems.append(Problem("malformed-line", path.name, found, "one JSON object", row=number))
            continue
        if not isinstance(value, dict):
            found = f"a JSON {type(value).__name__}"
            problems.append(Problem("malformed-line", path.name, found, "one JSON object", row=number))
            continue
        rows[number] = value
        columns.update(dict.fromkeys(value))
    cells = {name: [row.get(name) for row in rows.values()] for name in columns}
    frame = pd.DataFrame(cells, index=pd.Index(list(rows), dtype="int64"), dtype=object)
    return frame, tuple(problems)


_READERS: dict[str, Callable[[Path], tuple[pd.DataFrame, tuple[Problem, ...]]]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
