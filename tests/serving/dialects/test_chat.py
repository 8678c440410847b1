"""The Chat Completions dialect: golden requests, answers and streams, one per quirk of the reference."""

from __future__ import annotations

import orjson
import pytest

from router.pricing import Usage
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
from serving.dialects.chat.answer import usage_of, write_usage
from serving.dialects.chat.dialect import CHAT
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
from serving.errors import InvalidRequest, UpstreamBroken, UpstreamOverloaded
from serving.sse import EventSplitter

REPLY = Reply("req_ab12", "large", 1_790_000_000, {})
WITH_USAGE = Reply("req_ab12", "large", 1_790_000_000, {"stream_options": {"include_usage": True}})
HELLO = {"role": "user", "content": "Hello."}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PNG = "data:image/png;base64,iVBORw0="


def read(body: dict[str, object]) -> tuple[Conversation, dict[str, str]]:
    losses = Losses()
    conversation = CHAT.read_request({"model": "auto", "messages": [HELLO], **body}, losses)
    return conversation, {loss.field: "hint" if loss.is_hint else loss.what for loss in losses}


def written(conversation: Conversation) -> tuple[dict, dict[str, str]]:
    losses = Losses()
    body = CHAT.write_request(conversation, "m", losses)
    said = {loss.field: "hint" if loss.is_hint else loss.what for loss in losses}
    return orjson.loads(orjson.dumps(body)), said


def asked(*messages: Message, **more: object) -> Conversation:
    return Conversation(messages or (Message("user", (Text("Hello."),)),), **more)  # type: ignore[arg-type]


# Requests, read.


def test_messages_of_every_role_are_read_in_their_order() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}, {"type": "text", "text": "Be calm."}]},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "now", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "call_a", "content": "snow"},
        {"role": "tool", "tool_call_id": "call_b", "content": [{"type": "text", "text": "noon"}]},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "", "refusal": "No more."},
    ]  # fmt: skip
    conversation, losses = read({"messages": messages})
    assert conversation.messages == (
        Message("system", (Text("Be brief."),)),
        Message("system", (Text("Be kind."), Text("Be calm."))),
        Message("user", (Text("Weather?"),)),
        Message("assistant", (ToolCall("call_a", "weather", '{"city":"Oslo"}'), ToolCall("call_b", "now"))),
        Message("user", (ToolResult("call_a", (Text("snow"),)), ToolResult("call_b", (Text("noon"),)))),
        Message("user", (Text("Thanks."),)),
        Message("assistant", (Refusal("No more."),)),
    )
    assert losses == {"messages[2].name": "hint"}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "Hi"}, Text("Hi")),
        ({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, Text("Hi", "1h")),
        ({"type": "text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}}, Text("Hi", "")),
        ({"type": "text", "text": "Hi", "prompt_cache_breakpoint": {"ttl": "12h"}}, Text("Hi", "1h")),
        (
            {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
            Image("image/png", "iVBORw0=", detail="low"),
        ),
        ({"type": "image_url", "image_url": "https://a.example/x.png"}, Image(url="https://a.example/x.png")),
        ({"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}, Audio("wav", "UklG")),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
            File("application/pdf", "JVBE", name="a.pdf"),
        ),
        ({"type": "file", "file": {"file_data": "JVBE"}}, File("application/pdf", "JVBE")),
    ],
)
def test_every_kind_of_part_is_read(part: dict[str, object], expected: object) -> None:
    conversation, losses = read({"messages": [{"role": "user", "content": [part]}]})
    assert conversation.messages[0].parts == (expected,)
    assert losses == {}


def test_what_an_assistant_thought_is_read_and_what_only_its_maker_understands_is_told() -> None:
    said = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm.", "reasoning_details": [{"id": 1}],
            "annotations": [{"type": "url_citation"}], "audio": None}  # fmt: skip
    conversation, losses = read({"messages": [HELLO, said]})
    assert conversation.messages[1].parts == (Reasoning("Hm."), Text("Yes."))
    assert losses == {"messages[1].reasoning_details": "dropped", "messages[1].annotations": "hint"}


def test_a_thought_signature_beside_a_call_and_arguments_sent_as_an_object_are_read() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"n": 1}},
            "extra_content": {"google": {"thought_signature": "c2ln"}}}  # fmt: skip
    conversation, _ = read({"messages": [HELLO, {"role": "assistant", "tool_calls": [call]}]})
    assert conversation.messages[1].parts == (ToolCall("a", "f", '{"n":1}', state="c2ln"),)


def test_tools_of_all_three_ages_are_read() -> None:
    conversation, losses = read(
        {
            "tools": [
                {"type": "function", "function": {"name": "w", "description": "Look.", "parameters": SCHEMA,
                                                  "strict": True}, "cache_control": {"type": "ephemeral"}},
                {"type": "custom", "custom": {"name": "patch", "description": "Edit.", "format": {
                    "type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}}},
                {"type": "custom", "custom": {"name": "say", "format": {"type": "text"}}},
            ],
            "functions": [{"name": "old", "parameters": {}}],
        }
    )  # fmt: skip
    assert conversation.tools == (
        Tool("w", "Look.", SCHEMA, True, cache_ttl=""),
        Tool(
            "patch", "Edit.", is_custom=True, format={"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
        ),
        Tool("say", is_custom=True, format={"type": "text"}),
        Tool("old", schema={}),
    )
    assert losses == {}


def test_custom_and_legacy_calls_are_read_with_their_results() -> None:
    messages = [
        HELLO,
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "p", "input": "x y"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
        {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "{}"}},
        {"role": "function", "name": "old", "content": "42"},
    ]
    conversation, _ = read({"messages": messages})
    assert conversation.messages[1:] == (
        Message("assistant", (ToolCall("c", "p", "x y", is_custom=True),)),
        Message("user", (ToolResult("c", (Text("done"),)),)),
        Message("assistant", (ToolCall("call_old", "old", "{}"),)),
        Message("user", (ToolResult("call_old", (Text("42"),)),)),
    )


@pytest.mark.parametrize(
    ("body", "choice"),
    [
        ({"tool_choice": "none"}, ToolChoice("none")),
        ({"tool_choice": "auto"}, ToolChoice("auto")),
        ({"tool_choice": "required"}, ToolChoice("required")),
        ({"tool_choice": {"type": "function", "function": {"name": "w"}}}, ToolChoice("required", ("w",))),
        ({"tool_choice": {"type": "custom", "custom": {"name": "p"}}}, ToolChoice("required", ("p",))),
        ({"function_call": {"name": "old"}}, ToolChoice("required", ("old",))),
        ({"function_call": "auto"}, ToolChoice("auto")),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "w"}}, {"type": "custom", "custom": {"name": "p"}}]}}},
            ToolChoice("auto", ("w", "p")),
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                {"type": "function", "function": {"name": "w"}}]}}},
            ToolChoice("required", ("w",)),
        ),
    ],
)  # fmt: skip
def test_every_form_of_tool_choice_is_read(body: dict[str, object], choice: ToolChoice) -> None:
    assert read(body)[0].tool_choice == choice


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, OutputFormat()),
        (
            {"type": "json_schema", "json_schema": {"name": "place", "description": "A place.", "schema": SCHEMA,
                                                    "strict": True}},
            OutputFormat(SCHEMA, "place", "A place.", True),
        ),
        ({"type": "json_schema", "json_schema": {"name": "any"}}, OutputFormat({}, "any")),
    ],
)  # fmt: skip
def test_every_response_format_is_read(form: object, output: OutputFormat | None) -> None:
    assert read({"response_format": form})[0].output == output


def test_settings_are_read() -> None:
    conversation, losses = read(
        {"max_completion_tokens": 90, "max_tokens": 50, "temperature": 0, "top_p": 0.5, "top_k": 4, "seed": 7,
         "frequency_penalty": 0.1, "presence_penalty": -0.2, "stop": "END", "reasoning_effort": "xhigh",
         "parallel_tool_calls": False, "service_tier": "flex", "user": "u", "safety_identifier": "s",
         "verbosity": "low", "prompt_cache_key": "k", "stream": True, "n": 1, "logprobs": False, "top_logprobs": 0,
         "modalities": ["text"], "tools": None}
    )  # fmt: skip
    assert conversation.settings == Settings(
        90, 0, 0.5, 4, 0.1, -0.2, 7, ("END",), "xhigh", None, None, False, "flex", "s", "low", "k"
    )
    assert conversation.is_stream
    assert losses == {}
    assert read({"max_tokens": 50})[0].settings.max_output_tokens == 50
    assert read({"stop": ["a", "b"]})[0].settings.stop == ("a", "b")


def test_hints_go_without_a_word_and_what_else_is_unknown_is_told() -> None:
    _, losses = read(
        {"metadata": {"a": "b"}, "store": True, "stream_options": {"include_usage": True}, "prediction": {},
         "prompt_cache_options": {}, "prompt_cache_retention": "24h",
         "logit_bias": {"5": 1}, "min_p": 0.1, "chat_template_kwargs": {}, "a word of somebody's": 1, "seed": None}
    )  # fmt: skip
    assert losses == {
        **dict.fromkeys(
            ("metadata", "store", "stream_options", "prediction", "prompt_cache_options", "prompt_cache_retention"),
            "hint",
        ),
        **dict.fromkeys(("logit_bias", "min_p", "chat_template_kwargs", "(unknown)"), "dropped"),
    }


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter"),
        ({"tools": [{"type": "mcp"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": 1}}]}, "tools[0].function.name", "invalid_value"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "unsupported_parameter"),
        ({"tool_choice": "any"}, "tool_choice", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": ["hi"]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "narrator", "content": ""}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type",
         "invalid_value"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": PNG}]}]},
         "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": [{"type": "input_audio"}]}]},
         "messages[0].content[0].type", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png,x"}]}]},
         "messages[0].content[0].image_url.url", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
         "messages[0].content[0].file.file_id", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
         "messages[0].content[0].file.file_data", "missing_required_parameter"),
        ({"messages": [HELLO, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio",
         "unsupported_parameter"),
        ({"messages": [HELLO, {"role": "assistant", "tool_calls": [{"type": "function"}]}]},
         "messages[1].tool_calls[0].id", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_value"),
        ({"stop": [1]}, "stop", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_name(body: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_arguments_nested_too_deeply_to_be_written_are_refused() -> None:
    nested: dict[str, object] = {}
    for _ in range(300):
        nested = {"a": nested}
    call = {"id": "a", "function": {"name": "f", "arguments": nested}}
    with pytest.raises(InvalidRequest) as caught:
        read({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


# Requests, written.


def test_a_conversation_with_tools_is_written() -> None:
    body, losses = written(
        asked(
            Message("system", (Text("Be brief."), Text("Be kind."))),
            Message("user", (Text("Weather?"),)),
            Message(
                "assistant", (Reasoning("Hm."), Text("Look:"), ToolCall("a", "w", state="sig"), ToolCall("b", "n"))
            ),
            Message("user", (ToolResult("a", (Text("snow"), Text("wind"))), ToolResult("b"), Text("Well?"))),
            tools=(Tool("w", "Look.", SCHEMA, True), Tool("n")),
            tool_choice=ToolChoice("auto", ("w",)),
            is_stream=True,
        )
    )
    call = {"id": "a", "type": "function", "function": {"name": "w", "arguments": "{}"}}
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief.\n\nBe kind."},
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": "Look:",
                "reasoning_content": "Hm.",
                "tool_calls": [
                    {**call, "extra_content": {"google": {"thought_signature": "sig"}}},
                    {"id": "b", "type": "function", "function": {"name": "n", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "a", "content": "snow\nwind"},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "w", "description": "Look.", "parameters": SCHEMA, "strict": True},
            },
            {"type": "function", "function": {"name": "n"}},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "w"}}]},
        },
        "stream": True,
    }
    assert losses == {}


def test_every_kind_of_part_is_written() -> None:
    body, losses = written(
        asked(
            Message(
                "user",
                (
                    Text("See:", "1h"),
                    Image("image/gif", "R0lG", detail="high"),
                    Image(url="https://a.example/x.png"),
                    Audio("mp3", "SUQz"),
                    File("application/pdf", "JVBE"),
                    File("text/plain", text="words", name="a.txt"),
                ),
            )
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG", "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
        {"type": "text", "text": "a.txt:\nwords"},
    ]
    assert losses == {"cache_control": "dropped", "messages[0].content[5]": "changed"}


def test_an_image_that_a_tool_gave_follows_as_the_users() -> None:
    result = ToolResult("a", (Text("a chart"), Image("image/png", "iVBO")), is_error=True)
    body, losses = written(
        asked(Message("user", (Text("?"),)), Message("assistant", (ToolCall("a", "w"),)), Message("user", (result,)))
    )
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": "a", "content": "a chart"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}]},
    ]
    assert losses == {"messages[2].is_error": "hint", "messages[2].content": "changed"}


def test_thoughts_lose_their_state_and_that_is_told() -> None:
    body, losses = written(
        asked(Message("assistant", (Reasoning("Hm.", state="sig"), Text("A"), Text("B"), Refusal("No"))))
    )
    assert body["messages"] == [{"role": "assistant", "content": "A\n\nB", "refusal": "No", "reasoning_content": "Hm."}]
    assert losses == {"messages[0].reasoning": "dropped"}


def test_a_document_by_address_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        written(asked(Message("user", (File(url="https://a.example/a.pdf"),))))
    assert caught.value.param == "messages[0].content[0]"


def test_settings_are_written_as_far_as_they_go() -> None:
    settings = Settings(90, 0.0, 0.5, 4, 0.1, 0.2, 7, ("a", "b", "c", "d", "e"), None, 20_000, True, False, "flex",
                        "u", "low", "k")  # fmt: skip
    body, losses = written(asked(settings=settings, tools=(Tool("w"),), output=OutputFormat(SCHEMA, "p", "P.", True)))
    assert {name: value for name, value in body.items() if name not in ("messages", "tools", "model")} == {
        "max_completion_tokens": 90, "temperature": 0.0, "top_p": 0.5, "frequency_penalty": 0.1,
        "presence_penalty": 0.2, "seed": 7, "stop": ["a", "b", "c", "d"], "reasoning_effort": "high",
        "parallel_tool_calls": False, "service_tier": "flex", "user": "u", "verbosity": "low",
        "prompt_cache_key": "k",
        "response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA, "description": "P.",
                                                                   "strict": True}},
    }  # fmt: skip
    assert losses == {
        "top_k": "dropped", "stop": "changed", "thinking.budget_tokens": "changed", "thinking.display": "hint",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("none"), "none"),
        (ToolChoice("none", ("w",)), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("required", ("w",)), {"type": "function", "function": {"name": "w"}}),
    ],
)
def test_every_form_of_tool_choice_is_written(choice: ToolChoice, expected: object) -> None:
    assert written(asked(tools=(Tool("w"),), tool_choice=choice))[0]["tool_choice"] == expected


def test_nothing_is_said_of_tools_where_there_are_none() -> None:
    body, _ = written(asked(tool_choice=ToolChoice("auto"), settings=Settings(is_parallel=True), output=OutputFormat()))
    assert body.keys() == {"model", "messages", "response_format"}
    assert body["response_format"] == {"type": "json_object"}


# Whole answers.


def answer(message: dict[str, object], finish_reason: object = "stop", **more: object) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "m-1", "choices": [choice]}
    return CHAT.read_answer({**body, **more})


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": "Hi", "refusal": None}, (Text("Hi"),)),
        ({"content": None, "refusal": "No."}, (Refusal("No."),)),
        ({"content": "Hi", "reasoning_content": "Hm"}, (Reasoning("Hm"), Text("Hi"))),
        ({"content": "Hi", "reasoning": "Hm", "reasoning_content": None}, (Reasoning("Hm"), Text("Hi"))),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]},
                         {"type": "text", "text": "Hi"}]},
            (Reasoning("Hm"), Text("Hi")),
        ),
        (
            {"content": "", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}"},
                 "extra_content": {"google": {"thought_signature": "c2ln"}}},
                {"id": "a", "function": {"name": "g", "arguments": {"n": 1}}},
                {"function": {}},
                {"id": "c", "type": "custom", "custom": {"name": "p", "input": "x"}},
            ]},
            (
                ToolCall("a", "f", "{}", state="c2ln"), ToolCall("call_chatcmpl-1_1", "g", '{"n":1}'),
                ToolCall("call_chatcmpl-1_2", "unnamed"), ToolCall("c", "p", "x", is_custom=True),
            ),
        ),
        ({"function_call": {"name": "old", "arguments": "{}"}}, (ToolCall("call_chatcmpl-1_0", "old", "{}"),)),
        ({"content": 5, "tool_calls": "x", "refusal": {}}, ()),
    ],
)  # fmt: skip
def test_every_form_of_message_is_read(message: dict[str, object], parts: tuple[object, ...]) -> None:
    read = answer(message)
    assert read.parts == parts
    assert read.began == Began("chatcmpl-1", "m-1", 5)


@pytest.mark.parametrize(
    ("finish_reason", "has_calls", "reason"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("tool_calls", True, "tool_calls"),
        ("function_call", True, "tool_calls"),
        ("length", True, "length"),
        ("content_filter", False, "filtered"),
        ("eos", False, "stop"),
        (None, False, "stop"),
    ],
)
def test_why_an_answer_ended_is_read(finish_reason: object, has_calls: bool, reason: str) -> None:
    calls = [{"id": "a", "function": {"name": "f", "arguments": "{}"}}] if has_calls else []
    assert answer({"content": "x", "tool_calls": calls}, finish_reason).finished.reason == reason


def test_sources_of_an_answer_are_read() -> None:
    cited = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    annotations = [{"type": "url_citation", "url_citation": cited}, {"type": "file_citation"}, None]
    read = answer({"content": "Hi", "reasoning_content": "Hm", "annotations": annotations})
    assert read.citations == ((1, Citation("https://a.example", "A", 0, 2)),)


@pytest.mark.parametrize(
    "body", [{}, {"choices": []}, {"choices": [{}]}, {"choices": "x"}, {"error": {"message": "x"}}]
)
def test_what_is_no_answer_is_broken(body: dict[str, object]) -> None:
    with pytest.raises(UpstreamBroken):
        CHAT.read_answer(body)


USAGES = [
    (
        "openai",
        {"usage": {"prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
                   "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
                   "completion_tokens_details": {"reasoning_tokens": 20}}},
        Usage(100, 30, 60, 10, 20),
    ),
    (
        "xai leaves the reasoning out",
        {"usage": {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
                   "prompt_tokens_details": {"cached_tokens": 6},
                   "completion_tokens_details": {"reasoning_tokens": 94}, "cost_in_usd_ticks": 1}},
        Usage(32, 103, 6, None, 94),
    ),
    ("kimi", {"usage": {"prompt_tokens": 19, "completion_tokens": 21, "cached_tokens": 10}}, Usage(19, 21, 10)),
    (
        "deepseek",
        {"usage": {"prompt_tokens": 19, "completion_tokens": 21, "prompt_cache_hit_tokens": 0,
                   "prompt_cache_miss_tokens": 19, "completion_tokens_details": {"reasoning_tokens": 5}}},
        Usage(19, 21, 0, None, 5),
    ),
    ("groq", {"x_groq": {"id": "r", "usage": {"prompt_tokens": 7, "completion_tokens": 2}}}, Usage(7, 2)),
    ("mistral", {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}, Usage(7, 2)),
    ("null", {"usage": None}, Usage()),
    ("half", {"usage": {"prompt_tokens": 7, "completion_tokens": None}}, Usage(7)),
    ("nonsense", {"usage": {"prompt_tokens": "7", "completion_tokens": -2, "prompt_tokens_details": []}}, Usage()),
    ("no count", {"usage": {"prompt_tokens": 2**64 - 1, "completion_tokens": True}}, Usage()),
]  # fmt: skip


@pytest.mark.parametrize(("body", "usage"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
def test_usage_is_read_as_each_provider_counts_it(body: dict[str, object], usage: Usage) -> None:
    assert usage_of(body) == usage


def test_unknown_usage_is_left_out_never_written_as_nothing() -> None:
    assert write_usage(Usage(7)) is None
    assert write_usage(Usage(7, 2)) == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {},
        "completion_tokens_details": {},
    }


def test_an_answer_is_written() -> None:
    parts = (Reasoning("Hm.", state="s"), Text("Hi"), ToolCall("a", "f"), ToolCall("b", "p", "raw", is_custom=True))
    cited = ((1, Citation("https://a.example")),)
    body = CHAT.write_answer(Answer(parts, Finished("stop"), Usage(7, 2, 1, None, 1), citations=cited), REPLY)
    assert body == {
        "id": "chatcmpl-ab12",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "large",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hi",
                    "refusal": None,
                    "reasoning_content": "Hm.",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "b", "type": "custom", "custom": {"name": "p", "input": "raw"}},
                    ],
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url_citation": {
                                "url": "https://a.example",
                                "title": "https://a.example",
                                "start_index": 0,
                                "end_index": 0,
                            },
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 2,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_why_a_provider_refused_is_told_as_a_refusal() -> None:
    body = CHAT.write_answer(Answer((), Finished("filtered", explanation="Not this.")), REPLY)
    choice = body["choices"][0]  # type: ignore[index]
    assert (choice["finish_reason"], choice["message"]["content"], choice["message"]["refusal"]) == (
        "content_filter",
        None,
        "Not this.",
    )
    assert "usage" not in body


# Streams, read.


def chunk(delta: object = None, finish_reason: object = None, **more: object) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    body = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m-1", "choices": choices, **more}
    return b"data: " + orjson.dumps(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"
FIRST = chunk({"role": "assistant", "content": ""})
STOP = chunk({}, "stop")
BEGAN = Began("c1", "m-1", 5)


def events(*stream: bytes) -> list[Event]:
    reader = CHAT.reader()
    found = [event for piece in stream for event in reader.read(piece)]
    return [*found, *reader.end()]


def called(i: int, arguments: str = "", **more: object) -> dict[str, object]:
    """A delta of one call; ``more`` are its name and id."""
    named = {"name": more.pop("name")} if "name" in more else {}
    return {"tool_calls": [{"index": i, **more, "function": {**named, "arguments": arguments}}]}


def test_a_stream_is_read() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    assert events(
        FIRST, chunk({"reasoning_content": "Hm"}), chunk({"content": "Hi"}), chunk({"content": "!"}), STOP,
        chunk(usage=usage), DONE,
    ) == [
        BEGAN, Opened("reasoning"), Delta("Hm"), Closed(), Opened("text"), Delta("Hi"), Delta("!"),
        UsageSeen(Usage(7, 2)), Closed(), Finished("stop"),
    ]  # fmt: skip


def test_azure_begins_with_a_chunk_of_no_choices() -> None:
    first = {"id": "", "model": "", "created": 0, "prompt_filter_results": [{"prompt_index": 0}]}
    assert events(chunk(**first), FIRST, chunk({"content": "Hi"}), STOP, DONE) == [
        Began("", "", 0),
        Opened("text"),
        Delta("Hi"),
        Closed(),
        Finished("stop"),
    ]


def test_groq_tells_usage_in_a_place_of_its_own() -> None:
    last = chunk({}, "stop", x_groq={"usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    assert events(FIRST, chunk({"reasoning": "Hm"}), last, DONE) == [
        BEGAN, Opened("reasoning"), Delta("Hm"), UsageSeen(Usage(7, 2)), Closed(), Finished("stop"),
    ]  # fmt: skip


def test_mistral_streams_chunks_of_thinking_and_text() -> None:
    thinking = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}
    assert events(FIRST, chunk(thinking), chunk({"content": [{"type": "text", "text": "Hi"}]}), STOP)[1:-1] == [
        Opened("reasoning"), Delta("Hm"), Closed(), Opened("text"), Delta("Hi"), Closed(),
    ]  # fmt: skip


def test_interleaved_calls_wait_in_line() -> None:
    found = events(
        FIRST, chunk({"content": "Look:"}),
        chunk(called(0, name="w", id="a")), chunk(called(1, '{"b"', name="n", id="b")), chunk(called(0, '{"a":1}')),
        chunk(called(1, ":2}")), chunk({}, "tool_calls"), DONE,
    )  # fmt: skip
    assert found == [
        BEGAN, Opened("text"), Delta("Look:"), Closed(),
        Opened("call", "a", "w"), Delta('{"a":1}'), Closed(),
        Opened("call", "b", "n"), Delta('{"b"'), Delta(":2}"), Closed(),
        Finished("tool_calls"),
    ]  # fmt: skip


def test_the_live_call_is_given_as_it_comes() -> None:
    reader = CHAT.reader()
    reader.read(FIRST)
    assert list(reader.read(chunk(called(0, name="w", id="a")))) == [Opened("call", "a", "w")]
    assert list(reader.read(chunk(called(0, '{"ci')))) == [Delta('{"ci')]


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [
            {"index": 0, "id": "a", "function": {"name": "w", "arguments": "{}"}},
            {"index": 0, "id": "b", "function": {"name": "n", "arguments": "{}"}}]}],
        [{"tool_calls": [{"id": "a", "function": {"name": "w", "arguments": "{}"}}]},
         {"tool_calls": [{"id": "b", "function": {"name": "n", "arguments": "{}"}}]}],
        [{"tool_calls": [{"id": "a", "function": {"name": "w", "arguments": ""}}]},
         {"tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]},
         {"tool_calls": [{"id": "b", "function": {"name": "n", "arguments": "{"}}]},
         {"tool_calls": [{"function": {"arguments": "}"}}]}],
        [called(0, name="w", id="a"), called(1, "{", name="n", id="b"), called(0, "{}", name="w", id="a"),
         called(1, "}", name="n", id="b")],
        [called(0, id="a"), called(0, "{}", name="w"), called(1, "{}", name="n", id="b")],
        [called(0, {"x": 1}, name="w", id="a"), called(1, "{}", name="n", id="b")],  # type: ignore[arg-type]
    ],
    ids=["one index for all", "no index, whole", "no index, in pieces", "name with every piece", "late name", "object"],
)  # fmt: skip
def test_two_calls_are_two_whatever_their_deltas_look_like(deltas: list[dict[str, object]]) -> None:
    found = events(FIRST, *(chunk(delta) for delta in deltas), chunk({}, "tool_calls"), DONE)
    assert [event for event in found if isinstance(event, Opened)] == [
        Opened("call", "a", "w"),
        Opened("call", "b", "n"),
    ]
    arguments = "".join(event.text for event in found if isinstance(event, Delta))
    assert arguments in ("{}{}", '{"x":1}{}')


def test_calls_without_ids_and_names_get_some() -> None:
    found = events(FIRST, chunk(called(0, "{}")), chunk(called(1, "{}", name="n")), STOP, DONE)
    assert [event for event in found if isinstance(event, Opened)] == [
        Opened("call", "call_c1_0", "unnamed"),
        Opened("call", "call_c1_1", "n"),
    ]
    assert found[-1] == Finished("tool_calls")


def test_a_custom_call_and_a_legacy_one_are_read() -> None:
    custom = {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "p", "input": "x "}}]}
    more = {"tool_calls": [{"index": 0, "custom": {"input": "y"}}]}
    assert events(chunk(custom), chunk(more), STOP)[1:-1] == [
        Opened("call", "c", "p", True), Delta("x "), Delta("y"), Closed(),
    ]  # fmt: skip
    legacy = [{"function_call": {"name": "old", "arguments": ""}}, {"function_call": {"arguments": "{}"}}]
    assert events(*map(chunk, legacy), chunk({}, "function_call"))[1:] == [
        Opened("call", "call_c1_0", "old"), Delta("{}"), Closed(), Finished("tool_calls"),
    ]  # fmt: skip


def test_a_thought_signature_is_read_with_its_call() -> None:
    delta = called(0, "{}", name="w", id="a", extra_content={"google": {"thought_signature": "c2ln"}})
    assert events(chunk(delta), STOP)[1:3] == [Opened("call", "a", "w"), Delta("{}")]
    assert events(chunk(delta), STOP)[3] == Closed("c2ln")


def test_words_after_a_call_and_refusals_are_blocks_of_their_own() -> None:
    found = events(
        chunk(called(0, "{}", name="w", id="a")), chunk({"content": "So"}), chunk({"refusal": "No"}), STOP, DONE
    )
    assert found[1:-1] == [
        Opened("call", "a", "w"), Delta("{}"), Closed(), Opened("text"), Delta("So"), Closed(),
        Opened("refusal"), Delta("No"), Closed(),
    ]  # fmt: skip


@pytest.mark.parametrize("is_early", [True, False])
def test_sources_are_of_the_text_they_come_with(is_early: bool) -> None:
    cited = {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.example"}}]}
    text = chunk({"content": "Hi"})
    order = (chunk(cited), text) if is_early else (text, chunk(cited))
    assert Closed(citations=(Citation("https://a.example"),)) in events(FIRST, *order, STOP, DONE)


@pytest.mark.parametrize(
    "quirk",
    [
        b": OPENROUTER PROCESSING\n\n",
        b"data:\n\n",
        b"event: ping\ndata: {}\n\n",
        chunk(),
        chunk({}),
        chunk("x"),
        chunk({"content": None, "tool_calls": None, "refusal": None, "function_call": None}),
        chunk({"tool_calls": [None, 5]}),
        b'data: {"choices":null}\n\n',
        b'data: {"choices":[null],"error":null,"usage":null}\n\n',
    ],
)
def test_chunks_that_say_nothing_are_skipped(quirk: bytes) -> None:
    plain = [BEGAN, Opened("text"), Delta("Hi"), Closed(), Finished("stop")]
    assert events(FIRST, chunk({"content": "Hi"}), quirk, STOP, DONE) == plain


@pytest.mark.parametrize(
    "stream",
    [
        b"data:" + chunk({"content": "Hi"})[6:] + STOP + DONE,
        (chunk({"content": "Hi"}) + STOP + DONE).replace(b"\n", b"\r\n"),
        (chunk({"content": "Hi"}) + STOP + DONE).replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + chunk({"content": "Hi"}) + STOP + DONE,
        chunk({"content": "Hi"}) + STOP + b"data: [DONE]",
        chunk({"content": "Hi"}) + STOP,
        chunk({"content": "Hi"}) + STOP.rstrip(),
        chunk({"content": "Hi"}) + chunk({}, "stop", usage={"prompt_tokens": None}) + STOP + DONE,
    ],
    ids=["no space", "crlf", "cr", "bom", "no blank line", "no [DONE]", "neither", "finished twice"],
)
@pytest.mark.parametrize("n_bytes", [1, 7, 10_000])
def test_the_frame_of_a_stream_may_be_any(stream: bytes, n_bytes: int) -> None:
    splitter, reader = EventSplitter(), CHAT.reader()
    found: list[Event] = []
    for start in range(0, len(stream), n_bytes):
        for event in splitter.feed(stream[start : start + n_bytes]):
            found += reader.read(event)
    rest = splitter.rest().rstrip(b"\r\n")
    found += [*(reader.read(rest + b"\n\n") if rest else ()), *reader.end()]
    assert found == [BEGAN, Opened("text"), Delta("Hi"), Closed(), Finished("stop")]


def test_nothing_follows_the_end() -> None:
    reader = CHAT.reader()
    for piece in (FIRST, STOP, DONE):
        reader.read(piece)
    assert (list(reader.read(chunk({"content": "more"}))), list(reader.end())) == ([], [])


@pytest.mark.parametrize("finish_reason", [None, "", 5])
def test_a_stream_that_never_says_why_it_ended_is_not_finished(finish_reason: object) -> None:
    assert not any(isinstance(e, Finished) for e in events(FIRST, chunk({"content": "Hi"}, finish_reason)))
    with pytest.raises(UpstreamBroken):
        events(FIRST, chunk({"content": "Hi"}, finish_reason), DONE)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"message": "Overloaded", "code": "overloaded", "type": "server_error"}, Failed("Overloaded", "overloaded")),
        ({"message": "Overloaded", "code": 529}, Failed("Overloaded", "529")),
        ({"message": "Overloaded", "type": "server_error"}, Failed("Overloaded", "server_error")),
        ("Overloaded", Failed("Overloaded")),
        (["?"], Failed("")),
    ],
)
def test_an_error_ends_the_stream(error: object, failed: Failed) -> None:
    stream = (FIRST, chunk({"content": "Hi"}), chunk({}, "error", error=error), DONE)
    assert events(*stream) == [BEGAN, Opened("text"), Delta("Hi"), failed]


@pytest.mark.parametrize("event", [b"data: {not json\n\n", b"data: [1]\n\n", b"data: <html>\n\n", b'data: "\xff"\n\n'])
def test_what_cannot_be_read_is_broken(event: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        CHAT.reader().read(event)


# Streams, written.


def chunks(given: Answer, reply: Reply = WITH_USAGE, n_characters: int = 0) -> list[object]:
    writer = CHAT.writer(reply)
    stream = b"".join(writer.write(event) for event in events_of(given, n_characters))
    pieces = stream.split(b"\n\n")
    assert pieces.pop() == b""
    assert all(piece.startswith(b"data: ") for piece in pieces)
    return [piece[6:].decode() if piece == b"data: [DONE]" else orjson.loads(piece[6:]) for piece in pieces]


def deltas(given: Answer) -> list[object]:
    return [c["choices"][0]["delta"] for c in chunks(given) if isinstance(c, dict) and c["choices"]]


def test_a_stream_is_written_in_order() -> None:
    given = Answer((Reasoning("Hm"), Text("Hi!")), Finished("length"), Usage(7, 2))
    envelope = {"id": "chatcmpl-ab12", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "large"}

    def one(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, object]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**envelope, "choices": [choice], "usage": None}

    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "prompt_tokens_details": {},
             "completion_tokens_details": {}}  # fmt: skip
    assert chunks(given, n_characters=2) == [
        one({"role": "assistant", "content": ""}),
        one({"reasoning_content": "Hm"}),
        one({"content": "Hi"}),
        one({"content": "!"}),
        one({}, "length"),
        {**envelope, "choices": [], "usage": usage},
        "[DONE]",
    ]


def test_usage_is_written_only_where_it_was_asked_for_and_is_known() -> None:
    plain = chunks(Answer((Text("Hi"),), Finished("stop"), Usage(7, 2)), REPLY)
    assert not any("usage" in piece for piece in plain if isinstance(piece, dict))
    unknown = chunks(Answer((Text("Hi"),), Finished("stop")))
    assert [piece["usage"] for piece in unknown if isinstance(piece, dict)] == [None, None, None]


def test_calls_are_written_with_places_of_their_own_and_arguments_that_can_be_parsed() -> None:
    given = Answer(
        (ToolCall("a", "w", '{"n":1}'), ToolCall("b", "p", "x", is_custom=True), ToolCall("c", "n")), Finished("stop")
    )
    assert deltas(given) == [
        {"role": "assistant", "content": ""},
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "w", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"n":1}'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "custom", "custom": {"name": "p", "input": ""}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "x"}}]},
        {"tool_calls": [{"index": 2, "id": "c", "type": "function", "function": {"name": "n", "arguments": ""}}]},
        {"tool_calls": [{"index": 2, "function": {"arguments": "{}"}}]},
        {},
    ]
    assert chunks(given)[-2]["choices"][0]["finish_reason"] == "tool_calls"  # type: ignore[index]


def test_refusals_sources_and_explanations_are_written() -> None:
    given = Answer((Text("Hi"), Refusal("No")), Finished("filtered", explanation="Not this."),
                   citations=((0, Citation("https://a.example", "A", 0, 2)),))  # fmt: skip
    cited = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
    assert deltas(given) == [
        {"role": "assistant", "content": ""},
        {"content": "Hi"},
        {"annotations": [{"type": "url_citation", "url_citation": cited}]},
        {"refusal": "No"},
        {"refusal": "Not this."},
        {},
    ]


def test_a_failure_is_the_last_thing_written() -> None:
    writer = CHAT.writer(REPLY)
    writer.write(Began())
    told = writer.write(Failed("Overloaded", "overloaded", "server_error"))
    assert told == (
        b'data: {"error":{"message":"Overloaded","type":"server_error","param":null,"code":"overloaded"}}\n\n'
    )
    assert (writer.write(Delta("more")), writer.write(Finished("stop"))) == (b"", b"")


def test_what_is_written_is_read_again() -> None:
    given = Answer((Reasoning("Hm"), Text("Hi"), ToolCall("a", "w", '{"n":1}')), Finished("tool_calls"), Usage(7, 2))
    writer, reader, collector = CHAT.writer(WITH_USAGE), CHAT.reader(), Collector()
    for event in events_of(given, 1):
        for piece in EventSplitter().feed(writer.write(event)):
            for again in reader.read(piece):
                collector.add(again)
    assert collector.answer().parts == given.parts
    assert collector.answer().usage == Usage(7, 2)


# Errors.


def test_errors_are_written_in_the_envelope_of_the_api() -> None:
    error = UpstreamOverloaded("slow down")
    body = {"error": {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}}
    assert CHAT.write_error(error, "req_1") == body
    assert CHAT.error_event(error, "req_1") == b"data: " + orjson.dumps(body) + b"\n\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "No.", "type": "t", "code": "c"}}, ("No.", "c")),
        ({"error": {"message": "No.", "type": "t", "code": None}}, ("No.", "t")),
        ({"error": {"code": 429}}, ("", "429")),
        ({"error": "No."}, ("No.", None)),
        ({"object": "error", "message": "No."}, ("No.", None)),
        ({"choices": []}, None),
    ],
)
def test_errors_are_read_in_every_form(body: dict[str, object], expected: object) -> None:
    assert CHAT.read_error(body) == expected


def test_a_long_name_of_a_user_stays_here() -> None:
    """Claude Code's is a JSON text with the id of a device in it, and OpenAI refuses more than 64 characters."""
    losses = Losses()
    said = Message("user", (Text("Hello."),))
    body = CHAT.write_request(Conversation((said,), settings=Settings(user="u" * 65)), "m", losses)
    assert "user" not in body
    assert [(loss.field, loss.is_hint) for loss in losses] == [("user", True)]
    assert CHAT.write_request(Conversation((said,), settings=Settings(user="u" * 64)), "m", Losses())["user"]


def test_results_stand_right_behind_their_calls() -> None:
    """Codex puts a developer message between a call and its result; Chat refuses that."""
    said = (
        Message("user", (Text("Look."),)),
        Message("assistant", (ToolCall("a", "look"), ToolCall("b", "look"))),
        Message("system", (Text("Be brief."),)),
        Message("user", (ToolResult("a", (Text("1"),)), ToolResult("b", (Text("2"),)), Text("Go on."))),
    )
    body = CHAT.write_request(Conversation(said), "m", Losses())
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "tool", "system", "user"]
