"""Counts on how a prompt is built: its options, its question, its numbers, its code.

What a multiple-choice question offers, whether it asks "which is not", how many quantities a sum has: that much of the
difficulty is in the form. English marks are looked for by plain counts on bytes, so another language simply has fewer.
Not scaled here. Entry point: :func:`structure_of`.
"""

from __future__ import annotations

import numpy as np

from router.phrases import GRAM, Phrases
from router.pieces import Pieces
from router.tally import PLACE_OF

_OPTION_LETTERS = "ABCDEFGHIJ"
# How a line that gives an option of a multiple-choice question begins, in canonical text: mark -> which option.
OPTION_OF_MARK = {f"{letter}.".encode(): letter for letter in _OPTION_LETTERS}
_MARK_BYTES = len("A. ")
_NUMERIC_START = frozenset(b"0123456789-+$.\\")

#: Looked for in the whole text, lower case.
_IN_TEXT: tuple[tuple[str, bytes], ...] = (
    ("return", b"return"),
    ("for", b"\n    for "),
    ("if", b" if "),
    ("while", b"while "),
    ("append", b".append("),
    ("import", b"import "),
    ("assert", b"assert"),
    ("subscript", b"["),
    ("method", b"()"),
    ("root", b"sqrt"),
    ("sum", b"\\sum"),
    ("power", b"^"),
    ("index", b"_{"),
    ("equals", b"="),
    ("degrees", b"circ"),
    ("percent", b"%"),
    ("dollar", b"$"),
    ("roman", b" ii"),
    ("clue", b"\n2. "),
    ("house", b"house"),
    ("code_span", b"`"),
)
#: Looked for in the question itself, before the options, lower case.
_IN_STEM: tuple[tuple[str, bytes], ...] = (
    ("what", b"what "),
    ("which", b"which "),
    ("how_many", b"how many"),
    ("how_much", b"how much"),
    ("why", b"why "),
    ("who", b"who "),
    ("find", b"find "),
    ("calculate", b"calculate"),
    ("determine", b"determine"),
    ("following", b"following"),
    ("not", b" not "),
    ("except", b"except"),
    ("true", b" true"),
    ("least", b"least"),
    ("most", b" most "),
    ("best", b" best "),
    ("each", b" each "),
    ("than", b" than "),
    ("suppose", b"suppose"),
    ("let", b"let "),
    ("assume", b"assum"),
    ("probability", b"probab"),
    ("integer", b"integer"),
    ("according", b"according to"),
    ("she", b" she "),
    ("blank", b"___"),
    ("quote", b'"'),
    ("comma", b","),
)
NAMES: tuple[str, ...] = (
    *("log_stem_bytes", "log_option_bytes", "log_longest_option", "log_shortest_option", "option_spread"),
    *("share_numeric_options", "share_one_word_options", "share_comma_options", "share_echoed_options"),
    *("above_options", "share_distinct_option_starts"),
    *("ends_with_question", "ends_with_stop", "ends_open", "log_sentences", "mean_sentence_bytes_100"),
    *("log_question_bytes", "log_names", "share_long_words", "share_short_words"),
    *("log_deepest_indent",),
    *(f"log_text_{name}" for name, _ in _IN_TEXT),
    *(f"log_stem_{name}" for name, _ in _IN_STEM),
)
_LONG_WORD, _SHORT_WORD = 9, 3
# Capitals as one letter, what separates words as one space, everything else as neither.
_CASE_OF = bytes(65 if 65 <= byte <= 90 else 32 if byte in b" \t\n\r\v\f" else 46 for byte in range(256))
_INDENTS = (b"\n            ", b"\n        ", b"\n    ")

_MARKS = (*_IN_TEXT, *_IN_STEM)
# How each is counted, with its place among them: single bytes by the tally, short ones by searching where the tally has
# their rarest byte, all others at once.
_SINGLE = [(i, mark, PLACE_OF[mark]) for i, (_, mark) in enumerate(_MARKS) if len(mark) == 1]
_SHORT = [
    (i, mark, next((PLACE_OF[mark[j : j + 1]] for j in range(len(mark)) if mark[j : j + 1] in PLACE_OF), None))
    for i, (_, mark) in enumerate(_MARKS)
    if 1 < len(mark) < GRAM
]
_LONG = [i for i, (_, mark) in enumerate(_MARKS) if len(mark) >= GRAM]
_PHRASES = Phrases([_MARKS[i][1] for i in _LONG])
_N_LONG_IN_TEXT = sum(i < len(_IN_TEXT) for i in _LONG)


def structure_of(pieces: Pieces, lines: list[bytes], tally: list[int]) -> tuple[float, ...]:
    """Count.

    Parameters
    ----------
    pieces : Pieces
    lines : list of bytes
        The text's lines.
    tally : list of int
        :func:`router.tally.tally_of` the text.

    Returns
    -------
    tuple of float
        In the order of :data:`NAMES`; all finite. Those named ``log_`` are raw sizes whose logarithm the caller takes.
    """
    data = pieces.data
    lower = data.lower()
    first = next((i for i, line in enumerate(lines) if line[:2] in OPTION_OF_MARK), len(lines))
    stem = lower[: sum(map(len, lines[:first])) + first] if first < len(lines) else lower
    words = pieces.word_lengths
    n_words = max(len(words), 1)
    text = stem.rstrip()
    end = text[-1:]
    n_sentences = text.count(b". ") + text.count(b"? ") + text.count(b"\n") + 1
    last = max(text.rfind(b". "), text.rfind(b"? "), text.rfind(b"\n"))
    return (
        len(stem),
        *_options([line[_MARK_BYTES:].strip() for line in lines[first:] if line[:2] in OPTION_OF_MARK], stem),
        end == b"?",
        end == b".",
        end.isalnum() or end in (b":", b","),
        n_sentences,
        len(text) / n_sentences / 100,
        len(text) - last - 1,
        _n_capitalised(data),
        int(np.count_nonzero(words >= _LONG_WORD)) / n_words,
        int(np.count_nonzero(words <= _SHORT_WORD)) / n_words,
        _deepest_indent(data),
        *_marks(pieces, lower, len(stem), tally),
    )


def _marks(pieces: Pieces, lower: bytes, n_stem: int, tally: list[int]) -> list[int]:
    """Count the marks in the text and those in the stem, its first ``n_stem`` bytes."""
    n_text = len(lower)
    counted = [0] * len(_MARKS)
    for i, mark, place in _SINGLE:
        is_whole = i < len(_IN_TEXT) or n_stem == n_text
        counted[i] = tally[place] if is_whole else lower.count(mark, 0, n_stem)
    for i, mark, gate in _SHORT:
        if gate is None or tally[gate]:
            counted[i] = lower.count(mark, 0, n_text if i < len(_IN_TEXT) else n_stem)
    ends = [n_text] * _N_LONG_IN_TEXT + [n_stem] * (len(_LONG) - _N_LONG_IN_TEXT)
    for i, n in zip(_LONG, _PHRASES.counts(lower, pieces.sums, ends), strict=True):
        counted[i] = n
    return counted


def _deepest_indent(data: bytes) -> int:
    """Return how deep the deepest indented line is, in steps of four spaces, 3 at most."""
    if _INDENTS[-1] not in data:
        return 0
    return next(len(_INDENTS) - i for i, indent in enumerate(_INDENTS) if indent in data)


def _n_capitalised(data: bytes) -> int:
    """Count the words that begin with a capital, without making an object of every word."""
    cases = data.translate(_CASE_OF)
    return cases.count(b" A") + (cases[:1] == b"A")


def _options(options: list[bytes], stem: bytes) -> tuple[float, ...]:
    """Return sizes and kinds of the options of a multiple-choice question; zeros where there are none."""
    n = len(options)
    if not n:
        return (0.0,) * 10
    sizes = [len(option) for option in options]
    mean = sum(sizes) / n
    spread = (sum([(size - mean) ** 2 for size in sizes]) / n) ** 0.5
    starts = [option[:6].lower() for option in options]
    return (
        sum(sizes),
        max(sizes),
        min(sizes),
        spread / (mean + 1),
        sum([option[:1] != b"" and option[0] in _NUMERIC_START for option in options]) / n,
        sum([b" " not in option for option in options]) / n,
        sum([b"," in option for option in options]) / n,
        sum([len(option) > _SHORT_WORD and option.lower() in stem for option in options]) / n,
        sum([start in (b"all of", b"none o", b"both a", b"neithe") for start in starts]),
        len(set(starts)) / n,
    )
