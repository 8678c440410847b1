"""Tables: read TOML tables into frozen dataclasses that describe themselves.

A field's metadata says how its value is checked (``about``) or of which dataclass its table (``table``), its
array of tables (``rows``) or its tables by name (``by_name``) are made. Every problem becomes one line with
the key's path, the value and what was expected; reading goes on, so that a file's problems are told together.
Values under keys that look like secrets are never repeated. This module knows no particular setting; those
are in :mod:`serving.settings`.

Entry points: :func:`about`, the checks, :func:`read`, :func:`described`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from serving.demand import EXPECTED, WORD

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")
NAME_EXPECTED = "a name of letters, digits and . _ : / @ + - (at most 128)"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A URL with a user, or the prefix that most vendors give their keys.
_SECRET = re.compile(r"://[^/]*@|\bsk-")
_SECRET_LIKE = re.compile(r"key|secret|token$|password|credential|bearer|auth", re.IGNORECASE)

Check = Callable[[object], object]


class Described(Protocol):
    """A dataclass whose fields carry metadata of this module."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Described)


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the reference table; ``default`` is None when the key must be given."""

    key: str
    default: str | None
    unit: str
    help: str


def about(check: Check, help: str, unit: str = "") -> Mapping[str, object]:
    """Describe one key: how its value is checked, what it means, in which unit."""
    return {"check": check, "help": help, "unit": unit}


def text(value: object) -> str:
    """Accept a string that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a non-empty string")
    return value


def path(value: object) -> str:
    """Accept a path; an empty string stands for the default or for none."""
    if not isinstance(value, str):
        raise ValueError("a path, or an empty string")
    return value


def is_name(value: str) -> bool:
    """Say whether a word fits into headers, globs and records."""
    return _NAME.fullmatch(value) is not None


def name(value: object) -> str:
    """Accept a name that fits into headers, globs and records."""
    if not isinstance(value, str) or not is_name(value):
        raise ValueError(NAME_EXPECTED)
    return value


def flag(value: object) -> bool:
    """Accept a boolean."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def count(low: int, high: int = 2**53) -> Check:
    """Accept whole numbers from ``low`` to ``high``."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low}" + (f" to {high}" if high < 2**53 else ""))
        return value

    return check


def number(low: float, *, is_open: bool = False) -> Check:
    """Accept finite numbers of at least ``low``, or above it when ``is_open``."""

    def check(value: object) -> float:
        wanted = f"a number {'above' if is_open else 'of at least'} {low:g}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(wanted)
        if value < low or (is_open and value == low):
            raise ValueError(wanted)
        return float(value)

    return check


def share(most: float = 1.0) -> Check:
    """Accept numbers from 0 to ``most``."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise ValueError(f"a number from 0 to {most:g}")
        return float(value)

    return check


def choice(*words: str) -> Check:
    """Accept one of a few words."""

    def check(value: object) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return str(value)

    return check


def globs(value: object) -> tuple[str, ...]:
    """Accept a list of names and globs."""
    return _globs(value, 'a list of candidate names or globs, such as ["gpt-*"]')


def key_globs(value: object) -> tuple[str, ...]:
    """Accept a list of names of keys, or globs of them."""
    return _globs(value, 'a list of names of keys or globs, such as ["app-*"]')


def _globs(value: object, expected: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(glob, str) and glob for glob in value):
        raise ValueError(expected)
    return tuple(value)


def names(value: object) -> tuple[str, ...]:
    """Accept a list of names, each once."""
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ValueError('a list of names, such as ["a", "b"]')
    if len(set(value)) < len(value):
        raise ValueError("a list that names nobody twice")
    return tuple(value)


def label(value: object) -> str:
    """Accept one lower-case word."""
    if not isinstance(value, str) or not WORD.fullmatch(value):
        raise ValueError("a lower-case word, such as eu")
    return value


def labels(value: object) -> tuple[str, ...]:
    """Accept a list of lower-case words: regions, data policies."""
    if not isinstance(value, list) or not all(isinstance(one, str) and WORD.fullmatch(one) for one in value):
        raise ValueError(EXPECTED)
    return tuple(value)


def renames(value: object) -> Mapping[str, str]:
    """Accept a table of names to names."""
    if not isinstance(value, dict) or not all(isinstance(one, str) and one for pair in value.items() for one in pair):
        raise ValueError('a table of names, such as {"claude-*" = "auto"}')
    return dict(value)


def parameters(value: object) -> Mapping[str, object]:
    """Accept a table of request fields, except those the gateway itself sets."""
    if not isinstance(value, dict):
        raise ValueError('a table of request fields, such as {reasoning_effort = "low"}')
    if {"model", "messages", "stream", "turnout"} & set(value):
        raise ValueError("request fields other than model, messages, stream and turnout")
    return MappingProxyType(value)


def url(value: object) -> str:
    """Accept an http(s) root; the trailing slash is dropped."""
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", value):
        raise ValueError("an http(s) URL without user, query or fragment")
    return value.rstrip("/")


def variable(value: object) -> str:
    """Accept the name of an environment variable."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("the NAME of an environment variable, never the key itself")
    return value


def sha256(value: object) -> str:
    """Accept the hash of a client key."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("the 64 hexadecimal digits that `turnout key new` prints")
    return value


def read(kind: type[T], raw: object, at: str, problems: list[str]) -> T | None:
    """Make one dataclass of one table.

    Parameters
    ----------
    kind : type
        The dataclass that describes the table.
    raw : object
        What the TOML reader gave.
    at : str
        Path of the table, "" for the file itself.
    problems : list of str
        One line is added for everything wrong.

    Returns
    -------
    kind or None
        None when the table, or a part of it, has a problem.
    """
    if not isinstance(raw, dict):
        problems.append(f"{at}: expected a table, got {shown(at, raw)}")
        return None
    n_before = len(problems)
    known = {f.name: f for f in fields(kind) if f.metadata}
    problems.extend(_unknown(key, known, at) for key in raw if key not in known)
    values: dict[str, Any] = {}
    for key, described_by in known.items():
        where = f"{at}.{key}" if at else key
        if key in raw:
            values[key] = _value(described_by.metadata, raw[key], where, problems)
        elif described_by.default is MISSING and described_by.default_factory is MISSING:
            problems.append(f"{where}: missing; {described_by.metadata['help']}")
    return kind(**values) if len(problems) == n_before else None


def _value(metadata: Mapping[str, Any], raw: object, at: str, problems: list[str]) -> object:
    if "table" in metadata:
        return read(metadata["table"], raw, at, problems)
    if "rows" in metadata:
        if not isinstance(raw, list):
            problems.append(f"{at}: expected an array of tables, written [[{at}]], got {shown(at, raw)}")
            return ()
        return tuple(read(metadata["rows"], row, f"{at}.{i}", problems) for i, row in enumerate(raw))
    if "by_name" in metadata:
        if not isinstance(raw, dict):
            problems.append(f"{at}: expected tables by name, written [{at}.NAME], got {shown(at, raw)}")
            return {}
        return MappingProxyType(
            {key: read(metadata["by_name"], table, f"{at}.{key}", problems) for key, table in raw.items()}
        )
    try:
        checked: object = metadata["check"](raw)
    except ValueError as expected:
        problems.append(f"{at} = {shown(at, raw)}: expected {expected}")
        return None
    return checked


def _unknown(key: str, known: Mapping[str, object], at: str) -> str:
    where = f"{at}.{key}" if at else key
    if _SECRET_LIKE.search(key) and "api_key_env" in known:
        return (
            f"{where}: secrets never stand in this file; put the key into an environment variable and "
            "name that variable in api_key_env"
        )
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"{where}: unknown key; the nearest known one is {nearest[0]!r}"


def shown(at: str, value: object) -> str:
    """Write a value for an error, unless it, or its key, looks like a secret."""
    written = repr(value)
    key = at.rpartition(".")[2]
    if _SECRET_LIKE.search(key) or key == "sha256" or _SECRET.search(written):
        return "(not shown)"
    return written if len(written) <= 80 else f"{written[:77]}..."


def described(kind: type[Described], at: str = "") -> Iterator[Row]:
    """Yield the reference table of a dataclass and all its tables, in the order of the file."""
    for f in fields(kind):
        metadata = f.metadata
        where = f"{at}.{f.name}" if at else f.name
        if "table" in metadata:
            yield from described(metadata["table"], where)
        elif "rows" in metadata:
            yield from described(metadata["rows"], f"{where}[]")
        elif "by_name" in metadata:
            yield from described(metadata["by_name"], f"{where}.NAME")
        elif metadata:
            yield Row(where, _default(f), str(metadata["unit"]), str(metadata["help"]))


def _default(f: Field[Any]) -> str | None:
    """Write a field's default as TOML would; absent ones say so; None when it must be given."""
    if f.default is MISSING and f.default_factory is MISSING:
        return None
    default = f.default if f.default_factory is MISSING else f.default_factory()
    if default is None:
        return "(absent)"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return f'"{default}"' if isinstance(default, str) else str(default)
