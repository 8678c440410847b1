"""How much of the decision log a database holds. Entry points: :func:`status_of`, :func:`table_of`."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import SettingsError, StorageUnavailable

if TYPE_CHECKING:
    from rich.table import Table

_PATIENCE_S = 5.0
_UNKNOWN = "–"
_COUNT = "SELECT count(*), min(time_unix_s), max(time_unix_s)"
#: What is counted: its name, the table, and which of its rows.
_COUNTED = (
    ("requests", "request", ""),
    ("  features", "retained", "WHERE level = 'features'"),
    ("  content", "retained", "WHERE level = 'content'"),
    ("feedback", "feedback", ""),
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of one kind; None where there is none of it."""

    name: str
    n_rows: int
    oldest_unix_s: float | None
    newest_unix_s: float | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """What a database holds, and how large its files are."""

    path: Path
    n_bytes: int
    rows: tuple[Counted, ...]


def status_of(database: Path) -> LogStatus:
    """Count.

    Raises
    ------
    SettingsError
        There is no such database.
    StorageUnavailable
        It cannot be read.
    """
    if not database.is_file():
        raise SettingsError(f"{database}: there is no such database; expected the server.database of a gateway")
    try:
        with closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)
        ) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            rows = tuple(
                Counted(name, *connection.execute(f"{_COUNT} FROM {table} {which}").fetchone())
                for name, table, which in _COUNTED
                if table in tables
            )
    except sqlite3.Error as error:
        raise StorageUnavailable(f"{database} cannot be read: {error}") from error
    files = (database, database.with_name(f"{database.name}-wal"))
    return LogStatus(database, sum(file.stat().st_size for file in files if file.is_file()), rows)


def table_of(status: LogStatus) -> Table:
    """Make the table that people read."""
    from rich import box
    from rich.table import Table

    title = f"{status.path} ({status.n_bytes / 1e6:,.1f} MB)"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in ("what", "rows", "oldest", "newest"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for row in status.rows:
        table.add_row(row.name, f"{row.n_rows:,}", _day(row.oldest_unix_s), _day(row.newest_unix_s))
    return table


def _day(unix_s: float | None) -> str:
    return _UNKNOWN if unix_s is None else datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
