from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from router.canonical import canonical
from router.pieces import DIGITS, LETTERS, LINES, MARK, pieces_of


def kinds(text):
    return pieces_of(text).kinds.tolist()


def test_runs_of_one_kind_are_one_piece_and_marks_stand_alone():
    assert kinds("Add 17,\n\n((x") == [LETTERS, DIGITS, MARK, LINES, MARK, MARK, LETTERS]
    assert pieces_of("Add 17,\n\n((x").lengths.tolist() == [3, 2, 1, 2, 1, 1, 1]


def test_a_piece_hashes_alike_wherever_it_stands():
    first, *_, last = pieces_of("alpha and then some alpha").hashes
    assert first == last


def test_case_and_digits_do_not_matter_but_length_does():
    assert pieces_of("Add 17").hashes.tolist() == pieces_of("aDD 90").hashes.tolist()
    assert pieces_of("17").hashes != pieces_of("170").hashes


def test_no_two_words_of_a_long_list_share_a_hash():
    words = [f"{a}{b}{c}" for a in "bcdfghjklmnpqrstvwxyz" for b in "aeiou" for c in "bcdfghjklmnpqrstvwxyz"]
    assert len(set(pieces_of(" ".join(words[:1_500])).hashes.tolist())) == 1_500


def test_nothing_has_no_pieces():
    assert kinds("") == kinds(" \t ") == []


@given(st.text(alphabet=st.sampled_from("aBz09 \n\t.,(é€\U0001f600"), max_size=60))
def test_pieces_are_those_of_the_plain_rule(text):
    rule = re.compile(rb"[A-Za-z\x80-\xff]+|[0-9]+|\n+|[^\sA-Za-z0-9\x80-\xff]")
    found = pieces_of(text)
    plain = rule.findall(canonical(text).encode())
    assert found.lengths.tolist() == [len(piece) for piece in plain]
    hash_of = {}
    for piece, value in zip(plain, found.hashes.tolist(), strict=True):
        said = re.sub(rb"[0-9]", b"0", piece.lower())
        assert hash_of.setdefault(said, value) == value
