"""What a public source is: pinned files and a function from those files to rows.

Entry point: ``PublicSource``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from routing_data.download import RemoteFile

Rows = tuple[pd.DataFrame, pd.DataFrame]


@dataclass(frozen=True, slots=True)
class PublicSource:
    """Describe a source that can be fetched.

    Parameters
    ----------
    name : str
        What ``fetch`` calls it.
    licence : str or None
        As stated by its publisher; None where none is stated.
    attribution : str
        Whom to name.
    files : tuple of RemoteFile
        What to download.
    convert : callable
        From the downloaded files by name to (prompts, outcomes) rows.
    """

    name: str
    licence: str | None
    attribution: str
    files: tuple[RemoteFile, ...]
    convert: Callable[[Mapping[str, Path]], Rows]
