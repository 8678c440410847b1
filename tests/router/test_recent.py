from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from router import Router
from router.recent import Recent
from router.text import HEAD_CHARACTERS, TAIL_CHARACTERS

BUNDLE = Path(__file__).parents[2] / "models" / "default"


def counting() -> tuple[Recent[str], list[str]]:
    made: list[str] = []

    def make(text: str) -> str:
        made.append(text)
        return text.upper()

    return Recent(make, n_kept=2), made


def test_a_text_that_comes_again_is_not_computed_again():
    recent, made = counting()
    assert [recent.of("a"), recent.of("b"), recent.of("a")] == ["A", "B", "A"]
    assert made == ["a", "b"]


def test_the_one_used_longest_ago_gives_way():
    recent, made = counting()
    for text in "abaca":
        recent.of(text)
    assert made == ["a", "b", "c"]
    recent.of("b")
    assert made == ["a", "b", "c", "b"] and len(recent) == 2


def test_no_text_is_kept():
    recent = Recent(len)
    recent.of("a secret of somebody's")
    assert not any(b"secret" in key for key in recent._values)
    assert recent._values.keys().isdisjoint(Recent(len)._values)
    other = Recent(len)
    other.of("a secret of somebody's")
    assert recent._values.keys().isdisjoint(other._values), "the digest must be keyed"


def test_half_a_surrogate_pair_is_a_text_too():
    recent, made = counting()
    assert recent.of("\ud800") == recent.of("\ud800") == "\ud800"
    assert made == ["\ud800"]


def test_only_what_encoders_read_of_a_long_text_tells_texts_apart():
    recent, made = counting()
    head, tail = "h" * HEAD_CHARACTERS, "t" * TAIL_CHARACTERS
    recent.of(f"{head} one middle {tail}")
    recent.of(f"{head} and another {tail}")
    assert len(made) == 1


@pytest.fixture(scope="module")
def router():
    return Router.load(BUNDLE)


def test_a_decision_is_the_same_from_memory(router):
    first, again = router.route("Why is the sky blue?"), router.route("Why is the sky blue?")
    assert first == again and first.outlook == again.outlook


def test_what_is_kept_cannot_be_changed_from_outside(router):
    given = router.bundle.outputs(["Why is the sky blue?"])
    with pytest.raises(ValueError, match="read-only"):
        given["quality"][0, 0] = 0
    free = router.bundle.predict(["Why is the sky blue?"])
    free.quality[0, 0] = 0
    assert not np.array_equal(router.bundle.outputs(["Why is the sky blue?"])["quality"], free.quality)
