r"""An answer in the neutral form: whole, or as the events of a stream.

::

    stream  =  Began  block*  (Finished | Failed)         UsageSeen may stand anywhere between; the last one counts
    block   =  Opened  Delta*  Closed                     one block at a time, never interleaved

Readers of every dialect give exactly this, whatever their provider does (interleaved tool calls wait until the
block before them is closed); writers of every dialect rely on it. A stream that stops without ``Finished`` or
``Failed`` is broken; whoever reads the network says so. Entry points: :class:`Answer`, :class:`Collector`,
:func:`events_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from router.pricing import Usage
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall

Kind: TypeAlias = Literal["text", "refusal", "reasoning", "call"]
#: Why an answer ended. ``paused``: a provider's own tool wants another turn. ``filtered``: by a content filter or
#: refused as a whole. ``context_full``: the context window, not the caller's limit, ended it.
Reason: TypeAlias = Literal["stop", "stop_sequence", "length", "context_full", "tool_calls", "filtered", "paused"]


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of some words of the answer."""

    url: str
    title: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """The provider answers. ``id``, ``model`` and ``created_unix_s`` are its own words; empty where it gave none."""

    id: str = ""
    model: str = ""
    created_unix_s: int | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A block begins. ``id``, ``name``, ``is_custom`` and ``namespace`` are of calls, as in :class:`ToolCall`."""

    kind: Kind
    id: str = ""
    name: str = ""
    is_custom: bool = False
    namespace: str | None = None
    is_summary: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the open block: words, thoughts, or JSON text of arguments. Not empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The open block ends. ``state`` is opaque, of reasoning and calls; ``citations`` are of text."""

    state: str | None = None
    is_redacted: bool = False
    citations: tuple[Citation, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageSeen:
    """The provider's count so far; each replaces the one before."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole. ``explanation`` is why a provider refused, where it says so."""

    reason: Reason
    stop_sequence: str | None = None
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The provider says that it failed. ``message`` is its words; ``code`` and ``kind`` its machine-readable ones."""

    message: str
    code: str | None = None
    kind: str | None = None


Event: TypeAlias = Began | Opened | Delta | Closed | UsageSeen | Finished | Failed


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Parameters
    ----------
    parts : tuple of Part
        Texts, refusals, reasoning and calls, in the order the model made them.
    finished : Finished
    usage : Usage
        Unknown counts are None.
    began : Began
    citations : tuple of (int, Citation)
        Index into ``parts``, and a source of that text.
    """

    parts: tuple[Part, ...]
    finished: Finished
    usage: Usage = field(default_factory=Usage)
    began: Began = field(default_factory=Began)
    citations: tuple[tuple[int, Citation], ...] = ()


class Collector:
    """Put the events of a stream together into an answer.

    Attributes
    ----------
    usage : Usage
    finished : Finished or None
        None while the stream goes on.
    failed : Failed or None
    """

    __slots__ = ("_began", "_citations", "_open", "_parts", "_text", "failed", "finished", "usage")

    def __init__(self) -> None:
        self.usage = Usage()
        self.finished: Finished | None = None
        self.failed: Failed | None = None
        self._began = Began()
        self._parts: list[Part] = []
        self._citations: list[tuple[int, Citation]] = []
        self._open: Opened | None = None
        self._text: list[str] = []

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Delta():
                self._text.append(event.text)
            case Opened():
                self._open = event
                self._text = []
            case Closed():
                self._close(event)
            case UsageSeen():
                self.usage = event.usage
            case Began():
                self._began = event
            case Finished():
                self.finished = event
            case Failed():
                self.failed = event

    def answer(self) -> Answer:
        """Return the answer; only once :attr:`finished` is known."""
        assert self.finished is not None, "the stream has not finished"
        return Answer(tuple(self._parts), self.finished, self.usage, self._began, tuple(self._citations))

    def _close(self, closed: Closed) -> None:
        opened, self._open = self._open, None
        assert opened is not None, "a block is closed that is not open"
        text = "".join(self._text)
        if closed.citations:
            self._citations.extend((len(self._parts), citation) for citation in closed.citations)
        self._parts.append(_part_of(opened, text, closed))


def _part_of(opened: Opened, text: str, closed: Closed) -> Part:
    if opened.kind == "text":
        return Text(text)
    if opened.kind == "refusal":
        return Refusal(text)
    if opened.kind == "reasoning":
        return Reasoning(text, opened.is_summary, closed.state, closed.is_redacted)
    return ToolCall(opened.id, opened.name, text, opened.is_custom, opened.namespace, closed.state)


def events_of(answer: Answer, n_characters: int = 0) -> Iterator[Event]:
    """Yield the events whose collection is this answer.

    Parameters
    ----------
    answer : Answer
    n_characters : int, default=0
        Longest text of one delta; 0 does not cut.
    """
    yield answer.began
    for i, part in enumerate(answer.parts):
        yield from _block_of(part, tuple(c for at, c in answer.citations if at == i), n_characters)
    yield UsageSeen(answer.usage)
    yield answer.finished


def _block_of(part: Part, citations: tuple[Citation, ...], n_characters: int) -> Iterator[Event]:
    match part:
        case Text():
            opened, text, closed = Opened("text"), part.text, Closed(citations=citations)
        case Refusal():
            opened, text, closed = Opened("refusal"), part.text, Closed()
        case Reasoning():
            opened = Opened("reasoning", is_summary=part.is_summary)
            text, closed = part.text, Closed(part.state, part.is_redacted)
        case ToolCall():
            opened = Opened("call", part.id, part.name, part.is_custom, part.namespace)
            text, closed = part.arguments, Closed(part.state)
        case _:
            raise AssertionError(f"no answer holds {type(part).__name__}")
    yield opened
    step = n_characters or max(1, len(text))
    for start in range(0, len(text), step):
        yield Delta(text[start : start + step])
    yield closed
