"""Custom tools, namespaces and odd names, at providers that know functions with plain names only."""

from __future__ import annotations

import re

import pytest

from serving.dialects.answer import (
    Answer,
    Closed,
    Collector,
    Delta,
    Finished,
    Opened,
    events_of,
)
from serving.dialects.conversation import (
    Conversation,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from serving.dialects.emulation import Emulation
from serving.dialects.losses import Losses

LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
PATCH = Tool("apply_patch", "Change files.", is_custom=True, format=GRAMMAR)
OPEN = Tool("open", schema={"type": "object"}, namespace="files")
HELLO = Message("user", (Text("Hi"),))


def emulated(*tools: Tool, messages: tuple[Message, ...] = (HELLO,), choice: ToolChoice | None = None):
    losses = Losses()
    emulation, plain = Emulation.of(Conversation(messages, tools, choice), losses)
    return emulation, plain, {loss.field: loss.what for loss in losses}


def restored_call(emulation: Emulation, call: ToolCall) -> ToolCall:
    answer = emulation.restore_answer(Answer((Text("Well."), call), Finished("tool_calls")))
    assert answer.parts[0] == Text("Well.")
    part = answer.parts[1]
    assert isinstance(part, ToolCall)
    return part


def test_nothing_to_emulate_costs_nothing():
    conversation = Conversation(
        (HELLO, Message("assistant", (ToolCall("c", "now"),)), Message("user", (ToolResult("c"),))),
        (Tool("now"), Tool("a__b")),
        ToolChoice("required", ("now",)),
    )
    losses = Losses()
    emulation, plain = Emulation.of(conversation, losses)
    assert plain is conversation
    assert emulation.is_idle
    assert not len(losses)
    answer = Answer((ToolCall("c", "now", "{}"),), Finished("tool_calls"))
    assert emulation.restore_answer(answer) is answer
    assert list(emulation.restored(events_of(answer))) == list(events_of(answer))


def test_a_custom_tool_is_a_function_with_one_string():
    emulation, plain, lost = emulated(Tool("now"), PATCH)
    assert plain.tools == (
        Tool("now"),
        Tool(
            "apply_patch",
            "Change files.",
            {
                "type": "object",
                "properties": {
                    "input": {
                        "type": "string",
                        "description": 'Plain text that matches this Lark grammar:\nstart: "a"',
                    }
                },
                "required": ["input"],
                "additionalProperties": False,
            },
        ),
    )
    assert lost == {"tools[1]": "emulated"}
    assert not emulation.is_idle


def test_a_custom_tool_of_plain_text_describes_nothing():
    _, plain, _ = emulated(Tool("note", is_custom=True, format={"type": "text"}))
    assert plain.tools[0].schema is not None
    assert plain.tools[0].schema["properties"] == {"input": {"type": "string"}}


def test_the_history_is_written_in_the_same_words():
    call = ToolCall("c1", "apply_patch", 'say "a"\n', is_custom=True, state="sig")
    _, plain, _ = emulated(
        PATCH,
        OPEN,
        messages=(
            HELLO,
            Message("assistant", (Reasoning("Hm"), call, ToolCall("c2", "open", "{}", namespace="files"))),
            Message("user", (ToolResult("c1", (Text("ok"),), is_custom=True), ToolResult("c2"))),
        ),
    )
    assert plain.messages[1].parts == (
        Reasoning("Hm"),
        ToolCall("c1", "apply_patch", '{"input":"say \\"a\\"\\n"}', state="sig"),
        ToolCall("c2", "files__open", "{}"),
    )
    assert plain.messages[2].parts == (ToolResult("c1", (Text("ok"),)), ToolResult("c2"))


def test_history_of_tools_that_are_gone_is_emulated_as_well():
    call = ToolCall("c1", "old.tool", "raw", is_custom=True)
    emulation, plain, lost = emulated(messages=(HELLO, Message("assistant", (call,))))
    part = plain.messages[1].parts[0]
    assert isinstance(part, ToolCall)
    assert LEGAL.fullmatch(part.name)
    assert part.arguments == '{"input":"raw"}'
    assert not part.is_custom
    assert restored_call(emulation, part) == call
    assert lost == {}


def test_namespaces_are_flattened_and_choices_follow():
    emulation, plain, lost = emulated(
        OPEN, Tool("open", namespace="web"), Tool("close"), choice=ToolChoice("required", ("open", "close", "gone"))
    )
    assert [(tool.name, tool.namespace) for tool in plain.tools] == [
        ("files__open", None),
        ("web__open", None),
        ("close", None),
    ]
    assert plain.tool_choice == ToolChoice("required", ("files__open", "web__open", "close", "gone"))
    assert lost == {"tools[0]": "emulated", "tools[1]": "emulated"}
    assert restored_call(emulation, ToolCall("c", "web__open", "{}")) == ToolCall("c", "open", "{}", namespace="web")
    assert restored_call(emulation, ToolCall("c", "close", "{}")) == ToolCall("c", "close", "{}")


@pytest.mark.parametrize(
    "tool",
    [
        Tool("get.weather"),
        Tool("wetter-für"),
        Tool("n" * 65),
        Tool("open", namespace="n" * 70),
        Tool("open", namespace="my files"),
        Tool("?"),
    ],
)
def test_illegal_names_become_legal_and_come_back(tool):
    emulation, plain, lost = emulated(tool)
    name = plain.tools[0].name
    assert LEGAL.fullmatch(name)
    assert name == emulated(tool)[1].tools[0].name
    assert lost == {"tools[0]": "emulated"}
    back = restored_call(emulation, ToolCall("c", name, "{}"))
    assert (back.name, back.namespace) == (tool.name, tool.namespace)


def test_no_two_tools_share_a_name():
    tools = (
        Tool("b", namespace="a"),
        Tool("a__b"),
        Tool("x.y"),
        Tool("x:y"),
        Tool("b", namespace="a", is_custom=True),
        Tool("a__b", is_custom=True),
    )
    emulation, plain, _ = emulated(*tools)
    names = [tool.name for tool in plain.tools]
    assert len(set(names)) == len(names)
    assert names[1] == "a__b", "what is plain keeps its name"
    assert all(LEGAL.fullmatch(name) for name in names)
    for tool, name in zip(tools, names, strict=True):
        back = restored_call(emulation, ToolCall("c", name, '{"input":"x"}'))
        assert (back.name, back.namespace, back.is_custom) == (tool.name, tool.namespace, tool.is_custom)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"input": "a\\nb"}', "a\nb"),
        ('{"input": ""}', ""),
        ('{"input": 3}', '{"input": 3}'),
        ('{"text": "a"}', '{"text": "a"}'),
        ('{"input": "cut of', '{"input": "cut of'),
        ('["input"]', '["input"]'),
        ("", ""),
    ],
)
def test_the_input_is_unwrapped_or_left_as_it_is(arguments, expected):
    emulation, _, _ = emulated(PATCH)
    call = ToolCall("c", "apply_patch", arguments, state="sig")
    assert restored_call(emulation, call) == ToolCall("c", "apply_patch", expected, is_custom=True, state="sig")


def test_a_stream_gives_the_input_of_a_custom_call_whole_and_the_rest_at_once():
    emulation, _, _ = emulated(PATCH, OPEN)
    assert emulation.restore(Opened("call", "c1", "apply_patch")) == (Opened("call", "c1", "apply_patch", True),)
    assert emulation.restore(Delta('{"input": "a')) == ()
    assert emulation.restore(Delta('b"}')) == ()
    assert emulation.restore(Closed("sig")) == (Delta("ab"), Closed("sig"))
    assert emulation.restore(Opened("call", "c2", "files__open")) == (Opened("call", "c2", "open", False, "files"),)
    assert emulation.restore(Delta("{")) == (Delta("{"),)
    assert emulation.restore(Closed()) == (Closed(),)


def test_a_stream_that_broke_off_leaves_nothing_for_the_next():
    emulation, _, _ = emulated(PATCH)
    emulation.restore(Opened("call", "c1", "apply_patch"))
    emulation.restore(Delta('{"input": "a'))
    assert emulation.restore(Opened("text")) == (Opened("text"),)
    assert emulation.restore(Delta("Hi")) == (Delta("Hi"),)


def test_streams_and_whole_answers_are_restored_alike():
    emulation, _, _ = emulated(PATCH, OPEN)
    answer = Answer(
        (Text("Well."), ToolCall("c1", "apply_patch", '{"input":"a"}'), ToolCall("c2", "files__open", '{"n":1}')),
        Finished("tool_calls"),
    )
    collector = Collector()
    for event in emulation.restored(events_of(answer, 3)):
        collector.add(event)
    assert collector.answer() == emulation.restore_answer(answer)
    assert collector.answer().parts[1] == ToolCall("c1", "apply_patch", "a", is_custom=True)
