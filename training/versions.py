"""Versions of a bundle in a store, their aliases and their history, as values; and what every store can do.

Aliases: `champion` serves, `challenger` waits, `previous` was champion before. Nothing here moves anything: that is
:mod:`training.promotion`. Stores: :class:`training.registry.MlflowStore`,
:class:`training.directory_store.DirectoryStore`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from router.bundle import MANIFEST, load
from training.errors import StoreDamaged
from training.gate_results import Opponent, Verdict

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
#: An identity becomes the name of a folder and the value of a header.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}@[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Which bundle it is: its ``name@version`` and the SHA-256 of its manifest, which names those of all its files.

    Raises
    ------
    StoreDamaged
        The name or the version cannot be that of a folder, wherever they were read.
    """

    bundle: str
    manifest_sha256: str

    def __post_init__(self) -> None:
        if not _PLAIN.fullmatch(self.bundle):
            raise StoreDamaged(
                f"{self.bundle!r} cannot be a version: expected NAME@VERSION of letters, digits, '.', '_', '+' and '-'"
            )


@dataclass(frozen=True, slots=True)
class Version:
    """A bundle in a store.

    Parameters
    ----------
    number : str
        What the store calls it: a count in MLflow's registry, ``name@version`` in a directory.
    identity : Identity
    run_id : str or None
        The MLflow run that holds it.
    """

    number: str
    identity: Identity
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the history.

    Parameters
    ----------
    time : str
        ISO 8601, UTC.
    action : {'promote', 'rollback'}
    version, bundle : str
        The champion from then on.
    former : str or None
        The champion until then.
    by : str
        Who approved it.
    is_auto : bool
        Nobody was asked.
    reason : str or None
        Why a failed gate did not count, or why it was rolled back.
    failed_gates : tuple of str
    is_stale : bool
        The gates were judged against another champion than the former, or do not say against whom.
    """

    time: str
    action: str
    version: str
    bundle: str
    former: str | None
    by: str
    is_auto: bool = False
    reason: str | None = None
    failed_gates: tuple[str, ...] = ()
    is_stale: bool = False

    def to_json(self) -> str:
        """Write it as one line."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Change:
        """Read a line; raises StoreDamaged."""
        try:
            fields = json.loads(line)
            return cls(**{**fields, "failed_gates": tuple(fields["failed_gates"])})
        except (ValueError, TypeError, KeyError) as exc:
            raise StoreDamaged(f"the history has a line that cannot be read: {line[:200]!r}") from exc


@dataclass(frozen=True, slots=True)
class Registered:
    """What came of a registration.

    Parameters
    ----------
    version : str
        Its number in the store.
    run_id : str or None
        Of MLflow.
    is_challenger : bool
        False where a gate failed, or nobody asked: it is kept, the challenger stays whoever it was.
    """

    version: str
    run_id: str | None
    is_challenger: bool


#: What to do about a store without a version.
HOW_TO_BEGIN = (
    "the first champion comes by 'turnout promote --bundle BUNDLE --force REASON', a challenger by 'turnout retrain'"
)


class Store(Protocol):
    """Keeps versions, what their gates found, aliases, and a history.

    Every method raises TrainingError where the store cannot be reached or holds what it may not.
    """

    @property
    def where(self) -> str:
        """Name the store in messages, without a password."""

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
        """Add a version; it becomes the challenger, if asked, unless a gate failed; if it was, it is so no longer."""

    def version(self, wanted: str) -> Version:
        """Find a version by alias or number; raises NoSuchVersion."""

    def aliases(self) -> dict[str, str]:
        """Return alias to number."""

    def verdict(self, version: Version) -> Verdict:
        """Return what its gates found, and against whom; without gates where none was judged."""

    def fetch(self, version: Version, folder: Path) -> None:
        """Copy its bundle to a folder that does not exist yet."""

    def note(self, change: Change) -> None:
        """Append to the history."""

    def history(self) -> list[Change]:
        """Return the changes, the oldest first."""

    def point(self, alias: str, version: Version | None) -> None:
        """Move an alias, or remove it."""


def check_identity(folder: Path, version: Version) -> None:
    """Load a bundle and see that it is a version's; raises BundleError or StoreDamaged."""
    found = identity_of(folder)
    if found != version.identity:
        raise StoreDamaged(
            f"version {version.number} was registered as {version.identity.bundle} with manifest "
            f"{version.identity.manifest_sha256[:12]}; the store now gives {found.bundle} with "
            f"{found.manifest_sha256[:12]}"
        )


def identity_of(folder: Path) -> Identity:
    """Load a bundle, as serving would, and return its identity.

    Raises
    ------
    BundleError
        See :func:`router.bundle.load`.
    StoreDamaged
        Its name or version cannot be the name of a folder.
    """
    return Identity(load(folder).manifest.id, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest())
