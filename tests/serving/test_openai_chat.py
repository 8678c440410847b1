from __future__ import annotations

import orjson
import pytest

from router import Constraints, Policy
from router.pricing import Usage
from serving import dials, fields
from serving.errors import InvalidRequest
from serving.openai_chat import ChatStream, parse, to_upstream, usage_of

MESSAGES = [{"role": "user", "content": "Say hello."}]
GOOD = {"model": "auto", "messages": MESSAGES}


def test_a_request_is_read_only_as_far_as_routing_needs() -> None:
    request = parse(
        {
            **GOOD,
            "stream": True,
            "n": 2,
            "max_tokens": 9,
            "max_completion_tokens": 7,
            "tools": [{"type": "function"}],
            "response_format": {"type": "json_schema"},
            "something_new": 1,
        }
    )
    assert request.prompt.text == "Say hello."
    shape = request.prompt.shape
    assert (shape.n_tools, shape.needs_json_schema, shape.max_output_tokens) == (1, True, 7)
    # 10 characters of text and the 21 of [{"type":"function"}].
    assert shape.n_characters == 10 + len('[{"type":"function"}]')
    assert (request.is_stream, request.wants_usage, request.n_choices) == (True, False, 2)


def test_what_a_provider_reads_and_writes_besides_the_messages_is_counted() -> None:
    schema = {"name": "city", "schema": {"type": "object"}}
    shape = parse({**GOOD, "n": 3, "response_format": {"type": "json_schema", "json_schema": schema}}).prompt.shape
    assert shape.n_characters == 10 + len('{"name":"city","schema":{"type":"object"}}')
    assert (shape.n_choices, shape.needs_json_schema) == (3, True)
    assert parse({**GOOD, "response_format": {"type": "json_object"}}).prompt.shape.n_characters == 10
    assert parse(GOOD).prompt.shape.n_choices == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [*MESSAGES, "hello"]}, "messages[1]"),
        ({"messages": [{"content": "no role"}]}, "messages[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": []}, "stream_options"),
        ({"tools": {}}, "tools"),
        ({"response_format": "json"}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"n": True}, "n"),
        ({"turnout": []}, "turnout"),
        ({"turnout": {"treshold": 1}}, "turnout"),
        ({"turnout": {"threshold": 1.01}}, "turnout.threshold"),
        ({"turnout": {"threshold": True}}, "turnout.threshold"),
        ({"turnout": {"willingness_to_pay_usd": -1}}, "turnout.willingness_to_pay_usd"),
        ({"turnout": {"max_cost_usd": "1"}}, "turnout.max_cost_usd"),
        ({"turnout": {"allow": "x"}}, "turnout.allow"),
        ({"turnout": {"deny": [1]}}, "turnout.deny"),
        ({"turnout": {"preset": ""}}, "turnout.preset"),
        ({"turnout": {"preset": "price", "threshold": 0.5}}, "turnout.preset"),
    ],
)
def test_bad_input_names_the_field_and_repeats_nobodys_words(change: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({**GOOD, **change})
    assert caught.value.param == param
    assert caught.value.status == 400
    assert "hello" not in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'"canary"'])
def test_a_body_that_is_no_json_object_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fields.document(body)
    assert caught.value.code == "invalid_json"
    assert "canary" not in caught.value.message


def test_dials_come_from_headers_too_and_the_body_wins() -> None:
    headers = [
        (b"x-turnout-threshold", b" 0.8 "),
        (b"x-turnout-max-cost-usd", b"0.01"),
        (b"x-turnout-unknown", b"1"),
    ]
    assert dials.read(None, headers) == dials.Dials(Policy("threshold", 0.8), Constraints(max_cost_usd=0.01))
    assert dials.read({"threshold": 0.5}, headers).policy == Policy("threshold", 0.5)
    assert dials.read({"allow": ["a*"], "deny": ["b"]}).constraints == Constraints(("a*",), ("b",))
    assert dials.read(None, [(b"x-turnout-preset", b"price")]).policy == "price"
    with pytest.raises(InvalidRequest) as caught:
        dials.read(None, [(b"x-turnout-threshold", b"high")])
    assert caught.value.param == "x-turnout-threshold"
    with pytest.raises(InvalidRequest, match="exclude each other"):
        dials.read({"preset": "price"}, headers)


def test_only_model_and_parameters_change_and_order_is_kept() -> None:
    body = {
        "x_unknown": {"deep": [1, 2.50, None]},
        "model": "auto",
        "turnout": {"threshold": 0.5},
        "messages": MESSAGES,
        "reasoning_effort": "high",
        "temperature": 0.7,
    }
    sent, lost = to_upstream(parse(body), "big-2026", {"reasoning_effort": "low", "seed": 1})
    assert lost == ()
    expected = (
        b'{"x_unknown":{"deep":[1,2.5,null]},"model":"big-2026","messages":[{"role":"user","content":"Say hello."}],'
        b'"reasoning_effort":"low","temperature":0.7,"seed":1}'
    )
    assert sent == expected
    assert body["model"] == "auto", "the client's own body is not touched"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}),
    ],
)
def test_usage_is_always_asked_for_in_a_stream(options: object, expected: object) -> None:
    body = {**GOOD, "stream": True} | ({} if options is None else {"stream_options": options})
    assert orjson.loads(to_upstream(parse(body), "m", {})[0])["stream_options"] == expected


def test_a_plain_request_is_not_given_stream_options() -> None:
    assert b"stream_options" not in to_upstream(parse(GOOD), "m", {})[0]


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
