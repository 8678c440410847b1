"""Counts on the surface of a text: how long, how many numbers, options, lines, code marks.

They say much about difficulty that words do not, cost microseconds, and both encoder tiers append them. Everything is
counted on bytes with numpy; there is no per-character Python. Not scaled here: an encoder stores mean and scale.
Entry point: :func:`surface_counts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
# How a line that gives an option of a multiple-choice question begins.
_OPTION_MARKS = tuple(
    tuple(form.format(letter).encode() for form in ("{}.", "{})", "({}", "{}:")) for letter in _OPTION_LETTERS
)
_PHRASES: tuple[bytes, ...] = (
    b"how many", b"which", b"what", b"why", b"find", b"not ", b"each", b"prove", b"def ", b"return", b"percent",
    b"if ", b"true", b"following", b"except", b"all ", b"most", b"answer:", b"\nq:", b"step", b"\\frac", b"```",
    b"\n    ",
)  # fmt: skip
_FIRST_NUMBER = re.compile(rb"[0-9]{1,9}")
_LARGEST_FIRST_NUMBER = 20
_MOST_DIGITS = 12
_NEWLINE = 10

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
_N_CLASSES = len(_CLASSES)
_IS_LOG = np.array([name.startswith("log_") for name in NAMES])


def _class_matrix() -> Floats:
    matrix = np.zeros((256, len(_CLASSES)), np.float32)
    for column, (_, members) in enumerate(_CLASSES):
        matrix[list(members), column] = 1
    return matrix


_CLASS_OF_BYTE = _class_matrix()
_IS_DIGIT = _CLASS_OF_BYTE[:, 0] > 0
_IS_BULLET = np.array([chr(code) in "-*+" for code in range(256)])
_IS_WORD: NDArray[np.bool_] = _CLASS_OF_BYTE[:, [1, 2, 11]].sum(axis=1) > 0


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
    rows = np.zeros((len(texts), N_SURFACE), np.float32)
    for row, text in zip(rows, texts, strict=True):
        data = text.encode("utf-8", "replace")
        if data:
            _count(data, row)
    # Once for all rows: a numpy call costs more than its sums on so few numbers.
    np.log1p(rows, out=rows, where=_IS_LOG)
    return rows


def _count(data: bytes, row: Floats) -> None:
    """Write the counts of one text into its row; the logarithms are taken by the caller."""
    # Framed by line ends, so that every line has one before it and every run an end.
    codes = np.frombuffer(b"\n" + data + b"\n", np.uint8)
    n = len(data)
    per_class = np.bincount(codes[1:-1], minlength=256) @ _CLASS_OF_BYTE
    row[0] = n
    row[1 : 1 + _N_CLASSES] = per_class
    row[1 + _N_CLASSES : 1 + 2 * _N_CLASSES] = per_class / n

    digits = _run_lengths(_IS_DIGIT[codes])
    first = _FIRST_NUMBER.search(data) if len(digits) else None
    first_number = int(first[0]) if first else 0
    words = _run_lengths(_IS_WORD[codes])
    lower = data.lower()
    n_words, n_distinct = len(words), len(set(lower.split()))
    ends = np.flatnonzero(codes == _NEWLINE)
    lines = np.diff(ends) - 1
    heads = codes[ends[:-1] + 1]
    marks = {data[end : end + 2] for end in ends[:-1].tolist()}
    row[1 + 2 * _N_CLASSES :] = (
        sum([not marks.isdisjoint(forms) for forms in _OPTION_MARKS]),
        len(digits),
        digits.mean().item() if len(digits) else 0.0,
        min(digits.max(initial=0).item(), _MOST_DIGITS),
        first_number if first_number <= _LARGEST_FIRST_NUMBER else 0,
        n_words,
        words.mean().item() if n_words else 0.0,
        words.max(initial=0).item(),
        n_distinct,
        n_distinct / max(n_words, 1),
        len(lines),
        np.count_nonzero(_IS_DIGIT[heads]),
        np.count_nonzero(_IS_BULLET[heads]),
        lines.max().item(),
        lines[-1].item(),
        *map(lower.count, _PHRASES),
    )


def _run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the lengths of the runs of True in a mask that begins and ends with False."""
    edges = np.flatnonzero(mask[1:] != mask[:-1])
    return edges[1::2] - edges[::2]
