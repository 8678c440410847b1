from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import routing_data
from routing_data import UnknownName, schema

NAN = np.nan


def test_the_public_names_are_those_of_all():
    found = {n for n, v in vars(routing_data).items() if not n.startswith("_") and not inspect.ismodule(v)}
    assert found - {"annotations"} == set(routing_data.__all__)
    assert len(routing_data.__all__) == len(set(routing_data.__all__))


def test_select_takes_positions_in_the_order_given(make_table):
    table = make_table([[1, 2], [3, 4], [5, 6]]).select(rows=[2, 0])
    assert table.prompt_ids == ("made-2", "made-0")
    np.testing.assert_array_equal(table.quality, [[5, 6], [1, 2]])


def test_select_takes_a_mask_and_candidates_which_stay_sorted(make_table):
    table = make_table([[1, 2, 3], [4, 5, 6]]).select(np.array([False, True]), ["c", "a"])
    assert table.candidates == ("a", "c") and table.groups == ("made-1",)
    np.testing.assert_array_equal(table.quality, [[4, 6]])


def test_select_refuses_unknown_candidates_and_short_masks(make_table):
    table = make_table([[1, 2], [3, 4]])
    with pytest.raises(UnknownName, match=r"unknown candidate 'z'; known: a, b"):
        table.select(candidates=["z"])
    with pytest.raises(ValueError, match=r"mask has shape \(1,\); expected \(2,\)"):
        table.select(np.array([True]))


def test_shapes_that_disagree_are_refused(make_table):
    table = make_table([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"prompts has 1 entries; expected 2"):
        replace(table, prompts=("x",))
    with pytest.raises(ValueError, match=r"cost_usd has shape \(1, 2\); expected \(2, 2\)"):
        replace(table, cost_usd=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="expected sorted, unique names"):
        replace(table, candidates=("b", "a"))


def test_the_data_card_tells_every_column_key_and_source():
    card = (Path(__file__).parents[2] / "datasets" / "README.md").read_text(encoding="utf-8")
    columns = {column.name for column in (*schema.PROMPTS, *schema.OUTCOMES, *schema.LONG)}
    for name in columns | set(schema.SOURCE_KEYS) | set(routing_data.SOURCES):
        assert f"`{name}`" in card
