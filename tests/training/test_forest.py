from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.forest import LEVELS, JointForest
from training.settings import ForestSettings

SETTINGS = ForestSettings(n_trees=60, min_leaf=10, max_features=1.0)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 5)).astype(np.float32)
    truth = np.where(X[:, :2] > 0, 0.9, 0.2)
    return X, truth, (rng.random(truth.shape) < truth).astype(float)


def test_it_finds_what_decides(problem):
    X, truth, y = problem
    assert np.abs(JointForest(SETTINGS).fit(X, y).predict(X) - truth).mean() < 0.1


def test_without_missing_labels_it_says_what_scikit_learn_says(problem):
    from sklearn.ensemble import ExtraTreesRegressor

    X, _, y = problem
    theirs = ExtraTreesRegressor(60, min_samples_leaf=10, max_features=1.0, random_state=0).fit(X, y)
    fresh = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    assert JointForest(SETTINGS).fit(X, y).predict(fresh) == pytest.approx(theirs.predict(fresh), abs=0.5 / LEVELS)


def test_a_candidate_observed_on_a_third_keeps_its_own_level(problem):
    X, truth, y = problem
    part = y.copy()
    part[np.random.default_rng(2).random(len(y)) > 1 / 3, 1] = np.nan
    settings = replace(SETTINGS, min_leaf=30)
    predicted = JointForest(settings).fit(X, part).predict(X)
    assert np.abs(predicted[:, 1] - truth[:, 1]).mean() < 0.16
    # Guesses may shape the trees, but not pull the values: a wild guess moves little.
    wild = JointForest(settings).fit(X, part, np.ones_like(y)).predict(X)
    assert abs(wild[:, 1].mean() - predicted[:, 1].mean()) < 0.1
