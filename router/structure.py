"""Counts on how a prompt is built: its options, its question, its numbers, its code.

What a multiple-choice question offers, whether it asks "which is not", how many quantities a sum has: that much of the
difficulty is in the form. English marks are looked for by plain counts on bytes, so another language simply has fewer.
Not scaled here. Entry point: :func:`structure_of`.
"""

from __future__ import annotations

import numpy as np

from router.pieces import LETTERS, Pieces

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
_IS_SPACE = np.isin(np.arange(256), list(b" \t\n\r\v\f"))
_INDENTS = (b"\n            ", b"\n        ", b"\n    ")


def structure_of(pieces: Pieces, lines: list[bytes]) -> tuple[float, ...]:
    """Count.

    Parameters
    ----------
    pieces : Pieces
    lines : list of bytes
        The text's lines.

    Returns
    -------
    tuple of float
        In the order of :data:`NAMES`; all finite. Those named ``log_`` are raw sizes whose logarithm the caller takes.
    """
    data = pieces.data
    lower = data.lower()
    first = next((i for i, line in enumerate(lines) if line[:2] in OPTION_OF_MARK), len(lines))
    stem = lower[: sum(map(len, lines[:first])) + first] if first < len(lines) else lower
    words = pieces.lengths[pieces.kinds == LETTERS]
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
        int((words >= _LONG_WORD).sum()) / n_words,
        int((words <= _SHORT_WORD).sum()) / n_words,
        next((3 - i for i, indent in enumerate(_INDENTS) if indent in data), 0),
        *[lower.count(mark) for _, mark in _IN_TEXT],
        *[stem.count(mark) for _, mark in _IN_STEM],
    )


def _n_capitalised(data: bytes) -> int:
    """Count the words that begin with a capital, without making an object of every word."""
    codes = np.frombuffer(data, np.uint8)
    is_capital = codes - np.uint8(ord("A")) < 26  # wraps around below A
    return int(np.count_nonzero(is_capital[1:] & _IS_SPACE[codes[:-1]])) + bool(is_capital[:1].any())


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
