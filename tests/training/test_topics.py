from __future__ import annotations

import numpy as np
import pytest

from training.topics import fit_topics, topic_means, topics_of


def test_small_tasks_join_their_parents_then_the_rest():
    tasks = ["a/x"] * 5 + ["a/y"] * 2 + ["a/z"] * 2 + ["b"] * 6 + ["c"]
    assert topics_of(tasks, 4) == ("a/x",) * 5 + ("a",) * 4 + ("b",) * 6 + ("rest",)


def test_one_topic_is_none():
    assert topics_of(["a"] * 9, 2) is None
    assert topics_of(["a", "b", "c"], 5) is None


def test_topic_means_lean_on_the_prior_where_little_was_observed():
    # Topic a: 20 observed ones, prior .5 worth 20 -> (20 + 10) / 40. Candidate 2 is unobserved -> the prior.
    quality = np.column_stack([np.ones(20), np.full(20, np.nan)])
    means = topic_means(["a"] * 20, ["a", "b"], quality, np.full((20, 2), 0.5))
    assert means[0].tolist() == [0.75, 0.5]


@pytest.mark.parametrize("n_topics", [2, 3])
def test_topics_are_learned_from_dense_features(n_topics):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_topics, 600)
    features = rng.normal(size=(600, 4)).astype(np.float32)
    features[np.arange(600), labels] += 4
    model = fit_topics(features, [f"t{label}" for label in labels])
    probabilities = model.predict(features)
    assert probabilities.shape == (600, n_topics)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(600))
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.95
