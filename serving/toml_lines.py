"""On which line of a TOML file a table or key stands; ``tomllib`` tells values, not places.

The file has been read by ``tomllib`` before, so nothing is judged here: the scanner only follows headers, keys, strings
and brackets, and stops quietly where it is lost. A path is written as :mod:`serving.tables` writes it, with the index
of a row (``candidates.0.name``); the last key may be written as its ``repr`` too. Entry points:
:func:`lines_of`, :func:`located`.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress

_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
#: What may follow a path where a problem begins with it.
_ENDS = frozenset(" .:=")


class _Lost(Exception):
    """The text is not what the scanner expects."""


def lines_of(text: str) -> dict[str, int]:
    """Find every table, row and key of a TOML text.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict of str to int
        Path to line, counted from 1; of a table named several times the first.
    """
    scanner = _Scanner(text)
    with suppress(_Lost):
        scanner.run()
    return scanner.lines


def located(problem: str, lines: Mapping[str, int]) -> str:
    """Put the line before a problem that begins with a path: that of the key, else of the nearest table around it."""
    around = [path for path in lines if problem.startswith(path) and problem[len(path) : len(path) + 1] in _ENDS]
    return f"line {lines[max(around, key=len)]}: {problem}" if around else problem


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._n_rows: dict[str, int] = {}

    def run(self) -> None:
        table = ""
        while True:
            self._pass(_BLANK)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> str:
        """Read ``[a.b]`` or ``[[a.b]]``; return the path of the table that begins."""
        line = self._line()
        is_row = self._text.startswith("[[", self._at)
        self._at += 2 if is_row else 1
        *outer, last = self._keys()
        self._take("]]" if is_row else "]")
        path = ""
        for key in outer:
            path = self._latest(self._noted(path, key, line))
        path = self._noted(path, last, line)
        if not is_row:
            return self._latest(path)
        n_before = self._n_rows.get(path, 0)
        self._n_rows[path] = n_before + 1
        return self._noted(path, str(n_before), line)

    def _pair(self, table: str) -> None:
        line = self._line()
        path = table
        for key in self._keys():
            path = self._noted(path, key, line)
        self._take("=")
        self._pass(_SPACE)
        self._value(path)

    def _value(self, path: str) -> None:
        opening = self._text[self._at : self._at + 1]
        if opening in ('"', "'"):
            self._match(_STRING)
        elif opening == "[":
            self._at += 1
            i = 0
            while not self._is_closed("]"):
                self._value(self._noted(path, str(i), self._line()))
                i += 1
        elif opening == "{":
            self._at += 1
            while not self._is_closed("}"):
                self._pair(path)
        else:
            self._match(_SCALAR)

    def _is_closed(self, closing: str) -> bool:
        """Pass blanks and a comma; say whether the bracket closes here, and pass it."""
        self._pass(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._pass(_BLANK)
        if self._at >= len(self._text):
            raise _Lost
        if self._text.startswith(closing, self._at):
            self._at += 1
            return True
        return False

    def _keys(self) -> list[str]:
        """Read a dotted key."""
        keys = []
        while True:
            self._pass(_SPACE)
            quoted = self._text[self._at : self._at + 1] in ('"', "'")
            written = self._match(_STRING if quoted else _BARE)
            keys.append(tomllib.loads(f"key = {written}")["key"] if quoted else written)
            self._pass(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _noted(self, path: str, key: str, line: int) -> str:
        noted = f"{path}.{key}" if path else key
        self.lines.setdefault(noted, line)
        self.lines.setdefault(f"{path}.{key!r}" if path else repr(key), line)
        return noted

    def _latest(self, path: str) -> str:
        """Return the last row where the path is of an array of tables."""
        return f"{path}.{self._n_rows[path] - 1}" if path in self._n_rows else path

    def _line(self) -> int:
        return bisect_right(self._newlines, self._at - 1) + 1 if self._at else 1

    def _match(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _Lost
        self._at = match.end()
        return match[0]

    def _pass(self, pattern: re.Pattern[str]) -> None:
        self._match(pattern)

    def _take(self, literal: str) -> None:
        self._pass(_SPACE)
        if not self._text.startswith(literal, self._at):
            raise _Lost
        self._at += len(literal)
