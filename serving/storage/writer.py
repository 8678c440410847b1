"""The one thread that writes to the database: rows that nobody waits for, and changes that somebody waits for.

Everything goes through one queue and is written in its order, many entries in one transaction: who is told that a
change was made knows that everything before it was made too. Rows fail OPEN: when the disk fails or the queue is full
they are dropped and counted, traffic goes on, and the log says so once per change. Changes fail CLOSED: who waits for
one is told that it was not made. Entry point: :class:`SqliteWriter`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from serving import logs
from serving.errors import StorageUnavailable
from serving.records import RecordStatus
from serving.storage.migrations import migrate

#: How long a row may wait for its batch; what a kill -9 can lose.
FLUSH_EVERY_S = 1.0
#: How often, and after how long each, the last round is tried again before its rows are counted as lost.
_LAST_TRIES, _LAST_TRY_AFTER_S = 5, 0.1
N_BATCH = 512
#: Rows of one statement. Each gives way to the event loop and asks to go on: fewer cost both threads less.
N_ROWS = 128
#: How long whoever waits for a change or an answer waits.
PATIENCE_S = 5.0
#: How long emptying the write-ahead log waits for readers; the writer waits meanwhile.
CHECKPOINT_PATIENCE_S = 0.2

T = TypeVar("T")
#: What is done to the database, or asked of it.
Job = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows go: a table and its columns, in the order of the rows. A row that is there already stays.

    ``n_queue`` is how long the queue may be for one more of large rows, so that a disk that stops fills no memory; 0 is
    the writer's own limit.
    """

    name: str
    columns: tuple[str, ...]
    n_queue: int = 0

    def insert(self, n_rows: int) -> str:
        """Return the statement for some rows."""
        return _insert(self.name, self.columns, n_rows)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """Something to be done, and whoever waits for it."""

    job: Job[Any]
    made: Future[Any] = field(default_factory=Future)

    def answer(self, found: object, error: Exception | None) -> None:
        """Tell whoever still waits."""
        if not self.made.set_running_or_notify_cancel():
            return
        if error is None:
            self.made.set_result(found)
        else:
            self.made.set_exception(error)


_Entry = tuple[Table, Sequence[object]] | _Change


class SqliteWriter:
    """Writes to one SQLite file, in one thread.

    Parameters
    ----------
    path : Path
        The file; made when absent, migrated when older.
    n_queue : int, default=10000
        Entries that may wait, and a batch more that came back; what is beyond is dropped and counted, or refused.
    """

    def __init__(self, path: Path, *, n_queue: int = 10_000) -> None:
        self.path = path
        self._n_queue = n_queue
        self._queue: deque[_Entry] = deque()
        self._wake = threading.Event()
        self._round_ended = threading.Condition()
        self._n_rounds = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None
        # Each counter has one writing thread: the event loop's for the refused, the writer for the others.
        self._n_refused = self._n_lost = self._n_written = 0
        self._is_failing = self._is_dropping = False

    def open(self) -> None:
        """Start the writer; what the disk thinks of it shows in :meth:`status`. Idempotent."""
        if self._thread is None:
            self._is_closing = False
            self._thread = threading.Thread(target=self._write_until_closed, name="records", daemon=True)
            self._thread.start()

    def add(self, table: Table, row: Sequence[object]) -> bool:
        """Queue one row, or drop and count it when the queue is full or the writer is not open; say which."""
        queue = self._queue
        if len(queue) >= (table.n_queue or self._n_queue) or self._thread is None:
            self._n_refused += 1
            if not self._is_dropping and self._thread is not None:
                self._is_dropping = True
                logs.event("records_dropping", {"n_dropped": self._n_refused + self._n_lost}, level="error")
            return False
        queue.append((table, row))
        # The writer looks by itself every second: waking it for each row would cost more than writing.
        if len(queue) == N_BATCH:
            self._wake.set()
        return True

    async def change(self, job: Job[T]) -> T:
        """Make a change, and return once it is on disk; what the job raises undoes it alone, and is raised here.

        Raises
        ------
        StorageUnavailable
            It was not made: the queue is full, or the disk fails.
        """
        if len(self._queue) >= self._n_queue or self._thread is None:
            raise StorageUnavailable("the database cannot be written to at the moment", retry_after_s=PATIENCE_S)
        change = _Change(job)
        self._queue.append(change)
        self._wake.set()
        try:
            # Who gives up cancels it: then it is skipped, unless it is being made, which nobody hears of.
            # (Not wait_for: until Python 3.12 it swallows a cancellation that comes together with the answer.)
            async with asyncio.timeout(PATIENCE_S):
                made: T = await asyncio.wrap_future(change.made)
        except TimeoutError as error:
            raise StorageUnavailable(
                "the database cannot be written to at the moment", retry_after_s=PATIENCE_S
            ) from error
        return made

    async def read(self, job: Job[T]) -> T:
        """Ask the database something, beside the writer.

        Raises
        ------
        StorageUnavailable
            It cannot be read.
        """
        return await asyncio.to_thread(self.read_now, job)

    def read_now(self, job: Job[T]) -> T:
        """Ask the database something, waiting for the answer; for threads and commands. Raises as :meth:`read`."""
        try:
            with closing(
                sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=PATIENCE_S)
            ) as database:
                return job(database)
        except sqlite3.Error as error:
            raise StorageUnavailable("the database cannot be read at the moment", retry_after_s=PATIENCE_S) from error

    async def checkpoint(self) -> bool:
        """Move everything out of the write-ahead log into the file and empty the log; False while a reader needs it.

        Raises
        ------
        StorageUnavailable
            The disk fails.
        """
        return await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> bool:
        try:
            # A connection of its own: waiting for readers shall not keep the writer.
            with closing(sqlite3.connect(self.path, timeout=CHECKPOINT_PATIENCE_S)) as database:
                (is_busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            raise StorageUnavailable("the database cannot be written to at the moment") from error
        return not is_busy

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued so far was tried once; False when that took too long."""
        give_up_at = time.monotonic() + timeout_s
        with self._round_ended:
            # The round under way may have passed the newest row by; the one after it cannot.
            until = self._n_rounds + 2
            while self._n_rounds < until and self._thread is not None:
                if time.monotonic() > give_up_at:
                    return False
                self._wake.set()
                self._round_ended.wait(0.05)
        return True

    def status(self) -> RecordStatus:
        """Return the counts."""
        return RecordStatus(self._n_written, self._n_refused + self._n_lost, self._is_failing, len(self._queue))

    def close(self) -> None:
        """Write what is queued and stop the writer. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._is_closing = True
            self._wake.set()
            thread.join()

    def _write_until_closed(self) -> None:
        database: sqlite3.Connection | None = None
        is_last = False
        while not is_last:
            self._wake.wait(FLUSH_EVERY_S)
            self._wake.clear()
            is_last = self._is_closing
            database = self._write_all(database)
            for _ in range(_LAST_TRIES if is_last else 0):
                if not self._queue:
                    break
                # Another process may be making the file, a lock SQLite does not wait for; there is no later round.
                time.sleep(_LAST_TRY_AFTER_S)
                database = self._write_all(database)
            with self._round_ended:
                self._n_rounds += 1
                self._round_ended.notify_all()
        self._give_up()
        if database is not None:
            database.close()

    def _write_all(self, database: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Write what is queued now; return the connection to go on with, None after a failure."""
        n_left = len(self._queue)  # what comes meanwhile waits: a transaction for each would cost far more
        while n_left:
            batch = [self._queue.popleft() for _ in range(min(N_BATCH, n_left))]
            n_left -= len(batch)
            answers: list[Callable[[], None]] = []
            try:
                if database is None:
                    database = connect(self.path)
                with database:
                    database.execute("BEGIN IMMEDIATE")
                    n_rows = _write(database, batch, answers)
            except sqlite3.OperationalError as error:
                # Locked, full, read-only, gone: the disk may come back, so the entries wait in their bounded queue.
                self._queue.extendleft(reversed(batch))
                self._failed(database, error)
                return None
            except Exception as error:  # nothing a row or a file holds may end this thread
                self._lose(batch)
                self._failed(database, error)
                return None
            for answer in answers:
                answer()
            self._n_written += n_rows
            has_caught_up = self._is_dropping and len(self._queue) < N_BATCH
            if self._is_failing or has_caught_up:
                self._is_failing = self._is_dropping = False
                logs.event("records_recovered", {"n_dropped": self.status().n_dropped}, level="warning")
        return database

    def _give_up(self) -> None:
        self._lose(list(self._queue))
        self._queue.clear()

    def _lose(self, batch: Sequence[_Entry]) -> None:
        """Count rows as lost, and tell whoever waits that nothing was changed."""
        for entry in batch:
            if isinstance(entry, _Change):
                entry.answer(None, StorageUnavailable("the database could not be written to"))
            else:
                self._n_lost += 1

    def _failed(self, database: sqlite3.Connection | None, error: Exception) -> None:
        """Drop the connection and say so, once per spell of trouble."""
        if database is not None:
            database.close()
        if not self._is_failing:
            self._is_failing = True
            logs.event("records_failing", {"error": type(error).__name__}, level="error")


def _write(database: sqlite3.Connection, batch: Sequence[_Entry], answers: list[Callable[[], None]]) -> int:
    """Write some entries in their order; return how many rows there were. Answers are given after the commit."""
    n_rows = 0
    for table, entries in groupby(batch, key=_table_of):
        if table is None:
            for entry in entries:
                assert isinstance(entry, _Change)
                _make(database, entry, answers)
            continue
        rows = [entry[1] for entry in entries if isinstance(entry, tuple)]
        n_rows += len(rows)
        for start in range(0, len(rows), N_ROWS):
            some = rows[start : start + N_ROWS]
            database.execute(table.insert(len(some)), tuple(chain.from_iterable(some)))
    return n_rows


def _table_of(entry: _Entry) -> Table | None:
    return entry[0] if isinstance(entry, tuple) else None


def _make(database: sqlite3.Connection, change: _Change, answers: list[Callable[[], None]]) -> None:
    """Make one change of a transaction; what its job raises undoes it and nothing else."""
    if change.made.cancelled():
        return
    database.execute("SAVEPOINT change")
    try:
        found = change.job(database)
    except sqlite3.OperationalError:
        raise  # the disk's trouble is everybody's
    except Exception as error:
        database.execute("ROLLBACK TO change")
        answers.append(partial(change.answer, None, error))
    else:
        answers.append(partial(change.answer, found, None))
    database.execute("RELEASE change")


@lru_cache(maxsize=4 * N_ROWS)
def _insert(table: str, columns: tuple[str, ...], n_rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * n_rows)}"


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing, bring its schema up to date."""
    database = sqlite3.connect(path, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A batch survives the death of this process; only a power cut can lose the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        # What is deleted is overwritten, not only given free.
        database.execute("PRAGMA secure_delete = ON")
        migrate(database)
    except sqlite3.Error:
        database.close()
        raise
    return database
