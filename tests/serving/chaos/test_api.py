"""What the suite makes of answers, without the gateway's own readers."""

from __future__ import annotations

import pytest

from serving.chaos.api import APIS, CHAT, MESSAGES, RESPONSES, Told, is_answer_to
from serving.chaos.question import is_start_of_one, pieces


def chat(text: str) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % text.encode()


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (chat("a") + chat("b") + b"data: [DONE]\n\n", Told("ab", "done")),
        (chat("a") + b'data: {"error":{"message":"x"}}\n\n', Told("a", "error")),
        (chat("a"), Told("a", "none")),
        (chat("a") + b": ping\n\n" + chat("b"), Told("ab", "none")),
        (b'data: {"error":{}}\n\ndata: [DONE]\n\n', Told("", "both")),
        (b"data: {half", Told("", "error")),
        (b"", Told("", "none")),
    ],
)
def test_a_chat_stream_is_read(stream, told):
    assert CHAT.told(stream) == told


def test_the_other_apis_end_in_their_own_ways():
    delta = b'data: {"type":"response.output_text.delta","delta":"a"}\n\n'
    done = b'data: {"type":"response.output_text.done","text":"a"}\n\ndata: {"type":"response.completed"}\n\n'
    assert RESPONSES.told(delta + done) == Told("a", "done")
    assert RESPONSES.told(delta + b'data: {"type":"response.failed"}\n\n') == Told("a", "error")
    word = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'
    assert MESSAGES.told(word + b'event: message_stop\ndata: {"type":"message_stop"}\n\n') == Told("a", "done")
    assert MESSAGES.told(word + b'event: error\ndata: {"type":"error","error":{}}\n\n') == Told("a", "error")


@pytest.mark.parametrize("api", APIS, ids=lambda api: api.name)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"output":[{}]}', b"{half"])
def test_what_is_no_answer_has_no_text(api, body):
    assert api.said(body) == ""


def test_an_answer_is_that_of_one_provider_to_this_question():
    models = ("alpha", "beta")
    assert is_answer_to("[emulated beta] 7 + 1 = 8", 7, models)
    assert not is_answer_to("[emulated beta] 7 + 1 = 8", 8, models)
    assert not is_answer_to("[emulated alpha] 7 + 1 = 8[emulated beta] 7 + 1 = 8", 7, models)


def test_a_text_told_twice_or_mixed_is_not_the_start_of_one():
    first, second = "".join(pieces("alpha", 3)), "".join(pieces("beta", 3))
    assert all(len(piece) == 4 for piece in pieces("alpha", 99))
    assert is_start_of_one(first, 24) and is_start_of_one("", 24)
    assert not is_start_of_one(first + first, 24)
    assert not is_start_of_one(first + second, 24)
