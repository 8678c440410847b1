r"""Messages streams, both ways.

Reading: blocks are numbered, opened and closed by the provider, one at a time; some compatible servers interleave
them, forget to close them, or begin the message twice. The first block that is not closed is live and given at once;
what belongs to later ones waits in line.

::

                     block_start: in line      block_stop of the live one: the next is live
                         ┌─────┐                    ┌─────┐
    message_start ──▶ ( n blocks in line, the first is live ) ──message_stop──▶ ( finished )
                         └─────┘                    │
               delta: given, or in line             ├──error──▶ ( failed )
                                                    └──the stream ends──▶ nothing: it is broken

Writing: a block of words or thoughts is not begun before there is something in it, since Anthropic refuses empty
text when it comes back, and only the end of thoughts tells whether they are redacted.

::

    Began ──▶ ( between blocks ) ──Opened call, or first Delta: block_start──▶ ( in a block ) ──Delta: block_delta─┐
                    ▲   │                                                        │     ▲───────────────────────────┘
                    └───┼──────────────────────Closed: block_stop────────────────┘
                        ├──Finished: message_delta, message_stop──▶ ( over )
                        └──Failed: error──▶ ( over )

Entry points: :class:`MessagesReader`, :class:`MessagesWriter`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from router.pricing import Usage
from serving.dialects.answer import (
    Began,
    Citation,
    Closed,
    Delta,
    Event,
    Failed,
    Finished,
    Kind,
    Opened,
    UsageSeen,
)
from serving.dialects.arguments import arguments_text
from serving.dialects.dialect import Reply
from serving.dialects.messages.answer import (
    add_usage,
    began_of,
    citation_block,
    citations_of,
    ending,
    envelope,
    finished_of,
    safe_id,
    unique_id,
    usage_of,
    write_usage,
)
from serving.dialects.messages.errors import failure_event, read_error
from serving.errors import UpstreamBroken
from serving.sse import data_of

_KINDS: Mapping[str, Kind] = {
    "text": "text",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "call",
}
#: Kind of block -> where the words it begins with stand; of a call they are an object.
_PLACES: Mapping[Kind, str] = {"text": "text", "reasoning": "thinking"}
#: Type of a delta -> the kind of block it belongs to, and where its words stand.
_WORDS: Mapping[str, tuple[Kind, str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("call", "partial_json"),
}


def parsed(event: bytes) -> dict[str, object] | None:
    """Return the object in an event's data; None where it has none: a comment, or the end that other dialects write.

    Raises
    ------
    UpstreamBroken
        The data is no JSON object.
    """
    # The line before the data says the same again; without it the data is found at once. Lines may end otherwise.
    is_plain = event.startswith(b"event: ") and b"\r" not in event
    bare = event[event.find(b"\n") + 1 :] if is_plain else event
    data = (data_of(bare) or b"").strip()
    if not data or data == b"[DONE]":
        return None
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise UpstreamBroken("the provider sent an event that is not JSON") from None
    if not isinstance(found, dict):
        raise UpstreamBroken("the provider sent an event that is no object")
    return found


class _Block:
    """One block on its way: what of it is known, and what of that was given already."""

    __slots__ = ("citations", "given_whole", "id", "is_closed", "is_opened", "is_redacted", "kind", "name", "pieces",
                 "state")  # fmt: skip

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.id = ""
        self.name = ""
        self.given_whole = ""
        self.pieces: list[str] = []
        self.state: str | None = None
        self.citations: list[Citation] = []
        self.is_redacted = False
        self.is_opened = False
        self.is_closed = False

    def given(self) -> list[Event]:
        """Return what can be given now; words are not begun before there are some."""
        events: list[Event] = []
        if not self.is_opened and (self.pieces or self.kind == "call"):
            self.is_opened = True
            events.append(Opened(self.kind, self.id, self.name))
        if self.pieces:
            self.given_whole = ""
            events += [Delta(piece) for piece in self.pieces]
            self.pieces = []
        return events

    def closed(self) -> list[Event]:
        """Return the rest of it: nothing at all of an empty block."""
        if self.given_whole:
            self.pieces.append(self.given_whole)
        events = self.given()
        if not self.is_opened:
            if self.state is None:
                return []
            events.append(Opened(self.kind))
        return [*events, Closed(self.state, self.is_redacted, tuple(self.citations))]


class MessagesReader:
    """A provider's events in, neutral events out."""

    def __init__(self) -> None:
        self._began: Began | None = None
        self._line: list[_Block] = []
        self._blocks: dict[int | None, _Block | None] = {}
        self._ids: set[str] = set()
        self._usage: dict[str, object] = {}
        self._ending: dict[str, object] = {}
        self._is_over = False

    def read(self, event: bytes) -> Sequence[Event]:
        """Take one whole event of the stream.

        Raises
        ------
        UpstreamBroken
            Its data is no JSON object.
        """
        data = None if self._is_over else parsed(event)
        if data is None:
            return ()
        kind, index = data.get("type"), data.get("index")
        if not isinstance(index, int):
            index = None
        if kind == "error" or isinstance(data.get("error"), dict):
            return self._failed(data)
        if kind == "message_start":
            return self._start(data.get("message"))
        if kind == "content_block_start":
            return [*self._first(), *self._block_start(index, data.get("content_block"))]
        if kind == "content_block_delta":
            return [*self._first(), *self._delta(index, data.get("delta"))]
        if kind == "content_block_stop":
            block = self._blocks.get(index)
            if block is not None:
                block.is_closed = True
            return self._advanced()
        if kind == "message_delta":
            return [*self._first(), *self._message_delta(data)]
        return self._finished() if kind == "message_stop" else ()

    def end(self) -> Sequence[Event]:
        """Take note that the stream ended: an answer without ``message_stop`` is not whole."""
        return ()

    def _first(self) -> list[Event]:
        if self._began is not None:
            return []
        self._began = Began()
        return [self._began]

    def _start(self, message: object) -> list[Event]:
        if self._began is not None or not isinstance(message, dict):
            return self._first()  # a message begun again goes on as the first one
        self._began = began_of(message)
        usage = message.get("usage")
        if isinstance(usage, dict):  # what is written is only a placeholder until the end is known
            usage = {name: count for name, count in usage.items() if name != "output_tokens"}
        return [self._began, *self._counted(usage)]

    def _counted(self, usage: object) -> list[Event]:
        add_usage(self._usage, usage)
        return [UsageSeen(usage_of(self._usage))] if isinstance(usage, dict) and self._usage else []

    def _block_start(self, index: int | None, start: object) -> list[Event]:
        content = start if isinstance(start, dict) else {}
        kind = _KINDS.get(str(content.get("type")))
        if kind is None:
            self._blocks[index] = None  # of the provider's own tools: its deltas go nowhere
            return []
        block = _Block(kind)
        if kind == "call":
            block.id = unique_id(content.get("id"), self._ids, self._began.id if self._began else "")
            block.name = str(content.get("name") or "unnamed")
            block.given_whole = arguments_text(content["input"]) if content.get("input") else ""
        words, state = content.get(_PLACES.get(kind, "")), content.get("signature") or content.get("data")
        if isinstance(words, str) and words:
            block.pieces.append(words)
        if kind == "reasoning" and isinstance(state, str):
            block.state = state or None
        block.is_redacted = content.get("type") == "redacted_thinking"
        block.citations += citations_of(content.get("citations"))
        self._blocks[index] = block
        self._line.append(block)
        return self._advanced()

    def _delta(self, index: int | None, delta: object) -> list[Event]:
        if not isinstance(delta, dict):
            return []
        kind, place = _WORDS.get(str(delta.get("type")), (None, ""))
        if kind is not None and kind in _PLACES and index not in self._blocks:
            # Some servers do not open what they say first.
            self._block_start(index, {"type": _PLACES[kind]})
        block = self._blocks.get(index)
        if block is None or block.is_closed:
            return []
        words, signature = delta.get(place), delta.get("signature")
        if kind == block.kind and isinstance(words, str) and words:
            block.pieces.append(words)
        elif isinstance(signature, str) and signature and block.kind == "reasoning":
            block.state = signature
        elif block.kind == "text" and delta.get("type") == "citations_delta":
            block.citations += citations_of([delta.get("citation")])
        return self._advanced()

    def _advanced(self) -> list[Event]:
        """Return what the live block has to give, and those after it as far as the ones before are closed."""
        events: list[Event] = []
        while self._line and self._line[0].is_closed:
            events += self._line.pop(0).closed()
        return events + self._line[0].given() if self._line else events

    def _message_delta(self, data: Mapping[str, object]) -> list[Event]:
        delta = data.get("delta")
        if isinstance(delta, dict):
            self._ending.update({name: value for name, value in delta.items() if value is not None})
        return self._counted(data.get("usage"))

    def _finished(self) -> list[Event]:
        self._is_over = True
        events = self._first()
        for block in self._line:
            events += block.closed()
        return [*events, finished_of(self._ending, has_calls=bool(self._ids))]

    def _failed(self, data: Mapping[str, object]) -> list[Event]:
        self._is_over = True
        words, code = read_error(data) or ("", None)
        error = data.get("error")
        kind = error.get("type") if isinstance(error, dict) else None
        return [Failed(words, code, kind if isinstance(kind, str) else None)]


class MessagesWriter:
    """Neutral events in, events for a client out; every one with its ``event:`` line.

    Parameters
    ----------
    reply : Reply
    """

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._usage = Usage()
        self._opened: Opened | None = None
        self._is_started = False
        self._head = b""
        self._index = -1
        self._refusal: list[str] = []
        self._has_calls = False
        self._has_begun = False
        self._is_over = False

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more whole events."""
        if self._is_over:
            return b""
        match event:
            case Delta():
                begun = b"" if self._is_started else self._start()
                if self._opened is not None and self._opened.kind == "refusal":
                    self._refusal.append(event.text)
                return b"".join((begun, self._head, orjson.dumps(event.text), b"}}\n\n"))
            case Opened():
                self._opened, self._is_started = event, False
                return self._first() + (self._start() if event.kind == "call" else b"")
            case Closed():
                return self._close(event)
            case Began():
                return self._first()
            case UsageSeen():
                self._usage = event.usage
            case Finished():
                return self._first() + self._finish(event)
            case Failed():
                self._is_over = True
                return failure_event(event.message, event.code, event.kind, self._reply.id)
        return b""

    def _first(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        # How much was read is mostly known only at the end: message_delta tells, and corrects this.
        ending = {"stop_reason": None, "stop_sequence": None}
        message = {**envelope(self._reply), "content": [], **ending, "usage": write_usage(self._usage)}
        return _event("message_start", {"message": message})

    def _start(self, block: dict[str, object] | None = None) -> bytes:
        """Begin the block that was opened."""
        assert self._opened is not None, "something is said outside of every block"
        self._index += 1
        self._is_started = True
        kind = self._opened.kind
        delta, field = _DELTAS[kind]
        self._head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
            % (self._index, delta, field)
        )
        if block is None and kind == "call":
            self._has_calls = True
            block = {"type": "tool_use", "id": safe_id(self._opened.id), "name": self._opened.name, "input": {}}
        return _event("content_block_start", {"index": self._index, "content_block": block or _EMPTY[kind]})

    def _close(self, closed: Closed) -> bytes:
        written = b""
        if not self._is_started:
            if closed.is_redacted:
                written = self._start({"type": "redacted_thinking", "data": closed.state or ""})
                return written + self._stop()
            if closed.state is None:
                return b""
            written = self._start()
        opened = self._opened
        if closed.state is not None and opened is not None and opened.kind == "reasoning":
            written += self._delta({"type": "signature_delta", "signature": closed.state})
        for citation in closed.citations:
            written += self._delta({"type": "citations_delta", "citation": citation_block(citation)})
        return written + self._stop()

    def _delta(self, delta: dict[str, object]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def _stop(self) -> bytes:
        return _event("content_block_stop", {"index": self._index})

    def _finish(self, finished: Finished) -> bytes:
        self._is_over = True
        delta = ending(finished, refusal="".join(self._refusal), has_calls=self._has_calls)
        last = _event("message_delta", {"delta": delta, "usage": write_usage(self._usage)})
        return last + _event("message_stop", {})


#: Kind of block -> the type of its deltas, and where their words stand.
_DELTAS: Mapping[Kind, tuple[bytes, bytes]] = {
    "text": (b"text_delta", b"text"),
    "refusal": (b"text_delta", b"text"),
    "reasoning": (b"thinking_delta", b"thinking"),
    "call": (b"input_json_delta", b"partial_json"),
}
_EMPTY: Mapping[Kind, dict[str, object]] = {
    "text": {"type": "text", "text": ""},
    "refusal": {"type": "text", "text": ""},
    "reasoning": {"type": "thinking", "thinking": "", "signature": ""},
}


def _event(kind: str, data: Mapping[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps({"type": kind, **data}))
