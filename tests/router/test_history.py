"""What a switch costs inside a conversation: worked figures, and what must hold of all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import Candidate, Constraints, Policy, Price, Prompt, Router, Shape
from router.domain import Speed
from router.history import (
    MOST_REQUESTS_BOUND,
    History,
    cache_prices,
    effective_costs_usd,
    n_requests_bound,
    prefill_s,
    prefixes,
    switch_cost_usd,
)

NAMES = ("large", "medium", "small")
#: Reading at a tenth, writing at five quarters of the price of input.
CACHED = [Price(usd, 4 * usd, usd / 10, usd * 1.25) for usd in (10.0, 1.0, 0.1)]
RATES = (0.25, 0.25, 0.25)
# large .9, medium .8 (.6 with a digit), small .7 − .1 per hundred characters; see tests/conftest.py.
PLAIN = "x" * 100


def effective(history: History, prices, costs, input_tokens):
    return effective_costs_usd(history, prices, costs, prefixes(history, NAMES, RATES, input_tokens))


def test_costs_count_what_is_cached_and_what_must_be_written() -> None:
    history = History("large", False, {"large": 10_000}, 1, is_marked=True)
    costs = effective(history, CACHED, [0.2, 0.02, 0.002], [12_000.0] * 3)
    # The incumbent reads 10,000 tokens at 1 instead of 10 USD per million; the others write them at 1.25 of theirs.
    assert costs == pytest.approx([0.2 - 0.09, 0.02 + 0.0025, 0.002 + 0.00025])
    # Over five requests: once 1.25, four times .1 of the price, so 0.33 of it on average.
    spread = effective(replace(history, n_requests_bound=5), CACHED, [0.2, 0.02, 0.002], [12_000.0] * 3)
    assert spread == pytest.approx([0.2 - 0.09, 0.02 - 10_000 * 0.67e-6, 0.002 - 10_000 * 0.067e-6])
    assert switch_cost_usd(history, CACHED[1], (0.0, 10_000.0)) == pytest.approx(10_000 * 1.15e-6)
    assert switch_cost_usd(history, None, (0.0, 10_000.0)) is None


def test_somebody_left_a_while_ago_is_still_warm_for_what_it_read() -> None:
    history = History("large", False, {"large": 10_000, "medium": 4_000}, 1, is_marked=True)
    assert prefixes(history, NAMES, RATES, [12_000.0] * 3) == [(10_000, 0), (4_000, 6_000), (0, 10_000)]
    # Whoever cuts text finer has more tokens of it, and never more than the request.
    assert prefixes(history, NAMES, (0.25, 0.5, 0.25), [12_000.0, 15_000.0, 9_000.0]) == [
        (10_000, 0),
        (4_000, 11_000),
        (0, 9_000),
    ]


def test_a_cache_is_what_has_a_price_and_is_asked_for() -> None:
    assert cache_prices(Price(2.0, 8.0), is_marked=True) == (2.0, 2.0)
    assert cache_prices(Price(2.0, 8.0, 0.5), is_marked=False) == (0.5, 2.0)
    assert cache_prices(Price(2.0, 8.0, 0.5, 2.5), is_marked=True) == (0.5, 2.5)
    assert cache_prices(Price(2.0, 8.0, 0.5, 2.5), is_marked=False) == (2.0, 2.0)
    assert cache_prices(Price(2.0, 8.0, 3.0), is_marked=False) == (2.0, 2.0)  # nobody pays more for a cache


def test_reading_anew_takes_time() -> None:
    history = History("large", False, {"large": 10_000}, 2, s_per_prefill_token=1e-3)
    assert prefill_s(history, [1.0, 1.0, float("nan")], [(10_000, 0), (0, 10_000), (0, 0)])[:2] == [1.0, 6.0]


def test_a_human_turn_takes_as_many_requests_as_those_before_it() -> None:
    assert n_requests_bound(0, 0) == 1
    assert n_requests_bound(5, 5) == 1
    assert n_requests_bound(12, 3) == 4
    assert n_requests_bound(900, 1) == MOST_REQUESTS_BOUND


prices = st.builds(
    lambda usd, read, write: Price(usd, 4 * usd, read * usd, write and write * usd),
    st.floats(0.01, 100),
    st.floats(0, 1),
    st.sampled_from([None, 1.0, 1.25, 2.0]),
)
tokens = st.integers(0, 200_000)


@given(st.lists(prices, min_size=3, max_size=3), tokens, st.floats(1, 16), st.booleans(), st.integers(0, 50_000))
def test_the_incumbent_never_costs_more_than_it_would_alone_and_nobody_less_than_nothing(
    priced, n_cached: int, n_bound: float, is_marked: bool, n_new: int
) -> None:
    history = History("large", False, {"large": n_cached}, n_bound, is_marked)
    given = [float(n_cached + n_new)] * 3
    alone = [p.input_usd_per_mtok * t / 1e6 for p, t in zip(priced, given, strict=True)]
    found = effective(history, priced, alone, given)
    assert found[0] <= alone[0]
    assert all(usd >= -1e-12 for usd in found)


@given(st.lists(prices, min_size=3, max_size=3), st.lists(tokens, min_size=3, max_size=3), st.floats(1, 16))
def test_without_anything_cached_or_any_price_of_it_a_request_stands_alone(priced, given, n_bound: float) -> None:
    alone = [1.0, 2.0, 3.0]
    nothing = History("large", False, {}, n_bound, is_marked=True)
    assert effective(nothing, priced, alone, [float(t) for t in given]) == alone
    without = [Price(p.input_usd_per_mtok, p.output_usd_per_mtok) for p in priced]
    cached = History("large", False, {"large": 10_000}, n_bound, is_marked=True)
    assert effective(cached, without, alone, [float(t) for t in given]) == pytest.approx(alone)


@given(prices, tokens, tokens, st.floats(1, 16))
def test_a_longer_prefix_never_makes_a_switch_more_attractive_at_equal_prices(
    price: Price, shorter: int, longer: int, n_bound: float
) -> None:
    shorter, longer = sorted((shorter, longer))

    def lead(n_cached: int) -> float:
        history = History("large", False, {"large": n_cached}, n_bound, is_marked=True)
        costs = effective(history, [price] * 3, [1.0] * 3, [200_000.0] * 3)
        return costs[1] - costs[0]

    assert lead(longer) >= lead(shorter) - 1e-9
    assert lead(shorter) >= -1e-9


@given(prices, tokens)
def test_the_more_requests_a_choice_binds_the_less_a_switch_weighs(price: Price, n_cached: int) -> None:
    def lead(n_bound: float) -> float:
        history = History("large", False, {"large": n_cached}, n_bound, is_marked=True)
        costs = effective(history, [price] * 3, [1.0] * 3, [200_000.0] * 3)
        return costs[1] - costs[0]

    assert lead(1) >= lead(4) >= lead(16) >= lead(1e9) - 1e-12
    assert lead(1e9) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def router(tiny_bundle):
    return Router(Router.load(tiny_bundle).bundle, [Candidate(name, p) for name, p in zip(NAMES, CACHED, strict=True)])


LONG = Prompt(PLAIN, Shape(n_characters=48_000))  # 12,000 tokens
WORTH = Policy("willingness_to_pay_usd", 0.5)


def test_a_switch_that_does_not_pay_is_not_made(router) -> None:
    alone = router.route(LONG, WORTH)
    assert (alone.candidate, alone.incumbent, alone.switch_cost_usd) == ("medium", None, None)
    stays = router.route(LONG, WORTH, history=History("large", False, {"large": 11_000}, 1, is_marked=True))
    assert (stays.candidate, stays.binding, stays.incumbent) == ("large", "conversation", "large")
    assert "alone it would be medium" in stays.reason
    assert stays.switch_cost_usd == pytest.approx(11_000 * 1.15e-6)
    assert stays.explain().switch_cost_usd == stays.switch_cost_usd
    # What is worth more than the cache goes.
    little = router.route(
        LONG, Policy("willingness_to_pay_usd", 0.01), history=History("large", False, {"large": 2_000})
    )
    assert (little.candidate, little.binding) == ("small", "willingness_to_pay_usd")
    assert little.incumbent == "large"


def test_an_incumbent_that_no_longer_clears_is_left(router) -> None:
    history = History("small", False, {"small": 11_000}, 1, is_marked=True)
    decision = router.route(LONG, Policy("threshold", 0.75), history=history)
    assert (decision.candidate, decision.binding) == ("medium", "threshold")
    assert decision.switch_cost_usd == pytest.approx(11_000 * 1.15e-6)


@pytest.mark.parametrize("policy", ["quality", "balanced", "price", "latency", WORTH, Policy("threshold", 0.95)])
def test_nobody_else_answers_in_the_middle_of_a_turn(router, policy) -> None:
    for incumbent in NAMES:
        decision = router.route(LONG, policy, history=History(incumbent, True))
        assert (decision.candidate, decision.binding) == (incumbent, "conversation")
        assert decision.ranking[0] == incumbent
        assert set(decision.ranking) == set(NAMES)


def test_in_the_middle_of_a_turn_too_who_may_not_answer_does_not(router) -> None:
    history = History("large", True)
    assert router.route(PLAIN, "balanced", Constraints(deny=("large",)), history=history).candidate == "medium"
    assert router.route(PLAIN, "balanced", Constraints(max_cost_usd=0.001), history=history).candidate == "medium"
    gone = router.route(PLAIN, "balanced", history=History("somebody reloaded away", True, {"somebody": 9_000}))
    assert (gone.candidate, gone.binding) == ("medium", "threshold")


def test_time_to_read_anew_counts_where_time_is_measured(router) -> None:
    policy = Policy("latency", 0.75)
    speeds = {name: Speed(s, 0.0) for name, s in (("large", 2.0), ("medium", 1.5), ("small", 1.0))}
    history = History("large", False, {"large": 11_000}, 1, is_marked=True)
    assert router.route(LONG, policy, speeds=speeds).candidate == "medium"
    assert router.route(LONG, policy, speeds=speeds, history=history).candidate == "large"  # 1.5 + 1.1 s


def test_a_promise_does_not_hold_where_the_conversation_decided(router, monkeypatch) -> None:
    name, policy = next(iter(router.bundle.manifest.presets.items()))
    monkeypatch.setitem(router._promises, name, ("It is promised.", None))
    own = router.route(PLAIN, name)
    assert own.promise == "It is promised."
    assert router.route(PLAIN, name, history=History(own.candidate, True)).promise == "It is promised."
    other = next(n for n in NAMES if n != own.candidate)
    kept = router.route(PLAIN, name, history=History(other, True))
    assert kept.policy == policy
    assert kept.promise == ("not certified here: the conversation decided, not the policy alone")


def test_a_decision_without_history_is_what_it_was(router) -> None:
    assert router.route(LONG, WORTH) == router.route(LONG, WORTH, history=None)
    known = router.route(LONG, WORTH, history=History("medium"))
    assert (known.candidate, known.binding, known.reason) == (
        "medium", "willingness_to_pay_usd", router.route(LONG, WORTH).reason,
    )  # fmt: skip
