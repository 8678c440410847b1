"""Messages requests: a body into the neutral form. Writing one is :mod:`serving.dialects.messages.body`.

What has no place in the neutral form is told or refused by :data:`_HINTS`, :data:`_REFUSED` and the rule that any
other unknown field is dropped and told. Entry points: :func:`read_request`, and what routing reads of a body without
translating it: :func:`outline`, :func:`count_extra`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import orjson

from serving import fields
from serving.dialects.conversation import (
    EFFORTS,
    Conversation,
    File,
    Image,
    Message,
    OutputFormat,
    Settings,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
)
from serving.dialects.losses import Losses
from serving.dialects.messages.blocks import cache_ttl, parts_of, string
from serving.errors import InvalidRequest

#: The ``anthropic-version`` of the bodies written here: the only one under which sampling can be said.
VERSION = "2023-06-01"

_READ = frozenset(
    {"model", "messages", "system", "max_tokens", "tools", "tool_choice", "thinking", "output_config", "output_format",
     "stop_sequences", "stream", "metadata", "service_tier", "temperature", "top_p", "top_k", "cache_control",
     "turnout"}
)  # fmt: skip
_HINTS = frozenset({"diagnostics"})
#: By this code Anthropic's own package knows that it may go on without a thread.
_CODES = {"thread": "thread_unsupported_request"}
_REFUSED = {
    "mcp_servers": "servers of tools cannot be translated for this candidate",
    "container": "a container at one provider cannot be used by another",
    "thread": "a thread kept at one provider cannot be continued by another",
    "inference_geo": "where a translated request is answered cannot be promised",
}
_READ_OF_A_TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_HINTS_OF_A_TOOL = frozenset({"eager_input_streaming"})
#: Anthropic's word for a service tier, and Chat's.
TIERS = (("auto", "auto"), ("standard_only", "default"))
#: Claude Code's first block names its version and build. Anthropic takes it out before the model reads; elsewhere it
#: would stand before everything that could be cached.
_ATTRIBUTION = "x-anthropic-billing-header:"


def read_request(body: Mapping[str, object], losses: Losses) -> Conversation:
    """Read a whole request.

    Raises
    ------
    InvalidRequest
        A field cannot be, or means something that no other dialect can say; names it.
    """
    _sort_out(body, losses)
    messages = [*_system(body, losses), *_turns(body, losses)]
    ttl = cache_ttl(body, "")
    tools, n_left_out = _tools(body, losses)
    return Conversation(
        messages=tuple(messages if ttl is None else _marked(messages, ttl)),
        tools=tools,
        tool_choice=_tool_choice(body, tools, n_left_out, losses),
        output=_output(body),
        settings=_settings(body, losses),
        is_stream=fields.optional(body, "stream", bool, "true or false") or False,
    )


def outline(body: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the messages in the form :func:`router.text.read` takes; contents are shared, not copied.

    What tools gave stands in messages of its own, so that it counts but is never taken for the human's words.

    Raises
    ------
    InvalidRequest
        There are no messages, or one of them is none.
    """
    outlined: list[dict[str, object]] = []
    if body.get("system"):
        outlined.append({"role": "system", "content": body["system"]})
    for message in _messages(body):
        content = message.get("content")
        if not isinstance(content, list):
            outlined.append(message)
            continue
        said: list[object] = []
        inputs: list[object] = []
        for block in content:
            kind = block.get("type") if isinstance(block, dict) else None
            if kind == "tool_result":
                outlined.append({"role": "tool", "content": block.get("content")})
            elif kind == "tool_use":
                inputs.append(block.get("input"))
            else:
                said.append(block)
        if said or inputs or not content:
            outlined.append({"role": message["role"], "content": said, "tool_calls": inputs})
    return outlined


def count_extra(body: Mapping[str, object]) -> int:
    """Return how much a provider reads besides the messages: the tools and the schema of the output."""
    config = body.get("output_config")
    form = config.get("format") if isinstance(config, dict) else None
    return sum(len(_json(value)) for value in (body.get("tools"), form) if value)


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise InvalidRequest("the body nests objects or lists too deeply", code="invalid_json") from None


def _sort_out(body: Mapping[str, object], losses: Losses) -> None:
    """Tell or refuse every field that the neutral form has no place for."""
    for name, value in body.items():
        if name in _READ or value is None or value == [] or (name, value) == ("inference_geo", "global"):
            continue
        if name in _REFUSED:
            raise losses.refuse(name, _REFUSED[name], _CODES.get(name, "unsupported_parameter"))
        if name in _HINTS:
            losses.hint(name)
        else:
            losses.dropped(name)


def _messages(body: Mapping[str, object]) -> list[dict[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", messages, "a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"messages[{i}] must be an object with a role", param=f"messages[{i}]")
    return messages


def _system(body: Mapping[str, object], losses: Losses) -> Iterator[Message]:
    system = body.get("system")
    if system is None:
        return
    parts = parts_of(system, "system", "system", losses)
    first = parts[0] if parts else None
    if isinstance(first, Text) and first.text.startswith(_ATTRIBUTION):
        losses.hint("system[0]")
        parts = parts[1:]
    if parts:
        yield Message("system", tuple(parts))


def _turns(body: Mapping[str, object], losses: Losses) -> Iterator[Message]:
    for i, message in enumerate(_messages(body)):
        role = message["role"]
        if role != "user" and role != "assistant" and role != "system":
            raise fields.wrong(f"messages[{i}].role", role, "user, assistant or system")
        yield Message(role, tuple(parts_of(message.get("content"), f"messages[{i}].content", role, losses)))


def _marked(messages: Sequence[Message], ttl: str) -> list[Message]:
    """Put the mark of the whole request on the last part that can carry one and has none."""
    marked = list(messages)
    for i in reversed(range(len(marked))):
        parts = marked[i].parts
        for j in reversed(range(len(parts))):
            part = parts[j]
            if isinstance(part, Text | Image | File | ToolResult):
                cached = dataclasses.replace(part, cache_ttl=ttl if part.cache_ttl is None else part.cache_ttl)
                marked[i] = Message(marked[i].role, (*parts[:j], cached, *parts[j + 1 :]))
                return marked
    return marked


def _tools(body: Mapping[str, object], losses: Losses) -> tuple[tuple[Tool, ...], int]:
    """Return the client's own tools, and how many of the provider's were left out."""
    tools = fields.optional(body, "tools", list, "a list") or []
    read: list[Tool] = []
    for i, tool in enumerate(tools):
        at = f"tools[{i}]"
        if not isinstance(tool, dict):
            raise fields.wrong(at, tool, "an object")
        if tool.get("type") not in (None, "custom"):
            # Defined by Anthropic, run by it or by the client: no other model knows how to call them.
            _refuse_if_named(body, tool, losses)
            losses.dropped(at)
            continue
        read.append(_tool(tool, at, losses))
    return tuple(read), len(tools) - len(read)


def _refuse_if_named(body: Mapping[str, object], tool: Mapping[str, object], losses: Losses) -> None:
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("name") is not None and choice.get("name") == tool.get("name"):
        raise losses.refuse("tool_choice", "a tool of the provider's own cannot be translated for this candidate")


def _tool(tool: Mapping[str, object], at: str, losses: Losses) -> Tool:
    for name, value in tool.items():
        if name in _HINTS_OF_A_TOOL:
            losses.hint(f"{at}.{name}")
        elif name not in _READ_OF_A_TOOL and value not in (None, False, ["direct"]):
            losses.dropped(f"{at}.{name}")
    return Tool(
        string(tool, "name", at),
        fields.optional(tool, "description", str, "a string", f"{at}."),
        fields.optional(tool, "input_schema", dict, "an object", f"{at}."),
        fields.optional(tool, "strict", bool, "true or false", f"{at}."),
        cache_ttl=cache_ttl(tool, f"{at}."),
    )


def _tool_choice(
    body: Mapping[str, object], tools: Sequence[Tool], n_left_out: int, losses: Losses
) -> ToolChoice | None:
    choice = fields.optional(body, "tool_choice", dict, "an object")
    if choice is None:
        return None
    kind = choice.get("type")
    if kind == "any" and n_left_out and not tools:
        raise losses.refuse("tool_choice", "only tools of the provider's own are left to call")
    if kind == "tool":
        return ToolChoice("required", (string(choice, "name", "tool_choice"),))
    if kind == "any":
        return ToolChoice("required")
    if kind == "auto" or kind == "none":
        return ToolChoice(kind)
    raise fields.wrong("tool_choice.type", kind, "auto, any, tool or none")


def _output(body: Mapping[str, object]) -> OutputFormat | None:
    config = fields.optional(body, "output_config", dict, "an object") or {}
    form = fields.optional(config, "format", dict, "an object", "output_config.")
    if form is None:  # where it stood while it was a beta
        form = fields.optional(body, "output_format", dict, "an object")
    if form is None:
        return None
    if form.get("type") != "json_schema":
        raise fields.wrong("output_config.format.type", form.get("type"), "json_schema")
    return OutputFormat(fields.optional(form, "schema", dict, "an object", "output_config.format.") or {})


def _settings(body: Mapping[str, object], losses: Losses) -> Settings:
    metadata = fields.optional(body, "metadata", dict, "an object") or {}
    choice = body.get("tool_choice")
    is_single = isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True
    tier = fields.optional(body, "service_tier", str, "a string")
    effort, budget, wants_reasoning = _thinking(body, losses)
    return Settings(
        max_output_tokens=fields.positive(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.positive(body, "top_k"),
        stop=_stop(body),
        effort=effort,
        thinking_budget_tokens=budget,
        wants_reasoning=wants_reasoning,
        is_parallel=False if is_single else None,
        service_tier=None if tier is None else dict(TIERS).get(tier, tier),
        user=fields.optional(metadata, "user_id", str, "a string", "metadata."),
    )


def _thinking(body: Mapping[str, object], losses: Losses) -> tuple[str | None, int | None, bool | None]:
    """Return the effort, the budget in tokens, and whether thoughts are to be seen."""
    config = fields.optional(body, "output_config", dict, "an object") or {}
    for name in config.keys() - {"effort", "format"}:
        losses.dropped(f"output_config.{name}")
    effort = fields.optional(config, "effort", str, "a string", "output_config.")
    if effort is not None and effort not in EFFORTS:
        raise fields.wrong("output_config.effort", effort, f"one of {', '.join(EFFORTS)}")
    thinking = fields.optional(body, "thinking", dict, "an object") or {}
    kind, is_shown = thinking.get("type"), thinking.get("display") != "omitted"
    if kind == "enabled":
        return effort, fields.positive(thinking, "budget_tokens"), is_shown
    if kind == "adaptive":
        return effort, None, is_shown
    if kind == "between_tools":
        losses.changed("thinking.type")
    if kind == "disabled" or kind == "between_tools":
        return "none", None, None
    if kind is not None:
        losses.dropped("thinking")
    return effort, None, None


def _stop(body: Mapping[str, object]) -> tuple[str, ...]:
    stop = fields.optional(body, "stop_sequences", list, "a list of strings") or []
    if not all(isinstance(sequence, str) for sequence in stop):
        raise fields.wrong("stop_sequences", stop, "a list of strings")
    return tuple(stop)
