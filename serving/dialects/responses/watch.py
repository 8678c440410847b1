"""Watch a Responses stream that is passed through go by.

Nearly every event is a delta, known by its first line; only the few that say something to the gateway are parsed.
Entry point: :class:`ResponsesStream`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from router.pricing import Usage
from serving.dialects.responses.answer import usage_of
from serving.sse import data_of

_DELTA = re.compile(rb"event: ?response\.[a-z_.]+\.delta\r?\n")
# Escaped quotes inside JSON strings cannot match these, so a hit is a real key; it is parsed to be sure.
_TELLING = re.compile(
    rb'"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|error)"|"error"\s*:\s*[{"]|"encrypted_content"\s*:\s*"'
)


class ResponsesStream:
    """Watch the events of one answer go by; they are never changed.

    Attributes
    ----------
    usage : Usage
        Of the event that ended the stream.
    is_done : bool
        The provider sent ``response.completed`` or ``response.incomplete``.
    is_failed : bool
        The provider sent ``response.failed`` or an error event.
    n_events : int
        Seen so far.
    states : list of str
        The encrypted content of every item that was ended.
    response_id : str
        "" until the stream has ended.
    output : list
        The items of the whole response.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_done = False
        self.is_failed = False
        self.n_events = 0
        self.states: list[str] = []
        self.response_id = ""
        self.output: list[object] = []
        self._last_words: bytes | None = None

    def pass_on(self, event: bytes) -> bool:
        """Take note of one whole event; say whether the client shall have it."""
        if self._last_words is not None:
            return self._is_last_word(event)
        self.n_events += 1
        if _DELTA.match(event) is None and _TELLING.search(event) is not None:
            self._note(_read(event))
        return True

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event of a stream that ended; return what the client shall have.

        Some providers leave out the blank line at the end. Half an event is never passed on.
        """
        whole = rest.rstrip(b"\r\n")
        is_whole = bool(whole) and (_read(whole) is not None or data_of(whole) == b"[DONE]")
        return whole + b"\n\n" if is_whole and self.pass_on(whole) else b""

    def _note(self, read: Mapping[str, object] | None) -> None:
        if read is None:
            return
        kind = read.get("type")
        if kind == "response.output_item.done":
            item = read.get("item")
            state = item.get("encrypted_content") if isinstance(item, dict) else None
            if isinstance(state, str):
                self.states.append(state)
        elif kind in ("response.completed", "response.incomplete"):
            self.is_done, self._last_words = True, b"[DONE]"
            self._end(read)
        elif kind == "response.failed":
            self.is_failed, self._last_words = True, b""
            self._end(read)
        elif kind == "error" or (kind is None and read.get("error")):
            self.is_failed, self._last_words = True, b"response.failed"

    def _end(self, read: Mapping[str, object]) -> None:
        response = read.get("response")
        if not isinstance(response, dict):
            return
        self.usage = usage_of(response)
        name, output = response.get("id"), response.get("output")
        self.response_id = name if isinstance(name, str) else ""
        self.output = output if isinstance(output, list) else []

    def _is_last_word(self, event: bytes) -> bool:
        """Say whether an event still belongs to the end: ``[DONE]`` after a good one, ``failed`` after an error."""
        awaited, self._last_words = self._last_words, b""
        if awaited == b"[DONE]":
            return (data_of(event) or b"").strip() == awaited
        if awaited == b"response.failed":
            read = _read(event)
            if read is not None and read.get("type") == "response.failed":
                self._end(read)
                return True
        return False


def _read(event: bytes) -> dict[str, object] | None:
    try:
        read = orjson.loads(data_of(event) or b"null")
    except orjson.JSONDecodeError:
        return None
    return read if isinstance(read, dict) else None
