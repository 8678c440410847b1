"""Whether a deployment is to be called now: cool-downs that it asked for, ejection, probing, slow start.

::

                 5 failures in a row, or half of 20 in 10 s
    ( healthy ) ─────────────────────────────────────────────▶ ( ejected until t )
        ▲                                                          │ t has passed
        │ 60 s of slow start                                       ▼
        └──────────── a probe succeeds ──────────────────── ( half open: one probe )
                                                                   │ it fails
                                                                   └──▶ ejected, longer each time, at most 300 s

A cool-down is beside that: who says ``Retry-After`` is left alone for so long, by everybody. What a caller did never
counts. Numbers from memory and a clock only; one object a deployment, on the event loop's thread. The numbers follow
common practice (Envoy's outlier detection; Google's SRE book for the retry budget). Entry points: :class:`Health`,
:class:`RetryBudget`.
"""

from __future__ import annotations

from collections import deque

N_CONSECUTIVE = 5
N_WINDOW, WINDOW_S, WINDOW_SHARE = 20, 10.0, 0.5
EJECT_S, MAX_EJECT_S = 30.0, 300.0
#: How long a probe may take before another is let through.
PROBE_S = 30.0
#: First wait of one that throttles without saying for how long, doubled each time, and the longest.
COOL_S, MAX_COOL_S = 0.5, 30.0
SLOW_START_S, SLOW_START_LEAST = 60.0, 0.1
#: Best first. "probing" is half open: the next call, or the one under way, decides; "recovering" is the slow start.
WORDS = ("healthy", "recovering", "cooling", "probing", "ejected")


class Health:
    """The health of one deployment.

    Attributes
    ----------
    cooling_until : float
        Monotonic seconds; in the past when nothing was asked.
    ejected_until : float
        The same, for an ejection.
    n_ejections : int
        In a row: how often it was ejected since it was last healthy.
    """

    __slots__ = (
        "_failures",
        "_n_in_a_row",
        "_n_throttles",
        "_probe_until",
        "_recovered_at",
        "cooling_until",
        "ejected_until",
        "n_ejections",
    )

    def __init__(self) -> None:
        self.cooling_until = 0.0
        self.ejected_until = 0.0
        self.n_ejections = 0
        self._n_in_a_row = self._n_throttles = 0
        self._failures: deque[tuple[float, bool]] = deque(maxlen=200)
        self._probe_until = 0.0
        self._recovered_at: float | None = None

    def is_available(self, now: float) -> bool:
        """Say whether it may be called: neither cooling nor ejected, nor half open with its probe under way."""
        if now < self.cooling_until or now < self.ejected_until:
            return False
        return not self.n_ejections or now >= self._probe_until

    def available_at(self, now: float) -> float:
        """Return when it may be called next; now where it may already."""
        waiting = self._probe_until if self.n_ejections else now
        return max(now, self.cooling_until, self.ejected_until, waiting)

    def weight(self, now: float) -> float:
        """Return the share of its normal load that it should get, in [0.1, 1]: less just after it recovered."""
        if self._recovered_at is None:
            return 1.0
        return min(1.0, SLOW_START_LEAST + (1 - SLOW_START_LEAST) * (now - self._recovered_at) / SLOW_START_S)

    def word(self, now: float) -> str:
        """Return one of :data:`WORDS`: what a person calls the state it is in."""
        if now < self.ejected_until:
            return "ejected"
        if now < self.cooling_until:
            return "cooling"
        if self.n_ejections:
            return "probing"
        return "healthy" if self.weight(now) >= 1 else "recovering"

    def begin(self, now: float) -> None:
        """Note a call; of a half-open one it is the probe."""
        if self.n_ejections:
            self._probe_until = now + PROBE_S

    def succeeded(self, now: float) -> None:
        """Note an answer; of one that was under way when it was ejected, nothing follows."""
        self._n_in_a_row = self._n_throttles = 0
        if self.n_ejections and now >= self.ejected_until:
            self.n_ejections = 0
            self._failures.clear()
            self._recovered_at = now
        self._failures.append((now, False))

    def failed(self, now: float) -> None:
        """Note a failure of its own; eject it when there were too many."""
        self._n_in_a_row += 1
        self._failures.append((now, True))
        if now < self.ejected_until:
            return  # it was under way when it was ejected, or the last resort
        if self.n_ejections or self._n_in_a_row >= N_CONSECUTIVE or self._is_failing(now):
            self.n_ejections += 1
            self.ejected_until = now + min(EJECT_S * self.n_ejections, MAX_EJECT_S)
            self._probe_until = 0.0
            self._recovered_at = None

    def throttled(self, now: float, wait_s: float | None) -> None:
        """Leave it alone for as long as it asked; where it did not say, from the second in a row, longer each time."""
        self._n_throttles += 1
        if wait_s is None:
            # One alone may be chance; only who does it again without an answer between is left alone unasked.
            wait_s = min(COOL_S * 2.0 ** (self._n_throttles - 2), MAX_COOL_S) if self._n_throttles > 1 else 0.0
        self.rests(now, wait_s)
        self._probe_until = 0.0

    def rests(self, now: float, wait_s: float) -> None:
        """Leave it alone for so long; a shorter wait never cuts a longer one."""
        self.cooling_until = max(self.cooling_until, now + wait_s)

    def passed(self) -> None:
        """Note a call that said nothing of it: the caller left, or was at fault. A probe is given back."""
        self._probe_until = 0.0

    def _is_failing(self, now: float) -> bool:
        recent = [is_failure for at, is_failure in self._failures if now - at <= WINDOW_S]
        return len(recent) >= N_WINDOW and sum(recent) >= WINDOW_SHARE * len(recent)


class RetryBudget:
    """How many further attempts there may be: a fifth of the requests, and three a second.

    Without it a provider that is down is asked several times as often as when it is well.

    Parameters
    ----------
    share : float, default=0.2
        Of a further attempt that each request earns.
    per_s : float, default=3.0
        Further attempts that time earns.
    most : float, default=30.0
        What can be saved up.

    Attributes
    ----------
    n_taken, n_refused : int
        Further attempts made, and those that the budget did not allow.
    """

    __slots__ = ("_at", "_left", "_most", "_per_s", "_share", "n_refused", "n_taken")

    def __init__(self, share: float = 0.2, per_s: float = 3.0, most: float = 30.0) -> None:
        self._share = share
        self._per_s = per_s
        self._most = most
        self._left = most
        self._at: float | None = None
        self.n_taken = self.n_refused = 0

    def earn(self, now: float) -> None:
        """Note a request."""
        self._refill(now)
        self._left = min(self._most, self._left + self._share)

    def take(self, now: float) -> bool:
        """Take one further attempt, if there is one left."""
        self._refill(now)
        if self._left < 1:
            self.n_refused += 1
            return False
        self._left -= 1
        self.n_taken += 1
        return True

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._left = min(self._most, self._left + self._per_s * (now - self._at))
        self._at = now
