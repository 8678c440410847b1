"""A slice of the stream fuzzer (``make fuzz`` runs all of it), and proof that its judges see what is wrong."""

from __future__ import annotations

import asyncio
import importlib.util
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from router.pricing import Usage
from serving.dialects.answer import Answer, Finished
from serving.dialects.conversation import Reasoning, Text, ToolCall


def load() -> ModuleType:
    name = "fuzz_streams"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("streams.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


streams = load()
N_CASES = 3_000
SEED = 20_261_125


def test_every_stream_ends_once_and_says_what_it_should() -> None:
    ended = asyncio.run(streams.run(SEED, range(N_CASES), is_loud=True))
    assert ended["clean"] + ended["error"] + ended["refused"] == N_CASES
    # All of it is tried: every client over every dialect, every way to spoil, every end.
    assert sum(" over " in name for name in ended) == 16
    assert all(ended[spoil.__name__] for spoil in (*streams.GENTLE, *streams.HARSH, *streams.FRAMES))
    assert min(ended["clean"], ended["error"], ended["refused"]) > N_CASES / 50


def case_of(client: str, upstream: str) -> object:
    """An unspoilt answer with words, thoughts and a call."""
    parts = (Reasoning("Hm."), Text("Hello there."), ToolCall("call_1", "weather", '{"city":"Oslo"}'))
    answer = Answer(parts, Finished("tool_calls"), Usage(7, 2))
    if client == "completions":
        answer = Answer(parts[:2], Finished("stop"), Usage(7, 2))
    events = streams.told_by_us(answer, upstream, random.Random(1))
    stream = streams.Stream(events, upstream, client)
    return streams.Case(client, upstream, answer, stream, [stream.bytes()], wants_usage=True)


def whole(client: str, upstream: str) -> bytes:
    """What a client gets of it."""
    told, is_stream = asyncio.run(streams.given(case_of(client, upstream)))
    assert is_stream
    return told


def pieces(told: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in told.split(b"\n\n")[:-1]]


PLANTED: dict[str, Callable[[bytes], bytes]] = {
    "last event gone": lambda told: b"".join(pieces(told)[:-1]),
    "last two events gone": lambda told: b"".join(pieces(told)[:-2]),
    "first event gone": lambda told: b"".join(pieces(told)[1:]),
    "first event twice": lambda told: pieces(told)[0] + told,
    "second event gone": lambda told: b"".join(pieces(told)[:1] + pieces(told)[2:]),
    "last event twice": lambda told: told + pieces(told)[-1],
    "blank line at the end gone": lambda told: told[:-1],
    "cut": lambda told: told[: len(told) // 2],
    "no JSON": lambda told: told.replace(b"}\n\n", b"\n\n", 1),
}


#: Chunks of words are all alike: what is gone shows in the words, not in the grammar.
ALIKE = {"chat": ("second event gone",), "completions": ("first event gone", "first event twice", "second event gone")}


@pytest.mark.parametrize("client", ["chat", "responses", "messages", "completions"])
def test_the_judges_find_what_is_planted(client: str) -> None:
    told = whole(client, "gemini")
    judge = streams.GRAMMARS[client]
    assert judge(told, True).end in ("stop", "tool_calls", "length", "filtered", "content_filter")
    for what, plant in PLANTED.items():
        if what in ALIKE.get(client, ()):
            continue
        with pytest.raises((streams.Violation, AssertionError, KeyError)):
            judge(plant(told), True)
            pytest.fail(f"nobody saw: {what}")


def test_words_that_are_lost_or_doubled_are_found() -> None:
    case = case_of("chat", "gemini")
    truth = streams.truth_of(case.answer, "chat")
    streams.compare(truth, truth, case)
    for name, wrong in (("text", "Hello there.x"), ("refusal", "x"), ("thoughts", ""), ("calls", []), ("end", "stop")):
        with pytest.raises(streams.Violation):
            streams.compare(replace(truth, **{name: wrong}), truth, case)


@pytest.mark.parametrize("dialect", ["chat", "responses", "messages"])
def test_bytes_changed_on_the_way_through_are_found(dialect: str) -> None:
    case = case_of(dialect, dialect)
    told = whole(dialect, dialect)
    assert streams.passed(told, case) == "clean"
    for wrong in (told.replace(b'"m-1"', b'"m-2"'), b"".join(pieces(told)[:-3]), told + pieces(told)[0]):
        with pytest.raises(streams.Violation):
            streams.passed(wrong, case)


@pytest.mark.parametrize("client", ["chat", "responses", "messages", "completions"])
def test_what_came_before_a_broken_event_arrives_though_it_came_in_one_piece(client: str) -> None:
    case = case_of(client, "gemini")
    case.chunks = [b"".join(pieces(case.stream.bytes())[:-1]) + b"data: {broken\n\n"]
    told, is_stream = asyncio.run(streams.given(case))
    assert is_stream
    seen = streams.GRAMMARS[client](told, True)
    assert seen.end == "error"
    assert case.chunks[0].count(b'"text":"') > 2
    assert b"upstream_broken" in pieces(told)[-1]
    assert len(pieces(told)) > 3


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
def test_the_last_event_counts_whatever_its_line_ends(upstream: str, end: bytes) -> None:
    case = case_of("chat" if upstream != "chat" else "messages", upstream)
    case.chunks = [case.stream.bytes().replace(b"\n", end)]
    assert asyncio.run(streams.try_case(case)) == "clean"
