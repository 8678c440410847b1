"""Fields of a request body: read one, or say what is wrong with it.

Every refusal is an :class:`~serving.errors.InvalidRequest` whose ``param`` is the field. Numbers and truth values are
shown back; of anything longer only its kind is, since it may be somebody's words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import orjson

from serving.errors import InvalidRequest

T = TypeVar("T")

#: Levels of objects and lists in a request, and messages or items of one conversation.
MAX_DEPTH = 64
MAX_ITEMS = 2_000
#: Of what orjson writes.
_WRITER_LEVELS = 254
#: As many lists in each other as the writer takes more than we do; made once: each costs.
_INNERMOST: list[object] = []
_LEVELS = _INNERMOST
for _ in range(_WRITER_LEVELS - MAX_DEPTH - 1):
    _LEVELS = [_LEVELS]

_KINDS: Mapping[type, str] = {str: "a string", dict: "an object", list: "a list", type(None): "nothing"}


def document(body: bytes) -> dict[str, object]:
    """Read a body as one JSON object.

    Raises
    ------
    InvalidRequest
        It is none; says where it stops being JSON, never what stands there.
    """
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"the body is not valid JSON ({where})", code="invalid_json") from None
    if not isinstance(parsed, dict):
        raise InvalidRequest(f"the body must be a JSON object, got {shown(parsed)}", code="invalid_json")
    return parsed


def request_of(body: bytes) -> dict[str, object]:
    """Read the body of a request as one JSON object, no deeper and with no more messages than anybody needs.

    Raises
    ------
    InvalidRequest
        It is none, or beyond :data:`MAX_DEPTH` or :data:`MAX_ITEMS`.
    """
    sent = document(body)
    if _is_deep(sent):
        raise InvalidRequest(f"the body is nested more than {MAX_DEPTH} levels deep", code="invalid_json")
    for name in ("messages", "input"):
        items = sent.get(name)
        # A list of words or numbers alone is text to embed.
        if isinstance(items, list) and len(items) > MAX_ITEMS and dict in map(type, items):
            raise InvalidRequest(f"{name} may hold at most {MAX_ITEMS} items, got {len(items)}", param=name)
    return sent


def optional(body: Mapping[str, object], key: str, kind: type[T], expected: str, at: str = "") -> T | None:
    """Return a field of one kind, or None where it is absent or null."""
    value = body.get(key)
    if value is None or isinstance(value, kind):
        return value
    raise wrong(at + key, value, expected)


def positive(body: Mapping[str, object], key: str) -> int | None:
    """Return a whole number of at least 1, or None."""
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(key, value, "a whole number of at least 1")
    return value


def number(body: Mapping[str, object], key: str, at: str = "") -> float | None:
    """Return a number, or None where it is absent or null."""
    value = body.get(key)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise wrong(at + key, value, "a number")


def string(body: Mapping[str, object], key: str, at: str) -> str:
    """Return a field that must be a string; ``at`` is the path of what holds it."""
    value = body.get(key)
    if not isinstance(value, str):
        raise wrong(f"{at}.{key}", value, "a string")
    return value


def amount(value: object, param: str, largest: float = math.inf) -> float:
    """Return a finite number from 0 to ``largest``."""
    upper = "" if math.isinf(largest) else f" and at most {largest:g}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= largest:  # type: ignore[arg-type, operator]
        raise wrong(param, value, f"a number of at least 0{upper}")
    return float(value)  # type: ignore[arg-type]


def wrong(param: str, value: object, expected: str) -> InvalidRequest:
    """Make the error for a field that is missing or cannot be."""
    if value is None:
        return InvalidRequest(
            f"{param} is missing: expected {expected}", param=param, code="missing_required_parameter"
        )
    return InvalidRequest(f"{param} must be {expected}, got {shown(value)}", param=param)


def _is_deep(sent: object) -> bool:
    """Say whether a document is nested deeper than allowed.

    The writer refuses more than 254 levels and takes a tenth of the reader's time, less than any look from here, even
    than counting brackets; so the document is given the levels that make the difference.
    """
    _INNERMOST[:] = [sent]
    try:
        orjson.dumps(_LEVELS)
    except orjson.JSONEncodeError:
        return True
    finally:
        _INNERMOST.clear()
    return False


def shown(value: object) -> str:
    """Describe a value without repeating anybody's words."""
    return _KINDS.get(type(value)) or repr(value)
