"""The blocks of a Messages request: content into neutral parts.

What a block says of one provider's own things (files kept there, its own tools, results of its searches) cannot be
said to another, and is refused with its path. Entry point: :func:`parts_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import orjson

from serving import fields
from serving.dialects.conversation import File, Image, Part, Reasoning, Text, ToolCall, ToolResult
from serving.dialects.losses import Losses
from serving.errors import InvalidRequest

_Block = Mapping[str, object]


def parts_of(content: object, at: str, role: str, losses: Losses) -> list[Part]:
    """Read the content of one message: a string, or blocks; results come first.

    Parameters
    ----------
    content : object
    at : str
        Its path.
    role : {'system', 'user', 'assistant'}
    losses : Losses

    Raises
    ------
    InvalidRequest
        It is none, or holds what no other dialect can say.
    """
    parts = list(_read(content, at, _OF_ROLE[role], losses))
    return sorted(parts, key=lambda part: not isinstance(part, ToolResult))


def cache_ttl(block: _Block, at: str) -> str | None:
    """Return how long a block, tool or body wants to be cached, as the neutral form says it."""
    mark = fields.optional(block, "cache_control", dict, "an object", at)
    if mark is None:
        return None
    ttl = mark.get("ttl")
    return ttl if ttl in ("5m", "1h") else ""


def string(block: _Block, key: str, at: str) -> str:
    """Return a field that must be a string."""
    value = block.get(key)
    if not isinstance(value, str):
        raise fields.wrong(f"{at}.{key}", value, "a string")
    return value


def _read(content: object, at: str, readers: Mapping[str, _Reader], losses: Losses) -> Iterator[Part]:
    if isinstance(content, str):
        yield Text(content)
        return
    if not isinstance(content, list):
        raise fields.wrong(at, content, "a string or a list of blocks")
    for j, block in enumerate(content):
        where = f"{at}[{j}]"
        if not isinstance(block, dict):
            raise fields.wrong(where, block, "an object")
        kind = block.get("type")
        if not isinstance(kind, str):
            raise fields.wrong(f"{where}.type", kind, "the kind of the block")
        reader = readers.get(kind)
        if reader is None:
            raise losses.refuse(where, f"only {', '.join(readers)} blocks can be translated here for this candidate")
        yield reader(block, where, losses)


def _text(block: _Block, at: str, losses: Losses) -> Text:
    if block.get("citations"):
        losses.hint(f"{at}.citations")
    return Text(string(block, "text", at), cache_ttl(block, f"{at}."))


def _image(block: _Block, at: str, losses: Losses) -> Image:
    source, kind = _source(block, at)
    ttl = cache_ttl(block, f"{at}.")
    if kind == "base64":
        inside = f"{at}.source"
        return Image(string(source, "media_type", inside), string(source, "data", inside), cache_ttl=ttl)
    if kind == "url":
        return Image(url=string(source, "url", f"{at}.source"), cache_ttl=ttl)
    raise _kept_elsewhere(at, kind, losses)


def _document(block: _Block, at: str, losses: Losses) -> File:
    if block.get("context") is not None:
        losses.dropped(f"{at}.context")
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled") is True:
        losses.dropped(f"{at}.citations")
    source, kind = _source(block, at)
    inside = f"{at}.source"
    name = fields.optional(block, "title", str, "a string", f"{at}.")
    ttl = cache_ttl(block, f"{at}.")
    if kind == "base64":
        media_type = string(source, "media_type", inside)
        return File(media_type, string(source, "data", inside), name=name, cache_ttl=ttl)
    if kind == "text":
        return File("text/plain", text=string(source, "data", inside), name=name, cache_ttl=ttl)
    if kind == "url":
        return File(url=string(source, "url", inside), name=name, cache_ttl=ttl)
    if kind == "content":
        parts = list(_read(source.get("content"), f"{inside}.content", {"text": _text}, losses))
        joined = "\n".join(part.text for part in parts if isinstance(part, Text))
        return File("text/plain", text=joined, name=name, cache_ttl=ttl)
    raise _kept_elsewhere(at, kind, losses)


def _source(block: _Block, at: str) -> tuple[_Block, object]:
    source = block.get("source")
    if not isinstance(source, dict):
        raise fields.wrong(f"{at}.source", source, "an object")
    return source, source.get("type")


def _kept_elsewhere(at: str, kind: object, losses: Losses) -> InvalidRequest:
    if kind == "file":
        return losses.refuse(f"{at}.source", "a file kept at one provider cannot be read by another: send it")
    return losses.refuse(f"{at}.source", "this kind of source cannot be translated for this candidate")


def _thinking(block: _Block, at: str, losses: Losses) -> Reasoning:
    return Reasoning(string(block, "thinking", at), state=fields.optional(block, "signature", str, "a string") or None)


def _redacted(block: _Block, at: str, losses: Losses) -> Reasoning:
    return Reasoning(state=string(block, "data", at), is_redacted=True)


def _call(block: _Block, at: str, losses: Losses) -> ToolCall:
    if cache_ttl(block, f"{at}.") is not None:
        losses.dropped(f"{at}.cache_control")
    given = fields.optional(block, "input", dict, "an object", f"{at}.") or {}
    try:
        arguments = orjson.dumps(given).decode()
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"{at}.input nests objects or lists too deeply", param=f"{at}.input") from None
    return ToolCall(string(block, "id", at), string(block, "name", at), arguments)


def _result(block: _Block, at: str, losses: Losses) -> ToolResult:
    content = block.get("content")
    parts = () if content is None else _read(content, f"{at}.content", _OF_RESULTS, losses)
    return ToolResult(
        string(block, "tool_use_id", at),
        tuple(part for part in parts if isinstance(part, Text | Image | File)),
        block.get("is_error") is True,
        cache_ttl=cache_ttl(block, f"{at}."),
    )


_Reader = Callable[[_Block, str, Losses], Part]
_OF_RESULTS: Mapping[str, _Reader] = {"text": _text, "image": _image, "document": _document}
_OF_ROLE: Mapping[str, Mapping[str, _Reader]] = {
    "system": {"text": _text},
    "user": {**_OF_RESULTS, "tool_result": _result},
    "assistant": {"text": _text, "thinking": _thinking, "redacted_thinking": _redacted, "tool_use": _call},
}
