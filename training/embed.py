"""Prompts to feature rows, by the very encoder that will serve.

Entry points: :func:`fit_encoder` and :func:`embed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats
from router.features import Encoder
from router.lexical import LexicalEncoder
from training.errors import InvalidSettings
from training.estimators import Hints
from training.fitted_encoder import FittedEncoder
from training.settings import Settings

_BATCH = 64


def fit_encoder(
    texts: Sequence[str],
    topics: Sequence[str] | None,
    settings: Settings,
    quality: NDArray[np.float64],
    hints: Hints,
    tell: Callable[[str], None] = lambda stage: None,
) -> FittedEncoder:
    """Fit or load the encoder that the settings name.

    Parameters
    ----------
    texts : sequence of n str
        Training prompts only.
    topics : sequence of n str or None
    settings : Settings
    quality : ndarray of shape (n, m)
        What the stacked tier learns from, NaN where unobserved; the others do not look at labels.
    hints : Hints
    tell : callable, optional
        For a progress display.

    Returns
    -------
    FittedEncoder

    Raises
    ------
    InvalidSettings
        ``encoder_dir`` holds no exported encoder.
    TrainingError
        What :func:`training.finetune.finetune` raises.
    """
    if settings.encoder == "lexical":
        from training.lexical import fit_lexical

        return fit_lexical(texts, topics, settings.lexical, settings.seed)

    from router.minilm import FILES, MiniLMEncoder

    if settings.encoder == "stacked":
        from router.stacked import StackedEncoder
        from training.finetune import finetune
        from training.lexical import fit_lexical

        lexical = fit_lexical(texts, topics, settings.lexical, settings.seed)
        files = finetune(texts, quality, hints, settings.finetune, settings.seed, tell)
        transformer = MiniLMEncoder.from_files(files)
        stacked = StackedEncoder(cast(LexicalEncoder, lexical.encoder), transformer)
        n_lexical = lexical.encoder.dim
        wider = None if lexical.topics is None else lexical.topics.widened(stacked.dim)
        return FittedEncoder(stacked, lexical.columns, wider, np.arange(n_lexical, stacked.dim), lexical.novelty)

    folder = Path(settings.encoder_dir)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InvalidSettings(f"encoder_dir {folder} lacks {', '.join(missing)}; make it with 'turnout encoder export'")
    bare = MiniLMEncoder.from_files({name: (folder / name).read_bytes() for name in FILES})
    encoder = bare.with_surface_of(texts)
    return FittedEncoder(encoder, np.arange(encoder.dim), None)


def embed(encoder: Encoder, texts: Sequence[str], advance: Callable[[int], None] | None = None) -> Floats:
    """Encode in small batches.

    Parameters
    ----------
    encoder : Encoder
    texts : sequence of n str
    advance : callable, optional
        Told how many texts each batch had, for a progress bar.

    Returns
    -------
    ndarray of shape (n, dim), float32
    """
    rows = np.empty((len(texts), encoder.dim), np.float32)
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        rows[start : start + len(batch)] = encoder.encode(batch)
        if advance is not None:
            advance(len(batch))
    return rows
