"""When to retrain: on a schedule, after so many new votes, or both. A plain loop; its clock is an argument.

Entry points: :func:`watch`, :func:`seconds_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from training.errors import InvalidSettings

_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class Triggers:
    """What sets a retraining off; either is enough.

    Parameters
    ----------
    new_votes : int or None
        Votes beyond those there were at the last attempt.
    every_s : float or None
        Since the last attempt.
    """

    new_votes: int | None = None
    every_s: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last attempt: when, and how many votes were new then."""

    time_s: float
    n_votes: int


def reason_for(triggers: Triggers, last: Attempt, now_s: float, n_votes: int) -> str | None:
    """Say why it is time, or None.

    Parameters
    ----------
    triggers : Triggers
    last : Attempt
        What happened at the last one; a refused challenger is one too, and is not tried again on the same votes.
    now_s : float
    n_votes : int
        New to the champion of now.

    Returns
    -------
    str or None
    """
    # After a promotion fewer votes are new than there were.
    fresh = n_votes - min(last.n_votes, n_votes)
    if triggers.new_votes is not None and fresh >= triggers.new_votes:
        return f"{fresh:,} new votes"
    if triggers.every_s is not None and now_s - last.time_s >= triggers.every_s:
        return f"{(now_s - last.time_s) / 3600:.1f} hours since the last"
    return None


def watch(
    triggers: Triggers,
    count: Callable[[], int],
    run: Callable[[str], None],
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
    poll_s: float,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Wait for a trigger, run, and go on until stopped.

    Parameters
    ----------
    triggers : Triggers
    count : callable
        Return how many votes are new to the champion.
    run : callable
        Retrain, told why.
    now, sleep : callable
        Of a monotonic clock.
    poll_s : float
        Between two looks.
    is_stopped : callable, optional
    """
    last = Attempt(now(), 0)
    while not is_stopped():
        n_votes = count()
        if n_votes < last.n_votes:
            last = replace(last, n_votes=n_votes)
        if why := reason_for(triggers, last, now(), n_votes):
            last = Attempt(now(), n_votes)
            run(why)
        else:
            sleep(poll_s)


def seconds_of(text: str) -> float:
    """Read a duration such as ``24h``, ``30m`` or ``7d``; raises InvalidSettings."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not found or float(found[1]) <= 0:
        raise InvalidSettings(f"a duration must be a number above 0 and one of s, m, h, d, as in 24h; got {text!r}")
    return float(found[1]) * _UNITS[found[2]]
