from __future__ import annotations

import numpy as np
import pytest

from router.pieces import pieces_of
from router.structure import NAMES, structure_of
from router.tally import tally_of

QUESTION = """Dr. Adams measured 3 rods. Which of the following is NOT a metal?
A. Iron
B. 12 kg
C. Sulphur, a powder
D. All of the above"""


def counts(text: str) -> dict[str, float]:
    pieces = pieces_of(text)
    return dict(zip(NAMES, structure_of(pieces, pieces.data.split(b"\n"), tally_of(pieces.data)), strict=True))


def test_options_are_told_from_the_stem():
    found = counts(QUESTION)
    assert found["log_stem_bytes"] == QUESTION.index("A. Iron")
    assert found["log_option_bytes"] == len("Iron") + len("12 kg") + len("Sulphur, a powder") + len("All of the above")
    assert found["log_longest_option"] == len("Sulphur, a powder")
    assert found["share_numeric_options"] == found["share_one_word_options"] == found["share_comma_options"] == 0.25
    assert found["above_options"] == 1


def test_the_form_of_the_question_is_seen():
    found = counts(QUESTION)
    assert found["ends_with_question"] and not found["ends_open"]
    assert found["log_stem_which"] == found["log_stem_not"] == found["log_stem_following"] == 1
    assert counts("The capital of France is")["ends_open"]


def test_code_is_seen():
    found = counts("def f(a):\n    for x in a:\n        if x > 1:\n            return x\nassert f([1]) == 2")
    assert found["log_deepest_indent"] == 3
    assert found["log_text_return"] == found["log_text_for"] == found["log_text_assert"] == 1


@pytest.mark.parametrize("text", ["", "\n", "A.", "A.\nB.\nC.", "(A)", "\x00", "數學題", " " * 9000])
def test_any_text_gives_finite_numbers(text):
    assert np.isfinite(list(counts(text).values())).all()
