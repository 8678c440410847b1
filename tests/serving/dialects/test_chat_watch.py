"""Streams of Chat that pass through."""

from __future__ import annotations

import pytest

from router.pricing import Usage
from serving.dialects.chat.answer import usage_of
from serving.dialects.chat.watch import ChatStream


def test_usage_is_read_with_its_parts() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 40},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert usage_of({"usage": usage}) == Usage(100, 20, 30, 40, 5)


@pytest.mark.parametrize("usage", [None, "x", {}, {"prompt_tokens": None, "completion_tokens": -1}])
def test_usage_that_is_absent_is_unknown_not_zero(usage: object) -> None:
    assert usage_of({"usage": usage}) == Usage()


def event(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


CONTENT = event('{"choices":[{"index":0,"delta":{"content":"\\"usage\\": {\\"error\\": {"},"finish_reason":null}]}')
FINISH = event('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}')
USAGE = event('{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}')
DONE = event("[DONE]")


@pytest.mark.parametrize("keeps_usage", [True, False])
def test_the_usage_chunk_reaches_only_clients_that_asked(keeps_usage: bool) -> None:
    watch = ChatStream(keeps_usage=keeps_usage)
    passed = [event for event in (CONTENT, FINISH, USAGE, DONE) if watch.pass_on(event)]
    assert passed == [CONTENT, FINISH, *([USAGE] if keeps_usage else []), DONE]
    assert watch.usage == Usage(3, 4)
    assert (watch.is_done, watch.is_finished, watch.is_failed) == (True, True, False)


def test_usage_on_a_content_chunk_is_kept_in_any_case() -> None:
    last = event(
        '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    )
    watch = ChatStream(keeps_usage=False)
    assert watch.pass_on(last)
    assert watch.usage == Usage(1, 2)
    assert watch.is_finished


def test_nothing_follows_the_end_of_a_stream() -> None:
    watch = ChatStream(keeps_usage=True)
    assert watch.pass_on(DONE)
    assert not watch.pass_on(CONTENT)
    failed = ChatStream(keeps_usage=True)
    assert failed.pass_on(event('{"error":{"message":"overloaded"}}'))
    assert failed.is_failed
    assert not failed.pass_on(DONE)
    assert not failed.is_done


@pytest.mark.parametrize("keeps_usage", [True, False])
@pytest.mark.parametrize("choices", ["", '"choices":[],', '"choices":null,'])
def test_an_error_that_carries_usage_is_an_error_and_is_told(keeps_usage: bool, choices: str) -> None:
    watch = ChatStream(keeps_usage=keeps_usage)
    told = event(f'{{{choices}"usage":{{"prompt_tokens":3,"completion_tokens":4}},"error":{{"message":"overloaded"}}}}')
    assert watch.pass_on(told)
    assert (watch.is_failed, watch.is_done, watch.usage) == (True, False, Usage(3, 4))
    assert not watch.pass_on(DONE)


def test_only_a_chunk_that_says_it_has_no_choices_is_taken_out() -> None:
    usage = '"usage":{"prompt_tokens":3,"completion_tokens":4}'
    for text, is_told in (
        (f'{{"choices":[],"error":null,{usage}}}', False),
        (f"{{{usage}}}", True),
        (f'{{"choices":null,{usage}}}', True),
    ):
        watch = ChatStream(keeps_usage=False)
        assert watch.pass_on(event(text)) is is_told
        assert (watch.is_failed, watch.usage) == (False, Usage(3, 4))


def test_an_error_of_null_is_no_error() -> None:
    watch = ChatStream(keeps_usage=True)
    assert watch.pass_on(event('{"choices":[],"error":null}'))
    assert not watch.is_failed


def test_every_choice_must_finish() -> None:
    watch = ChatStream(keeps_usage=True, n_choices=2)
    watch.pass_on(FINISH)
    assert not watch.is_finished
    watch.pass_on(FINISH)
    assert watch.is_finished


@pytest.mark.parametrize(
    ("before", "rest", "told"),
    [
        ([FINISH], b"data: [DONE]", DONE),
        ([FINISH], b"data: [DONE]\n", DONE),
        ([FINISH], b"", DONE),
        ([CONTENT], FINISH.rstrip(), FINISH + DONE),
        ([CONTENT], b"", b""),
        ([CONTENT], b'data: {"choices":[{"ind', b""),
        ([FINISH], b'data: {"choices":[{"ind', DONE),
    ],
    ids=["no blank line", "half a blank line", "no [DONE]", "finish at the end", "nothing", "cut", "cut after finish"],
)
def test_the_end_of_a_stream_is_completed_only_when_the_answer_is(
    before: list[bytes], rest: bytes, told: bytes
) -> None:
    watch = ChatStream(keeps_usage=True)
    for seen in before:
        watch.pass_on(seen)
    assert watch.pass_on_rest(rest) == told
    assert watch.is_done == told.endswith(DONE)
