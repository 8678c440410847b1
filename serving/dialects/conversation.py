"""A request in the neutral form: what every dialect can be read into and written from.

Used only where a request is translated; a request that stays in its dialect is passed on as it came. Values are
frozen, and hold what the client wrote: nothing is cut, merged or decoded here. ``None`` is "not said", never a default.

Entry point: :class:`Conversation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant"]
#: How much to think, from least to most; what a provider lacks becomes the nearest lower one.
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Text:
    """Words.

    Parameters
    ----------
    text : str
        Not empty, except where a client sent it so.
    cache_ttl : str or None
        The client wants the provider to cache everything up to and with this part: "5m", "1h", or "" for whatever
        is usual; None does not ask.
    """

    text: str
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image: ``data`` (base64) of ``media_type``, or ``url``; exactly one of the two. ``detail`` as in Chat."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    detail: str | None = None
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A document: ``data`` (base64) of ``media_type``, or ``url``, or plain ``text``; exactly one of the three."""

    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    text: str | None = None
    name: str | None = None
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound: base64 ``data`` in a ``format`` ("wav", "mp3")."""

    format: str
    data: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Words by which a model refused, where a dialect tells them from others."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a model thought.

    Parameters
    ----------
    text : str
        "" where only the opaque state is known.
    is_summary : bool
        Whether the text sums the thoughts up (OpenAI) instead of being them.
    state : str or None
        Opaque: a signature or encrypted content, byte for byte as its maker made it.
    is_redacted : bool
        The state is all there is, and is Anthropic's ``redacted_thinking``.
    """

    text: str = ""
    is_summary: bool = False
    state: str | None = None
    is_redacted: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the client's tools, by a model.

    Parameters
    ----------
    id : str
        What the result refers to; never empty (readers make one up where a provider gave none).
    name : str
        Of the tool, without its namespace.
    arguments : str
        JSON text of an object, "" counting as ``{}``; of a custom tool, the raw input.
    is_custom : bool
        A free-form tool of OpenAI's.
    namespace : str or None
        The namespace of OpenAI's the tool is in.
    state : str or None
        Opaque, as for :class:`Reasoning`: Gemini's ``thoughtSignature`` of this call.
    """

    id: str
    name: str
    arguments: str = ""
    is_custom: bool = False
    namespace: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave. Stands in a user message; ``parts`` are texts, images and files."""

    call_id: str
    parts: tuple[Text | Image | File, ...] = ()
    is_error: bool = False
    is_custom: bool = False
    cache_ttl: str | None = None


Part: TypeAlias = Text | Image | File | Audio | Refusal | Reasoning | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. System messages hold texts only; calls and reasoning stand in assistant, results in user messages.

    The results of one assistant turn are one user message, in the order of the client; what else the user said
    follows in a message of its own, or in the same one after the results. Developer messages are system messages.
    """

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool the model may call.

    Parameters
    ----------
    name : str
    description : str or None
    schema : Mapping or None
        JSON Schema of the arguments; None of a custom tool, or where none was given.
    is_strict : bool or None
    is_custom : bool
        Takes free-form text instead of JSON.
    format : Mapping or None
        Of a custom tool: what its input must look like, as in the Responses dialect (``{"type": "grammar", …}``).
    namespace : str or None
    cache_ttl : str or None
        As for :class:`Text`.
    """

    name: str
    description: str | None = None
    schema: Mapping[str, object] | None = None
    is_strict: bool | None = None
    is_custom: bool = False
    format: Mapping[str, object] | None = None
    namespace: str | None = None
    cache_ttl: str | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools may or must be called.

    Parameters
    ----------
    mode : {'auto', 'none', 'required'}
    names : tuple of str
        Only these (by bare name); empty is all. ``required`` with one name is a named tool.
    """

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Structured output: any JSON object where ``schema`` is None, else one that follows it."""

    schema: Mapping[str, object] | None = None
    name: str = "output"
    description: str | None = None
    is_strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How to answer. Everything None is left to the provider.

    Parameters
    ----------
    max_output_tokens : int or None
        Thoughts included.
    temperature, top_p : float or None
    top_k : int or None
    frequency_penalty, presence_penalty : float or None
    seed : int or None
    stop : tuple of str
    effort : str or None
        One of :data:`EFFORTS`.
    thinking_budget_tokens : int or None
        Tokens of thought allowed; 0 is none, -1 as many as the model likes.
    wants_reasoning : bool or None
        Whether the client wants to see thoughts, or their summary.
    is_parallel : bool or None
        Whether several tools may be called at once.
    service_tier, user, verbosity, cache_key : str or None
        As Chat's ``service_tier``, ``user`` or ``safety_identifier``, ``verbosity`` and ``prompt_cache_key``.
    """

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    effort: str | None = None
    thinking_budget_tokens: int | None = None
    wants_reasoning: bool | None = None
    is_parallel: bool | None = None
    service_tier: str | None = None
    user: str | None = None
    verbosity: str | None = None
    cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole request.

    Parameters
    ----------
    messages : tuple of Message
        System messages where they stood; those at the beginning are the system prompt.
    tools : tuple of Tool
    tool_choice : ToolChoice or None
    output : OutputFormat or None
        None is plain text.
    settings : Settings
    is_stream : bool
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    output: OutputFormat | None = None
    settings: Settings = field(default_factory=Settings)
    is_stream: bool = False
