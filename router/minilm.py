"""The second encoder tier: a small transformer in ONNX, its embedding followed by the surface counts.

Made by ``turnout encoder export`` from a sentence-transformers model; pooling and normalisation are inside the graph.
Texts are encoded one at a time: dynamic int8 gives a row other numbers in other company. Of a long text the first and
the last tokens are read. Entry point: :class:`MiniLMEncoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from router.arrays import read_arrays, write_arrays
from router.domain import Floats
from router.errors import BundleCorrupt, BundleMissing
from router.runtime import Graph
from router.surface import N_SURFACE, SURFACE_LIMIT, surface_counts
from router.text import clip

GRAPH_FILE, TOKENIZER_FILE, SURFACE_FILE = "encoder.onnx", "tokenizer.json", "surface.npz"
#: What ``turnout encoder export`` makes; a bundle adds SURFACE_FILE.
FILES = (GRAPH_FILE, TOKENIZER_FILE)
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
HEAD_TOKENS, TAIL_TOKENS = 192, 64


@dataclass(frozen=True, slots=True, eq=False)
class MiniLMEncoder:
    """Text to (embedding, surface counts).

    Parameters
    ----------
    graph : Graph
        ``input_ids`` and ``attention_mask`` (1, n), int64, to ``embedding`` (1, k), float32.
    tokenizer : tokenizers.Tokenizer
        Without padding and truncation.
    surface_mean, surface_scale : ndarray of shape (N_SURFACE,), float32
    sources : Mapping of str to bytes
        The two files, to be written again.
    """

    graph: Graph
    tokenizer: Tokenizer
    surface_mean: Floats
    surface_scale: Floats
    sources: Mapping[str, bytes]

    @property
    def tier(self) -> str:
        """``"minilm"``."""
        return "minilm"

    @property
    def width(self) -> int:
        """Length of the embedding."""
        return int(self.graph.outputs[OUTPUT][-1])

    @property
    def dim(self) -> int:
        """Embedding and surface counts together."""
        return self.width + N_SURFACE

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the features of n texts, shape (n, dim), float32."""
        features = np.empty((len(texts), self.dim), np.float32)
        features[:, : self.width] = self.embeddings(texts)
        counts = (surface_counts(texts) - self.surface_mean) / self.surface_scale
        np.clip(counts, -SURFACE_LIMIT, SURFACE_LIMIT, out=features[:, self.width :])
        return features

    def embeddings(self, texts: Sequence[str]) -> Floats:
        """Return what the graph alone gives, shape (n, width), float32."""
        rows = np.empty((len(texts), self.width), np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = self._embed(text)
        return rows

    def with_surface_of(self, texts: Sequence[str]) -> MiniLMEncoder:
        """Return the encoder with surface counts scaled to these (training) texts."""
        counts = surface_counts(texts)
        spread = counts.std(axis=0)
        return replace(
            self,
            surface_mean=counts.mean(axis=0).astype(np.float32),
            surface_scale=np.where(spread > 1e-6, spread, 1.0).astype(np.float32),
        )

    def files(self) -> dict[str, bytes]:
        """Return ``encoder.onnx``, ``tokenizer.json`` and ``surface.npz``."""
        scale = write_arrays({"mean": self.surface_mean, "scale": self.surface_scale})
        return {**self.sources, SURFACE_FILE: scale}

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens that are read of a text."""
        return token_ids(self.tokenizer, text)

    def _embed(self, text: str) -> Floats:
        ids = np.array([self.token_ids(text)], np.int64)
        if not ids.size:
            return np.zeros(self.width, np.float32)
        found = self.graph.run({INPUTS[0]: ids, INPUTS[1]: np.ones_like(ids)})
        return np.asarray(found[OUTPUT][0], np.float32)

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> MiniLMEncoder:
        """Make the encoder of its files; without ``surface.npz`` surface counts are not scaled.

        Raises
        ------
        BundleMissing
            The graph or the tokenizer is absent.
        BundleCorrupt, BundleUnsafe
            One of them is not what it must be.
        """
        for name in FILES:
            if name not in files:
                raise BundleMissing(f"the bundle has no {name}")
        graph = Graph(files[GRAPH_FILE], GRAPH_FILE)
        if set(graph.inputs) != set(INPUTS) or set(graph.outputs) != {OUTPUT}:
            raise BundleCorrupt(
                f"{GRAPH_FILE} maps {sorted(graph.inputs)} to {sorted(graph.outputs)}; "
                f"expected {', '.join(INPUTS)} to {OUTPUT}"
            )
        if not isinstance(graph.outputs[OUTPUT][-1], int):
            raise BundleCorrupt(f"{GRAPH_FILE}: the width of {OUTPUT} must be fixed, got {graph.outputs[OUTPUT]}")
        try:
            tokenizer = Tokenizer.from_str(files[TOKENIZER_FILE].decode())
        except Exception as exc:  # tokenizers raises plain Exception
            raise BundleCorrupt(f"{TOKENIZER_FILE} is not a tokenizer: {exc}") from exc
        # The file may ask for both; long texts are cut above, and one text needs no padding.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        mean, scale = _surface(files)
        return cls(graph, tokenizer, mean, scale, {name: files[name] for name in FILES})


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens that are read: all, or the first and the last, with the special ones at both ends."""
    ids: list[int] = tokenizer.encode(clip(text)).ids
    if len(ids) > HEAD_TOKENS + TAIL_TOKENS:
        ids = ids[:HEAD_TOKENS] + ids[-TAIL_TOKENS:]
    return ids


def _surface(files: Mapping[str, bytes]) -> tuple[Floats, Floats]:
    if SURFACE_FILE not in files:
        return np.zeros(N_SURFACE, np.float32), np.ones(N_SURFACE, np.float32)
    arrays = read_arrays(files[SURFACE_FILE], SURFACE_FILE)
    for name in ("mean", "scale"):
        if name not in arrays or arrays[name].shape != (N_SURFACE,):
            raise BundleCorrupt(f"{SURFACE_FILE}: {name} must have shape ({N_SURFACE},)")
    return arrays["mean"].astype(np.float32), arrays["scale"].astype(np.float32)
