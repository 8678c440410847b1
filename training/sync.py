"""Let a directory follow the registry: the small process between MLflow and the gateways, which know only folders.

Each look reads the aliases, downloads what is new, checks it by loading it, and only then swaps a link
(:mod:`training.bundle_links`). Whatever goes wrong, the last good bundle stays linked; it is said once, and so is that
it is over. Entry point: :class:`Sync`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from router.errors import BundleError
from training.bundle_links import BundleLinks
from training.directory_store import FOLLOWS_FILE
from training.errors import TrainingError
from training.versions import CHALLENGER, CHAMPION, Store

#: The champion first: what serves matters most.
FOLLOWED = (CHAMPION, CHALLENGER)
#: What differs between two messages about the same trouble: addresses of objects, names of scratch folders.
_PASSING = re.compile(r"0x[0-9a-f]+|\.(incoming|download)-\w+")


class Sync:
    """Follow a store.

    Parameters
    ----------
    store : Store
    out : Path
        The directory; only this process writes it.
    tell : callable (line) -> None
        Called once for each change of what is so.
    n_kept : int, default=10
        Bundles kept that no link names any more.
    """

    def __init__(self, store: Store, out: Path, tell: Callable[[str], None], n_kept: int = 10) -> None:
        self._store = store
        self._out = out
        self._links = BundleLinks(out)
        self._tell = tell
        self._n_kept = n_kept
        #: What was said last of each link, and of the store itself.
        self._said: dict[str, str] = {}

    def run(self, every_s: float, wait: Callable[[float], bool]) -> None:
        """Look until told to end.

        Parameters
        ----------
        every_s : float
            Between two looks.
        wait : callable (seconds) -> bool
            Waits; True ends.
        """
        self._links.sweep()
        while True:
            self.look()
            if wait(every_s):
                return

    def look(self) -> bool:
        """Make the links what the aliases are; say whether all of it worked."""
        try:
            aliases = self._store.aliases()
            self._mark()
        except (TrainingError, OSError) as error:
            self._say("", f"{error}; the links stay as they are")
            return False
        self._say("", "")
        worked = [self._follow(link, aliases.get(link)) for link in FOLLOWED]
        if all(worked):
            self._prune()
        return all(worked)

    def _follow(self, link: str, number: str | None) -> bool:
        try:
            before = self._links.pointed(link)
            if number is None:
                return self._without(link, before)
            version = self._store.version(number)
            bundle = version.identity.bundle
            # What is linked was loaded before it was; after a restart it is loaded once more, disks being disks.
            if before == bundle and self._said.get(link) == _is_now(link, bundle, number):
                return True
            if not self._links.holds(version):
                self._links.install(version, lambda folder: self._store.fetch(version, folder))
            if before != bundle:
                self._links.point(link, bundle)
        except (BundleError, TrainingError, OSError) as error:
            kept = self._links.pointed(link)
            self._say(link, f"{link}: version {number}: {error}; it stays {kept or 'absent'}")
            return False
        self._say(link, _is_now(link, bundle, number))
        return True

    def _without(self, link: str, before: str | None) -> bool:
        """Nobody has the alias: a challenger is gone then, a champion stays, since something must serve."""
        if link == CHAMPION:
            self._say(link, f"{link}: nobody in {self._store.where}; it stays {before or 'absent'}")
            return before is not None
        self._links.point(link, None)
        self._say(link, f"{link}: nobody" if before or self._said.get(link) else "")
        return True

    def _prune(self) -> None:
        try:
            for bundle in self._links.prune(FOLLOWED, self._n_kept):
                self._tell(f"removed {bundle}, which no link names")
        except OSError as error:
            self._say("old", f"old versions stay: {error}")

    def _mark(self) -> None:
        """Say in the directory whom it follows, so that nobody promotes there what the next look would undo."""
        mark, line = self._out / FOLLOWS_FILE, f"{self._store.where}\n"
        if not mark.is_file() or mark.read_text(encoding="utf-8") != line:
            self._out.mkdir(parents=True, exist_ok=True)
            fresh = mark.with_name(f".{mark.name}")
            fresh.write_text(line, encoding="utf-8")
            os.replace(fresh, mark)

    def _say(self, about: str, line: str) -> None:
        before, self._said[about] = self._said.get(about, ""), line
        if _PASSING.sub("", line) != _PASSING.sub("", before):
            self._tell(line or "the store answers again")


def _is_now(link: str, bundle: str, number: str) -> str:
    return f"{link}: {bundle} (version {number})"
