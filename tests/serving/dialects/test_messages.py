from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from router.pricing import Usage
from router.text import read
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
from serving.dialects.messages.answer import read_answer, usage_of, write_answer, write_usage
from serving.dialects.messages.body import write_request
from serving.dialects.messages.dialect import MESSAGES
from serving.dialects.messages.errors import error_event, read_error, write_error
from serving.dialects.messages.request import count_extra, outline, read_request
from serving.dialects.messages.stream import MessagesReader, MessagesWriter
from serving.dialects.messages.watch import MessagesStream
from serving.errors import (
    BodyTooLarge,
    GatewayError,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    UpstreamBroken,
    UpstreamDenied,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)
from serving.sse import EventSplitter

HELLO = Message("user", (Text("Hello."),))
WEATHER = Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALLED = Message("assistant", (Text("I look."), ToolCall("toolu_1", "weather", '{"city":"Oslo"}')))
GAVE = Message("user", (ToolResult("toolu_1", (Text("Rain."),)),))
CLAUDE = "claude-opus-4-6"
REPLY = Reply("req_7", "claude", 1_700_000_000, {})


def reading(body: Mapping[str, object], **also: object) -> tuple[Conversation, dict[str, str]]:
    losses = Losses()
    found = read_request({"model": "m", "max_tokens": 100, "messages": [said("user", "Hi")], **body, **also}, losses)
    return found, {loss.field: "hint" if loss.is_hint else loss.what for loss in losses}


def writing(
    *messages: Message, model: str = CLAUDE, tools: tuple[Tool, ...] = (), **rest: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    losses = Losses()
    body = write_request(Conversation(messages or (HELLO,), tools, **rest), model, losses)
    return body, {loss.field: "hint" if loss.is_hint else loss.what for loss in losses}


def said(role: str, content: object) -> dict[str, object]:
    return {"role": role, "content": content}


def refused(body: Mapping[str, object]) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        reading(body)
    return caught.value.param


# Reading requests


def test_every_block_is_read_into_its_part() -> None:
    found, lost = reading(
        {
            "system": [
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            ],
            "messages": [
                said(
                    "user",
                    [
                        {"type": "text", "text": "See."},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                        {"type": "image", "source": {"type": "url", "url": "https://a.b/c.png"}},
                        {
                            "type": "document",
                            "title": "a.pdf",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
                        },
                        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
                        {"type": "document", "source": {"type": "url", "url": "https://a.b/c.pdf"}},
                        {
                            "type": "document",
                            "source": {"type": "content", "content": [{"type": "text", "text": "inner"}]},
                        },
                    ],
                ),
                said(
                    "assistant",
                    [
                        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                        {"type": "redacted_thinking", "data": "dark"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
                    ],
                ),
                said(
                    "user",
                    [
                        {"type": "text", "text": "Well?"},
                        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain.", "is_error": True},
                    ],
                ),
                said("system", "From now on in French."),
            ],
        }
    )
    assert found.messages == (
        Message("system", (Text("Be brief.", ""), Text("Be kind.", "1h"))),
        Message(
            "user",
            (
                Text("See."),
                Image("image/png", "QQ=="),
                Image(url="https://a.b/c.png"),
                File("application/pdf", "QQ==", name="a.pdf"),
                File("text/plain", text="words"),
                File(url="https://a.b/c.pdf"),
                File("text/plain", text="inner"),
            ),
        ),
        Message(
            "assistant",
            (
                Reasoning("Hm.", state="sig"),
                Reasoning(state="dark", is_redacted=True),
                Text("I look."),
                ToolCall("toolu_1", "weather", '{"city":"Oslo"}'),
            ),
        ),
        Message("user", (ToolResult("toolu_1", (Text("Rain."),), is_error=True), Text("Well?"))),
        Message("system", (Text("From now on in French."),)),
    )
    assert lost == {}


def test_settings_are_read() -> None:
    found, lost = reading(
        {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
            "stop_sequences": ["END"],
            "metadata": {"user_id": "u"},
            "service_tier": "standard_only",
            "stream": True,
            "tools": [{"name": "weather", "description": "Tells it.", "input_schema": WEATHER.schema}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        }
    )
    assert found.settings == Settings(
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop=("END",),
        effort="high",
        is_parallel=False,
        service_tier="default",
        user="u",
    )
    assert (found.tools, found.tool_choice, found.is_stream) == ((WEATHER,), ToolChoice("required"), True)
    assert found.output == OutputFormat({"type": "object"})
    assert lost == {}


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, (None, 2048, True)),
        ({"type": "enabled", "budget_tokens": 2048, "display": "omitted"}, (None, 2048, False)),
        ({"type": "adaptive"}, (None, None, True)),
        ({"type": "adaptive", "display": "omitted"}, (None, None, False)),
        ({"type": "disabled"}, ("none", None, None)),
        ({"type": "between_tools"}, ("none", None, None)),
    ],
)
def test_thinking_is_read(thinking: dict[str, object], expected: tuple[object, ...]) -> None:
    settings = reading({"thinking": thinking})[0].settings
    assert (settings.effort, settings.thinking_budget_tokens, settings.wants_reasoning) == expected


def test_the_mark_of_the_whole_request_is_put_on_the_last_part_that_can_carry_one() -> None:
    call = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
    messages = [said("user", "Hi"), said("assistant", [{"type": "text", "text": "So"}, call])]
    found, _ = reading({"messages": messages, "cache_control": {"type": "ephemeral", "ttl": "5m"}})
    assert found.messages[1].parts == (Text("So", "5m"), ToolCall("t", "weather", "{}"))
    assert found.messages[0].parts == (Text("Hi"),)


def test_what_has_no_place_is_told_by_its_class() -> None:
    _, lost = reading(
        {
            "system": [{"type": "text", "text": "x-anthropic-billing-header: v=1"}, {"type": "text", "text": "Hi."}],
            "context_management": {"edits": []},
            "diagnostics": {},
            "speed": "fast",
            "mcp_servers": [],
            "inference_geo": "global",
            "the words of somebody": 1,
            "thinking": {"type": "between_tools"},
            "tools": [
                {"name": "weather", "input_schema": {}, "defer_loading": True, "eager_input_streaming": True},
                {"type": "web_search_20260318", "name": "web_search"},
            ],
        }
    )
    assert lost == {
        "system[0]": "hint",
        "context_management": "dropped",
        "diagnostics": "hint",
        "speed": "dropped",
        "(unknown)": "dropped",
        "thinking.type": "changed",
        "tools[0].defer_loading": "dropped",
        "tools[0].eager_input_streaming": "hint",
        "tools[1]": "dropped",
    }


SEARCH = {"type": "web_search_20260318", "name": "web_search"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [said("tool", "Hi")]}, "messages[0].role"),
        ({"messages": [said("user", None)]}, "messages[0].content"),
        ({"messages": [said("user", [{"type": "search_result"}])]}, "messages[0].content[0]"),
        ({"messages": [said("user", [{"type": "container_upload"}])]}, "messages[0].content[0]"),
        ({"messages": [said("user", [{"text": "Hi"}])]}, "messages[0].content[0].type"),
        ({"messages": [said("assistant", [{"type": "server_tool_use"}])]}, "messages[0].content[0]"),
        (
            {"messages": [said("user", [{"type": "image", "source": {"type": "file", "file_id": "f"}}])]},
            "messages[0].content[0].source",
        ),
        (
            {
                "messages": [
                    said("user", [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference"}]}])
                ]
            },
            "messages[0].content[0].content[0]",
        ),
        (
            {"messages": [said("assistant", [{"type": "tool_use", "id": "t", "name": 1}])]},
            "messages[0].content[0].name",
        ),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, "tool_choice"),
        ({"tools": [SEARCH], "tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"effort": "extreme"}}, "output_config.effort"),
        ({"stop_sequences": [1]}, "stop_sequences"),
    ],
)
def test_what_cannot_be_or_would_mean_something_else_is_refused_with_its_path(
    body: dict[str, object], param: str
) -> None:
    assert refused(body) == param


# What routing reads


def test_the_outline_shares_contents_and_never_takes_results_for_the_humans_words() -> None:
    text = "x" * 10_000
    body: dict[str, object] = {
        "system": [{"type": "text", "text": text}],
        "messages": [
            said("user", "Fix the bug."),
            said("assistant", [{"type": "tool_use", "id": "t", "name": "read", "input": {"path": "a" * 20}}]),
            said("user", [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": text}]}]),
        ],
    }
    outlined = outline(body)
    assert [message["role"] for message in outlined] == ["system", "user", "assistant", "tool"]
    assert outlined[0]["content"] is body["system"]
    prompt = read(outlined)
    assert prompt.text == "Fix the bug."
    assert prompt.shape.n_characters == 10_000 + len("Fix the bug.") + 20 + 10_000


def test_the_humans_words_beside_results_and_reminders_are_found() -> None:
    blocks = [
        {"type": "tool_result", "tool_use_id": "t", "content": "no words of anybody"},
        {"type": "text", "text": "<system-reminder>Be good.</system-reminder>"},
        {"type": "text", "text": "Now write a test."},
        {"type": "image", "source": {"type": "url", "url": "https://a.b"}},
    ]
    prompt = read(outline({"messages": [said("user", "Before."), said("user", blocks)]}))
    assert (prompt.text, prompt.shape.has_images) == ("Now write a test.", True)


def test_tools_and_schemas_count_besides() -> None:
    tools = [{"name": "weather"}]
    form = {"type": "json_schema", "schema": {}}
    n = len('[{"name":"weather"}]') + len('{"type":"json_schema","schema":{}}')
    assert count_extra({"tools": tools, "output_config": {"format": form}}) == n
    assert count_extra({"tools": [], "output_config": {"effort": "low"}}) == 0


# Writing requests


def test_a_whole_request_is_written() -> None:
    body, lost = writing(
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("See."), Image("image/png", "QQ=="), File("application/pdf", "QQ==", name="a.pdf"))),
        CALLED,
        GAVE,
        tools=(WEATHER,),
        tool_choice=ToolChoice("required", ("weather",)),
        output=OutputFormat({"type": "object"}),
        settings=Settings(
            max_output_tokens=50, temperature=0.2, stop=("END",), is_parallel=False, user="u", service_tier="auto"
        ),
        is_stream=True,
    )
    assert body == {
        "model": CLAUDE,
        "messages": [
            said(
                "user",
                [
                    {"type": "text", "text": "See."},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "QQ=="},
                        "title": "a.pdf",
                    },
                ],
            ),
            said(
                "assistant",
                [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
                ],
            ),
            said("user", [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Rain."}]),
        ],
        "max_tokens": 50,
        "system": "Be brief.",
        "tools": [{"name": "weather", "description": "Tells it.", "input_schema": WEATHER.schema}],
        "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        "temperature": 0.2,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
        "stream": True,
    }
    assert lost == {}


def test_a_system_prompt_of_blocks_stays_one_in_its_order() -> None:
    body, _ = writing(Message("system", (Text("A"), Text("B", "1h"))), Message("system", (Text("C", ""),)), HELLO)
    assert body["system"] == [
        {"type": "text", "text": "A"},
        {"type": "text", "text": "B", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "C", "cache_control": {"type": "ephemeral"}},
    ]


def test_a_later_system_message_is_the_users_and_delimited() -> None:
    body, lost = writing(HELLO, Message("system", (Text("In French."),)), Message("user", (Text("Go."),)))
    assert body["messages"] == [
        said(
            "user",
            [
                {"type": "text", "text": "Hello."},
                {"type": "text", "text": "<system>\nIn French.\n</system>"},
                {"type": "text", "text": "Go."},
            ],
        )
    ]
    assert lost == {"messages[1].role": "changed"}


def test_a_conversation_of_a_system_prompt_alone_is_the_users() -> None:
    body, lost = writing(Message("system", (Text("Say hello."),)))
    assert "system" not in body
    assert body["messages"][0]["role"] == "user"
    assert lost == {"messages[0].role": "changed"}


def test_blank_text_is_left_out_and_neighbours_are_merged() -> None:
    body, _ = writing(
        HELLO, Message("assistant", (Text(""),)), Message("user", (Text(" \n"), Text("More."))), Message("user", ())
    )
    assert body["messages"] == [
        said("user", [{"type": "text", "text": "Hello."}, {"type": "text", "text": "More."}]),
    ]


def test_results_come_first_one_for_each_call() -> None:
    called = Message("assistant", (ToolCall("a", "weather"), ToolCall("b", "weather", "{}")))
    gave = (Message("user", (Text("Well?"),)), Message("user", (ToolResult("b", is_error=True),)))
    body, lost = writing(HELLO, called, *gave, tools=(WEATHER,))
    results = body["messages"][2]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result", "text"]
    assert results[0] == {"type": "tool_result", "tool_use_id": "b", "content": "", "is_error": True}
    assert (results[1]["tool_use_id"], results[1]["is_error"]) == ("a", True)
    assert lost == {"messages[2].content[0]": "changed"}


def test_calls_that_nobody_answered_are_answered_at_the_end() -> None:
    body, lost = writing(HELLO, CALLED, tools=(WEATHER,))
    assert body["messages"][-1]["content"][0]["tool_use_id"] == "toolu_1"
    assert lost == {"messages[1].tool_calls": "changed"}


def test_a_result_without_its_call_becomes_text() -> None:
    body, lost = writing(Message("user", (ToolResult("gone", (Text("Rain."),)), Text("Well?"))))
    assert body["messages"] == [said("user", [{"type": "text", "text": "Rain."}, {"type": "text", "text": "Well?"}])]
    assert lost == {"messages[0].content[0]": "changed"}


def test_ids_are_written_in_allowed_characters_and_once_each_with_their_results() -> None:
    body, lost = writing(
        HELLO,
        Message("assistant", (ToolCall("functions.bash:0", "bash"), ToolCall("functions.bash:0", "bash"))),
        Message("user", (ToolResult("functions.bash:0", (Text("1"),)), ToolResult("functions.bash:0", (Text("2"),)))),
        Message("assistant", (ToolCall("functions.bash:0", "bash"),)),
        Message("user", (ToolResult("functions.bash:0", (Text("3"),)),)),
        tools=(WEATHER,),
    )
    turns = [message["content"] for message in body["messages"]]
    assert [call["id"] for call in (*turns[1], *turns[3])] == [
        "functions_bash_0",
        "functions_bash_0_2",
        "functions_bash_0_3",
    ]
    assert [(result["tool_use_id"], result["content"]) for result in (*turns[2], *turns[4])] == [
        ("functions_bash_0", "1"),
        ("functions_bash_0_2", "2"),
        ("functions_bash_0_3", "3"),
    ]
    assert lost == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ("{}", {}), ('{"a": 1}', {"a": 1}), ("[1]", {"_raw": "[1]"}), ('{"a"', {"_raw": '{"a"'})],
)
def test_arguments_become_an_object(arguments: str, expected: object) -> None:
    body, _ = writing(HELLO, Message("assistant", (ToolCall("t", "weather", arguments),)), tools=(WEATHER,))
    assert body["messages"][1]["content"][0]["input"] == expected


def test_signed_thoughts_go_back_first_and_others_only_to_those_who_sign_nothing() -> None:
    thought = (
        Text("So."),
        Reasoning("Hm.", state="sig"),
        Reasoning(state="dark", is_redacted=True),
        Reasoning("Foreign."),
    )
    signed = [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "dark"},
    ]
    body, lost = writing(HELLO, Message("assistant", thought), HELLO)
    assert body["messages"][1]["content"] == [*signed, {"type": "text", "text": "So."}]
    assert lost == {"messages[1].reasoning": "dropped"}
    body, lost = writing(HELLO, Message("assistant", thought), HELLO, model="deepseek-v4")
    assert body["messages"][1]["content"][2] == {"type": "thinking", "thinking": "Foreign.", "signature": ""}
    assert lost == {}


def test_thoughts_between_calls_stay_there() -> None:
    parts = (Reasoning("1", state="s"), ToolCall("a", "weather"), Reasoning("2", state="t"), ToolCall("b", "weather"))
    body, _ = writing(HELLO, Message("assistant", parts), tools=(WEATHER,))
    kinds = [block["type"] for block in body["messages"][1]["content"]]
    assert kinds == ["thinking", "tool_use", "thinking", "tool_use"]


ALL_OFF = {"type": "disabled"}


@pytest.mark.parametrize(
    ("model", "settings", "expected", "lost"),
    [
        # Newest: always on, effort only.
        ("claude-opus-5-5", {"effort": "xhigh"}, {"thinking": {"type": "adaptive"}, "effort": "xhigh"}, {}),
        ("claude-fable-5", {"effort": "none"}, {"effort": "low"}, {"reasoning_effort": "changed"}),
        ("claude-sonnet-5-5", {"effort": "none"}, {"thinking": {"type": "between_tools"}}, {}),
        ("claude-haiku-5-5", {"effort": "none"}, {"thinking": ALL_OFF}, {}),
        (
            "claude-haiku-5-5",
            {"effort": "minimal", "wants_reasoning": True},
            {"thinking": {"type": "adaptive", "display": "summarized"}, "effort": "low"},
            {"reasoning_effort": "changed"},
        ),
        (
            "us.anthropic.claude-opus-4-6-v1",
            {"effort": "xhigh"},
            {"thinking": {"type": "adaptive"}, "effort": "high"},
            {"reasoning_effort": "changed"},
        ),
        (
            "claude-opus-4-8",
            {"thinking_budget_tokens": 8_000},
            {"thinking": {"type": "adaptive"}, "effort": "medium"},
            {"thinking": "changed"},
        ),
        # A budget, and beside it an effort.
        (
            "claude-opus-4-5-20251101",
            {"effort": "low", "max_output_tokens": 5_000},
            {"max_tokens": 5_000, "thinking": {"type": "enabled", "budget_tokens": 1_024}, "effort": "low"},
            {},
        ),
        # A budget alone: it makes room for itself, or is cut, or raises a limit that has no room for the least one.
        (
            "claude-sonnet-4-5",
            {"effort": "high"},
            {"max_tokens": 32_768, "thinking": {"type": "enabled", "budget_tokens": 24_576}},
            {},
        ),
        (
            "claude-sonnet-4-20250514",
            {"effort": "high", "max_output_tokens": 8_000},
            {"max_tokens": 8_000, "thinking": {"type": "enabled", "budget_tokens": 6_000}},
            {"thinking": "changed"},
        ),
        (
            "claude-haiku-4.5",
            {"thinking_budget_tokens": 512, "max_output_tokens": 100},
            {"max_tokens": 1_124, "thinking": {"type": "enabled", "budget_tokens": 1_024}},
            {"thinking": "changed", "max_tokens": "changed"},
        ),
        ("claude-sonnet-4-5", {"thinking_budget_tokens": 0}, {"thinking": ALL_OFF}, {}),
        # None at all, and others than Claude.
        ("claude-3-5-haiku-latest", {"effort": "high"}, {}, {"reasoning_effort": "dropped"}),
        ("claude-3-5-haiku-latest", {"effort": "none"}, {}, {}),
        ("deepseek-v4", {"effort": "none"}, {"thinking": ALL_OFF}, {}),
        (
            "kimi-k3",
            {"thinking_budget_tokens": -1, "max_output_tokens": 20_000},
            {"max_tokens": 20_000, "thinking": {"type": "enabled", "budget_tokens": 8_192}},
            {},
        ),
        ("claude-opus-5-5", {}, {}, {}),
    ],
)
def test_thinking_is_written_as_each_generation_takes_it(
    model: str, settings: dict[str, Any], expected: dict[str, object], lost: dict[str, str]
) -> None:
    body, told = writing(model=model, settings=Settings(**settings))
    effort = {"output_config": {"effort": expected.pop("effort")}} if "effort" in expected else {}
    wanted = {"max_tokens": settings.get("max_output_tokens", 8_192), **expected, **effort}
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == wanted
    assert told == lost


def test_a_tool_loop_whose_thoughts_are_lost_goes_on_without_thinking_where_budgets_demand_them() -> None:
    body, lost = writing(
        HELLO, CALLED, GAVE, tools=(WEATHER,), model="claude-sonnet-4-5", settings=Settings(effort="high")
    )
    assert body["thinking"] == {"type": "disabled"}
    assert lost == {"reasoning_effort": "changed"}
    signed = Message("assistant", (Reasoning("Hm.", state="sig"), *CALLED.parts))
    body, _ = writing(
        HELLO, signed, GAVE, tools=(WEATHER,), model="claude-sonnet-4-5", settings=Settings(effort="high")
    )
    assert body["thinking"]["type"] == "enabled"
    body, _ = writing(HELLO, CALLED, GAVE, tools=(WEATHER,), settings=Settings(effort="high"))
    assert body["thinking"] == {"type": "adaptive"}


def test_thinking_excludes_forced_tools_and_sampling() -> None:
    body, lost = writing(
        tools=(WEATHER,), tool_choice=ToolChoice("required"), settings=Settings(effort="low", temperature=0.5, top_k=3)
    )
    assert body["tool_choice"] == {"type": "auto"}
    assert "temperature" not in body
    assert lost == {"tool_choice": "changed", "temperature": "dropped", "top_k": "dropped"}


@pytest.mark.parametrize(
    ("model", "settings", "sent", "lost"),
    [
        ("claude-sonnet-4-5", {"temperature": 1.5}, {"temperature": 1.0}, {"temperature": "changed"}),
        ("claude-sonnet-4-5", {"temperature": 0.1, "top_p": 0.9}, {"temperature": 0.1}, {"top_p": "dropped"}),
        ("claude-sonnet-4-5", {"top_p": 0.9, "top_k": 4}, {"top_p": 0.9, "top_k": 4}, {}),
        ("claude-opus-4-7", {"temperature": 0.1}, {}, {"temperature": "dropped"}),
        ("glm-5", {"temperature": 1.5, "top_p": 0.9}, {"temperature": 1.5, "top_p": 0.9}, {}),
        (
            "glm-5",
            {"seed": 1, "frequency_penalty": 0.1, "presence_penalty": 0.2, "service_tier": "flex", "verbosity": "low"},
            {},
            {
                "seed": "dropped",
                "frequency_penalty": "dropped",
                "presence_penalty": "dropped",
                "service_tier": "dropped",
                "verbosity": "hint",
            },
        ),
    ],
)
def test_sampling_is_written_as_far_as_the_model_takes_it(
    model: str, settings: dict[str, Any], sent: dict[str, object], lost: dict[str, str]
) -> None:
    body, told = writing(model=model, settings=Settings(**settings))
    assert {name: value for name, value in body.items() if name not in ("model", "messages", "max_tokens")} == sent
    assert told == lost


OTHER = Tool("clock")


@pytest.mark.parametrize(
    ("model", "choice", "written", "names", "lost"),
    [
        (CLAUDE, ToolChoice("none"), {"type": "none"}, ["weather", "clock"], {}),
        (CLAUDE, ToolChoice("required"), {"type": "any"}, ["weather", "clock"], {}),
        (CLAUDE, ToolChoice("required", ("clock",)), {"type": "tool", "name": "clock"}, ["weather", "clock"], {}),
        (CLAUDE, ToolChoice("auto", ("clock",)), {"type": "auto"}, ["clock"], {"tools": "changed"}),
        (
            "claude-opus-5-5",
            ToolChoice("required", ("clock",)),
            {"type": "auto"},
            ["clock"],
            {"tools": "changed", "tool_choice": "changed"},
        ),
    ],
)
def test_tool_choice_is_written(
    model: str, choice: ToolChoice, written: object, names: list[str], lost: dict[str, str]
) -> None:
    body, told = writing(tools=(WEATHER, OTHER), tool_choice=choice, model=model)
    assert body["tool_choice"] == written
    assert [tool["name"] for tool in body["tools"]] == names
    assert told == lost


def test_one_tool_at_a_time_is_said_even_without_a_choice() -> None:
    body, _ = writing(tools=(OTHER,), settings=Settings(is_parallel=False))
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert body["tools"] == [{"name": "clock", "input_schema": {"type": "object", "properties": {}}}]


def test_calls_of_tools_nobody_declares_declare_them_uncallable() -> None:
    body, _ = writing(HELLO, CALLED, GAVE)
    assert body["tools"] == [{"name": "weather", "input_schema": {"type": "object", "properties": {}}}]
    assert body["tool_choice"] == {"type": "none"}


def test_any_json_object_is_asked_for_in_words() -> None:
    body, lost = writing(Message("system", (Text("Be brief."),)), HELLO, output=OutputFormat())
    assert body["system"][0] == {"type": "text", "text": "Be brief."}
    assert "JSON object" in body["system"][1]["text"]
    assert "output_config" not in body
    assert lost == {"response_format": "emulated"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ((Message("assistant", (Text("Hi."),)), HELLO), "messages[0]"),
        ((Message("system", (Text("S"),)), Message("assistant", (Text("Hi."),)), HELLO), "messages[1]"),
        ((Message("user", (Audio("wav", "QQ=="),)),), "messages[0].content[0]"),
        ((Message("user", (File("application/msword", "QQ=="),)),), "messages[0].content[0]"),
        ((Message("user", (Text(""),)),), "messages"),
    ],
)
def test_what_cannot_be_said_is_refused(messages: tuple[Message, ...], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        writing(*messages)
    assert caught.value.param == param


def test_documents_and_images_are_written_by_their_kind() -> None:
    parts = (Image(url="https://a.b/c.png", detail="low"), File("text/csv", "YSxi"), File(url="https://a.b/c.pdf"))
    body, lost = writing(Message("user", parts))
    assert [block["source"] for block in body["messages"][0]["content"]] == [
        {"type": "url", "url": "https://a.b/c.png"},
        {"type": "text", "media_type": "text/plain", "data": "a,b"},
        {"type": "url", "url": "https://a.b/c.pdf"},
    ]
    assert lost == {"messages[0].content[0].detail": "hint"}


def test_a_request_there_and_back_is_the_same() -> None:
    conversation = Conversation(
        (
            Message("system", (Text("Be brief.", ""), Text("Be kind."))),
            Message(
                "user", (Text("See."), Image("image/png", "QQ==", cache_ttl="5m"), File(url="https://a.b", name="n"))
            ),
            Message("assistant", (Reasoning("Hm.", state="s"), Text("So."), ToolCall("toolu_1", "weather", '{"a":1}'))),
            Message(
                "user", (ToolResult("toolu_1", (Text("x"), Image(url="https://c.d")), cache_ttl=""), Text("Well?"))
            ),
        ),
        (WEATHER,),
        ToolChoice("auto"),
        OutputFormat({"type": "object"}),
        Settings(
            max_output_tokens=9_000,
            stop=("a", "b"),
            thinking_budget_tokens=2_000,
            wants_reasoning=True,
            is_parallel=False,
            service_tier="default",
            user="u",
        ),
        is_stream=True,
    )
    losses = Losses()
    body = orjson.loads(orjson.dumps(MESSAGES.write_request(conversation, "claude-sonnet-4-5", losses)))
    assert MESSAGES.read_request(body, losses) == conversation
    assert len(losses) == 0


# Answers


ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5-5",
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "dark"},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
        {
            "type": "text",
            "text": "It rains.",
            "citations": [
                {"type": "web_search_result_location", "url": "https://a.b", "title": "A", "encrypted_index": "e"},
                {"type": "page_location", "document_index": 0},
            ],
        },
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 3,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 2},
    },
}
PARTS = (
    Reasoning("Hm.", state="sig"),
    Reasoning(state="dark", is_redacted=True),
    Text("It rains."),
    ToolCall("toolu_1", "weather", '{"city":"Oslo"}'),
)


def test_an_answer_is_read() -> None:
    assert read_answer(ANSWER) == Answer(
        PARTS,
        Finished("tool_calls"),
        Usage(18, 7, 3, 5, 2),
        Began("msg_1", "claude-opus-5-5"),
        ((2, Citation("https://a.b", "A")),),
    )


def test_an_answer_is_written() -> None:
    cited = Answer(
        PARTS, Finished("tool_calls"), Usage(18, 7, 3, 5, 2), citations=((2, Citation("https://a.b", None, 3, 8)),)
    )
    assert write_answer(cited, REPLY) == {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            ANSWER["content"][0],
            ANSWER["content"][1],
            {
                "type": "text",
                "text": "It rains.",
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "url": "https://a.b",
                        "title": None,
                        "cited_text": "rains",
                        "encrypted_index": "",
                    }
                ],
            },
            ANSWER["content"][5],
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": ANSWER["usage"],
    }


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop_sequence"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "paused"),
        ("refusal", "filtered"),
        ("model_context_window_exceeded", "context_full"),
    ],
)
def test_reasons_go_both_ways(word: str, reason: Any) -> None:
    assert read_answer({"content": [], "stop_reason": word}).finished.reason == reason
    parts = (ToolCall("toolu_1", "weather"),) if reason == "tool_calls" else ()
    assert write_answer(Answer(parts, Finished(reason)), REPLY)["stop_reason"] == word


def test_tools_are_a_reason_only_where_some_are_called() -> None:
    assert write_answer(Answer((), Finished("tool_calls")), REPLY)["stop_reason"] == "end_turn"


def test_refusals_keep_their_explanation() -> None:
    body = {"content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "No."}}
    assert read_answer(body).finished == Finished("filtered", explanation="No.")
    written = write_answer(Answer((Refusal("I will not."),), Finished("stop")), REPLY)
    assert written["content"] == [{"type": "text", "text": "I will not."}]
    assert (written["stop_reason"], written["stop_details"]) == (
        "refusal",
        {"type": "refusal", "category": None, "explanation": "I will not."},
    )


def test_odd_answers_of_compatible_servers_are_read() -> None:
    found = read_answer(
        {
            "content": [
                {"type": "text", "text": ""},
                {"type": "thinking", "thinking": "Hm.", "signature": ""},
                {"type": "tool_use", "id": "", "name": "a", "input": '{"x":1}'},
                {"type": "tool_use", "id": "t", "name": "b"},
                {"type": "tool_use", "id": "t", "name": "c", "input": None},
                "noise",
            ],
            "stop_reason": "end_turn",
        }
    )
    calls = [part for part in found.parts if isinstance(part, ToolCall)]
    assert found.parts[0] == Reasoning("Hm.")
    assert [(call.name, call.arguments) for call in calls] == [("a", '{"x":1}'), ("b", "{}"), ("c", "{}")]
    assert len({call.id for call in calls}) == 3 and all(call.id for call in calls)
    assert found.finished.reason == "tool_calls"
    assert found.usage == Usage()
    with pytest.raises(UpstreamBroken):
        read_answer({"type": "error", "error": {}})


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        ({"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 2}}, Usage(3, None, None, 2)),
        ({"cache_read_input_tokens": 4}, Usage(None, None, 4)),
        ({"input_tokens": "1", "output_tokens": -1}, Usage()),
        (None, Usage()),
    ],
)
def test_usage_is_read_as_totals_and_unknown_stays_unknown(wire: object, usage: Usage) -> None:
    assert usage_of(wire) == usage


def test_written_usage_leaves_the_cache_out_and_is_never_negative() -> None:
    assert write_usage(Usage(10, 2, 4, 1))["input_tokens"] == 5
    assert write_usage(Usage(3, 2, 4, 1))["input_tokens"] == 0
    assert write_usage(Usage())["cache_read_input_tokens"] is None


# Errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("x"), "invalid_request_error"),
        (Unauthenticated("x"), "authentication_error"),
        (NotFound("x"), "not_found_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (UpstreamOverloaded("x"), "rate_limit_error"),
        (UpstreamOverloaded("x", status=529), "overloaded_error"),
        (UpstreamTimeout("x", phase="idle"), "timeout_error"),
        (UpstreamDenied("x"), "api_error"),
    ],
)
def test_errors_are_typed_by_their_status(error: GatewayError, kind: str) -> None:
    assert write_error(error, "req_1") == {
        "type": "error",
        "error": {"type": kind, "message": "x", "details": {"error_code": error.code}},
        "request_id": "req_1",
    }
    assert error_event(error, "req_1") == b"event: error\ndata: %s\n\n" % orjson.dumps(write_error(error, "req_1"))


def test_a_context_that_is_too_long_says_so_in_the_words_clients_look_for() -> None:
    written: Any = write_error(UpstreamRefused("9 tokens", code="context_length_exceeded"), "r")
    assert written["error"]["message"] == "prompt is too long: 9 tokens"


def test_errors_are_read() -> None:
    stable = {"error": {"type": "invalid_request_error", "message": "No.", "details": {"error_code": "file_expired"}}}
    assert read_error(stable) == ("No.", "file_expired")
    assert read_error({"error": {"type": "overloaded_error", "message": "No."}}) == ("No.", "overloaded_error")
    assert read_error({"content": []}) is None


# Reading streams


def sse(*events: Mapping[str, object], end: bytes = b"\n") -> bytes:
    lines = (b"event: %s%sdata: %s" % (str(e["type"]).encode(), end, orjson.dumps(e)) for e in events)
    return b"".join(line + end + end for line in lines)


def start(index: int, block: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **change: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": change}


def words(index: int, text: str) -> dict[str, object]:
    return delta(index, type="text_delta", text=text)


def arguments(index: int, text: str) -> dict[str, object]:
    return delta(index, type="input_json_delta", partial_json=text)


def stop(index: int) -> dict[str, object]:
    return {"type": "content_block_stop", "index": index}


def begin(**usage: object) -> dict[str, object]:
    return {"type": "message_start", "message": {"id": "msg_1", "model": "c", "content": [], "usage": usage}}


def ended(reason: object = "end_turn", **usage: object) -> dict[str, object]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


TEXT = {"type": "text", "text": ""}
STOP = {"type": "message_stop"}


def call(call_id: str, name: str = "weather", **given: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def events(stream: bytes) -> list[Event]:
    reader, splitter = MessagesReader(), EventSplitter()
    found: list[Event] = []
    for i in range(len(stream)):
        for event in splitter.feed(stream[i : i + 1]):
            found.extend(reader.read(event))
    return [*found, *reader.end()]


def collected(stream: bytes) -> Collector:
    collector = Collector()
    for event in events(stream):
        collector.add(event)
    return collector


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_stream_is_read(end: bytes) -> None:
    stream = sse(
        begin(input_tokens=10, cache_read_input_tokens=3, output_tokens=1),
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, type="thinking_delta", thinking="Hm."),
        delta(0, type="signature_delta", signature="sig"),
        stop(0),
        {"type": "ping"},
        start(1, {"type": "redacted_thinking", "data": "dark"}),
        stop(1),
        start(2, TEXT),
        words(2, "It "),
        words(2, "rains."),
        delta(2, type="citations_delta", citation={"url": "https://a.b", "title": "A"}),
        delta(2, type="unheard_of_delta", text="noise"),
        stop(2),
        {"type": "unheard_of"},
        start(3, call("toolu_1")),
        arguments(3, ""),
        arguments(3, '{"city":'),
        arguments(3, '"Oslo"}'),
        stop(3),
        ended("tool_use", input_tokens=None, output_tokens=7, output_tokens_details={"thinking_tokens": 2}),
        STOP,
        end=end,
    )
    assert collected(stream).answer() == Answer(
        PARTS,
        Finished("tool_calls"),
        Usage(13, 7, 3, None, 2),
        Began("msg_1", "c"),
        ((2, Citation("https://a.b", "A")),),
    )


def test_words_are_given_as_they_come() -> None:
    reader = MessagesReader()
    seen = [list(reader.read(sse(event))) for event in (begin(), start(0, TEXT), words(0, "a"), words(0, "b"), stop(0))]
    assert seen == [[Began("msg_1", "c")], [], [Opened("text"), Delta("a")], [Delta("b")], [Closed()]]


def test_calls_without_arguments_or_with_all_of_them_at_once() -> None:
    stream = sse(
        begin(),
        start(0, call("a")),
        stop(0),
        start(1, call("b")),
        arguments(1, ""),
        stop(1),
        start(2, call("c", city="Oslo")),
        stop(2),
        start(3, call("d", city="Oslo")),
        arguments(3, "{}"),
        stop(3),
        ended("end_turn"),
        STOP,
    )
    answer = collected(stream).answer()
    assert [part.arguments for part in answer.parts if isinstance(part, ToolCall)] == ["", "", '{"city":"Oslo"}', "{}"]
    assert answer.finished.reason == "tool_calls"


def test_interleaved_and_unclosed_blocks_are_put_in_order() -> None:
    stream = sse(
        begin(),
        start(0, TEXT),
        words(0, "Both:"),
        start(1, call("a")),
        start(2, call("b")),
        arguments(2, '{"b"'),
        arguments(1, '{"a"'),
        arguments(2, ":2}"),
        arguments(1, ":1}"),
        stop(2),
        stop(1),
        ended("tool_use"),
        STOP,
    )
    found = events(stream)
    n_open = 0
    for event in found:
        n_open += isinstance(event, Opened) - isinstance(event, Closed)
        assert n_open in (0, 1)
    assert collected(stream).answer().parts == (
        Text("Both:"),
        ToolCall("a", "weather", '{"a":1}'),
        ToolCall("b", "weather", '{"b":2}'),
    )


def test_a_message_begun_twice_is_one_and_its_own_tools_are_passed_over() -> None:
    stream = sse(
        begin(input_tokens=4),
        begin(input_tokens=9),
        start(0, {"type": "server_tool_use", "id": "s", "name": "web_search"}),
        arguments(0, '{"query":"x"}'),
        stop(0),
        words(1, "unopened"),
        stop(1),
        start(2, TEXT),
        stop(2),
        ended(output_tokens=1),
        STOP,
        words(3, "after the end"),
    )
    answer = collected(stream).answer()
    assert (answer.parts, answer.usage) == ((Text("unopened"),), Usage(4, 1))
    assert sum(isinstance(event, Began) for event in events(stream)) == 1


def test_the_last_count_that_is_not_null_holds() -> None:
    stream = sse(
        begin(input_tokens=0, output_tokens=0),
        ended(input_tokens=25, output_tokens=3),
        {"type": "message_delta", "delta": {}, "usage": {"input_tokens": None, "output_tokens": 4}},
        STOP,
    )
    assert collected(stream).answer().usage == Usage(25, 4)


def test_no_end_is_made_up() -> None:
    found = events(sse(begin(), start(0, TEXT), words(0, "a"), stop(0), ended("end_turn", output_tokens=1)))
    assert not any(isinstance(event, Finished | Failed) for event in found)


def test_an_error_ends_the_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}
    assert events(sse(begin(), error, STOP))[-1] == Failed("Busy.", "overloaded_error", "overloaded_error")


def test_events_of_odd_shape_say_nothing_and_break_nothing() -> None:
    odd: list[dict[str, object]] = [
        {"type": "message_start", "message": 1},
        {"type": "content_block_start", "index": {}, "content_block": {"type": ["text"]}},
        {"type": "content_block_delta", "index": [0], "delta": {"type": {}, "text": 1}},
        {"type": "content_block_stop", "index": "0"},
        {"type": "message_delta", "delta": {"stop_reason": ["x"]}, "usage": [1]},
        {"type": "message_stop"},
    ]
    assert events(sse(*odd)) == [Began(), Finished("stop")]


def test_what_is_not_json_is_broken() -> None:
    with pytest.raises(UpstreamBroken):
        MessagesReader().read(b'event: message_start\ndata: {"type"\n\n')


# Writing streams


def written(*neutral: Event) -> list[tuple[str, dict[str, Any]]]:
    writer = MessagesWriter(REPLY)
    stream = b"".join(writer.write(event) for event in neutral)
    return list(_lines(stream))


def _lines(stream: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for event in stream.removesuffix(b"\n\n").split(b"\n\n") if stream else ():
        name, data = event.split(b"\n")
        assert name.startswith(b"event: ") and data.startswith(b"data: ")
        yield name[7:].decode(), orjson.loads(data[6:])


def test_a_stream_is_written() -> None:
    found = written(
        Began("x", "y"),
        Opened("reasoning"),
        Delta("Hm."),
        Closed("sig"),
        Opened("reasoning"),
        Closed("dark", is_redacted=True),
        Opened("text"),
        Delta('"Rain"\n'),
        Closed(citations=(Citation("https://a.b"),)),
        Opened("call", "functions.x:0", "weather"),
        Delta('{"a":1}'),
        Closed(),
        UsageSeen(Usage(18, 7, 3, 5, 2)),
        Finished("tool_calls"),
    )
    assert all(name == data["type"] for name, data in found)
    assert [data for _, data in found] == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_7",
                "type": "message",
                "role": "assistant",
                "model": "claude",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": write_usage(Usage()),
            },
        },
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, type="thinking_delta", thinking="Hm."),
        delta(0, type="signature_delta", signature="sig"),
        stop(0),
        start(1, {"type": "redacted_thinking", "data": "dark"}),
        stop(1),
        start(2, TEXT),
        words(2, '"Rain"\n'),
        delta(
            2,
            type="citations_delta",
            citation={
                "type": "web_search_result_location",
                "url": "https://a.b",
                "title": None,
                "cited_text": "",
                "encrypted_index": "",
            },
        ),
        stop(2),
        start(3, call("functions_x_0")),
        arguments(3, '{"a":1}'),
        stop(3),
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": ANSWER["usage"],
        },
        STOP,
    ]


def test_empty_blocks_are_not_begun_but_calls_and_hidden_thoughts_are() -> None:
    found = written(
        Began(),
        Opened("text"),
        Closed(),
        Opened("reasoning"),
        Closed(),
        Opened("reasoning"),
        Closed("sig"),
        Opened("call", "a", "weather"),
        Closed(),
        Finished("stop"),
    )
    blocks = [data["content_block"]["type"] for name, data in found if name == "content_block_start"]
    assert blocks == ["thinking", "tool_use"]
    assert [data["index"] for name, data in found if name == "content_block_stop"] == [0, 1]
    assert found[-2][1]["delta"]["stop_reason"] == "tool_use"


def test_a_failure_is_the_last_event() -> None:
    found = written(Began(), Opened("text"), Delta("a"), Failed("Busy.", "x", "server_error"), Finished("stop"))
    assert found[-1] == (
        "error",
        {
            "type": "error",
            "error": {"type": "api_error", "message": "Busy.", "details": {"error_code": "x"}},
            "request_id": "req_7",
        },
    )


def test_refusals_in_a_stream_are_words_and_a_reason() -> None:
    found = written(Began(), Opened("refusal"), Delta("No."), Closed(), Finished("stop"))
    assert found[-2][1]["delta"] == {
        "stop_reason": "refusal",
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": None, "explanation": "No."},
    }


def test_a_stream_there_and_back_is_the_same() -> None:
    answer = Answer(
        (*PARTS, Text("It rains again."), ToolCall("b", "clock", "")),
        Finished("stop_sequence", "END"),
        Usage(18, 7, 3, 5, 2),
        Began("msg_7", "claude"),
        ((2, Citation("https://a.b", "A")),),
    )
    writer = MESSAGES.writer(REPLY)
    stream = b"".join(writer.write(event) for event in events_of(answer, n_characters=3))
    assert collected(stream).answer() == answer


# Watching streams that pass


def test_a_stream_that_passes_is_watched() -> None:
    watch = MessagesStream()
    passing = [
        begin(input_tokens=10, cache_read_input_tokens=3),
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, type="signature_delta", signature="sig"),
        stop(0),
        start(1, {"type": "redacted_thinking", "data": "dark"}),
        start(2, TEXT),
        words(2, 'a "message_stop" and an "error" with a "signature"'),
        ended(output_tokens=7),
    ]
    assert all(watch.pass_on(sse(event)) for event in passing)
    assert (watch.usage, watch.states, watch.n_events) == (Usage(13, 7, 3), ["sig", "dark"], len(passing))
    assert not watch.is_done
    assert watch.pass_on(sse(STOP))
    assert watch.is_done and not watch.is_failed
    assert not watch.pass_on(sse(STOP))


def test_values_that_look_like_the_end_are_not() -> None:
    watch = MessagesStream()
    assert watch.pass_on(sse(start(0, call("a", type="message_stop", error="error"))))
    assert watch.pass_on(b": a comment\n\n") and watch.pass_on(b'event: x\ndata: {"message_stop"\n\n')
    assert not watch.is_done and not watch.is_failed


def test_an_error_that_passes_is_a_failure() -> None:
    watch = MessagesStream()
    assert watch.pass_on(sse({"type": "error", "error": {"type": "api_error", "message": "x"}}))
    assert watch.is_failed and not watch.is_done


def test_the_rest_is_passed_only_whole_and_the_end_never_made_up() -> None:
    watch = MessagesStream()
    for event in (begin(), ended()):
        watch.pass_on(sse(event))
    assert watch.pass_on_rest(b'event: message_stop\ndata: {"type":"mess') == b""
    assert watch.pass_on_rest(b"") == b"" and not watch.is_done
    assert watch.pass_on_rest(sse(STOP).rstrip()) == sse(STOP)
    assert watch.is_done


@pytest.mark.parametrize("end", [b"\r", b"\r\n"])
def test_an_event_is_read_whatever_ends_its_lines(end: bytes) -> None:
    event = b'event: message_stop\ndata: {"type":"message_stop"}'.replace(b"\n", end) + b"\n\n"
    assert [type(found).__name__ for found in MESSAGES.reader().read(event)] == ["Began", "Finished"]


def test_what_is_cached_for_an_hour_is_counted_apart_both_ways() -> None:
    split = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 12}
    given = {"input_tokens": 5, "cache_creation_input_tokens": 42, "cache_creation": split, "output_tokens": 1}
    usage = usage_of(given)
    assert (usage.input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (47, 42, 12)
    assert write_usage(usage)["cache_creation"] == split
    assert "cache_creation" not in write_usage(usage_of({"input_tokens": 5, "cache_creation_input_tokens": 42}))
