"""Chat Completions requests: a body into the neutral form. Writing one is :mod:`serving.dialects.chat.body`.

What has no place in the neutral form is told or refused by :data:`_HINTS`, :data:`_REFUSED` and the rule that any
other unknown field is dropped and told. Entry points: :func:`read_request`, :func:`read_settings`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import orjson

from serving import fields
from serving.dialects.chat.answer import state_of
from serving.dialects.chat.tools import cache_ttl, read_choice, read_tools, string
from serving.dialects.conversation import (
    EFFORTS,
    Audio,
    Conversation,
    File,
    Image,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Role,
    Settings,
    Text,
    ToolCall,
    ToolResult,
)
from serving.dialects.losses import Losses
from serving.errors import InvalidRequest

_READ = frozenset(
    {"model", "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
     "verbosity", "max_completion_tokens", "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty",
     "presence_penalty", "seed", "stop", "stream", "prompt_cache_key", "user", "safety_identifier", "service_tier",
     "functions", "function_call", "turnout", "n", "logprobs", "top_logprobs", "modalities"}
)  # fmt: skip
_HINTS = frozenset(
    {"metadata", "store", "stream_options", "prediction", "prompt_cache_options", "prompt_cache_retention"}
)
_REFUSED = {
    "audio": "spoken answers cannot be translated for this candidate",
    "web_search_options": "the provider's own web search cannot be translated for this candidate",
}
#: Of a message; ``name`` and ``annotations`` mean nothing to a model.
_READ_OF_A_MESSAGE = frozenset(
    {"role", "content", "tool_calls", "function_call", "tool_call_id", "refusal", "audio", "reasoning_content",
     "reasoning"}
)  # fmt: skip
_HINTS_OF_A_MESSAGE = frozenset({"name", "annotations"})
_PARTS_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    "system": ("text",),
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text", "image_url", "file"),
}
_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_request(body: Mapping[str, object], losses: Losses) -> Conversation:
    """Read a whole request.

    Raises
    ------
    InvalidRequest
        A field cannot be, or means something that no other dialect can say; names it.
    """
    _sort_out(body, losses)
    return Conversation(
        messages=tuple(_joined(_messages(body, losses))),
        tools=read_tools(body, losses),
        tool_choice=read_choice(body, losses),
        output=_output(body),
        settings=read_settings(body),
        is_stream=body.get("stream") is True,
    )


def read_settings(body: Mapping[str, object]) -> Settings:
    """Read what a body says of how to answer, and nothing else of it."""
    effort = fields.optional(body, "reasoning_effort", str, "a string")
    if effort is not None and effort not in EFFORTS:
        raise fields.wrong("reasoning_effort", effort, f"one of {', '.join(EFFORTS)}")
    return Settings(
        max_output_tokens=fields.positive(body, "max_completion_tokens") or fields.positive(body, "max_tokens"),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.positive(body, "top_k"),
        frequency_penalty=fields.number(body, "frequency_penalty"),
        presence_penalty=fields.number(body, "presence_penalty"),
        seed=fields.optional(body, "seed", int, "a whole number"),
        stop=_stop(body),
        effort=effort,
        is_parallel=fields.optional(body, "parallel_tool_calls", bool, "true or false"),
        service_tier=fields.optional(body, "service_tier", str, "a string"),
        user=fields.optional(body, "safety_identifier", str, "a string")
        or fields.optional(body, "user", str, "a string"),
        verbosity=fields.optional(body, "verbosity", str, "a string"),
        cache_key=fields.optional(body, "prompt_cache_key", str, "a string"),
    )


def _sort_out(body: Mapping[str, object], losses: Losses) -> None:
    """Tell or refuse every field that the neutral form has no place for."""
    n_choices = fields.positive(body, "n") or 1
    if n_choices > 1:
        raise losses.refuse("n", "several answers at once cannot be translated for this candidate")
    for name in ("logprobs", "top_logprobs"):
        if body.get(name):
            raise losses.refuse(name, "log probabilities are not available from this candidate")
    modalities = body.get("modalities")
    if isinstance(modalities, list) and any(kind != "text" for kind in modalities):
        raise losses.refuse("modalities", "only text can be translated for this candidate")
    for name, value in body.items():
        if value is None or name in _READ:
            continue
        if name in _REFUSED:
            raise losses.refuse(name, _REFUSED[name])
        if name in _HINTS:
            losses.hint(name)
        else:
            losses.dropped(name)


def _messages(body: Mapping[str, object], losses: Losses) -> Iterator[Message]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", messages, "a list of at least one message")
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str):
            raise fields.wrong(f"{at}.role", role, "system, developer, user, assistant or tool")
        _sort_out_message(message, at, losses)
        if role in ("tool", "function"):
            yield Message("user", (_result(message, at, is_legacy=role == "function"),))
        elif role == "assistant":
            yield Message("assistant", tuple(_said(message, at, losses)))
        elif role in _ROLES:
            yield Message(_ROLES[role], tuple(_content(message.get("content"), f"{at}.content", _ROLES[role])))
        else:
            raise fields.wrong(f"{at}.role", role, "system, developer, user, assistant or tool")


def _sort_out_message(message: Mapping[str, object], at: str, losses: Losses) -> None:
    for name, value in message.items():
        if name in _READ_OF_A_MESSAGE or not value:
            continue
        if name in _HINTS_OF_A_MESSAGE:
            losses.hint(f"{at}.{name}")
        else:
            losses.dropped(f"{at}.{name}")


def _joined(messages: Iterator[Message]) -> Iterator[Message]:
    """Join the results of one assistant turn, which Chat sends as a message each."""
    held: Message | None = None
    for message in messages:
        is_results = message.role == "user" and bool(message.parts) and isinstance(message.parts[0], ToolResult)
        if held is not None and is_results:
            held = Message("user", (*held.parts, *message.parts))
            continue
        if held is not None:
            yield held
            held = None
        if is_results:
            held = message
        else:
            yield message
    if held is not None:
        yield held


def _said(message: Mapping[str, object], at: str, losses: Losses) -> Iterator[Part]:
    """Yield the parts of one assistant message."""
    if message.get("audio") is not None:
        raise losses.refuse(f"{at}.audio", "spoken answers cannot be translated for this candidate")
    for name in ("reasoning_content", "reasoning"):
        thought = message.get(name)
        if isinstance(thought, str) and thought:
            yield Reasoning(thought)
            break
    yield from _content(message.get("content"), f"{at}.content", "assistant")
    refusal = fields.optional(message, "refusal", str, "a string", f"{at}.")
    if refusal:
        yield Refusal(refusal)
    calls = fields.optional(message, "tool_calls", list, "a list", f"{at}.") or []
    for j, call in enumerate(calls):
        yield _call(call, f"{at}.tool_calls[{j}]")
    legacy = fields.optional(message, "function_call", dict, "an object", f"{at}.")
    if legacy:
        name = string(legacy, "name", f"{at}.function_call")
        yield ToolCall(f"call_{name}", name, string(legacy, "arguments", f"{at}.function_call"))


def _call(call: object, at: str) -> ToolCall:
    if not isinstance(call, dict):
        raise fields.wrong(at, call, "an object")
    call_id = string(call, "id", at)
    if call.get("type") == "custom":
        custom = fields.optional(call, "custom", dict, "an object", f"{at}.") or {}
        return ToolCall(
            call_id, string(custom, "name", f"{at}.custom"), string(custom, "input", f"{at}.custom"), is_custom=True
        )
    function = fields.optional(call, "function", dict, "an object", f"{at}.") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict):  # some clients send the object itself
        arguments = _json(arguments, f"{at}.function.arguments")
    if not isinstance(arguments, str | None):
        raise fields.wrong(f"{at}.function.arguments", arguments, "a string of JSON")
    return ToolCall(call_id, string(function, "name", f"{at}.function"), arguments or "", state=state_of(call))


def _json(value: Mapping[str, object], at: str) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise InvalidRequest(f"{at} nests objects or lists too deeply", param=at) from None


def _result(message: Mapping[str, object], at: str, *, is_legacy: bool) -> ToolResult:
    call_id = f"call_{string(message, 'name', at)}" if is_legacy else string(message, "tool_call_id", at)
    parts = tuple(_content(message.get("content"), f"{at}.content", "tool"))
    return ToolResult(call_id, tuple(part for part in parts if isinstance(part, Text | Image | File)))


def _content(content: object, at: str, role: str) -> Iterator[Part]:
    if content is None:
        return
    if isinstance(content, str):
        # An assistant's empty text beside its calls says nothing.
        if content or role != "assistant":
            yield Text(content)
        return
    if not isinstance(content, list):
        raise fields.wrong(at, content, "a string or a list of parts")
    for j, part in enumerate(content):
        yield _part(part, f"{at}[{j}]", role)


def _part(part: object, at: str, role: str) -> Part:
    if not isinstance(part, dict):
        raise fields.wrong(at, part, "an object")
    kind, ttl = part.get("type"), cache_ttl(part)
    if kind not in _PARTS_OF_ROLE[role]:
        raise fields.wrong(f"{at}.type", kind, " or ".join(_PARTS_OF_ROLE[role]))
    if kind == "text":
        return Text(string(part, "text", at), ttl)
    if kind == "refusal":
        return Refusal(string(part, "refusal", at))
    if kind == "image_url":
        return _image(part.get("image_url"), at, ttl)
    if kind == "input_audio":
        audio = fields.optional(part, "input_audio", dict, "an object", f"{at}.") or {}
        return Audio(string(audio, "format", f"{at}.input_audio"), string(audio, "data", f"{at}.input_audio"))
    return _file(part, at, ttl)


def _image(image: object, at: str, ttl: str | None) -> Image:
    found = {"url": image} if isinstance(image, str) else image
    if not isinstance(found, dict):
        raise fields.wrong(f"{at}.image_url", image, "an object with a url")
    url, detail = string(found, "url", f"{at}.image_url"), found.get("detail")
    detail = detail if isinstance(detail, str) else None
    inside = data_of_uri(url)
    if inside is None and url.startswith("data:"):
        raise fields.wrong(f"{at}.image_url.url", url, "an address, or a data: URI in base64")
    if inside is None:
        return Image(url=url, detail=detail, cache_ttl=ttl)
    return Image(inside[0], inside[1], detail=detail, cache_ttl=ttl)


def _file(part: Mapping[str, object], at: str, ttl: str | None) -> File:
    file = fields.optional(part, "file", dict, "an object", f"{at}.") or {}
    if file.get("file_id") is not None:
        raise Losses().refuse(f"{at}.file.file_id", "a file kept at one provider cannot be read by another: send it")
    data = string(file, "file_data", f"{at}.file")
    inside = data_of_uri(data) or ("application/pdf", data)
    return File(
        inside[0], inside[1], name=fields.optional(file, "filename", str, "a string", f"{at}.file."), cache_ttl=ttl
    )


def data_of_uri(url: str) -> tuple[str, str] | None:
    """Split a base64 ``data:`` URI into media type and data; None of any other URL."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        return None
    return head.partition(";")[0] or "application/octet-stream", data


def _output(body: Mapping[str, object]) -> OutputFormat | None:
    wanted = fields.optional(body, "response_format", dict, "an object") or {}
    kind = wanted.get("type")
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return OutputFormat()
    if kind != "json_schema":
        raise fields.wrong("response_format.type", kind, "text, json_object or json_schema")
    at = "response_format.json_schema."
    form = fields.optional(wanted, "json_schema", dict, "an object", "response_format.") or {}
    return OutputFormat(
        fields.optional(form, "schema", dict, "an object", at) or {},
        fields.optional(form, "name", str, "a string", at) or "output",
        fields.optional(form, "description", str, "a string", at),
        fields.optional(form, "strict", bool, "true or false", at),
    )


def _stop(body: Mapping[str, object]) -> tuple[str, ...]:
    stop = body.get("stop")
    listed: Sequence[object] = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    if (stop is not None and not isinstance(stop, str | list)) or not all(isinstance(s, str) for s in listed):
        raise fields.wrong("stop", stop, "a string or a list of strings")
    return tuple(str(s) for s in listed)
