"""Counts of tokens as providers write them. Entry point: :func:`tokens`."""

from __future__ import annotations

#: More is no count of tokens, and no number that every reader of JSON keeps whole.
_MOST = 2**53 - 1


def tokens(holder: object, key: str) -> int | None:
    """Return a count of an object; None where there is no object, no such field, or no count in it."""
    value = holder.get(key) if isinstance(holder, dict) else None
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
    return value if is_count else None
