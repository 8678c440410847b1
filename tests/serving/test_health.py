from __future__ import annotations

from itertools import pairwise

import pytest

from serving.health import (
    EJECT_S,
    MAX_COOL_S,
    MAX_EJECT_S,
    N_CONSECUTIVE,
    PROBE_S,
    SLOW_START_S,
    WORDS,
    Health,
    RetryBudget,
)


def failing(health: Health, now: float, n: int = N_CONSECUTIVE) -> None:
    for _ in range(n):
        health.begin(now)
        health.failed(now)


def test_five_failures_in_a_row_eject_and_a_success_between_does_not() -> None:
    health = Health()
    failing(health, 100.0, N_CONSECUTIVE - 1)
    health.succeeded(100.0)
    failing(health, 100.0, N_CONSECUTIVE - 1)
    assert health.is_available(100.0)
    failing(health, 100.0, 1)
    assert not health.is_available(100.0)
    assert health.available_at(100.0) == 100.0 + EJECT_S


def test_half_of_twenty_in_ten_seconds_eject_but_not_of_older_ones() -> None:
    spread, dense = Health(), Health()
    for n in range(30):
        now = 100.0 + n
        (spread.succeeded if n % 2 else spread.failed)(now)
        (dense.succeeded if n % 2 else dense.failed)(100.0 + n / 10)
    assert spread.is_available(130.0)
    assert dense.n_ejections > 0


def test_after_the_ejection_one_probe_decides() -> None:
    health = Health()
    failing(health, 0.0)
    now = EJECT_S
    assert health.is_available(now)
    health.begin(now)
    assert not health.is_available(now), "one probe at a time"
    health.failed(now)
    assert health.available_at(now) == now + 2 * EJECT_S, "longer each time"
    now += 2 * EJECT_S
    health.begin(now)
    health.succeeded(now)
    assert health.is_available(now)
    assert health.weight(now) == pytest.approx(0.1)
    assert health.weight(now + SLOW_START_S / 2) == pytest.approx(0.55)
    assert health.weight(now + 2 * SLOW_START_S) == 1.0
    assert Health().weight(0.0) == 1.0


def test_a_probe_that_nobody_waited_for_is_given_back_and_a_lost_one_expires() -> None:
    health = Health()
    failing(health, 0.0)
    now = EJECT_S
    health.begin(now)
    health.passed()
    assert health.is_available(now)
    health.begin(now)
    assert not health.is_available(now + PROBE_S - 1)
    assert health.is_available(now + PROBE_S)


def test_failures_under_way_at_the_ejection_do_not_lengthen_it() -> None:
    health = Health()
    failing(health, 0.0, 20)
    assert (health.n_ejections, health.available_at(0.0)) == (1, EJECT_S)


def test_no_ejection_lasts_for_ever() -> None:
    health, now = Health(), 0.0
    failing(health, now)
    for _ in range(30):
        now = health.available_at(now)
        failing(health, now, 1)
    assert health.available_at(now) == now + MAX_EJECT_S


def test_what_a_deployment_asks_for_is_the_least_wait() -> None:
    health = Health()
    health.throttled(10.0, 5.0)
    health.throttled(10.0, 2.0)
    assert not health.is_available(14.9)
    assert health.is_available(15.0)
    assert health.n_ejections == 0


def test_without_a_word_the_wait_doubles_from_the_second_in_a_row_until_it_answers() -> None:
    health, waits = Health(), []
    for n in range(9):
        now = 1000.0 * n
        health.throttled(now, None)
        waits.append(health.available_at(now) - now)
    assert waits[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == MAX_COOL_S
    health.succeeded(20_000.0)
    health.throttled(20_000.0, None)
    assert health.available_at(20_000.0) == 20_000.0, "one alone may be chance"
    health.throttled(20_000.0, None)
    assert health.available_at(20_000.0) == 20_000.5


def test_a_word_for_every_state() -> None:
    health, found = Health(), []
    found.append(health.word(0.0))
    failing(health, 0.0)
    found.append(health.word(1.0))
    health.throttled(1.0, EJECT_S + 4)
    found.append(health.word(2.0))
    found.append(health.word(EJECT_S + 1))
    found.append(health.word(EJECT_S + 6))
    health.begin(EJECT_S + 6)
    found.append(health.word(EJECT_S + 7))
    health.succeeded(EJECT_S + 7)
    found.append(health.word(EJECT_S + 8))
    found.append(health.word(EJECT_S + 7 + SLOW_START_S))
    assert found == ["healthy", "ejected", "ejected", "cooling", "probing", "probing", "recovering", "healthy"]
    assert set(found) == set(WORDS)


def test_half_open_probes_are_one_in_thirty_seconds() -> None:
    health, probes = Health(), []
    failing(health, 0.0)
    for tenth in range(6_000):
        now = tenth / 10
        if health.is_available(now):
            health.begin(now)  # into a black hole: nothing comes back
            probes.append(now)
    assert len(probes) > 10
    assert min(b - a for a, b in pairwise(probes)) >= PROBE_S


def test_further_attempts_are_a_fifth_of_the_requests_and_three_a_second() -> None:
    budget, now, n_taken = RetryBudget(), 0.0, 0
    while budget.take(now):
        n_taken += 1
    assert n_taken == 30, "what was saved up"
    n_taken = 0
    for n in range(20_000):  # 200 a second for 100 s, all failing
        now = n / 200
        budget.earn(now)
        n_taken += budget.take(now)
    assert n_taken <= 0.2 * 20_000 + 3 * 100 + 30
    assert n_taken >= 0.2 * 20_000
    assert (budget.n_taken, budget.n_refused) == (30 + n_taken, 1 + 20_000 - n_taken)
