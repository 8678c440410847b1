"""How much one key may say: caps and doubt, by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import NotEnoughData
from training.influence import capped, trust


def shares(weights, keys, factors):
    left = np.array([w * factors[k] for w, k in zip(weights, keys, strict=True)])
    return {key: left[np.array(keys) == key].sum() / left.sum() for key in set(keys)}


def test_a_loud_key_is_lowered_to_its_share_and_the_others_are_left_alone():
    keys = ["loud"] * 5000 + [f"k{i}" for i in range(40) for _ in range(50)]
    factors = capped(np.ones(len(keys)), keys, 0.05)
    assert shares(np.ones(len(keys)), keys, factors)["loud"] == pytest.approx(0.05)
    assert {factors[f"k{i}"] for i in range(40)} == {1.0}


def test_by_hand_two_keys_above_the_level():
    # 40 and 30 of 100 with at most a quarter each: both at c = .25 (2 c + 30), so c = 15.
    keys = ["a"] * 40 + ["b"] * 30 + ["c"] * 12 + ["d"] * 9 + ["e"] * 9
    factors = capped(np.ones(100), keys, 0.25, is_strict=True)
    assert factors["a"] == pytest.approx(15 / 40)
    assert factors["b"] == pytest.approx(15 / 30)
    assert factors["c"] == factors["d"] == factors["e"] == 1


def test_with_few_keys_a_loud_one_weighs_what_the_median_one_weighs():
    keys = ["loud"] * 5000 + ["a"] * 120 + ["b"] * 100 + ["c"] * 80 + ["nearly silent"]
    factors = capped(np.ones(len(keys)), keys, 0.05)
    assert factors["loud"] * 5000 == pytest.approx(100)
    assert factors["a"] * 120 == pytest.approx(100)
    assert factors["b"] == factors["c"] == factors["nearly silent"] == 1


def test_strict_with_too_few_keys_says_how_many_are_needed():
    with pytest.raises(NotEnoughData, match=r"3 keys gave feedback; with at most 5.0% each, at least 20 are needed"):
        capped(np.ones(30), ["a"] * 10 + ["b"] * 10 + ["c"] * 10, 0.05, is_strict=True)


def test_strict_with_just_enough_keys_makes_all_equal():
    keys = [f"k{i}" for i in range(4) for _ in range(10 * (i + 1))]
    factors = capped(np.ones(len(keys)), keys, 0.25, is_strict=True)
    assert shares(np.ones(len(keys)), keys, factors) == pytest.approx({f"k{i}": 0.25 for i in range(4)})


@given(
    st.lists(st.tuples(st.integers(0, 30), st.just(0.0) | st.floats(1e-6, 50)), min_size=1, max_size=200),
    st.floats(0.02, 1),
)
def test_no_key_exceeds_its_share_and_no_weight_grows(rows, share):
    keys, weights = [f"k{key}" for key, _ in rows], np.array([weight for _, weight in rows])
    factors = capped(weights, keys, share)
    assert set(factors) == set(keys) and all(0 <= factor <= 1 for factor in factors.values())
    left = np.array([w * factors[k] for w, k in zip(weights, keys, strict=True)])
    if left.sum() <= 0:
        return
    n_keys = len({key for key, weight in zip(keys, weights, strict=True) if weight > 0})
    assert max(shares(weights, keys, factors).values()) <= max(share, 2 / n_keys) + 1e-9


def votes(rng, n, quality, score=None, key="k"):
    p = np.full(n, quality)
    return (rng.random(n) < p).astype(float) if score is None else np.full(n, score), p, [key] * n


def together(parts):
    scores, predicted, keys = zip(*parts, strict=True)
    return np.concatenate(scores), np.concatenate(predicted), [k for part in keys for k in part]


def test_honest_keys_are_believed_and_a_forger_is_not():
    rng = np.random.default_rng(0)
    honest = [votes(rng, 150, 0.8, key=f"k{i}") for i in range(6)]
    scores, predicted, keys = together([*honest, votes(rng, 500, 0.8, score=0.0, key="forger")])
    believed = trust(scores, predicted, keys, ["x"] * len(keys), 0.2)
    assert believed["forger"] == 0
    assert min(believed[f"k{i}"] for i in range(6)) > 0.8


def test_what_all_keys_say_is_no_disagreement():
    rng = np.random.default_rng(1)
    parts = [votes(rng, 200, 0.3, key=f"k{i}") for i in range(5)]
    scores, _, keys = together(parts)
    stale = np.full(len(scores), 0.9)  # the candidate has become much worse than was predicted
    assert min(trust(scores, stale, keys, ["x"] * len(keys), 0.2).values()) > 0.8


def test_nobody_is_doubted_among_two_keys_or_with_few_votes_or_without_predictions():
    scores, predicted = np.array([0.0] * 50 + [1.0] * 50), np.full(100, 0.9)
    two = ["a"] * 50 + ["b"] * 50
    assert trust(scores, predicted, two, ["x"] * 100, 0.2) == {"a": 1.0, "b": 1.0}
    few = [f"k{i // 9}" for i in range(100)]
    assert set(trust(scores, predicted, few, ["x"] * 100, 0.2).values()) == {1.0}
    many = [f"k{i // 20}" for i in range(100)]
    assert set(trust(scores, np.full(100, np.nan), many, ["x"] * 100, 0.2).values()) == {1.0}
