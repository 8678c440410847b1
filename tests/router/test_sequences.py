"""Confidence sequences and the sample-ratio test: exact against brute force, and valid at every look."""

from __future__ import annotations

from itertools import pairwise
from math import exp, isnan, lgamma, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import sequences
from router.errors import InvalidInference
from router.sequences import Accumulator, ArmTotals, difference, interval, relative, sample_ratio, units_needed

FIELDS = ("n_units", "n_requests", "value_sum", "n_squares", "value_squares", "products")
requests_of_unit = st.lists(st.floats(0, 100), min_size=1, max_size=6)


def arm(n_units: int, mean: float, seed: int, most: int = 1) -> ArmTotals:
    rng = np.random.default_rng(seed)
    n = rng.integers(1, most + 1, n_units)
    return ArmTotals.of(n, n * mean + np.sqrt(n) * rng.normal(size=n_units))


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 100)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_moving_units_one_by_one_gives_the_sums_over_all_of_them(events):
    # Units send requests, and (a negative number of them, below) have a value corrected, in any order.
    units: dict[int, tuple[int, float]] = {}
    kept = Accumulator()
    for step, (unit, value) in enumerate(events):
        n, total = units.get(unit, (0, 0.0))
        is_correction = n > 0 and step % 3 == 2
        now = (n, total + value) if is_correction else (n + 1, total + value)
        kept.move(n, total, *now)
        units[unit] = now
    expected = ArmTotals.of(np.array([n for n, _ in units.values()]), np.array([y for _, y in units.values()]))
    for field in FIELDS:
        assert getattr(kept.totals, field) == pytest.approx(getattr(expected, field), rel=1e-9, abs=1e-6)


def test_a_unit_that_leaves_is_forgotten():
    kept = Accumulator(arm(60, 1.0, seed=1))
    before = kept.totals
    kept.move(0, 0.0, 3, 7.5)
    kept.move(3, 7.5, 0, 0.0)
    for field in FIELDS:
        assert getattr(kept.totals, field) == pytest.approx(getattr(before, field))


@given(st.lists(requests_of_unit, min_size=2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_mean_and_variance_are_those_of_a_ratio_of_sums(units):
    n, y = np.array([len(u) for u in units], float), np.array([sum(u) for u in units])
    totals = ArmTotals.of(n, y)
    mean = sum(map(sum, units)) / sum(map(len, units))
    # By hand: the delta method is the variance of the mean of (y − mean · n) / mean(n) over units.
    linearised = (y - mean * n) / n.mean()
    assert totals.mean == pytest.approx(mean)
    assert totals.variance == pytest.approx(linearised.var(ddof=1) / len(units), rel=1e-6, abs=1e-9)


def test_with_one_request_a_unit_it_is_the_plain_mean_and_its_standard_error():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    totals = ArmTotals.of(np.ones(400), values)
    assert totals.mean == pytest.approx(values.mean())
    assert totals.variance == pytest.approx(values.var(ddof=1) / 400)


def test_nothing_is_no_number():
    empty = ArmTotals()
    assert isnan(empty.mean) and isnan(empty.variance) and empty.spread_requests == 0
    found = interval(empty, 0.05)
    assert isnan(found.value) and not found.is_said and not found.excludes(0)
    assert not difference(empty, empty, 0.05).is_said
    assert sequences.p_value(empty, empty) == 1


def test_the_width_is_the_published_one():
    # ρ² t = 2000/1000 · (1000's tuning) with the paper's ρ(t) = sqrt((−2 ln α + ln(−2 ln α + 1)) / t), eq. of B.2.
    rho = sqrt((-2 * log(0.05) + log(-2 * log(0.05) + 1)) / 1000)
    t, sigma, alpha = 2000, 1.7, 0.01
    published = sigma * sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * log(sqrt(t * rho**2 + 1) / alpha))
    assert sequences.half_width(sigma**2 / t, t, alpha, 1000.0) == pytest.approx(published)


def test_burn_in_needs_units_that_share_the_requests():
    assert not interval(arm(49, 3.0, seed=0), 0.05).is_said
    assert interval(arm(50, 3.0, seed=0), 0.05).is_said
    n = np.ones(100)
    n[0] = 1_000  # one key sends nearly everything
    assert not interval(ArmTotals.of(n, n + np.random.default_rng(0).normal(size=100)), 0.05).is_said


def test_three_failures_are_no_sample_and_a_hundred_are():
    failed = np.zeros(5_000)
    failed[:3] = 1
    few, none = ArmTotals.of(np.ones(5_000), failed), ArmTotals.of(np.ones(5_000), np.zeros(5_000))
    assert not interval(few, 0.05).is_said and not difference(few, none, 0.05).is_said
    failed[:100] = 1
    many = ArmTotals.of(np.ones(5_000), failed)
    assert interval(many, 0.05).is_said
    # An arm that has never failed is no reason to be silent about one that fails all the time.
    assert difference(many, none, 0.05).excludes(0)


def test_a_small_arm_without_failures_is_not_taken_for_certain():
    failed = np.zeros(9_000)
    failed[:450] = 1
    control, small = ArmTotals.of(np.ones(9_000), failed), ArmTotals.of(np.ones(60), np.zeros(60))
    # Of its own it has variance 0; 5 % of 60 are 3 failures, and none of them is no miracle (0.046).
    assert small.variance == 0
    assert not difference(small, control, 0.05).excludes(0)


@given(st.integers(0, 1_000), st.floats(-0.5, 0.5))
@settings(max_examples=50, deadline=None)
def test_intervals_nest_are_antisymmetric_and_agree_with_the_p_value(seed, shift):
    a, b = arm(300, 1.0 + shift, seed, most=5), arm(200, 1.0, seed + 1, most=5)
    wide, narrow, other = difference(a, b, 0.01), difference(a, b, 0.1), difference(b, a, 0.1)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert (other.low, other.high) == pytest.approx((-narrow.high, -narrow.low))
    p = float(sequences.p_value(a, b))
    for alpha in (0.001, 0.01, 0.05, 0.1, 0.5):
        assert bool(difference(a, b, alpha).excludes(0)) == (p < alpha) or p == pytest.approx(alpha)


def test_arrays_are_many_experiments_at_once():
    rng = np.random.default_rng(3)
    n = rng.integers(1, 9, (2, 7, 120))
    y = n * rng.random((2, 7, 120))
    together = difference(ArmTotals.of(n[0], y[0]), ArmTotals.of(n[1], y[1]), 0.05)
    for i in range(7):
        one = difference(ArmTotals.of(n[0, i], y[0, i]), ArmTotals.of(n[1, i], y[1, i]), 0.05)
        assert (one.value, one.low, one.high) == (together.value[i], together.low[i], together.high[i])


def test_relative_change_is_what_it_says():
    a, b = arm(20_000, 9.0, seed=1), arm(20_000, 10.0, seed=2)
    found = relative(a, b, 0.05)
    assert found.value == pytest.approx(a.mean / b.mean - 1)
    assert found.low < -0.1 < found.high and found.high - found.low < 0.03
    assert not relative(arm(100, -5.0, seed=1), b, 0.05).is_said


def test_bounds_are_cut_to_what_is_possible():
    right = np.ones(100)
    right[:8] = 0
    share = interval(ArmTotals.of(np.ones(100), right), 0.001)
    assert share.high > 1 and share.within(0, 1).high == 1 and share.within(0, 1).low == share.low
    assert not interval(ArmTotals(), 0.05).within(0, 1).is_said


def test_a_mean_may_be_further_above_than_below():
    # Of 0.002 with half-width w the bounds are m − w and the m' with m' − w m' / m = m.
    rng = np.random.default_rng(0)
    totals = ArmTotals.of(np.ones(500), np.exp(1.5 * rng.standard_normal(500)))
    found = interval(totals, 0.05)
    width = found.value - found.low
    assert found.high * (1 - width / found.value) == pytest.approx(found.value)
    assert found.high - found.value > 1.5 * width


def looks(rng: np.random.Generator, shape: tuple[int, int], every: int):
    """Return A/A experiments of clustered, skewed units at every look: two ArmTotals of shape (sims, looks)."""
    n = np.minimum(np.floor(rng.pareto(1.1, shape) + 1), 50)
    y = rng.gamma(n / 3) * 3 * np.exp(0.5 * rng.standard_normal(shape))
    is_arm = rng.random(shape) < 0.5
    parts = (np.ones_like(n), n, y, n * n, y * y, n * y)

    def totals(mask):
        masked = [np.where(mask, part, 0.0).reshape(shape[0], -1, every) for part in parts]
        return ArmTotals(*(m.sum(axis=2).cumsum(axis=1) for m in masked))

    return totals(is_arm), totals(~is_arm)


def test_peeking_is_allowed():
    # 300 experiments without an effect, 60 looks each. At 20 % a false claim in every fifth is allowed; a t-test that
    # is looked at as often makes one in most of them.
    a, b = looks(np.random.default_rng(0), (300, 3_000), 50)
    claimed = difference(a, b, 0.2).excludes(0).any(axis=1)
    naive = (np.abs(a.mean - b.mean) > 1.2816 * np.sqrt(a.variance + b.variance))[:, 2:].any(axis=1)
    assert claimed.mean() < 0.2 < naive.mean() * 0.5


@pytest.mark.parametrize("unit_deviation", [0.0, 1.0])
def test_peeking_is_allowed_while_the_same_units_send_on(unit_deviation):
    # 100 keys an arm, all there from the first look: what they have of their own stays, and only requests are new.
    rng = np.random.default_rng(1)
    own = unit_deviation * rng.standard_normal((300, 200, 1))
    steps = np.unique(np.geomspace(1, 2_000, 60).astype(int))
    blocks = np.diff(steps, prepend=0)
    y = np.cumsum(own * blocks + np.sqrt(blocks) * rng.standard_normal((300, 200, len(steps))), axis=2)
    n = np.broadcast_to(steps.astype(float), y.shape)
    a, b = (ArmTotals.of(n[:, h].swapaxes(1, 2), y[:, h].swapaxes(1, 2)) for h in (slice(0, 100), slice(100, 200)))
    both = ArmTotals(*(np.asarray(getattr(a, field)) for field in FIELDS))
    width = sequences.half_width(both.variance + b.variance, a.n_requests + b.n_requests, 0.2, 10_000)
    assert (np.abs(a.mean - b.mean) > width).any(axis=1).mean() < 0.2


def test_an_effect_is_found_about_when_planned():
    pilot = arm(1_000, 3.0, seed=9)
    planned = units_needed(pilot, 0.2, power=0.8)
    assert planned is not None
    steps = planned // 40
    values = 3 + np.random.default_rng(4).standard_normal((400, 2, 20, steps))
    values[:, 0] += 0.2

    def totals(y):
        ones = np.broadcast_to(np.cumsum(np.full(20, float(steps))), y.shape[:2])
        return ArmTotals(ones, ones, y.sum(2).cumsum(1), ones, (y * y).sum(2).cumsum(1), y.sum(2).cumsum(1))

    found = difference(totals(values[:, 0]), totals(values[:, 1]), 0.05).excludes(0)
    assert 0.75 < found.any(axis=1).mean() < 0.95


def test_planning_asks_for_more_where_it_must():
    pilot = arm(1_000, 1.0, seed=5, most=4)
    needs = [units_needed(pilot, effect) for effect in (0.4, 0.2, 0.1)]
    assert all(small < large for small, large in pairwise(needs))
    assert units_needed(pilot, 0.1, share=0.1) > units_needed(pilot, 0.1)
    assert units_needed(pilot, 0.1, alpha=0.001) > units_needed(pilot, 0.1)
    assert units_needed(pilot, 100.0) == 101  # the burn-in: 50 units in each arm
    assert units_needed(pilot, 1e-9) is None


def test_the_ratio_test_is_the_closed_form():
    # Dirichlet(a, b) with a = b = 5 and counts 3, 1: B(8, 6) / B(5, 5) / 0.5⁴.
    def beta(x, y):
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    expected = exp(beta(8, 6) - beta(5, 5)) / 0.5**4
    found = sample_ratio((3, 1), (0.5, 0.5), concentration=10)
    assert found.e_value == pytest.approx(expected)
    assert found.shares == (0.75, 0.25)
    assert sample_ratio((0, 0, 0), (0.2, 0.3, 0.5)).e_value == pytest.approx(1)


def test_the_ratio_test_finds_52_to_48_and_spares_an_even_split():
    rng = np.random.default_rng(0)
    wrong = (rng.random(30_000) < 0.52).cumsum()
    seen = [sample_ratio((int(wrong[n - 1]), n - int(wrong[n - 1])), (0.5, 0.5)).p_value for n in (200, 30_000)]
    assert seen[0] > 0.01 and seen[1] < 0.001
    worst = []
    for seed in range(60):
        right = (np.random.default_rng(seed).random(5_000) < 0.1).cumsum()
        at = [(int(right[n - 1]), n - int(right[n - 1])) for n in range(100, 5_001, 100)]
        worst.append(min(sample_ratio(counts, (0.1, 0.9)).p_value for counts in at))
    assert np.mean(np.array(worst) < 0.1) <= 0.1


def test_the_ratio_test_does_not_overflow():
    found = sample_ratio((10_000_000, 0), (0.5, 0.5))
    assert 0 < found.p_value < 1e-300 and np.isfinite(found.e_value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interval(ArmTotals(), 0.0), "alpha"),
        (lambda: difference(ArmTotals(), ArmTotals(), 1.0), "alpha"),
        (lambda: interval(ArmTotals(), 0.05, tuned_for_requests=0), "tuned_for_requests"),
        (lambda: sample_ratio((1,), (1.0,)), "same arms"),
        (lambda: sample_ratio((1, 2), (0.5, 0.6)), "shares"),
        (lambda: sample_ratio((1, -2), (0.5, 0.5)), "n_units"),
        (lambda: sample_ratio((1, 2), (0.5, 0.5), concentration=0), "concentration"),
        (lambda: units_needed(arm(50, 1.0, 1), 0.0), "effect"),
        (lambda: units_needed(arm(50, 1.0, 1), 0.1, power=1.0), "power"),
        (lambda: units_needed(ArmTotals(), 0.1), "pilot"),
    ],
)
def test_a_question_that_cannot_be_names_what_is_wrong(call, words):
    with pytest.raises(InvalidInference, match=words):
        call()
