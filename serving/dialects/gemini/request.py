"""The body of ``generateContent`` ⇄ a conversation. The model is in the URL; here its name only tells what it can do.

Schemas travel as JSON Schema (``parametersJsonSchema``, ``responseJsonSchema``), so none is converted. Whether an
answer is streamed is in the URL as well. Entry points: :func:`write_request`, :func:`read_request`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from serving.dialects.conversation import Conversation, Message, OutputFormat, Settings, Tool, ToolChoice, ToolResult
from serving.dialects.gemini.contents import read_contents, write_contents
from serving.dialects.gemini.thinking import Thinking, read_thinking, thinking_of, write_thinking
from serving.dialects.losses import Losses
from serving.fields import number, optional, wrong

_MOST_STOPS = 5
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
#: VALIDATED lets the model choose, and holds calls to their schema.
_CHOICES = {
    "AUTO": ToolChoice("auto"),
    "VALIDATED": ToolChoice("auto"),
    "NONE": ToolChoice("none"),
    "ANY": ToolChoice("required"),
}
_TIERS = {
    "default": "standard",
    "standard": "standard",
    "standard_only": "standard",
    "flex": "flex",
    "priority": "priority",
}
#: Field of :class:`Settings`, Gemini's name for it, and what the models that think refuse.
_NUMBERS = (
    ("max_output_tokens", "maxOutputTokens", False),
    ("temperature", "temperature", False),
    ("top_p", "topP", False),
    ("top_k", "topK", False),
    ("seed", "seed", False),
    ("frequency_penalty", "frequencyPenalty", True),
    ("presence_penalty", "presencePenalty", True),
)
_READ = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "serviceTier", "model"})
_READ_CONFIG = frozenset(name for _, name, _ in _NUMBERS) | {
    *("stopSequences", "responseMimeType", "responseJsonSchema", "responseSchema", "thinkingConfig", "candidateCount"),
}

Json: TypeAlias = dict[str, object]


def write_request(conversation: Conversation, model: str, losses: Losses) -> Json:
    """Write the body for a provider.

    Parameters
    ----------
    conversation : Conversation
        Without custom tools and namespaces.
    model : str
        The provider's name for the candidate.
    losses : Losses

    Returns
    -------
    dict

    Raises
    ------
    InvalidRequest
        Something cannot be said to Gemini, and the request would mean something else without it.
    """
    thinking = thinking_of(model)
    is_signed = thinking is not None and thinking.is_signed
    system, contents = write_contents(conversation.messages, is_signed, losses)
    body: Json = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if conversation.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in conversation.tools]}]
        if calling := _calling(conversation, losses):
            body["toolConfig"] = {"functionCallingConfig": calling}
    if config := _config(conversation, thinking, losses):
        body["generationConfig"] = config
    if tier := _tier(conversation.settings, losses):
        body["serviceTier"] = tier
    _note_unsaid(conversation, losses)
    return body


def read_request(body: Mapping[str, object], losses: Losses) -> Conversation:
    """Read a body; ``is_stream`` is in the URL, and so is never set here.

    Parameters
    ----------
    body : Mapping
    losses : Losses

    Returns
    -------
    Conversation

    Raises
    ------
    InvalidRequest
        A field is missing or cannot be, or has no place in a conversation and yet a meaning.
    """
    config = optional(body, "generationConfig", dict, "an object") or {}
    for key in body.keys() - _READ:
        losses.dropped(key)
    for key in config.keys() - _READ_CONFIG:
        losses.dropped(f"generationConfig.{key}")
    if config.get("candidateCount") not in (None, 1):
        raise losses.refuse("generationConfig.candidateCount", "only one candidate can be asked for")
    calling = optional(
        optional(body, "toolConfig", dict, "an object") or {}, "functionCallingConfig", dict, "an object"
    )
    # With names VALIDATED only stands for AUTO, which takes none.
    is_strict = calling is not None and calling.get("mode") == "VALIDATED" and "allowedFunctionNames" not in calling
    tier = optional(body, "serviceTier", str, "a string")
    return Conversation(
        messages=read_contents(body),
        tools=_read_tools(body, is_strict, losses),
        tool_choice=_read_calling(calling),
        output=_read_output(config),
        settings=replace(_read_settings(config), service_tier="default" if tier == "standard" else tier),
    )


def _declaration(tool: Tool) -> Json:
    assert not tool.is_custom and tool.namespace is None, "custom tools and namespaces are emulated"
    declaration: Json = {"name": tool.name}
    if tool.description is not None:
        declaration["description"] = tool.description
    if tool.schema is not None:
        declaration["parametersJsonSchema"] = tool.schema
    return declaration


def _calling(conversation: Conversation, losses: Losses) -> Json:
    if conversation.settings.is_parallel is False:
        losses.dropped("parallel_tool_calls")
    choice = conversation.tool_choice
    mode = None if choice is None else _MODES[choice.mode]
    is_strict = any(tool.is_strict for tool in conversation.tools)
    if is_strict and mode == "NONE":
        losses.hint("tools[].strict")
    elif is_strict:
        losses.emulated("tools[].strict")
    # Plain AUTO takes no list of names; ANY holds calls to their schema as VALIDATED does.
    if mode in (None, "AUTO") and (is_strict or (choice is not None and choice.names)):
        mode = "VALIDATED"
    calling: Json = {} if mode is None else {"mode": mode}
    if choice is not None and choice.names and mode != "NONE":
        calling["allowedFunctionNames"] = list(choice.names)
    return calling


def _config(conversation: Conversation, thinking: Thinking | None, losses: Losses) -> Json:
    settings = conversation.settings
    config: Json = {}
    for field, name, is_refused in _NUMBERS:
        value = getattr(settings, field)
        if value is None:
            continue
        if is_refused and thinking is not None:
            losses.dropped(field)
        else:
            config[name] = value
    if settings.stop:
        if len(settings.stop) > _MOST_STOPS:
            losses.changed("stop")
        config["stopSequences"] = list(settings.stop[:_MOST_STOPS])
    if (output := conversation.output) is not None:
        config["responseMimeType"] = "application/json"
        if output.schema is not None:
            config["responseJsonSchema"] = output.schema
    if thoughts := write_thinking(settings, thinking, losses):
        config["thinkingConfig"] = thoughts
    return config


def _tier(settings: Settings, losses: Losses) -> str | None:
    tier = settings.service_tier
    if tier is None or tier == "auto":
        return None
    if tier not in _TIERS:
        losses.dropped("service_tier")
    return _TIERS.get(tier)


def _note_unsaid(conversation: Conversation, losses: Losses) -> None:
    settings, output = conversation.settings, conversation.output
    unsaid = {
        "user": settings.user,
        "prompt_cache_key": settings.cache_key,
        "verbosity": settings.verbosity,
        "response_format.json_schema.description": output and output.description,
    }
    for field, value in unsaid.items():
        if value is not None:
            losses.hint(field)
    if any(_wants_cache(message) for message in conversation.messages) or any(
        tool.cache_ttl is not None for tool in conversation.tools
    ):
        losses.dropped("cache_control")


def _wants_cache(message: Message) -> bool:
    inside = (inner for part in message.parts if isinstance(part, ToolResult) for inner in part.parts)
    return any(getattr(part, "cache_ttl", None) is not None for part in (*message.parts, *inside))


def _read_tools(body: Mapping[str, object], is_strict: bool, losses: Losses) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for i, group in enumerate(optional(body, "tools", list, "a list") or []):
        if not isinstance(group, dict):
            raise wrong(f"tools[{i}]", group, "an object")
        if group.keys() - {"functionDeclarations"}:
            raise losses.refuse(f"tools[{i}]", "only function declarations can be translated")
        declarations = optional(group, "functionDeclarations", list, "a list", f"tools[{i}].") or []
        for j, declaration in enumerate(declarations):
            tools.append(_read_declaration(declaration, f"tools[{i}].functionDeclarations[{j}]", is_strict))
    return tuple(tools)


def _read_declaration(declaration: object, at: str, is_strict: bool) -> Tool:
    if not isinstance(declaration, dict):
        raise wrong(at, declaration, "an object")
    name = optional(declaration, "name", str, "a string", f"{at}.")
    if not name:
        raise wrong(f"{at}.name", name or None, "a string")
    given = "parametersJsonSchema" if "parametersJsonSchema" in declaration else "parameters"
    return Tool(
        name,
        optional(declaration, "description", str, "a string", f"{at}."),
        optional(declaration, given, dict, "an object", f"{at}."),
        is_strict or None,
    )


def _read_calling(calling: Mapping[str, object] | None) -> ToolChoice | None:
    at = "toolConfig.functionCallingConfig."
    mode = optional(calling or {}, "mode", str, "a string", at)
    if mode is None:
        return None
    if mode not in _CHOICES:
        raise wrong(f"{at}mode", mode, "one of " + ", ".join(_CHOICES))
    names = optional(calling or {}, "allowedFunctionNames", list, "a list of strings", at) or []
    if not all(isinstance(name, str) for name in names):
        raise wrong(f"{at}allowedFunctionNames", names, "a list of strings")
    return replace(_CHOICES[mode], names=tuple(names))


def _read_output(config: Mapping[str, object]) -> OutputFormat | None:
    at = "generationConfig."
    if optional(config, "responseMimeType", str, "a string", at) != "application/json":
        return None
    given = "responseJsonSchema" if "responseJsonSchema" in config else "responseSchema"
    return OutputFormat(optional(config, given, dict, "an object", at))


def _read_settings(config: Mapping[str, object]) -> Settings:
    at = "generationConfig."
    stop = optional(config, "stopSequences", list, "a list of strings", at) or []
    if not all(isinstance(word, str) for word in stop) or len(stop) > _MOST_STOPS:
        raise wrong(f"{at}stopSequences", stop, f"a list of at most {_MOST_STOPS} strings")
    return replace(
        read_thinking(optional(config, "thinkingConfig", dict, "an object", at) or {}),
        max_output_tokens=_whole(config, "maxOutputTokens"),
        temperature=number(config, "temperature", "generationConfig."),
        top_p=number(config, "topP", "generationConfig."),
        top_k=_whole(config, "topK"),
        frequency_penalty=number(config, "frequencyPenalty", "generationConfig."),
        presence_penalty=number(config, "presencePenalty", "generationConfig."),
        seed=_whole(config, "seed"),
        stop=tuple(stop),
    )


def _whole(config: Mapping[str, object], key: str) -> int | None:
    value = number(config, key, "generationConfig.")
    if value is None or value == int(value):
        return None if value is None else int(value)
    raise wrong(f"generationConfig.{key}", value, "a whole number")
