r"""Split a byte stream into server-sent events without touching a byte.

What comes out, joined, is what went in: nothing is decoded, normalised or dropped. An event is complete at its
blank line, whatever the line ends (``\n``, ``\r\n``, ``\r``) and wherever the network cut it. Nothing here knows
a protocol. Entry points: :class:`EventSplitter`, :func:`data_of`.
"""

from __future__ import annotations

import re

from serving.errors import UpstreamBroken

#: Images come in one event.
MAX_EVENT_BYTES = 32 << 20
#: Longest blank line ("\r\n\r\n") less one: how far back a terminator may begin before a new chunk.
_OVERLAP = 3
#: Atomic groups, so that the two halves of "\r\n" are never taken for two line ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """Incremental splitter: feed chunks, get whole events with their terminators.

    Parameters
    ----------
    max_event_bytes : int, default=33554432
        An event longer than this is refused, so that a provider cannot fill the memory.
    """

    __slots__ = ("_max_event_bytes", "_n_bytes", "_parts", "_tail")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        #: What has arrived of an unfinished event, joined only when it is whole; how much that is; its last bytes.
        self._parts: list[bytes] = []
        self._n_bytes = 0
        self._tail = b""
        self._max_event_bytes = max_event_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        r"""Take the next bytes and return the events they complete, in order.

        A ``\r`` at the very end of a chunk may be half of ``\r\n``; the event waits for the next byte.

        Raises
        ------
        UpstreamBroken
            If an event outgrows the cap.
        """
        if not self._parts and _is_one_event(chunk):
            # The common case by far, one write of the provider is one event; it is not worth a search.
            self._check(len(chunk))
            return [chunk]
        if not chunk:
            return []
        window = self._tail + chunk
        ends = _ends(window)
        if not ends:
            self._keep(chunk, window)
            return []
        before = self._n_bytes - len(self._tail)
        whole = b"".join([*self._parts, chunk]) if self._parts else chunk
        events: list[bytes] = []
        start = 0
        for end in ends:
            self._check(before + end - start)
            events.append(whole[start : before + end])
            start = before + end
        self._parts, self._n_bytes, self._tail = [], 0, b""
        if start < len(whole):
            rest = whole[start:]
            self._keep(rest, rest)
        return events

    def rest(self) -> bytes:
        """Return what has arrived after the last whole event, ``b""`` when nothing has."""
        return b"".join(self._parts)

    def _keep(self, part: bytes, window: bytes) -> None:
        self._parts.append(part)
        self._n_bytes += len(part)
        self._tail = window[-_OVERLAP:]
        self._check(self._n_bytes)

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._max_event_bytes:
            raise UpstreamBroken(f"one event of the stream is longer than {self._max_event_bytes} bytes")


def _is_one_event(chunk: bytes) -> bool:
    return chunk.endswith(b"\n\n") and chunk.find(b"\n\n") == len(chunk) - 2 and b"\r" not in chunk


def _ends(buffer: bytes) -> list[int]:
    r"""Return the offsets just after each blank line; an ambiguous final ``\r`` ends nothing yet."""
    ends: list[int] = []
    position = 0
    if b"\r" not in buffer:  # nearly always; and a plain search is many times quicker
        while (found := buffer.find(b"\n\n", position)) >= 0:
            position = found + 2
            ends.append(position)
        return ends
    while (match := _BLANK_LINE.search(buffer, position)) is not None:
        end = match.end()
        if end == len(buffer) and buffer[end - 1] == 0x0D:
            break
        ends.append(end)
        position = end
    return ends


def data_of(event: bytes) -> bytes | None:
    """Return the joined ``data:`` lines of one event.

    Parameters
    ----------
    event : bytes
        With or without its terminator.

    Returns
    -------
    bytes or None
        None when the event has no data line (a comment, a keep-alive).
    """
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 2 and b"\r" not in event:
        return event[6:].rstrip(b"\n")
    found: list[bytes] = []
    event = event.removeprefix(b"\xef\xbb\xbf")
    for line in _LINE_END.split(event) if b"\r" in event else event.split(b"\n"):
        if line.startswith(b"data:"):
            found.append(line[5:].removeprefix(b" "))
        elif line == b"data":
            found.append(b"")
    return b"\n".join(found) if found else None
