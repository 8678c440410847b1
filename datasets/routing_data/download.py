"""Bring one pinned file here: stream, verify, keep.

A file is in the cache under its own checksum only once it is complete and verified, so an
interrupted or wrong download is never mistaken for the real one. Nothing here knows what the file
holds.

Entry point: ``download``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from routing_data.errors import ChecksumMismatch, DownloadFailed
from routing_data.files import fingerprint

_TRIES = 2
_WORTH_RETRYING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Name one file of a public source.

    Parameters
    ----------
    name : str
        Name for messages and for the cache; no directories.
    url : str
        Where it is, pinned to a commit.
    sha256 : str
        What it must be, hexadecimal.
    n_bytes : int
        How long it must be; a longer answer is cut off.
    """

    name: str
    url: str
    sha256: str
    n_bytes: int


def default_cache() -> Path:
    """Return the directory downloads are kept in unless the caller names another.

    Returns
    -------
    Path
        In the home directory of the user; not created.
    """
    return Path.home() / ".cache" / "turnout" / "datasets"


def download(file: RemoteFile, cache: Path, timeout_s: float = 30.0) -> Path:
    """Return the file from the cache, downloading it first if it is not there.

    Parameters
    ----------
    file : RemoteFile
        The file.
    cache : Path
        Directory to keep it in; made if need be.
    timeout_s : float, default=30.0
        Longest wait for a connection and for each piece of the answer, in seconds.

    Returns
    -------
    Path
        A file whose checksum was verified in this call.

    Raises
    ------
    DownloadFailed
        If it cannot be had, after one retry where a retry can help.
    ChecksumMismatch
        If what came is not the pinned file; nothing is kept.
    """
    kept = cache / f"{file.sha256[:16]}-{file.name}"
    if kept.exists():
        if fingerprint(kept) == file.sha256:
            return kept
        kept.unlink()  # damaged on disk since
    cache.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".part-", dir=cache)
    os.close(handle)
    part = Path(name)
    try:
        with httpx.Client(follow_redirects=True, timeout=timeout_s) as client:
            _fill(client, file, part, timeout_s)
        found = fingerprint(part)
        if found != file.sha256:
            raise ChecksumMismatch(file.name, found, file.sha256)
        part.replace(kept)
    finally:
        part.unlink(missing_ok=True)
    return kept


def _fill(client: httpx.Client, file: RemoteFile, part: Path, timeout_s: float) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            return _stream(client, file, part)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if not tries_left or status not in _WORTH_RETRYING:
                raise DownloadFailed(file.name, f"the server answered {status}; expected 200") from error
        except httpx.TimeoutException as error:
            if not tries_left:
                raise DownloadFailed(file.name, f"no answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if not tries_left or not isinstance(error, httpx.TransportError):
                raise DownloadFailed(file.name, f"{type(error).__name__}: {error}") from error


def _stream(client: httpx.Client, file: RemoteFile, part: Path) -> None:
    n_bytes = 0
    with client.stream("GET", file.url) as answer, part.open("wb") as stream:
        answer.raise_for_status()
        for piece in answer.iter_bytes():
            n_bytes += len(piece)
            if n_bytes > file.n_bytes:
                raise DownloadFailed(file.name, f"more than {file.n_bytes} bytes came; expected that many")
            stream.write(piece)
