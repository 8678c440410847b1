from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from router.pricing import Usage
from router.text import read as read_prompt
from serving.dialects.answer import (
    Answer,
    Began,
    Citation,
    Closed,
    Collector,
    Delta,
    Event,
    Failed,
    Finished,
    Opened,
    UsageSeen,
    events_of,
)
from serving.dialects.conversation import (
    Audio,
    Conversation,
    File,
    Image,
    Message,
    OutputFormat,
    Reasoning,
    Refusal,
    Settings,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from serving.dialects.dialect import Reply
from serving.dialects.losses import Losses
from serving.dialects.responses.dialect import RESPONSES
from serving.dialects.responses.request import count_extra, outline
from serving.dialects.responses.watch import ResponsesStream
from serving.errors import InvalidRequest, UpstreamBroken, UpstreamTimeout
from serving.sse import EventSplitter, data_of

GOLDEN = Path(__file__).parent / "golden" / "responses"
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
REPLY = Reply("req_0123", "model-a", 1_700_000_000, {"model": "auto", "input": "Hello"})
#: Every kind of part, next to each other in every way that matters.
EVERYTHING = Answer(
    parts=(
        Reasoning("I think.", True, "STATE"),
        Text("Look: "),
        Text("here."),
        Refusal("Not that."),
        ToolCall("call_1", "look", '{"at":"x"}'),
        ToolCall("call_2", "write", "raw\ninput", True, "ns"),
        Reasoning("Raw thought."),
        Reasoning("", False, "DATA", True),
        Text("Ende, naïve ✓"),
    ),
    finished=Finished("tool_calls"),
    usage=Usage(20, 11, 5, 2, 3),
    began=Began("resp_0123", "model-a", 1_700_000_000),
    citations=((1, Citation("https://a.example/x", "A", 6, 10)),),
)


def read(body: dict[str, object], losses: Losses | None = None) -> Conversation:
    return RESPONSES.read_request({"model": "auto", "input": "Hi", **body}, Losses() if losses is None else losses)


def write(conversation: Conversation, losses: Losses | None = None) -> dict[str, object]:
    return RESPONSES.write_request(conversation, "gpt-x", Losses() if losses is None else losses)


def told(losses: Losses) -> set[str]:
    return {f"{loss.what} {loss.field}" for loss in losses.told()}


def items(*given: dict[str, object]) -> tuple[Message, ...]:
    return read({"input": list(given)}).messages


def written_events(stream: bytes) -> list[dict[str, object]]:
    """Parse a written stream and validate it against the SDK's types and the rules of §3.3."""
    events = []
    for event in EventSplitter().feed(stream):
        data = data_of(event)
        if data == b"[DONE]":
            continue
        parsed = orjson.loads(data or b"")
        assert event.startswith(b"event: " + parsed["type"].encode() + b"\n")
        EVENTS.validate_python(parsed)
        events.append(parsed)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def write_stream(events: Iterable[Event], reply: Reply = REPLY) -> bytes:
    writer = RESPONSES.writer(reply)
    return b"".join(writer.write(event) for event in events)


def read_stream(stream: bytes) -> Collector:
    reader, collector = RESPONSES.reader(), Collector()
    for event in EventSplitter().feed(stream):
        for neutral in reader.read(event):
            collector.add(neutral)
    for neutral in reader.end():
        collector.add(neutral)
    return collector


def stream_of(*events: dict[str, object]) -> bytes:
    return b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)


CREATED: dict[str, object] = {"type": "response.created", "response": {"id": "resp_p", "model": "p-1"}}


def completed(**response: object) -> dict[str, object]:
    return {"type": "response.completed", "response": {"id": "resp_p", "status": "completed", **response}}


# Requests


def test_what_codex_sends_is_read() -> None:
    losses = Losses()
    conversation = RESPONSES.read_request(orjson.loads((GOLDEN / "codex.json").read_bytes()), losses)
    assert conversation == Conversation(
        messages=(
            Message("system", (Text("You work in a sandbox."),)),
            Message("user", (Text("<environment_context>cwd</environment_context>"),)),
            Message("user", (Text("List the files."),)),
            Message(
                "assistant",
                (
                    Reasoning("Look.\n\nThen tell.", True, "OPAQUE=="),
                    Text("I look."),
                    ToolCall("call_a", "exec_command", '{"cmd":"ls"}', namespace="shell"),
                    ToolCall("call_b", "apply_patch", "*** Begin", is_custom=True),
                ),
            ),
            Message(
                "user",
                (
                    ToolResult("call_a", (Text("a.txt"),)),
                    ToolResult("call_b", (Text("done"), Image("image/png", "AAAA")), is_custom=True),
                ),
            ),
        ),
        tools=(
            Tool(
                "exec_command",
                "Run.",
                {"type": "object", "properties": {"cmd": {"type": "string"}}},
                False,
                namespace="shell",
            ),
            Tool(
                "apply_patch",
                "Patch.",
                is_custom=True,
                format={"type": "grammar", "syntax": "lark", "definition": "start: X"},
            ),
        ),
        tool_choice=ToolChoice("auto"),
        settings=Settings(
            effort="medium", wants_reasoning=True, is_parallel=False, verbosity="low", cache_key="thread-1"
        ),
        is_stream=True,
    )
    assert told(losses) == {"dropped tools[0].description", "dropped tools[2]"}
    assert {loss.field for loss in losses if loss.is_hint} == {"store", "client_metadata", "input[4].phase"}


def test_a_request_for_a_provider_is_written() -> None:
    losses = Losses()
    body = write(
        Conversation(
            messages=(
                Message("system", (Text("Be brief."),)),
                Message("system", (Text("Be kind."),)),
                Message(
                    "user",
                    (
                        Text("What is this?"),
                        Image("image/jpeg", "AAAA"),
                        File("application/pdf", "BBBB", name="a.pdf"),
                        Audio("wav", "CCCC"),
                    ),
                ),
                Message(
                    "assistant",
                    (
                        Reasoning("lost"),
                        Reasoning("Hm.", state="STATE"),
                        Text("I ask."),
                        ToolCall("call_1", "look"),
                        ToolCall("call_2", "write", "raw", True, "ns"),
                    ),
                ),
                Message("user", (ToolResult("call_1", (Text("a dog"),)), ToolResult("call_2", is_custom=True))),
                Message("system", (Text("Answer now."),)),
            ),
            tools=(
                Tool("look", "See."),
                Tool("write", is_custom=True, format={"type": "text"}, namespace="ns"),
            ),
            tool_choice=ToolChoice("auto", ("look", "write")),
            output=OutputFormat({"type": "object"}, "out", is_strict=True),
            settings=Settings(
                max_output_tokens=100,
                temperature=0.5,
                seed=1,
                top_k=3,
                stop=("X",),
                presence_penalty=0.1,
                effort="high",
                wants_reasoning=True,
                is_parallel=True,
                service_tier="standard_only",
                user="u",
                verbosity="high",
                cache_key="k" * 65,
            ),
            is_stream=True,
        ),
        losses,
    )
    assert body == orjson.loads((GOLDEN / "written.json").read_bytes())
    fields = ("seed", "top_k", "stop", "presence_penalty", "messages[3].content[0].reasoning")
    assert told(losses) == {f"dropped {field}" for field in fields}
    assert [loss.field for loss in losses if loss.is_hint] == ["prompt_cache_key"]


def test_what_was_written_is_read_again_as_it_was() -> None:
    conversation = Conversation(
        messages=(
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("Hello"), Image(url="https://a.example/i.png", detail="high"))),
            Message("assistant", (Reasoning("Hm.", True, "S"), Text("a"), Text("b"), ToolCall("c", "f", '{"x":1}'))),
            Message("user", (ToolResult("c", (Text("r"), File(url="https://a.example/a.pdf", name="a.pdf"))),)),
            Message("assistant", (Refusal("No."),)),
            Message("user", (Text("Why?"), File("application/pdf", "QQ==", name="b.pdf"))),
        ),
        tools=(
            Tool("f", "F", {"type": "object"}, True),
            Tool("g", None, {"type": "object"}, False, namespace="n"),
            Tool("h", None, {"type": "object"}, False, namespace="n"),
        ),
        tool_choice=ToolChoice("required", ("f",)),
        output=OutputFormat({"type": "object"}, "o", "O", False),
        settings=Settings(max_output_tokens=16, temperature=0, top_p=1, effort="low", service_tier="flex", user="u"),
    )
    losses = Losses()
    assert RESPONSES.read_request(write(conversation, losses), losses) == conversation
    assert not told(losses)


def test_messages_need_no_type_and_developers_are_the_system() -> None:
    assert items({"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}) == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("Hi"),)),
    )
    assert read({"instructions": "Be kind."}).messages[0] == Message("system", (Text("Be kind."),))


def test_parts_are_read_with_their_files_and_breakpoints() -> None:
    losses = Losses()
    mark = {"mode": "explicit"}
    content = [
        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": mark},
        {"type": "input_text", "text": "b", "prompt_cache_breakpoint": {**mark, "ttl": "12h"}},
        {"type": "input_file", "file_data": "QQ==", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://a.example/a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}},
    ]
    (message,) = read({"input": [{"role": "user", "content": content}]}, losses).messages
    assert message.parts == (
        Text("a", ""),
        Text("b", "1h"),
        File("application/pdf", "QQ==", name="a.pdf"),
        File(url="https://a.example/a.pdf"),
        Audio("mp3", "QQ=="),
    )
    assert told(losses) == {"changed input[0].content[1].prompt_cache_breakpoint"}


def test_the_state_of_a_call_comes_back_to_its_call_whatever_became_of_the_item() -> None:
    state = {"type": "reasoning", "summary": [], "encrypted_content": "SIGNED#call:c1"}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    redacted = {"type": "reasoning", "summary": [], "encrypted_content": "DATA#redacted"}
    assert items(redacted, call, state)[0].parts == (
        Reasoning("", state="DATA", is_redacted=True),
        ToolCall("c1", "f", "{}", state="SIGNED"),
    )
    assert items({"role": "user", "content": "a"}, state) == (Message("user", (Text("a"),)),)


def test_hosted_calls_of_history_are_dropped_and_told() -> None:
    losses = Losses()
    given = [{"role": "user", "content": "a"}, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]
    assert read({"input": given}, losses).messages == (Message("user", (Text("a"),)),)
    assert told(losses) == {"dropped input[1]"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "mcp_call", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "never seen", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].file_id",
        ),
        ({"input": [{"role": "user", "content": [{"type": "holo"}]}]}, "input[0].content[0].type"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
            "tool_choice",
        ),
    ],
)
def test_what_would_mean_something_else_is_refused_by_name(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")
    assert "never seen" not in refused.value.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": {}}]}, "input[0].type"),
        ({"input": [{"role": ["user"], "content": "a"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]},
         "input[0].content[0].image_url"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}]}, "tools[0].tools[0].name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": 1}, "stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert refused.value.param == param


def test_a_previous_response_that_was_not_expanded_is_not_found() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"previous_response_id": "resp_1"})
    assert refused.value.code == "previous_response_not_found"


def test_fields_are_hints_or_told_and_plain_values_are_neither() -> None:
    losses = Losses()
    read(
        {
            "truncation": "disabled",
            "background": False,
            "max_tool_calls": 3,
            "something new": 1,
            "metadata": {"a": "b"},
            "previous_response_id": None,
            "reasoning": {"effort": "low", "mode": "pro", "context": "auto", "summary": "detailed"},
            "tools": [{"type": "function", "name": "f", "defer_loading": True}],
        },
        losses,
    )
    assert told(losses) == {
        "dropped max_tool_calls",
        "dropped (unknown)",
        "dropped reasoning.mode",
        "changed reasoning.summary",
        "dropped tools[0].defer_loading",
    }
    assert [loss.field for loss in losses if loss.is_hint] == ["metadata"]


@pytest.mark.parametrize(
    ("choice", "read_as", "written_as"),
    [
        ("none", ToolChoice("none"), "none"),
        ({"type": "custom", "name": "c"}, ToolChoice("required", ("c",)), {"type": "custom", "name": "c"}),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "mcp"}],
            },
            ToolChoice("required", ("f",)),
            {"type": "function", "name": "f"},
        ),
    ],
)
def test_tool_choices_go_both_ways(choice: object, read_as: ToolChoice, written_as: object) -> None:
    tools = [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom", "name": "c"}]
    conversation = read({"tools": tools, "tool_choice": choice})
    assert conversation.tool_choice == read_as
    assert write(conversation)["tool_choice"] == written_as


@pytest.mark.parametrize(
    ("settings", "reasoning", "include"),
    [
        (Settings(), None, None),
        (Settings(effort="none", wants_reasoning=True), {"effort": "none"}, None),
        (Settings(thinking_budget_tokens=0), {"effort": "none"}, None),
        (Settings(thinking_budget_tokens=8_000), {"effort": "medium"}, ["reasoning.encrypted_content"]),
        (Settings(wants_reasoning=True), {"summary": "auto"}, ["reasoning.encrypted_content"]),
    ],
)
def test_encrypted_reasoning_is_asked_for_where_there_is_reasoning(
    settings: Settings, reasoning: object, include: object
) -> None:
    body = write(Conversation((Message("user", (Text("Hi"),)),), settings=settings))
    assert (body.get("reasoning"), body.get("include")) == (reasoning, include)


def test_too_small_a_limit_is_raised_to_what_the_provider_takes() -> None:
    losses = Losses()
    settings = Settings(max_output_tokens=1)
    assert write(Conversation((Message("user", (Text("Hi"),)),), settings=settings), losses)["max_output_tokens"] == 16
    assert told(losses) == {"changed max_output_tokens"}


def test_routing_reads_the_human_request_and_counts_the_rest() -> None:
    body = orjson.loads((GOLDEN / "codex.json").read_bytes())
    prompt = read_prompt(outline(body), n_extra_characters=count_extra(body))
    assert prompt.text == "List the files."
    assert prompt.shape.has_images
    assert count_extra(body) == len(orjson.dumps(body["tools"]))
    assert [message["role"] for message in outline(body)] == [
        "developer", "user", "user", "assistant", "assistant", "assistant", "tool", "tool"
    ]  # fmt: skip
    shorter = {**body, "input": body["input"][:3]}
    n_more = prompt.shape.n_characters - read_prompt(outline(shorter)).shape.n_characters - count_extra(body)
    assert n_more > len('{"cmd":"ls"}') + len("*** Begin") + len("a.txt")


def test_an_outline_of_a_string_has_the_instructions_before_it() -> None:
    assert outline({"input": "Hi", "instructions": "Be kind."}) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]
    with pytest.raises(InvalidRequest, match="input"):
        outline({"input": 3})


# Answers


def test_a_written_answer_is_valid_complete_and_repeats_the_request() -> None:
    request = {
        "model": "auto",
        "input": "Hi",
        "instructions": "Be kind.",
        "temperature": 0.2,
        "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "metadata": {"a": "b"},
    }
    body = RESPONSES.write_answer(EVERYTHING, Reply("req_0123", "model-a", 1_700_000_000, request))
    Response.model_validate(body)
    assert set(body) == {
        "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
        "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
        "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage",
        "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier",
        "prompt_cache_key", "user",
    }  # fmt: skip
    assert body["tools"] == [
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
        {"type": "custom", "name": "c"},
    ]
    repeated = ("instructions", "temperature", "metadata", "text", "reasoning", "id", "status")
    assert [body[name] for name in repeated] == [
        "Be kind.", 0.2, {"a": "b"}, {"format": {"type": "text"}, "verbosity": "low"},
        {"effort": "low", "summary": None}, "resp_0123", "completed",
    ]  # fmt: skip
    assert body["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 11,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 31,
    }


def test_a_written_answer_is_read_as_it_was() -> None:
    assert RESPONSES.read_answer(RESPONSES.write_answer(EVERYTHING, REPLY)) == EVERYTHING


def test_words_are_parts_of_one_message_and_ids_tell_their_place() -> None:
    output = RESPONSES.write_answer(EVERYTHING, REPLY)["output"]
    assert isinstance(output, list)
    assert [(item["type"], item["id"]) for item in output] == [
        ("reasoning", "rs_0123_0"),
        ("message", "msg_0123_1"),
        ("function_call", "fc_0123_2"),
        ("custom_tool_call", "ctc_0123_3"),
        ("reasoning", "rs_0123_4"),
        ("reasoning", "rs_0123_5"),
        ("message", "msg_0123_6"),
    ]
    assert [part["type"] for part in output[1]["content"]] == ["output_text", "output_text", "refusal"]
    assert output[3]["namespace"] == "ns"
    assert output[5]["encrypted_content"] == "DATA#redacted"


@pytest.mark.parametrize(
    ("reason", "status", "details", "read_as"),
    [
        ("stop", "completed", None, "stop"),
        ("stop_sequence", "completed", None, "stop"),
        ("length", "incomplete", {"reason": "max_output_tokens"}, "length"),
        ("context_full", "incomplete", {"reason": "max_output_tokens"}, "length"),
        ("filtered", "incomplete", {"reason": "content_filter"}, "filtered"),
        ("paused", "incomplete", {"reason": None}, "paused"),
    ],
)
def test_why_an_answer_ended_goes_both_ways(reason: str, status: str, details: object, read_as: str) -> None:
    body = RESPONSES.write_answer(Answer((Text("a"),), Finished(reason)), REPLY)  # type: ignore[arg-type]
    assert (body["status"], body["incomplete_details"], body["usage"]) == (status, details, None)
    assert body["output"][0]["status"] == status  # type: ignore[index]
    assert RESPONSES.read_answer(body).finished == Finished(read_as)  # type: ignore[arg-type]


def test_why_a_provider_filtered_is_a_refusal_at_the_end() -> None:
    answer = Answer((Text("a"),), Finished("filtered", explanation="Not allowed."))
    body = RESPONSES.write_answer(answer, REPLY)
    assert body["output"][0]["content"][1] == {"type": "refusal", "refusal": "Not allowed."}  # type: ignore[index]
    assert written_events(write_stream(events_of(answer)))[-1]["response"] == body


def test_odd_answers_are_read() -> None:
    answer = RESPONSES.read_answer(
        {
            "output": [
                "no item",
                {"type": ["odd"]},
                {"type": "web_search_call", "id": "ws"},
                {"type": "message", "content": [{"type": "text", "text": "a", "annotations": [None, {"url": 1}]}]},
                {"type": "function_call", "id": "fc_1", "name": "f"},
                {"type": "function_call", "call_id": "fc_1", "name": None, "arguments": "{}"},
                {"type": "reasoning", "summary": None, "content": [{"type": "reasoning_text", "text": "t"}]},
            ],
            "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 9,
                      "output_tokens_details": {"reasoning_tokens": 4}},
        }
    )  # fmt: skip
    assert answer.parts == (
        Text("a"),
        ToolCall("fc_1", "f"),
        ToolCall("call__5", "unnamed", "{}"),
        Reasoning("t"),
    )
    assert answer.finished == Finished("tool_calls")
    assert answer.usage == Usage(3, 6, reasoning_tokens=4)


@pytest.mark.parametrize(
    "body", [{}, {"output": None}, {"output": [], "status": "in_progress"}, {"output": [], "status": {}}]
)
def test_what_is_no_whole_answer_is_broken(body: dict[str, object]) -> None:
    with pytest.raises(UpstreamBroken):
        RESPONSES.read_answer(body)


def test_a_failed_answer_keeps_its_code_and_not_its_words() -> None:
    error = {"code": "rate_limit_exceeded", "message": "secret"}
    with pytest.raises(UpstreamBroken) as broken:
        RESPONSES.read_answer({"status": "failed", "output": [], "error": error})
    assert broken.value.code == "rate_limit_exceeded"
    assert "secret" not in broken.value.message


# Streams


@pytest.mark.parametrize("n_characters", [0, 1, 4])
def test_a_written_stream_keeps_every_rule(n_characters: int) -> None:
    stream = write_stream(events_of(EVERYTHING, n_characters))
    assert stream.endswith(b"}\n\ndata: [DONE]\n\n")
    events = written_events(stream)
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0]["response"]["output"] == []  # type: ignore[index]
    final = events[-1]["response"]
    assert isinstance(final, dict)
    Response.model_validate(final)
    assert final == RESPONSES.write_answer(EVERYTHING, REPLY)
    deltas: dict[tuple[object, ...], str] = {}
    texts = {}
    items: dict[object, dict[str, object]] = {}
    ids: dict[object, set[object]] = {}
    for event in events:
        kind = str(event["type"])
        part = event.get("content_index", event.get("summary_index"))
        place = (kind.rpartition(".")[0], event.get("output_index"), part)
        if "item_id" in event:
            ids.setdefault(event["output_index"], set()).add(event["item_id"])
        if kind.endswith(".delta"):
            deltas[place] = deltas.get(place, "") + str(event["delta"])
        elif kind == "response.output_item.done":
            items[event["output_index"]] = event["item"]  # type: ignore[assignment]
        elif kind.endswith(("_text.done", "refusal.done", "arguments.done", "input.done")):
            texts[place] = next(event[key] for key in ("text", "refusal", "arguments", "input") if key in event)
        elif kind == "response.content_part.done":
            items.setdefault(("part", *place[1:]), event["part"])  # type: ignore[arg-type]
    assert deltas == texts
    output = final["output"]
    assert [items[i] for i in range(len(output))] == output
    assert items[("part", 1, 1)] == output[1]["content"][1]
    assert {i: {output[i]["id"]} for i in ids} == ids  # type: ignore[index]


@pytest.mark.parametrize("n_characters", [0, 1, 4])
def test_a_written_stream_is_read_as_it_was(n_characters: int) -> None:
    assert read_stream(write_stream(events_of(EVERYTHING, n_characters))).answer() == EVERYTHING


def test_the_state_of_a_call_follows_it() -> None:
    answer = Answer((ToolCall("c1", "f", "", state="SIGNED"), Text("a")), Finished("tool_calls"))
    events = written_events(write_stream(events_of(answer)))
    assert events[-1]["response"] == RESPONSES.write_answer(answer, REPLY)
    output = events[-1]["response"]["output"]  # type: ignore[index]
    assert output[0]["arguments"] == "{}"
    assert output[1] == {
        "id": "rs_0123_1",
        "type": "reasoning",
        "summary": [],
        "encrypted_content": "SIGNED#call:c1",
    }
    history = [{"type": "reasoning", **{k: v for k, v in item.items() if k != "id"}} for item in output]
    assert items(*history)[0].parts == (ToolCall("c1", "f", "{}", state="SIGNED"), Text("a"))


def test_empty_blocks_are_written_and_read() -> None:
    answer = Answer((Text(""), ToolCall("c", "f", "{}"), ToolCall("d", "g", "", True)), Finished("tool_calls"))
    collected = read_stream(write_stream(events_of(answer))).answer()
    assert collected.parts == answer.parts


def test_a_failure_after_the_beginning_is_an_error_and_a_failed_response() -> None:
    writer = RESPONSES.writer(REPLY)
    stream = b"".join(
        writer.write(event)
        for event in (Began(), Opened("call", "c", "f"), Delta("{}"), Closed(), Opened("text"), Delta("a"))
    )
    stream += writer.write(Failed("Too long.", "context_length_exceeded", "invalid_request_error"))
    assert writer.write(Closed()) == b""
    assert b"[DONE]" not in stream
    *_, error, failed = [orjson.loads(data_of(event) or b"") for event in EventSplitter().feed(stream)]
    nested = {
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
        "message": "Too long.",
        "param": None,
    }
    assert error == {**nested, "type": "error", "sequence_number": failed["sequence_number"] - 1, "error": nested}
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "context_length_exceeded", "message": "Too long."}
    assert [item["type"] for item in failed["response"]["output"]] == ["function_call"]


def test_a_failure_before_the_beginning_is_an_error_only() -> None:
    (event,) = EventSplitter().feed(RESPONSES.writer(REPLY).write(Failed("Down.")))
    assert EVENTS.validate_json(data_of(event) or b"").type == "error"


def test_interleaved_items_come_one_at_a_time() -> None:
    reader = RESPONSES.reader()
    events: list[Event] = []
    for event in EventSplitter().feed((GOLDEN / "interleaved.sse").read_bytes()):
        events += reader.read(event)
    assert events == [
        Began("resp_p", "p-1", 1_700_000_000),
        Opened("reasoning", is_summary=True),
        Delta("First"),
        Delta("\n\nsecond"),
        Closed("OPAQUE"),
        Opened("call", "call_1", "one"),
        Delta('{"a":1'),
        Delta("}"),
        Closed(),
        Opened("call", "call_2", "two"),
        Delta('{"b":'),
        Delta("2}"),
        Closed(),
        UsageSeen(Usage(9, 7, 4, None, 3)),
        Finished("tool_calls"),
    ]


CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": '{"a":1}'}
MESSAGE = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]}


@pytest.mark.parametrize(
    "events",
    [
        # Arguments only in the item's end; in .done; all in the announcement too; empty deltas first; never announced.
        [{"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "arguments": ""}},
         {"type": "response.output_item.done", "output_index": 0, "item": CALL}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "arguments": ""}},
         {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": CALL["arguments"]},
         {"type": "response.output_item.done", "output_index": 0, "item": {**CALL, "arguments": ""}}],
        [{"type": "response.output_item.added", "output_index": 0, "item": CALL},
         {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": CALL["arguments"]},
         {"type": "response.output_item.done", "output_index": 0, "item": CALL}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "name": "", "arguments": ""}},
         {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": ""},
         {"type": "response.function_call_arguments.done", "output_index": 0, "arguments": CALL["arguments"]},
         {"type": "response.output_item.done", "output_index": 0, "item": CALL}],
        [{"type": "response.output_item.done", "output_index": 0, "item": CALL}],
        [{"type": "response.output_item.done", "item": CALL}],
        # Not one item, or one that never ended: the final response has it.
        [],
        [{"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "arguments": ""}}],
    ],
)  # fmt: skip
def test_a_call_is_whole_wherever_its_arguments_stand(events: list[dict[str, object]]) -> None:
    answer = read_stream(stream_of(CREATED, *events, completed(output=[CALL]))).answer()
    assert answer.parts == (ToolCall("c", "f", '{"a":1}'),)
    assert answer.finished == Finished("tool_calls")


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}],
        [{"type": "response.output_text.delta", "output_index": 0, "content_index": 1, "delta": "Hi"}],
        [{"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"},
         {"type": "response.output_text.done", "item_id": "msg_1", "text": "Hi"},
         {"type": "response.output_item.done", "item": MESSAGE}],
        [{"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi"}],
        [{"type": "response.content_part.added", "output_index": 0, "part": {"type": "output_text"}},
         {"type": "response.content_part.done", "output_index": 0, "part": MESSAGE["content"][0]}],
        [{"type": "response.output_item.added", "output_index": 0, "item": {"type": "new_thing"}},
         {"type": "response.output_item.added", "output_index": 1, "item": {**MESSAGE, "content": []}},
         {"type": "response.output_item.done", "output_index": 1, "item": MESSAGE}],
    ],
)  # fmt: skip
def test_words_are_told_once_whatever_the_provider_leaves_out(events: list[dict[str, object]]) -> None:
    answer = read_stream(stream_of(*events, completed(output=[MESSAGE]))).answer()
    assert answer.parts == (Text("Hi"),)
    assert answer.finished == Finished("stop")


def test_words_with_the_number_of_a_call_do_not_open_a_block_inside_it() -> None:
    announced = {"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "arguments": ""}}
    astray = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}
    answer = read_stream(stream_of(CREATED, announced, astray, completed(output=[CALL]))).answer()
    assert answer.parts == (ToolCall("c", "f", '{"a":1}'),)


def test_sources_are_read_from_the_part_or_from_their_events() -> None:
    annotation = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    at: dict[str, object] = {"output_index": 0, "content_index": 0}
    told_apart = stream_of(
        CREATED,
        {"type": "response.output_text.delta", **at, "delta": "Hi"},
        {"type": "response.output_text.annotation.added", **at, "annotation": annotation},
        completed(),
    )
    cited = {"type": "message", "content": [{"type": "output_text", "text": "Hi", "annotations": [annotation]}]}
    for stream in (told_apart, stream_of(CREATED, completed(output=[cited]))):
        assert read_stream(stream).answer().citations == ((0, Citation("https://a.example", "A", 0, 2)),)


@pytest.mark.parametrize(
    ("event", "failed"),
    [
        ({"type": "error", "code": "c", "message": "m"}, Failed("m", "c")),
        ({"type": "error", "error": {"type": "t", "code": "c", "message": "m"}}, Failed("m", "c", "t")),
        ({"error": {"type": "t", "message": "m"}}, Failed("m", "t", "t")),
        ({"type": "response.failed", "response": {"error": {"code": "c", "message": "m"}}}, Failed("m", "c")),
        ({"type": "response.failed"}, Failed("")),
        ({"type": "response.completed", "response": {"status": "failed", "error": None}}, Failed("")),
    ],
)
def test_a_provider_that_says_it_failed_is_believed(event: dict[str, object], failed: Failed) -> None:
    collector = read_stream(stream_of(CREATED, event, completed()))
    assert (collector.failed, collector.finished) == (failed, None)


def test_an_incomplete_stream_says_why_and_a_cut_one_never_finishes() -> None:
    details = {"incomplete_details": {"reason": "max_output_tokens"}}
    whole = read_stream(stream_of(CREATED, {"type": "response.incomplete", "response": details}))
    assert whole.finished == Finished("length")
    cut = read_stream(stream_of(CREATED, {"type": "response.output_item.done", "output_index": 0, "item": CALL}))
    assert (cut.finished, cut.failed) == (None, None)


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff"])
def test_an_unreadable_event_is_broken(data: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        RESPONSES.reader().read(b"data: " + data + b"\n\n")


@pytest.mark.parametrize("odd", [None, 3, "x", [], {}, [None], {"type": []}, {"text": 1}])
def test_odd_values_anywhere_crash_nothing(odd: object) -> None:
    names = ("item", "part", "delta", "text", "arguments", "output_index", "content_index", "annotation", "response")
    kinds = ("output_item.added", "output_item.done", "content_part.added", "content_part.done", "output_text.delta",
             "output_text.annotation.added", "function_call_arguments.done", "reasoning_summary_text.done")  # fmt: skip
    odd_events = [{"type": f"response.{kind}", **dict.fromkeys(names, odd)} for kind in kinds]
    assert read_stream(stream_of(CREATED, *odd_events, completed(output=[odd], usage=odd))).finished is not None


# Errors


def test_errors_are_written_in_the_envelope_and_as_an_event() -> None:
    error = UpstreamTimeout("the provider took too long", phase="idle")
    assert RESPONSES.write_error(error, "req_1")["error"]["code"] == "upstream_timeout"  # type: ignore[index]
    data = orjson.loads(data_of(RESPONSES.error_event(error, "req_1")) or b"")
    assert (data["type"], data["code"]) == ("error", "upstream_timeout")
    assert data["error"]["message"] == data["message"] == "the provider took too long"


@pytest.mark.parametrize(
    ("body", "read_as"),
    [
        ({"error": {"message": "m", "code": "c", "type": "t"}}, ("m", "c")),
        ({"error": {"message": "m", "code": None, "type": "t"}}, ("m", "t")),
        ({"error": "m"}, ("m", None)),
        ({"object": "error", "message": "m", "code": 400}, ("m", None)),
        ({"detail": "m"}, None),
    ],
)
def test_error_bodies_are_read(body: dict[str, object], read_as: object) -> None:
    assert RESPONSES.read_error(body) == read_as


# Streams that are passed through


def test_a_stream_that_is_passed_on_is_watched() -> None:
    answer = Answer((Reasoning("", state="STATE"), Text('Say "type":"response.completed".')), Finished("length"),
                    Usage(3, 2))  # fmt: skip
    events = EventSplitter().feed(write_stream(events_of(answer, 3)))
    watch = ResponsesStream()
    assert all(watch.pass_on(event) for event in events[:-2])
    assert not watch.is_done
    assert watch.pass_on(events[-2])
    assert watch.is_done
    assert watch.pass_on(events[-1]), "[DONE] is passed on too"
    assert not watch.pass_on(events[-1])
    assert (watch.usage, watch.response_id, watch.states) == (Usage(3, 2, 0, 0, 0), "resp_0123", ["STATE"])
    assert watch.output == RESPONSES.write_answer(answer, REPLY)["output"]
    assert watch.n_events == len(events) - 1


def test_the_word_error_in_an_answer_is_no_error() -> None:
    watch = ResponsesStream()
    parts = {"type": "response.content_part.done", "part": {"type": "error", "error": {"a": 1}}}
    assert watch.pass_on(stream_of(parts))
    assert not watch.is_failed


def test_an_error_and_the_failed_response_after_it_are_passed_on_and_nothing_more() -> None:
    failed = {"type": "response.failed", "response": {"id": "resp_p", "error": {"code": "c"}}}
    for error in ({"type": "error", "message": "m"}, {"error": {"message": "m"}}):
        watch = ResponsesStream()
        assert watch.pass_on(stream_of(error))
        assert watch.is_failed
        assert watch.pass_on(stream_of(failed))
        assert not watch.pass_on(b"data: [DONE]\n\n")
    watch = ResponsesStream()
    assert watch.pass_on(stream_of(failed))
    assert watch.is_failed
    assert not watch.pass_on(stream_of(completed()))


def test_the_end_of_a_stream_needs_no_blank_line_and_half_an_event_is_kept_back() -> None:
    whole = stream_of(completed())
    watch = ResponsesStream()
    assert watch.pass_on_rest(whole.rstrip()) == whole
    assert watch.is_done
    cut = ResponsesStream()
    assert cut.pass_on_rest(whole[:40]) == b""
    assert not cut.is_done


def test_tools_that_an_item_brings_are_tools() -> None:
    """Codex sends all its tools so to models of some names."""
    tools = [
        {"type": "namespace", "name": "functions", "description": "", "tools": [{"type": "custom", "name": "exec"}]},
        {"type": "function", "name": "wait", "parameters": {"type": "object"}, "strict": False},
    ]
    items = [{"type": "additional_tools", "role": "developer", "tools": tools}, {"role": "user", "content": "Go."}]
    losses = Losses()
    read = RESPONSES.read_request({"model": "m", "input": items, "tools": [{"type": "web_search"}]}, losses)
    assert [(tool.name, tool.namespace, tool.is_custom) for tool in read.tools] == [
        ("exec", "functions", True),
        ("wait", None, False),
    ]
    assert [loss.field for loss in losses] == ["tools[0]"]
    assert [message.role for message in read.messages] == ["user"]
