"""One more candidate for a config file: which LLM of the catalogue, at whom, and the TOML that says so.

The file is only ever appended to, and only once the whole of it has been read back without a problem: what a person
wrote in it stays as it is. Entry points: :func:`find`, :func:`add`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving.errors import SettingsError
from serving.providers.catalogue import CatalogueEntry, entries
from serving.providers.directory import PROVIDERS, Provider
from serving.settings import Settings, load

_MOST_NAMED = 8


def find(model: str, provider: str | None) -> tuple[Provider, CatalogueEntry]:
    """Find an LLM and who serves it.

    Parameters
    ----------
    model : str
        Its name in the catalogue.
    provider : str or None
        A name of the directory; None takes whoever serves it, if there is but one.

    Returns
    -------
    tuple of (Provider, CatalogueEntry)

    Raises
    ------
    SettingsError
        Nobody serves it, or several do.
    """
    if provider is not None and provider not in PROVIDERS:
        raise SettingsError(f"provider {provider!r}: expected a name that `turnout providers` lists")
    rows = [row for row in PROVIDERS.values() if provider in (None, row.name)]
    known = entries()
    found = [(row, e) for row in rows for e in known if e.provider == (row.catalogue or row.name) and e.model == model]
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingsError(
            f"{model!r} is served by {', '.join(row.name for row, _ in found)}: name one with --provider"
        )
    near = sorted({f"{row.name} has {e.model}" for row in rows for e in known
                   if e.provider == (row.catalogue or row.name) and model.lower() in e.model.lower()})  # fmt: skip
    more = f"; {', '.join(near[:_MOST_NAMED])}" if near else ""
    at = f" of {provider}" if provider else ""
    raise SettingsError(f"no model {model!r}{at} in the catalogue; `turnout models --search` finds names{more}")


def add(
    config: Path,
    provider: Provider,
    entry: CatalogueEntry,
    name: str,
    like: str | None,
    base_url: str,
    apis: Sequence[str] = (),
) -> str:
    """Append a candidate to a config file; make the file where there is none.

    Parameters
    ----------
    config : Path
    provider : Provider
    entry : CatalogueEntry
    name : str
        What clients will call it.
    like : str or None
        Candidate of the bundle whose predictions it borrows.
    base_url : str
        Where the provider has no root of its own; else empty.
    apis : sequence of str
        By which APIs it is called; empty leaves that to the directory.

    Returns
    -------
    str
        What was appended.

    Raises
    ------
    SettingsError
        The file would not be a good one; nothing was written.
    """
    before = config.read_text("utf-8") if config.exists() else ""
    there = load(config) if before.strip() else Settings()
    lines = []
    if not any(row.name == provider.name for row in there.providers):
        lines += ["", "[[providers]]", f"name = {json.dumps(provider.name)}"]
        if base_url:
            lines += [f"kind = {json.dumps(provider.name)}", f"base_url = {json.dumps(base_url)}"]
        if apis:
            lines.append(f"apis = {json.dumps(list(apis))}")
    lines += ["", "[[candidates]]", f"name = {json.dumps(name)}"]
    if like is not None:
        lines.append(f"like = {json.dumps(like)}")
    lines.append(f"deployments = [{{ provider = {json.dumps(provider.name)}, model = {json.dumps(entry.model)} }}]")
    text = "\n".join(lines).lstrip("\n") + "\n"
    whole = f"{before.rstrip()}\n\n{text}" if before.strip() else text
    handle, draft = tempfile.mkstemp(prefix=f".{config.name}.", dir=config.parent or Path())
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(whole)
        if config.exists():
            os.chmod(draft, config.stat().st_mode)
        load(Path(draft))
        os.replace(draft, config)
    except SettingsError as error:
        raise SettingsError(str(error).replace(draft, str(config))) from error
    finally:
        Path(draft).unlink(missing_ok=True)
    return text
