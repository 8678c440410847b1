"""The Gemini dialect: golden requests, answers and streams, one per quirk of the reference."""

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
from serving.dialects.gemini.answer import retry_delay_s
from serving.dialects.gemini.dialect import GEMINI
from serving.dialects.losses import Loss, Losses
from serving.errors import InvalidRequest, UpstreamBroken, UpstreamOverloaded

NEW, MIDDLE, OLD = "gemini-3.1-pro-preview", "gemini-2.5-flash", "gemini-2.0-flash"
REPLY = Reply("req_ab12", "gemini-3.1-pro", 1_790_000_000, {})
WEATHER = Tool("weather", "Look outside.", {"type": "object", "properties": {"city": {"type": "string"}}})


def said(*words: str) -> tuple[Message, ...]:
    """Turns of words only, the user first."""
    return tuple(Message(("user", "assistant")[i % 2], (Text(text),)) for i, text in enumerate(words))


def written(conversation: Conversation, model: str = NEW) -> tuple[dict, dict[str, str]]:
    losses = Losses()
    body = GEMINI.write_request(conversation, model, losses)
    return orjson.loads(orjson.dumps(body)), {loss.field: loss.what for loss in losses}


def configured(settings: Settings, model: str = NEW) -> tuple[dict, dict[str, str]]:
    body, lost = written(Conversation(said("Hi"), settings=settings), model)
    return body.get("generationConfig", {}), lost


def contents(*messages: Message, model: str = NEW) -> list[dict]:
    return written(Conversation(messages), model)[0]["contents"]


def sse(*bodies: object) -> list[bytes]:
    return [b"data: " + orjson.dumps(body) + b"\r\n\r\n" for body in bodies]


def increment(*parts: dict, **candidate: object) -> dict:
    return {"candidates": [{"content": {"role": "model", "parts": list(parts)}, **candidate}], "responseId": "r1"}


def heard(*bodies: object) -> list:
    reader = GEMINI.reader()
    events = [event for one in sse(*bodies) for event in reader.read(one)]
    return [*events, *reader.end()]


# Requests


def test_a_plain_request_is_this():
    conversation = Conversation(
        (
            Message("system", (Text("Be brief."),)),
            Message("system", (Text("Be kind."),)),
            *said("Hi", "Hello!", "Rain?"),
        ),
        tools=(WEATHER, Tool("now")),
        tool_choice=ToolChoice("required", ("weather",)),
        output=OutputFormat({"type": "object"}),
        settings=Settings(
            max_output_tokens=100, temperature=0.5, top_p=0.9, top_k=40, seed=7, stop=("END",), service_tier="default"
        ),
    )
    assert written(conversation) == (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "Hello!"}]},
                {"role": "user", "parts": [{"text": "Rain?"}]},
            ],
            "tools": [
                {
                    "functionDeclarations": [
                        {
                            "name": "weather",
                            "description": "Look outside.",
                            "parametersJsonSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
                        },
                        {"name": "now"},
                    ]
                }
            ],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
            "generationConfig": {
                "maxOutputTokens": 100,
                "temperature": 0.5,
                "topP": 0.9,
                "topK": 40,
                "seed": 7,
                "stopSequences": ["END"],
                "responseMimeType": "application/json",
                "responseJsonSchema": {"type": "object"},
            },
            "serviceTier": "standard",
        },
        {},
    )


def test_results_follow_their_calls_in_order_and_none_is_missing():
    calls = tuple(ToolCall(f"c{i}", name, '{"n": 1}', state="sig" if i == 0 else None) for i, name in enumerate("abcd"))
    body, lost = written(
        Conversation(
            (
                *said("Go"),
                Message("assistant", calls),
                Message("user", (ToolResult("c2", (Text("broke"),), is_error=True), ToolResult("c0", (Text("[1]"),)))),
                Message("user", (ToolResult("c1", (Text('{"ok": true}'),)), Text("And now?"))),
            )
        )
    )
    model, user = body["contents"][1:]
    assert [part["functionCall"] for part in model["parts"]] == [
        {"id": f"c{i}", "name": name, "args": {"n": 1}} for i, name in enumerate("abcd")
    ]
    assert [part.get("thoughtSignature") for part in model["parts"]] == ["sig", None, None, None]
    assert [part["functionResponse"] for part in user["parts"][:4]] == [
        {"id": "c0", "name": "a", "response": {"result": "[1]"}},
        {"id": "c1", "name": "b", "response": {"ok": True}},
        {"id": "c2", "name": "c", "response": {"error": "broke"}},
        {"id": "c3", "name": "d", "response": {"error": "The tool gave no result."}},
    ]
    assert user["parts"][4:] == [{"text": "And now?"}]
    assert lost == {"messages[].tool_calls": "changed"}


def test_the_same_id_in_two_turns_answers_each_its_own_call():
    turns = contents(
        *said("Go"),
        Message("assistant", (ToolCall("x", "a"),)),
        Message("user", (ToolResult("x", (Text("one"),)),)),
        Message("assistant", (ToolCall("x", "b"),)),
        Message("user", (ToolResult("x", (Text("two"),)),)),
    )
    given = [turn["parts"][0]["functionResponse"] for turn in turns[2::2]]
    assert [(one["name"], one["response"]) for one in given] == [("a", {"result": "one"}), ("b", {"result": "two"})]


def test_a_result_without_a_call_is_the_users_words():
    """Trimmed histories begin so."""
    losses = Losses()
    turns = (*said("Go"), Message("user", (ToolResult("x", (Text("one"),)),)))
    written = GEMINI.write_request(Conversation(turns), "gemini-2.5-pro", losses)["contents"]
    assert written == [{"role": "user", "parts": [{"text": "Go"}, {"text": "one"}]}]
    assert [loss.field for loss in losses] == ["messages[].content"]


def signatures(model: str) -> list[object]:
    turns = contents(
        *said("Go"),
        Message("assistant", (ToolCall("old", "a"),)),
        Message("user", (ToolResult("old"),)),
        *said("Again"),
        Message("assistant", (Text("Looking."), ToolCall("c1", "a"), ToolCall("c2", "a"))),
        Message("user", (ToolResult("c1"), ToolResult("c2"), Text("(a reminder)"))),
        Message("assistant", (ToolCall("c3", "a", state="sig"), ToolCall("c4", "a"))),
        Message("user", (ToolResult("c3"), ToolResult("c4"))),
        model=model,
    )
    parts = [part for turn in turns if turn["role"] == "model" for part in turn["parts"] if "functionCall" in part]
    return [part.get("thoughtSignature") for part in parts]


def test_unsigned_first_calls_of_the_current_turn_get_the_documented_bypass():
    # The user's "Again" follows a result, and so does not surely begin a turn; the first call may be signed as well.
    assert signatures(NEW) == [*["skip_thought_signature_validator"] * 2, None, "sig", None]
    assert signatures(MIDDLE) == [None, None, None, "sig", None]
    assert signatures("models/gemini-flash-latest")[0] == "skip_thought_signature_validator"


def test_calls_before_the_last_words_of_the_user_need_no_bypass():
    turns = contents(
        *said("Go"),
        Message("assistant", (ToolCall("c", "a"),)),
        Message("user", (ToolResult("c"),)),
        Message("assistant", (Text("Done."),)),
        *said("Thanks"),
    )
    assert "thoughtSignature" not in turns[1]["parts"][0]


def test_thoughts_go_and_their_signatures_stay():
    message = Message(
        "assistant",
        (Reasoning("Hmm", state="s1"), Text("Yes."), Reasoning(state="s2"), ToolCall("c", "a", "", state="s3")),
    )
    conversation = Conversation((*said("Go"), message))
    body, lost = written(conversation)
    assert body["contents"][1]["parts"] == [
        {"text": "Yes.", "thoughtSignature": "s1"},
        {"text": "", "thoughtSignature": "s2"},
        {"functionCall": {"id": "c", "name": "a", "args": {}}, "thoughtSignature": "s3"},
    ]
    assert lost == {"messages[].reasoning_content": "dropped"}
    read = GEMINI.read_request(body, Losses()).messages[1]
    assert read.parts == (
        Reasoning(state="s1"),
        Text("Yes."),
        Reasoning(state="s2"),
        ToolCall("c", "a", "{}", state="s3"),
    )


def test_later_system_messages_are_said_by_the_user_and_told():
    body, lost = written(Conversation((*said("Hi", "Hello!"), Message("system", (Text("Stop."),)), *said("Why?"))))
    assert body["contents"][2]["parts"] == [{"text": "<system>\nStop.\n</system>"}, {"text": "Why?"}]
    assert lost == {"messages[].role": "changed"}


def test_a_conversation_begins_with_the_user():
    body, lost = written(Conversation((Message("assistant", (Text("Welcome."),)), *said("Hi"))))
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert lost == {"messages": "changed"}
    body, lost = written(Conversation((Message("system", (Text("Write a poem."),)),)))
    assert body == {"contents": [{"role": "user", "parts": [{"text": "Write a poem."}]}]}
    assert lost == {"messages[].role": "changed"}


def test_media_travels_inline_and_only_googles_own_links_as_links():
    parts = (
        Image("image/png", "aaaa", detail="high"),
        Image(url="gs://bucket/cat.png"),
        File("application/pdf", "bbbb", name="a.pdf"),
        File(text="né"),
        Audio("mp3", "cccc"),
        Text(""),
    )
    body, lost = written(Conversation((Message("user", parts),)))
    assert body["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "aaaa"}},
        {"fileData": {"fileUri": "gs://bucket/cat.png"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "bbbb"}},
        {"inlineData": {"mimeType": "text/plain", "data": "bsOp"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": "cccc"}},
    ]
    assert lost == {"messages[].content[].detail": "dropped", "messages[].content[].filename": "dropped"}
    for refused in (Image(url="https://example.com/cat.png"), File("application/msword", "bbbb")):
        with pytest.raises(InvalidRequest) as caught:
            contents(Message("user", (refused,)))
        assert caught.value.code == "unsupported_parameter"


def test_images_in_results_go_inside_them_or_behind():
    messages = (
        *said("Look"),
        Message("assistant", (ToolCall("c", "screen"),)),
        Message("user", (ToolResult("c", (Text("here"), Image("image/png", "aaaa"))),)),
    )
    image = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}
    response = {"id": "c", "name": "screen", "response": {"result": "here"}}
    assert contents(*messages)[2]["parts"] == [{"functionResponse": {**response, "parts": [image]}}]
    body, lost = written(Conversation(messages), MIDDLE)
    assert body["contents"][2]["parts"] == [{"functionResponse": response}, image]
    assert lost == {"messages[].content": "emulated"}


def test_arguments_that_are_no_object_are_kept_as_words():
    body, lost = written(Conversation((*said("Go"), Message("assistant", (ToolCall("c", "a", "[1"),)))))
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"_raw": "[1"}
    assert lost == {"messages[].tool_calls": "changed"}


@pytest.mark.parametrize(
    ("choice", "is_strict", "expected"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        (ToolChoice("auto"), None, {"mode": "AUTO"}),
        (ToolChoice("auto", ("weather",)), None, {"mode": "VALIDATED", "allowedFunctionNames": ["weather"]}),
        (ToolChoice("none"), True, {"mode": "NONE"}),
        (ToolChoice("required"), True, {"mode": "ANY"}),
    ],
)
def test_tool_choices(choice, is_strict, expected):
    tool = Tool("weather", schema={"type": "object"}, is_strict=is_strict)
    body, _ = written(Conversation(said("Hi"), (tool,), choice, settings=Settings(is_parallel=True)))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == expected


@pytest.mark.parametrize(
    ("model", "settings", "expected", "lost"),
    [
        ("gemini-3-pro-preview", Settings(effort="medium"), {"thinkingLevel": "LOW"}, True),
        ("gemini-3-pro-preview", Settings(effort="none"), {"thinkingLevel": "LOW"}, True),
        ("gemini-3.1-pro", Settings(effort="medium"), {"thinkingLevel": "MEDIUM"}, False),
        ("gemini-3-flash-preview", Settings(effort="minimal"), {"thinkingLevel": "MINIMAL"}, False),
        ("gemini-3-flash-preview", Settings(effort="max"), {"thinkingLevel": "HIGH"}, True),
        ("gemini-3.8-flash", Settings(effort="minimal"), {"thinkingLevel": "LOW"}, True),
        ("gemini-3.1-flash-lite", Settings(effort="minimal"), {"thinkingLevel": "MINIMAL"}, False),
        ("gemini-4-pro", Settings(effort="max"), {"thinkingLevel": "XHIGH"}, False),
        ("gemini-3.1-pro", Settings(thinking_budget_tokens=8192), {"thinkingLevel": "MEDIUM"}, True),
        ("gemini-3.1-pro", Settings(thinking_budget_tokens=-1, wants_reasoning=True), {"includeThoughts": True}, False),
        ("gemini-2.5-flash", Settings(effort="none"), {"thinkingBudget": 0}, False),
        ("gemini-2.5-pro", Settings(effort="none"), {"thinkingBudget": 128}, True),
        ("gemini-2.5-pro", Settings(effort="max"), {"thinkingBudget": 32768}, False),
        ("gemini-2.5-flash", Settings(effort="max"), {"thinkingBudget": 24576}, False),
        ("gemini-2.5-flash", Settings(thinking_budget_tokens=-1), {"thinkingBudget": -1}, False),
        ("gemini-2.5-flash", Settings(thinking_budget_tokens=99999), {"thinkingBudget": 24576}, True),
        ("gemini-2.5-flash-lite", Settings(effort="low"), {"thinkingBudget": 1024}, False),
        ("gemini-2.0-flash", Settings(effort="high"), None, True),
        ("gemini-2.0-flash", Settings(effort="none", wants_reasoning=False), None, False),
    ],
)
def test_thinking_by_model(model, settings, expected, lost):
    config, losses = configured(settings, model)
    assert config.get("thinkingConfig") == expected
    assert bool(losses) is lost


def test_what_gemini_lacks_is_told():
    settings = Settings(
        stop=tuple("abcdef"), is_parallel=False, service_tier="scale", user="me", cache_key="k", verbosity="low"
    )
    messages = (Message("user", (Text("Hi", cache_ttl=""),)),)
    losses = Losses()
    body = GEMINI.write_request(Conversation(messages, (WEATHER,), settings=settings), NEW, losses)
    assert body["generationConfig"] == {"stopSequences": list("abcde")}
    assert {loss.field: (loss.what, loss.is_hint) for loss in losses} == {
        "stop": ("changed", False),
        "parallel_tool_calls": ("dropped", False),
        "service_tier": ("dropped", False),
        "user": ("dropped", True),
        "prompt_cache_key": ("dropped", True),
        "verbosity": ("dropped", True),
        "cache_control": ("dropped", False),
    }


def test_penalties_are_for_models_that_do_not_think():
    settings = Settings(frequency_penalty=0.5, presence_penalty=-0.5)
    assert configured(settings, OLD) == ({"frequencyPenalty": 0.5, "presencePenalty": -0.5}, {})
    assert configured(settings, MIDDLE) == ({}, {"frequency_penalty": "dropped", "presence_penalty": "dropped"})


def test_a_request_there_and_back_is_the_same():
    conversation = Conversation(
        (
            Message("system", (Text("Be brief."),)),
            Message(
                "user", (Text("Hi"), Image("image/png", "aaaa"), File("application/pdf", "bb"), Audio("wav", "cc"))
            ),
            Message("assistant", (Reasoning(state="s"), Text("Hm."), ToolCall("c1", "weather", '{"city":"Ulm"}'))),
            Message("user", (ToolResult("c1", (Text("rain"), Image("image/png", "dd"))), Text("So?"))),
        ),
        (WEATHER,),
        ToolChoice("auto", ("weather",)),
        OutputFormat({"type": "object"}),
        Settings(max_output_tokens=9, temperature=1.0, effort="low", wants_reasoning=True, service_tier="flex"),
    )
    body, lost = written(conversation)
    assert not lost
    assert GEMINI.read_request(body, Losses()) == conversation


def test_results_without_ids_find_their_calls_by_name():
    call = {"functionCall": {"name": "a", "args": {"x": 1}}}
    body = {
        "contents": [
            {"parts": [{"text": "Go"}]},
            {"role": "model", "parts": [call, {"functionCall": {"name": "b"}}, call]},
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "b", "response": {"output": "B"}}},
                    {"functionResponse": {"name": "a", "response": {"error": "A1"}}},
                    {"functionResponse": {"name": "a", "response": {"x": 1}}},
                ],
            },
        ],
        "safetySettings": [],
    }
    losses = Losses()
    read = GEMINI.read_request(body, losses)
    assert read.messages[1].parts == (
        ToolCall("call_1", "a", '{"x":1}'),
        ToolCall("call_2", "b", "{}"),
        ToolCall("call_3", "a", '{"x":1}'),
    )
    assert read.messages[2].parts == (
        ToolResult("call_2", (Text("B"),)),
        ToolResult("call_1", (Text("A1"),), is_error=True),
        ToolResult("call_3", (Text('{"x":1}'),)),
    )
    assert list(losses) == [Loss("safetySettings")]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"contents": []}, "contents"),
        ({"contents": [{"role": "tool", "parts": []}]}, "contents[0].role"),
        ({"contents": [{"parts": [{"video": 1}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"functionResponse": {"name": "a", "response": {}}}]}]},
         "contents[0].parts[0].functionResponse"),
        ({"tools": [{"googleSearch": {}}]}, "tools[0]"),
        ({"generationConfig": {"candidateCount": 2}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "HUGE"}}},
         "generationConfig.thinkingConfig.thinkingLevel"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(change, param):
    with pytest.raises(InvalidRequest) as caught:
        GEMINI.read_request({"contents": [{"parts": [{"text": "Hi"}]}], **change}, Losses())
    assert caught.value.param == param
    assert "HUGE" not in caught.value.message


# Answers

ANSWER = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "The user wants rain.", "thought": True},
                    {"text": "Looking.", "thoughtSignature": "s1"},
                    {"executableCode": {"code": "1"}},
                    {"functionCall": {"name": "weather", "args": {"city": "Ulm"}}, "thoughtSignature": "s2"},
                    {"functionCall": {"id": "x9", "name": "now"}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 2,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 24,
    },
    "modelVersion": "gemini-3.1-pro",
    "responseId": "Ab-1.",
}
PARTS = (
    Reasoning("The user wants rain.", is_summary=True),
    Reasoning(state="s1"),
    Text("Looking."),
    ToolCall("call_Ab-1_0", "weather", '{"city":"Ulm"}', state="s2"),
    ToolCall("x9", "now", "{}"),
)
USAGE = Usage(12, 12, 4, None, 7)


def test_a_whole_answer_is_read():
    expected = Answer(PARTS, Finished("tool_calls"), USAGE, Began("Ab-1.", "gemini-3.1-pro"))
    assert GEMINI.read_answer(ANSWER) == expected


def test_a_whole_answer_is_written():
    body = GEMINI.write_answer(Answer(PARTS, Finished("tool_calls"), USAGE), REPLY)
    parts = body["candidates"][0]["content"]["parts"]
    assert parts == [
        {"text": "The user wants rain.", "thought": True},
        {"text": "Looking.", "thoughtSignature": "s1"},
        {
            "functionCall": {"id": "call_Ab-1_0", "name": "weather", "args": {"city": "Ulm"}},
            "thoughtSignature": "s2",
        },
        {"functionCall": {"id": "x9", "name": "now", "args": {}}},
    ]
    assert body["candidates"][0]["finishReason"] == "STOP"
    assert body["usageMetadata"] == {
        "promptTokenCount": 12,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 24,
    }
    assert (body["modelVersion"], body["responseId"]) == ("gemini-3.1-pro", "ab12")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "filtered"),
        ("MODEL_ARMOR", "filtered"),
        ("CONTINUATION", "paused"),
        ("SOMETHING_NEW", "stop"),
        (None, "stop"),
    ],
)
def test_finish_reasons(reason, expected):
    assert GEMINI.read_answer(increment({"text": "x"}, finishReason=reason)).finished == Finished(expected)


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER"])
def test_a_model_that_failed_is_no_answer(reason):
    with pytest.raises(UpstreamBroken, match=reason):
        GEMINI.read_answer(increment({"text": "x"}, finishReason=reason))
    assert heard(increment({"text": "x"}), increment(finishReason=reason))[-1] == Failed(
        f"the model ended its answer with {reason}", reason
    )


@pytest.mark.parametrize("body", [{}, {"candidates": []}, {"candidates": [{}]}, {"candidates": "?"}])
def test_nothing_is_no_answer(body):
    with pytest.raises(UpstreamBroken):
        GEMINI.read_answer(body)
    assert not any(isinstance(event, Finished) for event in heard(body))


def test_a_blocked_prompt_is_an_answer_without_words():
    body = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."},
        "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
    }
    read = GEMINI.read_answer(body)
    assert read == Answer((), Finished("filtered", explanation="No."), Usage(5, 0))
    assert heard(body) == list(events_of(read))


def test_unknown_usage_is_unknown():
    assert GEMINI.read_answer(increment({"text": "x"}, finishReason="STOP")).usage == Usage()
    assert "usageMetadata" not in GEMINI.write_answer(Answer((Text("x"),), Finished("stop")), REPLY)
    assert GEMINI.write_answer(Answer((Text("x"),), Finished("stop"), Usage(3)), REPLY)["usageMetadata"] == {
        "promptTokenCount": 3
    }


def grounded(**segment: int) -> dict:
    return {
        "groundingMetadata": {
            "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}, {"maps": {}}],
            "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0, 1, 7]}],
        }
    }


def test_sources_count_characters_where_gemini_counts_bytes():
    body = increment(
        {"text": "hm", "thought": True}, {"text": "né, ça"}, finishReason="STOP", **grounded(partIndex=1, endIndex=3)
    )
    cited = (1, Citation("https://a.example", "A", 0, 2))
    assert GEMINI.read_answer(body).citations == (cited,)
    answer = Answer((Reasoning("hm", is_summary=True), Text("né, ça")), Finished("stop"), citations=(cited,))
    assert GEMINI.read_answer(GEMINI.write_answer(answer, REPLY)).citations == (cited,)
    assert heard(body)[-2] == Closed(citations=(cited[1],))


# Streams


def test_texts_are_merged_thoughts_are_not_and_usage_is_the_last():
    assert heard(
        {
            **increment({"text": "Hm", "thought": True}),
            "modelVersion": "gemini-3.1-pro",
            "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        },
        increment({"text": "m.", "thought": True}),
        increment({"text": "It "}, {"text": "rains"}),
        increment({"text": "."}, finishReason="STOP"),
        {**increment({"text": ""}), "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3}},
    ) == [
        Began("r1", "gemini-3.1-pro"),
        UsageSeen(Usage(9, 0)),
        Opened("reasoning", is_summary=True),
        Delta("Hm"),
        Delta("m."),
        Closed(),
        Opened("text"),
        Delta("It "),
        Delta("rains"),
        Delta("."),
        UsageSeen(Usage(9, 3)),
        Closed(),
        Finished("stop"),
    ]


def test_calls_come_whole_and_end_with_stop():
    call = {"name": "weather", "args": {"city": "Ulm"}}
    assert heard(
        increment({"functionCall": call, "thoughtSignature": "s"}, {"functionCall": {"name": "now"}}),
        increment({"text": ""}, finishReason="STOP"),
    ) == [
        Began("r1"),
        Opened("call", "call_r1_0", "weather"),
        Delta('{"city":"Ulm"}'),
        Closed("s"),
        Opened("call", "call_r1_1", "now"),
        Delta("{}"),
        Closed(),
        Finished("tool_calls"),
    ]


def test_streamed_arguments_are_put_together():
    def pieces(*given: dict, **more: object) -> dict:
        return increment({"functionCall": {"partialArgs": list(given), **more}})

    events = heard(
        increment({"functionCall": {"name": "book", "id": "b1", "willContinue": True}, "thoughtSignature": "s"}),
        pieces({"jsonPath": "$.city", "stringValue": "U", "willContinue": True}, willContinue=True),
        pieces({"jsonPath": "$.city", "stringValue": "U", "willContinue": True}, willContinue=True),
        pieces({"jsonPath": "$.city", "stringValue": "lm"}, willContinue=True),
        pieces(
            {"jsonPath": "$.days[0].n", "numberValue": 2},
            {"jsonPath": "$.days[1]['o k']", "boolValue": True},
            {"jsonPath": "$.note", "nullValue": "NULL_VALUE"},
            willContinue=True,
        ),
        increment({"functionCall": {}}),
        increment({"text": ""}, finishReason="STOP"),
    )
    assert events == [
        Began("r1"),
        Opened("call", "b1", "book"),
        Delta('{"city":"UUlm","days":[{"n":2},{"o k":true}],"note":null}'),
        Closed("s"),
        Finished("tool_calls"),
    ]


@pytest.mark.parametrize("path", ["city", "$", "$.a[", "$.a[999]", "$[0]", "$" + ".a" * 200])
def test_paths_that_lead_nowhere_break_the_stream(path):
    call = {"name": "f", "willContinue": True, "partialArgs": [{"jsonPath": path, "stringValue": "x"}]}
    with pytest.raises(UpstreamBroken):
        heard(increment({"functionCall": call}))


def test_a_signature_behind_the_text_is_a_block_of_its_own():
    assert heard(increment({"text": "Yes"}), increment({"text": "", "thoughtSignature": "s"}, finishReason="STOP")) == [
        Began("r1"),
        Opened("text"),
        Delta("Yes"),
        Closed(),
        Opened("reasoning"),
        Closed("s"),
        Finished("stop"),
    ]


def test_a_reason_with_every_increment_ends_nothing():
    events = heard(*(increment({"text": text}, finishReason="STOP") for text in "abc"))
    assert events == [
        Began("r1"), Opened("text"), Delta("a"), Delta("b"), Delta("c"), Closed(), Finished("stop")
    ]  # fmt: skip


def test_a_stream_without_a_reason_does_not_finish():
    assert heard(increment({"text": "Yes"})) == [Began("r1"), Opened("text"), Delta("Yes")]


@pytest.mark.parametrize("wrap", [lambda body: body, lambda body: [body]])
def test_an_error_in_the_stream_ends_it(wrap):
    error = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}
    assert heard(increment({"text": "Y"}), wrap(error), increment({"text": "es"}, finishReason="STOP")) == [
        Began("r1"),
        Opened("text"),
        Delta("Y"),
        Failed("Overloaded.", "UNAVAILABLE"),
    ]


def test_unreadable_events_break_the_stream_and_comments_do_not():
    reader = GEMINI.reader()
    assert not [*reader.read(b": ping\n\n"), *reader.read(b"data: [DONE]\n\n"), *reader.read(b"data:\n\n")]
    for event in (b"data: {\n\n", b"data: 1\n\n", b"data: [1]\n\n"):
        with pytest.raises(UpstreamBroken):
            reader.read(event)


def test_a_stream_is_written_and_read_again():
    parts = (
        Reasoning("Hmm", is_summary=True, state="s0"),
        Reasoning(state="s1"),
        Text("né, ça"),
        ToolCall("c1", "weather", '{"city":"Ulm"}', state="s2"),
        Reasoning(state="s3"),
    )
    answer = Answer(
        parts,
        Finished("tool_calls"),
        USAGE,
        Began("ab12", "gemini-3.1-pro"),
        ((2, Citation("https://a.example", "A", 0, 2)),),
    )
    writer, reader, collector = GEMINI.writer(REPLY), GEMINI.reader(), Collector()
    for event in events_of(answer, 2):
        for line in writer.write(event).splitlines(keepends=True):
            if line.strip():
                assert line.startswith(b"data: {")
                for read in reader.read(line + b"\n"):
                    collector.add(read)
    for read in reader.end():
        collector.add(read)
    assert collector.answer() == answer
    assert not writer.write(Delta("more"))


def test_a_stream_looks_like_googles():
    writer = GEMINI.writer(REPLY)
    events = events_of(Answer((Refusal("No."),), Finished("filtered", explanation="Rude."), Usage(2, 1)))
    stream = b"".join(writer.write(event) for event in events)
    same = {"modelVersion": "gemini-3.1-pro", "responseId": "ab12"}
    assert [orjson.loads(line[6:]) for line in stream.split(b"\n\n")[:-1]] == [
        {"candidates": [{"content": {"parts": [{"text": "No."}], "role": "model"}, "index": 0}], **same},
        {
            "candidates": [
                {
                    "content": {"parts": [{"text": ""}], "role": "model"},
                    "index": 0,
                    "finishReason": "SAFETY",
                    "finishMessage": "Rude.",
                }
            ],
            "usageMetadata": {"promptTokenCount": 2, "candidatesTokenCount": 1, "totalTokenCount": 3},
            **same,
        },
    ]


def test_a_failure_is_written_as_an_error():
    writer = GEMINI.writer(REPLY)
    event = writer.write(Failed("Overloaded."))
    assert orjson.loads(event[6:])["error"]["status"] == "UNAVAILABLE"
    assert not writer.write(Finished("stop"))


# Errors


def test_errors_there_and_back():
    error = UpstreamOverloaded("Slow down.", retry_after_s=34.4)
    body = GEMINI.write_error(error, "req_1")
    assert (body["error"]["code"], body["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
    for wrapped in (body, [body]):
        assert GEMINI.read_error(wrapped) == ("Slow down.", "RESOURCE_EXHAUSTED")
        assert retry_delay_s(wrapped) == 34.4
    assert GEMINI.error_event(error, "req_1") == b"data: " + orjson.dumps(body) + b"\n\n"


@pytest.mark.parametrize("body", [{}, [], {"error": "no"}, {"error": {"details": [{"retryDelay": "soon"}, 3]}}, None])
def test_other_bodies_ask_for_no_delay(body):
    assert retry_delay_s(body) is None


def test_an_error_without_a_status_gets_one_from_its_code():
    assert GEMINI.read_error({"error": {"code": 404}}) == ("", "NOT_FOUND")
    assert GEMINI.read_error({"candidates": []}) is None


def test_calls_with_one_id_are_told_apart() -> None:
    part = {"functionCall": {"id": "call_1", "name": "weather"}}
    body = {"candidates": [{"content": {"parts": [part, part, {"functionCall": {"name": "weather"}}]}}]}
    ids = [part.id for part in GEMINI.read_answer(body).parts if isinstance(part, ToolCall)]
    assert len(set(ids)) == 3
    reader = GEMINI.reader()
    events = reader.read(b"data: " + orjson.dumps(body) + b"\n\n")
    assert [event.id for event in events if isinstance(event, Opened)] == ids


def test_sources_told_piece_by_piece_are_all_kept_and_told_again_are_one() -> None:
    def told(*urls: str) -> bytes:
        metadata = {"groundingChunks": [{"web": {"uri": url}} for url in urls]}
        candidate = {"content": {"parts": [{"text": "a"}]}, "groundingMetadata": metadata}
        return b"data: " + orjson.dumps({"candidates": [candidate]}) + b"\n\n"

    reader = GEMINI.reader()
    reader.read(told("https://a.example"))
    reader.read(told("https://a.example", "https://b.example"))
    reader.read(b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n')
    closed = next(event for event in reader.end() if isinstance(event, Closed))
    assert [citation.url for citation in closed.citations] == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize("text", ['{"error":{}}', '{"error":"x"}', '{"output":1}', '{"result":[1]}'])
def test_a_tools_own_words_never_mean_that_it_failed(text: str) -> None:
    call, result = ToolCall("call_1", "weather"), ToolResult("call_1", (Text(text),))
    messages = (*said("?"), Message("assistant", (call,)), Message("user", (result,)))
    body, _ = written(Conversation(messages))
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": text}
    assert GEMINI.read_request(body, Losses()).messages[2].parts == (result,)


@pytest.mark.parametrize(("mode", "what"), [("required", "emulated"), ("none", "dropped"), ("auto", "emulated")])
def test_strict_tools_are_told_in_every_mode(mode: str, what: str) -> None:
    tools = (Tool("weather", schema={"type": "object"}, is_strict=True),)
    _, losses = written(Conversation(said("?"), tools, ToolChoice(mode)))  # type: ignore[arg-type]
    assert losses["tools[].strict"] == what


def test_of_effort_and_budget_one_counts_and_the_other_is_told() -> None:
    both = Settings(effort="high", thinking_budget_tokens=2_000)
    assert configured(both)[1] == {"thinking.budget_tokens": "dropped"}
    assert configured(both, MIDDLE)[1] == {"reasoning_effort": "dropped"}
