"""One question, many wrappings, one canonical text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.canonical import canonical

QUESTION = "Which gas is noble?\nA. Argon\nB. Oxygen\nC. Both of A and B\n\nAnswer with one letter."


@pytest.mark.parametrize(
    "wrapped",
    [
        QUESTION.replace("\n", "\r\n"),
        QUESTION.replace("\n", "  \n") + "   ",
        QUESTION.replace(" ", "  "),
        "\ufeff" + QUESTION,
        "> " + QUESTION.replace("\n", "\n> "),
        json.dumps({"question": QUESTION}),
        json.dumps({"id": 7, "question": QUESTION, "note": None}),
        json.dumps(QUESTION),
        *(
            QUESTION.replace("A. ", mark.format("A")).replace("B. ", mark.format("B")).replace("C. ", mark.format("C"))
            for mark in ("({}) ", "{}) ", "{}: ", "[{}] ", "- {}. ", "**{}.** ", "  {}.  ")
        ),
        QUESTION.replace("A. ", "a) ").replace("B. ", "b) ").replace("C. ", "c) "),
    ],
)
def test_a_wrapped_question_is_the_same_question(wrapped):
    assert canonical(wrapped) == QUESTION


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        "def f(x):\n    if x:\n        return # nothing\n",
        "A. Smith wrote this.",  # one mark is no list of options
        "C. one\nD. two",  # nor are marks that do not begin at A
        "> quoted\nand an answer to it",
        '{"rows": [1, 2]}',  # data, not a wrapped question
        '{"broken":',
        '"Yes", she said, "or no"',
        "{1: 2}",
        "",
    ],
)
def test_what_is_no_wrapping_stays(text):
    assert canonical(text) == text


@given(st.text(alphabet=st.sampled_from('ABab.():>*-_ \t\n\r"{}[]xé\ufeff,1'), max_size=60))
def test_line_ends_and_spaces_never_matter(text):
    once = canonical(text)
    assert "\r" not in once and " \n" not in once
    assert canonical(once + "  ") == canonical(once)


def test_hostile_text_takes_no_longer_than_its_length_allows():
    started = time.process_time()
    for text in (" " * 8000, "> " * 4000, "A. " * 2600, "{" * 8000 + "}", "\t \n" * 2600, "(" * 8000, '"' * 8000):
        canonical(text)
    assert time.process_time() - started < 2  # all are linear: milliseconds; a quadratic one takes minutes
