"""How far differences between candidates are trusted."""

from __future__ import annotations

import numpy as np
import pytest

from training.blend import TopicBlend, fit_blend
from training.topics import TopicModel, logit_of

N_CANDIDATES = 4


def test_a_blend_keeps_the_level_and_mixes_the_differences():
    # The topic says .5 and .5: no difference. Share .25 keeps a quarter of the estimator's, around its mean of 1.
    model = TopicModel(("a", "b"), np.zeros((1, 2), np.float32), np.zeros(2, np.float32))
    blend = TopicBlend(model, np.full((2, 2), 0.5), 0.25, np.array([True, True]))
    assert blend.apply(np.zeros((1, 1), np.float32), np.array([[3.0, -1.0]])).tolist() == [[1.5, 0.5]]


def test_only_anchors_set_the_level():
    model = TopicModel(("a", "b"), np.zeros((1, 2), np.float32), np.zeros(2, np.float32))
    blend = TopicBlend(model, np.full((2, 3), 0.5), 0.0, np.array([True, True, False]))
    assert blend.apply(np.zeros((1, 1), np.float32), np.array([[3.0, -1.0, 9.0]])) == pytest.approx(np.ones((1, 3)))


def world(n, own, topical, seed=0):
    """Make prompts whose quality differs by own times what is predicted and topical times the topic's means."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 2, n)
    features = np.eye(2, dtype=np.float32)[topic]
    model = TopicModel(("a", "b"), 50 * np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    offsets = np.array([[0.1, -0.1, 0.05, -0.05], [-0.1, 0.1, -0.05, 0.05]])
    predicted = 0.5 + rng.normal(0, 0.1, (n, N_CANDIDATES))
    chance = np.clip(0.5 + own * (predicted - 0.5) + topical * offsets[topic], 0, 1)
    quality = (rng.random(chance.shape) < chance).astype(float)
    taught = logit_of(0.5 + offsets[topic]), 0.5 + offsets[topic]
    return (
        (model, ["ab"[t] for t in topic]),
        taught,
        features,
        logit_of(predicted),
        quality,
        np.ones(N_CANDIDATES, bool),
    )


@pytest.mark.parametrize(("own", "topical"), [(0.2, 0.9), (0.8, 0.3)])
def test_the_weights_are_those_of_the_world(own, topical):
    _, weights = fit_blend(*world(20_000, own, topical))
    assert weights == {"own": pytest.approx(own, abs=0.07), "topic": pytest.approx(topical, abs=0.1)}


def test_few_rows_say_little_and_none_nothing():
    topics, taught, features, logits, quality, anchors = world(400, 0.0, 0.0)
    _, some = fit_blend(topics, taught, features[:10], logits[:10], quality[:10], anchors)
    assert 0.25 < some["own"] < 0.75
    _, none = fit_blend(topics, taught, features, logits, np.full_like(quality, np.nan), anchors)
    assert none == {"own": 0.5, "topic": 0.5}


def test_what_is_pure_noise_shrinks_to_each_candidates_mean():
    topics, taught, features, logits, quality, anchors = world(20_000, 0.0, 0.0)
    blend, weights = fit_blend(topics, taught, features, logits, quality, anchors)
    assert weights["own"] < 0.05 and weights["topic"] < 0.1
    before, after = (z - z.mean(axis=1, keepdims=True) for z in (logits, blend.apply(features, logits)))
    assert after.std() < 0.15 * before.std()


def test_without_topics_the_estimator_still_shrinks_to_the_means():
    _, taught, features, logits, quality, anchors = world(20_000, 0.4, 0.0)
    blend, weights = fit_blend(None, taught, features, logits, quality, anchors)
    assert weights["own"] == pytest.approx(0.4, abs=0.07)
    assert blend.apply(features, logits).mean(axis=1) == pytest.approx(logits.mean(axis=1))
