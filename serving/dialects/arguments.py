"""Arguments of tool calls: JSON text in the neutral form, objects in some dialects. Pure.

Entry points: :func:`arguments_text`, :func:`arguments_object`.
"""

from __future__ import annotations

import orjson

from serving.errors import UpstreamBroken


def arguments_text(given: object, otherwise: str = "{}") -> str:
    """Return a provider's arguments as text; some send text already, some the object, some nothing.

    Parameters
    ----------
    given : object
    otherwise : str, default="{}"
        What stands for anything that is neither text nor an object.

    Raises
    ------
    UpstreamBroken
        They are nested deeper than can be written.
    """
    if isinstance(given, str):
        return given
    try:
        return orjson.dumps(given).decode() if isinstance(given, dict) else otherwise
    except orjson.JSONEncodeError:
        raise UpstreamBroken("the provider called a tool with arguments nested too deeply") from None


def arguments_object(arguments: str) -> dict[str, object] | None:
    """Return the object that JSON text stands for: {} for no text, None where it is no object."""
    if not arguments.strip():
        return {}
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
