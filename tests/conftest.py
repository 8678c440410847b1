"""A tiny bundle for every test: real files, real graphs, numbers a reader can work out.

Its encoder reads two numbers of a text: how many hundred characters it has, and 1 if it has a digit. Candidates
and their quality: ``large`` .9 always; ``medium`` .8 without digits, .6 with; ``small`` .7 − .1 per hundred characters.
Output tokens are 100, 200 and 300 (p90 twice that); prices 0.1/0.4, 1/4 and 10/40 USD per million tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from router import bundle, features
from router.domain import Policy, Price
from router.manifest import Column, Manifest
from router.predictors import Predictor

NAMES = ("large", "medium", "small")
PRICES = {"large": Price(10.0, 40.0), "medium": Price(1.0, 4.0), "small": Price(0.1, 0.4)}
TEXTS = ("Say hello.", "What is 17 * 23?", "x" * 500)


class LettersEncoder:
    tier = "letters"
    dim = 2

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = [(len(text) / 100, any(c.isdigit() for c in text)) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), 2)

    def files(self) -> dict[str, bytes]:
        return {}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> LettersEncoder:
        return cls()


def linear_graph(outputs: Mapping[str, tuple[np.ndarray, np.ndarray, float, float]], dim: int = 2) -> bytes:
    """Make a graph that gives, per output, clip(features @ weights + bias, low, high)."""
    nodes, weights = [], []
    for name, (matrix, bias, low, high) in outputs.items():
        constants = {"w": matrix, "b": bias, "low": np.array(low), "high": np.array(high)}
        weights += [numpy_helper.from_array(v.astype(np.float32), f"{name}.{k}") for k, v in constants.items()]
        nodes += [
            helper.make_node("Gemm", ["features", f"{name}.w", f"{name}.b"], [f"{name}.raw"]),
            helper.make_node("Clip", [f"{name}.raw", f"{name}.low", f"{name}.high"], [name]),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, dim])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(bias)])
            for name, (_, bias, _, _) in outputs.items()
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_files() -> dict[str, bytes]:
    slopes = np.array([[0.0, 0.0, -0.1], [0.0, -0.2, 0.0]])
    base = np.array([0.9, 0.8, 0.7])
    flat = np.zeros((2, 3))
    tokens = np.array([300.0, 200.0, 100.0])
    files = {
        "quality.onnx": linear_graph(
            {
                "quality": (slopes, base, 0.0, 1.0),
                "quality_low": (slopes, base - 0.05, 0.0, 1.0),
                "quality_high": (slopes, base + 0.05, 0.0, 1.0),
            }
        ),
        "output_tokens.onnx": linear_graph(
            {"output_tokens": (flat, tokens, 1.0, 1e6), "output_tokens_p90": (flat, 2 * tokens, 1.0, 1e6)}
        ),
        "CARD.md": b"# tiny\n",
    }
    files["parity.npz"] = bundle.parity(LettersEncoder(), Predictor(files, 2, 3), TEXTS)
    return files


def tiny_manifest(version: str = "1") -> Manifest:
    return Manifest(
        name="tiny",
        version=version,
        created_at="2026-11-22T00:00:00Z",
        candidates=tuple(Column(name, 0.25, True, 100, PRICES[name]) for name in NAMES),
        encoder_tier="letters",
        feature_schema=features.FEATURE_SCHEMA,
        dim=2,
        presets={
            "quality": Policy("threshold", 0.85, "quality"),
            "balanced": Policy("threshold", 0.75, "balanced"),
            "price": Policy("threshold", 0.5, "price"),
            "latency": Policy("latency", 0.75, "latency"),
        },
        metrics={},
        training={"fingerprint": "none", "data": []},
    )


@pytest.fixture(scope="session", autouse=True)
def letters_tier() -> Iterator[None]:
    """Let bundles name the tests' own encoder tier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(features.TIERS, "letters", LettersEncoder.from_files)
        yield


@pytest.fixture(scope="session")
def tiny_bundle_files() -> dict[str, bytes]:
    return tiny_files()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_bundle_files: dict[str, bytes]) -> Path:
    """Return the folder of the tiny bundle; read-only by agreement."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    bundle.write(folder, tiny_manifest(), tiny_bundle_files)
    return folder


@pytest.fixture
def write_tiny_bundle(tiny_bundle_files: dict[str, bytes]):
    """Return a function (folder, version) that writes, or overwrites, a tiny bundle of that version."""

    def write(folder: Path, version: str = "1") -> Path:
        bundle.write(folder, tiny_manifest(version), tiny_bundle_files, overwrite=True)
        return folder

    return write
