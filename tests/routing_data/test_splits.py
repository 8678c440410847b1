from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_data import split

PARTS = {"train": 0.6, "validation": 0.2, "test": 0.2}
names = st.lists(st.text(max_size=6), max_size=40)


@given(names, names, st.integers(0, 5))
def test_adding_rows_moves_nobody(old, new, seed):
    before = split(old, PARTS, seed)
    after = split(old + new, PARTS, seed)
    assert before.tolist() == after[: len(old)].tolist()


@given(names, st.integers(0, 5))
def test_a_group_never_straddles_two_parts(groups, seed):
    parts = split(groups + groups, PARTS, seed)
    assert parts.shape == (2 * len(groups),)
    assert parts[: len(groups)].tolist() == parts[len(groups) :].tolist()


def test_fractions_hold_on_average():
    counts = Counter(split([f"g{i}" for i in range(20_000)], PARTS, 1).tolist())
    # standard deviation of a share: sqrt(.6 * .4 / 20000) = .0035; five of them allowed
    for name, fraction in PARTS.items():
        assert abs(counts[name] / 20_000 - fraction) < 0.0175


def test_another_seed_is_another_split():
    groups = [str(i) for i in range(1_000)]
    assert (split(groups, PARTS, 1) != split(groups, PARTS, 2)).mean() > 0.3


def test_growing_one_part_leaves_the_parts_before_it_alone():
    groups = [str(i) for i in range(1_000)]
    coarse = split(groups, {"train": 0.6, "rest": 0.4}, 0)
    fine = split(groups, PARTS, 0)
    np.testing.assert_array_equal(coarse == "train", fine == "train")


def test_a_part_of_size_zero_stays_empty_and_thirds_leave_no_gap():
    parts = split([str(i) for i in range(1_000)], {"none": 0.0, "a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 0)
    assert set(parts.tolist()) == {"a", "b", "c"}


def test_the_split_of_a_name_is_pinned():
    # Stored results depend on it: a change here silently reshuffles everybody's test rows.
    parts = split([f"g{i}" for i in range(16)], PARTS, 0)
    assert "".join(part[:2] for part in parts) == "trtetrtrtrtrtrtetrtrvatetetetrva"


@pytest.mark.parametrize("fractions", [{"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {}])
def test_fractions_must_be_shares_that_sum_to_one(fractions):
    with pytest.raises(ValueError, match="expected"):
        split(["g"], fractions, 0)
