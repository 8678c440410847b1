from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from router.predictors import Predictor
from training.blend import TopicBlend
from training.calibrate import calibrate
from training.errors import ExportMismatch
from training.estimators import KINDS, Average
from training.export import quality_graph, tokens_graph, verify
from training.fitted_encoder import FittedEncoder
from training.fitting import QualityModel
from training.settings import ForestSettings, HeadSettings, Settings
from training.tokens import calibrate_tokens, fit_tokens
from training.topics import TopicModel

SETTINGS = HeadSettings(hidden=16, n_nets=2, epochs=3, min_steps=1, batch=64)
DIM, COLUMNS = 6, np.array([0, 1, 3, 5])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, DIM)).astype(np.float32)
    truth = 1 / (1 + np.exp(-np.column_stack([X[:, 0], X[:, 1] - 1, X[:, 3] + 1])))
    return X, (rng.random(truth.shape) < truth).astype(float), np.exp(3 + X[:, :3] + rng.normal(size=(500, 3)))


def unfitted(kind: str):
    topics = TopicModel(("a", "b"), np.eye(DIM, 2, dtype=np.float32), np.zeros(2, np.float32))
    settings = Settings(heads=SETTINGS, forest=ForestSettings(n_trees=30))
    return KINDS[kind](settings, FittedEncoder(None, COLUMNS, topics))


def model(data, kind: str, share: float | None = None) -> QualityModel:
    X, y, _ = data
    rng = np.random.default_rng(1)
    if kind == "average":
        estimator = Average([unfitted(k).fit(X, y) for k in ("mlp", "forest", "logistic")])
    else:
        estimator = unfitted(kind).fit(X, y)
    blend = None
    if share is not None:
        topics = TopicModel(("a", "b"), rng.normal(size=(DIM, 2)).astype(np.float32), np.zeros(2, np.float32))
        blend = TopicBlend(topics, np.array([[0.2, 0.4, 0.9], [0.8, 0.5, 0.6]]), share, np.array([True, True, False]))
    logits = estimator.decision_function(X)
    return QualityModel(kind, estimator, blend, calibrate(logits, y, 0))


def files(data, quality: QualityModel):
    X, _, tokens = data
    known = np.column_stack([tokens[:, :2], np.full(len(X), np.nan)])
    token_model = calibrate_tokens(fit_tokens(X[:, COLUMNS], known, SETTINGS, 0), X[:, COLUMNS], known)
    graphs = {
        "quality.onnx": quality_graph(quality, DIM),
        "output_tokens.onnx": tokens_graph(token_model, COLUMNS, DIM),
    }
    return graphs, token_model


@pytest.mark.parametrize("kind", ["mlp", "forest", "logistic", "ridge", "boosting", "average"])
def test_the_graph_says_what_the_estimators_say(kind, data):
    quality = model(data, kind)
    graphs, tokens = files(data, quality)
    verify(graphs, quality, tokens, COLUMNS, data[0])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_topics_are_in_the_graph(share, data):
    quality = model(data, "mlp", share)
    graphs, tokens = files(data, quality)
    verify(graphs, quality, tokens, COLUMNS, data[0])


def test_nothing_is_held_or_computed_twice_in_a_graph(data):
    graphs, _ = files(data, model(data, "mlp", 0.4))
    graph = onnx.load_from_string(graphs["quality.onnx"]).graph
    # The topics are read by the blend and are an output besides.
    assert [node.op_type for node in graph.node].count("Softmax") == 1
    said = [(node.op_type, *node.input, str(node.attribute)) for node in graph.node if node.op_type != "Identity"]
    assert len(said) == len(set(said))
    held = [(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in graph.initializer]
    assert len(held) == len(set(held))


def test_a_candidate_that_is_always_right_can_be_exported(data):
    X, y, tokens = data
    always = (X, np.column_stack([y[:, :2], np.ones(len(y))]), tokens)
    for kind in ("logistic", "boosting"):
        quality = model(always, kind)
        graphs, token_model = files(always, quality)
        verify(graphs, quality, token_model, COLUMNS, X)


def test_a_graph_of_other_weights_is_refused(data):
    quality = model(data, "mlp")
    graphs, tokens = files(data, quality)
    shifted = replace(quality, calibration=replace(quality.calibration, c=quality.calibration.c + 0.1))
    with pytest.raises(ExportMismatch, match="quality: the graph differs"):
        verify(graphs, shifted, tokens, COLUMNS, data[0])
    longer = replace(tokens, mean_factor=tokens.mean_factor * 1.1)
    with pytest.raises(ExportMismatch, match="output_tokens: the graph differs"):
        verify(graphs, quality, longer, COLUMNS, data[0])


def test_outputs_keep_their_ranges_on_absurd_features(data):
    graphs, _ = files(data, model(data, "mlp", 0.4))
    rows = np.array([[1e4] * DIM, [-1e4] * DIM, [0.0] * DIM], np.float32)
    said = Predictor(graphs, DIM, 3).predict(rows)
    assert (said["quality_low"] <= said["quality"]).all() and (said["quality"] <= said["quality_high"]).all()
    assert said["quality_low"].min() >= 0 and said["quality_high"].max() <= 1
    assert np.isfinite(said["output_tokens"]).all() and said["output_tokens"].min() >= 1
    assert (said["output_tokens_p90"] >= said["output_tokens"]).all()


def test_unknown_output_tokens_read_one(data):
    graphs, tokens = files(data, model(data, "logistic"))
    assert tokens.known.tolist() == [True, True, False]
    assert (Predictor(graphs, DIM, 3).predict(data[0])["output_tokens"][:, 2] == 1).all()


def test_the_same_model_gives_the_same_bytes(data):
    quality = model(data, "mlp", 0.4)
    assert quality_graph(quality, DIM) == quality_graph(quality, DIM)
