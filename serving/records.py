"""What is kept of a request: numbers and names, never a word of it.

:class:`SqliteRecordStore` keeps the records in one SQLite file. The request path only appends to a bounded queue;
one thread writes in batches. It fails OPEN: when the disk fails or the queue is full, records are dropped and
counted, traffic goes on, and the log says so once per change. :class:`NullRecordStore` keeps nothing.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple, Protocol

from serving import logs

#: How long a record may wait for its batch; what a kill -9 can lose.
FLUSH_EVERY_S = 1.0
#: How often, and after how long each, the last round is tried again before its records are counted as lost.
_LAST_TRIES, _LAST_TRY_AFTER_S = 5, 0.1
N_BATCH = 512
#: Rows of one statement. Each gives way to the event loop and asks to go on: fewer cost both threads less.
N_ROWS = 128


class RequestRecord(NamedTuple):
    """One served request; None is unknown. A tuple, since it is the row that is written.

    ``id`` is the decision id that went out in the response headers, ``time_unix_s`` its arrival, ``key`` the
    name of the client's key, ``outcome`` "ok" or the ``outcome`` of the error that ended it. Token counts are
    the provider's own; ``predicted_quality`` and ``expected_cost_usd`` are what the decision said of the choice;
    ``api`` is what the client spoke, ``losses`` the paths of what the provider could not be sent as it was,
    ``attempts`` the deployments that failed before the one that answered, ``is_usage_estimated`` says that an answer
    was cut off and its tokens are our estimate, ``scenario`` and ``rule`` are names of the settings.
    """

    id: str
    time_unix_s: float
    key: str
    requested_model: str
    status: int
    outcome: str
    is_stream: bool
    candidate: str | None = None
    deployment: str | None = None
    policy_kind: str | None = None
    policy_value: float | None = None
    policy_name: str | None = None
    binding: str | None = None
    propensity: float | None = None
    bundle: str | None = None
    predicted_quality: float | None = None
    expected_cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    first_byte_s: float | None = None
    total_s: float | None = None
    api: str | None = None
    upstream_dialect: str | None = None
    losses: str | None = None
    attempts: str | None = None
    is_usage_estimated: bool = False
    scenario: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True)
class RecordStatus:
    """How the store is doing since it was opened; ``n_dropped`` records were never kept."""

    n_written: int
    n_dropped: int
    is_failing: bool


class RecordStore(Protocol):
    """Where records go; no method raises for want of a disk, and :meth:`add` never waits."""

    def open(self) -> None:
        """Start keeping records."""

    def add(self, record: RequestRecord) -> None:
        """Keep one record, soon."""

    def status(self) -> RecordStatus:
        """Return the counts."""

    def close(self) -> None:
        """Write what is queued and stop. Idempotent."""


class NullRecordStore:
    """Keeps nothing."""

    def open(self) -> None:
        """Do nothing."""

    def add(self, record: RequestRecord) -> None:
        """Forget the record."""

    def status(self) -> RecordStatus:
        """Return zeros."""
        return RecordStatus(0, 0, False)

    def close(self) -> None:
        """Do nothing."""


class SqliteRecordStore:
    """Keeps records in one SQLite file, written by one thread.

    Parameters
    ----------
    path : Path
        The file; made when absent, migrated when older.
    n_queue : int, default=10000
        Records that may wait; more are dropped and counted.
    """

    def __init__(self, path: Path, *, n_queue: int = 10_000) -> None:
        self._path = path
        self._n_queue = n_queue
        self._queue: deque[RequestRecord] = deque()
        self._wake = threading.Event()
        self._round_ended = threading.Condition()
        self._n_rounds = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None
        # Each counter has one writing thread: the event loop's for the refused, the writer for the others.
        self._n_refused = self._n_lost = self._n_written = 0
        self._is_failing = False

    def open(self) -> None:
        """Start the writer; what the disk thinks of it shows in :meth:`status`."""
        if self._thread is None:
            self._is_closing = False
            self._thread = threading.Thread(target=self._write_until_closed, name="records", daemon=True)
            self._thread.start()

    def add(self, record: RequestRecord) -> None:
        """Queue one record, or drop and count it when the queue is full or the store is not open."""
        queue = self._queue
        if len(queue) >= self._n_queue or self._thread is None:
            self._n_refused += 1
            return
        queue.append(record)
        # The writer looks by itself every second: waking it for each record would cost more than writing.
        if len(queue) == N_BATCH:
            self._wake.set()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything queued so far was tried once; False when that took too long."""
        give_up_at = time.monotonic() + timeout_s
        with self._round_ended:
            # The round under way may have passed the newest record by; the one after it cannot.
            until = self._n_rounds + 2
            while self._n_rounds < until and self._thread is not None:
                if time.monotonic() > give_up_at:
                    return False
                self._wake.set()
                self._round_ended.wait(0.05)
        return True

    def status(self) -> RecordStatus:
        """Return the counts."""
        return RecordStatus(self._n_written, self._n_refused + self._n_lost, self._is_failing)

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
        self._n_lost += len(self._queue)
        self._queue.clear()
        if database is not None:
            database.close()

    def _write_all(self, database: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Write what is queued now; return the connection to go on with, None after a failure."""
        n_left = len(self._queue)  # what comes meanwhile waits: a transaction for each would cost far more
        while n_left:
            batch = [self._queue.popleft() for _ in range(min(N_BATCH, n_left))]
            n_left -= len(batch)
            try:
                if database is None:
                    database = _connect(self._path)
                with database:
                    for start in range(0, len(batch), N_ROWS):
                        rows = batch[start : start + N_ROWS]
                        database.execute(_insert(len(rows)), tuple(chain.from_iterable(rows)))
            except sqlite3.OperationalError as error:
                # Locked, full, read-only, gone: the disk may come back, so the records wait in their bounded queue.
                self._queue.extendleft(reversed(batch))
                self._failed(database, error)
                return None
            except Exception as error:  # nothing a record or a file holds may end this thread
                self._n_lost += len(batch)
                self._failed(database, error)
                return None
            self._n_written += len(batch)
            if self._is_failing:
                self._is_failing = False
                logs.event("records_recovered", {"n_dropped": self.status().n_dropped}, level="warning")
        return database

    def _failed(self, database: sqlite3.Connection | None, error: Exception) -> None:
        """Drop the connection and say so, once per spell of trouble."""
        if database is not None:
            database.close()
        if not self._is_failing:
            self._is_failing = True
            logs.event("records_failing", {"error": type(error).__name__}, level="error")


_COLUMNS = RequestRecord._fields
_ROW = f"({', '.join('?' * len(_COLUMNS))})"


@lru_cache(maxsize=N_ROWS)
def _insert(n_rows: int) -> str:
    return f"INSERT OR IGNORE INTO request ({', '.join(_COLUMNS)}) VALUES {', '.join([_ROW] * n_rows)}"


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing, bring its schema up to date."""
    database = sqlite3.connect(path, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A batch survives the death of this process; only a power cut can lose the last ones.
        database.execute("PRAGMA synchronous = NORMAL")
        _migrate(database)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection) -> None:
    """Apply the migrations the file has not seen, in order, each in the transaction that notes it."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute("CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY)")
        applied = {name for (name,) in database.execute("SELECT name FROM migration")}
        for migration in MIGRATIONS:
            if migration.__name__ not in applied:
                migration(database)
                database.execute("INSERT INTO migration VALUES (?)", (migration.__name__,))


def m001_request(database: sqlite3.Connection) -> None:
    """Make the table of requests. No column can hold content."""
    database.execute(
        """
        CREATE TABLE request (
            id TEXT PRIMARY KEY, time_unix_s REAL NOT NULL, key TEXT NOT NULL, requested_model TEXT NOT NULL,
            status INTEGER NOT NULL, outcome TEXT NOT NULL, is_stream INTEGER NOT NULL,
            candidate TEXT, deployment TEXT, policy_kind TEXT, policy_value REAL, policy_name TEXT, binding TEXT,
            propensity REAL, bundle TEXT, predicted_quality REAL, expected_cost_usd REAL,
            input_tokens INTEGER, output_tokens INTEGER, cache_read_tokens INTEGER, cache_write_tokens INTEGER,
            reasoning_tokens INTEGER, cost_usd REAL, first_byte_s REAL, total_s REAL
        )
        """
    )
    database.execute("CREATE INDEX request_by_time ON request (time_unix_s)")


def m002_translation(database: sqlite3.Connection) -> None:
    """Add what was spoken on both sides, and what was lost between (paths of fields, never a value)."""
    for column in ("api", "upstream_dialect", "losses"):
        database.execute(f"ALTER TABLE request ADD COLUMN {column} TEXT")


def m003_attempts(database: sqlite3.Connection) -> None:
    """Add the attempts that failed before the one that counted: configured names and outcomes."""
    database.execute("ALTER TABLE request ADD COLUMN attempts TEXT")


def m004_estimates(database: sqlite3.Connection) -> None:
    """Add whether the tokens are an estimate, of answers that were cut off."""
    database.execute("ALTER TABLE request ADD COLUMN is_usage_estimated INTEGER")


def m005_scenarios(database: sqlite3.Connection) -> None:
    """Add the scenario that decided and the rule that led to it."""
    for column in ("scenario", "rule"):
        database.execute(f"ALTER TABLE request ADD COLUMN {column} TEXT")


#: Append only: what has been released is never edited, a change is a new function at the end.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_request,
    m002_translation,
    m003_attempts,
    m004_estimates,
    m005_scenarios,
)
