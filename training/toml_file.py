"""A configuration as TOML: read, and held to its rules, with errors that name file and key.

Entry points: :func:`read_toml`, :func:`hold`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from training.errors import InvalidSettings

#: Whether it holds, of which key, what is there, what was expected.
Rule = tuple[bool, str, object, str]


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file; raises InvalidSettings where that cannot be done."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidSettings(f"{path}: cannot be read as TOML: {exc}") from exc


def hold(rules: Iterable[Rule], where: str) -> None:
    """Raise InvalidSettings for the first rule that does not hold; its message begins with ``where``."""
    for holds, key, value, expected in rules:
        if not holds:
            raise InvalidSettings(f"{where}: {key} must be {expected}, got {value!r}")
