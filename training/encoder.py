"""Make an encoder of the minilm tier: a sentence-transformers model in, ONNX and a tokenizer out.

Pooling and normalisation go into the graph, so that serving needs no torch. torch and sentence-transformers come with
the ``encoder`` extra and are imported inside. torch's TorchScript exporter is used: its successor needs a further
package and writes graphs that onnxruntime refuses for these models. Entry point: :func:`export`.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.errors import RouterError
from router.minilm import GRAPH_FILE, INPUTS, OUTPUT, TOKENIZER_FILE, MiniLMEncoder
from training.errors import ExportMismatch, ExtraMissing, TrainingError
from training.parity import TEXTS

_OPSET = 17
_LEAST_COSINE, _LEAST_COSINE_INT8 = 0.999, 0.9


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Cosine between exported and original embeddings over the project's own texts."""

    mean: float
    least: float


def export(model: str, out: Path, *, int8: bool = False) -> Fidelity:
    """Export a model and check it against the original.

    Parameters
    ----------
    model : str
        Folder or name of a sentence-transformers model with a BERT-like transformer.
    out : Path
        Folder to make; it must not exist, or be empty.
    int8 : bool, default=False
        Quantise weights dynamically to eight bits, one scale per channel.

    Returns
    -------
    Fidelity

    Raises
    ------
    ExtraMissing
        torch or sentence-transformers is not installed.
    TrainingError
        The model cannot be loaded, or ``out`` holds something.
    ExportMismatch
        The exported encoder gives other embeddings than the original.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} exists and is not an empty folder")
    original = load_model(model)
    graph = graph_of(_embedder(original))
    files = {
        GRAPH_FILE: quantised(graph) if int8 else graph,
        TOKENIZER_FILE: original.tokenizer.backend_tokenizer.to_str().encode(),
    }
    try:
        encoder = MiniLMEncoder.from_files(files)
    except RouterError as exc:
        raise ExportMismatch(f"{model}: the exported encoder does not load: {exc}") from exc
    fidelity = _compare(encoder, original)
    least = _LEAST_COSINE_INT8 if int8 else _LEAST_COSINE
    if not fidelity.least >= least:
        raise ExportMismatch(f"{model}: cosine with the original is {fidelity.least:.4f} at least; expected {least}")
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    return fidelity


def load_model(model: str) -> Any:
    """Return the model; raises ExtraMissing without torch, TrainingError where it is none."""
    try:
        import torch  # noqa: F401
        from sentence_transformers import SentenceTransformer
    except ImportError as exc:
        raise ExtraMissing(
            f"exporting an encoder needs {exc.name}; install the CPU build of torch first, then  "
            "pip install 'turnout[encoder]'"
        ) from exc
    try:
        # Plain attention: the fused kinds are not traced faithfully.
        loaded = SentenceTransformer(model, device="cpu", model_kwargs={"attn_implementation": "eager"})
    except (OSError, ValueError) as exc:
        raise TrainingError(f"{model}: not a sentence-transformers model that can be loaded: {exc}") from exc
    if not hasattr(loaded[0], "auto_model") or not hasattr(loaded.tokenizer, "backend_tokenizer"):
        raise TrainingError(
            f"{model}: expected a transformer with a fast tokenizer first, got {type(loaded[0]).__name__}"
        )
    return loaded.eval()


def _embedder(original: Any) -> Any:
    """Return a torch module (input_ids, attention_mask) → embedding."""
    import torch

    class Embedder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = original[0].auto_model
            self.rest = torch.nn.ModuleList(list(original)[1:])

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            found = self.transformer(input_ids=input_ids, attention_mask=attention_mask)
            features = {"token_embeddings": found.last_hidden_state, "attention_mask": attention_mask}
            for module in self.rest:
                features = module(features)
            return features["sentence_embedding"]

    # Evaluation mode of the wrapper too: the exporter restores the mode it finds, dropout and all.
    return Embedder().eval()


def graph_of(module: Any) -> bytes:
    """Return the ONNX file of a torch module (input_ids, attention_mask) → one row of numbers per text."""
    import torch

    example = torch.ones((2, 8), dtype=torch.long)
    length = {0: "N", 1: "T"}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*legacy TorchScript.*")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=UserWarning, message=".*advanced indexing.*")
        torch.onnx.export(
            module,
            (example, torch.ones_like(example)),
            buffer,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes={**dict.fromkeys(INPUTS, length), OUTPUT: {0: "N"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return buffer.getvalue()


def quantised(graph: bytes) -> bytes:
    """Return the graph with its weights in eight bits, one scale per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        # One scale for a whole matrix loses far more than one per channel.
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return target.read_bytes()


def _compare(encoder: MiniLMEncoder, original: Any) -> Fidelity:
    import torch

    embedder = _embedder(original)
    cosines = []
    for text, row in zip(TEXTS, encoder.encode(TEXTS)[:, : encoder.width], strict=True):
        ids = torch.tensor([encoder.token_ids(text)])
        with torch.no_grad():
            expected = embedder(ids, torch.ones_like(ids))[0].numpy()
        cosines.append(float(row @ expected / (np.linalg.norm(row) * np.linalg.norm(expected))))
    return Fidelity(float(np.mean(cosines)), float(np.min(cosines)))
