"""The sums of an experiment, kept up to date from the records in the database: only new rows are read at each look.

Of a unit a few numbers are kept, and of a request nothing. The database does the adding up, outside the interpreter's
lock. Feedback may be changed later, so it is added up anew, but only where there is any that was not there before.
Rows of units whose arm was stopped, and which the control serves now, belong to neither. Entry point: :class:`Watch`.
"""

from __future__ import annotations

import sqlite3
from math import inf

import numpy as np
from numpy.typing import NDArray

from router.sequences import ArmTotals
from serving.assignment import place_of
from serving.experiment import Experiment
from serving.experiment_status import Readout, read_out
from serving.storage.experiments import ExperimentRow, has_table

#: Of one experiment; further units are not counted, whichever arm they come to. Each costs about 250 bytes.
MOST_UNITS = 250_000
#: Who ended a request otherwise, the provider or we, failed; and who had nobody to decide for.
_NO_FAILURES = "'ok', 'caller_error', 'client_disconnected', 'replayed', 'shutting_down'"
#: metric -> columns of :attr:`Watch._sums` for its requests and its sum.
_COLUMNS = {"failures": (0, 1), "cost_usd": (2, 3), "latency_s": (4, 5), "quality": (6, 7)}
_SCORES = slice(6, 8)

# In the order in which they came: in that of their digests, which place them, those of the first arm would come first.
_NEW = f"""
    SELECT unit, arm, count(*), sum(outcome NOT IN ({_NO_FAILURES}) OR candidate IS NULL),
        count(cost_usd), total(cost_usd), sum(outcome = 'ok' AND total_s IS NOT NULL),
        total(CASE WHEN outcome = 'ok' THEN total_s END)
    FROM request INDEXED BY request_by_experiment
    WHERE experiment = ? AND rowid > ? AND rowid <= ? AND time_unix_s <= ? AND unit IS NOT NULL
    GROUP BY unit, arm ORDER BY min(rowid)
"""
#: Says whether any vote came or changed.
_VOTED = "SELECT count(*), max(time_unix_s), total(score) FROM feedback WHERE source = 'vote'"
#: Votes first, in the order of their key: there are fewer of them than of requests.
_VOTES = """
    SELECT unit, arm, count(*), total(score) FROM (
        SELECT r.unit AS unit, r.arm AS arm, avg(f.score) AS score
        FROM feedback AS f CROSS JOIN request AS r ON r.id = f.request_id
        WHERE r.experiment = ? AND r.rowid <= ? AND r.time_unix_s <= ? AND r.unit IS NOT NULL AND f.source = 'vote'
        GROUP BY f.request_id
    )
    GROUP BY unit, arm
"""


class Watch:
    """The sums of one experiment, by unit. For one thread at a time.

    Parameters
    ----------
    experiment : Experiment
    """

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._arms = {arm.name: i for i, arm in enumerate(experiment.arms)}
        self._control = self._arms[experiment.control.name]
        self._forget()

    def _forget(self) -> None:
        self._last = 0
        self._voted: tuple[object, ...] = ()
        self._units: dict[str, int] = {}
        self._arm_of: NDArray[np.int8] = np.zeros(64, np.int8)
        self._sums: NDArray[np.float64] = np.zeros((64, 8))
        self._is_full = False

    def look(self, database: sqlite3.Connection, row: ExperimentRow) -> Readout:
        """Read what is new, and say what all of it says.

        Parameters
        ----------
        database : sqlite3.Connection
        row : ExperimentRow
            As it is now: which arms are stopped, and since when it has ended.
        """
        try:
            return self._look(database, row)
        except BaseException:
            self._forget()  # what was added up half-way would be added up again
            raise

    def _look(self, database: sqlite3.Connection, row: ExperimentRow) -> Readout:
        database.execute("BEGIN")  # one snapshot: whatever vote is seen, its request is
        until = inf if row.ended_unix_s is None else row.ended_unix_s
        (newest,) = database.execute("SELECT coalesce(max(rowid), 0) FROM request").fetchone()
        if newest < self._last:
            self._forget()  # every record went, and numbers begin anew
        is_halted = [arm.name in row.halted for arm in self._experiment.arms]
        for unit, arm, *sums in database.execute(_NEW, (row.name, self._last, newest, until)):
            at = self._at(unit, arm, is_halted)
            if at is not None:
                self._sums[at, : len(sums)] += sums
        self._last = newest
        self._look_at_votes(database, row, until, is_halted)
        n = len(self._units)
        arm_of, sums_of = self._arm_of[:n], self._sums[:n]
        totals = {
            name: {
                metric: ArmTotals.of(sums_of[arm_of == i, n_column], sums_of[arm_of == i, column])
                for metric, (n_column, column) in _COLUMNS.items()
            }
            for name, i in self._arms.items()
        }
        n_assigned = np.bincount(arm_of, minlength=len(self._arms)).tolist()
        return read_out(self._experiment, totals, n_assigned, frozenset(row.halted), is_full=self._is_full)

    def _look_at_votes(
        self, database: sqlite3.Connection, row: ExperimentRow, until: float, is_halted: list[bool]
    ) -> None:
        if not has_table(database, "feedback"):
            return
        voted = database.execute(_VOTED).fetchone()
        if voted == self._voted:
            return
        self._voted = voted
        self._sums[:, _SCORES] = 0.0
        for unit, arm, *sums in database.execute(_VOTES, (row.name, self._last, until)):
            at = self._at(unit, arm, is_halted)
            if at is not None:
                self._sums[at, _SCORES] += sums

    def _at(self, unit: str, arm: str, is_halted: list[bool]) -> int | None:
        """Return where the sums of a unit are; None where this arm is not the one it came to, or there is no place."""
        i = self._arms.get(arm)
        if i is None:
            return None
        assigned = self._assigned(unit) if i == self._control and any(is_halted) else i
        at = self._units.get(unit)
        if at is None:
            if len(self._units) >= MOST_UNITS:
                self._is_full = True
                return None
            at = self._units[unit] = len(self._units)
            if at == len(self._arm_of):
                self._arm_of = np.concatenate((self._arm_of, np.zeros_like(self._arm_of)))
                self._sums = np.concatenate((self._sums, np.zeros_like(self._sums)))
            self._arm_of[at] = i if assigned is None else assigned
        return at if self._arm_of[at] == i else None

    def _assigned(self, unit: str) -> int | None:
        """Return the arm that a unit came to at first; None for what is no digest of ours."""
        try:
            return place_of(unit, self._experiment.shares)
        except ValueError:
            return None
