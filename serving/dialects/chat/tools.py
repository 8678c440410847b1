"""Tools of Chat Completions and which of them may be called, read; what parts and tools have in common.

Entry points: :func:`read_tools`, :func:`read_choice`, :func:`cache_ttl`, :func:`string`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from serving import fields
from serving.dialects.conversation import Tool, ToolChoice
from serving.dialects.losses import Losses

#: How long OpenAI keeps what stands before a breakpoint, in the words of the neutral form.
_CACHE_TTLS = {"5m": "5m", "1h": "1h", "12h": "1h"}


def read_tools(body: Mapping[str, object], losses: Losses) -> tuple[Tool, ...]:
    """Read the tools, and what they were called before: functions.

    Raises
    ------
    InvalidRequest
        A tool cannot be, or is the provider's own; names it.
    """
    tools = fields.optional(body, "tools", list, "a list") or []
    legacy = fields.optional(body, "functions", list, "a list") or []
    return (
        *(_tool(tool, f"tools[{i}]", losses) for i, tool in enumerate(tools)),
        *(_function(function, f"functions[{i}]", None) for i, function in enumerate(legacy)),
    )


def read_choice(body: Mapping[str, object], losses: Losses) -> ToolChoice | None:
    """Read which tools may or must be called.

    Raises
    ------
    InvalidRequest
        It cannot be, or names a tool of the provider's own.
    """
    choice = body.get("tool_choice", body.get("function_call"))
    if choice is None:
        return None
    if choice in ("auto", "none", "required"):
        return ToolChoice(choice)
    if not isinstance(choice, dict):
        raise fields.wrong("tool_choice", choice, "auto, none, required or an object")
    kind = choice.get("type")
    if kind == "allowed_tools":
        allowed = fields.optional(choice, "allowed_tools", dict, "an object", "tool_choice.") or {}
        mode: Literal["auto", "required"] = "required" if allowed.get("mode") == "required" else "auto"
        tools = fields.optional(allowed, "tools", list, "a list", "tool_choice.allowed_tools.") or []
        return ToolChoice(mode, tuple(_named(tool, "tool_choice.allowed_tools.tools") for tool in tools))
    if kind in ("function", "custom", None):
        return ToolChoice("required", (_named(choice, "tool_choice"),))
    raise losses.refuse("tool_choice", "only function and custom tools can be translated for this candidate")


def cache_ttl(part: Mapping[str, object]) -> str | None:
    """Return how long a part wants to be cached: Anthropic's mark, as many clients send it to Chat, or OpenAI's own."""
    for name in ("cache_control", "prompt_cache_breakpoint"):
        mark = part.get(name)
        if isinstance(mark, dict):
            return _CACHE_TTLS.get(str(mark.get("ttl")), "")
    return None


def string(body: Mapping[str, object], key: str, at: str) -> str:
    """Return a field that must be a string."""
    value = body.get(key)
    if not isinstance(value, str):
        raise fields.wrong(f"{at}.{key}", value, "a string")
    return value


def _tool(tool: object, at: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong(at, tool, "an object")
    kind = tool.get("type", "function")
    if kind == "function":
        return _function(tool.get("function"), f"{at}.function", cache_ttl(tool))
    if kind == "custom":
        custom = fields.optional(tool, "custom", dict, "an object", f"{at}.") or {}
        description = fields.optional(custom, "description", str, "a string", f"{at}.custom.")
        form = fields.optional(custom, "format", dict, "an object", f"{at}.custom.")
        grammar = form.get("grammar") if form else None
        if form and isinstance(grammar, dict):  # Responses, whose form is the neutral one, has it flat
            form = {"type": "grammar", **grammar}
        return Tool(string(custom, "name", f"{at}.custom"), description, is_custom=True, format=form)
    raise losses.refuse(f"{at}.type", "only function and custom tools can be translated for this candidate")


def _function(function: object, at: str, ttl: str | None) -> Tool:
    if not isinstance(function, dict):
        raise fields.wrong(at, function, "an object")
    return Tool(
        string(function, "name", at),
        fields.optional(function, "description", str, "a string", f"{at}."),
        fields.optional(function, "parameters", dict, "an object", f"{at}."),
        fields.optional(function, "strict", bool, "true or false", f"{at}."),
        cache_ttl=ttl,
    )


def _named(choice: object, at: str) -> str:
    """Return the name in ``{type, function: {name}}``, ``{type, custom: {name}}`` or the legacy ``{name}``."""
    if not isinstance(choice, dict):
        raise fields.wrong(at, choice, "an object")
    inner = choice.get("function", choice.get("custom", choice))
    return string(inner if isinstance(inner, dict) else choice, "name", at)
