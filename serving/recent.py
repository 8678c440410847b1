"""How often a deployment failed and throttled within the last minute: counts in slots that time passes over.

Bounded memory, no clock of its own, one addition per call. Used by :mod:`serving.tally`. Entry point: :class:`Recent`.
"""

from __future__ import annotations

WINDOW_S = 60.0
#: Slots of the window; what falls out of it falls out by one of them.
N_SLOTS = 12
_SLOT_S = WINDOW_S / N_SLOTS


class Recent:
    """The calls of the last minute that said something of the deployment, and how they ended."""

    __slots__ = ("_slots", "_turns")

    def __init__(self) -> None:
        self._slots = [[0, 0, 0] for _ in range(N_SLOTS)]
        self._turns = [-1] * N_SLOTS

    def add(self, now: float, *, is_error: bool = False, is_throttle: bool = False) -> None:
        """Count a call that ended now, in monotonic seconds; it failed, was throttled, or neither."""
        turn = int(now / _SLOT_S)
        at = turn % N_SLOTS
        slot = self._slots[at]
        if self._turns[at] != turn:
            self._turns[at] = turn
            slot[:] = (0, 0, 0)
        slot[0] += 1
        slot[1] += is_error
        slot[2] += is_throttle

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return calls, errors and throttles of the last 55 to 60 s."""
        oldest = int(now / _SLOT_S) - N_SLOTS
        live = [slot for slot, turn in zip(self._slots, self._turns, strict=True) if turn > oldest]
        return sum(s[0] for s in live), sum(s[1] for s in live), sum(s[2] for s in live)
