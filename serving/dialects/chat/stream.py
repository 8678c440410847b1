r"""Chat Completions streams, both ways.

Reading: chunks whose deltas belong to blocks, which the dialect neither opens nor closes. One block is live, its
deltas are given at once; what belongs to others waits in line, since calls may be interleaved.

::

              delta of the live block             text or thought after text or thought: close, open
                  ┌─────┐                              ┌─────┐
    chunk ──▶ ( nothing ) ──first delta──▶ ( one block live, n in line ) ──finish_reason──▶ ( ended )
                                              delta of another call: in line               │ usage chunks
                                                                     [DONE], or the end ◀──┘  ──▶ Finished

Writing: every block is a run of chunks; the closing of one leaves no trace, so there is no state but the number of
calls and whether anything was written. Entry points: :class:`ChatReader`, :class:`ChatWriter`.
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
from serving.dialects.chat.answer import (
    annotation_of,
    began_of,
    citations_of,
    envelope,
    finish_of,
    read_error,
    reason_of,
    state_of,
    text_of,
    thought_of,
    unique_id,
    usage_of,
    write_usage,
)
from serving.dialects.dialect import Reply
from serving.errors import UpstreamBroken
from serving.sse import data_of


class _Block:
    """One block on its way: what of it is known, and what of that was given already."""

    __slots__ = ("citations", "id", "is_custom", "is_opened", "kind", "name", "pieces", "state")

    def __init__(self, kind: Kind, call_id: str = "") -> None:
        self.kind: Kind = kind
        self.id = call_id
        self.name = ""
        self.is_custom = False
        self.is_opened = False
        self.pieces: list[str] = []
        self.state: str | None = None
        self.citations: list[Citation] = []

    def given(self) -> list[Event]:
        """Return what can be given now; a call without a name waits for it."""
        events: list[Event] = []
        if not self.is_opened:
            if self.kind == "call" and not self.name:
                return events
            self.is_opened = True
            events.append(Opened(self.kind, self.id, self.name, self.is_custom))
        events += [Delta(piece) for piece in self.pieces]
        self.pieces = []
        return events

    def closed(self) -> list[Event]:
        """Return the rest of it."""
        self.name = self.name or ("unnamed" if self.kind == "call" else "")
        return [*self.given(), Closed(self.state, citations=tuple(self.citations))]


class ChatReader:
    """A provider's chunks in, neutral events out."""

    def __init__(self) -> None:
        self._began: Began | None = None
        self._line: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._ids: set[str] = set()
        self._citations: list[Citation] = []
        self._finish_reason: str | None = None
        self._has_calls = False
        self._is_over = False

    def read(self, event: bytes) -> Sequence[Event]:
        """Take one whole event of the stream.

        Raises
        ------
        UpstreamBroken
            Its data is neither a JSON object nor ``[DONE]``, or it is ``[DONE]`` and no choice has finished: whatever
            stands before the provider may write that under an answer that broke off.
        """
        data = (data_of(event) or b"").strip()
        if not data or self._is_over:
            return ()
        if data == b"[DONE]":
            if self._finish_reason is None:
                raise UpstreamBroken("the provider ended its stream without finishing the answer")
            return self._finished()
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamBroken("the provider sent a chunk that is not JSON") from None
        if not isinstance(chunk, dict):
            raise UpstreamBroken("the provider sent a chunk that is no object")
        if chunk.get("error"):
            self._is_over = True
            words, code = read_error(chunk) or ("", None)
            return (Failed(words, code),)
        return self._chunk(chunk)

    def end(self) -> Sequence[Event]:
        """Take note that the stream ended: without ``[DONE]`` an answer is whole once it said why it ended."""
        return self._finished() if self._finish_reason is not None and not self._is_over else ()

    def _chunk(self, chunk: Mapping[str, object]) -> list[Event]:
        events: list[Event] = []
        if self._began is None:
            self._began = began_of(chunk)
            events.append(self._began)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            delta = choice.get("delta")
            if isinstance(delta, dict):
                events += self._delta(delta)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:  # some providers say "" until they finish
                self._finish_reason = reason
        # Nearly every chunk has no usage, or one that is null.
        if (chunk.get("usage") or chunk.get("x_groq")) and (usage := usage_of(chunk)) != Usage():
            events.append(UsageSeen(usage))
        return events

    def _delta(self, delta: Mapping[str, object]) -> list[Event]:
        events: list[Event] = []
        events += self._words("reasoning", thought_of(delta))
        events += self._words("text", text_of(delta.get("content")))
        refusal = delta.get("refusal")
        events += self._words("refusal", refusal if isinstance(refusal, str) else "")
        if annotations := delta.get("annotations"):
            self._cite(annotations)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                events += self._call(call)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            events += self._call({"index": 0, "function": legacy})
        return events

    def _words(self, kind: Kind, words: str) -> list[Event]:
        if not words:
            return []
        events: list[Event] = []
        last = self._line[-1] if self._line else None
        if last is not None and last.kind == kind and last.is_opened and len(self._line) == 1:
            return [Delta(words)]  # the common case by far: nothing waits before it
        if last is None or last.kind != kind:
            events += self._lined_up(_Block(kind))
            last = self._line[-1]
        last.pieces.append(words)
        return events + self._live()

    def _cite(self, annotations: object) -> None:
        """Put sources to the text they come with; those that come before it wait for it."""
        texts = [block for block in self._line if block.kind == "text"]
        cited = texts[-1].citations if texts else self._citations
        cited.extend(citations_of(annotations))

    def _call(self, call: Mapping[str, object]) -> list[Event]:
        events: list[Event] = []
        custom, function = call.get("custom"), call.get("function")
        named = custom if isinstance(custom, dict) else function if isinstance(function, dict) else {}
        block = self._block_of(call)
        if block is None:
            i = len(self._ids)
            block = _Block("call", unique_id(call.get("id"), self._ids, self._began.id if self._began else "", i))
            block.is_custom = isinstance(custom, dict)
            index = call.get("index")
            self._calls[index if isinstance(index, int) else i] = block
            self._has_calls = True
            events += self._lined_up(block)
        if not block.name and isinstance(named.get("name"), str):  # some providers say it again with every piece
            block.name = named["name"]
        if arguments := arguments_text(named.get("input" if block.is_custom else "arguments"), ""):
            block.pieces.append(arguments)
        block.state = state_of(call) or block.state
        return events + self._live()

    def _block_of(self, call: Mapping[str, object]) -> _Block | None:
        """Return the call a delta goes on with, or None where it begins another.

        By index; but some providers give every parallel call the index 0, whole and with an id of its own, and some
        give none: there the id tells, or the place.
        """
        index, call_id = call.get("index"), call.get("id")
        if isinstance(index, int):
            block = self._calls.get(index)
        else:
            calls = [block for block in self._calls.values() if not call_id or block.id == call_id]
            block = calls[-1] if calls else None
        if block is not None and isinstance(call_id, str) and call_id and call_id != block.id and block.name:
            function = call.get("function")
            if isinstance(function, dict) and function.get("name"):
                return None
        return block

    def _lined_up(self, block: _Block) -> list[Event]:
        """Put a block at the end of the line; words that stand before it alone are over, calls may go on."""
        events: list[Event] = []
        if len(self._line) == 1 and self._line[0].kind != "call":
            events = self._line.pop().closed()
        self._line.append(block)
        if block.kind == "text":
            block.citations, self._citations = self._citations, []
        return events

    def _live(self) -> list[Event]:
        return self._line[0].given() if self._line else []

    def _finished(self) -> list[Event]:
        self._is_over = True
        events: list[Event] = [] if self._began else [Began()]
        for block in self._line:
            events += block.closed()
        self._line = []
        return [*events, Finished(reason_of(self._finish_reason, has_calls=self._has_calls))]


class ChatWriter:
    """Neutral events in, chunks for a client out.

    Parameters
    ----------
    reply : Reply
        Its request says whether usage is wanted (``stream_options.include_usage``).
    """

    def __init__(self, reply: Reply) -> None:
        options = reply.request.get("stream_options")
        self._wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._envelope = envelope(reply, "chat.completion.chunk")
        self._usage = Usage()
        self._n_calls = 0
        self._kind: Kind = "text"
        self._is_custom = False
        self._is_empty = True
        self._has_begun = False
        self._is_over = False

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more chunks."""
        if self._is_over:
            return b""
        match event:
            case Delta():
                self._is_empty = False
                return self._chunk(self._delta_of(event.text))
            case Opened():
                self._kind, self._is_custom, self._is_empty = event.kind, event.is_custom, True
                return self._opened(event) if event.kind == "call" else self._first()
            case Closed():
                return self._closed(event)
            case Began():
                return self._first()
            case UsageSeen():
                self._usage = event.usage
            case Finished():
                self._is_over = True
                return self._first() + self._end(event)
            case Failed():
                self._is_over = True
                kind = event.kind or "api_error"
                error = {"message": event.message, "type": kind, "param": None, "code": event.code}
                return _event({"error": error})
        return b""

    def _first(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return self._chunk({"role": "assistant", "content": ""})

    def _opened(self, opened: Opened) -> bytes:
        call: dict[str, object] = {"index": self._n_calls, "id": opened.id}
        if opened.is_custom:
            call |= {"type": "custom", "custom": {"name": opened.name, "input": ""}}
        else:
            call |= {"type": "function", "function": {"name": opened.name, "arguments": ""}}
        self._n_calls += 1
        return self._first() + self._chunk({"tool_calls": [call]})

    def _closed(self, closed: Closed) -> bytes:
        if self._kind == "call":
            # The client parses what it gets: no arguments are an empty object.
            return self._chunk(self._delta_of("{}")) if self._is_empty and not self._is_custom else b""
        if not closed.citations:
            return b""
        return self._chunk({"annotations": [annotation_of(citation) for citation in closed.citations]})

    def _delta_of(self, text: str) -> dict[str, object]:
        if self._kind == "call":
            inner = {"custom": {"input": text}} if self._is_custom else {"function": {"arguments": text}}
            return {"tool_calls": [{"index": self._n_calls - 1, **inner}]}
        name = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}[self._kind]
        return {name: text}

    def _end(self, finished: Finished) -> bytes:
        said = self._chunk({"refusal": finished.explanation}) if finished.explanation else b""
        said += self._chunk({}, finish_of(finished.reason, has_calls=self._n_calls > 0))
        usage = write_usage(self._usage) if self._wants_usage else None
        if usage is not None:
            said += _event({**self._envelope, "choices": [], "usage": usage})
        return said + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        early = {"usage": None} if self._wants_usage else {}
        return _event({**self._envelope, "choices": [choice], **early})


def _event(data: dict[str, object]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
