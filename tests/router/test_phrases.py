from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.phrases import Phrases
from router.pieces import pieces_of
from router.structure import _IN_STEM, _IN_TEXT, NAMES, structure_of
from router.tally import CLASSES, PLACE_OF, by_class, tally_of

PHRASES = (b" not ", b"not a", b"what ", b"\n    for ", b"\n2. ", b"aaaa")
BITS = ("not ", " not", "what ", "wha", "\n    for ", "\n2. ", "\n7. ", "aaa", "a", " ", "\n", "NOT A", "é", "日", ",")
made = st.lists(st.sampled_from(BITS), max_size=40).map("".join)


def counts(text: str, ends: list[int] | None = None) -> tuple[bytes, list[int]]:
    pieces = pieces_of(text)
    lower = pieces.data.lower()
    return lower, Phrases(PHRASES).counts(lower, pieces.sums, ends or [len(lower)] * len(PHRASES))


@given(made)
def test_phrases_are_counted_as_bytes_count_them(text):
    lower, found = counts(text)
    assert found == [lower.count(phrase) for phrase in PHRASES]


@given(made, st.integers(0, 60))
def test_only_what_lies_before_the_end_counts(text, end):
    lower, found = counts(text, [end] * len(PHRASES))
    assert found == [lower[:end].count(phrase) for phrase in PHRASES]


def test_a_text_that_repeats_itself_is_counted_too():
    lower, found = counts("not a " * 900)
    assert found == [lower.count(phrase) for phrase in PHRASES]
    assert found[1] == 900


@given(st.lists(st.sampled_from([mark.decode() for _, mark in (*_IN_TEXT, *_IN_STEM)] + list("aA \n")), max_size=30))
def test_the_marks_of_structure_are_what_plain_searching_counts(bits):
    pieces = pieces_of("".join(bits))
    found = dict(zip(NAMES, structure_of(pieces, pieces.data.split(b"\n"), tally_of(pieces.data)), strict=True))
    lower = pieces.data.lower()
    assert {name: found[f"log_text_{name}"] for name, _ in _IN_TEXT} == {n: lower.count(m) for n, m in _IN_TEXT}
    stem = lower[: int(found["log_stem_bytes"])]
    assert {name: found[f"log_stem_{name}"] for name, _ in _IN_STEM} == {n: stem.count(m) for n, m in _IN_STEM}


@given(st.binary(max_size=80))
def test_a_tally_counts_bytes_and_their_classes(data):
    tally = tally_of(data)
    assert by_class(tally) == [sum(map(data.count, (bytes([b]) for b in members))) for _, members in CLASSES]
    assert all(tally[place] == data.count(byte) for byte, place in PLACE_OF.items())


def test_no_byte_is_in_two_classes():
    members = [byte for _, those in CLASSES for byte in those]
    assert len(members) == len(set(members))
