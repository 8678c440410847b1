from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from serving.capacity import CUT_EVERY_S, EXCEED_EVERY_S, GROW_EVERY_S, N_TELLING, Capacity
from serving.pool import Call, Pool


def refused(capacity: Capacity, now: float, n_in_flight: int, began_at: float | None = None) -> None:
    capacity.begin(now, n_in_flight)
    capacity.throttled(now, now if began_at is None else began_at, n_in_flight)


def learn(capacity: Capacity, now: float, n_in_flight: int) -> None:
    """Refuse as often as tells something."""
    for _ in range(N_TELLING):
        refused(capacity, now, n_in_flight)


def test_there_is_no_limit_until_refusals_tell_one() -> None:
    capacity = Capacity()
    assert capacity.has_room(0.0, 10_000)
    for _ in range(N_TELLING - 1):
        refused(capacity, 0.0, 10)
        assert capacity.limit is None
    refused(capacity, 0.0, 10)
    assert capacity.limit == 8
    assert capacity.has_room(0.0, 7)
    assert not capacity.has_room(0.0, 8)


def test_of_a_burst_the_least_refused_number_counts_and_only_once() -> None:
    capacity = Capacity()
    for n in (30, 11, 10, 12, 40):
        refused(capacity, 100.1, n, began_at=100.0)
    assert capacity.limit == 8


def test_further_refusals_cut_once_a_second_and_never_below_one() -> None:
    capacity = Capacity()
    learn(capacity, 0.0, 100)
    limits = []
    for tenth in range(1, 31):
        refused(capacity, tenth / 10, 1)
        limits.append(capacity.limit)
    assert limits[8] == 80, "not within a second of the first"
    assert limits[9] == pytest.approx(64)
    assert limits[-1] == pytest.approx(100 * 0.8**4)
    for n in range(100):
        refused(capacity, 10.0 + CUT_EVERY_S * n, 1)
    assert capacity.limit == 1
    assert capacity.has_room(200.0, 0)


def test_a_refusal_above_the_limit_was_expected_and_ends_such_tries_for_a_while() -> None:
    capacity = Capacity()
    learn(capacity, 0.0, 10)
    assert capacity.may_exceed(2.0)
    capacity.begin(2.0, 9)
    assert not capacity.may_exceed(2.1), "a few a second"
    assert capacity.may_exceed(2.0 + EXCEED_EVERY_S)
    for n in range(50):
        refused(capacity, 3.0 + n, 20)
    assert capacity.limit == 8
    assert not capacity.may_exceed(52.0 + GROW_EVERY_S - 0.1)
    assert capacity.may_exceed(52.0 + GROW_EVERY_S)


def test_an_answer_above_the_limit_raises_it_unless_it_is_older_than_the_refusal() -> None:
    capacity = Capacity()
    learn(capacity, 5.0, 10)
    capacity.answered(4.0, 9)
    assert capacity.limit == 8
    capacity.answered(6.0, 7)
    assert capacity.limit == 8
    capacity.answered(6.0, 9)
    assert capacity.limit == 9


def test_the_limit_grows_by_one_in_ten_seconds_where_it_binds() -> None:
    capacity = Capacity()
    learn(capacity, 0.0, 20)
    assert capacity.has_room(GROW_EVERY_S * 100, 10), "it does not bind"
    assert capacity.limit == 16
    assert not capacity.has_room(GROW_EVERY_S - 0.1, 16)
    assert capacity.has_room(GROW_EVERY_S, 16)
    assert capacity.limit == 17
    assert not capacity.has_room(GROW_EVERY_S + 0.1, 17)
    refused(capacity, GROW_EVERY_S + 5, 18)  # a last resort: the next step is refused, so it waits
    assert not capacity.has_room(2 * GROW_EVERY_S + 1, 17)


def test_a_limit_past_all_demand_is_forgotten() -> None:
    capacity, now = Capacity(), 0.0
    learn(capacity, now, 5)
    for _ in range(2):
        now += GROW_EVERY_S
        assert capacity.limit is not None
        capacity.has_room(now, 100)
    assert capacity.limit is None


def test_refusals_by_chance_teach_no_limit() -> None:
    capacity, chance, now = Capacity(), random.Random(1), 0.0
    for _ in range(20_000):
        now += 0.01
        n = chance.randint(1, 16)
        capacity.begin(now, n)
        if chance.random() < 0.05:
            capacity.throttled(now, now, n)
        else:
            capacity.answered(now, n)
        assert capacity.limit is None


@dataclass
class Provider:
    """Serves so many calls at once, each for about a second, and refuses the others within 20 ms."""

    n_at_once: int
    n_serving: int = 0
    n_calls: int = 0
    n_refused: int = 0
    served_s: float = 0.0


class Simulation:
    """Callers that ask again as soon as they were answered, at a provider with a limit of its own; no real time."""

    def __init__(self, provider: Provider, n_callers: int, wait_s: float = 0.2) -> None:
        self.now = 1000.0
        self.wait_s = wait_s
        self.provider = provider
        self.pool = Pool({"a1": "a"}, lambda: self.now, seed=0)
        self._random = random.Random(0)
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        for _ in range(n_callers):
            self._after(self._random.random(), self._ask)

    def run(self, seconds: float) -> tuple[float, float]:
        """Return the shares of refused calls, and of the provider's capacity that was used."""
        provider = self.provider
        provider.n_calls = provider.n_refused = 0
        provider.served_s = 0.0
        end = self.now + seconds
        while self._events[0][0] < end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end
        return provider.n_refused / provider.n_calls, provider.served_s / (provider.n_at_once * seconds)

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def _ask(self) -> None:
        if self.pool.choose("a") is None and self.pool.choose("a", or_ejected=True) is None:
            self._after(self.wait_s, self._ask)  # 503
            return
        call, provider = self.pool.begin("a1"), self.provider
        provider.n_calls += 1
        if provider.n_serving >= provider.n_at_once:
            provider.n_refused += 1
            self._after(0.02, lambda: self._end(call, "overloaded"))
            return
        provider.n_serving += 1
        seconds = self._random.uniform(0.5, 1.5)
        provider.served_s += seconds
        self._after(seconds, lambda: self._served(call))

    def _served(self, call: Call) -> None:
        self.provider.n_serving -= 1
        self._end(call, "ok")

    def _end(self, call: Call, outcome: str) -> None:
        call.finish(outcome)
        self._after(0.001, self._ask)


@pytest.mark.parametrize("n_callers", [9, 12, 40])
def test_calls_keep_under_a_limit_that_the_provider_never_told(n_callers: int) -> None:
    simulation = Simulation(Provider(n_at_once=8), n_callers)
    simulation.run(30)
    refused_share, used_share = simulation.run(300)
    assert refused_share < 0.05
    assert used_share >= 0.8


def test_without_a_learned_limit_the_same_callers_are_refused_far_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capacity, "throttled", lambda *_: None)
    simulation = Simulation(Provider(n_at_once=8), 40)
    simulation.run(30)
    assert simulation.run(300)[0] > 0.2


def test_a_provider_that_takes_more_than_before_is_found_out() -> None:
    simulation = Simulation(Provider(n_at_once=8), 40)
    simulation.run(60)
    simulation.provider.n_at_once = 16
    simulation.run(200)
    refused_share, used_share = simulation.run(300)
    assert refused_share < 0.05
    assert used_share >= 0.8
