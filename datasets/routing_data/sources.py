"""Public sources of outcomes, fetched on demand.

Nothing is downloaded at import, and nothing downloaded is ever unpickled or executed.

Entry point: ``fetch``; ``SOURCES`` lists what can be fetched.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from routing_data.download import default_cache, download
from routing_data.errors import InvalidTable, UnknownName
from routing_data.frames import to_table
from routing_data.public_source import PublicSource
from routing_data.reader import check_folder
from routing_data.routerbench import ROUTERBENCH
from routing_data.table import OutcomeTable, Source
from routing_data.zeroeval import ZEROEVAL

SOURCES: dict[str, PublicSource] = {source.name: source for source in (ROUTERBENCH, ZEROEVAL)}
"""Every source that can be fetched, by name."""


def fetch(
    source: str | PublicSource, cache: str | os.PathLike[str] | None = None, timeout_s: float = 30.0
) -> OutcomeTable:
    """Download (or take from the cache), verify and convert a source.

    Parameters
    ----------
    source : str or PublicSource
        A name in ``SOURCES``, or a source described by the caller.
    cache : path, optional
        Where downloads are kept; ``default_cache()`` by default.
    timeout_s : float, default=30.0
        Longest wait for each piece of an answer, in seconds.

    Returns
    -------
    OutcomeTable
        All its prompts and candidates.

    Raises
    ------
    UnknownName
        If there is no source of that name.
    DownloadFailed
        If a file cannot be had.
    ChecksumMismatch
        If a file is not the pinned one.
    InvalidTable
        If the converted rows break the schema.
    """
    if isinstance(source, str):
        if source not in SOURCES:
            raise UnknownName("source", source, SOURCES)
        source = SOURCES[source]
    place = default_cache() if cache is None else Path(cache)
    paths = {file.name: download(file, place, timeout_s) for file in source.files}
    frames, problems = check_folder(*source.convert(paths))
    if problems or frames is None:
        raise InvalidTable(problems)
    prompts, outcomes = frames
    pinned = "".join(f"{file.name}:{file.sha256}\n" for file in source.files)
    sha256 = hashlib.sha256(pinned.encode()).hexdigest()
    origin = Source(source.name, source.name, sha256, source.licence, source.attribution, False, len(prompts))
    return to_table(prompts, outcomes, origin)
