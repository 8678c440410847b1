"""The decision log as files: one folder per table and UTC day, written anew where the database has changed.

::

    LOG/requests/day=2026-11-27/part-1f2e3d4c.parquet
    LOG/feedback/day=…        LOG/retained/day=…        LOG/.export-1f2e3d4c.json

The digits are of the database's path, so several gateways may export into one log. A day is written beside its place
and then put there, and what was exported is noted after that: whoever is killed in between has lost nothing and begins
with that day again. Where rows have expired, records and feedback stay as they were exported, though their day be
written again, since nothing of a prompt is in them; what was retained of prompts goes from the log as it went from the
database. Entry point: :func:`export`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from serving.errors import SettingsError, StorageUnavailable
from serving.log_layout import TABLES, ExportedTable, batch_of, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Of the notes on what was exported; one who does not know them exports everything again.
_VERSION = 2
_DAY_S = 86_400
#: Rows that are Python objects at once, and rows of a group in a file: what an export takes of memory.
_N_READ, _N_GROUP = 4_000, 32_000
_PATIENCE_S = 30.0
#: What a day of a table is like: rows, the highest number of one, the newest time, and sums over what may change.
Print = list[float]


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: rows and days written, days that had not changed, days of prompts removed."""

    n_rows: int
    n_days: int
    n_unchanged: int
    n_removed: int


def export(
    database: Path,
    out: Path,
    *,
    since: date | None = None,
    with_content: bool = True,
    wrote: Callable[[int], None] = lambda n_rows: None,
) -> Exported:
    """Bring a log up to date with a database, which may be written to meanwhile.

    Parameters
    ----------
    database : Path
    out : Path
        The log's folder; made when absent.
    since : date or None
        Days before are left as they are.
    with_content : bool, default=True
        False leaves the texts of prompts out.
    wrote : callable (n_rows) -> None
        Told after every few thousand rows.

    Returns
    -------
    Exported

    Raises
    ------
    SettingsError
        There is no such database, or the log was exported from another one at the same place.
    StorageUnavailable
        The database cannot be read.
    """
    if not database.is_file():
        raise SettingsError(f"{database}: there is no such database; expected the server.database of a gateway")
    origin = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:8]
    notes = _Notes(out / f".export-{origin}.json", with_content=with_content)
    part = f"part-{origin}"
    first = "" if since is None else since.isoformat()
    done = Counter[str]()
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)
        ) as connection:
            oldest = next(iter(_days(connection, TABLES[0])), "")
            # Of a database without a row, a log without a row.
            out.mkdir(parents=True, exist_ok=True)
            for table in TABLES:
                folder = out / table.name
                for leftover in folder.glob(f"day=*/.{part}.*"):
                    leftover.unlink()
                present = _days(connection, table)
                for day, seen in present.items():
                    if day < first:
                        continue
                    place, before = folder / f"day={day}" / f"{part}.parquet", notes.of(table.name, day)
                    if before and place.is_file() and not _has_changed(table, day, seen, before, oldest):
                        done["unchanged"] += 1
                        continue
                    done["rows"] += _write(connection, table, day, place, with_content=with_content, wrote=wrote)
                    done["days"] += 1
                    notes.keep(table.name, day, seen)
                for day in sorted(notes.days(table.name) - set(present)) if table.name == "retained" else ():
                    _remove(folder / f"day={day}" / f"{part}.parquet")
                    done["removed"] += 1
                    notes.forget(table.name, day)
    except sqlite3.Error as error:
        raise StorageUnavailable(f"{database} cannot be read: {error}") from error
    return Exported(done["rows"], done["days"], done["unchanged"], done["removed"])


class _Notes:
    """What was exported, kept beside it: table and day to what the day was like."""

    def __init__(self, path: Path, *, with_content: bool) -> None:
        self._path = path
        self._how = {"version": _VERSION, "with_content": with_content}
        self._seen: dict[str, dict[str, Print]] = {}
        # Notes that cannot be read are none: everything is exported again.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            noted = orjson.loads(path.read_bytes())
            self._seen = noted["seen"] if noted["version"] == _VERSION else {}
            if noted["with_content"] != with_content:
                # Every prompt is written anew, or taken out.
                self._seen["retained"] = {day: [] for day in self._seen.get("retained", ())}

    def days(self, table: str) -> set[str]:
        return set(self._seen.get(table, ()))

    def of(self, table: str, day: str) -> Print | None:
        return self._seen.get(table, {}).get(day)

    def keep(self, table: str, day: str, seen: Print) -> None:
        self._seen.setdefault(table, {})[day] = seen
        self._save()

    def forget(self, table: str, day: str) -> None:
        del self._seen[table][day]
        self._save()

    def _save(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_bytes(orjson.dumps({**self._how, "seen": self._seen}))
        os.replace(beside, self._path)


def _days(connection: sqlite3.Connection, table: ExportedTable) -> dict[str, Print]:
    """Return what every day of a table is like, oldest first; none where the database is from before the table."""
    if not _columns(connection, table):
        return {}
    sums = "".join(f", total({value})" for value in ("time_unix_s", *table.changing))
    rows = connection.execute(
        f"SELECT CAST(time_unix_s / {_DAY_S} AS INTEGER) AS day, count(*), max(rowid), max(time_unix_s){sums} "
        f"FROM {table.source} GROUP BY day ORDER BY day"
    )
    return {datetime.fromtimestamp(day * _DAY_S, UTC).date().isoformat(): list(seen) for day, *seen in rows}


def _has_changed(table: ExportedTable, day: str, seen: Print, before: Print, oldest: str) -> bool:
    """Say whether a day is to be written again.

    One that only lost rows because they were kept for long enough is not. Rows of requests never move, and expire from
    the oldest on; votes move when they are replaced, but not on days whose requests are expiring.
    """
    if seen == before:
        return False
    if table.name == "retained":
        return True
    (n_rows, number, newest_s), is_expiring = seen[:3], day == oldest
    has_lost = n_rows < before[0]
    if table.name == "requests" and (newest_s < before[2] or (has_lost and not is_expiring)):
        raise SettingsError(
            f"on {day} the log holds requests that the database does not know, so it is another one: export into "
            "another folder"
        )
    return not (is_expiring and has_lost and number <= before[1])


def _write(
    connection: sqlite3.Connection,
    table: ExportedTable,
    day: str,
    place: Path,
    *,
    with_content: bool,
    wrote: Callable[[int], None],
) -> int:
    """Write one day of a table; it is there as a whole, or as it was before.

    What its file holds of requests and votes that have expired since goes on being there.
    """
    import pyarrow.parquet as pq

    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.stem}.new")
    schema, n_rows = schema_of(table), 0
    connection.execute("BEGIN")  # what expires meanwhile is still to be seen
    try:
        with pq.ParquetWriter(beside, schema, compression="zstd") as file:
            for expired in _expired(connection, table, place, schema):
                file.write_table(expired)
                n_rows += expired.num_rows
            for batches in _groups(connection, table, day, schema, with_content=with_content):
                n_in_group = sum(batch.num_rows for batch in batches)
                file.write_table(_joined(batches, schema), row_group_size=n_in_group)
                n_rows += n_in_group
                wrote(n_in_group)
        os.replace(beside, place)
    finally:
        connection.rollback()
        beside.unlink(missing_ok=True)
    return n_rows


def _expired(
    connection: sqlite3.Connection, table: ExportedTable, place: Path, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Read what a day's file holds from before the oldest request there is; nothing of prompts."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    (oldest_s,) = connection.execute("SELECT min(time_unix_s) FROM request").fetchone()
    if table.name == "retained" or oldest_s is None or not place.is_file():
        return
    with pq.ParquetFile(place) as file:
        for i in range(file.num_row_groups):
            group = file.read_row_group(i)
            rows = group.filter(pc.less(group["time_unix_s"], oldest_s))
            if not rows.num_rows:
                return  # they are in order
            # An older program may have written it, with fewer columns.
            columns = [
                rows[one.name].cast(one.type) if one.name in rows.column_names else pa.nulls(rows.num_rows, one.type)
                for one in schema
            ]
            yield pa.table(columns, schema=schema)


def _groups(
    connection: sqlite3.Connection, table: ExportedTable, day: str, schema: pa.Schema, *, with_content: bool
) -> Iterator[list[pa.RecordBatch]]:
    """Read one day of a table, by time, in bounded pieces."""
    start_s = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    rows = connection.execute(
        f"SELECT {_selected(connection, table, with_content=with_content)} FROM {table.source} AS t "
        "WHERE time_unix_s >= ? AND time_unix_s < ? ORDER BY time_unix_s, rowid",
        (start_s, start_s + _DAY_S),
    )
    group: list[pa.RecordBatch] = []
    n_rows = 0
    while read := rows.fetchmany(_N_READ):
        group.append(batch_of(table, schema, read))
        n_rows += len(read)
        if n_rows >= _N_GROUP:
            yield group
            group, n_rows = [], 0
    if group:
        yield group


def _selected(connection: sqlite3.Connection, table: ExportedTable, *, with_content: bool) -> str:
    """Return what is read of each row; a column that the database is too old for is NULL."""
    has = _columns(connection, table)

    def read(column: str) -> str:
        if table.name == "retained" and column == "task":
            return "(SELECT task FROM request WHERE id = t.request_id)"
        return column if column in has and (with_content or column != "prompt") else "NULL"

    return ", ".join(map(read, table.columns))


def _columns(connection: sqlite3.Connection, table: ExportedTable) -> set[Any]:
    return {name for _, name, *_ in connection.execute(f"PRAGMA table_info({table.source})")}


def _joined(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches(batches, schema)


def _remove(file: Path) -> None:
    """Remove a day's file, and its folder where that leaves it empty."""
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()
