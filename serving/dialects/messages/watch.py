"""Watch a Messages stream that is passed through. Entry point: :class:`MessagesStream`."""

from __future__ import annotations

from collections.abc import Mapping

from router.pricing import Usage
from serving.dialects.messages.answer import add_usage, usage_of
from serving.dialects.messages.stream import parsed
from serving.errors import UpstreamBroken

# Quotes inside JSON strings are escaped, so words of an answer cannot look like the first of these; what looks like
# any of them is parsed to be sure.
_IS_DELTA = b'"content_block_delta"'
_STATES = (b'"signature"', b'"redacted_thinking"')
_TOLD = (b'"message_delta"', b'"message_start"', b'"message_stop"', b'"error"')


class MessagesStream:
    """Watch the events of one answer go by; all of them pass untouched.

    Attributes
    ----------
    usage : Usage
        As far as it is known: counts come in parts, the last of each holds.
    is_done : bool
        The provider sent ``message_stop``.
    is_failed : bool
        The provider sent an error event, which ends the stream as well.
    n_events : int
        Seen so far.
    states : list of str
        Signatures and redacted thoughts seen, which only their maker may have back.
    """

    def __init__(self) -> None:
        self.is_done = False
        self.is_failed = False
        self.n_events = 0
        self.states: list[str] = []
        self._usage: dict[str, object] = {}

    @property
    def usage(self) -> Usage:
        """What is known of the usage."""
        return usage_of(self._usage)

    def pass_on(self, event: bytes) -> bool:
        """Take note of one whole event; say whether the client shall have it."""
        if self.is_done or self.is_failed:
            return False
        self.n_events += 1
        marks = _STATES if _IS_DELTA in event else (*_TOLD, *_STATES)
        if any(mark in event for mark in marks):
            self._note(event)
        return True

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event of a stream that ended; return what the client shall have.

        Only the blank line after an event may be missing. Half an event is never passed on, and ``message_stop`` is
        never made up: without it nobody knows whether the answer is whole.
        """
        whole = rest.rstrip(b"\r\n")
        return whole + b"\n\n" if whole and _read(whole) is not None and self.pass_on(whole) else b""

    def _note(self, event: bytes) -> None:
        data = _read(event)
        if data is None:
            return
        kind = data.get("type")
        if kind == "message_stop":
            self.is_done = True
        elif kind == "error" or isinstance(data.get("error"), dict):
            self.is_failed = True
        elif kind == "message_start":
            message = data.get("message")
            add_usage(self._usage, message.get("usage") if isinstance(message, dict) else None)
            self._usage.pop("output_tokens", None)  # a placeholder until the end is known
        elif kind == "message_delta":
            add_usage(self._usage, data.get("usage"))
        else:
            self._note_state(data.get("delta" if kind == "content_block_delta" else "content_block"))

    def _note_state(self, part: object) -> None:
        if not isinstance(part, dict):
            return
        state = part.get("data") if part.get("type") == "redacted_thinking" else part.get("signature")
        if isinstance(state, str) and state:
            self.states.append(state)


def _read(event: bytes) -> Mapping[str, object] | None:
    try:
        return parsed(event)
    except UpstreamBroken:
        return None
