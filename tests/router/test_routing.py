from __future__ import annotations

import numpy as np
import pytest

from router import (
    Candidate,
    Capabilities,
    Constraints,
    InvalidPolicy,
    NoEligibleCandidate,
    Policy,
    Price,
    Prompt,
    Router,
    Shape,
    Speed,
    UnknownCandidate,
)

# large .9, medium .8 (.6 with a digit), small .7 − .1 per hundred characters; see tests/conftest.py.
PLAIN = "x" * 100


@pytest.fixture(scope="module")
def router(tiny_bundle):
    return Router.load(tiny_bundle)


def pool(router, *candidates):
    return Router(router.bundle, candidates)


@pytest.mark.parametrize(
    ("text", "policy", "expected", "binding"),
    [
        (PLAIN, Policy("threshold", 0.55), "small", "threshold"),
        (PLAIN, Policy("threshold", 0.75), "medium", "threshold"),
        (PLAIN + "7", Policy("threshold", 0.75), "large", "threshold"),
        (PLAIN, Policy("threshold", 0.95), "large", "none_clears_threshold"),
        (PLAIN, Policy("willingness_to_pay_usd", 0.0), "small", "willingness_to_pay_usd"),
        (PLAIN, Policy("willingness_to_pay_usd", 100.0), "large", "willingness_to_pay_usd"),
        (PLAIN, Policy("quality_per_usd", 0.75), "medium", "floor"),
        (PLAIN, Policy("latency", 0.5), "small", "latency"),
        (PLAIN, "quality", "large", "threshold"),
        (PLAIN, "balanced", "medium", "threshold"),
        (PLAIN, None, "medium", "threshold"),
    ],
)
def test_the_policy_decides(router, text, policy, expected, binding):
    decision = router.route(text, policy)
    assert (decision.candidate, decision.binding) == (expected, binding)
    assert decision.ranking[0] == expected
    assert decision.bundle == "tiny@1"


def test_costs_are_worked_from_tokens_and_prices(router):
    forecast = router.route(PLAIN).forecast("medium")
    # 100 characters · .25 = 25 tokens · 1 USD + 200 tokens · 4 USD, per million
    assert forecast.cost_usd == pytest.approx(825e-6)
    assert forecast.cost_usd_p90 == pytest.approx(1625e-6)
    assert forecast.quality_per_usd == pytest.approx(0.8 / 825e-6, rel=1e-5)
    assert forecast.quality_low == pytest.approx(0.75)


def test_the_callers_own_limit_caps_the_expected_output(router):
    prompt = Prompt(PLAIN, Shape(n_characters=100, max_output_tokens=50))
    assert router.route(prompt).forecast("medium").output_tokens == 50


def test_the_whole_conversation_is_paid_for_not_only_the_prompt(router):
    prompt = Prompt(PLAIN, Shape(n_characters=4_000))
    assert router.route(prompt).forecast("medium").input_tokens == 1_000


def test_counterfactuals_say_what_other_thresholds_would_choose(router):
    decision = router.route(PLAIN, Policy("threshold", 0.85))
    found = {c.candidate: c for c in decision.counterfactuals}
    assert list(found) == ["small", "medium", "large"]
    assert found["large"].cost_change == pytest.approx(0.0)
    # (25·1 + 200·4) / (25·10 + 300·40) − 1
    assert found["medium"].cost_change == pytest.approx(825 / 12_250 - 1)
    for other in decision.counterfactuals:
        assert router.route(PLAIN, Policy("threshold", other.threshold)).candidate == other.candidate


def test_filters_come_first_and_are_named(router):
    decision = router.route(PLAIN, Policy("threshold", 0.0), Constraints(deny=("small",)))
    assert decision.candidate == "medium"
    assert decision.forecast("small").excluded_by == "deny"
    assert "small" not in decision.ranking


def test_a_maximum_cost_removes_the_dear_and_the_unpriced(router):
    routed = pool(
        router, Candidate("small"), Candidate("medium", Price(1.0, 4.0)), Candidate("large", Price(10.0, 40.0))
    )
    decision = routed.route(PLAIN, Policy("threshold", 1.0), Constraints(max_cost_usd=0.001))
    assert decision.candidate == "medium"
    assert decision.forecast("small").excluded_by == decision.forecast("large").excluded_by == "max_cost_usd"
    assert decision.forecast("small").cost_usd is None


def test_nobody_left_says_who_was_removed_by_what(router):
    with pytest.raises(NoEligibleCandidate, match="large: max_cost_usd; medium: max_cost_usd; small: deny"):
        router.route(PLAIN, None, Constraints(deny=("small",), max_cost_usd=0.0))


def test_a_like_candidate_borrows_predictions_and_says_so(router):
    routed = pool(router, Candidate("newcomer", Price(0.5, 0.5), like="large"), Candidate("medium", Price(1.0, 4.0)))
    decision = routed.route(PLAIN, Policy("threshold", 0.85))
    assert decision.candidate == "newcomer"
    forecast = decision.forecast("newcomer")
    assert (forecast.like, forecast.quality) == ("large", pytest.approx(0.9))
    assert decision.forecast("medium").like is None


def test_an_unknown_candidate_without_like_is_never_chosen(router):
    routed = pool(router, Candidate("stranger", Price(0.0, 0.0)), Candidate("large", Price(10.0, 40.0)))
    decision = routed.route(PLAIN, Policy("threshold", 0.0))
    assert decision.candidate == "large"
    assert decision.forecast("stranger").excluded_by == "not_in_bundle"
    assert decision.forecast("stranger").quality is None


def test_like_must_name_a_bundle_candidate(router):
    with pytest.raises(UnknownCandidate, match="like 'gpt-9', which the bundle does not know; it knows large"):
        pool(router, Candidate("x", like="gpt-9"))


def test_a_name_twice_is_refused(router):
    with pytest.raises(UnknownCandidate, match="'large' is in the pool twice"):
        pool(router, Candidate("large"), Candidate("large"))


def test_live_latency_decides_the_latency_policy(router):
    policy = Policy("latency", 0.75)
    assert router.route(PLAIN, policy).candidate == "medium"  # no latencies: the shorter answer
    speeds = {"large": Speed(0.5, 0.0), "medium": Speed(2.0, 0.0)}
    assert router.route(PLAIN, policy, speeds=speeds).candidate == "large"


def test_the_expected_latency_is_the_first_content_and_the_time_of_every_token(router):
    # large writes 300 tokens, medium 200, small 100.
    speeds = {"large": Speed(0.2, 0.01), "medium": Speed(1.0, 0.012), "small": Speed(0.1, 0.05)}
    decision = router.route(PLAIN, Policy("latency", 0.75), speeds=speeds)
    found = {f.candidate: f.latency_s for f in decision.forecasts}
    assert found == {"large": pytest.approx(3.2), "medium": pytest.approx(3.4), "small": pytest.approx(5.1)}
    assert decision.candidate == "large", "the first content of medium decides, although it writes less"
    short = Prompt(PLAIN, Shape(n_characters=100, max_output_tokens=10))
    assert router.route(short, Policy("latency", 0.0), speeds=speeds).candidate == "large"
    assert router.route(short, Policy("latency", 0.0), speeds=speeds).ranking == ("large", "small", "medium")
    # Of several answers asked for at once none waits for another.
    many = Prompt(PLAIN, Shape(n_characters=100, n_choices=4))
    assert router.route(many, speeds=speeds).forecast("large").latency_s == pytest.approx(3.2)


def test_a_candidate_never_observed_is_ranked_at_the_mean_of_the_others(router):
    speeds = {"large": Speed(2.0, 0.0), "small": Speed(4.0, 0.0)}
    decision = router.route(PLAIN, Policy("latency", 0.0), speeds=speeds)
    assert decision.ranking == ("large", "medium", "small")
    assert decision.forecast("medium").latency_s is None, "unknown is told as unknown"
    assert router.route(PLAIN).forecast("large").latency_s is None


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"large": 2.0, "medium": 4.0, "small": 1.0}, {"medium": "max_latency_s"}),
        # One is known to keep the bound, so the unknown fail it.
        ({"large": 2.0}, {"medium": "max_latency_s", "small": "max_latency_s"}),
        # None is known to: who is too slow fails, the unknown pass.
        ({"large": 9.0}, {"large": "max_latency_s"}),
        ({}, {}),
    ],
    ids=str,
)
def test_a_latency_bound_removes_the_slow_and_the_unknown_where_another_keeps_it(router, known, expected):
    speeds = {name: Speed(seconds, 0.0) for name, seconds in known.items()}
    decision = router.route(PLAIN, Policy("threshold", 0.0), Constraints(max_latency_s=3.0), speeds)
    assert {f.candidate: f.excluded_by for f in decision.forecasts if f.excluded_by} == expected


def test_nobody_quick_enough_says_so(router):
    speeds = {name: Speed(9.0, 0.0) for name in ("large", "medium", "small")}
    with pytest.raises(NoEligibleCandidate, match="large: max_latency_s; medium: max_latency_s; small: max_latency_s"):
        router.route(PLAIN, None, Constraints(max_latency_s=3.0), speeds)


def test_an_unknown_preset_lists_the_known(router):
    with pytest.raises(InvalidPolicy, match="'cheap' is unknown; expected one of quality, balanced"):
        router.route(PLAIN, "cheap")


def test_presets_of_the_pool_win_over_those_of_the_bundle(router):
    routed = Router(router.bundle, None, {"balanced": Policy("threshold", 0.0, "balanced")})
    assert routed.route(PLAIN).candidate == "small"


def test_the_same_input_gives_the_same_decision(router):
    assert router.route(PLAIN + "1") == router.route(PLAIN + "1")


def test_predictions_of_many_equal_predictions_of_one(router):
    texts = ["a", "x" * 300, "7 up"]
    together = router.predict(texts).quality
    assert np.array_equal(together, np.vstack([router.predict([t]).quality for t in texts]))


def test_a_prompt_that_fits_no_context_window_is_refused(router):
    small = Candidate("small", Price(1.0, 1.0), Capabilities(context_window_tokens=20))
    with pytest.raises(NoEligibleCandidate, match="small: context_window"):
        pool(router, small).route(PLAIN)


def test_every_answer_asked_for_is_paid_for(router):
    one = router.route(Prompt(PLAIN, Shape(n_characters=100))).forecast("medium")
    three = router.route(Prompt(PLAIN, Shape(n_characters=100, n_choices=3))).forecast("medium")
    assert three.output_tokens == 3 * one.output_tokens
    # 25 input tokens · 1 USD once, 200 output tokens · 4 USD three times, per million
    assert three.cost_usd == pytest.approx(2_425e-6)
