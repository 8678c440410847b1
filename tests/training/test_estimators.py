from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from training.estimators import KINDS, Average
from training.fitted_encoder import FittedEncoder
from training.network import JointNetwork
from training.settings import ForestSettings, HeadSettings, Settings

SETTINGS = HeadSettings(hidden=16, n_nets=2, epochs=40, min_steps=400, batch=64, dropout=0.1, feature_dropout=0.0)


#: `heads` repeats what the encoder says; it has nothing to learn.
LEARNING = [kind for kind in KINDS if kind != "heads"]


def estimator(kind, X):
    settings = Settings(heads=SETTINGS, forest=ForestSettings(n_trees=40, max_features=1.0))
    return KINDS[kind](settings, FittedEncoder(None, np.arange(X.shape[1]), None))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def problem():
    """Two candidates: the first likes x0, the second dislikes it; a third of the labels is unobserved."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(900, 4)).astype(np.float32)
    truth = sigmoid(np.column_stack([2 * X[:, 0], -2 * X[:, 0] + 1]))
    y = (rng.random(truth.shape) < truth).astype(float)
    y[rng.random(y.shape) < 1 / 3] = np.nan
    return X, y, truth


@pytest.mark.parametrize("kind", LEARNING)
def test_every_kind_learns_from_what_was_observed(kind, problem):
    X, y, truth = problem
    predicted = sigmoid(estimator(kind, X).fit(X, y).decision_function(X))
    assert predicted.shape == truth.shape
    assert np.abs(predicted - truth).mean() < 0.13
    assert np.corrcoef(predicted[:, 0], truth[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("kind", LEARNING)
def test_every_kind_takes_graded_quality(kind, problem):
    X, _, truth = problem
    predicted = sigmoid(estimator(kind, X).fit(X, truth).decision_function(X))
    assert np.abs(predicted - truth).mean() < 0.1


@pytest.mark.parametrize("kind", LEARNING)
def test_a_candidate_that_is_always_right_does_not_stop_the_fit(kind, problem):
    X, y, _ = problem
    predicted = sigmoid(estimator(kind, X).fit(X, np.column_stack([y[:, 0], np.ones(len(y))])).decision_function(X))
    assert np.isfinite(predicted).all()
    assert predicted[:, 1].min() > 0.8


def test_unobserved_labels_have_no_influence(problem):
    X, y, _ = problem
    observed = ~np.isnan(y[:, 0])
    column = y[:, :1]
    whole = estimator("logistic", X).fit(X, column).decision_function(X)
    cut = estimator("logistic", X).fit(X[observed], column[observed]).decision_function(X)
    assert whole == pytest.approx(cut)


def test_the_same_seed_gives_the_same_network_and_another_another(problem):
    X, y, _ = problem
    fits = [JointNetwork(hidden=8, n_nets=1, epochs=2, min_steps=1, seed=seed).fit(X, y) for seed in (1, 1, 2)]
    first, same, other = (net.decision_function(X) for net in fits)
    assert (first == same).all()
    assert not (first == other).all()


def test_constructors_only_store(problem):
    network = JointNetwork(hidden=3, seed=5)
    assert clone(network).get_params() == network.get_params()
    assert not hasattr(network, "layers_")


def test_the_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 3)).astype(np.float32)
    y = np.array([[1.0, np.nan], [0.0, 0.3], [1.0, 1.0], [0.0, 0.0], [np.nan, 0.5], [1.0, 0.0]])
    net = JointNetwork(hidden=4, dropout=0.0, feature_dropout=0.0)
    observed = ~np.isnan(y)
    target, weight = np.where(observed, y, 0).astype(np.float32), observed.astype(np.float32)
    layers = net._start(3, target, weight, rng)

    def loss():
        p = sigmoid(np.maximum(X @ layers.hidden_weights + layers.hidden_bias, 0) @ layers.weights + layers.bias)
        return -(weight * (target * np.log(p) + (1 - target) * np.log(1 - p))).sum() / len(X)

    gradients = net._gradients(layers, X, target, weight, rng)
    for parameter, gradient in zip(layers, gradients, strict=True):
        index = (0,) * parameter.ndim
        step = np.float32(1e-2)
        parameter[index] += step
        up = loss()
        parameter[index] -= 2 * step
        down = loss()
        parameter[index] += step
        assert gradient[index] == pytest.approx((up - down) / (2 * step), abs=2e-3)


def test_an_average_is_the_mean_of_logits(problem):
    X, y, _ = problem
    members = [estimator(kind, X).fit(X, y) for kind in ("logistic", "ridge")]
    expected = (members[0].decision_function(X) + members[1].decision_function(X)) / 2
    assert Average(members).decision_function(X) == pytest.approx(expected)


def test_heads_are_what_the_encoder_says(problem):
    X, y, _ = problem
    encoder = FittedEncoder(None, np.array([0]), None, np.array([3, 1]))
    heads = KINDS["heads"](Settings(), encoder).fit(X, y)
    assert heads.decision_function(X) == pytest.approx(X[:, [3, 1]])
