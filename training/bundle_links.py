"""The folder that serving follows: bundles under ``versions/``, and links that name which of them is which.

::

    DIR/versions/NAME@VERSION/manifest.json …
    DIR/champion -> versions/NAME@VERSION      what ``server.bundle`` names
    DIR/challenger -> …                        what ``shadow.bundle`` names

A bundle is there whole and loadable or not at all; a link is swapped in one step, so a reader sees the old or the new.
Entry point: :class:`BundleLinks`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from router.errors import BundleError
from training.errors import StoreDamaged
from training.versions import Version, check_identity

VERSIONS = "versions"
_SCRATCH = ".incoming-"


class BundleLinks:
    """One such folder; made when something is put into it.

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def folder(self, bundle: str) -> Path:
        """Return where a bundle is or would be."""
        return self.directory / VERSIONS / bundle

    def holds(self, version: Version) -> bool:
        """Say whether the bundle of a version is there, loads, and is byte for byte the one registered."""
        folder = self.folder(version.identity.bundle)
        if not folder.exists():
            return False
        try:
            check_identity(folder, version)
        except (BundleError, StoreDamaged):
            return False
        return True

    def install(self, version: Version, fetch: Callable[[Path], None]) -> None:
        """Put a version's bundle into its place.

        Parameters
        ----------
        version : Version
        fetch : callable (folder) -> None
            Makes the folder.

        Raises
        ------
        BundleError
            What was fetched does not load; what was there stays.
        StoreDamaged
            It is another bundle than was registered.
        """
        place = self.folder(version.identity.bundle)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=place.parent))
        try:
            fetched = scratch / "bundle"
            fetch(fetched)
            fetched.chmod(0o755)
            check_identity(fetched, version)
            _sync_to_disk(fetched)
            if place.exists():
                # Only what does not load is replaced; whoever reads it now fails either way.
                place.rename(scratch / "damaged")
            fetched.rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a process that was killed left half done."""
        for scratch in self.folder("").glob(f"{_SCRATCH}*"):
            shutil.rmtree(scratch, ignore_errors=True)

    def prune(self, links: Iterable[str], n_kept: int) -> list[str]:
        """Remove the bundles that no link names, but for the newest.

        Parameters
        ----------
        links : iterable of str
        n_kept : int
            How many of those stay.

        Returns
        -------
        list of str
            What is gone.
        """
        named = {self.pointed(link) for link in links}
        others = [path for path in self.folder("").glob("[!.]*") if path.name not in named]
        gone = sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)[n_kept:]
        for path in gone:
            # Gone in one step, whoever looks.
            scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=path.parent))
            path.rename(scratch / "bundle")
            shutil.rmtree(scratch, ignore_errors=True)
        return [path.name for path in gone]

    def pointed(self, link: str) -> str | None:
        """Return the bundle a link names, as ``name@version``; None where there is no link."""
        path = self.directory / link
        return Path(os.readlink(path)).name if path.is_symlink() else None

    def point(self, link: str, bundle: str | None) -> None:
        """Swap a link in one step, or remove it.

        Raises
        ------
        StoreDamaged
            Something that is no link stands in its place.
        """
        path = self.directory / link
        if path.exists() and not path.is_symlink():
            raise StoreDamaged(f"{path} is no symbolic link; expected a folder that only turnout writes")
        if bundle is None:
            path.unlink(missing_ok=True)
            return
        fresh = self.directory / f".{link}-{os.getpid()}"
        fresh.unlink(missing_ok=True)
        # Relative: the folder may be mounted elsewhere for the gateway.
        fresh.symlink_to(Path(VERSIONS) / bundle)
        os.replace(fresh, path)


def _sync_to_disk(folder: Path) -> None:
    """Have the bytes on the disk before a name says that they are there."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
