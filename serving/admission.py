"""Admission: how much is taken on at once, who waits for a moment, and who is turned away first.

Two things can be too much. **Places**: so many requests are in flight at most; a fifth of the places is kept for the
class "high", and who finds none waits shortly, first come first served within its class. **Work**: with quick
providers the processor is busy long before the places are taken, which shows in how late the event loop is; then
"batch", and a little later "normal", are turned away with a chance that grows with the lag, before their body is
read. "high" is turned away only where there is no place.

The queue is for bursts. Where waiting was in vain a moment ago, too much is not a burst: then only few of a class
wait, and shortly, so that the others hear at once. "high" is always given the time.

Turning away is cheap (one answer, no record, at most one log line a second) and closes nothing. All of it runs on the
event loop's thread. Entry points: :class:`Admission`, :func:`priority_of`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, inf

from serving import logs
from serving.errors import InvalidRequest, Overloaded
from serving.keys import ANONYMOUS, Principal
from serving.loop_lag import LoopLag

#: Share of the places that only "high" may take.
RESERVED_SHARE = 0.2
#: How long a class waits in vain after one of it did, how long one waits then, and for how many places one more.
IN_VAIN_FOR_S = 1.0
SHORT_WAIT_S = 0.025
_PLACES_PER_SHORT_WAIT = 50
#: By which a request says that it is less urgent than its key.
PRIORITY_HEADER = b"x-turnout-priority"
_LOG_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Priority:
    """One class.

    Parameters
    ----------
    name : str
    rank : int
        0 is served first.
    sheds_from_s, sheds_all_s : float
        Lag of the event loop from which some of it, and from which all of it, is turned away.
    retry_after_s : float
        When those turned away may come back.
    patience : float, default=1.0
        How many times the usual wait for a place it waits.
    """

    name: str
    rank: int
    sheds_from_s: float
    sheds_all_s: float
    retry_after_s: float
    patience: float = 1.0


HIGH = Priority("high", 0, inf, inf, 1.0, patience=8.0)
#: A lag of 25 ms can be felt in a stream; at 250 ms nothing is quick any more. Batch is gone where normal begins to go.
NORMAL = Priority("normal", 1, 0.05, 0.25, 1.0)
BATCH = Priority("batch", 2, 0.025, 0.05, 5.0)
_ORDER = (HIGH, NORMAL, BATCH)
PRIORITIES: Mapping[str, Priority] = {row.name: row for row in _ORDER}


@dataclass(frozen=True, slots=True)
class AdmissionStatus:
    """How much is in hand; ``n_shed`` counts by class since the start, ``lag_s`` is of the event loop."""

    n_in_flight: int
    n_waiting: int
    max_in_flight: int
    queue_wait_s: float
    n_shed: Mapping[str, int]
    lag_s: float


_Place = asyncio.Future[None]


class Admission:
    """The places, and who waits for one.

    Parameters
    ----------
    max_in_flight : int
        As many may wait as may be in flight.
    queue_wait_s : float
        Longest wait, of high ones four times as long; 0 turns away at once.
    chance : callable
        In [0, 1).
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        max_in_flight: int = 1000,
        queue_wait_s: float = 0.25,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.lag = LoopLag(lambda: self._n_in_flight > 0 or self._n_waiting > 0)
        self._chance = chance
        self._n_in_flight = self._n_unreserved = self._n_waiting = 0
        self._queues: tuple[OrderedDict[_Place, None], ...] = tuple(OrderedDict() for _ in _ORDER)
        self._in_vain_until = [-inf for _ in _ORDER]
        self._n_shed = dict.fromkeys(PRIORITIES, 0)
        self._n_untold = 0
        self._told_at = -inf
        self._max_in_flight, self._max_unreserved, self._queue_wait_s = 0, 0, 0.0
        self.resize(max_in_flight, queue_wait_s)

    def resize(self, max_in_flight: int, queue_wait_s: float) -> None:
        """Change the limits; who is inside stays."""
        self._max_in_flight = max_in_flight
        # Where there is but one place, it is for everybody.
        self._max_unreserved = max(1, max_in_flight - ceil(RESERVED_SHARE * max_in_flight))
        self._queue_wait_s = queue_wait_s
        self._let_in()

    def screen(self, priority: Priority) -> None:
        """Turn away who would wait in vain, or come when the loop is late; to be asked before the body is read.

        Raises
        ------
        Overloaded
        """
        lag_s = self.lag.lag_s
        if lag_s > priority.sheds_from_s:
            share = (lag_s - priority.sheds_from_s) / (priority.sheds_all_s - priority.sheds_from_s)
            if self._chance() < share:
                raise self._shed(priority)
        if self._clock() < max(self._in_vain_until[: priority.rank], default=-inf):
            raise self._shed(priority)  # there is not enough for a more urgent class
        if not self._has_room(priority) and not self._may_wait(priority):
            raise self._shed(priority)

    def take(self, priority: Priority) -> bool:
        """Take a place, to be given back; False where there is none now."""
        if not self._has_room(priority):
            return False
        self._n_in_flight += 1
        self._n_unreserved += priority is not HIGH
        self.lag.watch()
        return True

    async def wait(self, priority: Priority) -> None:
        """Wait for a place, and take it; whoever is cancelled while waiting has none.

        Raises
        ------
        Overloaded
            None came free in time, or the queue is full.
        """
        if not self._may_wait(priority):
            raise self._shed(priority)
        if self._n_waiting >= self._max_in_flight:
            self._send_away_one_below(priority)
        wait_s = self._queue_wait_s * priority.patience
        if self._is_in_vain(priority):
            wait_s = min(wait_s, SHORT_WAIT_S)
        loop = asyncio.get_running_loop()
        place: _Place = loop.create_future()
        queue = self._queues[priority.rank]
        queue[place] = None
        self._n_waiting += 1
        timer = loop.call_later(wait_s, self._wait_ended, priority, place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.exception() is None:
                self.give_back(priority)  # it was given in the very turn in which the caller left
            raise
        finally:
            timer.cancel()
            if place in queue:
                del queue[place]
                self._n_waiting -= 1

    def give_back(self, priority: Priority) -> None:
        """Give a place back, once for each taken."""
        self._n_in_flight -= 1
        self._n_unreserved -= priority is not HIGH
        if self._n_waiting:
            self._let_in()

    def status(self) -> AdmissionStatus:
        """Return how much is in hand and how much was turned away."""
        return AdmissionStatus(
            self._n_in_flight,
            self._n_waiting,
            self._max_in_flight,
            self._queue_wait_s,
            dict(self._n_shed),
            self.lag.lag_s,
        )

    def _has_room(self, priority: Priority) -> bool:
        # Whoever waits was let in as soon as there was room, so room means that nobody of this class waits.
        if self._n_in_flight >= self._max_in_flight:
            return False
        return priority is HIGH or self._n_unreserved < self._max_unreserved

    def _may_wait(self, priority: Priority) -> bool:
        if self._queue_wait_s <= 0:
            return False
        if self._is_in_vain(priority):
            n_waiting = len(self._queues[priority.rank])
            return n_waiting <= self._max_in_flight // _PLACES_PER_SHORT_WAIT
        return self._n_waiting < self._max_in_flight or any(self._queues[priority.rank + 1 :])

    def _let_in(self) -> None:
        for priority, queue in zip(_ORDER, self._queues, strict=True):
            while queue and self._has_room(priority):
                place, _ = queue.popitem(last=False)
                self._n_waiting -= 1
                if not place.done() and self.take(priority):
                    place.set_result(None)

    def _is_in_vain(self, priority: Priority) -> bool:
        return self._clock() < self._in_vain_until[priority.rank]

    def _wait_ended(self, priority: Priority, place: _Place) -> None:
        if priority is not HIGH:
            self._in_vain_until[priority.rank] = self._clock() + IN_VAIN_FOR_S
        self._give_up(priority, place)

    def _give_up(self, priority: Priority, place: _Place) -> None:
        if not place.done():
            place.set_exception(self._shed(priority))

    def _send_away_one_below(self, priority: Priority) -> None:
        """Make room in the queue: of the lowest class the last to come leaves."""
        for lower in reversed(_ORDER):
            queue = self._queues[lower.rank]
            if lower.rank > priority.rank and queue:
                place, _ = queue.popitem()
                self._n_waiting -= 1
                self._give_up(lower, place)
                return

    def _shed(self, priority: Priority) -> Overloaded:
        self._n_shed[priority.name] += 1
        self._n_untold += 1
        now = self._clock()
        if now - self._told_at >= _LOG_EVERY_S:
            logs.event(
                "shed",
                {"n_shed": self._n_untold, "n_in_flight": self._n_in_flight, "lag_s": self.lag.lag_s},
                level="warning",
            )
            self._told_at, self._n_untold = now, 0
        return Overloaded(
            f"the gateway has more to do than it can: try again later (priority: {priority.name})",
            retry_after_s=priority.retry_after_s,
        )


def priority_of(principal: Principal, claim: bytes | None) -> Priority:
    """Return the class of a request: its key's, or a lower one that it claims, in whatever case.

    Whoever is anonymous comes from this machine: normal, and may claim any. What is refused here is refused in the
    body's ``turnout.priority`` too (:mod:`serving.deciding`), once that is read.

    Raises
    ------
    InvalidRequest
        The claim is no class, or one above the key's.
    """
    is_anonymous = principal is ANONYMOUS
    own = NORMAL if is_anonymous else PRIORITIES[principal.priority]
    if claim is None:
        return own
    name = PRIORITY_HEADER.decode()
    claimed = PRIORITIES.get(claim.decode("latin-1").strip().lower())
    if claimed is None:
        raise InvalidRequest(f"{name} must be one of {', '.join(PRIORITIES)}", param=name)
    if not is_anonymous and claimed.rank < own.rank:
        raise InvalidRequest(f"{name}: this key may ask for {own.name} at most", param=name)
    return claimed
