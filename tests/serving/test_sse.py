from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import UpstreamBroken
from serving.sse import EventSplitter, data_of

EVENTS = (b"data: a\n\n", b": keep-alive\r\n\r\n", b"event: x\ndata: b\ndata: c\r\n\n", b"data:\xc3\xa9\r\r")
STREAM = b"".join(EVENTS) + b"data: [DONE]"


def _split(chunks: list[bytes], splitter: EventSplitter | None = None) -> tuple[list[bytes], bytes]:
    splitter = splitter or EventSplitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.rest()


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_events_are_the_same_at_every_cut(cut: int) -> None:
    assert _split([STREAM[:cut], STREAM[cut:]]) == (list(EVENTS), b"data: [DONE]")


def test_events_are_the_same_byte_by_byte() -> None:
    assert _split([STREAM[i : i + 1] for i in range(len(STREAM))]) == (list(EVENTS), b"data: [DONE]")


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b":", b"\n\n"])), st.data())
def test_any_cuts_give_the_events_of_the_whole_and_lose_no_byte(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    events, rest = _split(chunks)
    assert b"".join(events) + rest == stream
    assert (events, rest) == _split([stream])


def test_an_event_in_many_pieces_is_joined_once() -> None:
    """What is copied grows with what arrives, not with its square: a piece is kept as it came until its event ends."""
    splitter = EventSplitter()
    pieces = [b"data: " + b"x" * 1_000, *(b"%06d" % i * 200 for i in range(500))]
    for piece in pieces:
        assert splitter.feed(piece) == []
    assert all(kept is piece for kept, piece in zip(splitter._parts, pieces, strict=True))
    assert splitter.rest() == b"".join(pieces)
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\ndata: y") == [b"".join(pieces) + b"\n\n"]
    assert splitter.rest() == b"data: y"


def test_a_lone_carriage_return_waits_for_its_other_half() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: x\r\n\r") == []
    assert splitter.feed(b"\ndata: y") == [b"data: x\r\n\r\n"]


def test_an_event_over_the_cap_is_refused_finished_or_not() -> None:
    with pytest.raises(UpstreamBroken):
        EventSplitter(max_event_bytes=10).feed(b"data: 0123456789\n\n")
    with pytest.raises(UpstreamBroken):
        EventSplitter(max_event_bytes=10).feed(b"data: 0123456789")
    with pytest.raises(UpstreamBroken):
        _split([b"data: 0"] * 2, EventSplitter(max_event_bytes=10))
    with pytest.raises(UpstreamBroken):
        _split([b"data: 0123", b"4\n\n"], EventSplitter(max_event_bytes=11))
    splitter = EventSplitter(max_event_bytes=10)
    assert len(splitter.feed(b"data: 01\n\ndata: 01\n\n")) == 2


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data: [DONE]", b"[DONE]"),
        (b"data:x\n\n", b"x"),
        (b"data:  x\r\n\r\n", b" x"),
        (b"event: e\r\ndata: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b"data\n\n", b""),
        (b"data: a\n: note\n\n", b"a"),
        (b": keep-alive\n\n", None),
        (b"event: ping\n\n", None),
        (b"dataset: x\n\n", None),
        (b"\n\n", None),
    ],
)
def test_data_lines_are_joined_and_nothing_else_is_data(event: bytes, data: bytes | None) -> None:
    assert data_of(event) == data
