"""Records in SQLite: rows of two tables, written by the one writer. Entry point: :class:`SqliteRecordStore`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from serving.records import RecordStatus, RequestRecord, Retained
from serving.storage.writer import SqliteWriter, Table


class SqliteRecordStore:
    """Keeps records in one SQLite file.

    Parameters
    ----------
    path : Path or SqliteWriter
        The file, or who writes to it.
    n_queue : int, default=10000
        Records that may wait where a writer is made for them.
    """

    is_on = True

    def __init__(self, path: Path | SqliteWriter, *, n_queue: int = 10_000) -> None:
        self._writer = SqliteWriter(path, n_queue=n_queue) if isinstance(path, Path) else path

    def open(self) -> None:
        """Start the writer; what the disk thinks of it shows in :meth:`status`."""
        self._writer.open()

    def add(self, record: RequestRecord, retained: Retained | None = None) -> None:
        """Queue one record, or drop and count it when the queue is full or the store is not open."""
        if self._writer.add(REQUESTS, record) and retained is not None:
            self._writer.add(RETAINED, retained)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued so far was tried once; False when that took too long."""
        return self._writer.flush(timeout_s)

    def status(self) -> RecordStatus:
        """Return the counts."""
        return self._writer.status()

    async def explored_usd(self, since_unix_s: float) -> Mapping[str, float]:
        """Return what exploring has cost since then, what is not known of it at the expected cost; asks the writer."""
        return await self._writer.change(partial(_explored_usd, since_unix_s))

    def close(self) -> None:
        """Write what is queued and stop the writer. Idempotent."""
        self._writer.close()


def _explored_usd(since_unix_s: float, database: sqlite3.Connection) -> dict[str, float]:
    # As the partial index has it, so that only explored requests are read.
    rows = database.execute(
        "SELECT coalesce(scenario, ''), sum(coalesce(explore_usd, expected_cost_usd, 0.0)) FROM request "
        "WHERE is_explored = 1 AND time_unix_s >= ? GROUP BY 1",
        (since_unix_s,),
    )
    return dict(rows.fetchall())


REQUESTS = Table("request", RequestRecord._fields)
#: A prompt may have 32 KB, so a thousand of them may wait at most.
RETAINED = Table("retained", Retained._fields, n_queue=1_000)
