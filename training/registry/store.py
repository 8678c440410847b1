"""MLflow's model registry as a store of versions.

A version is a run: its artefacts are ``bundle/``, ``gates.json`` and ``report/``, its tags say which bundle it is and
what the gates found. The hash of the manifest stands in the registry, the files in the artefact store, so neither can
change alone unseen. The history is tags of the registered model, one a change.
Entry point: :class:`MlflowStore`.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from router.bundle import MANIFEST
from router.manifest import Manifest
from training.errors import InvalidSettings, NoSuchVersion, StoreDamaged
from training.gate_results import GATES_FILE, Opponent, Verdict, read_gates, results_of, write_gates
from training.registry.runs import BUNDLE, log_run
from training.registry.tracking import tracking_at
from training.versions import (
    ALIASES,
    CHALLENGER,
    HOW_TO_BEGIN,
    Change,
    Identity,
    Registered,
    Version,
    check_identity,
    identity_of,
)

NAME = "turnout"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_BUNDLE_TAG, _MANIFEST_TAG, _GATES_TAG, _GATES_HASH_TAG = "bundle", "manifest_sha256", "gates", "gates_sha256"
_OPPONENT_TAG = "judged_against"
_HISTORY = "change."


class MlflowStore:
    """Versions of one registered model.

    Parameters
    ----------
    tracking_uri : str, optional
        Default: what MLFLOW_TRACKING_URI names, else a SQLite file below the current folder.
    name : str, default='turnout'
        Of the registered model.
    """

    def __init__(self, tracking_uri: str | None = None, name: str = NAME) -> None:
        if not _PLAIN_NAME.fullmatch(name):
            raise InvalidSettings(f"name must be letters, digits, '_' and '-', got {name!r}")
        self._tracking = tracking_at(tracking_uri)
        self._name = name

    @property
    def where(self) -> str:
        """Name the store in messages, without a password."""
        return f"{self._tracking.where} ({self._name})"

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
        """Record a run and make it a version; it becomes the challenger unless a gate failed, else no longer.

        Parameters
        ----------
        bundle_dir : Path
        gates : iterable of Mapping
        metrics : Mapping of str to float, optional
        artefacts_dir : Path, optional
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
            The bundle does not load.
        StoreDamaged
            Another bundle is registered under that name and version, or the store gives back other bytes.
        TrackingFailed
            The store refuses or cannot be reached.
        """
        verdict, identity = Verdict(results_of(gates), opponent), identity_of(bundle_dir)
        manifest = Manifest.from_json((bundle_dir / MANIFEST).read_bytes())
        failed = [gate.name for gate in verdict.failed]
        gates_file = write_gates(identity.bundle, identity.manifest_sha256, verdict)
        tags = {
            _BUNDLE_TAG: identity.bundle,
            _MANIFEST_TAG: identity.manifest_sha256,
            _GATES_TAG: f"failed: {', '.join(failed)}" if failed else "passed" if verdict.gates else "not judged",
            _OPPONENT_TAG: "" if opponent is None else opponent.bundle,
            _GATES_HASH_TAG: hashlib.sha256(gates_file).hexdigest(),
            "fingerprint": str(manifest.training.get("fingerprint", "")),
            "simulated": str(manifest.training.get("simulated", False)).lower(),
        }
        with self._tracking.client() as client:
            self._ensure_model(client)
            self._refuse_namesakes(client, identity)
            with self._tracking.run(client, identity.bundle) as run_id:
                config = manifest.training.get("config")
                log_run(
                    client,
                    run_id,
                    bundle_dir,
                    parameters=config if isinstance(config, Mapping) else {},
                    metrics=metrics or {},
                    tags=tags,
                    artefacts_dir=artefacts_dir,
                )
                with tempfile.TemporaryDirectory(prefix="turnout-") as scratch:
                    path = Path(scratch) / GATES_FILE
                    path.write_bytes(gates_file)
                    client.log_artifact(run_id, str(path))
                source = f"{client.get_run(run_id).info.artifact_uri}/{BUNDLE}"
                made = client.create_model_version(self._name, source, run_id=run_id, tags=tags)
                version = Version(str(made.version), identity, run_id)
                with tempfile.TemporaryDirectory(prefix="turnout-") as scratch:
                    self._fetch(client, version, Path(scratch) / "bundle")
                    check_identity(Path(scratch) / "bundle", version)
            if is_challenger := as_challenger and not failed:
                client.set_registered_model_alias(self._name, CHALLENGER, version.number)
            elif failed and self._is_challenger(client, identity):
                # Judged again and found wanting: what an earlier version of it passed no longer counts.
                client.delete_registered_model_alias(self._name, CHALLENGER)
        return Registered(version.number, run_id, is_challenger)

    def version(self, wanted: str) -> Version:
        """Find a version by alias or number; raises NoSuchVersion."""
        with self._tracking.client() as client:
            aliases = self._aliases(client)
            number = aliases.get(wanted, wanted)
            if number.isdecimal():
                for found in client.search_model_versions(f"name = '{self._name}'"):
                    if str(found.version) == number:
                        return self._version_of(found)
        known = ", ".join(f"{alias} = {n}" for alias, n in aliases.items()) or f"no alias: {HOW_TO_BEGIN}"
        raise NoSuchVersion(f"{self.where} has no version {wanted!r}; it has {known}")

    def aliases(self) -> dict[str, str]:
        """Return alias to number, of the aliases that mean something to us."""
        with self._tracking.client() as client:
            return self._aliases(client)

    def verdict(self, version: Version) -> Verdict:
        """Return what its gates found, and against whom; raises StoreDamaged where the file has changed."""
        with self._tracking.client() as client, tempfile.TemporaryDirectory(prefix="turnout-") as scratch:
            path = Path(client.download_artifacts(version.run_id, GATES_FILE, scratch))
            data = path.read_bytes()
            tags = client.get_model_version(self._name, version.number).tags
        if hashlib.sha256(data).hexdigest() != tags.get(_GATES_HASH_TAG):
            raise StoreDamaged(f"{GATES_FILE} of version {version.number} is not the one that was registered")
        return read_gates(data, version.identity.bundle, version.identity.manifest_sha256)

    def fetch(self, version: Version, folder: Path) -> None:
        """Download its bundle to a folder that does not exist yet."""
        with self._tracking.client() as client:
            self._fetch(client, version, folder)

    def note(self, change: Change) -> None:
        """Keep a change as a tag of the registered model, and in words at the version."""
        with self._tracking.client() as client:
            client.set_registered_model_tag(self._name, f"{_HISTORY}{change.time}", change.to_json())
            words = {f"{change.action}.by": change.by, f"{change.action}.time": change.time}
            if change.reason is not None:
                words[f"{change.action}.reason"] = change.reason
            for key, value in words.items():
                client.set_model_version_tag(self._name, change.version, key, value)

    def history(self) -> list[Change]:
        """Return the changes, the oldest first; raises StoreDamaged."""
        with self._tracking.client() as client:
            tags = client.get_registered_model(self._name).tags
        return [Change.from_json(tags[key]) for key in sorted(tags) if key.startswith(_HISTORY)]

    def point(self, alias: str, version: Version | None) -> None:
        """Move an alias, or remove it."""
        with self._tracking.client() as client:
            if version is not None:
                client.set_registered_model_alias(self._name, alias, version.number)
            elif alias in self._aliases(client):
                client.delete_registered_model_alias(self._name, alias)

    def _ensure_model(self, client: Any) -> None:
        if not client.search_registered_models(f"name = '{self._name}'"):
            client.create_registered_model(self._name, description="Bundles of Turnout: which LLM answers what.")

    def _refuse_namesakes(self, client: Any, identity: Identity) -> None:
        """Two bundles of one name could not be told apart in any record."""
        for found in client.search_model_versions(f"name = '{self._name}'"):
            if found.tags.get(_BUNDLE_TAG) == identity.bundle and found.tags[_MANIFEST_TAG] != identity.manifest_sha256:
                raise StoreDamaged(
                    f"{self.where} has another {identity.bundle} as version {found.version}: every bundle needs a "
                    "version of its own"
                )

    def _is_challenger(self, client: Any, identity: Identity) -> bool:
        number = self._aliases(client).get(CHALLENGER)
        found = None if number is None else client.get_model_version(self._name, number)
        return found is not None and found.tags.get(_MANIFEST_TAG) == identity.manifest_sha256

    def _aliases(self, client: Any) -> dict[str, str]:
        for model in client.search_registered_models(f"name = '{self._name}'"):
            return {alias: str(number) for alias, number in model.aliases.items() if alias in ALIASES}
        return {}

    def _version_of(self, found: Any) -> Version:
        if not (found.tags.get(_BUNDLE_TAG) and found.tags.get(_MANIFEST_TAG)):
            raise StoreDamaged(f"version {found.version} of {self.where} has not been registered by turnout")
        return Version(str(found.version), Identity(found.tags[_BUNDLE_TAG], found.tags[_MANIFEST_TAG]), found.run_id)

    def _fetch(self, client: Any, version: Version, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch:
            Path(client.download_artifacts(version.run_id, BUNDLE, scratch)).rename(folder)
