"""From estimators to the two graphs of a bundle, and the proof that both say the same.

Networks, linear maps, topics and calibration become a few wide matrix products written here; boosted trees go through
skl2onnx. :func:`verify` runs the graphs with the very class that serves and raises if they differ from the estimators.
Entry points: :func:`quality_graph`, :func:`tokens_graph` and :func:`verify`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.linear_model import LogisticRegression, Ridge

from router.domain import Floats
from router.predictors import INPUT, NOVELTY_OUTPUT, QUALITY_OUTPUTS, TASK_OUTPUT, TOKENS_OUTPUTS, Predictor
from training.blend import TopicBlend
from training.calibrate import LOGIT_LIMIT, Calibration, Ramps
from training.errors import ExportMismatch
from training.estimators import Average, ForestQuality, HeadsQuality, JointQuality, PerCandidate, QualityEstimator
from training.fitting import QualityModel
from training.forest import LEVELS
from training.graph import ML_OPSET, OPSET, GraphWriter
from training.network import JointNetwork
from training.tokens import LOG_LIMIT, TokenModel
from training.topics import EDGE, TopicModel

Columns = NDArray[np.intp]

QUALITY_TOLERANCE = 1e-3
TOKENS_TOLERANCE = 1e-2


def quality_graph(model: QualityModel, dim: int) -> bytes:
    """Write ``quality.onnx``.

    Parameters
    ----------
    model : QualityModel
    dim : int
        Length of a feature row.

    Returns
    -------
    bytes
    """
    graph = GraphWriter(INPUT, dim)
    logits = _logits(graph, model.estimator, dim)
    if model.blend is not None:
        logits = _blend(graph, model.blend, logits)
    quality = _calibrate(graph, model.calibration, logits)
    low = graph.add("Min", graph.clip(_ramps(graph, model.calibration.low, quality), 0, 1), quality)
    high = graph.add("Max", graph.clip(_ramps(graph, model.calibration.high, quality), 0, 1), quality)
    width = len(model.calibration.methods)
    outputs: dict[str, tuple[str, int]] = {}
    if model.novelty is not None:
        column = graph.add("Gather", INPUT, graph.constant([model.novelty.column], np.int64), axis=1)
        score = graph.add("Div", column, graph.scalar(model.novelty.limit))
        unfamiliar = graph.add("Greater", score, graph.scalar(1))
        quality = graph.add("Where", unfamiliar, graph.constant(model.novelty.means), quality)
        low = graph.add("Where", unfamiliar, graph.scalar(0), low)
        high = graph.add("Where", unfamiliar, graph.scalar(1), high)
        outputs[NOVELTY_OUTPUT] = (score, 1)
    outputs |= {name: (inner, width) for name, inner in zip(QUALITY_OUTPUTS, (quality, low, high), strict=True)}
    if model.topics is not None:
        outputs[TASK_OUTPUT] = (_topics(graph, model.topics), len(model.topics.labels))
    return graph.finish(outputs)


def n_tasks_of(model: QualityModel) -> int:
    """Return how many kinds of task the model tells apart; 0 where none."""
    return 0 if model.topics is None else len(model.topics.labels)


def tokens_graph(model: TokenModel, columns: Columns, dim: int) -> bytes:
    """Write ``output_tokens.onnx``; arguments as of :func:`quality_graph`."""
    graph = GraphWriter(INPUT, dim)
    known = np.flatnonzero(model.known)
    n_candidates = len(model.known)
    if model.network is None:
        zero = graph.add("MatMul", INPUT, graph.constant(np.zeros((dim, n_candidates))))
    else:
        spread = np.zeros((len(known), n_candidates))
        spread[np.arange(len(known)), known] = 1
        raw = graph.clip(_network(graph, model.network, len(known), columns, dim), 0, LOG_LIMIT)
        zero = graph.add("MatMul", raw, graph.constant(spread))
    base = graph.add("Exp", zero)
    mean = graph.add("Max", graph.add("Mul", base, graph.constant(model.mean_factor)), graph.scalar(1))
    p90 = graph.add("Max", graph.add("Mul", base, graph.constant(model.p90_factor)), mean)
    return graph.finish({name: (t, n_candidates) for name, t in zip(TOKENS_OUTPUTS, (mean, p90), strict=True)})


def verify(
    files: Mapping[str, bytes], quality: QualityModel, tokens: TokenModel, columns: Columns, features: Floats
) -> None:
    """Compare the graphs with the estimators on real feature rows.

    Parameters
    ----------
    files : Mapping of str to bytes
        Holds both graphs.
    quality : QualityModel
    tokens : TokenModel
    columns : ndarray of shape (c,), intp
        What the token network reads.
    features : ndarray of shape (n, dim), float32

    Raises
    ------
    ExportMismatch
        Names the output and the largest difference.
    """
    predictor = Predictor(files, features.shape[1], len(tokens.known), n_tasks_of(quality))
    found = predictor.predict(features)
    expected = dict(zip(QUALITY_OUTPUTS, quality.predict(features), strict=True))
    for name, values in expected.items():
        difference = float(np.abs(found[name] - values).max(initial=0))
        if not difference <= QUALITY_TOLERANCE:  # also when NaN
            raise ExportMismatch(f"{name}: the graph differs from the estimators by {difference:.3g}")
    for name, values in zip(TOKENS_OUTPUTS, tokens.predict(features[:, columns]), strict=True):
        difference = float((np.abs(found[name] - values) / values).max(initial=0))
        if not difference <= TOKENS_TOLERANCE:
            raise ExportMismatch(f"{name}: the graph differs from the estimator by {difference:.2%}")


def _logits(graph: GraphWriter, estimator: QualityEstimator, dim: int) -> str:
    for kind, write in _WRITERS.items():
        if isinstance(estimator, kind):
            return write(graph, estimator, dim)
    raise ExportMismatch(f"no way to export a {type(estimator).__name__}")


def _joint(graph: GraphWriter, estimator: JointQuality, dim: int) -> str:
    return _network(graph, estimator.network_, estimator.n_candidates_, estimator.columns, dim)


def _forest(graph: GraphWriter, estimator: ForestQuality, dim: int) -> str:
    """Every tree says which leaf it is, as a number; the leaves' values are one table for all candidates."""
    read = graph.add("Gather", INPUT, graph.constant(estimator.columns, np.int64), axis=1)
    if estimator.topics is not None:
        read = graph.add("Concat", read, _topics(graph, estimator.topics), axis=1)
    forest = estimator.forest_
    leaf = graph.add("Cast", graph.trees(read, forest.trees_), to=TensorProto.INT32)
    values = graph.add("Gather", graph.constant(forest.values_, np.uint8), leaf, axis=0)
    total = graph.add(
        "ReduceSum", graph.add("Cast", values, to=TensorProto.FLOAT), graph.constant([1], np.int64), keepdims=0
    )
    return _logit(graph, graph.add("Mul", total, graph.scalar(1 / (LEVELS * len(forest.trees_)))))


def _network(graph: GraphWriter, network: JointNetwork, n_targets: int, columns: Columns, dim: int) -> str:
    """All networks side by side in two products; the second also averages."""
    layers = network.layers_
    hidden = np.zeros((dim, sum(net.hidden_bias.shape[0] for net in layers)), np.float32)
    hidden[columns] = np.hstack([net.hidden_weights for net in layers])
    active = graph.add(
        "Relu",
        graph.add(
            "Gemm", INPUT, graph.constant(hidden), graph.constant(np.concatenate([n.hidden_bias for n in layers]))
        ),
    )
    weights = np.vstack([net.weights[:, :n_targets] for net in layers]) / len(layers)
    bias = np.mean([net.bias[:n_targets] for net in layers], axis=0)
    return graph.add("Gemm", active, graph.constant(weights), graph.constant(bias))


def _heads(graph: GraphWriter, estimator: HeadsQuality, dim: int) -> str:
    return graph.add("Gather", INPUT, graph.constant(estimator.columns, np.int64), axis=1)


def _per_candidate(graph: GraphWriter, estimator: PerCandidate, dim: int) -> str:
    """Linear members become one product; trees are converted one by one."""
    members, columns = estimator.members_, estimator.columns
    weights, bias = np.zeros((dim, len(members)), np.float32), np.zeros(len(members), np.float32)
    trees: dict[int, Any] = {}
    for j, member in enumerate(members):
        if isinstance(member, float):
            bias[j] = member
        elif isinstance(member, LogisticRegression | Ridge):
            weights[columns, j] = np.ravel(member.coef_)
            bias[j] = np.ravel(member.intercept_)[0]
        else:
            trees[j] = member
    linear = graph.add("Gemm", INPUT, graph.constant(weights), graph.constant(bias))
    is_ridge = np.array([isinstance(member, Ridge) for member in members])
    if is_ridge.any():
        linear = graph.add("Where", graph.constant(is_ridge, np.bool_), _logit(graph, linear), linear)
    if not trees:
        return linear
    read = graph.add("Gather", INPUT, graph.constant(columns, np.int64), axis=1)
    parts = [
        _tree(graph, trees[j], read, len(columns))
        if j in trees
        else graph.add("Gather", linear, graph.constant(np.array([j]), np.int64), axis=1)
        for j in range(len(members))
    ]
    return graph.add("Concat", *parts, axis=1)


def _tree(graph: GraphWriter, member: Any, source: str, width: int) -> str:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        # skl2onnx hands booleans to protobuf, which the pinned protobuf still takes.
        warnings.filterwarnings("ignore", "Field onnx.AttributeProto.ints", DeprecationWarning)
        model = convert_sklearn(
            member,
            initial_types=[("rows", FloatTensorType([None, width]))],
            options={"zipmap": False},
            target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
        )
    probabilities = graph.include(model, source, model.graph.output[1].name)
    return _logit(graph, graph.add("Gather", probabilities, graph.constant(np.array([1]), np.int64), axis=1))


def _average(graph: GraphWriter, estimator: Average, dim: int) -> str:
    return graph.add("Mean", *(_logits(graph, member, dim) for member in estimator.members))


_WRITERS: Mapping[type, Callable[[GraphWriter, Any, int], str]] = {
    JointQuality: _joint,
    ForestQuality: _forest,
    HeadsQuality: _heads,
    PerCandidate: _per_candidate,
    Average: _average,
}


def _blend(graph: GraphWriter, blend: TopicBlend, logits: str) -> str:
    own, other = blend.mixing()
    topical = _logit(graph, graph.add("MatMul", _topics(graph, blend.model), graph.constant(blend.means)))
    return graph.add(
        "Add",
        graph.add("MatMul", logits, graph.constant(own)),
        graph.add("MatMul", topical, graph.constant(other)),
    )


def _topics(graph: GraphWriter, model: TopicModel) -> str:
    logits = graph.add("Gemm", INPUT, graph.constant(model.weights), graph.constant(model.bias))
    return graph.add("Softmax", logits, axis=1)


def _calibrate(graph: GraphWriter, calibration: Calibration, logits: str) -> str:
    z = graph.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
    positive = graph.add("Mul", graph.add("Softplus", graph.add("Neg", z)), graph.constant(-calibration.a))
    negative = graph.add("Mul", graph.add("Softplus", z), graph.constant(calibration.b))
    shifted = graph.add("Add", graph.add("Add", positive, negative), graph.constant(calibration.c))
    quality = graph.add("Sigmoid", shifted)
    if calibration.isotonic is None:
        return quality
    steps = graph.clip(_ramps(graph, calibration.isotonic, z), 0, 1)
    return graph.add("Where", graph.constant(calibration.is_isotonic, np.bool_), steps, quality)


def _ramps(graph: GraphWriter, ramps: Ramps, value: str) -> str:
    above = graph.add("Sub", graph.add("Unsqueeze", value, graph.constant([2], np.int64)), graph.constant(ramps.knots))
    weighted = graph.add("Mul", graph.add("Relu", above), graph.constant(ramps.slopes))
    total = graph.add("ReduceSum", weighted, graph.constant([2], np.int64), keepdims=0)
    return graph.add("Add", total, graph.constant(ramps.start))


def _logit(graph: GraphWriter, probability: str) -> str:
    clipped = graph.clip(probability, EDGE, 1 - EDGE)
    rest = graph.add("Sub", graph.constant([1.0]), clipped)
    return graph.add("Sub", graph.add("Log", clipped), graph.add("Log", rest))
