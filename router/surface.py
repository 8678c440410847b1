"""Counts on the surface of a text: how long, how many numbers, options, lines, code marks.

They say much about difficulty that words do not, cost microseconds, and both encoder tiers append them. Everything is
counted by C code on bytes; there is no per-character Python. Not scaled here: an encoder stores mean and scale.
Entry point: :func:`surface_counts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from router import structure
from router.domain import Floats
from router.pieces import DIGITS, Pieces, pieces_of
from router.structure import OPTION_OF_MARK, structure_of
from router.tally import CLASSES, PLACE_OF, by_class, tally_of

#: What words alone do not say: layout, code and the marks of a worked example.
_PHRASES: tuple[bytes, ...] = (b"\\frac", b"```", b"\n    ", b"def ", b"nswer:", b"\nQ:", b"__")
# With the place in a tally of a byte without which there is none.
_GATED = [
    (phrase, next((PLACE_OF[phrase[j : j + 1]] for j in range(len(phrase)) if phrase[j : j + 1] in PLACE_OF), None))
    for phrase in _PHRASES
]
_FIRST_NUMBER = re.compile(rb"[0-9]{1,9}")
_LARGEST_FIRST_NUMBER = 20
_MOST_DIGITS = 12
_DIGITS, _BULLETS = b"0123456789", b"-*+"

NAMES: tuple[str, ...] = (
    "log_bytes",
    *(f"log_{name}" for name, _ in CLASSES),
    *(f"share_{name}" for name, _ in CLASSES),
    "options",
    *("log_numbers", "mean_digits_of_number", "most_digits_of_number", "first_number"),
    *("log_words", "mean_word_bytes", "log_longest_word", "log_distinct_words", "share_distinct_words"),
    *("log_lines", "log_numbered_lines", "log_bulleted_lines", "log_longest_line", "log_last_line"),
    *(f"log_phrase_{i}" for i in range(len(_PHRASES))),
    *structure.NAMES,
)
N_SURFACE = len(NAMES)
#: Encoders cut standardised counts here, so that an odd text cannot throw the predictors far off.
SURFACE_LIMIT = 5.0
_IS_LOG = np.array([name.startswith("log_") for name in NAMES])


def surface_counts(texts: Sequence[str]) -> Floats:
    """Count.

    Parameters
    ----------
    texts : sequence of n str
        Clipped here.

    Returns
    -------
    ndarray of shape (n, N_SURFACE), float32
        Columns as in :data:`NAMES`; all finite, all 0 for an empty text.
    """
    return logarithms_of([counts_of(pieces_of(text)) for text in texts])


def logarithms_of(rows: Sequence[tuple[float, ...]]) -> Floats:
    """Lay out raw counts as rows, shape (n, N_SURFACE), and take the logarithms of those that are sizes."""
    # Once for all rows: a numpy call costs more than its sums on so few numbers.
    counts = np.array(rows, np.float32).reshape(len(rows), N_SURFACE)
    np.log1p(counts, out=counts, where=_IS_LOG)
    return counts


def counts_of(pieces: Pieces) -> tuple[float, ...]:
    """Return the raw counts of one text."""
    data = pieces.data
    n = len(data)
    if not n:
        return _NOTHING
    tally = tally_of(data)
    per_class = by_class(tally)
    word_lengths, word_hashes = pieces.word_lengths, pieces.hashes.take(pieces.words)
    n_words = len(word_lengths)
    n_distinct = 0
    if n_words:
        word_hashes.sort()
        n_distinct = 1 + int(np.count_nonzero(word_hashes[1:] != word_hashes[:-1]))
    n_numbers = most_digits = first_number = 0
    if per_class[0]:
        numbers = pieces.lengths[pieces.kinds == DIGITS]
        n_numbers, most_digits = len(numbers), int(np.maximum.reduce(numbers))
        first = _FIRST_NUMBER.search(data)
        first_number = int(first[0]) if first else 0
    lines = data.split(b"\n")
    begins = [line[:2] for line in lines]
    heads = b"".join([begin[:1] for begin in begins])
    return (
        n,
        *per_class,
        *[count / n for count in per_class],
        len(OPTION_OF_MARK.keys() & begins),
        n_numbers,
        per_class[0] / n_numbers if n_numbers else 0.0,
        min(most_digits, _MOST_DIGITS),
        first_number if first_number <= _LARGEST_FIRST_NUMBER else 0,
        n_words,
        sum(per_class[i] for i in _LETTER_CLASSES) / n_words if n_words else 0.0,
        int(np.maximum.reduce(word_lengths)) if n_words else 0,
        n_distinct,
        n_distinct / max(n_words, 1),
        len(lines),
        len(heads) - len(heads.translate(None, _DIGITS)),
        len(heads) - len(heads.translate(None, _BULLETS)),
        max(map(len, lines)),
        len(lines[-1]),
        *[data.count(phrase) if gate is None or tally[gate] else 0 for phrase, gate in _GATED],
        *structure_of(pieces, lines, tally),
    )


_NOTHING = (0.0,) * N_SURFACE
_LETTER_CLASSES = (1, 2, 11)
