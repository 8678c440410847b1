"""The simulated log: what is asked for is in it, decided by the router's own policy, and true as stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from router.domain import Policy
from routing_data.sample import generate
from training.decision_log import DecisionLog
from training.replay import read_replay
from training.simulated_log import Arm, simulate
from training.simulated_world import Shift, after, columns_of

SAMPLE = generate(n_prompts=600)
NAMES = columns_of(SAMPLE)


def test_equal_arguments_give_equal_rows_and_another_seed_others(tmp_path) -> None:
    one, two, other = (simulate(tmp_path / str(i), SAMPLE, n_requests=300, seed=s) for i, s in enumerate((4, 4, 5)))
    pd.testing.assert_frame_equal(one.requests, two.requests)
    pd.testing.assert_frame_equal(one.feedback, two.feedback)
    assert one.requests["key"].tolist() != other.requests["key"].tolist()


def test_choices_are_the_policys_and_propensities_what_they_say(tmp_path) -> None:
    policy = Policy("threshold", 0.7)
    made = simulate(tmp_path, SAMPLE, n_requests=3000, explored=0.4, policy=policy)
    with DecisionLog(made.path) as log:
        replay = read_replay(log)
    assert replay.agreement == 1.0 and replay.n_left_out == 0
    inverse = 1 / replay.propensity
    # Of every candidate, the inverse propensities of its choices sum to all requests, but for chance.
    for j in range(len(NAMES)):
        assert inverse[replay.chosen == j].sum() == pytest.approx(3000, rel=0.2)
    assert made.requests["is_explored"].mean() == pytest.approx(0.4 * 0.75, abs=0.04)


def test_a_shift_changes_votes_cost_and_length_from_its_moment_on_and_nothing_before(tmp_path) -> None:
    shift = Shift(NAMES[0], quality=-0.5, length=2.0, at=0.5)
    options = {"n_requests": 4000, "explored": 1.0, "vote_share": 1.0}
    plain = simulate(tmp_path / "plain", SAMPLE, **options)
    made = simulate(tmp_path / "shifted", SAMPLE, shifts=[shift], **options)
    pd.testing.assert_frame_equal(plain.requests.iloc[:2000], made.requests.iloc[:2000])
    own = (made.requests["candidate"] == NAMES[0]).to_numpy()
    late = np.arange(4000) >= 2000
    votes = made.feedback["score"].to_numpy()
    drop = votes[own & late].mean() - plain.feedback["score"].to_numpy()[own & late].mean()
    assert drop == pytest.approx((made.truth - plain.truth)[NAMES[0]][own & late].mean(), abs=0.05) and drop < -0.3
    assert (votes[~own] == plain.feedback["score"].to_numpy()[~own]).all()
    ratio = made.requests["cost_usd"] / plain.requests["cost_usd"]
    assert np.allclose(ratio, np.where(own & late, 2.0, 1.0))
    assert set(made.requests["output_tokens"][own & late]) == {200}


def test_a_late_task_comes_in_the_second_half_only_and_is_unfamiliar(tmp_path) -> None:
    made = simulate(tmp_path, SAMPLE, n_requests=1000, late_task="sorting")
    late = made.requests[made.requests["task"] == "sorting"]
    assert len(late) > 20 and late.index.min() >= 500
    assert {(o["quality_low"], o["quality_high"]) for rows in late["outlook"] for o in rows} == {(0.0, 1.0)}


def test_an_experiment_is_sticky_by_user_and_decided_by_its_arms(tmp_path) -> None:
    arms = [Arm("control", 0.5), Arm("thrifty", 0.5, Policy("willingness_to_pay_usd", 0.001))]
    made = simulate(tmp_path, SAMPLE, n_requests=4000, explored=0.0, arms=arms, n_users=200)
    by_unit = made.requests.groupby("unit")["arm"].nunique()
    assert len(by_unit) > 150 and (by_unit == 1).all()
    cost = made.requests.groupby("arm")["cost_usd"].mean()
    assert cost["thrifty"] < 0.5 * cost["control"]
    assert set(made.requests["arm_share"]) == {0.5}


def test_a_grudge_is_one_keys_and_about_one_candidate(tmp_path) -> None:
    plain = simulate(tmp_path / "plain", SAMPLE, n_requests=2000)
    made = simulate(tmp_path / "grudge", SAMPLE, n_requests=2000, grudges={"team-1": NAMES[1]})
    about = made.requests.set_index("id").loc[made.feedback["request_id"], "candidate"].to_numpy()
    is_one = ((made.feedback["key"] == "team-1") & (about == NAMES[1])).to_numpy()
    assert is_one.sum() > 20 and (made.feedback["score"][is_one] == 0).all()
    pd.testing.assert_series_equal(made.feedback["score"][~is_one], plain.feedback["score"][~is_one])


def test_the_world_after_a_shift_is_drawn_from_its_own_truth() -> None:
    shift = Shift(NAMES[1], quality=-0.5, length=2.0, task="sorting", at=0.7)
    later = after(SAMPLE, [shift], seed=3)
    is_own = (later.truth["candidate"] == NAMES[1]) & later.truth["prompt_id"].isin(
        [own for own, task in zip(SAMPLE.table.prompt_ids, SAMPLE.table.tasks, strict=True) if task == "sorting"]
    )
    assert np.allclose(later.truth["probability"][~is_own], SAMPLE.truth["probability"][~is_own])
    expected = np.clip(SAMPLE.truth["probability"][is_own] - 0.5, 0, 1)
    assert np.allclose(later.truth["probability"][is_own], expected)
    assert np.allclose(later.truth["expected_cost_usd"][is_own], 2 * SAMPLE.truth["expected_cost_usd"][is_own])
    table, column = later.table, later.table.candidates.index(NAMES[1])
    own = np.array([task == "sorting" for task in table.tasks])
    assert np.nanmean(table.quality[own, column]) == pytest.approx(expected.mean(), abs=0.15)
    assert (np.isnan(table.quality) == np.isnan(SAMPLE.table.quality)).all()
    chance = later.truth.pivot(index="prompt_id", columns="candidate", values="probability")
    chance = chance.loc[list(table.prompt_ids), list(table.candidates)].to_numpy()
    assert np.nanmean(table.quality - chance) == pytest.approx(0, abs=0.03)
    assert np.allclose(table.cost_usd[own, column], 2 * SAMPLE.table.cost_usd[own, column], equal_nan=True)
