"""Write ONNX graphs node by node: names, constants, operators; and check the result.

Knows nothing of what is computed; that is :mod:`training.export`. Entry point: :class:`GraphWriter`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.forest import Tree

OPSET, ML_OPSET, IR_VERSION = 18, 3, 9


class GraphWriter:
    """A graph in the making.

    Parameters
    ----------
    source : str
        Name of the one input, float32 of shape (N, width).
    width : int
    """

    def __init__(self, source: str, width: int) -> None:
        self.source = source
        self._width = width
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        # What is there already, by what it is: nothing is held or computed twice.
        self._names: dict[Hashable, str] = {}
        self._n_names = 0

    def constant(self, values: NDArray[np.generic] | Sequence[float] | float, dtype: Any = np.float32) -> str:
        """Add an array and return its name."""
        return self._constant(np.ascontiguousarray(np.asarray(values, dtype)))

    def scalar(self, value: float) -> str:
        """Add a number of no dimension, as ``Clip`` wants its bounds, and return its name."""
        return self._constant(np.array(value, np.float32))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name; that of one that says the same, if there is one."""
        # Digested: the attributes of trees are lists of a hundred thousand numbers.
        key = (operator, inputs, hashlib.sha256(repr(sorted(attributes.items())).encode()).digest())
        if key not in self._names:
            self._names[key] = self._name("t")
            self._nodes.append(helper.make_node(operator, list(inputs), [self._names[key]], **attributes))
        return self._names[key]

    def clip(self, value: str, low: float, high: float) -> str:
        """Add a ``Clip``."""
        return self.add("Clip", value, self.scalar(low), self.scalar(high))

    def trees(self, source: str, trees: Sequence[Tree]) -> str:
        """Add trees that each say the number of the leaf they reach; return the name of the (N, trees) result."""
        sizes = [len(tree.leaf) for tree in trees]
        ids = np.concatenate([np.arange(n) for n in sizes])
        numbers = np.repeat(np.arange(len(trees)), sizes)
        whole = Tree(*(np.concatenate(parts) for parts in zip(*trees, strict=True)))
        is_leaf = whole.leaf >= 0

        def listed(values: NDArray[np.generic]) -> list[Any]:
            found: list[Any] = values.tolist()
            return found

        # A leaf's number is its weight for the target of its own tree; exact, since float32 counts to 2 ** 24.
        return self.add(
            "TreeEnsembleRegressor",
            source,
            domain="ai.onnx.ml",
            n_targets=len(trees),
            nodes_treeids=listed(numbers),
            nodes_nodeids=listed(ids),
            nodes_featureids=listed(whole.feature),
            nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in listed(is_leaf)],
            nodes_values=listed(np.where(is_leaf, 0.0, whole.threshold)),
            nodes_truenodeids=listed(np.where(is_leaf, 0, whole.left)),
            nodes_falsenodeids=listed(np.where(is_leaf, 0, whole.right)),
            target_treeids=listed(numbers[is_leaf]),
            target_nodeids=listed(ids[is_leaf]),
            target_ids=listed(numbers[is_leaf]),
            target_weights=listed(whole.leaf[is_leaf].astype(np.float64)),
        )

    def include(self, model: Any, source: str, output: str) -> str:
        """Copy a converted model into this graph.

        Parameters
        ----------
        model : onnx.ModelProto
            With one input.
        source : str
            What its input becomes.
        output : str
            Its output to use.

        Returns
        -------
        str
            The output's name in this graph; everything else the model computes is left out.
        """
        prefix = self._name("m") + "."
        graph = model.graph
        renamed = {graph.input[0].name: source, "": ""}

        def name_of(name: str) -> str:
            return renamed.setdefault(name, prefix + name)

        needed = {output}
        kept = []
        for node in reversed(graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        for tensor in graph.initializer:
            if tensor.name in needed:
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                copy.name = name_of(tensor.name)
                self._constants.append(copy)
        for node in reversed(kept):
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = ""
            copy.input[:] = [name_of(name) for name in node.input]
            copy.output[:] = [name_of(name) for name in node.output]
            self._nodes.append(copy)
        return name_of(output)

    def finish(self, outputs: Mapping[str, tuple[str, int]]) -> bytes:
        """Return the file.

        Parameters
        ----------
        outputs : mapping of str to (str, int)
            Public name to the name within the graph and the width; each is float32 of shape (N, width).
        """
        for public, (inner, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [inner], [public]))
        graph = helper.make_graph(
            self._nodes,
            "turnout",
            [helper.make_tensor_value_info(self.source, TensorProto.FLOAT, ["N", self._width])],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
                for name, (_, width) in outputs.items()
            ],
            self._constants,
        )
        domains = {node.domain for node in self._nodes}
        opsets = [helper.make_opsetid("", OPSET)]
        if "ai.onnx.ml" in domains:
            opsets.append(helper.make_opsetid("ai.onnx.ml", ML_OPSET))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="turnout")
        onnx.checker.check_model(model)
        data: bytes = model.SerializeToString(deterministic=True)
        return data

    def _constant(self, array: NDArray[np.generic]) -> str:
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._names:
            self._names[key] = self._name("c")
            self._constants.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def _name(self, kind: str) -> str:
        self._n_names += 1
        return f"{kind}{self._n_names}"
