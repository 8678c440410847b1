from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from routing_data import describe

NAN = np.nan


def test_means_best_single_and_oracle_by_hand(make_table):
    #            a    b    c                        oracle: best quality, cheapest call that has it
    quality = [[1.0, 0.0, 1.0],  # costs 1 2 9   -> 1 at 1 (a)
               [0.0, 1.0, 1.0],  # costs 1 2 9   -> 1 at 2 (b)
               [0.0, 0.5, 0.0],  # costs 1 4 9   -> .5 at 4 (b)
               [0.0, NAN, 0.0]]  # costs 1 4 9   -> 0 at 1 (a)  # fmt: skip
    found = describe(make_table(quality, [[1, 2, 9], [1, 2, 9], [1, 4, 9], [1, 4, 9]], tasks=("t", "t", "u", "t")))
    assert [(c.n_observed, c.quality, c.cost_usd) for c in found.candidates] == [
        (4, 0.25, 1.0), (3, 0.5, 3.0), (4, 0.5, 9.0)
    ]  # fmt: skip
    assert (found.best_single.name, found.best_single.quality) == ("b", 0.5)  # c is as good, and dearer
    assert (found.oracle.quality, found.oracle.cost_usd) == (0.625, 2.0)  # 2.5 / 4, 8 / 4
    assert found.share_observed == pytest.approx(11 / 12)
    assert found.tasks == (("t", 3), ("u", 1)) and (found.n_prompts, found.n_groups) == (4, 4)


def test_the_hull_keeps_only_corners_of_the_upper_envelope(make_table):
    # cost, quality:  a (1, .2)  b (2, .5)  c (3, .55)  d (4, .8)  e (5, .7) dominated  f (8, .9)
    # slope a-b .3; b-d .15, and c lies .1 under that line (b + .15 = .65); d-f .025
    quality, cost = [[0.2, 0.5, 0.55, 0.8, 0.7, 0.9]], [[1, 2, 3, 4, 5, 8]]
    found = describe(make_table(quality, cost))
    assert [point.name for point in found.hull] == ["a", "b", "d", "f"]
    assert [c.name for c in found.candidates if c.on_hull] == ["a", "b", "d", "f"]


def test_a_point_on_the_line_between_two_is_no_corner_and_equal_costs_keep_the_better(make_table):
    found = describe(make_table([[0.25, 0.5, 0.75, 0.5]], [[1, 2, 3, 1]]))
    # d (1, .5) beats a (1, .25) and b; d-c is the hull
    assert [point.name for point in found.hull] == ["d", "c"]
    found = describe(make_table([[0.25, 0.5, 0.75]], [[1, 2, 3]]))
    assert [point.name for point in found.hull] == ["a", "c"]


def test_unknown_costs_stay_unknown(make_table):
    found = describe(make_table([[1.0, 0.0]]))
    assert found.hull == () and found.oracle.cost_usd is None and found.candidates[0].cost_usd is None
    assert found.best_single.name == "a"


def test_a_candidate_never_observed_has_no_quality(make_table):
    found = describe(make_table([[1.0, NAN]], [[1, 2]]))
    assert found.candidates[1].quality is None and not found.candidates[1].on_hull
    assert [point.name for point in found.hull] == ["a"]


def test_a_table_without_observations_can_be_described(make_table):
    found = describe(make_table([[NAN]]))
    assert (found.share_observed, found.best_single, found.oracle, found.hull) == (0.0, None, None, ())


def test_a_description_is_plain_data(make_table):
    assert json.loads(json.dumps(asdict(describe(make_table([[1.0, NAN]], [[1, 2]])))))["n_prompts"] == 1
