"""Train on the second encoder tier, with a graph in the transformer's place that averages one-hot letters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

import routing_data
from router.bundle import load
from training.errors import InvalidSettings
from training.pipeline import train
from training.settings import HeadSettings, Settings, TopicSettings

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?"


@pytest.fixture
def encoder_dir(tmp_path):
    width = len(LETTERS) + 1
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["N", "T"]) for name in ("input_ids", "attention_mask")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["embedding"], axes=[1], keepdims=0),
        ],
        "letters",
        ids,
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(np.eye(width, dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, **{c: i + 1 for i, c in enumerate(LETTERS)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "encoder.onnx").write_bytes(model.SerializeToString())
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return folder


def test_training_embeds_through_the_graph_that_serves(encoder_dir, sample, tmp_path):
    routing_data.write(routing_data.read(sample).select(np.arange(600)), tmp_path / "data")
    settings = Settings(
        encoder="minilm",
        encoder_dir=str(encoder_dir),
        topics=TopicSettings(min_prompts=20),
        heads=HeadSettings(kinds=("logistic",)),
        evaluation=replace(Settings().evaluation, n_resamples=50),
    )
    trained = train([tmp_path / "data"], tmp_path / "m" / "1", settings)
    bundle = load(trained.directory)
    assert bundle.manifest.encoder_tier == "minilm"
    assert {"encoder.onnx", "tokenizer.json", "surface.npz"} <= set(bundle.manifest.files)
    assert len(trained.report["selection"]["topics"]) > 1
    assert trained.report["metrics"]["auc_macro"]["value"] > 0.6


def test_a_folder_without_an_encoder_is_named(sample, tmp_path):
    with pytest.raises(InvalidSettings, match=r"lacks encoder.onnx, tokenizer.json; make it with 'turnout encoder"):
        train([sample], tmp_path / "m" / "1", Settings(encoder="minilm", encoder_dir=str(tmp_path)))
