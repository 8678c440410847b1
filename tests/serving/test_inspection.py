"""Signs against the form of an answer: in all three client APIs, passed through and translated, streamed and whole."""

from __future__ import annotations

import json
from itertools import zip_longest

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.pricing import Usage
from serving import inspection as module
from serving.dialects.answer import Answer, Finished, events_of
from serving.dialects.chat.dialect import CHAT
from serving.dialects.conversation import Reasoning, Refusal, Text, ToolCall
from serving.dialects.dialect import Reply
from serving.dialects.messages.dialect import MESSAGES
from serving.dialects.registry import DIALECTS
from serving.dialects.responses.dialect import RESPONSES
from serving.inspection import INVALID_JSON, INVALID_TOOL_CALL, MOST_BYTES, Inspection
from serving.sse import EventSplitter

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GOOD, BAD = (), (INVALID_TOOL_CALL,)


def body_of(api: str, *, tools: bool = False, json: bool = False) -> dict[str, object]:
    said = "What is the weather?"
    if api == "responses":
        body: dict[str, object] = {"input": said}
        tool: dict[str, object] = {"type": "function", "name": "weather", "parameters": SCHEMA}
        form: dict[str, object] = {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}
    else:
        body = {"messages": [{"role": "user", "content": said}], "max_tokens": 500}
        tool = {"name": "weather", "input_schema": SCHEMA}
        form = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
        if api == "chat":
            tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
            form = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
    return {"model": "large", **body, **({"tools": [tool]} if tools else {}), **(form if json else {})}


def call(arguments: str, name: str = "weather", call_id: str = "call_1") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def answer(*parts, reason: str = "tool_calls") -> Answer:
    return Answer(parts, Finished(reason), Usage(3, 4))


def looked_at(api: str, body: dict[str, object], said: Answer, *, is_stream: bool, step: int = 3) -> tuple[str, ...]:
    """Return what is found in an answer as a provider of the client's dialect writes it."""
    dialect = DIALECTS[api]
    inspection = Inspection.of(dialect, body)
    assert inspection is not None
    reply = Reply("req_1", "large", 0, body)
    if not is_stream:
        written = orjson.dumps(dialect.write_answer(said, reply))
        inspection.pass_whole(written, orjson.loads(written))
    else:
        writer = dialect.writer(reply)
        for event in EventSplitter().feed(b"".join(writer.write(event) for event in events_of(said, step))):
            inspection.pass_by(event)
    return inspection.found()


CASES = [
    (call('{"city": "Oslo"}'), GOOD),
    (call('{"city": "Oslo", "more": [1]}'), GOOD),
    (call('{"town": "Oslo"}'), BAD),
    (call(""), BAD),
    (call('{"city": "Oslo"}', "wether"), BAD),
]
#: Of these a whole answer of Messages holds an object in any case.
TEXTS = [(call('{"city": "Oslo"'), BAD), (call('["Oslo"]'), BAD), (call("Oslo"), BAD)]


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize(("said", "found"), CASES)
def test_calls_are_judged_by_the_tools_that_were_offered(api, is_stream, said, found) -> None:
    body = body_of(api, tools=True)
    assert looked_at(api, body, answer(Text("Let me see."), said), is_stream=is_stream) == found
    two = answer(call('{"city": "Oslo"}', call_id="call_0"), said)
    assert looked_at(api, body, two, is_stream=is_stream) == found


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("said", "found"), TEXTS)
def test_arguments_must_be_an_object(api, is_stream, said, found) -> None:
    assert looked_at(api, body_of(api, tools=True), answer(said), is_stream=is_stream) == found


@pytest.mark.parametrize(("said", "found"), TEXTS)
def test_arguments_in_a_stream_of_messages_must_be_an_object(said, found) -> None:
    events = [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "weather"},
        },
        *(
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in said.arguments
        ),
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
        {"type": "message_stop"},
    ]
    inspection = Inspection.of(MESSAGES, body_of("messages", tools=True))
    assert inspection is not None
    for event in events:
        inspection.pass_by(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)))
    assert inspection.found() == found


def chunk(*calls: dict[str, object], finish: str | None = None, is_spaced: bool = False) -> bytes:
    said = {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": finish}]}
    return b"data: %b\n\n" % (json.dumps(said).encode() if is_spaced else orjson.dumps(said))


@pytest.mark.parametrize("is_spaced", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ('{"city": "Oslo"}', '{"city": "Bergen"}', ()),
        ('{"city": "O\\"s\\nl\\\\o ü \\u00fc"}', '{"city": ""}', ()),
        ('{"city": "Oslo"', '{"city": "Bergen"}', BAD),
        ('{"city": "Oslo"}', '{"city": "Bergen"', BAD),
        ('{"city": "Oslo"}', '{"town": "Bergen"}', BAD),
    ],
)
def test_pieces_of_calls_may_come_in_turns(first, second, found, is_spaced) -> None:
    """A piece after another is kept without reading its event whole; what belongs to another call must not be."""
    inspection = Inspection.of(CHAT, body_of("chat", tools=True))
    assert inspection is not None

    def pieces(index: int, arguments: str) -> list[bytes]:
        begun = {
            "index": index,
            "id": f"c{index}",
            "type": "function",
            "function": {"name": "weather", "arguments": ""},
        }
        goes_on = ({"index": index, "function": {"arguments": piece}} for piece in arguments)
        return [chunk(call, is_spaced=is_spaced) for call in (begun, *goes_on)]

    one, two = pieces(0, first), pieces(1, second)
    for event in one[:5] + [event for pair in zip_longest(two, one[5:]) for event in pair if event is not None]:
        inspection.pass_by(event)
    inspection.pass_by(chunk(finish="tool_calls", is_spaced=is_spaced))
    inspection.pass_by(b"data: [DONE]\n\n")
    assert inspection.found() == found


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([Text('{"city": "Oslo"}')], ()),
        ([Reasoning("Hm {"), Text('{"city": "Oslo"}')], ()),
        ([Text('{"city": "Oslo"')], (INVALID_JSON,)),
        ([Text("```json\n{}\n```")], (INVALID_JSON,)),
        ([Text("[1, 2]")], (INVALID_JSON,)),
    ],
)
def test_json_is_looked_for_where_it_was_demanded(api, is_stream, parts, found) -> None:
    said = answer(*parts, reason="stop")
    assert looked_at(api, body_of(api, json=True), said, is_stream=is_stream) == found
    both = body_of(api, json=True, tools=True)
    assert looked_at(api, both, said, is_stream=is_stream) == found
    called = answer(Text("Let me see."), call('{"city": "Oslo"}'))
    assert looked_at(api, both, called, is_stream=is_stream) == (), "a call stands in the place of JSON"


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("reason", ["length", "filtered"])
def test_what_a_limit_cut_is_nobodys_mistake(api, is_stream, reason) -> None:
    cut = answer(Text('{"city": "Os'), reason=reason)
    assert looked_at(api, body_of(api, json=True), cut, is_stream=is_stream) == ()


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_who_refuses_owes_no_json(api) -> None:
    refused = answer(Refusal("I cannot."), reason="stop")
    assert looked_at(api, body_of(api, json=True), refused, is_stream=False) == ()


def test_any_json_is_good_where_no_object_is_demanded() -> None:
    body = body_of("chat") | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "array"}}}}
    assert looked_at("chat", body, answer(Text("[1]"), reason="stop"), is_stream=True) == ()
    body["response_format"] = {"type": "json_object"}
    assert looked_at("chat", body, answer(Text("[1]"), reason="stop"), is_stream=True) == (INVALID_JSON,)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (CHAT, body_of("chat")),
        (CHAT, body_of("chat") | {"response_format": {"type": "text"}}),
        (MESSAGES, body_of("messages") | {"tools": []}),
        (RESPONSES, body_of("responses", tools=True) | {"prompt": {"id": "p"}}),
    ],
)
def test_where_nothing_is_demanded_nothing_is_looked_at(dialect, body) -> None:
    assert Inspection.of(dialect, body) is None
    assert Inspection.of(CHAT, body_of("chat", tools=True), n_choices=2) is None


def test_tools_of_every_kind_are_known() -> None:
    tools = [
        {"type": "function", "name": "plain", "parameters": None},
        {"type": "custom", "name": "patch"},
        {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find", "parameters": SCHEMA}]},
        {"type": "web_search"},
    ]
    more = [{"type": "additional_tools", "tools": [{"type": "function", "name": "late"}]}]
    body = {"model": "large", "input": [*more, {"role": "user", "content": "x"}], "tools": tools}
    for said, found in (
        (ToolCall("1", "plain", "{}"), ()),
        (ToolCall("1", "patch", "*** Begin", is_custom=True), ()),
        (ToolCall("1", "find", '{"city": 1}', namespace="crm"), ()),
        (ToolCall("1", "find", '{"city": 1}'), BAD),
        (ToolCall("1", "late", ""), ()),
        (ToolCall("1", "web_search", "{}"), BAD),
    ):
        assert looked_at("responses", body, answer(said), is_stream=False) == found, said
        assert looked_at("responses", body, answer(said), is_stream=True) == found, said


@pytest.mark.parametrize("required", [[["city"]], [{}], [None], "city", {"city": 1}])
async def test_a_schema_that_is_none_disturbs_no_answer(start, pool_toml, server_toml, required) -> None:
    """What callers write as a schema is theirs: most providers take it, so an answer must not break on it here."""
    server = server_toml.replace("emulated = true\n", 'emulated = true\napis = ["messages"]\n')
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "required": required}}}
    async with start(pool_toml, server=server) as gateway:
        for is_stream in (False, True):
            gateway.provider.scripts.put("*", [{"calls": [{"name": "weather", "arguments": {"town": "Oslo"}}]}])
            body = body_of("chat") | {"tools": [tool], "stream": is_stream}
            response = await gateway.client.post(PATHS["chat"], json=body)
            record = gateway.records.kept[-1]
            assert (response.status_code, record.outcome, record.signals) == (200, "ok", None)
    inspection = Inspection.of(CHAT, body_of("chat") | {"tools": [tool]})
    begun = {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    inspection.pass_by(chunk(begun))
    inspection.pass_by(chunk(finish="tool_calls"))
    assert inspection.found() == (), "without the last event"


def test_bytes_that_are_no_text_are_not_judged() -> None:
    inspection = Inspection.of(CHAT, body_of("chat", tools=True))
    assert inspection is not None
    begun = {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": ""}}
    inspection.pass_by(chunk(begun))
    inspection.pass_by(chunk({"index": 0, "function": {"arguments": "{?}"}}).replace(b"?", b"\xff"))
    inspection.pass_by(chunk(finish="tool_calls"))
    assert inspection.found() == ()


def test_what_is_too_long_to_keep_is_not_judged_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of("chat", tools=True)
    long = answer(call('{"town": "' + "x" * MOST_BYTES + '"}'))
    assert looked_at("chat", body, long, is_stream=True, step=4000) == ()
    monkeypatch.setattr(module, "MOST_EVENT_BYTES", 300)
    assert looked_at("chat", body, answer(call('{"town": "Oslo"}')), is_stream=True) == ()


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(PATHS)), st.lists(st.binary(max_size=80), max_size=5), st.booleans())
def test_no_rubbish_disturbs_the_stream_that_passes(api, events, json) -> None:
    inspection = Inspection.of(DIALECTS[api], body_of(api, tools=True, json=json))
    assert inspection is not None
    for event in events:
        for telling in (b'"tool_calls"', b'"tool_use"', b'"type":"response.output_item.done"'):
            inspection.pass_by(b"data: {" + telling + event + b"}\n\n")
    inspection.found()


@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
async def test_signs_stand_in_the_record_by_every_way(start, pool_toml, upstream) -> None:
    server = (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nmax_attempts = 1\nwatch_bundle_s = 0\n{settings}\n'
        f'[[providers]]\nname = "emulator"\nemulated = true\napis = ["{upstream}"]\n'
    )
    good, bad = ({"calls": [{"name": "weather", "arguments": {name: "Oslo"}}]} for name in ("city", "town"))
    ways = [(api, is_stream) for api in PATHS for is_stream in (False, True)]
    async with start(pool_toml, server=server) as gateway:
        for api, is_stream in ways:

            async def signals(step: dict[str, object], **form: bool) -> str | None:
                gateway.provider.scripts.put("*", [step])
                body = body_of(api, **form) | {"stream": is_stream}  # noqa: B023
                response = await gateway.client.post(PATHS[api], json=body)  # noqa: B023
                assert response.status_code == 200, response.text
                return gateway.records.kept[-1].signals

            assert await signals(good, tools=True) is None
            assert await signals(bad, tools=True) == INVALID_TOOL_CALL
            assert await signals({"text": '{"city": "Oslo"}'}, json=True) is None
            assert await signals({"text": "Oslo, of course."}, json=True) == INVALID_JSON
            assert await signals({"text": "Oslo, of course."}) is None
        (row,) = (row for row in gateway.gateway.pool.snapshot() if row.candidate == "large")
        assert row.signals == {INVALID_TOOL_CALL: len(ways), INVALID_JSON: len(ways)}
        text = (await gateway.client.get("/metrics")).text
        assert f'candidate="large",signal="{INVALID_JSON}"}} {float(len(ways))}' in text
