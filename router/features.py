"""From text to the row of numbers that predictors read; the one path for training and serving.

Which encoder a bundle uses is data (:data:`TIERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from router.domain import Floats
from router.errors import BundleSchemaUnknown

#: Raised when the same text would give other features than in an older program.
FEATURE_SCHEMA = 3


class Encoder(Protocol):
    """Text to vector."""

    @property
    def tier(self) -> str:
        """Its row in :data:`TIERS`."""

    @property
    def dim(self) -> int:
        """Length of one feature row."""

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the features of n texts, shape (n, dim), float32."""

    def files(self) -> dict[str, bytes]:
        """Return what must be in the bundle to make this encoder again."""


def _lexical(files: Mapping[str, bytes]) -> Encoder:
    from router.lexical import LexicalEncoder

    return LexicalEncoder.from_files(files)


def _minilm(files: Mapping[str, bytes]) -> Encoder:
    # Here, not at the top: the lexical tier must not pay for `tokenizers`.
    from router.minilm import MiniLMEncoder

    return MiniLMEncoder.from_files(files)


def _stacked(files: Mapping[str, bytes]) -> Encoder:
    from router.stacked import StackedEncoder

    return StackedEncoder.from_files(files)


TIERS: Mapping[str, Callable[[Mapping[str, bytes]], Encoder]] = {
    "lexical": _lexical,
    "minilm": _minilm,
    "stacked": _stacked,
}


def encoder_of(tier: str, files: Mapping[str, bytes]) -> Encoder:
    """Make the encoder of a bundle from its files.

    Parameters
    ----------
    tier : str
        A key of :data:`TIERS`.
    files : Mapping of str to bytes
        The bundle's files by name.

    Returns
    -------
    Encoder

    Raises
    ------
    BundleSchemaUnknown
        A tier this program does not have.
    BundleMissing, BundleCorrupt, BundleUnsafe
        What the tier itself finds wrong with its files.
    """
    if tier not in TIERS:
        raise BundleSchemaUnknown(f"encoder tier {tier!r} is unknown; expected one of {', '.join(TIERS)}")
    return TIERS[tier](files)
