r"""The events of ``streamGenerateContent?alt=sse`` ⇄ neutral events.

Every event is a whole ``GenerateContentResponse`` that holds what is new. Nothing says that the stream is over: usage
may come with the reason or after it, and older models give a reason with every increment. So the end is told when the
connection ends::

    (start)
       | first increment: Began
       v                    text, thought: Opened Delta
    (between) ----------------------------------------------> (words) --+ more of the kind: Delta
       |  ^ ^                                                  |   ^____|
       |  | +-------- another kind, a signature, a call: Closed ---+
       |  |
       |  +-------------- {} or a last piece: Delta Closed ------------+
       |                                                               |
       +- functionCall{name, willContinue}: Opened ---------------> (call) --+ partialArgs: kept
       +- functionCall{name, args}: Opened Delta Closed, still between   ^___|

    end of the stream, anywhere: after a finishReason Closed (where open) and Finished; before one nothing
    {"error": ...} or the finishReason of a model that failed, anywhere: Failed, and nothing more

Writing is the reverse: texts and thoughts as they come, a call when it is closed, usage with the reason at the end::

    Delta of text, thought ---> data: {parts: [text]}     Closed call ---> data: {parts: [functionCall]}
    Finished -----------------> data: {finishReason, usageMetadata}        Failed ---> data: {"error": ...}
"""

from __future__ import annotations

from collections.abc import Sequence

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
from serving.dialects.dialect import Reply
from serving.dialects.gemini.answer import (
    Json,
    arguments_of,
    began_of,
    blocked_by,
    broken_by,
    call_id_of,
    call_part,
    candidate_of,
    finished_of,
    json_text,
    parts_of,
    read_error,
    response,
    state_of,
    usage_of,
    write_error,
)
from serving.dialects.gemini.arguments import PartialArguments
from serving.dialects.gemini.contents import signed
from serving.dialects.gemini.sources import in_bytes, in_characters, read_sources
from serving.errors import GatewayError, UpstreamBroken
from serving.sse import data_of


class Reader:
    """The provider's events in, neutral events out; see the drawing."""

    __slots__ = (
        "_arguments",
        "_began",
        "_failed",
        "_finished",
        "_ids",
        "_open",
        "_sources",
        "_state",
        "_text",
        "_usage",
    )

    def __init__(self) -> None:
        self._began: Began | None = None
        self._open: Kind | None = None
        self._text: list[str] = []
        self._sources: list[Citation] = []
        self._state: str | None = None
        self._arguments = PartialArguments()
        self._ids: set[str] = set()
        self._usage: Usage | None = None
        self._finished: Finished | None = None
        self._failed = False

    def read(self, event: bytes) -> Sequence[Event]:
        """Take one whole event.

        Raises
        ------
        UpstreamBroken
            It cannot be read.
        """
        data = data_of(event)
        if self._failed or data is None or data.strip() in (b"", b"[DONE]"):
            return ()
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamBroken("an event of the provider's stream is not JSON") from None
        events: list[Event] = []
        for increment in body if isinstance(body, list) else (body,):
            if not isinstance(increment, dict):
                raise UpstreamBroken("an event of the provider's stream is no object")
            if not self._failed:
                self._take(increment, events)
        return events

    def end(self) -> Sequence[Event]:
        """Take note that the stream ended; it is whole if a reason was given."""
        if self._finished is None or self._failed:
            return ()
        events: list[Event] = []
        self._close(events)
        return (*events, self._finished)

    def _take(self, increment: Json, events: list[Event]) -> None:
        if increment.get("error"):
            message, code = read_error(increment) or ("", None)
            return self._fail(message or "the provider failed", code, events)
        if self._began is None:
            self._began = began_of(increment)
            events.append(self._began)
        usage = usage_of(increment.get("usageMetadata"))
        if usage is not None and usage != self._usage:
            self._usage = usage
            events.append(UsageSeen(usage))
        candidate = candidate_of(increment)
        if candidate is None:
            self._finished = self._finished or blocked_by(increment)
            return None
        for part in parts_of(candidate):
            self._part(part, events)
        if self._open == "text" and "groundingMetadata" in candidate:
            # Told once, or again and again with more in it.
            self._sources += [found for _, found in read_sources(candidate) if found not in self._sources]
        if (reason := broken_by(candidate)) is not None:
            return self._fail(f"the model ended its answer with {reason}", reason, events)
        self._finished = finished_of(candidate, has_calls=bool(self._ids)) or self._finished
        return None

    def _fail(self, message: str, code: str | None, events: list[Event]) -> None:
        self._failed = True
        events.append(Failed(message, code))

    def _part(self, part: Json, events: list[Event]) -> None:
        state = state_of(part)
        if isinstance(call := part.get("functionCall"), dict):
            return self._call(call, state, events)
        text = part.get("text")
        if not isinstance(text, str) or (not text and state is None):
            return None
        if part.get("thought") is True:
            self._words("reasoning", text, events)
            if state is not None:
                self._state = state
                self._close(events)
            return None
        if state is not None:
            self._close(events)
            events += (Opened("reasoning"), Closed(state))
        if text:
            self._words("text", text, events)
        return None

    def _words(self, kind: Kind, text: str, events: list[Event]) -> None:
        if self._open != kind:
            self._close(events)
            events.append(Opened(kind, is_summary=kind == "reasoning" and bool(text)))
            self._open = kind
        if text:
            events.append(Delta(text))
            self._text.append(text)

    def _call(self, call: Json, state: str | None, events: list[Event]) -> None:
        name = call.get("name")
        if isinstance(name, str) and name:
            self._close(events)
            began_id = "" if self._began is None else self._began.id
            events.append(Opened("call", call_id_of(call, self._ids, began_id), name))
            if not call.get("willContinue") and "partialArgs" not in call:
                events += (Delta(arguments_of(call)), Closed(state))
                return
            self._open = "call"
            self._arguments = PartialArguments()
        elif self._open != "call":
            return
        self._state = self._state or state
        self._arguments.add(call.get("partialArgs"))
        if not call.get("willContinue"):
            self._close(events)

    def _close(self, events: list[Event]) -> None:
        if self._open is None:
            return
        if self._open == "call":
            events.append(Delta(json_text(self._arguments.value)))
        text = "".join(self._text)
        cited = tuple(in_characters(citation, text) for citation in self._sources)
        events.append(Closed(self._state, citations=cited))
        self._open, self._state, self._text, self._sources = None, None, [], []


class Writer:
    """Neutral events in, Gemini's events out; see the drawing.

    Parameters
    ----------
    reply : Reply
    """

    __slots__ = ("_is_over", "_opened", "_reply", "_state", "_text", "_usage")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._opened = Opened("text")
        self._text: list[str] = []
        self._state: str | None = None
        self._usage: Usage | None = None
        self._is_over = False

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more whole events."""
        if self._is_over:
            return b""
        match event:
            case Delta():
                return self._delta(event.text)
            case Opened():
                self._opened = event
                self._text = []
                return b"" if event.kind in ("text", "refusal") else self._flushed()
            case Closed():
                return self._closed(event)
            case UsageSeen():
                self._usage = event.usage
            case Finished():
                self._is_over = True
                return self._flushed() + _event(response([{"text": ""}], self._reply, event, self._usage))
            case Failed():
                self._is_over = True
                return error_event(UpstreamBroken(event.message), self._reply.id)
        return b""

    def _delta(self, text: str) -> bytes:
        self._text.append(text)
        if self._opened.kind == "call":
            return b""
        if self._opened.kind == "reasoning":
            return self._part({"text": text, "thought": True})
        state, self._state = self._state, None
        return self._part(signed({"text": text}, state))

    def _closed(self, closed: Closed) -> bytes:
        text = "".join(self._text)
        opened = self._opened
        if opened.kind == "call":
            return self._part(call_part(opened.id, opened.name, text, closed.state))
        if opened.kind == "reasoning":
            if not text:
                # Without words it is the signature of the text that follows.
                self._state = closed.state
                return b""
            part: Json = {"text": "", "thought": True}
            return self._part(signed(part, closed.state)) if closed.state is not None else b""
        if not closed.citations:
            return b""
        sources = [(0, in_bytes(citation, text)) for citation in closed.citations]
        return _event(response([{"text": ""}], self._reply, sources=sources))

    def _flushed(self) -> bytes:
        state, self._state = self._state, None
        return b"" if state is None else self._part(signed({"text": ""}, state))

    def _part(self, part: Json) -> bytes:
        return _event(response([part], self._reply))


def error_event(error: GatewayError, request_id: str) -> bytes:
    """Write the event that ends a stream badly."""
    return _event(write_error(error, request_id))


def _event(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
