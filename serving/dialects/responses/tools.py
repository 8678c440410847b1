"""Tools of Responses and which of them may be called, both ways.

Entry points: :func:`offered`, :func:`read_tools`, :func:`read_choice`, :func:`write_tools`, :func:`write_choice`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from serving import fields
from serving.dialects.conversation import Tool, ToolChoice
from serving.dialects.losses import Losses

#: Of a tool of the client's own: read, or saying nothing.
_TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict", "format"})
_NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}}


def read_tools(body: Mapping[str, object], losses: Losses) -> tuple[Tool, ...]:
    """Read the tools; the provider's own (web search and its like) are dropped and told.

    Raises
    ------
    InvalidRequest
        A tool cannot be; names it.
    """
    return tuple(tool for given, at in offered(body) for tool in _read(given, at, losses, None))


def offered(body: Mapping[str, object]) -> Iterator[tuple[object, str]]:
    """Yield every tool of a request and its path: of ``tools``, and of the items that bring more (Codex)."""
    for i, given in enumerate(fields.optional(body, "tools", list, "a list") or []):
        yield given, f"tools[{i}]"
    items = body.get("input")
    for i, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            at = f"input[{i}].tools"
            tools = fields.optional(item, "tools", list, "a list", f"input[{i}].") or []
            yield from ((given, f"{at}[{j}]") for j, given in enumerate(tools))


def read_choice(body: Mapping[str, object], tools: Sequence[Tool], losses: Losses) -> ToolChoice | None:
    """Read which tools may or must be called.

    Raises
    ------
    InvalidRequest
        It names a tool of the provider's, or demands one where only such were offered.
    """
    choice = body.get("tool_choice")
    if choice is None:
        return None
    read = _read_choice(choice, losses)
    if read.mode == "required" and not tools:
        raise losses.refuse("tool_choice", "a tool must be called, but none of those offered can be translated")
    return read


def write_tools(tools: Sequence[Tool], losses: Losses) -> list[dict[str, object]]:
    """Write the tools; those of a namespace together, where its first one stood."""
    written: list[dict[str, object]] = []
    namespaces: dict[str, list[dict[str, object]]] = {}
    for tool in tools:
        if tool.cache_ttl is not None:
            losses.dropped("cache_control")
        if tool.namespace is None:
            written.append(_write(tool))
        elif tool.namespace in namespaces:
            namespaces[tool.namespace].append(_write(tool))
        else:
            inside = namespaces[tool.namespace] = [_write(tool)]
            # A description is demanded; the neutral form has none.
            name = tool.namespace
            written.append({"type": "namespace", "name": name, "description": name, "tools": inside})
    return written


def write_choice(choice: ToolChoice, tools: Sequence[Tool]) -> object:
    """Write which tools may or must be called."""
    if not choice.names or choice.mode == "none":
        return choice.mode
    custom = {tool.name for tool in tools if tool.is_custom}
    named = [{"type": "custom" if name in custom else "function", "name": name} for name in choice.names]
    if choice.mode == "required" and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": named}


def _read(given: object, at: str, losses: Losses, namespace: str | None) -> Iterator[Tool]:
    if not isinstance(given, dict):
        raise fields.wrong(at, given, "an object")
    kind = given.get("type")
    if kind == "namespace" and namespace is None:
        yield from _read_namespace(given, at, losses)
    elif kind in ("function", "custom"):
        for name in given:
            if name not in _TOOL_FIELDS and given[name]:
                losses.dropped(f"{at}.{name}")
        yield Tool(
            fields.string(given, "name", at),
            fields.optional(given, "description", str, "a string", f"{at}."),
            fields.optional(given, "parameters", dict, "an object", f"{at}.") if kind == "function" else None,
            fields.optional(given, "strict", bool, "true or false", f"{at}.") if kind == "function" else None,
            kind == "custom",
            fields.optional(given, "format", dict, "an object", f"{at}.") if kind == "custom" else None,
            namespace,
        )
    elif isinstance(kind, str):
        losses.dropped(at)
    else:
        raise fields.wrong(f"{at}.type", kind, "a string")


def _read_namespace(given: Mapping[str, object], at: str, losses: Losses) -> Iterator[Tool]:
    name = fields.string(given, "name", at)
    description = fields.optional(given, "description", str, "a string", f"{at}.")
    if description and description != name:
        losses.dropped(f"{at}.description")
    inside = fields.optional(given, "tools", list, "a list", f"{at}.") or []
    for i, tool in enumerate(inside):
        yield from _read(tool, f"{at}.tools[{i}]", losses, name)


def _read_choice(choice: object, losses: Losses) -> ToolChoice:
    if isinstance(choice, str) and choice in ("auto", "none", "required"):
        return ToolChoice(choice)  # type: ignore[arg-type]
    if not isinstance(choice, dict):
        raise fields.wrong("tool_choice", choice, "auto, none, required or an object")
    kind = choice.get("type")
    if kind in ("function", "custom"):
        return ToolChoice("required", (fields.string(choice, "name", "tool_choice"),))
    if kind != "allowed_tools":
        raise losses.refuse("tool_choice", "the provider's own tools cannot be translated for this candidate")
    mode: Literal["auto", "required"] = "required" if choice.get("mode") == "required" else "auto"
    tools = fields.optional(choice, "tools", list, "a list", "tool_choice.") or []
    names: list[str] = []
    for i, tool in enumerate(tools):
        at = f"tool_choice.tools[{i}]"
        if not isinstance(tool, dict):
            raise fields.wrong(at, tool, "an object")
        if tool.get("type") in ("function", "custom"):
            names.append(fields.string(tool, "name", at))
        else:
            losses.dropped(at)
    if not names:
        raise losses.refuse("tool_choice", "none of the tools allowed can be translated for this candidate")
    return ToolChoice(mode, tuple(names))


def _write(tool: Tool) -> dict[str, object]:
    described = {} if tool.description is None else {"description": tool.description}
    if tool.is_custom:
        form = {} if tool.format is None else {"format": tool.format}
        return {"type": "custom", "name": tool.name, **described, **form}
    return {
        "type": "function",
        "name": tool.name,
        **described,
        "parameters": _NO_PARAMETERS if tool.schema is None else tool.schema,
        # Unsaid, this dialect tries to be strict, and so makes every optional argument a demanded one.
        "strict": bool(tool.is_strict),
    }
