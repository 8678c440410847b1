"""What can go wrong with routing data.

::

    DataError
      x UnreadableFile      missing, empty, not Parquet, not UTF-8, an unknown kind of file
      x InvalidTable        readable, but the rows break the schema; carries every Problem
      x UnknownName         a candidate, a source or a file the caller named does not exist
      x DownloadFailed      a public source could not be brought here
        + ChecksumMismatch  it came, and is not the file we pinned

A ``Problem`` is one finding of ``validate``; it never quotes prompt text.

Entry point: ``DataError``, to catch everything this package raises about data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 5


class DataError(Exception):
    """Root of everything that can be wrong with routing data."""


class UnreadableFile(DataError):
    """Say that a file could not be read at all.

    Parameters
    ----------
    file : str
        Name of the file (its last path component).
    found : str
        What was found.
    expected : str
        What should have been there.
    """

    def __init__(self, file: str, found: str, expected: str) -> None:
        super().__init__(f"{file}: {found}; expected {expected}")
        self.file = file
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class Problem:
    """Hold one finding about a table.

    Parameters
    ----------
    kind : str
        Short stable name, such as ``"out-of-range"``.
    file : str
        Name of the file (its last path component).
    found : str
        The offending value or situation; never prompt text.
    expected : str
        What was expected instead.
    column : str or None
        Column concerned, if one is.
    row : int or None
        Data row, counted from 1 (the header of a CSV does not count), if one is concerned.
    prompt_id : str or None
        Prompt concerned, where it is known.
    n_more : int
        How many further rows have the same problem and are not listed.
    """

    kind: str
    file: str
    found: str
    expected: str
    column: str | None = None
    row: int | None = None
    prompt_id: str | None = None
    n_more: int = 0

    def __str__(self) -> str:
        """Return the finding as one line: where, what was found, what was expected."""
        where = [self.file]
        if self.column is not None:
            where.append(f"column {self.column!r}")
        if self.row is not None:
            where.append(f"row {self.row}")
        if self.prompt_id is not None:
            where.append(f"prompt_id {self.prompt_id!r}")
        more = f" (and {self.n_more} more like it)" if self.n_more else ""
        return f"{', '.join(where)}: {self.found}; expected {self.expected}{more}"


class InvalidTable(DataError):
    """Say that a table breaks the schema.

    Parameters
    ----------
    problems : iterable of Problem
        Every problem; the message shows the first five and counts the rest.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more problems")
        super().__init__("\n".join(lines))


class UnknownName(DataError):
    """Say that a name does not exist, and which existing one is nearest.

    Parameters
    ----------
    kind : str
        What was named: ``"candidate"``, ``"source"``...
    name : str
        The name that does not exist.
    known : iterable of str
        The names that do.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}; {nearest(name, known)}")
        self.kind = kind
        self.name = name


class DownloadFailed(DataError):
    """Say that a file of a public source could not be downloaded.

    Parameters
    ----------
    file : str
        Name of the file asked for.
    reason : str
        What happened: the status, the time-out, the refused connection.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class ChecksumMismatch(DownloadFailed):
    """Say that a downloaded file is not the one pinned; it was not kept.

    Parameters
    ----------
    file : str
        Name of the file asked for.
    found, expected : str
        SHA-256 of what came and of what was pinned, hexadecimal.
    """

    def __init__(self, file: str, found: str, expected: str) -> None:
        super().__init__(file, f"sha256 is {found}; expected {expected} (the file was not kept)")
        self.found = found
        self.expected = expected


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a phrase that names the known word nearest to `name`, and all of them.

    Parameters
    ----------
    name : str
        The word that was given.
    known : iterable of str
        The words that exist.

    Returns
    -------
    str
        For example ``"did you mean 'quality'? known: prompt, quality"``.
    """
    words = sorted(known)
    close = difflib.get_close_matches(name.lower(), words, n=1, cutoff=0.5)
    listed = ", ".join(words[:20]) + (f", ... ({len(words)} in all)" if len(words) > 20 else "")
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {listed}"
