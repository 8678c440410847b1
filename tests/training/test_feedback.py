"""Votes to weighted observations: joined, dropped and counted, weighed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.decision_log import DecisionLog
from training.feedback import votes_of
from training.retrain_settings import FeedbackSettings

START, DAY_S = 1_793_750_400.0, 86_400.0


def requests(n, **columns):
    plain = {
        "id": [f"r{i}" for i in range(n)],
        "time_unix_s": START,
        "key": "a",
        "candidate": "large",
        "chosen": "large",
        "propensity": 0.5,
        "predicted_quality": 0.8,
        "input_tokens": 10,
        "output_tokens": 20,
        "cost_usd": 0.01,
        "is_usage_estimated": False,
        "is_emulated": True,
    }
    return pd.DataFrame({**plain, **columns})


def vote(request_id, score=1.0, key="a", at=START + 60, source="vote"):
    return {"request_id": request_id, "key": key, "score": score, "time_unix_s": at, "source": source}


def read(tmp_path, log_tables, requests, votes, **settings):
    log_tables(tmp_path, requests=requests, feedback=pd.DataFrame(votes))
    with DecisionLog(tmp_path) as log:
        return votes_of(log, FeedbackSettings(share=1.0, **settings))


def test_what_is_dropped_is_counted(tmp_path, log_tables):
    found = read(
        tmp_path,
        log_tables,
        requests(6, candidate=["large", "large", None, "large", "large", "small"]),
        [
            vote("r0"),
            vote("nobody"),
            vote("r1", at=START + 8 * DAY_S),
            vote("r2"),
            vote("r3", score=1.5),
            vote("r4", score=0.0, source="signal"),
            vote("r5", score=0.25),
        ],
    )
    assert found.counts == {
        "n_votes": 7,
        "n_replaced": 0,
        "n_unknown_id": 1,
        "n_late": 1,
        "n_without_answer": 1,
        "n_invalid": 1,
        "n_signals_unused": 1,
        "n_failed_over": 1,
        "n_without_propensity": 1,
        "n_clipped": 0,
        "n_weighed": 2,
    }
    assert found.frame["request_id"].tolist() == ["r0", "r5"]
    assert found.until_unix_s == START + 8 * DAY_S


def test_the_window_is_a_setting(tmp_path, log_tables):
    found = read(tmp_path, log_tables, requests(1), [vote("r0", at=START + 8 * DAY_S)], window_days=9.0)
    assert len(found.frame) == 1


def test_a_vote_is_about_who_answered_and_counts_by_propensity_only_where_that_is_who_was_chosen(tmp_path, log_tables):
    table = requests(
        4,
        candidate=["large", "large", "small", "large"],
        chosen=["large", "large", "large", "large"],
        propensity=[0.5, 0.1, 0.1, np.nan],
    )
    found = read(tmp_path, log_tables, table, [vote(f"r{i}") for i in range(4)])
    frame = found.frame.set_index("request_id")
    assert frame["candidate"].tolist() == ["large", "large", "small", "large"]
    # 2 and 10, scaled to a mean of 1; the failed-over one and the one without a propensity count 1.
    assert frame["weight"].tolist() == pytest.approx([2 / 6, 10 / 6, 1, 1])
    assert (found.counts["n_failed_over"], found.counts["n_without_propensity"]) == (1, 2)


def test_inverse_propensities_are_clipped(tmp_path, log_tables):
    table = requests(2, propensity=[1.0, 0.001])
    found = read(tmp_path, log_tables, table, [vote("r0"), vote("r1")], clip=3.0)
    assert found.frame["weight"].tolist() == pytest.approx([0.5, 1.5])
    assert found.counts["n_clipped"] == 1


def test_weighing_by_propensity_recovers_the_mean_over_all_prompts(tmp_path, log_tables):
    rng = np.random.default_rng(0)
    n = 4000
    is_hard = rng.random(n) < 0.5
    propensity = np.where(is_hard, 0.9, 0.1)  # the candidate is asked the hard half, and is bad at it
    asked = rng.random(n) < propensity
    score = (rng.random(n) < np.where(is_hard, 0.3, 0.9)).astype(float)
    table = requests(n, propensity=propensity)[asked]
    said = [vote(f"r{i}", score=score[i], key=f"k{i % 9}") for i in np.flatnonzero(asked)]
    frame = read(tmp_path, log_tables, table, said, tolerance=100.0).frame
    assert frame["score"].mean() < 0.4
    assert np.average(frame["score"], weights=frame["weight"]) == pytest.approx(0.6, abs=0.05)


def test_a_later_vote_replaces_and_votes_of_several_keys_are_averaged(tmp_path, log_tables):
    said = [vote("r0", 0.0), vote("r0", 1.0, at=START + 90), vote("r0", 0.0, key="b"), vote("r1", 0.5)]
    found = read(tmp_path, log_tables, requests(2), said)
    assert found.counts["n_replaced"] == 1
    frame = found.frame.set_index("request_id")
    assert frame.loc["r0", "score"] == pytest.approx(0.5)
    assert frame.loc["r0", "weight"] == pytest.approx(2 * frame.loc["r1", "weight"])


def test_signals_are_weak_votes_against_where_nobody_voted_and_only_if_asked_for(tmp_path, log_tables):
    said = [vote("r0", 1.0), vote("r0", 0.0, source="signal"), vote("r1", 0.0, source="signal")]
    found = read(tmp_path, log_tables, requests(2), said, signals=True, signal_weight=0.2)
    frame = found.frame.set_index("request_id")
    assert frame.loc["r0", "score"] == 1.0 and frame.loc["r1", "score"] == 0.0
    assert frame.loc["r1", "weight"] == pytest.approx(0.2 * frame.loc["r0", "weight"])
    assert found.counts["n_signals_unused"] == 1


def test_estimated_usage_tells_no_tokens(tmp_path, log_tables):
    frame = read(tmp_path, log_tables, requests(2, is_usage_estimated=[True, False]), [vote("r0"), vote("r1")]).frame
    assert frame["output_tokens"].isna().tolist() == [True, False]
    assert frame["cost_usd"].isna().tolist() == [True, False]


def test_one_key_of_thousands_of_forged_votes_weighs_little(tmp_path, log_tables):
    rng = np.random.default_rng(0)
    n = 6000
    keys = ["forger"] * 5000 + [f"k{i % 25}" for i in range(1000)]
    score = np.where(np.arange(n) < 5000, 0.0, rng.random(n) < 0.8).astype(float)
    log_tables(
        tmp_path,
        requests=requests(n),
        feedback=pd.DataFrame([vote(f"r{i}", score[i], keys[i]) for i in range(n)]),
    )
    with DecisionLog(tmp_path) as log:
        found = votes_of(log, FeedbackSettings())
        capped = votes_of(log, FeedbackSettings(tolerance=1e6))
        trusted = votes_of(log, FeedbackSettings(trusted=("forger",)))
    assert found.keys.set_index("key").loc["forger", "share"] == 0
    assert found.frame["score"].mean() == pytest.approx(0.8, abs=0.03)
    # Believed, it would still have no more than its share.
    assert capped.keys.set_index("key").loc["forger", "share"] == pytest.approx(0.05)
    assert trusted.keys.set_index("key").loc["forger", "share"] > 0.8


def test_a_log_without_feedback_has_no_votes(tmp_path, log_tables):
    log_tables(tmp_path, requests=requests(3))
    with DecisionLog(tmp_path) as log:
        found = votes_of(log, FeedbackSettings())
    assert found.frame.empty and found.until_unix_s is None and found.counts["n_votes"] == 0
