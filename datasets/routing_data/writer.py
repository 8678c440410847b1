"""Write a table in the folder form.

Each file appears whole or not at all. Nothing is downloaded or checked here.

Entry point: ``write``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from routing_data.frames import to_frames
from routing_data.table import OutcomeTable


def write(table: OutcomeTable, folder: str | os.PathLike[str]) -> Path:
    """Write ``prompts.parquet``, ``outcomes.parquet`` and ``source.json``.

    Parameters
    ----------
    table : OutcomeTable
        The table; only observed cells are written.
    folder : path
        Where to; made if need be, files of these names are replaced.

    Returns
    -------
    Path
        The folder.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    prompts, outcomes = to_frames(table)
    write_parquet(prompts, place / "prompts.parquet")
    write_parquet(outcomes, place / "outcomes.parquet")
    stated: dict[str, str | bool] = {"name": _joined(source.name for source in table.sources)}
    for key in ("licence", "attribution"):
        if text := _joined(getattr(source, key) for source in table.sources):
            stated[key] = text
    stated["simulated"] = table.simulated
    text = json.dumps(stated, indent=2, ensure_ascii=False) + "\n"
    _whole(place / "source.json", lambda path: path.write_text(text, encoding="utf-8"))
    return place


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Write one Parquet file, whole or not at all.

    Parameters
    ----------
    frame : DataFrame
        The rows.
    path : Path
        Where to; replaced if it exists.
    """
    _whole(path, lambda part: frame.to_parquet(part, index=False, compression="zstd"))


def _whole(path: Path, fill: Callable[[Path], object]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        fill(part)
        part.chmod(0o644)  # mkstemp's own mode would hide committed data from other users
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _joined(texts: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
