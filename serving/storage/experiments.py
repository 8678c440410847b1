"""Experiments in the database: one row each, changed only through acknowledged changes, all of a row's rules here.

A row is running until it is stopped or promoted; a promoted one is in force until it is stopped. At most one is in
force on anything, which the database itself holds to. With the end of its running an experiment's salt is forgotten:
from then on nobody can test whom a recorded unit stood for. Entry points: :class:`ExperimentStore`,
:class:`SqliteExperimentStore`, :class:`NullExperimentStore`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from serving.errors import InvalidRequest, NotFound
from serving.storage.writer import SqliteWriter

RUNNING, STOPPED, PROMOTED = "running", "stopped", "promoted"
T = TypeVar("T")


class Halt(NamedTuple):
    """Why and when an arm was stopped."""

    why: str
    at_unix_s: float


class ExperimentRow(NamedTuple):
    """One experiment as it is kept.

    Parameters
    ----------
    name, acts_on : str
        As the definition says.
    definition : str
        JSON.
    state : str
        ``running``, ``stopped`` or ``promoted``.
    salt : bytes or None
        None once it no longer runs.
    halted : Mapping of str to Halt
        The arms that were stopped while it ran.
    promoted : str or None
        The arm that was promoted.
    why : str
        Of its present state.
    created_unix_s : float
    ended_unix_s : float or None
        When it stopped running; what came later is no part of the comparison.
    changed_unix_s : float
    """

    name: str
    acts_on: str
    definition: str
    state: str
    salt: bytes | None
    halted: Mapping[str, Halt]
    promoted: str | None
    why: str
    created_unix_s: float
    ended_unix_s: float | None
    changed_unix_s: float


_COLUMNS = ", ".join(ExperimentRow._fields)


class ExperimentStore(Protocol):
    """Where experiments are kept; what returns has been kept, or :class:`~serving.errors.GatewayError` says why not."""

    is_on: bool

    async def create(self, row: ExperimentRow) -> None:
        """Keep a new one."""

    async def halt_arm(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Stop an arm of a running one, and with the last arm but the control the whole."""

    async def stop(self, name: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Stop one that runs or is promoted."""

    async def promote(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Give everything to an arm of one that runs."""

    async def rows(self) -> tuple[ExperimentRow, ...]:
        """Return all of them, the oldest first."""

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the records of requests something, beside the writer."""


class NullExperimentStore:
    """Keeps nothing, and says so."""

    is_on = False

    async def create(self, row: ExperimentRow) -> None:
        """Refuse."""
        raise _homeless()

    async def halt_arm(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Refuse."""
        raise _homeless()

    async def stop(self, name: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Refuse."""
        raise _homeless()

    async def promote(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Refuse."""
        raise _homeless()

    async def rows(self) -> tuple[ExperimentRow, ...]:
        """Return none."""
        return ()

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Refuse."""
        raise _homeless()


class SqliteExperimentStore:
    """Keeps them in the table ``experiment``.

    Parameters
    ----------
    writer : SqliteWriter
        Who writes to the file; opened and closed by somebody else.
    """

    is_on = True

    def __init__(self, writer: SqliteWriter) -> None:
        self._writer = writer
        self._was_there = False

    async def create(self, row: ExperimentRow) -> None:
        """Keep a new one.

        Raises
        ------
        InvalidRequest
            Its name was used before, or another is in force on the same.
        StorageUnavailable
        """

        def job(database: sqlite3.Connection) -> None:
            if _find(database, row.name) is not None:
                raise InvalidRequest(f"name = {row.name!r}: expected one that no experiment had before", param="name")
            there = database.execute(
                "SELECT name, state FROM experiment WHERE acts_on = ? AND state != ?", (row.acts_on, STOPPED)
            ).fetchone()
            if there is not None:
                raise InvalidRequest(
                    f"on = {row.acts_on!r}: the experiment {there[0]} is {there[1]} there: expected it to be stopped "
                    "before",
                    param="on",
                )
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO experiment ({_COLUMNS}) VALUES ({marks})", _written(row))

        await self._writer.change(job)

    async def halt_arm(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Stop an arm; see :meth:`stop`. An arm that was stopped already keeps its reason."""

        def change(row: ExperimentRow) -> ExperimentRow:
            _expect(row, RUNNING)
            if arm in row.halted:
                return row
            halted = row._replace(halted={**row.halted, arm: Halt(why, at_unix_s)}, changed_unix_s=at_unix_s)
            n_left = len(json.loads(row.definition)["arms"]) - len(halted.halted)
            return _ended(halted, STOPPED, why, at_unix_s) if n_left == 1 else halted

        return await self._change(name, change)

    async def stop(self, name: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Stop one.

        Raises
        ------
        NotFound
            There is none of that name.
        InvalidRequest
            It is stopped already.
        StorageUnavailable
        """

        def change(row: ExperimentRow) -> ExperimentRow:
            _expect(row, RUNNING, PROMOTED)
            return _ended(row, STOPPED, why, at_unix_s)

        return await self._change(name, change)

    async def promote(self, name: str, arm: str, why: str, at_unix_s: float) -> ExperimentRow:
        """Promote an arm; raises as :meth:`stop` does, and where it does not run any more."""

        def change(row: ExperimentRow) -> ExperimentRow:
            _expect(row, RUNNING)
            return _ended(row._replace(promoted=arm), PROMOTED, why, at_unix_s)

        return await self._change(name, change)

    async def rows(self) -> tuple[ExperimentRow, ...]:
        """Return all of them, the oldest first; raises StorageUnavailable. A file not made yet holds none."""
        if not self._was_there and not self._writer.path.exists():
            return ()
        found = await self._writer.read(all_rows)
        self._was_there = True  # from now on a file that is not there is no empty one
        return found

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the database something, in a thread; raises StorageUnavailable."""
        return await self._writer.read(job)

    async def _change(self, name: str, change: Callable[[ExperimentRow], ExperimentRow]) -> ExperimentRow:
        def job(database: sqlite3.Connection) -> ExperimentRow:
            row = _find(database, name)
            if row is None:
                raise NotFound(f"no experiment is named {name!r}", param="name", code="not_found")
            changed = change(row)
            sets = ", ".join(f"{column} = ?" for column in ExperimentRow._fields)
            database.execute(f"UPDATE experiment SET {sets} WHERE name = ?", (*_written(changed), name))
            return changed

        return await self._writer.change(job)


def all_rows(database: sqlite3.Connection) -> tuple[ExperimentRow, ...]:
    """Return every experiment of a database, the oldest first; none where an older program made the file."""
    if not has_table(database, "experiment"):
        return ()
    found = database.execute(f"SELECT {_COLUMNS} FROM experiment ORDER BY created_unix_s, name")
    return tuple(_read(columns) for columns in found)


def has_table(database: sqlite3.Connection, name: str) -> bool:
    """Say whether a table is there."""
    found = database.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))
    return found.fetchone() is not None


def _find(database: sqlite3.Connection, name: str) -> ExperimentRow | None:
    columns = database.execute(f"SELECT {_COLUMNS} FROM experiment WHERE name = ?", (name,)).fetchone()
    return None if columns is None else _read(columns)


def _read(columns: tuple[object, ...]) -> ExperimentRow:
    row = ExperimentRow._make(columns)
    halted = {arm: Halt(*halt) for arm, halt in json.loads(str(row.halted)).items()}
    return row._replace(halted=halted)


def _written(row: ExperimentRow) -> tuple[object, ...]:
    return tuple(row._replace(halted=json.dumps(row.halted)))  # type: ignore[arg-type]


def _ended(row: ExperimentRow, state: str, why: str, at_unix_s: float) -> ExperimentRow:
    ended = at_unix_s if row.ended_unix_s is None else row.ended_unix_s
    return row._replace(state=state, why=why, salt=None, ended_unix_s=ended, changed_unix_s=at_unix_s)


def _expect(row: ExperimentRow, *states: str) -> None:
    if row.state not in states:
        raise InvalidRequest(
            f"the experiment {row.name} is {row.state}: expected one that is {' or '.join(states)}", param="name"
        )


def _homeless() -> InvalidRequest:
    return InvalidRequest("experiments are kept in the database, and there is none: set server.database", param="name")
