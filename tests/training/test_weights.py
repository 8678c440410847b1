"""Weights of outcomes, all the way: one is nothing, nought is unobserved, two is the row twice."""

from __future__ import annotations

import numpy as np
import pytest

from training.blend import fit_blend
from training.calibrate import _beta, _isotonic_points, _platt, calibrate
from training.estimators import KINDS, network_of
from training.fitted_encoder import FittedEncoder
from training.forest import JointForest
from training.settings import ForestSettings, HeadSettings, Settings
from training.tokens import calibrate_tokens, fit_tokens
from training.topics import topic_means

# Whole batches and no dropout: nothing of chance is left that another number of rows would change.
HEADS = HeadSettings(hidden=8, n_nets=1, epochs=60, min_steps=1, batch=4096, dropout=0.0, feature_dropout=0.0)
FOREST = ForestSettings(n_trees=5, min_leaf=1, max_features=1.0)
SETTINGS = Settings(heads=HEADS, forest=FOREST)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(240, 3)).astype(np.float32)
    y = (rng.random((240, 2)) < sigmoid(np.column_stack([2 * X[:, 0], -X[:, 1]]))).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    return X, y


def twice(rows, chosen):
    """The same rows with some of them again, and as weights."""
    weights = np.ones(rows[1].shape)
    weights[chosen] = 2
    order = np.concatenate([np.arange(len(rows[0])), chosen])
    return tuple(a[order] for a in rows), weights


@pytest.mark.parametrize("kind", ["mlp", "forest", "logistic", "ridge"])
def test_a_weight_of_two_is_the_row_twice(kind, rows):
    X, y = rows
    chosen = np.arange(0, 240, 3)
    again, weights = twice(rows, chosen)
    encoder = FittedEncoder(None, np.arange(3), None)
    weighted = KINDS[kind](SETTINGS, encoder).fit(X, y, None, weights).decision_function(X)
    repeated = KINDS[kind](SETTINGS, encoder).fit(*again).decision_function(X)
    plain = KINDS[kind](SETTINGS, encoder).fit(X, y).decision_function(X)
    # Splits of nearly equal gain fall to the last digit, so a few leaves of the trees may differ.
    assert np.mean(np.abs(weighted - repeated) < 2e-3) > (0.9 if kind == "forest" else 0.999)
    assert np.abs(weighted - plain).max() > 0.02


def test_a_weight_of_one_cell_is_the_row_again_with_that_cell_alone(rows):
    X, y = rows
    chosen = np.flatnonzero(np.isfinite(y[:, 1]))[:80]
    weights = np.ones(y.shape)
    weights[chosen, 1] = 2
    alone = np.column_stack([np.full(80, np.nan), y[chosen, 1]])
    nets = [network_of(HEADS, 0), network_of(HEADS, 0)]
    weighted = nets[0].fit(X, y, weights).decision_function(X)
    repeated = nets[1].fit(np.vstack([X, X[chosen]]), np.vstack([y, alone])).decision_function(X)
    assert weighted == pytest.approx(repeated, abs=2e-3)


@pytest.mark.parametrize("kind", ["mlp", "forest", "logistic", "ridge"])
def test_a_weight_of_nought_is_not_observed(kind, rows):
    X, y = rows
    hidden = np.zeros(y.shape, bool)
    hidden[::4, 0] = True
    encoder = FittedEncoder(None, np.arange(3), None)
    wrong = np.where(hidden, 1 - y, y)
    weighted = KINDS[kind](SETTINGS, encoder).fit(X, wrong, None, np.where(hidden, 0.0, 1.0)).decision_function(X)
    absent = KINDS[kind](SETTINGS, encoder).fit(X, np.where(hidden, np.nan, y)).decision_function(X)
    assert weighted == pytest.approx(absent, abs=5e-3)


def test_leaf_values_take_weights():
    X = np.zeros((4, 1), np.float32)
    y = np.array([[1.0, 0.5], [0.0, 0.5], [0.0, 0.5], [0.0, 0.5]])
    weights = np.array([[6.0, 6.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    heavy = JointForest(FOREST).fit(X, y, None, weights).predict(X)[0, 0]
    # One leaf: (6 + 2 · 6/9) / (9 + 2), since the prior of two rows is the weighted mean itself.
    assert heavy == pytest.approx(6 / 9, abs=1 / 255)


@pytest.mark.parametrize("fitted", [_platt, _beta])
def test_calibration_maps_take_weights(fitted, rows):
    X, y = rows
    z, y = X[:, 0].astype(float), (y[:, 0] == 1).astype(float)
    chosen = np.arange(0, 240, 3)
    weights = np.ones(240)
    weights[chosen] = 2
    order = np.concatenate([np.arange(240), chosen])
    assert fitted(z, y, weights) == pytest.approx(fitted(z[order], y[order]), abs=1e-4)
    assert fitted(z, y, weights) != pytest.approx(fitted(z, y), abs=1e-3)


def test_the_isotonic_map_takes_weights():
    rng = np.random.default_rng(0)
    z = np.sort(rng.normal(size=3000))
    y = (rng.random(3000) < sigmoid(z)).astype(float)
    weights = np.where(np.arange(3000) % 3 == 0, 2.0, 1.0)
    order = np.sort(np.concatenate([np.arange(3000), np.arange(0, 3000, 3)]))
    for ours, theirs in zip(_isotonic_points(z, y, weights), _isotonic_points(z[order], y[order]), strict=True):
        assert ours == pytest.approx(theirs, abs=0.02)


def test_an_interval_is_as_wide_as_the_weights_are_worth():
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(400, 1)), (rng.random((400, 1)) < 0.6).astype(float)

    def width(weights):
        calibration = calibrate(z, y, 0, weights)
        low, high = calibration.interval(np.array([[0.6]]))
        return float((high - low)[0, 0])

    plain = width(None)
    assert width(np.full((400, 1), 3.0)) == pytest.approx(plain, rel=0.1)
    # A tenth of the rows carry nearly all the weight: one bin of 40 rows instead of four of 100.
    skewed = np.where(np.arange(400) % 10 == 0, 100.0, 0.01)[:, None]
    assert width(skewed) == pytest.approx(2 * 1.645 * np.sqrt(0.6 * 0.4 / 40), rel=0.1)
    assert width(skewed) > 1.4 * plain


def test_topic_means_and_trust_take_weights(rows):
    X, y = rows
    y = np.nan_to_num(y, nan=0.5)
    chosen = np.arange(0, 240, 2)
    again, weights = twice((X, y), chosen)
    topics = ["a" if x > 0 else "b" for x in X[:, 2]]
    all_topics = topics + [topics[i] for i in chosen]
    half = np.full(y.shape, 0.5)
    ours = topic_means(topics, ["a", "b"], y, half, weights)
    assert ours == pytest.approx(topic_means(all_topics, ["a", "b"], again[1], np.full(again[1].shape, 0.5)))
    logits = np.column_stack([X[:, 0], -X[:, 1]]).astype(float)
    anchors = np.array([True, True])
    _, trust = fit_blend(None, (logits, y), X, logits, y, anchors, (weights, weights))
    order = np.concatenate([np.arange(240), chosen])
    _, same = fit_blend(None, (logits[order], again[1]), again[0], logits[order], again[1], anchors)
    assert trust == pytest.approx(same)


def test_tokens_take_weights(rows):
    X, _ = rows
    rng = np.random.default_rng(3)
    tokens = np.exp(4 + X[:, :2] + rng.normal(0, 0.3, (240, 2)))
    weights = np.ones(tokens.shape)
    weights[::3] = 2
    order = np.concatenate([np.arange(240), np.arange(0, 240, 3)])
    ours = calibrate_tokens(fit_tokens(X, tokens, HEADS, 0, weights), X, tokens, weights)
    theirs = calibrate_tokens(fit_tokens(X[order], tokens[order], HEADS, 0), X[order], tokens[order])
    # Its networks have dropout of their own, so only nearly.
    assert np.abs(np.log(ours.predict(X)[0] / theirs.predict(X)[0])).mean() < 0.03
    model = fit_tokens(X, tokens, HEADS, 0)
    ours, theirs = (
        calibrate_tokens(model, X, tokens, weights),
        calibrate_tokens(model, X[order], tokens[order]),
    )
    assert ours.mean_factor == pytest.approx(theirs.mean_factor)
    assert ours.p90_factor == pytest.approx(theirs.p90_factor, rel=0.02)


def test_weights_of_one_change_nothing_bit_for_bit(sample):
    from dataclasses import asdict

    from routing_data import implied_prices, split
    from training.fitting import fit
    from training.pipeline import export, load
    from training.settings import LexicalSettings

    heads = HeadSettings(hidden=8, n_nets=1, epochs=1, min_steps=20)
    settings = Settings(heads=heads, forest=ForestSettings(n_trees=4), lexical=LexicalSettings(8, word_vectors=False))
    table = load([sample], ["*small", "*nano"]).select(range(500))
    parts = split(table.groups, asdict(settings.split), 0)
    made = [
        export(fit(table, parts, implied_prices(table), settings, weights=weights))
        for weights in (None, np.ones(table.quality.shape))
    ]
    assert made[0] == made[1]
