"""Split a byte stream into server-sent events without touching a byte."""

from __future__ import annotations


class EventSplitter:
    """Incremental: feed chunks, get whole events with their terminators."""

    def __init__(self, max_event_bytes: int = 1 << 20) -> None: ...

    def feed(self, chunk: bytes) -> list[bytes]:
        raise NotImplementedError

    def rest(self) -> bytes:
        """Return what has arrived after the last whole event (b"" when nothing)."""
        raise NotImplementedError


def data_of(event: bytes) -> bytes | None:
    """Return the joined ``data:`` lines of one event, None when it has none (a comment, a ping)."""
    raise NotImplementedError
