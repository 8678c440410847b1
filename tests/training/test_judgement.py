"""Whom a promise is made against, where most rows are votes on the one answer that was given."""

from __future__ import annotations

import numpy as np

from training.evaluate import Rows
from training.judgement import certified
from training.settings import settings_of


def test_a_promise_is_made_against_the_best_candidate_whoever_is_praised_for_easy_prompts():
    rng = np.random.default_rng(0)
    n, n_labelled = 8_000, 1_000
    is_hard = rng.random(n) < 0.5
    truth = np.column_stack([np.where(is_hard, 0.3, 0.9), np.where(is_hard, 0.75, 0.95), np.full(n, 0.85)])
    quality = (rng.random((n, 3)) < truth).astype(float)
    # Votes: easy prompts go to the cheap candidate, hard ones to the strong one, and few to one that no label knows.
    asked = np.where(rng.random(n) < 0.1, 2, np.where(is_hard, 1, 0))
    is_seen = np.arange(3) == asked[:, None]
    is_seen[:n_labelled] = [True, True, False]
    quality[~is_seen] = np.nan
    voted = [np.nanmean(quality[n_labelled:, j]) for j in range(3)]
    assert voted[0] > voted[1] + 0.1, "by votes the cheap one looks better"
    cost = np.tile([0.0001, 0.01, 0.005], (n, 1))
    rows = Rows(
        ("cheap", "strong", "newcomer"),
        np.clip(truth + rng.normal(0, 0.05, truth.shape), 0.01, 0.99),
        cost,
        cost,
        cost,
        quality,
        np.where(is_seen, cost, np.nan),
        cost,
        ["task"] * n,
        [f"g{i}" for i in range(n)],
        is_seen.astype(float),
    )
    parts = rng.choice(["train", "test", "validation", "calibration"], n, p=[0.6, 0.2, 0.1, 0.1])
    found = certified(rows, parts, [None] * 3, settings_of({"certify": {"fall_below": 0.1}}, "test"))
    assert {certificate.anchor for certificate, _ in found.values()} == {"strong"}
