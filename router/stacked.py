"""The fine-tuned tier: what the lexical encoder sees, then what a transformer trained for routing says itself.

The transformer ends in one logit per candidate; those logits are feature columns, which the predictor averages with
its own. Made by ``turnout train`` with ``encoder = "stacked"``. Entry point: :class:`StackedEncoder`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.domain import Floats
from router.lexical import LexicalEncoder
from router.minilm import FILES, MiniLMEncoder


@dataclass(frozen=True, slots=True, eq=False)
class StackedEncoder:
    """Text to (lexical features, the transformer's logits).

    Parameters
    ----------
    lexical : LexicalEncoder
    transformer : MiniLMEncoder
        Its embedding is the logits.
    """

    lexical: LexicalEncoder
    transformer: MiniLMEncoder

    @property
    def tier(self) -> str:
        """``"stacked"``."""
        return "stacked"

    @property
    def dim(self) -> int:
        """Lexical features and logits together."""
        return self.lexical.dim + self.transformer.width

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the features of n texts, shape (n, dim), float32."""
        return np.hstack([self.lexical.encode(texts), self.transformer.embeddings(texts)])

    def files(self) -> dict[str, bytes]:
        """Return the lexical encoder's file, ``encoder.onnx`` and ``tokenizer.json``."""
        return {**self.lexical.files(), **{name: self.transformer.sources[name] for name in FILES}}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> StackedEncoder:
        """Make the encoder again; raises as its two parts do."""
        return cls(LexicalEncoder.from_files(files), MiniLMEncoder.from_files(files))
