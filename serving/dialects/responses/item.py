"""One output item of a Responses stream on its way to neutral events. The stream of them is in ``stream``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.dialects.answer import Citation, Closed, Delta, Event, Kind, Opened
from serving.dialects.conversation import Refusal
from serving.dialects.responses.items import read_reasoning
from serving.dialects.responses.marks import unmarked
from serving.dialects.responses.output import CALLS, citation_of, read_call, read_content


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the words of an event belong: the kind of block, and the field that counts parts of that kind.

    There is one object of each, compared as such: it is asked for with every delta.
    """

    kind: Kind
    index: str | None = None
    is_summary: bool = False


TEXT = Place("text", "content_index")
REFUSAL = Place("refusal", "content_index")
SUMMARY = Place("reasoning", "summary_index", True)
THOUGHT = Place("reasoning", "content_index")
CALL = Place("call")
#: Events are these names with ``.delta`` (words in ``delta``) or ``.done`` (all words, in the field named here).
PLACES: Mapping[str, tuple[Place, str]] = {
    "response.output_text": (TEXT, "text"),
    "response.refusal": (REFUSAL, "refusal"),
    "response.reasoning_summary_text": (SUMMARY, "text"),
    "response.reasoning_text": (THOUGHT, "text"),
    "response.reasoning": (THOUGHT, "text"),
    "response.function_call_arguments": (CALL, "arguments"),
    "response.custom_tool_call_input": (CALL, "input"),
}
_KINDS = frozenset({"message", "reasoning", *CALLS})


class ItemReader:
    """What of one item is known, and what of that waits to be given.

    Attributes
    ----------
    events : list of Event
        To be given once it is this item's turn; the reader of the stream takes them.
    is_done : bool
        Nothing more will come.
    is_call : bool
    """

    __slots__ = (
        "_block", "_call_id", "_citations", "_entered", "_has_words", "_held", "_kind", "_said", "events", "is_call",
        "is_done",
    )  # fmt: skip

    def __init__(self, call_id: str) -> None:
        self.events: list[Event] = []
        self.is_done = False
        self.is_call = False
        self._kind: str | None = None
        self._call_id = call_id
        self._block: tuple[Place, int] | None = None
        self._entered: set[tuple[Place, int]] = set()
        self._said: set[tuple[Place, int]] = set()
        self._has_words = False
        self._held: list[str] = []
        self._citations: list[Citation] = []

    def added(self, item: Mapping[str, object]) -> None:
        """Take the item as it is announced: empty, but a call has a name by now, or should have."""
        self._kind = _kind_of(item)
        if self._kind in CALLS and item.get("name"):
            self._open_call(item)
        # What nothing is known of keeps nobody waiting.
        self.is_done = self._kind is not None and self._kind not in _KINDS

    def say(self, place: Place, index: int, words: str) -> None:
        """Take more words."""
        if self.is_done or not self._takes(place):
            return
        if place.kind == "call":
            if words:
                self._said.add((place, 0))
                self._call_with(words)
            return
        self.enter(place, index)
        if not words:
            return
        if place.kind == "reasoning" and self._has_words and (place, index) not in self._said:
            words = f"\n\n{words}"  # the next part of one block
        self._said.add((place, index))
        self._has_words = True
        self.events.append(Delta(words))

    def fill(self, place: Place, index: int, words: str) -> None:
        """Take the words of a part as a whole: they count where none came before."""
        key = (place, 0 if place.kind == "call" else index)
        if key not in self._said and (words or key not in self._entered):
            self.say(place, index, words)

    def enter(self, place: Place, index: int) -> None:
        """Begin a part, closing the block before it; parts of reasoning of one kind are one block."""
        if self.is_done or self._block == (place, index) or not self._takes(place):
            return
        is_same_block = place.kind == "reasoning" and self._block is not None and self._block[0] == place
        if not is_same_block:
            self.close()
            self.events.append(Opened(place.kind, is_summary=place.is_summary))
            self._has_words = False
        self._block = (place, index)
        self._entered.add((place, index))

    def cite(self, annotation: object) -> None:
        """Take a source of the words of the open block."""
        citation = citation_of(annotation)
        if citation is not None:
            self._citations.append(citation)

    def part_done(self, index: int, part: Mapping[str, object]) -> None:
        """Take a part of a message as a whole."""
        for said, citations in read_content({"content": [part]}):
            place = REFUSAL if isinstance(said, Refusal) else TEXT
            if (place, index) in self._entered and self._block != (place, index):
                return  # closed before
            self.fill(place, index, getattr(said, "text", ""))
            self.close(citations=tuple(self._citations) or citations)

    def done(self, item: Mapping[str, object]) -> None:
        """Take the item as a whole, and end it."""
        if self.is_done:
            return
        kind = _kind_of(item)
        if self._kind is not None and kind != self._kind:
            kind = None  # another item, of a provider that counts otherwise
        if kind == "message":
            self._message_done(item.get("content"))
        elif kind == "reasoning":
            self._reasoning_done(item)
        elif kind in CALLS and self._takes(CALL):
            if not self.is_call:
                self._open_call(item)
            self.fill(CALL, 0, read_call(item, self._call_id).arguments)
        self.end()

    def end(self) -> None:
        """End the item with what is known of it."""
        if self.is_done:
            return
        if self._held and not self.is_call:
            self._open_call({"type": "function_call"})
        if self.is_call:
            self.events.append(Closed())
        self.close()
        self.is_done = True

    def close(self, closed: Closed | None = None, citations: tuple[Citation, ...] = ()) -> None:
        """Close the open block, if any."""
        if self._block is not None:
            self.events.append(closed or Closed(citations=citations or tuple(self._citations)))
        self._block = None
        self._citations = []

    def _takes(self, place: Place) -> bool:
        """Say whether words of a kind can be this item's: a call holds nothing else."""
        if self._kind is not None:
            return (self._kind in CALLS) == (place is CALL)
        return not self._entered if place is CALL else not self._held

    def _call_with(self, words: str) -> None:
        if self.is_call:
            self.events.append(Delta(words))
        else:
            self._held.append(words)  # until its name is known

    def _open_call(self, item: Mapping[str, object]) -> None:
        call = read_call(item, self._call_id)
        self.is_call = True
        self.events.append(Opened("call", call.id, call.name, call.is_custom, call.namespace))
        held = "".join(self._held)
        if held:
            self.events.append(Delta(held))

    def _message_done(self, content: object) -> None:
        parts = content if isinstance(content, list) else []
        entered = {index for _, index in self._entered}
        for i, part in enumerate(parts):
            # Providers that count parts otherwise have told all of them; nothing is told twice.
            if isinstance(part, dict) and (i in entered or len(entered) < len(parts)):
                self.part_done(i, part)

    def _reasoning_done(self, item: Mapping[str, object]) -> None:
        if not self._said:
            for thought in read_reasoning(item):
                self.fill(SUMMARY if thought.is_summary else THOUGHT, 0, thought.text)
        encrypted = item.get("encrypted_content")
        if isinstance(encrypted, str) and encrypted:
            if self._block is None:
                self.enter(THOUGHT, 0)
            state, is_redacted, _ = unmarked(encrypted)
            self.close(Closed(state, is_redacted))


def _kind_of(item: Mapping[str, object]) -> str | None:
    kind = item.get("type")
    return kind if isinstance(kind, str) else None
