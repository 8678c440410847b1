"""Prompts that are the same, or nearly."""

from __future__ import annotations

import numpy as np

from training.duplicates import near_pairs, normal, overlap

STORY = (
    "a merchant in the harbour town buys {} barrels of oil at noon and sells half of them before the bell rings "
    "then he walks home along the wall and counts what is left in his purse how many barrels does he still own"
)


def test_wrapping_case_and_spaces_make_no_difference():
    assert normal("What is  17 * 23?\r\n") == normal('{"question": "what is 17 * 23?"}') == "what is 17 * 23?"
    assert normal("What is 17 * 23?") != normal("What is 17 * 24?")


def test_a_polite_word_is_nearly_the_same_and_another_question_is_not():
    texts = [STORY.format(9), "please " + STORY.format(9) + " thank you", STORY.format(9).replace("merchant", "widow")]
    texts += ["how many days are there in a leap year", "sort the words pear apple fig by their last letter"]
    pairs = {tuple(pair) for pair in near_pairs(texts).tolist()}
    assert (0, 1) in pairs
    assert all(max(pair) < 3 for pair in pairs)


def test_what_many_prompts_begin_with_says_nothing_of_them():
    shots = "question one two three four five answer six seven eight nine ten think step by step before you say it " * 5
    texts = [f"{shots} now: {first} {second} {third}" for first in "abcdef" for second in "uvwxyz" for third in "12"]
    assert not len(near_pairs(texts))


def test_alike_in_chains_are_connected():
    texts = [STORY.format(1) + " very" * k for k in range(5)]
    pairs = near_pairs(texts).tolist()
    joined = {0}
    for _ in texts:
        joined |= {b for pair in pairs for b in pair if joined & set(pair)}
    assert joined == set(range(5))


def test_nothing_is_found_in_one_text_or_none():
    assert near_pairs([]).shape == near_pairs(["a"]).shape == (0, 2)


def test_overlap_counts_prompts_on_both_sides():
    texts = ["What is 2 + 2?", "what is 2 +  2?", STORY.format(3), "Oh, " + STORY.format(3), "Name a river in Spain."]
    found = overlap(texts, np.array([True, False, True, False, True]))
    assert (found.n_holdout, found.n_same, found.n_near) == (3, 1, 1)
    assert overlap(texts, np.array([True, True, True, True, False])).n_same == 0
