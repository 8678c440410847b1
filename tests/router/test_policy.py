from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from router.domain import Candidate, Capabilities, Constraints, Policy, Shape
from router.errors import InvalidPolicy
from router.policy import check, choose, dominated, dominated_one, eligible, order, rank

N_CANDIDATES = 5
# Coarse grids, so that ties in quality and cost really happen.
QUALITIES = arrays(np.float64, (1, N_CANDIDATES), elements=st.integers(0, 10).map(lambda i: i / 10))
COSTS = arrays(np.float64, (1, N_CANDIDATES), elements=st.sampled_from([0.0, 0.001, 0.002, 0.004, 0.1, np.nan]))
ALLOWED = arrays(np.bool_, (1, N_CANDIDATES)).filter(lambda a: a.any())
VALUES = {
    "threshold": st.integers(0, 20).map(lambda i: i / 20),
    "willingness_to_pay_usd": st.sampled_from([0.0, 0.0001, 0.003, 0.02, 1.0, 50.0]),
    "quality_per_usd": st.integers(0, 20).map(lambda i: i / 20),
    "latency": st.integers(0, 20).map(lambda i: i / 20),
}
POLICIES = st.sampled_from(sorted(VALUES)).flatmap(lambda kind: VALUES[kind].map(lambda v: Policy(kind, v)))
COSTS_OF_A_FALL = st.sampled_from([0.0, 0.0005, 0.003, 0.02, 1.0, 50.0])
MARGINS = st.sampled_from([None, -1.0, -0.1, 0.0, 0.1, 0.3, 1.0])
ANCHORED = st.one_of(
    st.builds(lambda v, m: Policy("fall_below_usd", v, anchor="safe", margin=m), COSTS_OF_A_FALL, MARGINS),
    st.builds(lambda p, m: Policy(p.kind, p.value, anchor="safe", margin=m), POLICIES, MARGINS),
)


def _choose(quality, cost, policy, allowed=None):
    return int(choose(quality, cost, policy, allowed=allowed, latency_s=cost)[0])


# Three candidates: cheap .6 at 1, middle .8 at 2, dear .9 at 10, and one dominated: .7 at 5.
QUALITY = np.array([[0.6, 0.8, 0.9, 0.7]])
COST = np.array([[1.0, 2.0, 10.0, 5.0]])


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("threshold", 0.0, 0),
        ("threshold", 0.6, 0),
        ("threshold", 0.65, 1),  # .7 at 5 clears too, but .8 at 2 dominates it
        ("threshold", 0.85, 2),
        ("threshold", 0.95, 2),  # none clears: the best predicted
        ("willingness_to_pay_usd", 0.0, 0),
        ("willingness_to_pay_usd", 4.0, 0),  # .6·4−1 = 1.4 > .8·4−2 = 1.2
        ("willingness_to_pay_usd", 6.0, 1),  # .8·6−2 = 2.8 > .6·6−1 = 2.6
        ("willingness_to_pay_usd", 79.0, 1),  # .8·79−2 = 61.2 > .9·79−10 = 61.1
        ("willingness_to_pay_usd", 81.0, 2),  # .9·81−10 = 62.9 > .8·81−2 = 62.8
        ("quality_per_usd", 0.0, 0),  # .6, .4, .09, .14 per USD
        ("quality_per_usd", 0.7, 1),
        ("quality_per_usd", 0.99, 2),  # none clears: the best predicted
        ("latency", 0.65, 1),
    ],
)
def test_each_kind_chooses_as_worked_by_hand(kind, value, expected):
    assert _choose(QUALITY, COST, Policy(kind, value)) == expected


def test_the_ranking_goes_on_with_who_still_clears_and_then_with_the_best_of_the_rest():
    order = rank(QUALITY, COST, Policy("threshold", 0.65))[0]
    # .8 at 2 and .9 at 10 clear undominated, cheapest first; .7 at 5 clears dominated; .6 does not clear.
    assert order.tolist() == [1, 2, 3, 0]


def test_rows_are_ranked_independently():
    quality = np.vstack([QUALITY, QUALITY[:, ::-1]])
    cost = np.vstack([COST, COST[:, ::-1]])
    assert choose(quality, cost, Policy("threshold", 0.75)).tolist() == [1, 2]


@given(QUALITIES, COSTS, ALLOWED, POLICIES)
def test_the_choice_is_always_eligible(quality, cost, allowed, policy):
    assert allowed[0, _choose(quality, cost, policy, allowed)]


@given(QUALITIES, COSTS, ALLOWED, POLICIES)
def test_the_ranking_names_every_candidate_once_and_the_ineligible_last(quality, cost, allowed, policy):
    order = rank(quality, cost, policy, allowed=allowed, latency_s=cost)[0]
    assert sorted(order) == list(range(N_CANDIDATES))
    assert allowed[0, order].tolist() == sorted(allowed[0].tolist(), reverse=True)


@given(QUALITIES, COSTS, ALLOWED, st.data(), st.sampled_from(["threshold", "willingness_to_pay_usd", "latency"]))
def test_raising_the_dial_never_lowers_the_quality_of_the_choice(quality, cost, allowed, data, kind):
    low, high = sorted((data.draw(VALUES[kind]), data.draw(VALUES[kind])))
    cautious = _choose(quality, cost, Policy(kind, high), allowed)
    thrifty = _choose(quality, cost, Policy(kind, low), allowed)
    assert quality[0, cautious] >= quality[0, thrifty]


@given(QUALITIES, COSTS, POLICIES, st.integers(0, N_CANDIDATES - 1), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
def test_a_dominated_candidate_never_changes_the_choice(quality, cost, policy, better, worse_by, dearer):
    before = _choose(quality, cost, policy)
    added_quality = max(quality[0, better] - worse_by, 0.0)
    added_cost = cost[0, better] + (0.001 if dearer else 0.0)
    quality = np.append(quality, [[added_quality]], axis=1)
    cost = np.append(cost, [[added_cost]], axis=1)
    assert _choose(quality, cost, policy) == before


@given(QUALITIES, COSTS, POLICIES, st.permutations(range(N_CANDIDATES)))
def test_permuting_candidates_permutes_the_choice_up_to_exact_ties(quality, cost, policy, permutation):
    before = _choose(quality, cost, policy)
    after = permutation[_choose(quality[:, permutation], cost[:, permutation], policy)]
    same = quality[0, before] == quality[0, after] and (
        cost[0, before] == cost[0, after] or np.isnan(cost[0, [before, after]]).all()
    )
    assert same


@given(QUALITIES, COSTS, ALLOWED)
def test_an_unknown_cost_is_chosen_only_for_its_quality(quality, cost, allowed):
    chosen = _choose(quality, cost, Policy("threshold", 0.5), allowed)
    known = allowed & ~np.isnan(cost) & (quality >= 0.5)
    if known.any():
        assert not np.isnan(cost[0, chosen])


@given(QUALITIES, COSTS, ALLOWED, POLICIES, st.integers(-1, N_CANDIDATES - 1))
def test_one_request_is_ordered_as_a_row_of_many(quality, cost, allowed, policy, unknown):
    if unknown >= 0:
        quality = quality.copy()
        quality[0, unknown] = np.nan
    usable = allowed[0] & ~np.isnan(quality[0])
    many = rank(quality, cost, policy, allowed=allowed, latency_s=cost)[0].tolist()
    one = order(quality[0].tolist(), cost[0].tolist(), policy, allowed=allowed[0].tolist(), latency_s=cost[0].tolist())
    assert [i for i in one if usable[i]] == [i for i in many if usable[i]]


@given(QUALITIES, COSTS, ALLOWED)
def test_dominance_of_one_request_is_that_of_a_row_of_many(quality, cost, allowed):
    cost = np.nan_to_num(cost, nan=np.inf)
    one = dominated_one(quality[0].tolist(), cost[0].tolist(), allowed[0].tolist())
    assert one == dominated(quality, cost, allowed)[0].tolist()


def test_a_candidate_without_a_prediction_is_never_allowed():
    quality = np.array([[np.nan, 0.1]])
    assert _choose(quality, np.array([[0.0, 1.0]]), Policy("threshold", 0.0)) == 1


def test_of_two_equal_candidates_only_the_second_is_dominated():
    assert dominated(np.array([[0.5, 0.5]]), np.array([[1.0, 1.0]]), np.ones((1, 2), bool)).tolist() == [[False, True]]


def test_a_forbidden_candidate_dominates_nobody():
    allowed = np.array([[False, True]])
    assert dominated(np.array([[0.9, 0.5]]), np.array([[1.0, 1.0]]), allowed).tolist() == [[False, False]]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy("cheapest", 1.0), "'cheapest' is unknown; expected one of threshold"),
        (Policy("threshold", 1.2), "threshold must be a number of at least 0 and at most 1, got 1.2"),
        (Policy("willingness_to_pay_usd", -1.0), "at least 0, got -1.0"),
        (Policy("threshold", float("nan")), "got nan"),
    ],
)
def test_an_impossible_policy_is_refused_by_name(policy, message):
    with pytest.raises(InvalidPolicy, match=message.replace("'", "'")):
        check(policy)


def test_latency_without_latencies_is_refused():
    with pytest.raises(InvalidPolicy, match="needs latency_s"):
        rank(QUALITY, COST, Policy("latency", 0.5))
    with pytest.raises(InvalidPolicy, match="needs latency_s"):
        order([0.5], [1.0], Policy("latency", 0.5), allowed=[True])


PLAIN = Shape(n_characters=400)


@pytest.mark.parametrize(
    ("candidate", "shape", "constraints", "expected"),
    [
        (Candidate("a"), PLAIN, Constraints(), None),
        (Candidate("a"), PLAIN, Constraints(allow=("b*",)), "allow"),
        (Candidate("gpt-4o"), PLAIN, Constraints(allow=("gpt-*",)), None),
        (Candidate("gpt-4o"), PLAIN, Constraints(allow=("gpt-*",), deny=("*4o",)), "deny"),
        (Candidate("a", capabilities=Capabilities(tools=False)), Shape(400, n_tools=1), Constraints(), "tools"),
        (Candidate("a"), Shape(400, has_images=True), Constraints(), "vision"),
        (
            Candidate("a", capabilities=Capabilities(json_schema=False)),
            Shape(400, needs_json_schema=True),
            Constraints(),
            "json_schema",
        ),
        (
            Candidate("a", capabilities=Capabilities(max_output_tokens=100)),
            Shape(400, max_output_tokens=101),
            Constraints(),
            "max_output_tokens",
        ),
        # 100 input tokens + 50 asked for = 150 > 149
        (
            Candidate("a", capabilities=Capabilities(context_window_tokens=149)),
            Shape(400, max_output_tokens=50),
            Constraints(),
            "context_window",
        ),
        (
            Candidate("a", capabilities=Capabilities(context_window_tokens=150)),
            Shape(400, max_output_tokens=50),
            Constraints(),
            None,
        ),
    ],
)
def test_filters_name_what_removed_a_candidate(candidate, shape, constraints, expected):
    assert eligible([candidate], shape, constraints, [100.0]) == (expected,)


@given(QUALITIES, COSTS, ANCHORED, ALLOWED, st.integers(0, N_CANDIDATES - 1))
def test_with_an_anchor_both_forms_are_one_rule_and_the_margin_is_kept(quality, cost, policy, allowed, anchor):
    ranked = rank(quality, cost, policy, allowed=allowed, latency_s=cost, anchor=anchor)[0]
    n_allowed = int(allowed.sum())
    one = order(
        quality[0].tolist(),
        cost[0].tolist(),
        policy,
        allowed=allowed[0].tolist(),
        latency_s=cost[0].tolist(),
        anchor=anchor,
    )
    assert one[:n_allowed] == ranked[:n_allowed].tolist()
    first = ranked[0]
    assert allowed[0, first]
    if policy.margin is not None and allowed[0, anchor] and first != anchor:
        assert quality[0, first] >= quality[0, anchor] + policy.margin


@given(QUALITIES, COSTS, ALLOWED, st.integers(0, N_CANDIDATES - 1), COSTS_OF_A_FALL, COSTS_OF_A_FALL)
def test_a_dearer_fall_below_the_anchor_is_never_risked_more(quality, cost, allowed, anchor, a, b):
    allowed[0, anchor] = True
    cost = np.nan_to_num(cost, nan=0.5)
    chance = quality[0, anchor] * (1 - quality[0])
    chance[anchor] = 0
    low, high = (
        choose(quality, cost, Policy("fall_below_usd", v, anchor="safe"), allowed=allowed, anchor=anchor)[0]
        for v in sorted((a, b))
    )
    assert chance[high] <= chance[low] + 1e-12


def test_without_its_anchor_the_best_predicted_is_chosen():
    policy = Policy("fall_below_usd", 0.0, anchor="elsewhere")
    assert _choose(QUALITY, COST, policy) == 2
    assert order(QUALITY[0].tolist(), COST[0].tolist(), policy, allowed=[True] * 4)[0] == 2


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy("fall_below_usd", 1.0), "anchor must be the name of a candidate"),
        (Policy("threshold", 0.5, margin=0.1), "anchor must be the name of a candidate"),
        (Policy("threshold", 0.5, anchor="a", margin=2.0), r"margin must be a number in \[-1, 1\]"),
    ],
)
def test_an_anchored_policy_is_checked(policy, message):
    with pytest.raises(InvalidPolicy, match=message):
        check(policy)
