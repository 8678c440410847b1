from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing_data import OutcomeTable, Source, merge

NAN = np.nan


def test_prompts_and_candidates_are_united(make_table):
    left = make_table([[1.0, 0.0]], candidates=("a", "b"), name="l")
    right = make_table([[0.5, 0.25]], candidates=("b", "c"), name="r")
    both = merge([left, right])
    assert both.prompts == ("l prompt 0", "r prompt 0") and both.candidates == ("a", "b", "c")
    np.testing.assert_array_equal(both.quality, np.array([[1, 0, NAN], [NAN, 0.5, 0.25]], np.float32))
    assert [source.name for source in both.sources] == ["l", "r"]


def test_the_same_text_becomes_one_row_and_its_observations_are_averaged(make_table):
    left = make_table([[1.0, 0.0]], [[0.2, NAN]], prompts=("same",), name="l", tasks=("unknown",))
    right = make_table([[0.0, NAN]], [[0.4, 0.1]], prompts=("same",), name="r", tasks=("maths",))
    both = merge([left, right])
    assert both.prompt_ids == ("l-0",) and both.tasks == ("maths",)
    np.testing.assert_array_equal(both.quality, np.array([[0.5, 0.0]], np.float32))  # (1 + 0) / 2; 0 alone
    np.testing.assert_allclose(both.cost_usd, [[0.3, 0.1]])  # (.2 + .4) / 2; .1 alone
    assert np.isnan(both.output_tokens).all()


def test_a_text_that_occurs_twice_in_one_table_is_joined_too(make_table):
    table = merge([make_table([[1.0], [0.0]], prompts=("same", "same"))])
    assert len(table.prompts) == 1 and table.quality[0, 0] == 0.5


def test_groups_are_joined_through_shared_texts(make_table):
    # left: g1 = {x, y}, g2 = {z}.  right: h = {y, z}.  So x - y - z are one group; w stays alone.
    left = make_table([[1.0]] * 3, prompts=("x", "y", "z"), groups=("g1", "g1", "g2"), name="l")
    right = make_table([[1.0]] * 3, prompts=("y", "z", "w"), groups=("h", "h", "k"), name="r")
    both = merge([left, right])
    groups = dict(zip(both.prompts, both.groups, strict=True))
    assert groups == {"x": "g1", "y": "g1", "z": "g1", "w": "k"}  # smallest of g1, g2, h


def test_a_group_name_means_the_same_only_within_one_source(make_table):
    left = make_table([[1.0]], prompts=("x",), groups=("1",), ids=("1",), name="l")
    right = make_table([[1.0]], prompts=("y",), groups=("1",), ids=("1",), name="r")
    both = merge([left, right])
    assert both.groups[0] == "1" and both.groups[1] != "1"
    assert both.prompt_ids[0] == "1" and both.prompt_ids[1].startswith("1~")


def test_two_halves_of_one_source_keep_their_groups(make_table):
    whole = make_table([[1.0], [0.0], [1.0]], groups=("g", "h", "g"))
    both = merge([whole.select([0]), whole.select([1, 2])])
    assert both.groups == ("g", "h", "g") and both.sources == whole.sources


def test_merging_one_table_of_distinct_texts_changes_nothing(make_table):
    table = make_table([[1.0, NAN], [0.5, 0.0]], groups=("g", "g"))
    same = merge([table])
    assert (same.prompt_ids, same.groups, same.candidates) == (table.prompt_ids, table.groups, table.candidates)
    np.testing.assert_array_equal(same.quality, table.quality)


def test_there_must_be_a_table():
    with pytest.raises(ValueError, match="no tables to merge"):
        merge([])


rows = st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("123")), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=3))
def test_after_a_merge_no_two_rows_that_belong_together_are_apart(tables):
    made = []
    for number, pairs in enumerate(tables):
        n = len(pairs)
        cells = np.full((n, 1), np.nan)
        made.append(
            OutcomeTable(
                tuple(f"{number}-{i}" for i in range(n)),
                tuple(text for text, _ in pairs),
                ("unknown",) * n,
                tuple(group for _, group in pairs),
                ("a",),
                cells.astype(np.float32),
                cells,
                cells,
                cells,
                (Source(str(number), "", str(number), None, None, False, n),),
            )
        )
    both = merge(made)
    assert sorted(both.prompts) == sorted({text for pairs in tables for text, _ in pairs})
    group_of = dict(zip(both.prompts, both.groups, strict=True))
    for pairs in tables:
        for text, group in pairs:
            assert {group_of[t] for t, g in pairs if g == group} == {group_of[text]}
    assert len(set(both.prompt_ids)) == len(both.prompt_ids)
