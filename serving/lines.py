"""Log lines on their way out: written by a thread of their own, so that nobody waits for who reads them.

A pipe whose reader stalls would otherwise stall every request. Lines wait in a bounded queue; when it is full, new
ones are dropped, counted, and the count is written once there is room again. It does not know what a line says:
:mod:`serving.logs` gives it a function that writes one. Entry point: :class:`LineWriter`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
#: How long a line may wait; what a kill -9 can lose.
FLUSH_EVERY_S = 0.25
#: How long the end of the process waits for a reader that has stalled.
CLOSE_WITHIN_S = 3.0


class LineWriter(Generic[Entry]):
    """Writes entries to a file descriptor, one line each, from its own thread.

    Parameters
    ----------
    descriptor : int
        Where to; stays open.
    to_line : callable
        Makes an entry's line, without its end; called on the writing thread, and must not raise.
    of_dropped : callable
        Makes the entry that says how many were dropped.
    n_queue : int, default=20000
        Entries that may wait.
    """

    def __init__(
        self,
        descriptor: int,
        to_line: Callable[[Entry], str],
        of_dropped: Callable[[int], Entry],
        *,
        n_queue: int = 20_000,
    ) -> None:
        self._descriptor = descriptor
        self._to_line = to_line
        self._of_dropped = of_dropped
        self._n_queue = n_queue
        self._queue: deque[Entry] = deque()
        self._n_dropped = 0
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._write_until_closed, name="log", daemon=True)

    def open(self) -> None:
        """Start writing."""
        self._thread.start()

    def add(self, entry: Entry) -> None:
        """Queue one entry; never waits. Any thread may."""
        if len(self._queue) < self._n_queue:
            self._queue.append(entry)
        else:
            self._n_dropped += 1

    def close(self) -> None:
        """Write what is queued and stop; give up on a reader that stalls for long. Idempotent."""
        self._is_closing.set()
        self._thread.join(CLOSE_WITHIN_S)

    def _write_until_closed(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_closing.wait(FLUSH_EVERY_S)
            n_dropped, self._n_dropped = self._n_dropped, 0
            entries = [self._queue.popleft() for _ in range(len(self._queue))]
            if n_dropped:
                entries.append(self._of_dropped(n_dropped))
            if entries:
                self._write("".join(f"{self._to_line(entry)}\n" for entry in entries).encode())

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # nobody reads any more, or the disk is full: there is nowhere to say so
                return
