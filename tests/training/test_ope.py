"""Off-policy estimates: exact against sums by hand, right on average, honest intervals, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import NoOverlap, NotEnoughData
from training.ope import Logged, evaluate, overlap


def logged(n: int, seed: int, explored: float = 0.3, m: int = 3, **more) -> tuple[Logged, np.ndarray]:
    """A log of a policy that prefers column 0 and explores; true means .8, .6, .3. Returns the truth (n, m) too."""
    rng = np.random.default_rng(seed)
    truth = np.clip(np.array([0.8, 0.6, 0.3])[:m] + 0.15 * rng.standard_normal((n, m)), 0, 1)
    probabilities = np.full((n, m), explored / m)
    probabilities[:, 0] += 1 - explored
    chosen = (rng.random((n, 1)) > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
    every = np.arange(n)
    reward = (rng.random(n) < truth[every, chosen]).astype(float)
    return Logged(chosen, probabilities[every, chosen], reward, **more), truth


def test_the_estimators_are_their_formulas():
    # Ten times the same six requests, so that there are enough of them. Weights 1/p where the choice is the target's.
    chosen = np.tile([0, 0, 1, 1, 2, 1], 40)
    propensity = np.tile([0.5, 0.5, 0.25, 0.25, 0.25, 0.5], 40)
    reward = np.tile([1.0, 0.0, 1.0, 0.0, 1.0, 1.0], 40)
    predicted = np.tile([[0.5, 0.75, 0.5]], (240, 1))
    found = evaluate(Logged(chosen, propensity, reward, predicted), np.ones(240, dtype=np.intp))
    # Weights 0, 0, 4, 4, 0, 2: weighted rewards 4 + 0 + 2, sum of weights 10.
    assert found.estimates["ips"].value == pytest.approx(6 / 6)
    assert found.estimates["snips"].value == pytest.approx(6 / 10)
    # The model says .75 always; corrections 4·.25, −4·.75, 2·.25 over six.
    assert found.estimates["model"].value == pytest.approx(0.75)
    assert found.estimates["dr"].value == pytest.approx(0.75 + (1 - 3 + 0.5) / 6)
    assert found.logged.value == pytest.approx(4 / 6)
    assert found.changes["snips"].value == pytest.approx(6 / 10 - 4 / 6)
    assert found.overlap.support == pytest.approx(10 / 6)
    assert found.overlap.effective == pytest.approx(40 * 10**2 / (16 + 16 + 4))
    assert found.overlap.matched_share == pytest.approx(0.5)


def test_the_logged_policy_itself_is_what_was_seen():
    log, _ = logged(500, 0)
    probabilities = np.full((500, 3), 0.1)
    probabilities[:, 0] += 0.7
    found = evaluate(log, probabilities)
    assert found.estimates["ips"].value == pytest.approx(log.reward.mean())
    assert found.changes["ips"].value == pytest.approx(0)
    assert found.changes["ips"].high - found.changes["ips"].low == pytest.approx(0)
    assert found.overlap.effective == pytest.approx(500)


def test_a_choice_is_a_probability_of_one():
    log, _ = logged(400, 1)
    target = np.random.default_rng(0).integers(0, 3, 400)
    assert evaluate(log, target).estimates == evaluate(log, np.eye(3)[target]).estimates


@pytest.mark.parametrize("column", [1, 2])
def test_intervals_hold_the_truth_as_often_as_they_say(column):
    hits = {"ips": 0, "snips": 0, "dr": 0}
    errors = {name: [] for name in hits}
    true = {1: 0.6, 2: 0.3}[column]  # the clipping of the truth moves these means by less than .001
    for seed in range(150):
        log, _ = logged(800, seed, predicted=np.tile([0.7, 0.5, 0.5], (800, 1)))
        found = evaluate(log, np.full(800, column))
        for name in hits:
            estimate = found.estimates[name]
            hits[name] += estimate.low <= true + 0.005 and estimate.high >= true - 0.005
            errors[name].append(estimate.value - true)
    for name, count in hits.items():
        assert count / 150 > 0.9, name
        assert abs(np.mean(errors[name])) < 0.03, name
    assert np.std(errors["dr"]) < np.std(errors["ips"])


def test_clusters_that_move_together_widen_the_interval():
    log, _ = logged(1_000, 3)
    whose = np.arange(1_000) // 20
    together = Logged(log.chosen, log.propensity, np.repeat(log.reward[:50], 20), clusters=whose)
    alone = Logged(log.chosen, log.propensity, np.repeat(log.reward[:50], 20))
    target = np.zeros(1_000, dtype=np.intp)
    wide, narrow = (evaluate(one, target).logged for one in (together, alone))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 4 * (narrow.high - narrow.low)


@given(st.integers(0, 10_000), st.floats(0.2, 5.0), st.floats(-3, 3))
@settings(max_examples=20, deadline=None)
def test_scale_and_shift_of_rewards_carry_through(seed, scale, shift):
    log, _ = logged(400, seed, explored=0.9)
    moved = Logged(log.chosen, log.propensity, scale * log.reward + shift)
    target = np.ones(400, dtype=np.intp)
    before, after = evaluate(log, target).estimates["snips"], evaluate(moved, target).estimates["snips"]
    assert after.value == pytest.approx(scale * before.value + shift)
    assert after.high - after.low == pytest.approx(scale * (before.high - before.low))


def test_a_log_without_exploration_is_refused_with_its_numbers():
    log, _ = logged(1_000, 0, explored=0.0)
    with pytest.raises(NoOverlap, match=r"0\.0% of 1,000 logged choices .* worth 0 requests; expected at least 50"):
        evaluate(log, np.ones(1_000, dtype=np.intp))
    # It is right for nine requests in ten, and nobody can say what becomes of the tenth.
    target = np.zeros(1_000, dtype=np.intp)
    target[::10] = 1
    with pytest.raises(NoOverlap, match=r"only 90% of the target policy's choices \(at most 9\d%\); expected 95%"):
        evaluate(log, target)
    assert evaluate(log, np.zeros(1_000, dtype=np.intp)).estimates["ips"].value == pytest.approx(log.reward.mean())


def test_overlap_that_rests_on_few_requests_is_refused():
    log, _ = logged(2_000, 0, explored=0.03)
    seen = overlap(log, np.full(2_000, 2))
    assert seen.effective < 50 and seen.support_high > 0.95
    with pytest.raises(NoOverlap, match="worth"):
        evaluate(log, np.full(2_000, 2))


def test_a_model_that_is_silent_on_a_candidate_keeps_dr_unbiased():
    predicted = np.tile([0.8, np.nan, np.nan], (3_000, 1))
    log, _ = logged(3_000, 5, predicted=predicted)
    assert evaluate(log, np.full(3_000, 1)).estimates["dr"].value == pytest.approx(0.6, abs=0.06)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"propensity": np.zeros(100)}, "propensity must be in"),
        ({"reward": np.full(100, np.nan)}, "reward must be a number"),
        ({"chosen": np.zeros(99, dtype=np.intp)}, "same length"),
        ({"clusters": np.zeros(100)}, "1 independent clusters"),
        ({"predicted": np.ones((100, 1))}, "predicted must have 100 rows and at least 2 columns"),
    ],
)
def test_arrays_that_cannot_be_name_the_field(change, words):
    parts = {"chosen": np.ones(100, dtype=np.intp), "propensity": np.ones(100), "reward": np.ones(100), **change}
    with pytest.raises(NotEnoughData, match=words):
        evaluate(Logged(**parts), np.ones(100, dtype=np.intp))


def test_probabilities_must_be_some():
    log, _ = logged(100, 0)
    with pytest.raises(NotEnoughData, match="each row with sum 1"):
        evaluate(log, np.full((100, 3), 0.5))
