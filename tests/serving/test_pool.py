from __future__ import annotations

from collections import Counter

import pytest

from serving.latency import N_RECENT, Durations, TokenRate
from serving.pool import Call, Pool


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> Pool:
    return Pool({"a1": "a", "a2": "a", "b1": "b"}, clock)


def _call(pool: Pool, clock: Clock, deployment: str, seconds: float, output_tokens: int | None = None) -> Call:
    call = pool.begin(deployment)
    clock.now += seconds
    call.first_byte()
    call.finish(output_tokens=output_tokens)
    return call


def test_a_call_is_in_flight_until_it_finishes_and_finishes_once(pool: Pool, clock: Clock) -> None:
    call = pool.begin("a1")
    assert pool.snapshot()[0].n_in_flight == 1
    clock.now += 2
    call.first_byte()
    clock.now += 3
    call.first_byte()
    call.finish("ok", 50, 0.25)
    call.finish("timeout", 50, 0.25)
    status = pool.snapshot()[0]
    assert (call.first_byte_s, call.total_s) == (2, 5)
    assert (status.n_in_flight, status.n_requests, status.n_errors, status.cost_usd) == (0, 1, 0, 0.25)
    assert (status.first_byte_s, status.total_s, status.output_tokens_per_s) == (2, 5, 10)


def test_nothing_observed_is_none_and_not_zero(pool: Pool) -> None:
    status = pool.snapshot()[2]
    assert (status.deployment, status.candidate, status.n_requests) == ("b1", "b", 0)
    assert status.total_s is status.total_p50_s is status.first_byte_p95_s is status.cost_usd is None
    assert status.last_error is status.last_used_age_s is status.output_tokens_per_s is None
    assert pool.latency_s("b") is pool.latency_s("nobody") is None


def test_an_unknown_cost_is_counted_and_not_summed(pool: Pool, clock: Clock) -> None:
    pool.begin("a1").finish("ok", 10, None)
    pool.begin("a1").finish("ok", 10, 0.5)
    status = pool.snapshot()[0]
    assert (status.cost_usd, status.n_unknown_cost) == (0.5, 1)


def test_errors_count_by_kind_and_do_not_touch_the_latency(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 1.0)
    for outcome in ("timeout", "broken", "timeout"):
        call = pool.begin("a1")
        clock.now += 50
        call.finish(outcome)
    clock.now += 7
    status = pool.snapshot()[0]
    assert (status.n_errors, dict(status.errors)) == (3, {"timeout": 2, "broken": 1})
    assert (status.last_error, status.last_error_age_s, status.last_used_age_s) == ("timeout", 7, 7)
    assert (status.total_s, status.total_p95_s) == (1.0, 1.0)


def test_what_a_caller_did_never_counts_against_a_deployment(pool: Pool) -> None:
    for outcome in ("client_disconnected", "caller_error", "gateway_error"):
        pool.begin("a1").finish(outcome)
    status = pool.snapshot()[0]
    assert (status.n_requests, status.n_errors, status.last_error) == (3, 0, None)
    assert (status.n_client_disconnects, status.n_caller_errors) == (1, 1)


def test_the_average_moves_a_tenth_of_the_way(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 1.0)
    _call(pool, clock, "a1", 2.0)
    assert pool.snapshot()[0].total_s == pytest.approx(1.1)


def test_percentiles_are_of_the_latest_calls_only() -> None:
    durations = Durations()
    for n in range(1, 101):
        durations.add(float(n))
    assert (durations.quantile_s(0.5), durations.quantile_s(0.95), durations.quantile_s(1.0)) == (50, 95, 100)
    for _ in range(N_RECENT):
        durations.add(7.0)
    assert (durations.quantile_s(0.5), durations.quantile_s(1.0)) == (7, 7)


def test_the_least_busy_and_quickest_deployment_is_chosen(pool: Pool, clock: Clock) -> None:
    assert pool.choose("a") == "a1"
    _call(pool, clock, "a1", 1.0)
    _call(pool, clock, "a2", 3.0)
    assert pool.choose("a") == "a1"
    busy = [pool.begin("a1") for _ in range(3)]
    assert pool.choose("a") == "a2"  # (3 + 1) x 1 s against (0 + 1) x 3 s
    busy[0].finish("client_disconnected")
    assert pool.choose("a") == "a2"  # (2 + 1) x 1 s ties with 3 s; the one with fewer requests wins
    busy[1].finish("client_disconnected")
    assert pool.choose("a") == "a1"
    assert (pool.choose("b"), pool.choose("nobody")) == ("b1", None)


def test_a_deployment_never_used_gets_its_turn(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 1.0)
    pool.begin("a1")
    assert pool.choose("a") == "a2"


def test_a_deployment_that_only_fails_does_not_keep_all_the_traffic(pool: Pool, clock: Clock) -> None:
    chosen = []
    for _ in range(6):
        name = pool.choose("a")
        assert name is not None
        chosen.append(name)
        pool.begin(name).finish("unreachable")
    assert chosen == ["a1", "a2"] * 3, "nothing is known of either: by turns"
    _call(pool, clock, "a2", 2.0)
    # a1, never a success, counts as slow as a2: level, and the fewer requests (3 against 4) decide once.
    assert pool.choose("a") == "a1"
    pool.begin("a1").finish("unreachable")
    pool.begin("a1").finish("unreachable")
    assert pool.choose("a") == "a2"


def test_one_that_failed_counts_as_the_slowest_known(clock: Clock) -> None:
    pool = Pool({"a1": "a", "a2": "a"}, clock)
    pool.begin("a1").finish("timeout")
    _call(pool, clock, "a2", 1.0)
    _call(pool, clock, "a2", 1.0)
    assert pool.choose("a") == "a1"  # level, and the fewer requests decide
    pool.begin("a1")  # (1 + 1) x 1 s is more than 1 s
    assert pool.choose("a") == "a2"


def test_of_many_two_are_compared_at_random(clock: Clock) -> None:
    pool = Pool({f"a{n}": "a" for n in range(1, 5)}, clock, seed=1)
    for n in range(1, 5):
        _call(pool, clock, f"a{n}", float(n))
    chosen = Counter(pool.choose("a") for _ in range(2000))
    # The quickest wins whenever it is drawn, half of the time; the slowest never.
    assert chosen["a4"] == 0
    assert chosen["a1"] == pytest.approx(1000, abs=80)
    assert chosen["a2"] == pytest.approx(2000 / 3, abs=80)


def test_who_asked_to_be_left_alone_or_failed_too_often_is(pool: Pool, clock: Clock) -> None:
    pool.begin("a1").finish("overloaded", wait_s=7.0)
    assert {pool.choose("a") for _ in range(5)} == {"a2"}
    assert pool.choose("a", {"a2"}) is None
    assert pool.choose("a", {"a2"}, or_ejected=True) is None  # it asked for it
    assert pool.wait_s(["a"]) == 0.0
    for _ in range(5):
        pool.begin("a2").finish("broken")
    assert pool.choose("a") is None
    assert pool.choose("a", or_ejected=True) == "a2"
    assert pool.wait_s(["a"]) == 0.0  # an ejected one is better than none
    pool.begin("a2").finish("overloaded", wait_s=9.0)
    assert pool.choose("a", or_ejected=True) is None
    assert pool.wait_s(["a"]) == pytest.approx(7.0)
    assert pool.wait_s(["nobody"]) is None
    clock.now += 7.0
    assert pool.choose("a") == "a1"
    (a1, a2, *_) = pool.snapshot()
    assert (a1.cooling_for_s, a1.ejected_for_s, a2.ejected_for_s, a2.n_ejections) == (0.0, 0.0, 23.0, 1)


def test_latency_is_that_of_the_quickest_deployment(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 4.0, 100)
    _call(pool, clock, "a2", 2.0, 100)
    assert pool.latency_s("a") == 2.0


def test_the_rate_is_tokens_over_time_and_the_newest_answer_weighs_a_tenth() -> None:
    rate = TokenRate()
    assert rate.tokens_per_s() is None
    rate.add(100, 2.0)
    assert rate.tokens_per_s() == pytest.approx(50)
    rate.add(300, 1.0)  # (.9 x 100 + 300) tokens in (.9 x 2 + 1) s
    assert rate.tokens_per_s() == pytest.approx(390 / 2.8)


def test_a_reload_keeps_the_history_of_what_stays(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 1.0)
    _call(pool, clock, "a2", 1.0)
    going, staying = pool.begin("b1"), pool.begin("a1")
    pool.replace({"c1": "c", "a1": "a", "a2": "b"})
    going.finish("ok")
    staying.finish("ok")
    by_name = {status.deployment: status for status in pool.snapshot()}
    assert list(by_name) == ["c1", "a1", "a2"]
    assert (by_name["a1"].n_requests, by_name["a1"].n_in_flight) == (2, 0)
    assert by_name["a2"].n_requests == 0  # another candidate: another history
    assert pool.choose("b") == "a2"
