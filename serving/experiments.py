"""The experiments of a gateway: made, stopped and promoted in the database, and kept in force as it says.

A change is made once the database has it, and is in force here when it returns; what another process changes is seen
within seconds. Where the database cannot be read the last that was known stays in force. Whoever reads the figures is
served by :mod:`serving.experiment_watch`; guards are held by :meth:`Experiments.run`.

Entry point: :class:`Experiments`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from serving import logs
from serving.assignment import N_SALT_BYTES
from serving.errors import GatewayError, InvalidRequest, NotFound
from serving.experiment import Experiment, defined
from serving.experiment_status import Readout
from serving.experiment_watch import Watch
from serving.gateway import Gateway
from serving.state import State
from serving.storage.experiments import RUNNING, ExperimentRow, ExperimentStore
from serving.trial_setup import BundleShelf, in_force, pinned, trial_of

#: How often the database is asked for what others changed.
POLL_EVERY_S = 2.0
#: How often the figures are brought up to date, and which share of the time that may take.
LOOK_EVERY_S, MOST_LOOKING = 5.0, 0.05


class Experiments:
    """Keeps experiments in force.

    Parameters
    ----------
    gateway : Gateway
    store : ExperimentStore
    """

    def __init__(self, gateway: Gateway, store: ExperimentStore) -> None:
        self._gateway = gateway
        self._store = store
        self._rows: tuple[ExperimentRow, ...] = ()
        self._shelf = BundleShelf()
        self._problems: Mapping[str, str] = {}
        self._is_failing = False
        self._alarming: set[str] = set()
        self._watches: dict[str, Watch] = {}
        self._changing = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._prepared: State | None = None
        self._look_at = 0.0

    @property
    def is_on(self) -> bool:
        """Whether there is a database to keep them in."""
        return self._store.is_on

    async def prepared(self, state: State) -> State:
        """Return a state with the experiments in force that the database knows; none where it cannot be read yet."""
        if not self._store.is_on:
            return state
        async with self._changing:
            await self._read()
            return await self._with_trials(state)

    async def run(self) -> None:
        """Follow the database, and hold the guards; until cancelled."""
        if not self._store.is_on:
            return
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            try:
                await self.follow()
                await self.look()
            except GatewayError:
                continue  # said where it happened; the database may come back
            except Exception as error:
                logs.failure("experiments_failed", error)

    async def follow(self) -> None:
        """Put in force what the database says now, where that has changed, or where the state has."""
        async with self._changing:
            before = self._rows
            await self._read()
            if self._rows != before or self._gateway.ready() is not self._prepared:
                await self._apply()

    async def look(self) -> None:
        """Bring the figures up to date when they are due."""
        if time.monotonic() < self._look_at:
            return
        began_at = time.monotonic()
        await self.guard()
        now_at = time.monotonic()
        self._look_at = now_at + max(LOOK_EVERY_S, (now_at - began_at) / MOST_LOOKING)

    async def guard(self) -> None:
        """Bring the figures of what runs up to date, stop arms that are shown to be worse, end what is due."""
        now = time.time()
        for row in self._rows:
            if row.state == RUNNING:
                # One whose definition is none here, which problem() says, or that another process has just stopped.
                with suppress(InvalidRequest):
                    await self._guard(row, now)

    async def _guard(self, row: ExperimentRow, now_unix_s: float) -> None:
        experiment = _definition(row)
        if experiment.ends_unix_s is not None and now_unix_s >= experiment.ends_unix_s:
            await self.stop(row.name, why=f"it was to end at {experiment.ends_at}")
            return
        readout = await self.readout(row.name)
        if readout.sample_ratio.is_alarming and row.name not in self._alarming:
            self._alarming.add(row.name)
            logs.event("experiment_sample_ratio_mismatch", {"experiment": row.name}, level="error")
        for verdict in readout.tripped():
            logs.event(
                "experiment_guard_tripped",
                {"experiment": row.name, "arm": verdict.arm, "code": verdict.metric},
                level="warning",
            )
            await self.stop(row.name, verdict.arm, why=verdict.why)

    async def create(self, experiment: Experiment, salt: bytes | None = None) -> ExperimentRow:
        """Begin an experiment.

        Parameters
        ----------
        experiment : Experiment
        salt : bytes or None
            What places depend on, the same for replicas that share no database; None draws it.

        Returns
        -------
        ExperimentRow
            On disk, and in force here.

        Raises
        ------
        InvalidRequest
            It names what does not exist here, its name was used, or another acts on the same; ``param`` says which.
        StorageUnavailable
            It could not be kept.
        """
        async with self._changing:
            state, now = self._gateway.ready(), time.time()
            if experiment.ends_unix_s is not None and experiment.ends_unix_s <= now:
                raise InvalidRequest(f"ends_at = {experiment.ends_at!r}: expected a time to come", param="ends_at")
            experiment = await asyncio.to_thread(pinned, experiment, state, self._shelf)
            row = ExperimentRow(
                experiment.name,
                experiment.on,
                json.dumps(experiment.to_document()),
                RUNNING,
                salt or secrets.token_bytes(N_SALT_BYTES),
                {},
                None,
                "",
                now,
                None,
                now,
            )
            await asyncio.to_thread(trial_of, row, state, self._shelf)
            await self._store.create(row)
            await self._changed("created", row)
            return row

    async def stop(self, name: str, arm: str | None = None, why: str = "asked for") -> ExperimentRow:
        """Stop an experiment, or one arm of it; raises as :meth:`promote` does."""
        async with self._changing:
            now = time.time()
            if arm is None:
                row = await self._store.stop(name, why, now)
            else:
                experiment = _definition(await self._row(name))
                if experiment.arm(arm) is experiment.control:
                    raise InvalidRequest("arm: the control goes on as long as the experiment does", param="arm")
                row = await self._store.halt_arm(name, arm, why, now)
            await self._changed("stopped", row, arm)
            return row

    async def promote(self, name: str, arm: str, *, is_forced: bool = False) -> ExperimentRow:
        """Give all requests that an experiment acts on to one of its arms, from now on.

        Parameters
        ----------
        name, arm : str
        is_forced : bool, default=False
            In spite of a sample ratio that cannot be chance, or of the guard that stopped the arm.

        Returns
        -------
        ExperimentRow
            On disk, and in force here.

        Raises
        ------
        NotFound
            There is no such experiment.
        InvalidRequest
            There is no such arm; it does not run any more; or it should not be promoted.
        StorageUnavailable
            It could not be kept, or not be looked at.
        """
        row = await self._row(name)
        experiment = _definition(row)
        experiment.arm(arm)
        if not is_forced:
            if arm in row.halted:
                raise InvalidRequest(
                    f"arm: {arm} was stopped: {row.halted[arm].why}; force = true insists", param="arm"
                )
            if row.state == RUNNING and (await self.readout(name)).sample_ratio.is_alarming:
                raise InvalidRequest(
                    "arm: units did not come to the arms in the shares they were meant to, so no figure of this "
                    "experiment can be trusted; force = true insists",
                    param="arm",
                )
        async with self._changing:
            promoted = await self._store.promote(name, arm, "asked for", time.time())
            await self._changed("promoted", promoted, arm)
            return promoted

    async def all(self) -> tuple[ExperimentRow, ...]:
        """Return every experiment there ever was, the oldest first; raises StorageUnavailable."""
        return await self._store.rows()

    async def get(self, name: str) -> ExperimentRow:
        """Return one experiment; raises NotFound, StorageUnavailable."""
        return await self._row(name)

    def problem(self, name: str) -> str | None:
        """Say why an experiment that is in force cannot be, on this replica."""
        return self._problems.get(name)

    async def readout(self, name: str) -> Readout:
        """Read an experiment's figures, up to what is in the database now; raises NotFound, StorageUnavailable."""
        row = await self._row(name)
        async with self._looking:
            watch = self._watches.get(name) or Watch(_definition(row))
            if row.state == RUNNING:
                self._watches[name] = watch  # the next look begins where this one ends
            return await self._store.read(lambda database: watch.look(database, row))

    async def _row(self, name: str) -> ExperimentRow:
        found = next((row for row in await self._store.rows() if row.name == name), None)
        if found is None:
            raise NotFound(f"no experiment is named {name!r}", param="name", code="not_found")
        return found

    async def _changed(self, what: str, row: ExperimentRow, arm: str | None = None) -> None:
        """Put in force what was just kept; say so."""
        self._rows = (*(one for one in self._rows if one.name != row.name), row)
        await self._apply()
        logs.event(f"experiment_{what}", {"experiment": row.name, "arm": arm})

    async def _read(self) -> None:
        """Read the rows; keep the last that were known where that fails."""
        try:
            self._rows = await self._store.rows()
        except GatewayError as error:
            if not self._is_failing and self._rows:
                self._is_failing = True
                logs.event("experiments_unreadable", {"error": type(error).__name__}, level="error")
            return
        self._is_failing = False
        running = {row.name for row in self._rows if row.state == RUNNING}
        self._watches = {name: watch for name, watch in self._watches.items() if name in running}

    async def _apply(self) -> None:
        is_in_place = False
        while not is_in_place:  # a reload may come between
            before = self._gateway.ready()
            after = await self._with_trials(before)
            is_in_place = self._gateway.ready() is before
            if is_in_place:
                self._gateway.state = after

    async def _with_trials(self, state: State) -> State:
        trials, problems = await asyncio.to_thread(in_force, self._rows, state, self._shelf)
        for name in problems.keys() - self._problems.keys():
            logs.event("experiment_unusable", {"experiment": name, "problem": problems[name]}, level="error")
        self._problems = problems
        self._shelf.keep(
            (state.settings.root / arm.bundle).resolve()
            for trial in trials.values()
            for arm in trial.experiment.arms
            if arm.bundle is not None and arm.name in trial.settings
        )
        prepared = replace(state, trials=trials)
        self._prepared = prepared
        return prepared


def _definition(row: ExperimentRow) -> Experiment:
    return defined(json.loads(row.definition))
