"""OpenAI's custom tools and namespaces, for providers that know only functions with plain names.

A custom tool becomes a function with one string, ``input``; a tool in a namespace becomes ``namespace__name``; a name
that others would not take is made one they do. Answers get the tools back as the client knows them. Entry point:
:class:`Emulation`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TypeAlias

import orjson

from serving.dialects.answer import Answer, Closed, Delta, Event, Opened
from serving.dialects.conversation import Conversation, Message, Part, Tool, ToolCall, ToolChoice, ToolResult
from serving.dialects.losses import Losses

_MOST_CHARACTERS = 64
_LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")
_SEPARATOR = "__"


@dataclass(frozen=True, slots=True)
class _Known:
    """A tool as the client knows it."""

    name: str
    namespace: str | None = None
    is_custom: bool = False

    @property
    def is_plain(self) -> bool:
        return self.namespace is None and not self.is_custom and _LEGAL.fullmatch(self.name) is not None


_Names: TypeAlias = Mapping[_Known, str]


@dataclass(slots=True)
class Emulation:
    """What has to be undone in the answer to one request.

    Parameters
    ----------
    known : Mapping of str to object
        By the name the provider is told, the tool as the client knows it; empty where nothing is emulated.
    """

    known: Mapping[str, _Known] = field(default_factory=dict)
    #: Pieces of the input of the custom call that is open in a stream.
    _input: list[str] | None = field(default=None, init=False)

    @classmethod
    def of(cls, conversation: Conversation, losses: Losses) -> tuple[Emulation, Conversation]:
        """Write a conversation for a provider that knows only functions.

        Parameters
        ----------
        conversation : Conversation
        losses : Losses

        Returns
        -------
        tuple of (Emulation, Conversation)
            The conversation is the very same where nothing needs emulation.
        """
        if _is_plain(conversation):
            return cls(), conversation
        tools = [_tool_known(tool) for tool in conversation.tools]
        calls = [
            _call_known(part)
            for message in conversation.messages
            for part in message.parts
            if isinstance(part, ToolCall)
        ]
        names = _names((*tools, *calls))
        for i, known in enumerate(tools):
            if not known.is_plain:
                losses.emulated(f"tools[{i}]")
        plain = replace(
            conversation,
            messages=tuple(_plain_message(message, names) for message in conversation.messages),
            tools=tuple(_plain_tool(tool, names[known]) for tool, known in zip(conversation.tools, tools, strict=True)),
            tool_choice=_plain_choice(conversation.tool_choice, tools, names),
        )
        return cls({name: known for known, name in names.items() if not _is_same(known, name)}), plain

    @property
    def is_idle(self) -> bool:
        """Whether answers pass as they are."""
        return not self.known

    def restore(self, event: Event) -> Sequence[Event]:
        """Take the next event of one stream and return what the client shall have of it.

        The input of a custom call is held back until it is whole, since it comes wrapped in JSON.
        """
        if not self.known:
            return (event,)
        match event:
            case Opened():
                known = self.known.get(event.name) if event.kind == "call" else None
                self._input = [] if known is not None and known.is_custom else None
                return (event if known is None else _renamed(event, known),)
            case Delta() if self._input is not None:
                self._input.append(event.text)
                return ()
            case Closed() if self._input is not None:
                text, self._input = _unwrapped("".join(self._input)), None
                return (Delta(text), event) if text else (event,)
        return (event,)

    def restored(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the events of one whole stream as the client shall have them."""
        for event in events:
            yield from self.restore(event)

    def restore_answer(self, answer: Answer) -> Answer:
        """Return a whole answer as the client shall have it."""
        if not self.known:
            return answer
        return replace(answer, parts=tuple(self._restored_part(part) for part in answer.parts))

    def _restored_part(self, part: Part) -> Part:
        known = self.known.get(part.name) if isinstance(part, ToolCall) else None
        if known is None or not isinstance(part, ToolCall):
            return part
        arguments = _unwrapped(part.arguments) if known.is_custom else part.arguments
        return replace(part, name=known.name, arguments=arguments, is_custom=known.is_custom, namespace=known.namespace)


def _is_plain(conversation: Conversation) -> bool:
    return all(_tool_known(tool).is_plain for tool in conversation.tools) and not any(
        (isinstance(part, ToolResult) and part.is_custom)
        or (isinstance(part, ToolCall) and not _call_known(part).is_plain)
        for message in conversation.messages
        for part in message.parts
    )


def _tool_known(tool: Tool) -> _Known:
    return _Known(tool.name, tool.namespace, tool.is_custom)


def _call_known(call: ToolCall) -> _Known:
    return _Known(call.name, call.namespace, call.is_custom)


def _is_same(known: _Known, name: str) -> bool:
    return known.is_plain and known.name == name


def _names(knowns: Iterable[_Known]) -> _Names:
    """Give every tool a name of its own: plain ones keep theirs, whatever others would like to be called."""
    ordered = sorted(dict.fromkeys(knowns), key=lambda known: (not known.is_plain, known.namespace is not None))
    names: dict[_Known, str] = {}
    taken: set[str] = set()
    for known in ordered:
        wished = known.name if known.namespace is None else f"{known.namespace}{_SEPARATOR}{known.name}"
        name = wished if _LEGAL.fullmatch(wished) else _hashed(wished, known, 0)
        n_tries = 0
        while name in taken:
            n_tries += 1
            name = _hashed(wished, known, n_tries)
        names[known] = name
        taken.add(name)
    return names


def _hashed(wished: str, known: _Known, n_tries: int) -> str:
    identity = orjson.dumps([known.namespace, known.name, known.is_custom, n_tries])
    suffix = "_" + sha256(identity).hexdigest()[:8]
    return _ILLEGAL.sub("_", wished)[: _MOST_CHARACTERS - len(suffix)] + suffix


def _plain_tool(tool: Tool, name: str) -> Tool:
    if not tool.is_custom:
        return replace(tool, name=name, namespace=None)
    described = _description(tool.format or {})
    text: dict[str, object] = {"type": "string", **({"description": described} if described else {})}
    schema = {"type": "object", "properties": {"input": text}, "required": ["input"], "additionalProperties": False}
    return replace(tool, name=name, namespace=None, schema=schema, is_custom=False, format=None)


def _description(form: Mapping[str, object]) -> str:
    """Say in words what a custom tool's input must look like."""
    definition, syntax = form.get("definition"), form.get("syntax")
    if form.get("type") != "grammar" or not isinstance(definition, str):
        return ""
    kind = {"lark": "this Lark grammar", "regex": "this regular expression"}.get(str(syntax), "this grammar")
    return f"Plain text that matches {kind}:\n{definition}"


def _plain_message(message: Message, names: _Names) -> Message:
    if not any(isinstance(part, ToolCall | ToolResult) for part in message.parts):
        return message
    return replace(message, parts=tuple(_plain_part(part, names) for part in message.parts))


def _plain_part(part: Part, names: _Names) -> Part:
    if isinstance(part, ToolResult):
        return replace(part, is_custom=False)
    if not isinstance(part, ToolCall):
        return part
    arguments = orjson.dumps({"input": part.arguments}).decode() if part.is_custom else part.arguments
    return replace(part, name=names[_call_known(part)], arguments=arguments, is_custom=False, namespace=None)


def _plain_choice(choice: ToolChoice | None, tools: Sequence[_Known], names: _Names) -> ToolChoice | None:
    if choice is None or not choice.names:
        return choice
    meant = (
        name
        for chosen in choice.names
        for name in ([names[known] for known in tools if known.name == chosen] or [chosen])
    )
    return replace(choice, names=tuple(dict.fromkeys(meant)))


def _renamed(opened: Opened, known: _Known) -> Opened:
    return replace(opened, name=known.name, is_custom=known.is_custom, namespace=known.namespace)


def _unwrapped(arguments: str) -> str:
    """Return the input of a custom call; what the model wrote where it is not wrapped as it should be."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get("input") if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments
