"""Another policy over a log: the router's own choices, and costs as calls really cost."""

from __future__ import annotations

import numpy as np
import pytest

from router.domain import Policy
from router.policy import order
from training.decision_log import DecisionLog
from training.errors import NotEnoughData
from training.replay import Replay, read_replay


@pytest.fixture(scope="module")
def routed(small_log, log_tables, tmp_path_factory):
    """Return the small log as plain ``auto`` traffic, its choices those of its policy, or explored."""
    folder = tmp_path_factory.mktemp("routed") / "LOG"
    requests = small_log.requests.assign(scenario=None, binding="willingness_to_pay_usd")
    log_tables(folder, requests=requests, feedback=small_log.feedback)
    return folder


@pytest.fixture(scope="module")
def replay(routed):
    return read_replay(DecisionLog(routed))


def test_the_logged_policy_gives_the_logged_choices(replay, small_log):
    assert replay.agreement == 1.0
    assert replay.n_left_out == 0 and replay.bundle == "sample@1"
    by_id = dict(zip(small_log.requests["id"], small_log.requests["chosen"], strict=True))
    assert [replay.candidates[j] for j in replay.chosen] == [by_id[i] for i in replay.ids]


def test_another_policy_chooses_what_the_router_would(replay):
    for policy in (Policy("threshold", 0.7), Policy("quality_per_usd", 0.5), Policy("willingness_to_pay_usd", 1.0)):
        found = replay.choices(policy)
        for i in range(0, len(replay.ids), 97):
            own = order(replay.quality[i].tolist(), replay.cost_usd[i].tolist(), policy, allowed=replay.allowed[i])
            assert found[i] == own[0]


def test_costs_are_those_of_real_calls(replay):
    # The synthetic log pays a log-normal with sigma 0.2 around the expected cost: 2 % more in the mean.
    assert replay.corrections() == pytest.approx(np.full(4, np.exp(0.02)), abs=0.03)
    cost, change = replay.expected_usd(replay.chosen)
    paid = replay.paid_usd[np.isfinite(replay.paid_usd)]
    assert cost.value == pytest.approx(paid.mean(), rel=0.02)
    assert change.value == change.low == change.high == 0
    dearest = replay.choices(Policy("willingness_to_pay_usd", 1e6))
    cost, change = replay.expected_usd(dearest)
    assert change.low > 0 and cost.low < cost.value < cost.high


def fake(n: int, seed: int, corrections: tuple[float, ...] = (1.0, 2.0)) -> Replay:
    """n requests of two candidates, whose calls really cost so many times what was expected."""
    rng = np.random.default_rng(seed)
    cost = rng.lognormal(-6, 0.5, (n, 2)) * np.array([1, 5])
    chosen = rng.integers(0, 2, n)
    every = np.arange(n)
    paid = cost[every, chosen] * np.array(corrections)[chosen] * rng.lognormal(-0.125, 0.5, n)
    ids = every.astype(str)
    every_may = np.ones((n, 2), bool)
    return Replay(
        ("a", "b"), "x@1", ids, ids, np.full((n, 2), 0.5), cost, every_may, chosen, np.full(n, 0.5), paid, 0, 1.0
    )


def test_intervals_of_costs_hold_the_truth():
    hits = 0
    for seed in range(200):
        replay = fake(300, seed)
        cost, _ = replay.expected_usd(np.ones(300, dtype=np.intp))
        true = np.exp(-6 + 0.125) * 5 * 2
        hits += cost.low <= true <= cost.high
    assert 0.9 <= hits / 200 <= 1


def test_a_candidate_without_calls_is_corrected_like_the_others():
    replay = fake(400, 1, (2.0, 2.0))
    only_a = Replay(*(getattr(replay, f) for f in replay.__slots__[:7]), np.zeros(400, np.intp), replay.propensity,
                    replay.cost_usd[:, 0] * 2.0, 0, 1.0)  # fmt: skip
    assert only_a.corrections() == pytest.approx([2.0, 2.0])
    few = fake(5, 1, (2.0, 4.0))
    assert abs(few.corrections()[1] - few.corrections()[0]) < 1.5


def test_keys_are_units_where_there_are_enough(replay):
    assert len(np.unique(replay.keys)) == 8 and len(np.unique(replay.clusters)) == len(replay.ids)
    many = fake(100, 0)
    assert len(np.unique(many.clusters)) == 100


def test_only_what_a_policy_decided_is_replayed(tmp_path, small_log, log_tables):
    requests = small_log.requests.iloc[:100].assign(scenario=None, binding="threshold", policy_kind="threshold")
    requests.loc[requests.index[:10], "binding"] = "designated"
    requests.loc[requests.index[10:20], "binding"] = "conversation"
    requests.loc[requests.index[20:30], "scenario"] = "night"
    requests.loc[requests.index[30:40], "bundle"] = "sample@0"
    log_tables(tmp_path, requests=requests)
    log = DecisionLog(tmp_path)
    found = read_replay(log)
    assert len(found.ids) == 60 and found.n_left_out == 30
    assert found.agreement is not None and found.agreement < 1  # it was no threshold
    assert len(read_replay(log, on="scenario:night").ids) == 10
    assert len(read_replay(log, bundle="sample@0").ids) == 10
    assert len(read_replay(log, most_requests=7).ids) == 7
    with pytest.raises(NotEnoughData, match="of 0 requests on auto:price"):
        read_replay(log, on="auto:price")


def test_a_candidate_without_a_price_is_named():
    replay = fake(50, 0)
    replay.cost_usd[3, 1] = np.nan
    with pytest.raises(NotEnoughData, match="b would be chosen and has no known cost"):
        replay.expected_usd(np.ones(50, dtype=np.intp))
    replay.paid_usd[:] = np.nan
    with pytest.raises(NotEnoughData, match="no call of known cost"):
        replay.corrections()
