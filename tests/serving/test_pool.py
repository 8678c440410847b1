from __future__ import annotations

from collections import Counter
from math import inf

import pytest

from router import Speed
from router.pricing import Usage
from serving.capacity import N_TELLING
from serving.latency import BOUNDS_S, N_RECENT, Durations, TokenRate
from serving.pool import STALE_S, Call, Pool


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


def _stream(
    pool: Pool, clock: Clock, deployment: str, first_s: float, rest_s: float = 0.0, output_tokens: int | None = None
) -> Call:
    call = pool.begin(deployment, is_stream=True)
    clock.now += first_s
    call.first_byte()
    clock.now += rest_s
    call.finish("ok", output_tokens)
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
    assert (status.first_content.n, status.whole.average_s, status.output_tokens_per_s) == (0, 5, 10)


def test_nothing_observed_is_none_and_not_zero(pool: Pool) -> None:
    status = pool.snapshot()[2]
    assert (status.deployment, status.candidate, status.n_requests) == ("b1", "b", 0)
    assert status.whole.average_s is status.whole.p50_s is status.first_content.p95_s is status.cost_usd is None
    assert status.error_share is status.throttle_share is status.n_in_flight_limit is None
    assert (status.health, status.whole.n, status.tokens.input_tokens) == ("healthy", 0, 0)
    assert status.last_error is status.last_used_age_s is status.output_tokens_per_s is None
    assert pool.speed("b") is pool.speed("nobody") is None
    assert pool.quantile_s("b1", 0.5) is pool.quantile_s("nobody", 0.5) is None
    assert pool.first_content_deadline_s("b1") == pool.first_content_deadline_s("nobody", True) == inf


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
    assert (status.whole.average_s, status.whole.p99_s) == (1.0, 1.0)


def test_what_a_caller_did_never_counts_against_a_deployment(pool: Pool) -> None:
    for outcome in ("client_disconnected", "caller_error", "gateway_error"):
        pool.begin("a1").finish(outcome)
    status = pool.snapshot()[0]
    assert (status.n_requests, status.n_errors, status.last_error) == (3, 0, None)
    assert (status.n_client_disconnects, status.n_caller_errors) == (1, 1)


def test_the_average_moves_a_tenth_of_the_way(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 1.0)
    _call(pool, clock, "a1", 2.0)
    assert pool.snapshot()[0].whole.average_s == pytest.approx(1.1)


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


def test_streamed_and_whole_answers_are_timed_apart(pool: Pool, clock: Clock) -> None:
    _stream(pool, clock, "a1", 0.5, 2.0, 41)
    _call(pool, clock, "a1", 4.0, 100)
    status = pool.snapshot()[0]
    assert (status.first_content.n, status.first_content.p99_s) == (1, 0.5)
    assert (status.whole.n, status.whole.p99_s) == (1, 4.0)
    assert status.output_tokens_per_s == pytest.approx(20)  # the 40 after the first, in 2 s
    _call(pool, clock, "a2", 1.0)
    assert pool.choose("a") == "a2"  # 1 s against 4
    _stream(pool, clock, "a2", 0.8)
    assert pool.choose("a", is_stream=True) == "a1"  # 0.5 s against 0.8


def test_reasoning_does_not_count_as_written_after_the_first_content(pool: Pool, clock: Clock) -> None:
    call = pool.begin("a1", is_stream=True)
    clock.now += 3
    call.first_byte()
    clock.now += 2
    usage = Usage(1000, 301, cache_read_tokens=400, reasoning_tokens=200)
    call.finish("ok", 301, usage=usage)
    status = pool.snapshot()[0]
    assert status.output_tokens_per_s == pytest.approx(50)  # 100 of them in 2 s
    # Predicted tokens have reasoning in them, so the time of one is over all.
    assert pool.speed("a") == Speed(3.0, pytest.approx(2 / 301))
    pool.begin("a1").finish("client_disconnected", usage=Usage(7, 1))
    tokens = pool.snapshot()[0].tokens
    assert (tokens.input_tokens, tokens.output_tokens, tokens.cache_read_tokens) == (1007, 302, 400)
    assert (tokens.reasoning_tokens, tokens.cache_write_tokens) == (200, 0)


def test_a_candidate_is_as_fast_as_its_fastest_deployment_that_may_be_called(pool: Pool, clock: Clock) -> None:
    for first_s in (*[1.0] * 9, 5.0):
        _stream(pool, clock, "a1", first_s, 10.0, 100)
    _stream(pool, clock, "a2", 3.0, 40.0, 100)
    assert pool.speed("a") == Speed(1.0, pytest.approx(0.1))  # the 9th of 10
    pool.begin("a1").finish("overloaded", wait_s=60.0)
    assert pool.speed("a") == Speed(3.0, pytest.approx(0.4))
    pool.begin("a2").finish("overloaded", wait_s=60.0)
    assert pool.speed("a") == Speed(1.0, pytest.approx(0.1)), "where none may be called all count"


def test_whole_answers_stand_for_the_speed_while_none_was_streamed(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "b1", 4.0)
    assert pool.speed("b") == Speed(4.0, 0.0)
    _call(pool, clock, "b1", 4.0, 100)
    assert pool.speed("b") == Speed(0.0, pytest.approx(0.04))


def test_speeds_are_taken_as_they_were_for_a_second_and_forgotten_when_another_is_much_newer(
    pool: Pool, clock: Clock
) -> None:
    _call(pool, clock, "b1", 4.0, 100)
    assert set(pool.speeds()) == {"b"}
    clock.now += 2 * STALE_S
    assert set(pool.speeds()) == {"b"}, "nothing newer is known of anybody"
    call = pool.begin("a1")
    clock.now += 0.5
    call.finish("ok", 10)
    assert set(pool.speeds()) == {"b"}, "as it was"
    clock.now += 1.0
    assert set(pool.speeds()) == {"a"}
    assert pool.speed("b") is not None


def test_an_old_answer_says_nothing_against_a_deployment(pool: Pool, clock: Clock) -> None:
    _call(pool, clock, "a1", 9.0)
    _call(pool, clock, "a2", 1.0)
    assert pool.choose("a") == "a2"
    clock.now += STALE_S
    _call(pool, clock, "a2", 1.0)
    assert pool.choose("a") == "a1", "level, and the fewer requests decide"


def test_rates_are_of_the_last_minute_and_a_throttle_is_no_error(pool: Pool, clock: Clock) -> None:
    pool.begin("a1").finish("broken")
    clock.now += 61
    outcomes = ("ok", "ok", "overloaded", "timeout", "client_disconnected", "caller_error")
    for outcome in outcomes:
        pool.begin("a1").finish(outcome)
        clock.now += 5
    status = pool.snapshot()[0]
    assert (status.error_share, status.throttle_share) == (0.25, 0.25)
    assert status.n_errors == 3
    clock.now += 61
    status = pool.snapshot()[0]
    assert status.error_share is status.throttle_share is None


def test_a_deadline_is_twice_the_99_percent_quantile_once_twenty_answers_are_known(pool: Pool, clock: Clock) -> None:
    for n in range(20):
        assert pool.first_content_deadline_s("a1", is_stream=True) == inf
        _stream(pool, clock, "a1", 7.0 if n == 5 else 1.0)
    assert pool.first_content_deadline_s("a1", is_stream=True) == 14.0
    assert pool.first_content_deadline_s("a1", is_stream=False) == inf, "of whole answers nothing is known"
    for seconds, streamed_s, whole_s in ((0.1, 10.0, 10.0), (100.0, 120.0, 200.0)):
        for _ in range(N_RECENT):
            _stream(pool, clock, "a2", seconds)
            _call(pool, clock, "a2", seconds)
        assert pool.first_content_deadline_s("a2", is_stream=True) == streamed_s
        assert pool.first_content_deadline_s("a2", is_stream=False) == whole_s


def test_one_whose_requests_grew_longer_is_waited_for_longer_and_a_silent_one_is_not(pool: Pool, clock: Clock) -> None:
    for _ in range(20):
        _call(pool, clock, "a1", 6.0)
    assert pool.first_content_deadline_s("a1") == 12.0
    for _ in range(4):
        call = pool.begin("a1")
        clock.now += 12.0
        call.finish("timeout")
        assert pool.first_content_deadline_s("a1") == 12.0, "it may have fallen silent"
    impatient = pool.begin("a1")
    clock.now += 0.3
    impatient.finish("timeout")
    assert pool.first_content_deadline_s("a1") == 12.0, "what its caller cut short says nothing"
    _call(pool, clock, "a1", 6.0)
    assert pool.first_content_deadline_s("a1") == 24.0, "it answers, so it was only slow"
    assert pool.snapshot()[0].whole.average_s == pytest.approx(6.0)
    assert pool.snapshot()[0].whole.n == 21


def test_durations_are_counted_in_buckets() -> None:
    durations = Durations()
    for seconds in (0.05, 0.051, 1.0, 1000.0):
        durations.add(seconds)
    histogram = durations.histogram()
    assert len(histogram.counts) == len(BOUNDS_S) + 1
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[4], histogram.counts[-1]) == (1, 1, 1, 1)
    assert histogram.sum_s == pytest.approx(1001.101)


def test_who_is_at_its_limit_is_passed_over_and_is_the_last_resort(pool: Pool, clock: Clock) -> None:
    under_way = [pool.begin("a1") for _ in range(4)]
    for _ in range(N_TELLING):
        pool.begin("a1").finish("overloaded", wait_s=0.0)  # refused at 5 in flight: the limit is 4
    assert pool.snapshot()[0].n_in_flight_limit == 4
    assert {pool.choose("a") for _ in range(5)} == {"a2"}
    assert pool.choose("a", {"a2"}) is None
    assert pool.choose("a", {"a2"}, or_ejected=True) == "a1", "a try serves a caller better than a refusal"
    for _ in range(3):
        pool.begin("a2")
    for _ in range(N_TELLING):
        pool.begin("a2").finish("overloaded", wait_s=0.0)  # 3.2
    assert pool.choose("a") is None
    assert pool.choose("a", or_ejected=True) == "a2", "3 of 3.2 is less than 4 of 4"
    under_way[0].finish()
    assert pool.choose("a") == "a1"


def test_a_healthy_one_at_its_limit_comes_before_an_ejected_one(pool: Pool) -> None:
    for _ in range(5):
        pool.begin("a2").finish("broken")
    pool.begin("a1")
    for _ in range(N_TELLING):
        pool.begin("a1").finish("overloaded", wait_s=0.0)
    assert pool.choose("a") is None
    assert pool.choose("a", or_ejected=True) == "a1"
    assert [status.health for status in pool.snapshot()] == ["healthy", "ejected", "healthy"]


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
