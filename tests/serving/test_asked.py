from __future__ import annotations

import pytest

from router import Constraints, Policy
from serving import dials, fields
from serving.asked import parse_chat as parse
from serving.errors import InvalidRequest

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
