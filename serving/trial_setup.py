"""Making a trial of an experiment's row: names are looked up, bundles of arms loaded and tested beside the champion.

What cannot be made ready is left out whole: then nobody enters, on this replica, and that shows. Entry points:
:class:`BundleShelf`, :func:`pinned`, :func:`trial_of`, :func:`in_force`, :func:`with_experiments`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from router import Policy, Router
from router.bundle import Bundle, load
from router.errors import RouterError
from serving.bundle_folder import bundle_folder
from serving.errors import InvalidRequest, StorageUnavailable
from serving.experiment import Arm, Experiment, defined, refused
from serving.references import AUTO
from serving.scenario_settings import SCENARIO
from serving.state import State
from serving.storage.experiments import STOPPED, ExperimentRow, all_rows
from serving.storage.writer import SqliteWriter
from serving.trial import Setting, Trial


class BundleShelf:
    """The bundles of arms, each loaded once: hashes and self-test take time, and a reload changes none of them."""

    def __init__(self) -> None:
        self._bundles: dict[Path, Bundle] = {}

    def get(self, folder: Path, *, is_anew: bool = False) -> Bundle:
        """Return the bundle in a folder, read anew if need be; raises as :func:`router.bundle.load` does."""
        if is_anew or folder not in self._bundles:
            self._bundles[folder] = load(bundle_folder(folder))
        return self._bundles[folder]

    def keep(self, folders: Iterable[Path]) -> None:
        """Forget all other bundles."""
        wanted = set(folders)
        self._bundles = {folder: bundle for folder, bundle in self._bundles.items() if folder in wanted}


def pinned(experiment: Experiment, state: State, shelf: BundleShelf) -> Experiment:
    """Write the very folders and versions of its bundles into a new experiment.

    A link is followed now, and what it leads to later is no part of the experiment.

    Raises
    ------
    InvalidRequest
        A bundle cannot be loaded.
    """
    arms = []
    for i, arm in enumerate(experiment.arms):
        if arm.bundle is not None:
            folder = (state.settings.root / arm.bundle).resolve()
            found = _loaded(shelf, folder, f"arms.{i}.bundle = {arm.bundle!r}", is_anew=True).manifest.id
            if arm.bundle_id not in (None, found):
                raise refused([f"arms.{i}.bundle_id = {arm.bundle_id!r}: the bundle there is {found}"])
            root = state.settings.root.resolve()
            written = folder.relative_to(root) if folder.is_relative_to(root) else folder
            arm = replace(arm, bundle=str(written), bundle_id=found)
        arms.append(arm)
    return replace(experiment, arms=tuple(arms))


def trial_of(row: ExperimentRow, state: State, shelf: BundleShelf) -> Trial:
    """Make an experiment ready to decide by over a state.

    Raises
    ------
    InvalidRequest
        It acts on or sets what this state does not know, or a bundle is not what it was.
    """
    experiment = defined(json.loads(row.definition))
    # Of arms that nobody comes to any more nothing has to be there, such as a bundle that lost and was removed.
    arms = {
        i: arm
        for i, arm in enumerate(experiment.arms)
        if (arm.name not in row.halted if row.promoted is None else arm.name == row.promoted)
    }
    if problems := list(_unknown(experiment, arms, state)):
        raise refused(problems)
    settings = {arm.name: _setting_of(i, arm, experiment.on, state, shelf) for i, arm in arms.items()}
    return Trial(experiment, settings, row.salt, frozenset(row.halted), row.promoted)


def in_force(
    rows: Iterable[ExperimentRow], state: State, shelf: BundleShelf
) -> tuple[dict[str, Trial], dict[str, str]]:
    """Make trials of all rows that are in force.

    Returns
    -------
    tuple of (dict of str to Trial, dict of str to str)
        By what they act on; and what is wrong with those that cannot be made ready, by name.
    """
    trials: dict[str, Trial] = {}
    problems: dict[str, str] = {}
    for row in rows:
        if row.state == STOPPED:
            continue
        try:
            trials[row.acts_on] = trial_of(row, state, shelf)
        except InvalidRequest as error:
            problems[row.name] = error.message
    return trials, problems


def _unknown(experiment: Experiment, arms: Mapping[int, Arm], state: State) -> Iterable[str]:
    """Say what of a definition this state does not know."""
    on = experiment.on
    scenario = state.scenarios.get(on.removeprefix(SCENARIO)) if on.startswith(SCENARIO) else None
    if on != AUTO and on not in state.aliases:
        yield f"on = {on!r}: expected one of {', '.join(state.aliases)}"
    if experiment.unit == "conversation" and not state.settings.routing.conversations_keep_for_s:
        yield "unit = 'conversation': none is recognised while routing.conversations_keep_for_s is 0"
    for i, arm in arms.items():
        if arm.candidate is not None and arm.candidate not in state.candidates:
            yield f"arms.{i}.candidate = {arm.candidate!r}: expected one of {', '.join(state.candidates)}"
        elif arm.candidate is not None and scenario is not None and arm.candidate in scenario.ruled_out:
            yield f"arms.{i}.candidate = {arm.candidate!r}: it is not in the pool of {on}"
        if arm.bundle is not None and arm.policy() is None and scenario is not None and scenario.candidate is not None:
            yield f"arms.{i}.bundle: {on} names a candidate, so a bundle alone decides nothing there"
        if arm.preset is not None and arm.bundle is None and arm.preset not in state.router.presets:
            yield f"arms.{i}.preset = {arm.preset!r}: expected one of {', '.join(state.router.presets)}"


def _policy_on(on: str, state: State) -> Policy | str:
    """Return what decides by the settings where an experiment acts on: a policy, or the name of one."""
    if on.startswith(SCENARIO):
        return state.scenarios[on.removeprefix(SCENARIO)].policy or state.settings.routing.default
    return on.partition(":")[2] or state.settings.routing.default


def _setting_of(i: int, arm: Arm, on: str, state: State, shelf: BundleShelf) -> Setting:
    router = None
    if arm.bundle is not None:
        at = f"arms.{i}.bundle = {arm.bundle!r}"
        bundle = _loaded(shelf, (state.settings.root / arm.bundle).resolve(), at)
        if arm.bundle_id not in (None, bundle.manifest.id):
            raise refused([f"{at}: expected {arm.bundle_id} there, found {bundle.manifest.id}"])
        try:
            router = Router(bundle, tuple(state.candidates.values()), state.settings.policies())
        except RouterError as error:
            raise refused([f"{at}: {error}"]) from error
        known = {column.name for column in bundle.manifest.candidates}
        champions = {column.name for column in state.router.bundle.manifest.candidates}
        lost = [
            one.name
            for one in state.candidates.values()
            if (one.name in champions or one.like in champions) and not (one.name in known or one.like in known)
        ]
        if lost:
            # Who may answer would depend on the arm, and what an arm cannot serve would be missing from its figures.
            raise refused([f"{at}: it predicts nothing for {', '.join(lost)}"])
        wanted = arm.policy() or _policy_on(on, state)
        if isinstance(wanted, str) and wanted not in router.presets:
            raise refused([f"arms.{i}: preset {wanted!r} is none of bundle {bundle.manifest.id}"])
    return Setting(arm.policy(), arm.candidate, router)


def _loaded(shelf: BundleShelf, folder: Path, at: str, *, is_anew: bool = False) -> Bundle:
    try:
        return shelf.get(folder, is_anew=is_anew)
    except (RouterError, OSError) as error:
        raise refused([f"{at}: {error}"]) from error


def with_experiments(state: State) -> State:
    """Return a state with the experiments of its database, for commands; without any where it cannot be read."""
    path = state.settings.database_path()
    if path is None or not path.is_file():
        return state
    try:
        rows = SqliteWriter(path).read_now(all_rows)
    except StorageUnavailable:
        return state
    return replace(state, trials=in_force(rows, state, BundleShelf())[0])
