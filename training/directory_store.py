"""A store of versions in a plain directory, without MLflow: what one machine needs.

Beside what serving follows (:mod:`training.bundle_links`) it holds ``gates/NAME@VERSION.json`` and
``promotions.jsonl``: who changed the champion, when and why, one change a line.
Entry point: :class:`DirectoryStore`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from training.bundle_links import BundleLinks
from training.errors import NoSuchVersion, StoreDamaged
from training.gate_results import Opponent, Verdict, read_gates, results_of, write_gates
from training.versions import ALIASES, CHALLENGER, HOW_TO_BEGIN, Change, Registered, Version, identity_of

HISTORY_FILE, FOLLOWS_FILE = "promotions.jsonl", "follows.txt"


class DirectoryStore:
    """Versions by ``name@version``, aliases as links.

    Parameters
    ----------
    directory : Path
        Made at the first registration.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._links = BundleLinks(directory)

    @property
    def where(self) -> str:
        """Name the store in messages."""
        return str(self._directory)

    def register(
        self,
        bundle_dir: Path,
        gates: Iterable[Mapping[str, object]],
        metrics: Mapping[str, float] | None = None,
        artefacts_dir: Path | None = None,
        *,
        opponent: Opponent | None = None,
        as_challenger: bool = True,
    ) -> Registered:
        """Copy a bundle to ``versions/``; it becomes the challenger unless a gate failed, else no longer.

        Parameters
        ----------
        bundle_dir : Path
        gates : iterable of Mapping
            Rows with the fields of :class:`training.gate_results.GateResult`. None leave what was judged before.
        metrics, artefacts_dir : optional
            Only MLflow keeps them.
        opponent : Opponent or None
            Against whom the gates were judged.
        as_challenger : bool, default=True
            False leaves the challenger whoever it is.

        Returns
        -------
        Registered

        Raises
        ------
        BundleError
            It does not load.
        StoreDamaged
            Another bundle of that name and version is there, or the directory follows MLflow.
        """
        self._check_own()
        verdict = Verdict(results_of(gates), opponent)
        version = _version_of(bundle_dir)
        identity = version.identity
        place = self._links.folder(identity.bundle)
        if not self._links.holds(version):
            if place.exists():
                raise StoreDamaged(
                    f"{place} is there and another bundle, or damaged: every version needs a name of its own"
                )
            self._links.install(version, lambda folder: _copy(bundle_dir, folder))
        if verdict.gates or not self._gates_file(version).is_file():
            self._write(self._gates_file(version), write_gates(identity.bundle, identity.manifest_sha256, verdict))
        is_challenger = as_challenger and not verdict.failed
        if is_challenger:
            self._links.point(CHALLENGER, identity.bundle)
        elif verdict.failed and self._links.pointed(CHALLENGER) == identity.bundle:
            self._links.point(CHALLENGER, None)
        return Registered(version.number, None, is_challenger)

    def version(self, wanted: str) -> Version:
        """Find a version by alias or ``name@version``; raises NoSuchVersion, or BundleError where it does not load."""
        bundle = self._links.pointed(wanted) if wanted in ALIASES else wanted
        there = sorted(path.name for path in self._links.folder("").glob("[!.]*@*"))
        if bundle is None or bundle not in there:
            it_has = ", ".join(there) or f"no version: {HOW_TO_BEGIN}"
            raise NoSuchVersion(f"{self.where} has no {wanted!r}; it has {it_has}")
        return _version_of(self._links.folder(bundle))

    def aliases(self) -> dict[str, str]:
        """Return alias to ``name@version``."""
        found = {alias: self._links.pointed(alias) for alias in ALIASES}
        return {alias: bundle for alias, bundle in found.items() if bundle is not None}

    def verdict(self, version: Version) -> Verdict:
        """Return what its gates found, and against whom; raises StoreDamaged where they judged other bytes."""
        path = self._gates_file(version)
        if not path.is_file():
            return Verdict()
        return read_gates(path.read_bytes(), version.identity.bundle, version.identity.manifest_sha256)

    def fetch(self, version: Version, folder: Path) -> None:
        """Copy its bundle to a folder that does not exist yet."""
        _copy(self._links.folder(version.identity.bundle), folder)

    def note(self, change: Change) -> None:
        """Append to ``promotions.jsonl``; raises StoreDamaged where the directory follows MLflow."""
        self._check_own()
        with (self._directory / HISTORY_FILE).open("a", encoding="utf-8") as file:
            file.write(change.to_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[Change]:
        """Return the changes, the oldest first; raises StoreDamaged."""
        path = self._directory / HISTORY_FILE
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        return [Change.from_json(line) for line in lines if line]

    def point(self, alias: str, version: Version | None) -> None:
        """Swap the link of an alias in one step, or remove it."""
        self._check_own()
        self._links.point(alias, None if version is None else version.identity.bundle)

    def _check_own(self) -> None:
        follows = self._directory / FOLLOWS_FILE
        if follows.is_file():
            raise StoreDamaged(
                f"{self.where} follows {follows.read_text(encoding='utf-8').strip()}, which would undo a change here: "
                "name that with --tracking-uri"
            )

    def _gates_file(self, version: Version) -> Path:
        return self._directory / "gates" / f"{version.identity.bundle}.json"

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}")
        fresh.write_bytes(data)
        os.replace(fresh, path)


def _version_of(folder: Path) -> Version:
    identity = identity_of(folder)
    return Version(identity.bundle, identity)


def _copy(bundle: Path, folder: Path) -> None:
    shutil.copytree(bundle, folder)
