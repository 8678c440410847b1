"""Whether an answer has the form that its request needs: calls of tools that were offered, JSON where it was demanded.

Nobody is told and nothing is changed: what is found is a sign in the record. Only requests that offer tools or demand
JSON are looked at, and of a stream that passes through only the events that can hold a call (or, where JSON is
demanded, words). What has to be seen whole waits in memory, at most :data:`MOST_BYTES`, until it has ended; an answer
with more than that in one piece, cut short or filtered is not judged. Pure. Entry point: :class:`Inspection`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import orjson

from serving.dialects.answer import Answer, Closed, Delta, Event, Finished, Opened, events_of
from serving.dialects.arguments import arguments_object
from serving.dialects.dialect import Dialect, StreamReader

INVALID_TOOL_CALL, INVALID_JSON = "invalid_tool_call", "invalid_json"
#: Of one block of words or arguments, kept until it is whole; of events read for them.
MOST_BYTES, MOST_EVENT_BYTES = 64 * 1024, 4 * 2**20
#: What ends an answer that its model thinks complete; where a limit cut it, half a JSON text is nobody's mistake.
_COMPLETE = frozenset({"stop", "stop_sequence", "tool_calls"})


def _in_chat(event: bytes) -> bool:
    """Tell whether a chunk holds a call or an end; looking for words costs a tenth of a regular expression here."""
    return (
        b'"tool_calls"' in event
        or b'"function_call"' in event
        or b"[DONE]" in event
        or (
            b'"finish_reason"' in event
            and b'"finish_reason":null' not in event
            and b'"finish_reason": null' not in event
        )
    )


def _in_responses(event: bytes) -> bool:
    """Tell whether an item ends: what is said piece by piece is said again whole there."""
    return b"response.output_item.done" in event[:_HEAD]


def _in_messages(event: bytes) -> bool:
    """Tell whether an event is of a call or an end."""
    head = event[:_HEAD]
    return b"_delta" not in head or b"input_json_delta" in event or b"message_delta" in head


def _in_messages_with_words(event: bytes) -> bool:
    """Tell whether an event is of words, a call or an end."""
    return b"thinking_delta" not in event


#: By dialect, the events worth reading where only calls matter, and where words do too.
_CALLS: Mapping[str, Callable[[bytes], bool]] = {
    "chat": _in_chat,
    "responses": _in_responses,
    "messages": _in_messages,
}
_WORDS: Mapping[str, Callable[[bytes], bool]] = {
    "chat": lambda event: True,
    "responses": _in_responses,
    "messages": _in_messages_with_words,
}
#: Of an event, what holds its type.
_HEAD = 120
#: By dialect, an event that does nothing but go on with the arguments of a call: its number, and the piece, escaped as
#: in JSON. Most events of a tool call are such, and reading one whole costs thrice as much.
_PIECE: Mapping[str, re.Pattern[bytes]] = {
    "chat": re.compile(
        rb'"tool_calls"\s*:\s*\[\{"index"\s*:\s*(\d+),\s*"function"\s*:\s*\{"arguments"\s*:\s*"((?:[^"\\]|\\.)*)"\}\}\]'
    ),
    "messages": re.compile(
        rb'"index"\s*:\s*(\d+),\s*"delta"\s*:\s*\{"type"\s*:\s*"input_json_delta",\s*"partial_json"\s*:\s*"((?:[^"\\]|\\.)*)"\}'
    ),
}
_NUMBER: Mapping[str, re.Pattern[bytes]] = {
    "chat": re.compile(rb'"tool_calls"\s*:\s*\[\{"index"\s*:\s*(\d+)'),
    "messages": re.compile(rb'"index"\s*:\s*(\d+)'),
}
#: A whole body without any of these holds no call.
_HOLDS_CALL = re.compile(rb'"(?:tool_calls|function_call|custom_tool_call|tool_use)"')


class Inspection:
    """What is seen of one answer.

    Parameters
    ----------
    dialect : Dialect
        The client's, in which ``body`` is, and a stream that passes through.
    body : Mapping
        The request's.
    wants_json, wants_object : bool
        Whether JSON was demanded, and whether it has to be an object.
    """

    def __init__(self, dialect: Dialect, body: Mapping[str, object], wants_json: bool, wants_object: bool) -> None:
        self._dialect = dialect
        self._body = body
        self._wants_json = wants_json
        self._wants_object = wants_object
        self._is_telling = (_WORDS if wants_json else _CALLS)[dialect.name]
        self._reader: StreamReader | None = None
        self._n_event_bytes = 0
        self._open: Opened | None = None
        self._number: bytes | None = None
        self._said = bytearray()
        #: What can be judged once the answer is known to be complete.
        self._has_bad_call = self._has_call = self._has_words = self._has_bad_words = False
        self._is_complete = self._is_over = False

    @classmethod
    def of(cls, dialect: Dialect, body: Mapping[str, object], n_choices: int = 1) -> Inspection | None:
        """Return what looks at the answer to a request; None where there is nothing to look for."""
        if n_choices != 1 or dialect.name not in _CALLS or body.get("prompt"):
            return None  # a stored prompt of Responses brings tools that nobody here knows
        form = _form_of(dialect.name, body)
        wants_json = form is not None and form.get("type") in ("json_object", "json_schema")
        if not wants_json and not body.get("tools") and not body.get("functions"):
            return None
        return cls(dialect, body, wants_json, wants_json and form is not None and _is_of_object(form))

    def pass_by(self, event: bytes) -> None:
        """Look at one event of a stream that passes through."""
        if self._is_over or not self._is_telling(event):
            # Of Responses only its type is needed to know that the answer is complete.
            if self._dialect.name == "responses" and b"response.completed" in event[:_HEAD]:
                self._is_complete = True
            return
        self._n_event_bytes += len(event)
        if self._n_event_bytes > MOST_EVENT_BYTES:
            self._give_up()
            return
        if self._number is not None:
            piece = _PIECE[self._dialect.name].search(event)
            if piece is not None and piece[1] == self._number:
                self._keep_escaped(piece[2])
                return
        self._read(event)

    def _read(self, event: bytes) -> None:
        """Read an event whole; where it alone began the call that is open, pieces of that may follow."""
        if self._reader is None:
            self._reader = self._dialect.reader()
        before, self._number = self._open, None
        try:
            for read in self._reader.read(event):
                self.see(read)
        except Exception:
            self._give_up()  # whoever passes through is not disturbed by who looks on
            return
        if self._open is not None and self._open is not before and self._open.kind == "call":
            number = _NUMBER[self._dialect.name].search(event) if self._dialect.name in _NUMBER else None
            self._number = number[1] if number is not None else None

    def _keep_escaped(self, piece: bytes) -> None:
        if b"\\" in piece:
            try:
                piece = orjson.loads(b'"%b"' % piece).encode()
            except orjson.JSONDecodeError:
                self._give_up()
                return
        self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        self._said += piece
        if len(self._said) > MOST_BYTES:
            self._give_up()

    def pass_whole(self, body: bytes, answer: Mapping[str, object]) -> None:
        """Look at a whole answer that passes through, as it came and as it was read."""
        if not self._wants_json and _HOLDS_CALL.search(body) is None:
            return
        try:
            self.see_whole(self._dialect.read_answer(answer))
        except Exception:
            self._give_up()  # as above

    def see_whole(self, answer: Answer) -> None:
        """Look at a whole answer, as its client gets it."""
        for event in events_of(answer):
            self.see(event)

    def see(self, event: Event) -> None:
        """Look at one event, as the client gets it."""
        if self._is_over:
            return
        match event:
            case Delta():
                if self._is_wanted():
                    self._keep(event.text.encode("utf-8", "surrogatepass"))
            case Opened():
                self._open = event
                self._said.clear()
            case Closed():
                if self._open is not None and self._is_wanted():
                    self._end(self._open, self._said.decode("utf-8", "surrogatepass"))
                self._open = None
                self._said.clear()
            case Finished():
                self._is_complete = event.reason in _COMPLETE

    def found(self) -> tuple[str, ...]:
        """Return the signs against an answer that has ended well."""
        if not self._is_complete and self._reader is not None and not self._is_over:
            try:
                for event in self._reader.end():
                    self.see(event)  # of a provider that leaves out the last event
            except Exception:
                self._give_up()  # as above
        if not self._is_complete:
            return ()
        bad_words = self._wants_json and self._has_words and self._has_bad_words and not self._has_call
        return (*((INVALID_TOOL_CALL,) if self._has_bad_call else ()), *((INVALID_JSON,) if bad_words else ()))

    def _is_wanted(self) -> bool:
        kind = None if self._open is None else self._open.kind
        return kind == "call" or (kind == "text" and self._wants_json)

    def _end(self, opened: Opened, said: str) -> None:
        """Judge a block that is whole; of several with words the last counts."""
        if opened.kind == "text":
            self._has_words = True
            self._has_bad_words = not _is_json(said, self._wants_object)
            return
        self._has_call = True
        if not self._has_bad_call:
            self._has_bad_call = not _is_callable(opened, said, self._body)

    def _give_up(self) -> None:
        self._is_over, self._is_complete = True, False
        self._reader = self._open = self._number = None
        self._said.clear()


def _form_of(api: str, body: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the form of the answer that a request demands."""
    if api == "chat":
        form = body.get("response_format")
    else:
        holder = body.get("text" if api == "responses" else "output_config")
        form = holder.get("format") if isinstance(holder, dict) else None
    return form if isinstance(form, dict) else None


def _is_of_object(form: Mapping[str, object]) -> bool:
    if form.get("type") == "json_object":
        return True
    named = form.get("json_schema", form)
    schema = named.get("schema") if isinstance(named, dict) else None
    return isinstance(schema, dict) and schema.get("type") == "object"


def _is_json(said: str, wants_object: bool) -> bool:
    try:
        value = orjson.loads(said)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) or not wants_object


def _is_callable(opened: Opened, arguments: str, body: Mapping[str, object]) -> bool:
    """Say whether a call names a tool that was offered, with arguments that are an object with all it requires."""
    found = [schema for *of, schema in _offered(body) if of == [opened.namespace, opened.name]]
    if not found or opened.is_custom:
        return bool(found)
    schema = found[0]
    given = arguments_object(arguments)
    required = schema.get("required") if isinstance(schema, dict) else None
    # What is no name in a list of names is the caller's slip, and nobody can give it.
    names = [one for one in required if isinstance(one, str)] if isinstance(required, list) else ()
    return given is not None and all(name in given for name in names)


def _offered(body: Mapping[str, object]) -> Iterator[tuple[str | None, object, object]]:
    """Yield namespace, name and schema of each tool of a request, in whichever of the client's dialects it is."""
    yield from _tools_in(body.get("tools"), None)
    yield from _tools_in(body.get("functions"), None)
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            yield from _tools_in(item.get("tools"), None)


def _tools_in(tools: object, namespace: str | None) -> Iterator[tuple[str | None, object, object]]:
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            continue
        if tool.get("type") == "namespace" and namespace is None and isinstance(tool.get("name"), str):
            yield from _tools_in(tool.get("tools"), tool["name"])
            continue
        inner = tool.get("function", tool.get("custom", tool))
        if isinstance(inner, dict):
            yield namespace, inner.get("name"), inner.get("parameters", inner.get("input_schema"))
