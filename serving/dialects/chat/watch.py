"""Watch a Chat Completions stream go by, passed on untouched.

The one exception: usage is always asked of the provider, and the chunk that carries it is taken out again where the
client did not ask. Bytes are searched before anything is parsed. Entry point: :class:`ChatStream`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from router.pricing import Usage
from serving.dialects.chat.answer import usage_of
from serving.sse import data_of

# Escaped quotes inside JSON strings cannot match these, so a hit is a real key; it is parsed to be sure.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'"error"\s*:\s*[{"]')


class ChatStream:
    """Watch the events of one answer go by.

    Attributes
    ----------
    usage : Usage
        The last one seen.
    is_done : bool
        The provider sent ``[DONE]``.
    is_failed : bool
        The provider sent an error event, which ends the stream as well.
    n_events : int
        Seen so far.
    states : list of str
        Opaque reasoning states seen: none, this dialect has no place for them.
    """

    DONE = b"data: [DONE]\n\n"

    def __init__(self, *, keeps_usage: bool, n_choices: int = 1) -> None:
        self.usage = Usage()
        self.is_done = False
        self.is_failed = False
        self.n_events = 0
        self.states: list[str] = []
        self._keeps_usage = keeps_usage
        self._n_unfinished = n_choices

    @property
    def is_finished(self) -> bool:
        """Whether every choice has said why it ended."""
        return self._n_unfinished <= 0

    def pass_on(self, event: bytes) -> bool:
        """Take note of one whole event; say whether the client shall have it."""
        if self.is_done or self.is_failed:
            return False
        self.n_events += 1
        if _FINISHED.search(event):
            self._n_unfinished -= len(_FINISHED.findall(event))
        if _USAGE.search(event) or _ERROR.search(event):
            return self._note(_chunk(event))
        if b"[DONE]" in event:
            self.is_done = (data_of(event) or b"").strip() == b"[DONE]"
        return True

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event of a stream that ended; return what the client shall have.

        Some providers leave out the blank line after ``[DONE]``, or ``[DONE]`` itself: an answer whose every
        choice has finished is whole without it, and gets it. Half an event is never passed on.
        """
        told = b""
        whole = rest.rstrip(b"\r\n")
        if whole and (_chunk(whole) is not None or data_of(whole) == b"[DONE]") and self.pass_on(whole):
            told = whole + b"\n\n"
        if self.is_finished and not self.is_done and not self.is_failed:
            self.is_done = True
            told += self.DONE
        return told

    def _note(self, chunk: Mapping[str, object] | None) -> bool:
        """Take note of usage and error, which may come together; say whether the client shall have the chunk."""
        if chunk is None:
            return True
        has_usage = isinstance(chunk.get("usage"), dict)
        if has_usage:
            self.usage = usage_of(chunk)
        self.is_failed = bool(chunk.get("error"))
        # Some providers put usage on the last content chunk: only a chunk of nothing else is taken out.
        return self.is_failed or not has_usage or self._keeps_usage or chunk.get("choices") != []


def _chunk(event: bytes) -> dict[str, object] | None:
    try:
        chunk = orjson.loads(data_of(event) or b"null")
    except orjson.JSONDecodeError:
        return None
    return chunk if isinstance(chunk, dict) else None
