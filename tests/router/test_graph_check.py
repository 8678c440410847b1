from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from router import graph_check
from router.errors import BundleCorrupt, BundleError, BundleUnsafe
from router.graph_check import check_graph
from router.runtime import Graph


def model(*nodes, weights=(), functions=()):
    nodes = nodes or (helper.make_node("Identity", ["x"], ["y"]),)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, functions=functions)


def check(made):
    check_graph(made.SerializeToString(), "g.onnx")


def test_a_plain_graph_passes_and_runs():
    made = model(weights=[numpy_helper.from_array(np.ones(3, np.float32), "w")])
    check(made)
    x = np.ones((1, 2), np.float32)
    assert np.array_equal(Graph(made.SerializeToString(), "g.onnx").run({"x": x})["y"], x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_weights_are_refused_however_they_are_stored(dtype):
    weights = np.array([1.0, np.nan], dtype)
    with pytest.raises(BundleCorrupt, match=r"g\.onnx contains NaN weights"):
        check(model(weights=[numpy_helper.from_array(weights, "w")]))


def test_nan_in_the_typed_field_is_refused():
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(weights=[helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, float("nan")])]))


def test_nan_in_a_constant_node_is_refused():
    constant = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.array([np.nan], np.float32)))
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(constant))


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_nan_in_a_long_list_of_numbers_is_refused(bad):
    """A run of numbers is looked at as one array."""
    scale = [1.0] * 20
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0] * 20, scale=scale)
    check(model(node))
    scale[bad] = float("nan")
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0] * 20, scale=scale)
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(node))


def test_long_lists_of_integers_and_modes_do_not_hide_what_follows():
    """Attributes after a run are still inspected."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_featureids=list(range(0, 40_000, 7)),
        nodes_modes=["LEAF", "BRANCH_LEQ"] * 20,
        target_weights=[1.0, 2.0, float("nan")],
    )
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(node))
    foreign = helper.make_node("Thing", ["x"], ["y"], domain="elsewhere", numbers=list(range(500)))
    with pytest.raises(BundleUnsafe, match="elsewhere"):
        check(model(foreign))


def test_nan_in_a_list_of_numbers_is_refused():
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[float("nan")])
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(node))


def test_nan_inside_a_nested_graph_is_refused():
    inner = helper.make_graph([], "i", [], [], [numpy_helper.from_array(np.array([np.nan], np.float32), "w")])
    with pytest.raises(BundleCorrupt, match="NaN"):
        check(model(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)))


@pytest.mark.parametrize("location", ["weights.bin", "../../etc/passwd", "/etc/passwd"])
def test_external_data_is_refused(location):
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(BundleUnsafe, match="outside the file"):
        check(model(weights=[tensor]))


def test_foreign_operators_are_refused_by_domain():
    with pytest.raises(BundleUnsafe, match=r"domain 'evil\.ops'"):
        check(model(helper.make_node("Run", ["x"], ["y"], domain="evil.ops")))


def test_local_functions_are_refused():
    function = helper.make_function("d", "f", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
    with pytest.raises(BundleUnsafe, match="functions"):
        check(model(functions=[function]))


@pytest.mark.parametrize("data", [b"", b"hello world", b"\xff" * 20, b"\x80\x04\x95."])
def test_what_is_not_a_model_is_corrupt(data):
    with pytest.raises(BundleCorrupt):
        check_graph(data, "g.onnx")


def test_a_model_cut_anywhere_never_crashes_the_check():
    whole = model(weights=[numpy_helper.from_array(np.ones(3, np.float32), "w")]).SerializeToString()
    for end in range(len(whole)):
        try:
            check_graph(whole[:end], "g.onnx")
        except BundleError:
            continue


@given(st.binary(max_size=200))
def test_random_bytes_never_crash_the_check(data):
    try:
        check_graph(data, "g.onnx")
    except BundleError:
        return


@pytest.mark.parametrize("bad", [None, 0, 4_000, 9_999])
def test_a_run_longer_than_one_step_is_looked_at_to_its_end(bad):
    """Steps end in the middle of numbers, before and after whatever is wrong."""
    numbers = np.arange(10_000, dtype=np.float32)
    if bad is not None:
        numbers[bad] = np.nan
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=numbers.tolist())
    made = model(node).SerializeToString()
    assert len(made) > 2 * graph_check._RUN_BYTES
    if bad is None:
        check_graph(made, "g.onnx")
    else:
        with pytest.raises(BundleCorrupt, match="NaN"):
            check_graph(made, "g.onnx")
