"""Everything that is kept, behind one small interface: what a database must be able to do for the gateway.

:class:`SqliteStorage` is the default; a server such as PostgreSQL would be another class with the same members. Its
parts are stores, each an interface of its own. Entry points: :class:`Storage`, :class:`SqliteStorage`,
:class:`NullStorage`.
"""

from __future__ import annotations

import sqlite3
from math import inf
from pathlib import Path
from typing import Protocol

from serving.feedback import FeedbackStore, NullFeedbackStore
from serving.records import NullRecordStore, RecordStore
from serving.storage.experiments import ExperimentStore, NullExperimentStore, SqliteExperimentStore
from serving.storage.expiry import forget
from serving.storage.record_store import SqliteRecordStore
from serving.storage.votes import SqliteFeedbackStore
from serving.storage.writer import SqliteWriter


class Storage(Protocol):
    """Where everything is kept: the stores, opened and closed together.

    Attributes
    ----------
    records : RecordStore
        Of requests, and what is retained of their prompts.
    feedback : FeedbackStore
        What was said of their answers.
    experiments : ExperimentStore
        What settings are compared, and which were promoted.
    """

    records: RecordStore
    feedback: FeedbackStore
    experiments: ExperimentStore

    def open(self) -> None:
        """Start keeping; what the disk thinks of it shows in the status of the stores."""

    def close(self) -> None:
        """Write what is queued and stop. Idempotent."""

    async def expire(self, *, records_before_unix_s: float, retained_before_unix_s: float) -> int:
        """Delete what is older, in small steps beside the traffic, so that it leaves the disk too.

        Parameters
        ----------
        records_before_unix_s, retained_before_unix_s : float
            Rows from before then go; what was retained of a prompt goes with its record at the latest.

        Returns
        -------
        int
            How many rows went.

        Raises
        ------
        StorageUnavailable
            Not all of it could be deleted.
        """


class NullStorage:
    """Keeps nothing, or only what it is given a store for."""

    def __init__(self, records: RecordStore | None = None, feedback: FeedbackStore | None = None) -> None:
        self.records: RecordStore = records if records is not None else NullRecordStore()
        self.feedback: FeedbackStore = feedback if feedback is not None else NullFeedbackStore()
        self.experiments: ExperimentStore = NullExperimentStore()

    def open(self) -> None:
        """Open the records."""
        self.records.open()

    def close(self) -> None:
        """Close the records."""
        self.records.close()

    async def expire(self, *, records_before_unix_s: float, retained_before_unix_s: float) -> int:
        """Delete nothing."""
        return 0


class SqliteStorage:
    """Keeps everything in one SQLite file, through one writer.

    Parameters
    ----------
    path : Path
        The file; made when absent, migrated when older.
    """

    def __init__(self, path: Path) -> None:
        self.writer = SqliteWriter(path)
        self.records: RecordStore = SqliteRecordStore(self.writer)
        self.feedback: FeedbackStore = SqliteFeedbackStore(self.writer)
        self.experiments: ExperimentStore = SqliteExperimentStore(self.writer)
        # What an earlier process deleted may be in its log still.
        self._has_remains = True

    def open(self) -> None:
        """Start the writer."""
        self.writer.open()

    def close(self) -> None:
        """Write what is queued and stop the writer. Idempotent."""
        self.writer.close()

    async def expire(self, *, records_before_unix_s: float, retained_before_unix_s: float) -> int:
        """Delete old rows, and what is left of them in the write-ahead log; see :meth:`Storage.expire`."""
        n_retained = await forget(self.writer, "retained", max(records_before_unix_s, retained_before_unix_s))
        # The figures of an experiment are added up from its records, again after every restart.
        records_before_unix_s = min(records_before_unix_s, await self.writer.read(_oldest_experiment))
        n_rows = n_retained + await forget(self.writer, "request", records_before_unix_s)
        # What was said of an answer came after the request, so it goes when its record is gone.
        n_rows += await forget(self.writer, "feedback", records_before_unix_s)
        if n_rows or self._has_remains:
            # A reader in the middle of something keeps the log; then the next round tries again.
            self._has_remains = not await self.writer.checkpoint()
        return n_rows


def _oldest_experiment(database: sqlite3.Connection) -> float:
    """Return when the oldest experiment that runs began; infinity where none does."""
    (began,) = database.execute("SELECT min(created_unix_s) FROM experiment WHERE state = 'running'").fetchone()
    return inf if began is None else float(began)
