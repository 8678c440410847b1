"""Counts on the surface of a text: how long, how many numbers, options, lines, code marks.

They say much about difficulty that words do not, cost microseconds, and both encoder tiers append them. Everything is
counted by C code on bytes; there is no per-character Python. Not scaled here: an encoder stores mean and scale.
Entry point: :func:`surface_counts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from router.domain import Floats

_CLASSES: tuple[tuple[str, bytes], ...] = (
    ("digits", b"0123456789"),
    ("capitals", bytes(range(65, 91))),
    ("letters", bytes(range(97, 123))),
    ("newlines", b"\n"),
    ("spaces", b" \t\r"),
    ("stops", b".,;:"),
    ("questions", b"?"),
    ("operators", b"+-*/=<>^%|&"),
    ("brackets", b"()[]{}"),
    ("latex", b"$\\"),
    ("quotes", b"`'\"_"),
    ("others", bytes(range(128, 256))),
)
_OPTION_LETTERS = "ABCDEFGHIJ"
# How a line that gives an option of a multiple-choice question begins: mark -> which option.
_OPTION_OF_MARK = {
    form.format(letter).encode(): letter for letter in _OPTION_LETTERS for form in ("{}.", "{})", "({}", "{}:")
}
_PHRASES: tuple[bytes, ...] = (
    b"how many", b"which", b"what", b"why", b"find", b"not ", b"each", b"prove", b"def ", b"return", b"percent",
    b"if ", b"true", b"following", b"except", b"all ", b"most", b"answer:", b"\nq:", b"step", b"\\frac", b"```",
    b"\n    ",
)  # fmt: skip
_FIRST_NUMBER = re.compile(rb"[0-9]{1,9}")
_LARGEST_FIRST_NUMBER = 20
_MOST_DIGITS = 12
_BULLETS = (b"-", b"*", b"+")

NAMES: tuple[str, ...] = (
    "log_bytes",
    *(f"log_{name}" for name, _ in _CLASSES),
    *(f"share_{name}" for name, _ in _CLASSES),
    "options",
    *("log_numbers", "mean_digits_of_number", "most_digits_of_number", "first_number"),
    *("log_words", "mean_word_bytes", "log_longest_word", "log_distinct_words", "share_distinct_words"),
    *("log_lines", "log_numbered_lines", "log_bulleted_lines", "log_longest_line", "log_last_line"),
    *(f"log_phrase_{i}" for i in range(len(_PHRASES))),
)
N_SURFACE = len(NAMES)
#: Encoders cut standardised counts here, so that an odd text cannot throw the predictors far off.
SURFACE_LIMIT = 5.0
_IS_LOG = np.array([name.startswith("log_") for name in NAMES])


def _class_matrix() -> Floats:
    matrix = np.zeros((256, len(_CLASSES)), np.float32)
    for column, (_, members) in enumerate(_CLASSES):
        matrix[list(members), column] = 1
    return matrix


def _only(members: bytes) -> bytes:
    """Return the translation that leaves these bytes and makes spaces of all others."""
    return bytes(byte if byte in members else 0x20 for byte in range(256))


_CLASS_OF_BYTE = _class_matrix()
_ONLY_DIGITS = _only(b"0123456789")
_ONLY_WORDS = _only(bytes(range(65, 91)) + bytes(range(97, 123)) + bytes(range(128, 256)))


def surface_counts(texts: Sequence[str]) -> Floats:
    """Count.

    Parameters
    ----------
    texts : sequence of n str
        Already clipped (:func:`router.features.clip`).

    Returns
    -------
    ndarray of shape (n, N_SURFACE), float32
        Columns as in :data:`NAMES`; all finite, all 0 for an empty text.
    """
    # Once for all rows: a numpy call costs more than its sums on so few numbers.
    rows = np.array([_count(text.encode("utf-8", "replace")) for text in texts], np.float32)
    rows = rows.reshape(len(texts), N_SURFACE)
    np.log1p(rows, out=rows, where=_IS_LOG)
    return rows


def _count(data: bytes) -> tuple[float, ...]:
    """Return the counts of one text; the logarithms are taken by the caller."""
    n = len(data)
    if not n:
        return _NOTHING
    per_class = (np.bincount(np.frombuffer(data, np.uint8), minlength=256) @ _CLASS_OF_BYTE).tolist()
    digits = [len(run) for run in data.translate(_ONLY_DIGITS).split()] if per_class[0] else []
    first = _FIRST_NUMBER.search(data) if digits else None
    first_number = int(first[0]) if first else 0
    words = [len(run) for run in data.translate(_ONLY_WORDS).split()]
    lower = data.lower()
    n_words, n_distinct = len(words), len(set(lower.split()))
    lines = data.split(b"\n")
    heads = [line[:1] for line in lines]
    marks = {line[:2] for line in lines}
    return (
        n,
        *per_class,
        *[count / n for count in per_class],
        len({_OPTION_OF_MARK[mark] for mark in marks if mark in _OPTION_OF_MARK}),
        len(digits),
        sum(digits) / len(digits) if digits else 0.0,
        min(max(digits, default=0), _MOST_DIGITS),
        first_number if first_number <= _LARGEST_FIRST_NUMBER else 0,
        n_words,
        sum(words) / n_words if n_words else 0.0,
        max(words, default=0),
        n_distinct,
        n_distinct / max(n_words, 1),
        len(lines),
        sum([head.isdigit() for head in heads]),
        sum([head in _BULLETS for head in heads]),
        max(map(len, lines)),
        len(lines[-1]),
        *map(lower.count, _PHRASES),
    )


_NOTHING = (0.0,) * N_SURFACE
