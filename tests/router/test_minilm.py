"""A transformer's place is taken by a graph that averages two numbers per token: its id, and 1."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from router.errors import BundleCorrupt, BundleMissing
from router.minilm import HEAD_TOKENS, TAIL_TOKENS, MiniLMEncoder
from router.surface import N_SURFACE

VOCABULARY = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}


def averaging_graph(output: str = "embedding") -> bytes:
    table = np.array([[i, 1] for i in range(len(VOCABULARY))], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["masked"]),
        helper.make_node("ReduceMean", ["masked"], [output], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "average",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "T"]) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tokenizer() -> bytes:
    made = Tokenizer(WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    # As published tokenizers do: both must be undone, or short texts are mostly padding and long ones lose their end.
    made.enable_padding(length=16)
    made.enable_truncation(16)
    return made.to_str().encode()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {"encoder.onnx": averaging_graph(), "tokenizer.json": tokenizer()}


def test_the_embedding_is_the_graphs_on_unpadded_tokens(files):
    # [CLS] a b [SEP] = 1, 3, 4, 2: mean 2.5, and 1 per token since none is padding.
    assert MiniLMEncoder.from_files(files).encode(["a b"])[0, :2].tolist() == [2.5, 1.0]


def test_surface_counts_follow_the_embedding(files):
    encoder = MiniLMEncoder.from_files(files)
    assert encoder.dim == 2 + N_SURFACE
    assert encoder.encode(["a b 12"]).shape == (1, encoder.dim)
    scaled = encoder.with_surface_of(["a", "a b", "a b a b"])
    assert np.abs(scaled.encode(["a", "a b", "a b a b"])[:, 2:].mean(axis=0)).max() < 1e-5


def test_a_long_text_is_read_at_both_ends(files):
    encoder = MiniLMEncoder.from_files(files)
    ids = encoder.token_ids("a " * 1_000 + "b " * 1_000)
    assert len(ids) == HEAD_TOKENS + TAIL_TOKENS
    assert ids[0] == 1 and ids[-1] == 2
    assert ids[1:HEAD_TOKENS] == [3] * (HEAD_TOKENS - 1)
    assert ids[HEAD_TOKENS:-1] == [4] * (TAIL_TOKENS - 1)


def test_files_make_the_same_encoder_again(files):
    encoder = MiniLMEncoder.from_files(files).with_surface_of(["a", "b b b"])
    again = MiniLMEncoder.from_files(encoder.files())
    assert (again.encode(["a b", ""]) == encoder.encode(["a b", ""])).all()


def test_what_is_missing_or_foreign_is_refused(files):
    with pytest.raises(BundleMissing, match=r"tokenizer\.json"):
        MiniLMEncoder.from_files({"encoder.onnx": files["encoder.onnx"]})
    with pytest.raises(BundleCorrupt, match="not a tokenizer"):
        MiniLMEncoder.from_files({**files, "tokenizer.json": b"{}"})
    with pytest.raises(BundleCorrupt, match="expected input_ids"):
        MiniLMEncoder.from_files({**files, "encoder.onnx": averaging_graph("other")})
