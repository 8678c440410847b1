from __future__ import annotations

import numpy as np
import pytest

from training import metrics

ONE = np.ones((1, 4))


def test_auc_counts_pairs_and_halves_ties():
    # good: .9, .5; bad: .5, .1. Pairs: .9>.5, .9>.1, .5=.5 (half), .5>.1 -> 3.5 of 4.
    score, label = np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert metrics.auc(score, label, ONE)[0] == pytest.approx(3.5 / 4)


def test_auc_takes_weights_as_repetitions():
    score, label = np.array([0.9, 0.5, 0.6, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    repeated = np.repeat(np.arange(4), [1, 3, 2, 1])
    expected = metrics.auc(score[repeated], label[repeated], np.ones((1, 7)))
    assert metrics.auc(score, label, np.array([[1.0, 3.0, 2.0, 1.0]])) == pytest.approx(expected)


def test_auc_of_graded_labels_counts_both_answers():
    # The row of label .5 is half good, half bad: good mass 1 at .8 and .5 at .4; bad mass .5 at .4 and 1 at .2.
    # 1·(.5 + 1) + .5·(.25 + 1) = 2.125 of 1.5 · 1.5.
    value = metrics.auc(np.array([0.8, 0.4, 0.2]), np.array([1.0, 0.5, 0.0]), np.ones((1, 3)))[0]
    assert value == pytest.approx(2.125 / 2.25)


def test_auc_is_undefined_without_both_answers():
    assert np.isnan(metrics.auc(np.array([0.1, 0.2]), np.array([1.0, 1.0]), np.ones((1, 2)))[0])


def test_brier_and_its_skill():
    # errors .1, .2, .2, .1 -> squares .01 .04 .04 .01, mean .025; the constant .5 has .25; skill .9.
    score, label = np.array([0.9, 0.8, 0.2, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])
    assert metrics.brier(score, label, ONE)[0] == pytest.approx(0.025)
    assert metrics.brier_skill(score, label, ONE)[0] == pytest.approx(0.9)


def test_the_floor_of_ece_is_what_labels_drawn_from_the_scores_show():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.1, 0.95, 600)
    drawn = [metrics.ece(score, (rng.random(600) < score).astype(float), np.ones((1, 600)))[0] for _ in range(300)]
    assert metrics.ece_floor(score) == pytest.approx(np.mean(drawn), rel=0.03)
    assert metrics.ece_floor(np.array([0.0, 1.0, 1.0])) == 0.0


def test_ece_in_two_bins():
    # bins {.1, .3} and {.7, .9}: |.2 − .5| and |.8 − 1| -> (.3 + .2) / 2.
    score, label = np.array([0.9, 0.1, 0.7, 0.3]), np.array([1.0, 0.0, 1.0, 1.0])
    assert metrics.ece(score, label, ONE, n_bins=2)[0] == pytest.approx(0.25)


def test_hull_is_concave_and_never_falls():
    # (2, .5) lies below the line from (1, .4) to (3, .8); (4, .7) is dearer and worse.
    cost, quality = metrics.hull(np.array([3.0, 1.0, 2.0, 4.0]), np.array([0.8, 0.4, 0.5, 0.7]))
    assert cost.tolist() == [1.0, 3.0]
    assert quality.tolist() == [0.4, 0.8]


def test_area_extends_the_hull_to_both_ends():
    # height .4 until 1, then rising to .8 at 3, then .8: from 0 to 4 the areas are .4 + 1.2 + .8, over 4.
    assert metrics.area(np.array([1.0, 3.0]), np.array([0.4, 0.8]), 0.0, 4.0) == pytest.approx(2.4 / 4)


def test_naiq_is_zero_for_singles_one_for_the_oracle_and_linear_between():
    singles = np.array([[1.0, 3.0]]), np.array([[0.4, 0.8]])  # mean height .6
    oracle = np.array([[1.0]]), np.array([[1.0]])  # 1
    assert metrics.naiq(singles, singles, oracle)[0] == pytest.approx(0.0)
    assert metrics.naiq(oracle, singles, oracle)[0] == pytest.approx(1.0)
    # .4 at 1, .8 already at 2: (.6 + .8) / 2 = .7 -> (.7 − .6) / (1 − .6).
    router = np.array([[1.0, 2.0]]), np.array([[0.4, 0.8]])
    assert metrics.naiq(router, singles, oracle)[0] == pytest.approx(0.25)


def test_naiq_gives_no_quality_below_the_routers_cheapest_point_but_that_of_the_cheapest_candidate():
    singles = np.array([[1.0, 3.0]]), np.array([[0.4, 0.8]])
    oracle = np.array([[1.0]]), np.array([[1.0]])
    assert metrics.naiq((np.array([[3.0]]), np.array([[0.8]])), singles, oracle)[0] == pytest.approx(0.0)


def test_gain_over_hull_is_measured_at_the_routers_own_cost():
    singles = np.array([[1.0, 3.0]]), np.array([[0.4, 0.8]])
    assert metrics.gain_over_hull(np.array([2.0]), np.array([0.65]), singles)[0] == pytest.approx(0.05)


def test_performance_gap_recovered():
    # strong − weak: 1, 0, 1, 0 in the order of preference; gap recovered after 1, 2, 3, 4 calls: .5 .5 1 1.
    preference = np.array([4.0, 3.0, 2.0, 1.0])
    weak, strong = np.array([0.0, 1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])
    apgr, cpt = metrics.performance_gap_recovered(preference, weak, strong, ONE)
    # trapezia of width .25: (0+.5)/2 + .5 + (.5+1)/2 + 1 = 2.5.
    assert apgr[0] == pytest.approx(2.5 * 0.25)
    assert cpt[0.5][0] == pytest.approx(0.25)
    assert cpt[0.8][0] == pytest.approx(0.75)


def test_every_measure_gives_one_number_per_weighting():
    rng = np.random.default_rng(0)
    score, label = rng.random(50), (rng.random(50) < 0.5).astype(float)
    weights = rng.integers(0, 3, (7, 50)).astype(float)
    for measure in (metrics.auc, metrics.brier, metrics.brier_skill, metrics.ece):
        assert measure(score, label, weights).shape == (7,)
