"""How deep and how long a request may be."""

from __future__ import annotations

import time

import orjson
import pytest

from serving.errors import InvalidRequest
from serving.fields import MAX_DEPTH, MAX_ITEMS, request_of

HELLO = {"role": "user", "content": "Say hello."}


def nested(n_levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Return a body that is so many levels deep in all, its own object included."""
    return b'{"a":' + opening * (n_levels - 1) + closing * (n_levels - 1) + b"}"


def test_so_deep_and_no_deeper() -> None:
    request_of(nested(MAX_DEPTH))
    with pytest.raises(InvalidRequest, match=f"more than {MAX_DEPTH} levels") as caught:
        request_of(nested(MAX_DEPTH + 1))
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_objects_count_as_lists_do() -> None:
    deep = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    request_of(deep)
    with pytest.raises(InvalidRequest):
        request_of(b'{"a":' + deep + b"}")


def test_brackets_in_words_are_words() -> None:
    assert request_of(orjson.dumps({"prompt": "[{" * 10_000}))


def test_many_beside_each_other_are_not_deep() -> None:
    assert request_of(orjson.dumps({"a": [[[]]] * 10_000}))


@pytest.mark.parametrize("body", [nested(100_000), b"[" * 100_000, nested(1_000)])
def test_absurd_depth_is_refused_without_an_accident(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_of(body)


@pytest.mark.parametrize("field", ["messages", "input"])
def test_so_many_items_and_no_more(field: str) -> None:
    request_of(orjson.dumps({field: [HELLO] * MAX_ITEMS}))
    with pytest.raises(
        InvalidRequest, match=f"{field} may hold at most {MAX_ITEMS} items, got {MAX_ITEMS + 1}"
    ) as caught:
        request_of(orjson.dumps({field: [HELLO] * (MAX_ITEMS + 1)}))
    assert caught.value.param == field


@pytest.mark.parametrize("at", [0, 1, MAX_ITEMS])
def test_items_are_counted_wherever_the_first_object_stands(at: int) -> None:
    items: list[object] = ["word"] * (MAX_ITEMS + 1)
    items[at] = HELLO
    with pytest.raises(InvalidRequest, match=f"at most {MAX_ITEMS} items"):
        request_of(orjson.dumps({"input": items}))


@pytest.mark.parametrize("text", [list(range(8_000)), ["word"] * 3_000])
def test_text_to_embed_is_no_conversation(text: list[object]) -> None:
    assert request_of(orjson.dumps({"input": text}))


def test_what_is_hostile_costs_no_more_than_reading_it() -> None:
    body = orjson.dumps({"a": [[[[]]]] * 50_000})
    began_at = time.process_time()
    orjson.loads(body)
    reading_s = time.process_time() - began_at
    began_at = time.process_time()
    request_of(body)
    assert time.process_time() - began_at < 10 * reading_s + 0.1


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        ("/v1/chat/completions", {"messages": [HELLO] * (MAX_ITEMS + 1)}, "messages"),
        ("/v1/responses", {"input": [HELLO] * (MAX_ITEMS + 1)}, "input"),
        ("/v1/messages", {"max_tokens": 1, "messages": [HELLO] * (MAX_ITEMS + 1)}, None),
        ("/v1/messages/count_tokens", {"messages": [HELLO] * (MAX_ITEMS + 1)}, None),
        ("/v1/route", {"messages": [HELLO] * (MAX_ITEMS + 1)}, "messages"),
    ],
)
async def test_every_api_has_the_limit(running, path, asked, param) -> None:
    response = await running.client.post(path, json={"model": "auto", **asked})
    assert response.status_code == 400
    assert f"at most {MAX_ITEMS} items" in response.json()["error"]["message"]
    assert response.json()["error"].get("param") == param
    assert running.provider.counts()["n_requests"] == 0
