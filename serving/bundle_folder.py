"""Where a bundle lies, and whether it is still the same: looked at without reading it.

The directory of the settings may be a symbolic link that somebody swaps while we look (``champion`` to another
version). It is followed once, so that every file is one version's. Entry points: :func:`resolved`,
:func:`bundle_folder`, :func:`fingerprint`.
"""

from __future__ import annotations

from pathlib import Path

from router.bundle import MANIFEST
from router.errors import BundleMissing

#: The folder itself, by the path that links lead to, then each file of it: name, modification time in ns, size in
#: bytes, inode, device, and time of the last change of the inode in ns, which no copy can bring along.
Fingerprint = tuple[tuple[str, int, int, int, int, int], ...]


def resolved(directory: Path) -> Path:
    """Follow every link of a path, as they are now.

    Raises
    ------
    BundleMissing
        Links lead in a circle or nowhere.
    """
    try:
        found = directory.resolve()
    except (OSError, RuntimeError) as error:
        raise BundleMissing(f"there is no bundle at {directory}: its links lead nowhere") from error
    if directory.is_symlink() and not found.exists():
        raise BundleMissing(f"there is no bundle at {directory}: the link leads to {found}, which is not there")
    return found


def bundle_folder(directory: Path) -> Path:
    """Return the folder that holds the manifest: the directory itself, or its one version.

    Raises
    ------
    BundleMissing
        There is none, or there are several versions and nothing says which.
    """
    if (directory / MANIFEST).is_file():
        return directory
    versions = sorted(path.parent for path in directory.glob(f"[!.]*/{MANIFEST}"))
    if len(versions) == 1:
        return versions[0]
    if versions:
        names = ", ".join(version.name for version in versions)
        raise BundleMissing(f"{directory} holds several versions: name one of {names} in server.bundle")
    raise BundleMissing(f"there is no bundle at {directory}: no {MANIFEST} in it")


def fingerprint(directory: Path) -> Fingerprint:
    """Describe every file of a bundle's folder without reading one; empty while there is no manifest."""
    try:
        folder = bundle_folder(resolved(directory))
        files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except (OSError, BundleMissing):
        return ()
    return (
        (str(folder), 0, 0, 0, 0, 0),
        *((name, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev, stat.st_ctime_ns) for name, stat in files),
    )
