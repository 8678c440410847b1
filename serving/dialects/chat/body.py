"""Chat Completions requests: the neutral form into a body for a provider.

Custom and namespaced tools never come here: :mod:`serving.dialects.emulation` has made functions of them. What one
provider or another cannot take is not known here either: that is its row in the directory. Entry point:
:func:`write_request`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from serving.dialects.conversation import (
    Audio,
    Conversation,
    File,
    Image,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Settings,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from serving.dialects.effort import effort_of_budget
from serving.dialects.losses import Losses

#: More than these are refused by OpenAI.
MAX_STOP = 4
#: Longer names of users are refused by OpenAI; Claude Code's is a JSON text with the id of the device in it.
MAX_USER_CHARACTERS = 64


def write_request(conversation: Conversation, model: str, losses: Losses) -> dict[str, object]:
    """Write the body for a provider that speaks Chat.

    The limit is written as ``max_completion_tokens``, thinking as ``reasoning_effort``, thoughts as
    ``reasoning_content``: quirks rename or withhold them.
    """
    messages: list[dict[str, object]] = []
    for i, message in enumerate(conversation.messages):
        messages.extend(_messages_of(message, i, losses))
    body: dict[str, object] = {"model": model, "messages": _results_first(messages)}
    if conversation.tools:
        body["tools"] = [_tool(tool, i, losses) for i, tool in enumerate(conversation.tools)]
        if conversation.tool_choice is not None:
            body["tool_choice"] = _tool_choice(conversation.tool_choice)
    if conversation.output is not None:
        body["response_format"] = _response_format(conversation.output)
    body.update(write_settings(conversation.settings, losses, has_tools=bool(conversation.tools)))
    if conversation.is_stream:
        body["stream"] = True
    return body


def _results_first(messages: list[dict[str, object]]) -> list[dict[str, object]]:
    """Put the results of calls right behind them, as is demanded; what stood between follows."""
    ordered: list[dict[str, object]] = []
    between: list[dict[str, object]] = []
    is_open = False
    for message in messages:
        if message["role"] == "assistant":
            ordered += between
            between = []
            is_open = "tool_calls" in message
        if is_open and message["role"] not in ("assistant", "tool"):
            between.append(message)
        else:
            ordered.append(message)
    return ordered + between


def write_settings(settings: Settings, losses: Losses, *, has_tools: bool = True) -> dict[str, object]:
    """Write how to answer, and nothing else of a body."""
    if settings.top_k is not None:
        losses.dropped("top_k")
    if len(settings.stop) > MAX_STOP:
        losses.changed("stop")
    effort = settings.effort
    if settings.thinking_budget_tokens is not None:
        losses.changed("thinking.budget_tokens")
        effort = effort or effort_of_budget(settings.thinking_budget_tokens)
    if settings.wants_reasoning is not None:
        losses.hint("thinking.display")  # providers of this dialect tell their thoughts, or never do
    user = settings.user
    if user is not None and len(user) > MAX_USER_CHARACTERS:
        losses.hint("user")
        user = None
    written = {
        "max_completion_tokens": settings.max_output_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "seed": settings.seed,
        "stop": list(settings.stop[:MAX_STOP]) or None,
        "reasoning_effort": effort,
        "parallel_tool_calls": settings.is_parallel if has_tools else None,
        "service_tier": settings.service_tier,
        "user": user,
        "verbosity": settings.verbosity,
        "prompt_cache_key": settings.cache_key,
    }
    return {name: value for name, value in written.items() if value is not None}


def _messages_of(message: Message, i: int, losses: Losses) -> Iterator[dict[str, object]]:
    """Yield the Chat messages that one neutral message becomes: a result is a message of its own."""
    at = f"messages[{i}]"
    if any(_wants_cache(part) for part in message.parts):
        losses.dropped("cache_control")  # providers of this dialect cache by themselves, unasked
    if message.role == "assistant":
        yield _assistant(message.parts, at, losses)
        return
    beside: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            continue
        if part.is_error:
            losses.hint(f"{at}.is_error")
        texts = [inner for inner in part.parts if isinstance(inner, Text)]
        others = [inner for inner in part.parts if not isinstance(inner, Text)]
        yield {"role": "tool", "tool_call_id": part.call_id, "content": "\n".join(text.text for text in texts)}
        if others:
            # A tool message holds text only: what else the tool gave follows as the user's.
            losses.changed(f"{at}.content")
            beside.extend(others)
    said = [*beside, *(part for part in message.parts if not isinstance(part, ToolResult))]
    if said or not message.parts:
        yield {"role": message.role, "content": _content(said, at, losses, is_joined=message.role == "system")}


def _wants_cache(part: Part) -> bool:
    inside = part.parts if isinstance(part, ToolResult) else ()
    return any(getattr(one, "cache_ttl", None) is not None for one in (part, *inside))


def _assistant(parts: Sequence[Part], at: str, losses: Losses) -> dict[str, object]:
    for j, part in enumerate(parts):
        if isinstance(part, Image | File | Audio):
            losses.dropped(f"{at}.content[{j}]")  # an assistant's message holds words only
        elif isinstance(part, Reasoning) and part.state is not None:
            losses.dropped(f"{at}.reasoning")
    texts = [part.text for part in parts if isinstance(part, Text) and part.text]
    refusals = [part.text for part in parts if isinstance(part, Refusal)]
    thoughts = [part.text for part in parts if isinstance(part, Reasoning) and part.text]
    calls = [_call(part) for part in parts if isinstance(part, ToolCall)]
    message: dict[str, object] = {"role": "assistant", "content": "\n\n".join(texts) if texts else None}
    if not texts and not calls and not refusals:
        message["content"] = ""
    if refusals:
        message["refusal"] = "\n\n".join(refusals)
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> dict[str, object]:
    written: dict[str, object] = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.state is not None:
        written["extra_content"] = {"google": {"thought_signature": call.state}}
    return written


def _content(parts: Sequence[Part], at: str, losses: Losses, *, is_joined: bool) -> object:
    texts = [part.text for part in parts if isinstance(part, Text)]
    if len(texts) == len(parts) and (is_joined or len(parts) <= 1):
        return "\n\n".join(texts)
    return [_part(part, f"{at}.content[{j}]", losses) for j, part in enumerate(parts)]


def _part(part: Part, at: str, losses: Losses) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            url = part.url if part.data is None else f"data:{part.media_type or 'image/png'};base64,{part.data}"
            detail = {} if part.detail is None else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case File(text=str(text)):
            losses.changed(at)
            return {"type": "text", "text": f"{part.name}:\n{text}" if part.name else text}
        case File(data=str(data)):
            uri = f"data:{part.media_type or 'application/pdf'};base64,{data}"
            return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": uri}}
        case File():
            raise losses.refuse(at, "a document by URL cannot be translated for this candidate: send its data")
        case _:
            raise losses.refuse(at, "only text, images, sound and documents may stand here")


def _tool(tool: Tool, i: int, losses: Losses) -> dict[str, object]:
    if tool.cache_ttl is not None:
        losses.dropped("cache_control")
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    if tool.is_strict is not None:
        function["strict"] = tool.is_strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> object:
    if not choice.names or choice.mode == "none":
        return choice.mode
    named: list[Mapping[str, object]] = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if choice.mode == "required" and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def _response_format(output: OutputFormat) -> dict[str, object]:
    if output.schema is None:
        return {"type": "json_object"}
    form: dict[str, object] = {"name": output.name, "schema": output.schema}
    if output.description is not None:
        form["description"] = output.description
    if output.is_strict is not None:
        form["strict"] = output.is_strict
    return {"type": "json_schema", "json_schema": form}
