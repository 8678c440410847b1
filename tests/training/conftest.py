"""One bundle trained on the committed sample, small enough for every test that needs one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from routing_data.sample import generate
from training.gate_results import Opponent
from training.simulated_log import SimulatedLog, simulate, write_tables

WHY = "needs the encoder extra (torch, sentence-transformers)"
SAMPLE = Path(__file__).resolve().parents[2] / "datasets" / "samples" / "checkable"
CONFIG = """
[heads]
n_nets = 2
hidden = 64
min_steps = 300

[evaluation]
n_resamples = 60
"""


@pytest.fixture(scope="session")
def sample() -> Path:
    return SAMPLE


@pytest.fixture(scope="session")
def against():
    """Return the function that names a store's champion as the opponent of new gates: (store) -> Opponent or None."""

    def opponent(store):
        champion = store.aliases().get("champion")
        if champion is None:
            return None
        identity = store.version(champion).identity
        return Opponent(identity.bundle, identity.manifest_sha256, "0" * 64)

    return opponent


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, sample: Path, small_config: Path):
    """Return what one run on the sample made; read-only by agreement."""
    from training.pipeline import train
    from training.settings import read_settings

    stages: list[str] = []
    out = tmp_path_factory.mktemp("models") / "sample" / "1"
    result = train([sample], out, read_settings(small_config), tell=stages.append)
    assert stages == [
        "load",
        "fit encoder",
        "embed",
        "fit output tokens",
        "fit quality",
        "calibrate",
        "export",
        "evaluate",
        "write",
    ]
    return result


@pytest.fixture(scope="session")
def random_model(tmp_path_factory):
    """A sentence-transformers folder: a BERT of two tiny layers with random weights, mean pooling, normalised."""
    torch = pytest.importorskip("torch", reason=WHY)
    sentence_transformers = pytest.importorskip("sentence_transformers", reason=WHY)
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "aeiou")]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    transformers.BertModel(config).save_pretrained(folder)
    modules = importlib.import_module("sentence_transformers.models")
    transformer = modules.Transformer(str(folder))
    model = sentence_transformers.SentenceTransformer(
        modules=[transformer, modules.Pooling(32), modules.Normalize()], device="cpu"
    )
    saved = tmp_path_factory.mktemp("st") / "model"
    model.save(str(saved))
    return model, saved


# --- synthetic decision logs -------------------------------------------------------------------------------------


def synthetic_log(path: Path, *, is_explored: float = 0.2, **options: Any) -> SimulatedLog:
    """Requests in a scenario over the sample's prompts; see :func:`training.simulated_log.simulate`."""
    return simulate(path, generate(), explored=is_explored, scenario="default", **options)


@pytest.fixture(scope="session")
def log_tables():
    """Return the function that writes tables as an exported log: (folder, requests=…, feedback=…, retained=…)."""
    return write_tables


@pytest.fixture(scope="session")
def write_log():
    """Return the function that writes a synthetic log of known truth: (folder, n_requests=…, seed=…, …)."""
    return synthetic_log


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> SimulatedLog:
    """A log of 2,000 requests; read-only by agreement."""
    return synthetic_log(tmp_path_factory.mktemp("log") / "LOG")
