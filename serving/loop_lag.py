"""How late the event loop is: how long what is ready must wait for its turn.

With quick providers too much work shows here long before many requests are in flight. A timer is due every 20 ms,
and how late it comes is the lag; it runs only while somebody has something in hand, so an idle gateway sleeps. Of two
neighbouring readings the lesser counts: one long turn (a collection, a bundle being swapped) is no overload.

Entry point: :class:`LoopLag`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import exp

#: Between two readings.
TICK_S = 0.02
#: How long a reading matters: the average follows a lasting change to two thirds within this time.
MEMORY_S = 0.2
#: Below this an idle loop is not watched any longer.
QUIET_S = 0.001


class LoopLag:
    """The lag of the running loop, averaged over time.

    Parameters
    ----------
    is_busy : callable
        Whether there is any reason to go on watching.
    clock : callable
        Monotonic seconds.

    Attributes
    ----------
    lag_s : float
        0 until something was measured.
    """

    def __init__(self, is_busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self.lag_s = 0.0
        self._is_busy = is_busy
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = self._read_at = 0.0
        self._before_s = 0.0

    def watch(self) -> None:
        """Begin to measure, unless that has begun already."""
        if self._timer is None:
            self._read_at = self._clock()
            self._before_s = 0.0
            self._schedule()

    def note(self, late_s: float, after_s: float) -> None:
        """Take one reading.

        Parameters
        ----------
        late_s : float
            How late the timer came.
        after_s : float
            Since the reading before.
        """
        lasting_s, self._before_s = min(late_s, self._before_s), late_s
        self.lag_s += (lasting_s - self.lag_s) * (1.0 - exp(-after_s / MEMORY_S))

    def _schedule(self) -> None:
        self._due_at = self._clock() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        self.note(max(0.0, now - self._due_at), now - self._read_at)
        self._read_at = now
        if self.lag_s < QUIET_S and not self._is_busy():
            self.lag_s, self._timer = 0.0, None
        else:
            self._schedule()
