"""Append a newcomer's column to the graphs of a bundle: a few nodes on what the graphs say of the known candidates.

Everything else in the graphs, further outputs included, stays as it is. Entry points: :func:`with_quality` and
:func:`with_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from router.predictors import QUALITY_OUTPUTS, TASK_OUTPUT, TOKENS_OUTPUTS
from training.ability import EDGE, Z90, Lengths, Placement
from training.graph import GraphWriter
from training.tokens import LOG_LIMIT

_KNOWN = "known"


def with_quality(graph: bytes, placement: Placement, m: int) -> bytes:
    """Return ``quality.onnx`` with a column more.

    Parameters
    ----------
    graph : bytes
        Of m candidates.
    placement : Placement
    m : int

    Returns
    -------
    bytes
    """
    width = len(placement.weights)
    own = GraphWriter(_KNOWN, width)
    clipped = own.clip(_columns(own, 0, m), EDGE, 1 - EDGE)
    z = own.add("Sub", own.add("Log", clipped), own.add("Log", own.add("Sub", own.constant([1.0]), clipped)))
    x = own.add("Concat", z, _columns(own, m, width), axis=1) if width > m else z
    mean = own.add("Gemm", x, own.constant(placement.weights[:, None]), own.constant([placement.bias]))
    parts = own.add("Gemm", x, own.constant(placement.root[1:]), own.constant(placement.root[0]))
    ones = own.constant(np.ones((placement.root.shape[1], 1)))
    variance = own.add("MatMul", own.add("Mul", parts, parts), ones)
    shrink = own.add("Add", own.add("Mul", variance, own.constant([np.pi / 8])), own.constant([1.0]))
    quality = own.add("Sigmoid", own.add("Div", mean, own.add("Sqrt", shrink)))
    deviation = own.add("Sqrt", own.add("Add", variance, own.constant([placement.own])))
    half = own.add("Mul", deviation, own.constant([Z90]))
    low = own.add("Min", own.add("Sigmoid", own.add("Sub", mean, half)), quality)
    high = own.add("Max", own.add("Sigmoid", own.add("Add", mean, half)), quality)
    reads = (QUALITY_OUTPUTS[0], TASK_OUTPUT) if width > m else QUALITY_OUTPUTS[:1]
    return _with_column(graph, own.finish(_narrow(QUALITY_OUTPUTS, quality, low, high)), reads, m)


def with_tokens(graph: bytes, lengths: Lengths) -> bytes:
    """Return ``output_tokens.onnx`` with a column more; parameters as of :func:`with_quality`."""
    m = len(lengths.weights)
    own = GraphWriter(_KNOWN, m)
    z = own.add("Log", own.add("Max", _KNOWN, own.scalar(1)))
    typical = own.add("Gemm", z, own.constant(lengths.weights[:, None]), own.constant([lengths.bias]))
    base = own.add("Exp", own.clip(typical, 0, LOG_LIMIT))
    mean = own.add("Max", own.add("Mul", base, own.constant([lengths.mean_factor])), own.scalar(1))
    p90 = own.add("Max", own.add("Mul", base, own.constant([lengths.p90_factor])), mean)
    return _with_column(graph, own.finish(_narrow(TOKENS_OUTPUTS, mean, p90)), TOKENS_OUTPUTS[:1], m)


def _columns(graph: GraphWriter, start: int, stop: int) -> str:
    return graph.add("Gather", _KNOWN, graph.constant(np.arange(start, stop), np.int64), axis=1)


def _narrow(names: Sequence[str], *inner: str) -> dict[str, tuple[str, int]]:
    """Return outputs of one column each."""
    return {name: (given, 1) for name, given in zip(names, inner, strict=True)}


def _with_column(graph: bytes, newcomer: bytes, reads: Sequence[str], m: int) -> bytes:
    """Join the newcomer's columns, which read some outputs of a graph side by side, to the outputs of their names."""
    model, addition = onnx.load_from_string(graph), onnx.load_from_string(newcomer)
    outputs = {output.name: output for output in model.graph.output}
    joined = [output.name for output in addition.graph.output]
    # Unique, since every column is appended to a wider graph than the one before.
    prefix = f"column{m}."
    before = {name: f"{prefix}{name}.known" for name in joined}
    for node in model.graph.node:
        _rename(node, before)
    for tensor in addition.graph.initializer:
        tensor.name = prefix + tensor.name
        model.graph.initializer.append(tensor)
    own = {_KNOWN: prefix + _KNOWN}
    model.graph.node.append(helper.make_node("Concat", [before.get(n, n) for n in reads], [own[_KNOWN]], axis=1))
    for node in addition.graph.node:
        _rename(node, {name: own.get(name, prefix + name) for name in (*node.input, *node.output)})
        model.graph.node.append(node)
    for name in joined:
        model.graph.node.append(helper.make_node("Concat", [before[name], prefix + name], [name], axis=1))
        outputs[name].type.tensor_type.shape.dim[1].dim_value = m + 1
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
