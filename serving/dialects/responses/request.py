"""Responses requests, both ways, and what routing needs of one without reading all of it.

A field that the neutral form has no place for is a hint, refused, of a value that says nothing, or dropped and told:
:data:`_HINTS`, :data:`_REFUSED`, :data:`_PLAIN`. Entry points: :func:`read_request`, :func:`write_request`,
:func:`outline`, :func:`count_extra`.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from serving import fields
from serving.dialects.conversation import (
    EFFORTS,
    Conversation,
    Message,
    OutputFormat,
    Reasoning,
    Settings,
    Text,
)
from serving.dialects.effort import effort_of_budget
from serving.dialects.losses import Losses
from serving.dialects.responses.items import read_input, write_items
from serving.dialects.responses.tools import offered, read_choice, read_tools, write_choice, write_tools
from serving.errors import InvalidRequest

_READ = frozenset(
    {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "include",
     "max_output_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stream", "service_tier",
     "prompt_cache_key", "user", "safety_identifier", "turnout"}
)  # fmt: skip
_HINTS = frozenset(
    {"store", "metadata", "client_metadata", "stream_options", "prompt_cache_options", "prompt_cache_retention"}
)
_REFUSED = {
    "background": "answers in the background cannot be translated for this candidate",
    "conversation": "a conversation kept at one provider cannot be read by another: send its items",
    "prompt": "a prompt kept at one provider cannot be read by another: send its text",
    "top_logprobs": "log probabilities are not available from this candidate",
}
#: Said or not, it is the same.
_PLAIN: Mapping[str, object] = {
    "truncation": "disabled",
    "reasoning.context": "auto",
    "reasoning.mode": "standard",
}
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
#: Longer identifiers are refused by OpenAI.
_MAX_IDENTIFIER_CHARACTERS = 64
#: Fewer are refused by OpenAI.
_MIN_OUTPUT_TOKENS = 16
_TIERS = {"standard_only": "default"} | {
    name: name for name in ("auto", "default", "flex", "scale", "priority", "fast")
}


def read_request(body: Mapping[str, object], losses: Losses) -> Conversation:
    """Read a whole request; ``previous_response_id`` was expanded before, or is unknown.

    Raises
    ------
    InvalidRequest
        A field cannot be, or means something that no other dialect can say; names it.
    """
    _sort_out(body, losses)
    instructions = fields.optional(body, "instructions", str, "a string")
    system = [Message("system", (Text(instructions),))] if instructions else []
    messages = (*system, *read_input(body.get("input"), losses))
    if not messages:
        raise InvalidRequest("input must have at least one item", param="input")
    tools = read_tools(body, losses)
    text = fields.optional(body, "text", dict, "an object") or {}
    return Conversation(
        messages,
        tools,
        read_choice(body, tools, losses),
        _read_format(text),
        _read_settings(body, text, losses),
        fields.optional(body, "stream", bool, "true or false") or False,
    )


def write_request(conversation: Conversation, model: str, losses: Losses) -> dict[str, object]:
    """Write the body for a provider that speaks Responses; nothing is ever stored there."""
    messages = conversation.messages
    n_system = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    system = [part for message in messages[:n_system] for part in message.parts if isinstance(part, Text)]
    if any(text.cache_ttl is not None for text in system):
        losses.dropped("cache_control")
    body: dict[str, object] = {"model": model}
    if system:
        body["instructions"] = "\n\n".join(text.text for text in system)
    body["input"] = write_items(messages[n_system:], losses, n_system)
    if conversation.tools:
        body["tools"] = write_tools(conversation.tools, losses)
        if conversation.tool_choice is not None:
            body["tool_choice"] = write_choice(conversation.tool_choice, conversation.tools)
        if conversation.settings.is_parallel is not None:
            body["parallel_tool_calls"] = conversation.settings.is_parallel
    text = _write_text(conversation)
    if text:
        body["text"] = text
    reasoning = _write_reasoning(conversation.settings, losses)
    if reasoning:
        body["reasoning"] = reasoning
    if reasoning.get("effort") != "none" and (reasoning or _has_state(messages)):
        body["include"] = [_ENCRYPTED]
    body.update(_write_settings(conversation.settings, losses))
    if conversation.is_stream:
        body["stream"] = True
    body["store"] = False
    return body


def outline(body: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the messages of a request as :func:`router.text.read` takes them, unchecked beyond their outer form.

    Raises
    ------
    InvalidRequest
        The input is neither a string nor a list of objects.
    """
    messages: list[dict[str, object]] = []
    if isinstance(body.get("instructions"), str):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    if given is None:  # what is kept at a provider may stand in its place
        return messages
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise fields.wrong("input", given, "a string or a list of items")
    for i, item in enumerate(given):
        if not isinstance(item, dict):
            raise fields.wrong(f"input[{i}]", item, "an object")
        if "role" in item:
            messages.append({"role": item["role"], "content": item.get("content")})
        elif "output" in item:
            messages.append({"role": "tool", "content": item["output"]})
        elif item.get("type") != "reasoning":
            messages.append({"role": "assistant", "content": None, "tool_calls": item})
    return messages


def count_extra(body: Mapping[str, object]) -> int:
    """Count the characters of tools and of the form of the answer, which a provider reads besides the messages."""
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    schema = form.get("schema") if isinstance(form, dict) else None
    try:
        tools = [tool for tool, _ in offered(body)]
        return sum(len(orjson.dumps(value)) for value in (tools, schema) if value)
    except orjson.JSONEncodeError:
        raise InvalidRequest("the body nests objects or lists too deeply", code="invalid_json") from None


def _sort_out(body: Mapping[str, object], losses: Losses) -> None:
    """Tell or refuse every field that the neutral form has no place for."""
    if body.get("previous_response_id") is not None:
        raise InvalidRequest(
            "previous_response_id is unknown here: send the items of the conversation instead",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    for name, value in body.items():
        if value is None or name in _READ or _PLAIN.get(name) == value:
            continue
        if name in _REFUSED:
            if value:
                raise losses.refuse(name, _REFUSED[name])
        elif name in _HINTS:
            losses.hint(name)
        else:
            losses.dropped(name)
    for name in fields.optional(body, "include", list, "a list") or []:
        if name == _LOGPROBS:
            raise losses.refuse("include", _REFUSED["top_logprobs"])
        if name != _ENCRYPTED:
            losses.hint("include")


def _read_settings(body: Mapping[str, object], text: Mapping[str, object], losses: Losses) -> Settings:
    reasoning = fields.optional(body, "reasoning", dict, "an object") or {}
    effort = fields.optional(reasoning, "effort", str, "a string", "reasoning.")
    if effort is not None and effort not in EFFORTS:
        raise fields.wrong("reasoning.effort", effort, f"one of {', '.join(EFFORTS)}")
    summary = reasoning.get("summary") or reasoning.get("generate_summary")
    if summary not in (None, "auto", "none"):
        losses.changed("reasoning.summary")
    _tell_rest(reasoning, "reasoning", {"effort", "summary", "generate_summary"}, losses)
    _tell_rest(text, "text", {"format", "verbosity"}, losses)
    return Settings(
        max_output_tokens=fields.positive(body, "max_output_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        frequency_penalty=fields.number(body, "frequency_penalty"),
        presence_penalty=fields.number(body, "presence_penalty"),
        effort=effort,
        wants_reasoning=None if summary is None else summary != "none",
        is_parallel=fields.optional(body, "parallel_tool_calls", bool, "true or false"),
        service_tier=fields.optional(body, "service_tier", str, "a string"),
        user=fields.optional(body, "safety_identifier", str, "a string")
        or fields.optional(body, "user", str, "a string"),
        verbosity=fields.optional(text, "verbosity", str, "a string", "text."),
        cache_key=fields.optional(body, "prompt_cache_key", str, "a string"),
    )


def _tell_rest(given: Mapping[str, object], at: str, known: set[str], losses: Losses) -> None:
    for name, value in given.items():
        if name not in known and value is not None and _PLAIN.get(f"{at}.{name}") != value:
            losses.dropped(f"{at}.{name}")


def _read_format(text: Mapping[str, object]) -> OutputFormat | None:
    form = fields.optional(text, "format", dict, "an object", "text.") or {}
    kind = form.get("type")
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        raise fields.wrong("text.format.type", kind, "text, json_object or json_schema")
    at = "text.format."
    schema = fields.optional(form, "schema", dict, "an object", at)
    if schema is None:
        raise fields.wrong("text.format.schema", None, "a JSON Schema")
    return OutputFormat(
        schema,
        fields.optional(form, "name", str, "a string", at) or "output",
        fields.optional(form, "description", str, "a string", at),
        fields.optional(form, "strict", bool, "true or false", at),
    )


def _has_state(messages: tuple[Message, ...]) -> bool:
    parts = (part for message in messages for part in message.parts)
    return any(isinstance(part, Reasoning) and part.state is not None for part in parts)


def _write_text(conversation: Conversation) -> dict[str, object]:
    written: dict[str, object] = {}
    output = conversation.output
    if output is not None and output.schema is None:
        written["format"] = {"type": "json_object"}
    elif output is not None:
        form: dict[str, object] = {"type": "json_schema", "name": output.name, "schema": output.schema}
        if output.description is not None:
            form["description"] = output.description
        if output.is_strict is not None:
            form["strict"] = output.is_strict
        written["format"] = form
    if conversation.settings.verbosity is not None:
        written["verbosity"] = conversation.settings.verbosity
    return written


def _write_reasoning(settings: Settings, losses: Losses) -> dict[str, object]:
    """Write how much to think, and whether to tell of it; without thoughts there is nothing to tell."""
    effort = settings.effort
    if settings.thinking_budget_tokens is not None:
        if effort is None:
            effort = effort_of_budget(settings.thinking_budget_tokens)
            losses.changed("thinking_budget")
        else:
            losses.hint("thinking_budget")
    written: dict[str, object] = {} if effort is None else {"effort": effort}
    if settings.wants_reasoning and effort != "none":
        written["summary"] = "auto"
    return written


def _write_settings(settings: Settings, losses: Losses) -> dict[str, object]:
    for name in ("top_k", "seed", "frequency_penalty", "presence_penalty", "stop"):
        if getattr(settings, name) not in (None, ()):
            losses.dropped(name)
    limit = settings.max_output_tokens
    if limit is not None and limit < _MIN_OUTPUT_TOKENS:
        losses.changed("max_output_tokens")
        limit = _MIN_OUTPUT_TOKENS
    tier = _TIERS.get(settings.service_tier or "")
    if tier is None and settings.service_tier is not None:
        losses.dropped("service_tier")
    written = {
        "max_output_tokens": limit,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "service_tier": tier,
        "safety_identifier": _identifier(settings.user, "user", losses),
        "prompt_cache_key": _identifier(settings.cache_key, "prompt_cache_key", losses),
    }
    return {name: value for name, value in written.items() if value is not None}


def _identifier(value: str | None, name: str, losses: Losses) -> str | None:
    if value is None or len(value) <= _MAX_IDENTIFIER_CHARACTERS:
        return value
    losses.hint(name)
    return None
