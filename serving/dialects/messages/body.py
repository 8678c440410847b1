"""Messages requests: the neutral form into a body for a provider.

Custom and namespaced tools never come here: :mod:`serving.dialects.emulation` has made functions of them. How the
turns are put together is :mod:`serving.dialects.messages.turns`. Entry point: :func:`write_request`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serving.dialects.conversation import (
    Conversation,
    Message,
    OutputFormat,
    Settings,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from serving.dialects.losses import Losses
from serving.dialects.messages.request import TIERS
from serving.dialects.messages.thinking import Model, model_of, write_thinking
from serving.dialects.messages.turns import cache_mark, is_blank, lacks_thoughts, turns_of

_NO_ARGUMENTS = {"type": "object", "properties": {}}
_ONLY_JSON = "Answer with one JSON object and nothing else: no words before or after it, no code fence."
_MAX_TEMPERATURE = 1.0


def write_request(conversation: Conversation, model: str, losses: Losses) -> dict[str, object]:
    """Write the body for a provider that speaks Messages.

    Raises
    ------
    InvalidRequest
        Something cannot be said there, sound for example, or the conversation does not begin with the user.
    """
    settings, kind = conversation.settings, model_of(model)
    n_leading = _n_leading(conversation.messages)
    turns = turns_of(conversation.messages, n_leading, losses, is_claude=kind.is_claude)
    written = write_thinking(settings, kind, losses, may_think=not (kind.is_claude and lacks_thoughts(turns)))
    thinks = _thinks(written)
    body: dict[str, object] = {"model": model, "messages": turns, **written}
    if system := _system(conversation.messages[:n_leading], conversation.output, losses):
        body["system"] = system
    body.update(_tools(conversation, kind, losses, thinks=thinks))
    body.update(_sampling(settings, kind, losses, thinks=thinks))
    body.update(_others(settings, losses))
    if conversation.output is not None and conversation.output.schema is not None:
        config = body.get("output_config")
        form = {"type": "json_schema", "schema": conversation.output.schema}
        body["output_config"] = {**(config if isinstance(config, dict) else {}), "format": form}
    if conversation.is_stream:
        body["stream"] = True
    return body


def _thinks(written: dict[str, object]) -> bool:
    thinking = written.get("thinking")
    return isinstance(thinking, dict) and thinking["type"] in ("enabled", "adaptive")


def _n_leading(messages: Sequence[Message]) -> int:
    """Return how many messages are the system prompt: those at the beginning, but never all."""
    n_leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages) - 1)
    return max(n_leading, 0)


def _system(messages: Iterable[Message], output: OutputFormat | None, losses: Losses) -> object:
    """Return the system prompt: one plain text as such, else blocks in their order."""
    blocks: list[dict[str, object]] = [
        {"type": "text", "text": part.text, **cache_mark(part.cache_ttl)}
        for message in messages
        for part in message.parts
        if isinstance(part, Text) and not is_blank(part)
    ]
    if output is not None and output.schema is None:
        losses.emulated("response_format")
        blocks.append({"type": "text", "text": _ONLY_JSON})
    return blocks[0]["text"] if len(blocks) == 1 and len(blocks[0]) == 2 else blocks


def _tools(conversation: Conversation, kind: Model, losses: Losses, *, thinks: bool) -> dict[str, object]:
    """Write the tools and which of them may or must be called."""
    tools, choice = conversation.tools, conversation.tool_choice
    if not tools:
        called = dict.fromkeys(
            part.name for message in conversation.messages for part in message.parts if isinstance(part, ToolCall)
        )
        if not called:
            return {}
        # Calls in the past are refused without tools that could have been called; none may be called again.
        declared = [{"name": name, "input_schema": _NO_ARGUMENTS} for name in called]
        return {"tools": declared, "tool_choice": {"type": "none"}}
    wanted = _choice(choice, kind, losses, thinks=thinks)
    if choice is not None and choice.names and wanted.get("type") != "tool":
        losses.changed("tools")
        tools = tuple(tool for tool in tools if tool.name in choice.names)
    if conversation.settings.is_parallel is False and wanted.get("type") != "none":
        wanted = {"type": "auto", **wanted, "disable_parallel_tool_use": True}
    written: dict[str, object] = {"tools": [_tool(tool) for tool in tools]}
    return {**written, "tool_choice": wanted} if wanted else written


def _choice(choice: ToolChoice | None, kind: Model, losses: Losses, *, thinks: bool) -> dict[str, object]:
    if choice is None:
        return {}
    if choice.mode != "required":
        return {"type": choice.mode}
    if kind.is_claude and (thinks or not kind.can_be_forced):
        losses.changed("tool_choice")
        return {"type": "auto"}
    return {"type": "tool", "name": choice.names[0]} if len(choice.names) == 1 else {"type": "any"}


def _tool(tool: Tool) -> dict[str, object]:
    assert not tool.is_custom and tool.namespace is None, "custom and namespaced tools are emulated before"
    written: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    schema = tool.schema or _NO_ARGUMENTS
    written["input_schema"] = schema if "type" in schema else {"type": "object", **schema}
    if tool.is_strict is not None:
        written["strict"] = tool.is_strict
    return {**written, **cache_mark(tool.cache_ttl)}


def _sampling(settings: Settings, kind: Model, losses: Losses, *, thinks: bool) -> dict[str, object]:
    """Write temperature and the like, as far as the model takes them, and together."""
    given: dict[str, float] = {
        name: value
        for name, value in (
            ("temperature", settings.temperature),
            ("top_p", settings.top_p),
            ("top_k", settings.top_k),
        )
        if value is not None
    }
    refused: set[str] = set()
    if not kind.takes_sampling or (kind.is_claude and thinks):
        refused = set(given)
    elif kind.is_claude and "temperature" in given:
        refused = {"top_p"} & given.keys()  # Claude takes one of the two
    for name in given:
        if name in refused:
            losses.dropped(name)
    kept = {name: value for name, value in given.items() if name not in refused}
    if kind.is_claude and kept.get("temperature", 0) > _MAX_TEMPERATURE:
        losses.changed("temperature")
        kept["temperature"] = _MAX_TEMPERATURE
    return dict(kept)


def _others(settings: Settings, losses: Losses) -> dict[str, object]:
    for name in ("frequency_penalty", "presence_penalty", "seed"):
        if getattr(settings, name) is not None:
            losses.dropped(name)
    for name, value in (("verbosity", settings.verbosity), ("prompt_cache_key", settings.cache_key)):
        if value is not None:
            losses.hint(name)
    written: dict[str, object] = {}
    if settings.stop:
        written["stop_sequences"] = list(settings.stop)
    if settings.user is not None:
        written["metadata"] = {"user_id": settings.user}
    tier = {chat: word for word, chat in TIERS}.get(settings.service_tier or "")
    if tier is not None:
        written["service_tier"] = tier
    elif settings.service_tier is not None:
        losses.dropped("service_tier")
    return written
