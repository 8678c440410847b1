"""There and back again: what a dialect writes it reads as the same, up to the losses it reports.

Every comparison has three parts. *Strategies* make conversations and answers that a dialect can say. A *normalisation*
per dialect (documented at each function) says what its form cannot tell apart: who said ``a`` and then ``b`` has said
``a b``. What differs after that must be covered by a loss in the report, field by field (:data:`COVERS`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from router.pricing import Usage
from serving.dialects.answer import Answer, Citation, Collector, Finished, events_of
from serving.dialects.conversation import (
    EFFORTS,
    Audio,
    Conversation,
    File,
    Image,
    Message,
    OutputFormat,
    Part,
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
from serving.dialects.emulation import Emulation
from serving.dialects.losses import Losses
from serving.dialects.registry import DIALECTS
from serving.sse import EventSplitter

NAMES = ("chat", "responses", "messages", "gemini")
MODELS = {"chat": "m", "responses": "m", "messages": "claude-opus-4-6", "gemini": "gemini-3.1-pro-preview"}
REPLY = Reply("req_ab12", "large", 1_790_000_000, {"stream_options": {"include_usage": True}})
NO_ARGUMENTS = {"type": "object", "properties": {}}
LIMITED = settings(
    # The same examples every time: a deeper run, with other seeds, is a matter of minutes and of a person.
    derandomize=True,
    max_examples=12,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)

# Strategies.

#: Not blank, and without blank ends: Anthropic refuses the one, and the joint between two texts shows neither.
WORDS = st.sampled_from(
    ("a", "Hello there.", "naïve ☃", "日本語", "𝄞 clef", 'quote " and \\ slash', "one\ntwo", "{}", "[DONE]", "data: x",
     "a\r\nb", "x\u2028y", "null", "\x00", "&<b>", "event: error\ndata: {}", "e\u0301", "\\u0000", '{"error":{}}')
)  # fmt: skip
PLAIN = st.builds(
    "".join, st.lists(st.sampled_from(("a", "B", "7", "_", "-", "weather", "tool")), min_size=1, max_size=3)
)
BASE64 = st.sampled_from(("", "AA==", "JVBERi0=", "iVBORw0KGgo="))
OBJECTS = st.sampled_from(
    (
        "",
        "{}",
        '{"city":"Oslo"}',
        '{"n":-1,"x":[1.5,null,true,{"y":""}]}',
        '{"":{"a":{"a":{}}}}',
        '{"t":"\\"q\\" \\n ☃"}',
    )
)
SCHEMAS = st.builds(
    lambda names: {"type": "object", "properties": {name: {"type": "string"} for name in names}},
    st.lists(PLAIN, max_size=2, unique=True),
)
TTL = st.sampled_from((None, None, None, "", "5m", "1h"))
STATE = BASE64.map(lambda state: f"s{state}")


@dataclass(frozen=True)
class Sayable:
    """What both ends of a translation can say at all; anything else is refused, which other tests look at."""

    audio: bool = True
    linked_files: bool = True
    any_link: bool = True
    custom: bool = False


SAYABLE = {
    "chat": Sayable(linked_files=False),
    "responses": Sayable(custom=True),
    "messages": Sayable(audio=False),
    "gemini": Sayable(any_link=False),
}


def links(can: Sayable) -> st.SearchStrategy[str]:
    host = "https://a.example/" if can.any_link else "gs://bucket/"
    return PLAIN.map(lambda name: host + name)


def texts() -> st.SearchStrategy[Text]:
    return st.builds(Text, WORDS, TTL)


def media(can: Sayable) -> st.SearchStrategy[Part]:
    kinds: list[st.SearchStrategy[Part]] = [
        st.builds(
            Image,
            media_type=st.sampled_from(("image/png", "image/jpeg")),
            data=BASE64,
            detail=st.sampled_from((None, "low", "high")),
            cache_ttl=TTL,
        ),
        st.builds(File, media_type=st.just("application/pdf"), data=BASE64, name=st.none() | PLAIN, cache_ttl=TTL),
        st.builds(File, media_type=st.just("text/plain"), text=WORDS, name=st.none() | PLAIN, cache_ttl=TTL),
        st.builds(Image, url=links(can), cache_ttl=TTL),
    ]
    if can.linked_files:
        kinds.append(st.builds(File, url=links(can), name=st.none() | PLAIN))
    return st.one_of(kinds)


@st.composite
def turns(draw: st.DrawFn, can: Sayable, tools: Sequence[Tool]) -> list[Message]:
    said = media(can) | (st.builds(Audio, st.sampled_from(("wav", "mp3")), BASE64) if can.audio else st.nothing())
    messages = [Message("system", tuple(draw(st.lists(texts(), min_size=1, max_size=2))))] * draw(st.integers(0, 1))
    n_calls = 0
    for i in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(st.lists(texts() | said, min_size=1, max_size=3)))))
        if i and draw(st.booleans()):
            messages.append(Message("system", tuple(draw(st.lists(texts(), min_size=1, max_size=2)))))
        if not draw(st.booleans()):
            break
        thoughts = draw(st.lists(reasoning(), max_size=1))
        words = draw(st.lists(st.builds(Text, WORDS), max_size=2)) + draw(
            st.lists(st.builds(Refusal, WORDS), max_size=1)
        )
        calls = []
        for tool in draw(st.lists(st.sampled_from(tools), max_size=2)) if tools else ():
            n_calls += 1
            arguments = draw(WORDS if tool.is_custom else OBJECTS)
            calls.append(ToolCall(f"call_{n_calls}", tool.name, arguments, tool.is_custom, tool.namespace))
        if not words and not calls:
            words = [Text("Well.")]
        messages.append(Message("assistant", (*thoughts, *words, *calls)))
        if calls:
            results = tuple(draw(results_of(call, can)) for call in calls)
            messages.append(Message("user", (*results, *draw(st.lists(texts(), max_size=1)))))
    return messages


def reasoning() -> st.SearchStrategy[Reasoning]:
    return st.one_of(
        st.builds(Reasoning, WORDS),
        st.builds(Reasoning, WORDS, state=STATE),
        st.builds(Reasoning, state=STATE),
        st.builds(Reasoning, state=STATE, is_redacted=st.just(True)),
    )


def results_of(call: ToolCall, can: Sayable) -> st.SearchStrategy[ToolResult]:
    inside = st.lists(texts(), max_size=2).flatmap(
        lambda words: st.lists(media(can), max_size=1).map(lambda others: (*words, *others))
    )
    is_error = st.just(False) if call.is_custom else st.booleans()
    return st.builds(ToolResult, st.just(call.id), inside, is_error, st.just(call.is_custom), TTL)


@st.composite
def tool_lists(draw: st.DrawFn, can: Sayable) -> tuple[Tool, ...]:
    names = draw(st.lists(PLAIN, max_size=3, unique=True))
    tools = []
    for name in names:
        kind = draw(st.sampled_from(("function", "custom", "namespace"))) if can.custom else "function"
        described = draw(st.none() | WORDS)
        if kind == "custom":
            tools.append(Tool(name, described, is_custom=True))
        else:
            schema, strict = draw(st.none() | SCHEMAS), draw(st.sampled_from((None, True, False)))
            space = f"ns_{name}" if kind == "namespace" else None
            ttl = draw(TTL)
            tools.append(Tool(name, described, schema, strict, namespace=space, cache_ttl=ttl))
    return tuple(tools)


@st.composite
def conversations(draw: st.DrawFn, can: Sayable) -> Conversation:
    tools = draw(tool_lists(can))
    choice = None
    if tools:
        chosen = st.lists(st.sampled_from([tool.name for tool in tools]), max_size=2, unique=True).map(tuple)
        choice = draw(
            st.none()
            | st.just(ToolChoice("none"))
            | st.builds(ToolChoice, st.sampled_from(("auto", "required")), chosen)
        )
    outputs = st.builds(OutputFormat, SCHEMAS, PLAIN, st.none() | WORDS, st.sampled_from((None, True, False)))
    output = draw(st.none() | st.just(OutputFormat()) | outputs)
    messages = tuple(draw(turns(can, tools)))
    return Conversation(messages, tools, choice, output, draw(all_settings()), draw(st.booleans()))


def all_settings() -> st.SearchStrategy[Settings]:
    def perhaps(strategy: st.SearchStrategy) -> st.SearchStrategy:
        return st.none() | strategy

    fractions = st.integers(0, 8).map(lambda n: n / 8)
    return st.builds(
        Settings,
        max_output_tokens=perhaps(st.integers(1, 100_000)),
        temperature=perhaps(fractions.map(lambda value: 2 * value)),
        top_p=perhaps(fractions),
        top_k=perhaps(st.integers(1, 100)),
        frequency_penalty=perhaps(fractions),
        presence_penalty=perhaps(fractions),
        seed=perhaps(st.integers(0, 1000)),
        stop=st.lists(WORDS, max_size=6).map(tuple),
        effort=perhaps(st.sampled_from(EFFORTS)),
        thinking_budget_tokens=perhaps(st.sampled_from((-1, 0, 1024, 5000, 20_000))),
        wants_reasoning=st.sampled_from((None, True, False)),
        is_parallel=st.sampled_from((None, True, False)),
        service_tier=perhaps(st.sampled_from(("auto", "default", "flex", "priority"))),
        user=perhaps(PLAIN),
        verbosity=perhaps(st.sampled_from(("low", "high"))),
        cache_key=perhaps(PLAIN),
    )


# What a dialect cannot tell apart.


def normal(conversation: Conversation, name: str) -> Conversation:
    """Return what a conversation is once it has been said in a dialect, as far as that is no loss.

    - A schema left out is an object without properties; ``is_strict`` unsaid is False. Gemini and Messages name no
      format, and hold every schema strictly.
    - Without tools there is nothing to choose and nothing is called at once; ``auto`` without names, and calls at
      once, are what is done unsaid. The tier ``auto`` is, too.
    - Whether Gemini streams is in its URL.
    """
    own = conversation.settings
    output = conversation.output
    if output is not None and name in ("messages", "gemini"):
        output = OutputFormat(output.schema)
    choice = conversation.tool_choice
    if not conversation.tools or choice == ToolChoice("auto"):
        choice = None
    is_free = own.is_parallel is None or not conversation.tools or choice == ToolChoice("none")
    return replace(
        conversation,
        messages=tuple(folded(conversation.messages, name)),
        tools=tuple(
            replace(
                tool, schema=None if tool.is_custom else tool.schema or NO_ARGUMENTS, is_strict=bool(tool.is_strict)
            )
            for tool in conversation.tools
        ),
        tool_choice=choice,
        output=output,
        settings=replace(
            own,
            is_parallel=True if is_free else own.is_parallel,
            service_tier=None if own.service_tier == "auto" else own.service_tier,
        ),
        is_stream=conversation.is_stream and name != "gemini",
    )


def folded(messages: Sequence[Message], name: str) -> Iterator[Message]:
    """Yield the turns: the system prompt as one text, then what each side said until the other did.

    - Chat: media that a tool gave are the user's, after the results; a document in words is words.
    - Messages and Gemini: a system message in between is a user's text between tags; refusals are words.
    - Gemini: a document in words is base64, inside a result it is words; Messages the reverse.
    - Of what has an address, its server says the type; Gemini takes a document for PDF.
    """
    leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    system = [part.text for message in messages[:leading] for part in message.parts if isinstance(part, Text)]
    if system:
        yield Message("system", (Text("\n\n".join(system)),))
    merged: list[tuple[str, list[Part]]] = []
    for message in messages[leading:]:
        role, parts = message.role, list(message.parts)
        if role == "system":
            words = [part.text for part in parts if isinstance(part, Text)]
            if name == "messages":
                role, parts = "user", [Text("<system>\n" + "\n".join(words) + "\n</system>")]
            elif name == "gemini":
                role, parts = "user", [Text(f"<system>\n{text}\n</system>") for text in words]
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(parts)
        else:
            merged.append((role, parts))
    for role, parts in merged:
        yield Message(role, tuple(_assistant(parts, name) if role == "assistant" else _given(parts, name)))  # type: ignore[arg-type]


def _given(parts: Sequence[Part], name: str) -> list[Part]:
    results: list[Part] = []
    others: list[Part] = []
    hoisted: list[Part] = []
    for part in parts:
        if isinstance(part, ToolResult):
            inside = [_media(inner, name, is_given=True) for inner in part.parts]
            words = [inner.text for inner in inside if isinstance(inner, Text)]
            kept = [inner for inner in inside if not isinstance(inner, Text)]
            if name == "chat":
                hoisted, kept = (
                    [*hoisted, *(_media(inner, name) for inner in part.parts if not isinstance(inner, Text))],
                    [],
                )
                words = [inner.text for inner in part.parts if isinstance(inner, Text)]
            results.append(
                ToolResult(part.call_id, (Text("\n".join(words)), *kept), part.is_error, part.is_custom)  # type: ignore[arg-type]
            )
        else:
            others.append(_media(part, name))
    return [*results, *_joined([*hoisted, *others])]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join texts that follow one another, which is all the same to a model."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and joined and isinstance(before := joined[-1], Text):
            joined[-1] = Text(f"{before.text}\n\n{part.text}")
        else:
            joined.append(part)
    return joined


def _media(part: Part, name: str, *, is_given: bool = False) -> Part:
    if isinstance(part, Text):
        return Text(part.text)
    if isinstance(part, Image):
        # The address of an image says nothing of its type; "auto" is what happens unsaid.
        return replace(part, cache_ttl=None, detail=None if part.detail == "auto" else part.detail)
    if isinstance(part, File):
        named = part.name
        if part.text is not None and name in ("chat", "responses"):
            return Text(f"{named}:\n{part.text}" if named else part.text)
        if part.text is not None and name == "gemini":
            data = base64.b64encode(part.text.encode()).decode()
            return Text(part.text) if is_given else File("text/plain", data)
        if part.url is not None and name == "gemini":
            return File("application/pdf", url=part.url)
        if part.url is not None:
            return File(url=part.url, name=named)
        if part.data is not None and name == "messages" and part.media_type == "text/plain":
            return File("text/plain", text=base64.b64decode(part.data).decode(), name=named)
        if part.data is not None and name in ("chat", "responses"):
            named = named or "document.pdf"
        return replace(part, cache_ttl=None, name=None if name == "gemini" else named)
    return part


def _assistant(parts: Sequence[Part], name: str) -> list[Part]:
    """Return what an assistant's turn keeps: its states where there is a place for them, its words, its calls.

    - Chat has thoughts in words only; Responses and Claude thoughts with their state only, Responses as a summary;
      Gemini the states only, upon the words.
    """
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    if name == "chat":
        words = [thought.text for thought in thoughts if thought.text]
        thoughts = [Reasoning("\n\n".join(words))] if words else []
    else:
        thoughts = [thought for thought in thoughts if thought.state is not None]
    if name == "responses":
        thoughts = [Reasoning(t.text, is_summary=bool(t.text), state=t.state) for t in thoughts]
    elif name == "gemini":
        thoughts = [Reasoning(state=t.state) for t in thoughts]
    elif name == "messages":
        thoughts = [replace(t, is_summary=False) for t in thoughts]
    is_word = name in ("messages", "gemini")
    words = [part.text for part in parts if isinstance(part, Text) or (is_word and isinstance(part, Refusal))]
    refusals = [part.text for part in parts if isinstance(part, Refusal) and not is_word]
    said: list[Part] = [*thoughts]
    if words:
        said.append(Text("\n\n".join(words)))
    if refusals:
        said.append(Refusal("\n\n".join(refusals)))
    for part in parts:
        if isinstance(part, ToolCall):
            arguments = (
                part.arguments if part.is_custom else orjson.dumps(orjson.loads(part.arguments or "{}")).decode()
            )
            said.append(replace(part, arguments=arguments))
    return said


# What was told.

THINKING = ("reasoning_effort", "thinking.budget_tokens", "thinking_budget", "thinking", "max_tokens")
#: Field of a conversation or of its settings -> the losses that cover a difference in it.
COVERS: dict[str, tuple[str, ...]] = {
    "max_output_tokens": ("max_output_tokens", *THINKING),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "frequency_penalty": ("frequency_penalty",),
    "presence_penalty": ("presence_penalty",),
    "seed": ("seed",),
    "stop": ("stop",),
    "effort": THINKING,
    "thinking_budget_tokens": THINKING,
    "wants_reasoning": ("thinking.display", *THINKING),
    "is_parallel": ("parallel_tool_calls", "tool_choice"),
    "service_tier": ("service_tier",),
    "user": ("user",),
    "verbosity": ("verbosity",),
    "cache_key": ("prompt_cache_key",),
    "tool_choice": ("tool_choice", "tools", "tools[].strict"),
    "tools": ("tools",),
    "output": ("response_format", "response_format.json_schema.description"),
}


def assert_same(before: Conversation, after: Conversation, name: str, losses: Losses) -> None:
    """Compare field by field; a difference without a loss that covers it is a defect."""
    told = {loss.field for loss in losses}
    before, after = normal(before, name), normal(after, name)
    for field in fields(Settings):
        old, new = getattr(before.settings, field.name), getattr(after.settings, field.name)
        if old != new and not told.intersection(COVERS[field.name]):
            assert is_understood(field.name, old, new, before, name), (field.name, old, new, told)
    for what in ("tool_choice", "output"):
        old, new = getattr(before, what), getattr(after, what)
        assert old == new or told.intersection(COVERS[what]), (what, old, new, told)
    assert_same_tools(before, after, told)
    assert before.is_stream == after.is_stream
    assert_same_messages(before, after, told)


def is_understood(field: str, old: object, new: object, before: Conversation, name: str) -> bool:
    """Say whether a difference is what the dialect does with something unsaid.

    - Messages demands a limit. Asked for thoughts in words, or for a budget, it has a type of thinking and no more.
    - Responses and Gemini say of thoughts that they are wanted, or nothing.
    - Gemini has no effort above ``xhigh``; its tier ``standard`` is ``default``.
    """
    own = before.settings
    if field == "max_output_tokens":
        return name == "messages" and old is None
    if field == "wants_reasoning":
        is_off = own.effort == "none" or (own.effort is None and own.thinking_budget_tokens == 0)
        return old is not True or new is True or is_off
    if field == "effort":
        is_off = own.thinking_budget_tokens == 0 and own.effort is None and new == "none"
        return (name == "gemini" and (old, new) == ("max", "xhigh")) or (name == "messages" and is_off)
    if field == "thinking_budget_tokens":
        # An effort beside it counts for more; none, or as much as the model likes, is said otherwise.
        return (name == "messages" and (own.effort is not None or old in (0, -1))) or (name == "gemini" and old == -1)
    return False


def assert_same_tools(before: Conversation, after: Conversation, told: set[str]) -> None:
    def plain(tool: Tool) -> Tool:
        tool = replace(tool, cache_ttl=None) if "cache_control" in told else tool
        return replace(tool, is_strict=None) if "tools[].strict" in told else tool

    old, new = [plain(tool) for tool in before.tools], [plain(tool) for tool in after.tools]
    if "tools" in told:  # only those that may be called
        assert before.tool_choice is not None
        old = [tool for tool in old if tool.name in before.tool_choice.names]
    assert old == new


def assert_same_messages(before: Conversation, after: Conversation, told: set[str]) -> None:
    covers_errors = any(field.endswith(".is_error") for field in told)
    covers_detail = any(field.endswith(".detail") for field in told)

    def plain(part: Part) -> Part | None:
        if isinstance(part, Image) and covers_detail:
            return replace(part, detail=None)
        if isinstance(part, ToolResult):
            inside = tuple(plain(inner) for inner in part.parts)
            return replace(part, parts=inside, is_error=part.is_error and not covers_errors)  # type: ignore[arg-type]
        return part

    old, new = list(before.messages), list(after.messages)
    if "response_format" in told:  # emulated by a line at the end of the system prompt
        assert new[0].role == "system"
        line = new.pop(0).parts[0].text  # type: ignore[union-attr]
        prompt = old.pop(0).parts[0].text if old[0].role == "system" else ""  # type: ignore[union-attr]
        assert line.startswith(prompt)
        assert "JSON" in line
    assert [message.role for message in old] == [message.role for message in new]
    for ours, theirs in zip(old, new, strict=True):
        left, right = list(map(plain, ours.parts)), list(map(plain, theirs.parts))
        thoughts = [[p for p in side if isinstance(p, Reasoning)] for side in (left, right)]
        assert thoughts[0] == thoughts[1], (thoughts, told)
        assert [p for p in left if not isinstance(p, Reasoning)] == [p for p in right if not isinstance(p, Reasoning)]


def assert_losses_of_messages(conversation: Conversation, losses: Losses, name: str) -> None:
    """What the normalisation takes out of messages must have been told, each kind of it."""
    told = {loss.field for loss in losses}
    parts = [part for message in conversation.messages for part in message.parts]
    inside = [inner for part in parts if isinstance(part, ToolResult) for inner in part.parts]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    lost = {
        "chat": lambda t: t.state is not None,
        "responses": lambda t: t.state is None,
        "messages": lambda t: t.state is None,
        "gemini": lambda t: bool(t.text),
    }[name]
    expected = {
        "reasoning": any(map(lost, thoughts)),
        "cache_control": name != "messages"
        and any(getattr(p, "cache_ttl", None) is not None for p in (*parts, *inside, *conversation.tools)),
        "detail": name in ("messages", "gemini")
        and any(isinstance(p, Image) and p.detail is not None for p in (*parts, *inside)),
        "is_error": name in ("chat", "responses") and any(isinstance(p, ToolResult) and p.is_error for p in parts),
    }
    for what, is_lost in expected.items():
        assert not is_lost or any(what in field for field in told), (what, told)


def wants_cache(conversation: Conversation) -> list[str]:
    """Return what is asked of caching, in order; of a system message in between that of its last text."""
    found: list[str | None] = [tool.cache_ttl for tool in conversation.tools]
    for i, message in enumerate(conversation.messages):
        is_between = message.role == "system" and any(m.role != "system" for m in conversation.messages[:i])
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for part in (*results, *(part for part in message.parts if not isinstance(part, ToolResult))):
            inside = part.parts if isinstance(part, ToolResult) else ()
            found += [
                getattr(one, "cache_ttl", None)
                for one in (*inside, part)
                if not is_between or part is message.parts[-1]
            ]
    return [ttl for ttl in found if ttl is not None]


def through(conversation: Conversation, name: str) -> tuple[Conversation, Losses]:
    """Write and read in one dialect; what is read of our own writing may lose nothing more."""
    losses = Losses()
    body = DIALECTS[name].write_request(conversation, MODELS[name], losses)
    again = Losses()
    read = DIALECTS[name].read_request(orjson.loads(orjson.dumps(body)), again)
    assert not again.told(), [loss.field for loss in again]
    return read, losses


@pytest.mark.parametrize("name", NAMES)
@LIMITED
@given(data=st.data())
def test_requests_come_back_up_to_what_was_told(name: str, data: st.DataObject) -> None:
    conversation = data.draw(conversations(SAYABLE[name]))
    after, losses = through(conversation, name)
    assert_same(conversation, after, name, losses)
    assert_losses_of_messages(conversation, losses, name)
    if name == "messages" and "tools" not in {loss.field for loss in losses}:
        assert wants_cache(after) == wants_cache(conversation)


def common(one: Sayable, other: Sayable) -> Sayable:
    return Sayable(
        one.audio and other.audio,
        one.linked_files and other.linked_files,
        one.any_link and other.any_link,
        one.custom,
    )


@pytest.mark.parametrize("upstream", NAMES)
@pytest.mark.parametrize("client", NAMES)
@settings(LIMITED, max_examples=4)
@given(data=st.data())
def test_a_clients_request_arrives_up_to_what_was_told(client: str, upstream: str, data: st.DataObject) -> None:
    """Body of the client's dialect, its conversation, body of the provider's dialect, its conversation."""
    made = data.draw(conversations(common(SAYABLE[client], SAYABLE[upstream])))
    said, _ = through(made, client)
    losses = Losses()
    plain = said
    if upstream != "responses":
        _, plain = Emulation.of(said, losses)
        is_plain = not any(tool.is_custom or tool.namespace for tool in said.tools)
        assert (plain is said) == is_plain
        assert is_plain or any(loss.what == "emulated" for loss in losses)
    after, lost = through(plain, upstream)
    assert_same(plain, after, upstream, lost)
    assert_losses_of_messages(plain, lost, upstream)


# Answers.


@st.composite
def answers(draw: st.DrawFn, name: str) -> Answer:
    """Answers with every part that the dialect has a place for; states of calls are Gemini's alone."""
    parts: list[Part] = []
    cited: list[tuple[int, Citation]] = []
    for i in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(("text", "refusal", "reasoning", "call")))
        if kind == "text":
            text = draw(WORDS)
            if draw(st.booleans()):
                start = draw(st.integers(0, len(text) - 1))
                cited.append(
                    (
                        len(parts),
                        Citation(f"https://a.example/{i}", "A", start, draw(st.integers(start + 1, len(text)))),
                    )
                )
            parts.append(Text(text))
        elif kind == "refusal":
            parts.append(Refusal(draw(WORDS)))
        elif kind == "reasoning":
            parts.append(draw(thought(name)))
        else:
            is_custom = draw(st.booleans()) and name in ("chat", "responses")
            space = draw(st.none() | PLAIN) if name == "responses" and not is_custom else None
            state = draw(st.none() | STATE) if name == "gemini" else None
            parts.append(
                ToolCall(f"call_{i}", draw(PLAIN), draw(WORDS if is_custom else OBJECTS), is_custom, space, state)
            )
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    reasons = ("stop", "stop_sequence", "length", "context_full", "filtered", "paused")
    reason = draw(st.sampled_from(reasons))
    if reason == "stop" and has_calls:
        reason = "tool_calls"
    count = st.none() | st.integers(0, 10**6)
    reads, writes, thoughts = draw(count), draw(count), draw(count)
    fresh, output = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    usage = Usage(fresh + (reads or 0) + (writes or 0), output + (thoughts or 0), reads, writes, thoughts)
    return Answer(tuple(parts), Finished(reason), usage, citations=tuple(cited))  # type: ignore[arg-type]


def thought(name: str) -> st.SearchStrategy[Reasoning]:
    kinds = [st.builds(Reasoning, WORDS, is_summary=st.just(name == "gemini"))]
    if name == "responses":
        kinds.append(st.builds(Reasoning, WORDS, is_summary=st.booleans(), state=st.none() | STATE))
    if name in ("messages", "gemini"):
        kinds.append(st.builds(Reasoning, WORDS, is_summary=st.just(name == "gemini"), state=STATE))
    if name in ("responses", "messages"):
        kinds.append(st.builds(Reasoning, state=STATE, is_redacted=st.just(True)))
        kinds.append(st.builds(Reasoning, state=STATE))
    return st.one_of(kinds)


def comparable(answer: Answer, name: str, *, has_places: bool) -> tuple[object, ...]:
    """Return what of an answer a dialect can say.

    - Parts by kind; words of one kind as one, since the joint between two of them shows nowhere in Chat, and in
      Gemini's streams not either. Refusals are words in Messages and Gemini.
    - Why it ended in the dialect's own words: a stop string is a stop but in Messages; calls are a reason of their own
      but for limits and filters.
    - Usage in the counts the dialect has; citations with their places but in Messages, and in
      Gemini of the only text.
    """
    is_word = name in ("messages", "gemini")
    words = "".join(p.text for p in answer.parts if isinstance(p, Text) or (is_word and isinstance(p, Refusal)))
    refusals = "".join(p.text for p in answer.parts if isinstance(p, Refusal) and not is_word)
    thoughts = [p for p in answer.parts if isinstance(p, Reasoning)]
    calls = [replace(p, arguments=p.arguments or "{}") for p in answer.parts if isinstance(p, ToolCall)]
    states = [t.state for t in thoughts if t.state is not None]
    thinking = "".join(t.text.replace("\n", "") for t in thoughts)
    reason = answer.finished.reason
    has_refusal = any(isinstance(p, Refusal) for p in answer.parts)
    if name == "messages":
        reason = "filtered" if has_refusal and reason in ("stop", "tool_calls") else reason
    else:
        reason = {"stop_sequence": "stop", "context_full": "length"}.get(reason, reason)
        reason = "stop" if name == "chat" and reason == "paused" else reason
        reason = "tool_calls" if calls and reason == "stop" else reason
    usage = answer.usage
    if name == "gemini":
        usage = replace(usage, cache_write_tokens=None)
    elif name == "responses":
        details = ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
        usage = replace(usage, **{detail: getattr(usage, detail) or 0 for detail in details})
    sources = [(c.url, c.title, *((c.start, c.end) if has_places else ())) for _, c in answer.citations]
    return words, refusals, thinking, states, calls, reason, usage, sources


def is_same_answer(before: Answer, after: Answer, name: str) -> None:
    n_texts = sum(isinstance(part, Text | Refusal) for part in before.parts)
    has_places = name != "messages" and not (name == "gemini" and n_texts > 1)
    old, new = (comparable(answer, name, has_places=has_places) for answer in (before, after))
    if name == "messages" and any(isinstance(part, Refusal) for part in before.parts):
        # Why it ended is read from the answer before; afterwards the refusal is words.
        assert after.finished.reason == old[5]
    assert old[:5] + old[6:] == new[:5] + new[6:]
    assert old[5] == after.finished.reason


@pytest.mark.parametrize("name", NAMES)
@LIMITED
@given(data=st.data())
def test_answers_come_back(name: str, data: st.DataObject) -> None:
    answer = data.draw(answers(name))
    body = DIALECTS[name].write_answer(answer, REPLY)
    is_same_answer(answer, DIALECTS[name].read_answer(orjson.loads(orjson.dumps(body))), name)


@pytest.mark.parametrize("name", NAMES)
@LIMITED
@given(data=st.data())
def test_streams_come_back_however_they_are_cut(name: str, data: st.DataObject) -> None:
    answer = data.draw(answers(name))
    writer = DIALECTS[name].writer(REPLY)
    n_characters = data.draw(st.integers(0, 3))
    stream = b"".join(writer.write(event) for event in events_of(answer, n_characters))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter, reader, collector = EventSplitter(), DIALECTS[name].reader(), Collector()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in splitter.feed(stream[start:end]):
            for read in reader.read(event):
                collector.add(read)
    assert splitter.rest() == b""
    for read in reader.end():
        collector.add(read)
    is_same_answer(answer, collector.answer(), name)
    if name == "responses":  # which keeps blocks apart, and in their order
        assert [type(part) for part in collector.answer().parts] == [type(part) for part in answer.parts]
