from __future__ import annotations

import numpy as np
import pytest

from router.domain import Policy
from router.policy import choose
from training.evaluate import Rows, evaluate, resamples, summary
from training.operating import choose_points, choose_presets, dial_of, no_regret, regret


def rows_of(quality, cost, predicted=None, groups=None) -> Rows:
    quality, cost = np.array(quality, float), np.array(cost, float)
    tokens = np.full(quality.shape, 10.0)
    return Rows(
        candidates=tuple("abc"[: quality.shape[1]]),
        predicted=np.array(quality if predicted is None else predicted, float),
        predicted_cost=cost.copy(),
        output_tokens=tokens,
        output_tokens_p90=2 * tokens,
        quality=quality,
        cost_usd=cost,
        true_output_tokens=tokens,
        tasks=["t"] * len(quality),
        groups=list(groups) if groups is not None else [str(i) for i in range(len(quality))],
    )


@pytest.fixture(scope="module")
def world():
    """b costs ten times a; half of the prompts a answers as well, on the others only b does."""
    rng = np.random.default_rng(0)
    easy = rng.random(400) < 0.5
    quality = np.column_stack([easy, np.ones(400)]).astype(float)
    return rows_of(quality, np.tile([1.0, 10.0], (400, 1)))


def test_a_perfect_router_reaches_the_oracle(world):
    points = choose_points(world.predicted, world.predicted_cost, world.quality, world.cost_usd, 1)
    report = evaluate(world, points, {}, 1, 50, 0)
    share_hard = 1 - world.quality[:, 0].mean()
    # All of b's quality; a where it suffices: cost 1 + 9 · hard instead of 10.
    assert report["metrics"]["save_100"]["value"] == pytest.approx(1 - (1 + 9 * share_hard) / 10)
    assert report["metrics"]["save_100_quality"]["value"] == pytest.approx(1.0)
    assert report["metrics"]["naiq"]["value"] == pytest.approx(1.0)
    assert report["metrics"]["regret"]["value"] == pytest.approx(0.0, abs=1e-9)
    # Two candidates: the gap is closed by calling b on the hard ones alone, so CPT(50) is half of them.
    assert report["metrics"]["cpt_50"]["value"] == pytest.approx(share_hard / 2, abs=0.003)


def test_a_router_that_knows_nothing_fills_no_room(world):
    blind = rows_of(world.quality, world.cost_usd, np.tile(world.quality.mean(axis=0), (400, 1)))
    points = choose_points(blind.predicted, blind.predicted_cost, blind.quality, blind.cost_usd, 1)
    report = evaluate(blind, points, {}, 1, 50, 0)
    assert report["metrics"]["naiq"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert report["metrics"]["save_100"]["value"] == pytest.approx(0.0)


def test_cost_error_and_coverage_by_hand():
    rows = rows_of([[1, 0], [0, 1]], [[1, 4], [3, 4]])
    rows.predicted_cost[:, 0] = 3.0  # 6 instead of 4
    rows.true_output_tokens[0, 0] = 21.0  # above its quantile of 20
    report = evaluate(rows, None, {}, 0, 50, 0)
    assert report["candidates"]["a"]["cost_error"]["value"] == pytest.approx(0.5)
    assert report["candidates"]["a"]["p90_coverage"]["value"] == pytest.approx(0.5)
    assert report["candidates"]["b"]["cost_error"]["value"] == pytest.approx(0.0)
    assert "naiq" not in report["metrics"]


def test_unobserved_outcomes_are_left_out_not_counted_as_wrong():
    quality = [[1.0, np.nan], [0.0, 1.0], [1.0, 0.0]]
    report = evaluate(rows_of(quality, [[1.0, 2.0]] * 3, [[0.9, 0.5]] * 3), None, {}, 0, 50, 0)
    assert report["candidates"]["b"]["n_observed"] == 2
    assert report["candidates"]["b"]["brier"]["value"] == pytest.approx(0.25)
    assert report["n_complete"] == 2


def test_presets_are_scored_with_the_routers_policy(world):
    presets = {"top": Policy("threshold", 0.9, "top"), "cheap": Policy("willingness_to_pay_usd", 0.0, "cheap")}
    report = evaluate(world, choose_points(*(getattr(world, n) for n in FIELDS), 1), presets, 1, 50, 0)
    share_easy = world.quality[:, 0].mean()
    assert report["presets"]["top"]["quality"]["value"] == 1.0
    assert report["presets"]["top"]["shares"]["a"] == pytest.approx(share_easy)
    assert report["presets"]["cheap"]["cost_usd"]["value"] == 1.0
    assert report["presets"]["cheap"]["quality_minus_best_single"]["value"] == pytest.approx(share_easy - 1)


FIELDS = ("predicted", "predicted_cost", "quality", "cost_usd")


def test_presets_keep_what_they_promise_on_the_rows_they_were_chosen_on():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.1, 0.9, (3000, 1)) + np.array([-0.1, 0.0, 0.08])
    rows = rows_of(rng.random((3000, 3)) < truth, np.tile([0.1, 1.0, 10.0], (3000, 1)), np.clip(truth, 0, 1))
    presets = choose_presets(*(getattr(rows, n) for n in FIELDS), 2, rows.candidates[2])
    report = evaluate(rows, choose_points(*(getattr(rows, n) for n in FIELDS), 2), presets, 2, 50, 0)
    single = rows.quality[:, 2].mean()
    reached = {name: preset["quality"]["value"] for name, preset in report["presets"].items()}
    assert reached["quality"] >= single - 0.002
    assert reached["balanced"] >= 0.99 * single and reached["price"] >= 0.95 * single
    cost = {name: preset["cost_usd"]["value"] for name, preset in report["presets"].items()}
    assert cost["price"] <= cost["balanced"] <= cost["quality"]


def test_where_nothing_is_to_be_gained_the_quality_preset_stays_with_the_best_single():
    rng = np.random.default_rng(2)
    quality = (rng.random((2000, 3)) < [0.3, 0.5, 0.9]).astype(float)
    guess = rng.random((2000, 3))
    rows = rows_of(quality, np.tile([0.1, 1.0, 10.0], (2000, 1)), guess)
    policy = choose_presets(*(getattr(rows, n) for n in FIELDS), 2, rows.candidates[2])["quality"]
    assert (policy.anchor, policy.margin) == (rows.candidates[2], 1.0)
    assert (choose(guess, rows.predicted_cost, policy, anchor=2) == 2).all()


def test_resamples_draw_whole_groups():
    weights = resamples(["x", "x", "y", "z", "z", "z"], 30, 0)
    assert weights.shape == (31, 6)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 3] == weights[:, 5]).all()
    # three groups are drawn each time
    assert (weights[1:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_an_interval_surrounds_its_value_even_when_resamples_are_biased():
    entry = summary(np.concatenate([[0.1], np.linspace(0.2, 0.4, 101)]))
    assert entry["low"] == pytest.approx(0.1 - 0.095)
    assert entry["high"] == pytest.approx(0.1 + 0.095)


def test_the_dial_goes_from_money_alone_to_quality_alone():
    dial = dial_of(np.array([[0.01, 2.0], [0.03, 4.0]]))
    assert dial[0] == 0.0
    assert dial[1] == pytest.approx(0.002) and dial[-1] == pytest.approx(3_000.0)
    assert list(dial) == sorted(dial)


def test_regret_is_zero_for_the_oracle_and_one_for_a_random_choice(world):
    arrays = [getattr(world, n) for n in FIELDS]
    assert regret(*arrays) == pytest.approx(0.0, abs=1e-9)
    backwards = regret(1 - world.quality, -world.cost_usd, world.quality, world.cost_usd)
    assert backwards > 1


@pytest.mark.parametrize(("won", "lost", "leaves"), [(12, 6, False), (20, 4, True)])  # 1.4 and 3.4 standard errors
def test_the_anchor_is_left_only_for_a_gain_that_is_proven(won, lost, leaves):
    quality = np.full((100, 2), 0.5)
    quality[:won] = [1.0, 0.0]
    quality[won : won + lost] = [0.0, 1.0]
    predicted, cost = np.tile([0.7, 0.6], (100, 1)), np.tile([1.0, 1.0], (100, 1))
    policy = no_regret(predicted, cost, quality, dial_of(cost), 1, "b")
    assert (choose(predicted, cost, policy, anchor=1) == 0).all() == leaves
