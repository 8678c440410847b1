"""Old rows leave in small steps, each a change that the writer makes beside its other work. Entry: :func:`forget`."""

from __future__ import annotations

import sqlite3
from functools import partial

from serving.storage.writer import SqliteWriter

#: Rows of one step; deleting what was retained overwrites it, so a step is kept short.
N_ROWS = 500


async def forget(writer: SqliteWriter, table: str, before_unix_s: float) -> int:
    """Delete the rows of a table from before some time.

    Parameters
    ----------
    writer : SqliteWriter
    table : str
        One of ours, with a column ``time_unix_s``.
    before_unix_s : float

    Returns
    -------
    int
        How many went.

    Raises
    ------
    StorageUnavailable
        Some are left.
    """
    n_rows = 0
    while (n := await writer.change(partial(_delete, table=table, before_unix_s=before_unix_s))) > 0:
        n_rows += n
    return n_rows


def _delete(database: sqlite3.Connection, table: str, before_unix_s: float) -> int:
    oldest = f"SELECT rowid FROM {table} WHERE time_unix_s < ? ORDER BY time_unix_s LIMIT {N_ROWS}"
    return database.execute(f"DELETE FROM {table} WHERE rowid IN ({oldest})", (before_unix_s,)).rowcount
