"""Two lots of prompts: told apart where they differ, and not where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from routing_data.sample import generate
from training import metrics
from training.two_sample import _auc, tell_apart

TABLE = generate(n_prompts=1600).table
PROMPTS, TASKS = np.asarray(TABLE.prompts), np.asarray(TABLE.tasks)


def test_one_kind_of_prompts_is_not_told_apart_from_itself_and_a_new_kind_is() -> None:
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    one, other = order[:800], order[800:]
    same = tell_apart(PROMPTS[one].tolist(), PROMPTS[other].tolist())
    assert same.low < 0.55 and same.auc < 0.56
    others = tell_apart(PROMPTS[one][TASKS[one] != "sorting"].tolist(), PROMPTS[other][TASKS[other] > "l"].tolist())
    assert others.low > 0.6


def test_feature_rows_are_told_apart_by_where_they_lie() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1000, 20))
    moved = rows[500:] + np.eye(20)[3]
    found = tell_apart(rows[:500], moved)
    # Two normals one standard deviation apart: Φ(1/√2) = 0.76 at best.
    assert found.low <= 0.76 and found.auc == pytest.approx(0.74, abs=0.04)
    assert tell_apart(rows[:500], rows[500:]).low < 0.53


def test_what_comes_again_counts_once_and_few_say_nothing() -> None:
    some = PROMPTS[:300].tolist()
    found = tell_apart(some * 3, some)
    assert (found.n_before, found.n_after) == (300, 300) and found.low <= 0.5 <= found.high
    assert tell_apart(some[:150] * 2, some) is None
    assert tell_apart([], some) is None


def test_the_area_is_the_products_own_and_its_interval_covers() -> None:
    rng = np.random.default_rng(2)
    n_covered = 0
    for _ in range(200):
        before, after = rng.normal(0, 1, 120).round(1), rng.normal(1, 1, 90).round(1)
        auc, error = _auc(before, after)
        n_covered += abs(auc - 0.7602) <= 1.96 * error
    score, label = np.concatenate([before, after]), np.repeat([0.0, 1.0], [120, 90])
    assert auc == pytest.approx(metrics.auc(score, label, np.ones((1, 210)))[0])
    assert 0.9 <= n_covered / 200 <= 0.99
