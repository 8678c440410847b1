"""How many calls at once a deployment takes, learned from its refusals: additive increase, multiplicative decrease.

::

    ( no limit ) ── first 429, at n in flight ──▶ ( limit = 0.8 n )
         ▲                                           │  further 429: limit x 0.8, once per round trip and second
         │                                           │  none for 10 s, and it binds: limit + 1
         └──── past what was ever in flight ─────────┘

A call is judged by how many were in flight when it began. Of a burst the provider refuses those beyond what it takes,
so the least refused number says how much that is, and later refusals of the same burst add nothing. A refusal teaches
only where as many at once, or more, were mostly refused of late: providers also refuse by chance and for other reasons,
and a limit learned of that would close what is open.

Where nobody else can answer, calls are let through above the limit, a few a second (:meth:`Capacity.may_exceed`). If
one is answered, the limit was too low (perhaps the provider counts requests per minute) and rises to it; if one is
refused, which was to be expected and cuts nothing, none is let through for 10 s. Letting through everybody would serve
nobody: what is refused cools the deployment for all, and in a simulation with five times the demand a quarter of the
capacity was used. Numbers from memory and the caller's clock only. Entry point: :class:`Capacity`.
"""

from __future__ import annotations

from collections import deque

CUT = 0.8
LEAST = 1.0
GROW_EVERY_S = 10.0
CUT_EVERY_S = 1.0
EXCEED_EVERY_S = 0.25
#: Of so many latest calls, those with at least as many in flight must be so many refusals, and so large a share.
N_JUDGED, N_TELLING, TELLING_SHARE = 64, 5, 0.5


class Capacity:
    """The learned limit of one deployment.

    Attributes
    ----------
    limit : float or None
        Calls at once, at least 1; None before the first refusal, and again once it has grown past all demand.
    """

    __slots__ = ("_changed_at", "_cut_at", "_exceed_at", "_latest", "_n_most", "limit")

    def __init__(self) -> None:
        self.limit: float | None = None
        self._changed_at = 0.0
        self._cut_at = 0.0
        self._exceed_at = 0.0
        self._n_most = 0
        self._latest: deque[tuple[int, bool]] = deque(maxlen=N_JUDGED)

    def begin(self, now: float, n_in_flight: int) -> None:
        """Note a call; the number counts itself."""
        if n_in_flight > self._n_most:
            self._n_most = n_in_flight
        if self.limit is not None and n_in_flight > self.limit:
            self._exceed_at = now + EXCEED_EVERY_S

    def has_room(self, now: float, n_in_flight: int) -> bool:
        """Say whether one more call keeps to the limit; where it does not, the limit binds, and may grow."""
        if self.limit is None or n_in_flight + 1 <= self.limit:
            return True
        if now - self._changed_at < GROW_EVERY_S:
            return False
        self._set(now, self.limit + 1)
        if self.limit > self._n_most:
            self.limit = None
        return self.limit is None or n_in_flight + 1 <= self.limit

    def may_exceed(self, now: float) -> bool:
        """Say whether one more call may be tried although there is no room."""
        return now >= self._exceed_at

    def answered(self, began_at: float, n_in_flight: int) -> None:
        """Note an answer: so many at once were not too many, if that is newer than the last refusal."""
        self._latest.append((n_in_flight, False))
        if self.limit is not None and n_in_flight > self.limit and began_at >= self._changed_at:
            self.limit = float(n_in_flight)

    def throttled(self, now: float, began_at: float, n_in_flight: int) -> None:
        """Note a refusal.

        Parameters
        ----------
        now, began_at : float
            Monotonic seconds: of the refusal, and of the call's beginning.
        n_in_flight : int
            Calls in flight when it began, itself counted.
        """
        self._latest.append((n_in_flight, True))
        limit = self.limit
        if limit is None:
            refused = sorted({n for n, is_refused in self._latest if is_refused})
            least = next(filter(self._is_telling, refused), None)
            if least is not None:
                self._set(now, CUT * least)
                self._cut_at = now
        elif n_in_flight <= limit and not self._is_telling(n_in_flight):
            return
        elif began_at < self._cut_at:
            # The same round trip: only a lesser number than any refused so far says something new.
            if CUT * n_in_flight < limit:
                self._set(now, CUT * n_in_flight)
        elif n_in_flight <= limit and now - self._cut_at >= CUT_EVERY_S:
            self._set(now, CUT * limit)
            self._cut_at = now
        elif n_in_flight > limit:
            self._exceed_at = now + GROW_EVERY_S
            if n_in_flight <= limit + 1:
                self._changed_at = now  # the next step up is known to be refused
        else:
            self._changed_at = now

    def _is_telling(self, n_in_flight: int) -> bool:
        """Say whether so many at once were mostly refused of late."""
        verdicts = [is_refused for n, is_refused in self._latest if n >= n_in_flight]
        n_refused = sum(verdicts)
        return n_refused >= N_TELLING and n_refused >= TELLING_SHARE * len(verdicts)

    def _set(self, now: float, limit: float) -> None:
        self.limit = max(LEAST, limit)
        self._changed_at = now
