"""The loop that retrains, by a clock of its own."""

from __future__ import annotations

import pytest

from training.errors import InvalidSettings
from training.triggers import Attempt, Triggers, reason_for, seconds_of, watch


class Clock:
    """Time goes on by sleeping; votes come at ``votes_per_s``."""

    def __init__(self, votes_per_s=1.0):
        self.time_s, self.votes_per_s, self.base = 0.0, votes_per_s, 0.0
        self.runs = []

    def sleep(self, seconds):
        self.time_s += seconds

    def count(self):
        return int(self.time_s * self.votes_per_s - self.base)

    def run(self, why):
        self.runs.append((self.time_s, why))


def watched(clock, triggers, until_s, run=None):
    watch(
        triggers,
        clock.count,
        run or clock.run,
        now=lambda: clock.time_s,
        sleep=clock.sleep,
        poll_s=10.0,
        is_stopped=lambda: clock.time_s >= until_s,
    )
    return clock.runs


def test_after_so_many_new_votes_and_not_again_on_the_same():
    runs = watched(Clock(), Triggers(new_votes=100), 350)
    assert [time_s for time_s, _ in runs] == [100, 200, 300]
    assert runs[0][1] == "100 new votes"


def test_every_so_often():
    runs = watched(Clock(0), Triggers(every_s=60), 200)
    assert [time_s for time_s, _ in runs] == [60, 120, 180]


def test_either_trigger_is_enough_and_starts_the_time_anew():
    runs = watched(Clock(), Triggers(new_votes=100, every_s=60), 200)
    assert [time_s for time_s, _ in runs] == [60, 120, 180]


def test_a_promotion_makes_the_count_begin_again():
    clock = Clock()

    def run(why):
        clock.run(why)
        clock.base = clock.time_s  # the new champion knows all votes until now

    watched(clock, Triggers(new_votes=100), 350, run)
    assert [time_s for time_s, _ in clock.runs] == [100, 200, 300]


def test_nothing_to_do_is_none():
    assert reason_for(Triggers(10, 60), Attempt(0, 5), 59, 14) is None
    assert reason_for(Triggers(10, 60), Attempt(0, 5), 59, 15) == "10 new votes"


def test_durations():
    assert [seconds_of(text) for text in ("30s", "5m", "24h", "1.5d")] == [30, 300, 86_400, 129_600]
    for text in ("24", "h", "-1h", "0s", "1w", ""):
        with pytest.raises(InvalidSettings, match="a duration must be a number above 0"):
            seconds_of(text)
