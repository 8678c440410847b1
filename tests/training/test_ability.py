"""Placing a newcomer where the truth is known: it is drawn here."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from training.ability import Lengths, fit_quality, fit_tokens, sigmoid

LUCK = 2 * norm.ppf((np.arange(49) + 0.5) / 49)


def world(n: int, seed: int, level: float = 0.6):
    """Return known qualities, the newcomer's true quality, its labels, the known outcomes; luck is shared."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1, n)
    kind = rng.random(n) < 0.5
    steps = ((-0.8, 1, 0.4), (0.2, 1, 0.0), (0.5, 1, -0.5), (1.0, 1, 0.3), (level, 0.9, 0.5))
    z = 1.5 * np.column_stack([a + b * difficulty + c * (kind - 0.5) for a, b, c in steps])
    lucky = sigmoid(z + rng.choice(LUCK, n)[:, None])
    quality = sigmoid(z[:, :, None] + LUCK).mean(axis=2)
    outcomes = (rng.random(z.shape) < lucky).astype(float)
    return quality[:, :4], quality[:, 4], outcomes[:, 4], outcomes[:, :4]


def no_tasks(known: np.ndarray) -> np.ndarray:
    return np.zeros((len(known), 0))


def errors(k: int, *, with_outcomes: bool) -> tuple[float, float]:
    """Return the mean error of the level and the coverage of the interval, over newcomers."""
    misses, covered = [], []
    for seed in range(60):
        known, truth, labels, outcomes = world(1_000, seed, level=np.random.default_rng(seed).normal(0.3, 0.7))
        told = np.where(np.arange(1_000) < k, labels, np.nan)
        placed = fit_quality(
            known, no_tasks(known), told, outcomes if with_outcomes else np.full_like(outcomes, np.nan)
        )
        quality, low, high = placed.quality(known, no_tasks(known))
        assert ((low <= quality) & (quality <= high)).all()
        misses.append(abs(quality.mean() - truth.mean()))
        covered.append(np.mean((low <= truth) & (truth <= high)))
    return float(np.mean(misses)), float(np.mean(covered))


def test_the_level_is_found_and_intervals_cover():
    few, few_covered = errors(16, with_outcomes=False)
    more, more_covered = errors(64, with_outcomes=False)
    assert more < few < 0.09 and more < 0.05
    assert few_covered > 0.88 and more_covered > 0.88


def test_outcomes_of_the_known_on_the_same_prompts_take_luck_out():
    assert errors(32, with_outcomes=True)[0] < 0.9 * errors(32, with_outcomes=False)[0]


def test_many_labels_narrow_the_interval_and_find_the_newcomers_own_strengths():
    known, truth, labels, outcomes = world(4_000, 1)
    widths, spreads = [], []
    for k in (16, 64, 4_000):
        told = np.where(np.arange(4_000) < k, labels, np.nan)
        quality, low, high = fit_quality(known, no_tasks(known), told, outcomes).quality(known, no_tasks(known))
        widths.append((high - low).mean())
        spreads.append(np.abs(quality - truth).mean())
    assert widths[0] > widths[1] > widths[2]
    assert spreads[2] < 0.03


def test_what_only_the_newcomer_is_good_at_shows_by_task():
    rng = np.random.default_rng(5)
    n = 3_000
    task = rng.integers(0, 3, n)
    tasks = 0.9 * np.eye(3)[task] + 0.1 / 3
    difficulty = rng.normal(0, 1, n)
    known = sigmoid(difficulty[:, None] + [-0.5, 0.5])
    truth = sigmoid(difficulty + np.array([-0.8, 0.0, 0.8])[task])
    labels = (rng.random(n) < truth).astype(float)
    missed = {}
    for k in (64, 1_000):
        for told in (tasks, no_tasks(known)):
            given = np.where(np.arange(n) < k, labels, np.nan)
            quality, *_ = fit_quality(known, told, given, np.full((n, 2), np.nan)).quality(known, told)
            missed[k, told.shape[1]] = np.abs(quality - truth).mean()
    assert missed[64, 3] < missed[64, 0]
    assert missed[1_000, 3] < 0.3 * missed[1_000, 0]


def test_one_known_candidate_is_enough():
    known, truth, labels, outcomes = world(400, 2)
    told = np.where(np.arange(400) < 64, labels, np.nan)
    one = known[:, :1], no_tasks(known)
    quality, *_ = fit_quality(*one, told, outcomes[:, :1]).quality(*one)
    assert np.corrcoef(quality, truth)[0, 1] > 0.8


def test_lengths_follow_the_others_and_p90_covers():
    rng = np.random.default_rng(3)
    shared = rng.normal(5, 0.8, 3_000)
    known = np.exp(np.column_stack([shared, shared + 0.3, np.zeros(3_000)]))
    tokens = np.exp(shared + 1.5 + rng.normal(0, 0.4, 3_000))
    lengths = fit_tokens(known, np.where(np.arange(3_000) < 64, tokens, np.nan))
    mean, p90 = lengths.tokens(known)
    assert lengths.weights[2] == 0, "a column of ones tells nothing"
    assert mean.mean() == pytest.approx(tokens.mean(), rel=0.15)
    assert 0.84 < np.mean(tokens <= p90) < 0.97


def test_unknown_lengths_read_one():
    mean, p90 = Lengths.unknown(2).tokens(np.array([[100.0, 1.0], [5.0, 7.0]]))
    assert mean.tolist() == p90.tolist() == [1, 1]
