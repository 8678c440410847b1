"""Broken and odd provider streams through the gateway's own conveyors, judged by readers that share nothing with them.

``python tests/fuzz/streams.py --cases 200000 --seed 1`` (``make fuzz``); a slice of it is a test. Every case is told by
its seed and number alone, so that a finding can be run again: ``--only NUMBER``.

A case is an answer, told in one of four dialects by our writers or in a provider's manner written here by hand, then
spoilt. What the client gets is checked against the wire reference: the frame of the events, the grammar of the
dialect, and that it ends exactly once, in the event that ends an answer or in an error. A stream that is whole arrives
whole and says the same; one that lost its end never ends well.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from types import SimpleNamespace

import orjson

from router.pricing import Usage
from serving.attempt import Attempt
from serving.beginning import begin
from serving.client_api import CHAT_PATH, CLIENT_APIS, MESSAGES_PATH
from serving.deployment import Deployment, line_of
from serving.dialects.answer import Answer, Began, Finished, events_of
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall
from serving.dialects.dialect import Reply
from serving.dialects.registry import DIALECTS
from serving.errand import Errand
from serving.errors import UpstreamError
from serving.providers.quirks import Quirks
from serving.reasoning_states import ReasoningStates
from serving.relay import relay_of
from serving.streamed_answer import StreamedAnswer

UPSTREAMS = ("chat", "responses", "messages", "gemini")
CLIENTS = {
    "chat": CHAT_PATH,
    "responses": "/v1/responses",
    "messages": MESSAGES_PATH,
    "completions": "/v1/completions",
}
#: Longer than any honest case takes on a busy machine.
MOST_SECONDS = 10.0
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WORDS = (
    "Hello",
    " wörld",
    " ☃",
    "𝄞",
    "\n\n",
    "data: [DONE]",
    '"quoted"',
    "\\",
    "{}",
    "日本",
    " ",
    "\u2028",
    "e\u0301",
    "x" * 80,
)
ARGUMENTS = ('{"city":"Oslo"}', "{}", '{"city":"\\"Ö\\" ☃"}', '{"n":[1,2,{"a":null}],"city":""}')


class Violation(AssertionError):
    """What the client got is not what the reference allows."""


def check(is_right: object, what: str) -> None:
    """Raise a violation unless it is right."""
    if not is_right:
        raise Violation(what)


# Answers, and how providers tell them.


@dataclass
class Seen:
    """What an answer says, whoever tells it."""

    text: str = ""
    refusal: str = ""
    thoughts: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    end: str = ""
    usage: object = None


def random_answer(rng: random.Random, client: str, upstream: str) -> Answer:
    """Make an answer; its custom call is named ``patch``, wrapped where the provider knows functions only."""
    parts: list[Part] = []
    for i in range(rng.choice((0, 1, 1, 2, 3, 5))):
        kind = rng.choice(("text", "text", "reasoning", "call", "call", "refusal"))
        words = "".join(rng.choices(WORDS, k=rng.randint(1, 6)))
        if kind == "text":
            parts.append(Text("a" + words))
        elif kind == "refusal" and upstream in ("chat", "responses"):
            parts.append(Refusal("n" + words))
        elif kind == "reasoning":
            is_summary = upstream == "gemini" or (upstream == "responses" and rng.random() < 0.5)
            state = "c2lnbmVk" if upstream != "chat" and rng.random() < 0.5 else None
            parts.append(Reasoning("t" + words, is_summary, state))
        elif kind == "call" and client != "completions":
            name = rng.choice(("weather", "now", "patch" if client in ("chat", "responses") else "now"))
            arguments = rng.choice(ARGUMENTS)
            is_custom = name == "patch" and upstream == "responses"
            if name == "patch":
                arguments = words if is_custom else orjson.dumps({"input": words}).decode()
            parts.append(ToolCall(f"call_{i}", name, arguments, is_custom))
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    reason = rng.choice(("stop", "stop", "length", "filtered"))
    if reason == "stop" and has_calls:
        reason = "tool_calls"
    usage = Usage(rng.randint(0, 99), rng.randint(50, 99), rng.choice((None, 0)), None, rng.choice((None, 7)))
    return Answer(tuple(parts), Finished(reason), usage, Began("resp1", "m-1", 5))  # type: ignore[arg-type]


def truth_of(answer: Answer, client: str) -> Seen:
    """Return what the client must be told."""
    seen = Seen(end=answer.finished.reason)
    for part in answer.parts:
        if isinstance(part, Text):
            seen.text += part.text
        elif isinstance(part, Refusal):
            seen.refusal += part.text
        elif isinstance(part, Reasoning):
            seen.thoughts += part.text
        elif isinstance(part, ToolCall):
            is_custom = part.name == "patch" and client in ("chat", "responses")
            said = part.arguments
            if is_custom and not part.is_custom:
                said = orjson.loads(said)["input"]
            seen.calls.append((part.id, part.name, said if is_custom else orjson.dumps(orjson.loads(said)).decode()))
    return seen


def told_by_us(answer: Answer, upstream: str, rng: random.Random) -> list[bytes]:
    """Tell an answer with our own writer of the dialect."""
    reply = Reply("req_up1", "m-1", 5, {"stream_options": {"include_usage": True}})
    writer = DIALECTS[upstream].writer(reply)
    told = b"".join(writer.write(event) for event in events_of(answer, rng.choice((0, 1, 3, 10))))
    return [piece + b"\n\n" for piece in told.split(b"\n\n")[:-1]]


def told_by_a_provider(answer: Answer, upstream: str, rng: random.Random) -> list[bytes]:
    """Tell an answer in the manner of a real provider, written from recorded streams."""
    return list(
        {"chat": _chat, "responses": _responses, "messages": _messages, "gemini": _gemini}[upstream](answer, rng)
    )


def _data(body: object, event: str | None = None) -> bytes:
    named = b"" if event is None else b"event: " + event.encode() + b"\n"
    return named + b"data: " + orjson.dumps(body) + b"\n\n"


def _pieces(text: str, rng: random.Random) -> list[str]:
    step = rng.choice((1, 4, 1000))
    return [text[i : i + step] for i in range(0, len(text), step)]


def _chat(answer: Answer, rng: random.Random) -> Iterator[bytes]:
    unfinished = rng.choice((None, None, ""))
    is_azure, is_groq = rng.random() < 0.3, rng.random() < 0.3
    usage = {"prompt_tokens": answer.usage.input_tokens, "completion_tokens": answer.usage.output_tokens}

    def chunk(delta: object, finish: object = unfinished, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return _data({"id": "c1", "created": 5, "model": "m-1", "choices": [choice], "usage": None, **more})

    if is_azure:
        yield _data(
            {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
        )
    yield chunk({"role": "assistant", "content": rng.choice((None, ""))})
    queues: list[list[bytes]] = []
    for part in answer.parts:
        if isinstance(part, ToolCall):
            i = len(queues)
            head = {"index": i, "id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}}
            rest = [{"index": i, "function": {"arguments": piece}} for piece in _pieces(part.arguments, rng)]
            if rng.random() < 0.3:
                head["function"]["arguments"], rest = part.arguments, []  # type: ignore[index]
            queues.append([chunk({"tool_calls": [call]}) for call in (head, *rest)])
            continue
        yield from _drained(queues, rng)
        queues = [[] for _ in queues]
        name = {Text: "content", Refusal: "refusal"}.get(type(part)) or rng.choice(("reasoning_content", "reasoning"))
        for piece in _pieces(part.text, rng):  # type: ignore[union-attr]
            yield chunk({name: piece, **({"role": "assistant"} if is_azure else {})})
    yield from _drained(queues, rng)
    finish = {"filtered": "content_filter"}.get(answer.finished.reason, answer.finished.reason)
    yield chunk({}, finish, **({"x_groq": {"id": "r", "usage": usage}} if is_groq else {}))
    if not is_groq:
        yield _data({"id": "c1", "created": 5, "model": "m-1", "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _drained(queues: list[list[bytes]], rng: random.Random) -> Iterator[bytes]:
    """Yield the deltas of parallel calls as they come: each in its order, among one another in any; heads in order."""
    for queue in queues:
        if queue:
            yield queue.pop(0)
    while waiting := [queue for queue in queues if queue]:
        yield rng.choice(waiting).pop(0)


def _responses(answer: Answer, rng: random.Random) -> Iterator[bytes]:
    n = 0

    def event(kind: str, **more: object) -> bytes:
        nonlocal n
        n += 1
        return _data({"type": kind, "sequence_number": n - 1, **more}, kind)

    response = {"id": "resp_1", "object": "response", "created_at": 5, "model": "m-1", "output": []}
    yield event("response.created", response={**response, "status": "in_progress"})
    yield event("response.in_progress", response={**response, "status": "in_progress"})
    items: list[dict[str, object]] = []
    queues: list[list[bytes]] = []
    for i, part in enumerate(answer.parts):
        at = {"output_index": i, "item_id": f"it_{i}"}
        queue: list[bytes] = []
        if isinstance(part, Text | Refusal):
            name, kind = ("text", "output_text") if isinstance(part, Text) else ("refusal", "refusal")
            content = {"type": kind, name: part.text, **({"annotations": []} if name == "text" else {})}
            item: dict[str, object] = {"id": f"it_{i}", "type": "message", "role": "assistant", "content": [content]}
            queue.append(event("response.output_item.added", output_index=i, item={**item, "content": []}))
            place = {**at, "content_index": 0}
            queue.append(event("response.content_part.added", **place, part={**content, name: ""}))
            for piece in _pieces(part.text, rng):
                queue.append(event(f"response.{kind}.delta", **place, delta=piece, obfuscation="xx"))
            queue.append(event(f"response.{kind}.done", **place, **{name: part.text}))
            queue.append(event("response.content_part.done", **place, part=content))
        elif isinstance(part, Reasoning):
            item = {"id": f"it_{i}", "type": "reasoning", "summary": [{"type": "summary_text", "text": part.text}],
                    "encrypted_content": part.state}  # fmt: skip
            queue.append(event("response.output_item.added", output_index=i, item={**item, "summary": []}))
            for piece in _pieces(part.text, rng):
                queue.append(event("response.reasoning_summary_text.delta", **at, summary_index=0, delta=piece))
            queue.append(event("response.reasoning_summary_text.done", **at, summary_index=0, text=part.text))
        else:
            assert isinstance(part, ToolCall)
            kind, key = ("custom_tool_call", "input") if part.is_custom else ("function_call", "arguments")
            name = "custom_tool_call_input" if part.is_custom else "function_call_arguments"
            item = {"id": f"it_{i}", "type": kind, "call_id": part.id, "name": part.name, key: part.arguments}
            queue.append(event("response.output_item.added", output_index=i, item={**item, key: ""}))
            for piece in _pieces(part.arguments, rng) if rng.random() < 0.7 else ():
                queue.append(event(f"response.{name}.delta", **at, delta=piece))
            queue.append(event(f"response.{name}.done", **at, **{key: part.arguments}))
        queue.append(event("response.output_item.done", output_index=i, item=item))
        items.append(item)
        queues.append(queue)
    if rng.random() < 0.5:
        yield from _drained(queues, rng)
    else:
        yield from (piece for queue in queues for piece in queue)
    reason = {"length": "max_output_tokens", "filtered": "content_filter"}.get(answer.finished.reason)
    status = "incomplete" if reason else "completed"
    usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": answer.usage.output_tokens}
    done = {"status": status, "incomplete_details": {"reason": reason} if reason else None}
    yield event(f"response.{status}", response={**response, **done, "output": items, "usage": usage})


def _messages(answer: Answer, rng: random.Random) -> Iterator[bytes]:
    def event(kind: str, **more: object) -> bytes:
        return _data({"type": kind, **more}, kind)

    usage = {"input_tokens": answer.usage.input_tokens, "output_tokens": 1, "cache_read_input_tokens": 0}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [], "usage": usage}
    yield event("message_start", message={**message, "stop_reason": None})
    yield event("ping")
    for i, part in enumerate(answer.parts):
        block: dict[str, object]
        deltas: list[dict[str, object]]
        if isinstance(part, Text | Refusal):
            block = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(part.text, rng)]
        elif isinstance(part, Reasoning):
            block = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(part.text, rng)]
            deltas.append({"type": "signature_delta", "signature": part.state or "c2ln"})
        else:
            assert isinstance(part, ToolCall)
            block = {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
            pieces = ["", *_pieces(part.arguments, rng)] if part.arguments != "{}" else [""]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        yield event("content_block_start", index=i, content_block=block)
        for delta in deltas:
            yield event("content_block_delta", index=i, delta=delta)
        yield event("content_block_stop", index=i)
    words = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "filtered": "refusal"}
    ending = {"stop_reason": words[answer.finished.reason], "stop_sequence": None}
    yield event("message_delta", delta=ending, usage={"output_tokens": answer.usage.output_tokens})
    yield event("message_stop")


def _gemini(answer: Answer, rng: random.Random) -> Iterator[bytes]:
    said: list[dict[str, object]] = []
    for part in answer.parts:
        if isinstance(part, Text | Refusal):
            said += [{"text": piece} for piece in _pieces(part.text, rng)]
        elif isinstance(part, Reasoning):
            said += [{"text": piece, "thought": True} for piece in _pieces(part.text, rng)]
        else:
            assert isinstance(part, ToolCall)
            args = orjson.loads(part.arguments)
            call = {"id": part.id, "name": part.name, **({"args": args} if args else {})}
            said.append({"functionCall": call, **({"thoughtSignature": "c2ln"} if rng.random() < 0.5 else {})})
    usage = {"promptTokenCount": answer.usage.input_tokens, "candidatesTokenCount": answer.usage.output_tokens}
    while said:
        n_parts = rng.randint(1, 3)
        content, said = {"role": "model", "parts": said[:n_parts]}, said[n_parts:]
        yield _data({"candidates": [{"content": content, "index": 0}], "modelVersion": "m-1", "responseId": "r1"})
    reason = {"length": "MAX_TOKENS", "filtered": "SAFETY"}.get(answer.finished.reason, "STOP")
    last = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason, "index": 0}
    yield _data({"candidates": [last], "usageMetadata": usage, "modelVersion": "m-1", "responseId": "r1"})


# How streams are spoilt.


@dataclass
class Stream:
    """Events on their way, and what is true of them after what was done to them."""

    events: list[bytes]
    upstream: str
    client: str
    #: Says the same as before: must arrive whole.
    is_whole: bool = True
    #: Has lost its end: must not end well.
    is_cut: bool = False
    #: Anything may have become of what it says.
    is_odd: bool = False
    tail: bytes | None = None
    done: list[str] = field(default_factory=list)

    def bytes(self) -> bytes:
        """Return what the provider sends."""
        return b"".join(self.events) if self.tail is None else self.tail


Spoil = Callable[[Stream, random.Random], None]


def _comments(stream: Stream, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        at = rng.randint(0, len(stream.events))
        stream.events.insert(at, rng.choice((b": OPENROUTER PROCESSING\n\n", b":\n\n", b": ping\nretry: 100\n\n")))


def _unspaced(stream: Stream, rng: random.Random) -> None:
    stream.events = [b"\n".join(_bare(line) for line in event.split(b"\n")) for event in stream.events]


def _bare(line: bytes) -> bytes:
    return line.replace(b": ", b":", 1) if line.startswith((b"data: ", b"event: ")) else line


def _unknown_events(stream: Stream, rng: random.Random) -> None:
    unknown = {
        "chat": {"object": "chat.completion.chunk", "id": "c1", "choices": [], "sla": {"tier": "x"}},
        "responses": {"type": "response.something.new", "sequence_number": 0, "output_index": 0},
        "messages": {"type": "content_block_something", "index": 0},
        "gemini": {"somethingNew": {}},
    }[stream.upstream]
    name = str(unknown["type"]) if "type" in unknown else None
    stream.events.insert(rng.randint(0, _last(stream)), _data(unknown, name))


def _unknown_fields(stream: Stream, rng: random.Random) -> None:
    def add(value: object) -> None:
        if isinstance(value, dict):
            value["x_new"] = {"a": [1, None]}
            for inner in list(value.values()):
                if inner is not value["x_new"]:
                    add(inner)

    _changed(stream, rng, add, only=_not_of_arguments)


def _not_of_arguments(event: bytes) -> bool:
    return b'"args"' not in event and b'"input":{}' not in event and b'"choices":[]' not in event


def _duplicated_start(stream: Stream, rng: random.Random) -> None:
    if stream.upstream != "gemini" and stream.events:
        stream.events.insert(1, stream.events[0])


def _no_done(stream: Stream, rng: random.Random) -> None:
    if stream.events and stream.events[-1] == b"data: [DONE]\n\n":
        stream.events.pop()


def _no_blank_line(stream: Stream, rng: random.Random) -> None:
    stream.tail = stream.bytes().rstrip(b"\r\n") + rng.choice((b"", b"\n"))


def _line_ends(stream: Stream, rng: random.Random) -> None:
    stream.tail = stream.bytes().replace(b"\n", rng.choice((b"\r\n", b"\r")))


def _bom(stream: Stream, rng: random.Random) -> None:
    stream.tail = b"\xef\xbb\xbf" + stream.bytes()


def _long_line(stream: Stream, rng: random.Random) -> None:
    size = rng.choice((2**20 - 4096, 2**20 + 10))
    stream.events.insert(rng.randint(0, len(stream.events)), b": " + b"x" * size + b"\n\n")
    if size > 2**20:
        stream.is_whole = False


def _truncated(stream: Stream, rng: random.Random) -> None:
    whole = stream.bytes()
    if not whole:
        return
    stream.tail = whole[: rng.randrange(len(whole))]
    stream.is_whole = False
    stream.is_cut = not has_end(stream.tail, stream.upstream)


def _no_end(stream: Stream, rng: random.Random) -> None:
    kept = [event for event in stream.events if not has_end(event, stream.upstream)]
    stream.is_whole, stream.is_cut, stream.events = False, True, kept
    # What the provider calls the end passes as such where nothing is translated.
    if stream.upstream == stream.client == "chat" or rng.random() < 0.5:
        stream.events = [event for event in kept if b"[DONE]" not in event]


def _garbage(stream: Stream, rng: random.Random) -> None:
    garbage = rng.choice(
        (b"data: {not json\n\n", b"data: \xff\xfe\n\n", b"<html>502</html>\n\n", b"data: [1,2]\n\n", b'data: "x"\n\n',
         b"data: {\ndata: }\n\n", b"data: null\n\n", b"data: \n\n", b"\x00\x01\n\n", b"data: {}\n\n", b"data\n\n",
         b"event: message_stop\n\n", b'data: {"choices":[{"delta":{"content":"\\ud800"}}]}\n\n',
         b"data: " + b"[" * 5000 + b"\n\n")
    )  # fmt: skip
    stream.events.insert(rng.randint(0, len(stream.events)), garbage)
    stream.is_whole, stream.is_odd = False, True


def _error_event(stream: Stream, rng: random.Random) -> None:
    error = rng.choice(
        ({"message": "Overloaded", "type": "overloaded_error", "code": 529}, {"message": None}, {}, "down", ["x"], 5)
    )
    body: dict[str, object] = {"error": error}
    name = None
    if stream.upstream in ("responses", "messages"):
        body, name = {"type": "error", **body}, "error"
    if stream.upstream == "responses" and rng.random() < 0.5:
        failed = {"id": "resp_1", "status": "failed", "error": error, "output": []}
        body, name = {"type": "response.failed", "response": failed}, "response.failed"
    stream.events.insert(rng.randint(0, len(stream.events)), _data(body, name))
    stream.is_whole, stream.is_odd = False, True


def _duplicated(stream: Stream, rng: random.Random) -> None:
    at = rng.randrange(len(stream.events))
    stream.events.insert(rng.randint(0, len(stream.events)), stream.events[at])
    stream.is_whole, stream.is_odd = False, True


def _reordered(stream: Stream, rng: random.Random) -> None:
    at, to = rng.randrange(len(stream.events)), rng.randrange(len(stream.events))
    stream.events[at], stream.events[to] = stream.events[to], stream.events[at]
    stream.is_whole, stream.is_odd = False, True


def _lost(stream: Stream, rng: random.Random) -> None:
    stream.events.pop(rng.randrange(len(stream.events)))
    stream.is_whole, stream.is_odd = False, True


ODD = (None, True, 0, -1, 2**63, 1e308, "", "x", "☃", [], {}, [None], {"a": 1}, [[]], "\ud83d")[:-1]


def _swapped(stream: Stream, rng: random.Random) -> None:
    """Put values of other types into a few places."""
    for _ in range(rng.randint(1, 4)):
        _changed(stream, rng, lambda value: _swap(value, rng), only=lambda event: True, n_events=1)
    stream.is_whole, stream.is_odd = False, True


def _nulls(stream: Stream, rng: random.Random) -> None:
    _changed(stream, rng, lambda value: _swap(value, rng, (None,)), only=lambda event: True, n_events=2)
    stream.is_whole, stream.is_odd = False, True


def _swap(value: object, rng: random.Random, odd: tuple[object, ...] = ODD) -> None:
    places: list[tuple[object, object]] = []

    def collect(inner: object) -> None:
        keys: object = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:  # type: ignore[attr-defined]
            places.append((inner, key))
            collect(inner[key])  # type: ignore[index]

    collect(value)
    if places:
        holder, key = rng.choice(places)
        holder[key] = rng.choice(odd)  # type: ignore[index]


def _changed(
    stream: Stream,
    rng: random.Random,
    change: Callable[[object], None],
    *,
    only: Callable[[bytes], bool],
    n_events: int = 99,
) -> None:
    """Change the objects of some events in place."""
    order = [i for i, event in enumerate(stream.events) if b"data: {" in event and only(event)]
    for i in rng.sample(order, min(n_events, len(order))):
        head, _, rest = stream.events[i].partition(b"data: ")
        try:
            body = orjson.loads(rest)
        except orjson.JSONDecodeError:  # spoilt before
            continue
        change(body)
        stream.events[i] = head + b"data: " + orjson.dumps(body) + b"\n\n"


def _last(stream: Stream) -> int:
    """Return where the events end that come before the end."""
    return next((i for i, event in enumerate(stream.events) if has_end(event, stream.upstream)), len(stream.events))


THEIR_ERROR = re.compile(rb'"error":(?!null)|"type":"(error|response\.failed)"')
BLANK = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
GENTLE: tuple[Spoil, ...] = (_comments, _unknown_events, _unknown_fields, _duplicated_start, _no_done)
HARSH: tuple[Spoil, ...] = (
    _truncated, _truncated, _no_end, _garbage, _error_event, _duplicated, _reordered, _lost, _swapped, _swapped, _nulls,
)  # fmt: skip
#: Upon the bytes, after everything upon events.
FRAMES: tuple[Spoil, ...] = (_unspaced, _no_blank_line, _line_ends, _bom)


def has_end(told: bytes, upstream: str) -> bool:
    """Say whether some whole event says that the answer ended; by the reference, and for plain frames only."""
    for event in told.split(b"\n\n"):
        data = b"\n".join(line[6:] for line in event.split(b"\n") if line.startswith(b"data: "))
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(body, dict):
            continue
        kind = body.get("type")
        if upstream == "messages" and kind == "message_stop":
            return True
        if upstream == "responses" and kind in ("response.completed", "response.incomplete"):
            return True
        inside = body.get("choices" if upstream == "chat" else "candidates")
        key = "finish_reason" if upstream == "chat" else "finishReason"
        choices = [choice for choice in inside if isinstance(choice, dict)] if isinstance(inside, list) else []
        if upstream in ("chat", "gemini") and any(choice.get(key) for choice in choices):
            return True
    return False


# One case.


@dataclass
class Case:
    """What one number stands for."""

    client: str
    upstream: str
    answer: Answer
    stream: Stream
    chunks: list[bytes]
    wants_usage: bool

    def __str__(self) -> str:
        return f"{self.client} over {self.upstream}, {self.stream.done}: {self.answer.parts!r}, {self.stream.bytes()!r}"


def case_of(seed: int, number: int) -> Case:
    """Make the case of a number."""
    rng = random.Random(f"{seed}/{number}")
    client, upstream = rng.choice(tuple(CLIENTS)), rng.choice(UPSTREAMS)
    answer = random_answer(rng, client, upstream)
    told = told_by_us if rng.random() < 0.4 else told_by_a_provider
    stream = Stream(told(answer, upstream, rng), upstream, client)
    spoils: list[Spoil] = [spoil for spoil in GENTLE if rng.random() < 0.15]
    if rng.random() < 0.004:
        spoils.append(_long_line)
    if rng.random() < 0.6:
        spoils += rng.choices(HARSH, k=rng.choice((1, 1, 1, 2, 3)))
        spoils.sort(key=lambda spoil: spoil is _truncated)
    if not stream.tail:
        spoils += [spoil for spoil in FRAMES if rng.random() < 0.15]
    for spoil in spoils:
        if stream.events and not (spoil in HARSH and stream.tail is not None):
            spoil(stream, rng)
            stream.done.append(spoil.__name__)
    return Case(client, upstream, answer, stream, _split(stream.bytes(), rng), rng.random() < 0.7)


def _split(told: bytes, rng: random.Random) -> list[bytes]:
    """Cut the bytes as networks do: each alone, at random, by events, or not at all."""
    how = rng.random()
    if how < 0.1 and len(told) < 20_000:
        return [told[i : i + 1] for i in range(len(told))]
    if how < 0.5:
        cuts = sorted(rng.randint(0, len(told)) for _ in range(rng.randint(1, 12)))
        return [told[start:end] for start, end in zip([0, *cuts], [*cuts, len(told)], strict=True) if start < end]
    if how < 0.8:
        pieces = told.split(b"\n\n")
        return [piece + b"\n\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
    return [told] if told else []


REQUESTS: dict[str, dict[str, object]] = {
    "chat": {
        "messages": [{"role": "user", "content": "Hello."}],
        "tools": [
            {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
            {"type": "function", "function": {"name": "now"}},
            {"type": "custom", "custom": {"name": "patch"}},
        ],
    },
    "responses": {
        "input": "Hello.",
        "tools": [
            {"type": "function", "name": "weather", "parameters": SCHEMA},
            {"type": "function", "name": "now"},
            {"type": "custom", "name": "patch"},
        ],
    },
    "messages": {
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello."}],
        "tools": [{"name": "weather", "input_schema": SCHEMA}, {"name": "now", "input_schema": {"type": "object"}}],
    },
    "completions": {"prompt": "Hello."},
}
STATES = ReasoningStates(b"of the fuzzer")
DEPLOYMENTS = {
    upstream: Deployment(
        "d", "large", "provider", "m-1", False, Quirks(), {upstream: line_of(upstream, "http://p", "m-1", {}, {})}
    )
    for upstream in UPSTREAMS
}


async def given(case: Case) -> tuple[bytes, bool]:
    """Return what the client gets of a case, and whether it is a stream; else it is an error with a status."""
    api = CLIENT_APIS[CLIENTS[case.client]]
    body = {"model": "large", "stream": True, **REQUESTS[case.client]}
    if case.wants_usage and case.client in ("chat", "completions"):
        body["stream_options"] = {"include_usage": True}
    asked = api.parse(body, ())
    errand = Errand("req_1", "key", "large", 5, body)
    relay = relay_of(api, asked, DEPLOYMENTS[case.upstream], STATES, errand)

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in case.chunks:
            yield chunk

    async def nothing() -> None: ...

    response = SimpleNamespace(status=200, headers={"content-type": "text/event-stream"}, chunks=chunks, close=nothing)

    async def send(request: object) -> object:
        return response

    attempt = Attempt(DEPLOYMENTS[case.upstream], relay)
    try:
        begun = await begin(SimpleNamespace(send=send), attempt, SimpleNamespace(idle_timeout_s=inf), is_stream=True)  # type: ignore[arg-type]
    except UpstreamError as error:
        check(error.status >= 400, "an error has no status of one")
        return b"", False
    assert begun.stream is not None
    first, conveyor, events, pending = begun.stream
    exchange = SimpleNamespace(attempt=None, settle=lambda records, outcome, status: None)
    answer = StreamedAnswer(None, exchange, response, conveyor, first, events, None, pending)  # type: ignore[arg-type]
    return b"".join([piece async for piece in answer]), True


async def try_case(case: Case) -> str:
    """Run one case; raises a violation, or says how it ended."""
    began = time.monotonic()
    told, is_stream = await given(case)
    check(time.monotonic() - began < MOST_SECONDS, "it took too long")
    stream = case.stream
    if not is_stream:
        check(not stream.is_whole, "a whole stream was refused")
        return "refused"
    if case.client == case.upstream:
        ended = passed(told, case)
    else:
        seen = GRAMMARS[case.client](told, case.wants_usage)
        ended = "error" if seen.end == "error" else "clean"
        if stream.is_whole and ended == "clean":
            compare(seen, truth_of(case.answer, case.client), case)
    check(not stream.is_whole or ended == "clean", "a whole stream ended in an error")
    check(not stream.is_cut or stream.is_odd or ended == "error", "a stream without its end ended well")
    return ended


def compare(seen: Seen, truth: Seen, case: Case) -> None:
    """Nothing may be lost or doubled of a stream that was whole."""
    words = {"messages": truth.text + truth.refusal, "completions": truth.text}.get(case.client)
    if case.client == "messages":
        check(sorted(seen.text) == sorted(words or ""), f"words differ: {seen.text!r}")
    else:
        check(seen.text == truth.text, f"words differ: {seen.text!r}")
    if case.client == "completions":
        return
    if case.client != "messages":
        check(seen.refusal == truth.refusal, f"refusals differ: {seen.refusal!r}")
    check(seen.thoughts == truth.thoughts, f"thoughts differ: {seen.thoughts!r}")
    check(seen.calls == truth.calls, f"calls differ: {seen.calls!r}")
    if not (case.client == "messages" and truth.refusal):
        check(seen.end == truth.end, f"it ended for another reason: {seen.end}")
    if seen.usage is not None:
        check(seen.usage == (case.answer.usage.input_tokens, case.answer.usage.output_tokens), f"usage: {seen.usage}")


def passed(told: bytes, case: Case) -> str:
    """Check that a stream of the client's own dialect passed untouched; say how it ended.

    Three things may differ: chunks of usage that the client did not ask for are gone, the blank line after the last
    event is put there, and one event of ours may end it, ``[DONE]`` or an error.
    """
    sent = [event.rstrip(b"\r\n") for event in _events(case.stream.bytes())]
    kept = [event.rstrip(b"\r\n") for event in _events(told)]
    at = 0
    for i, event in enumerate(kept):
        while at < len(sent) and sent[at] != event and b'"usage"' in sent[at] and not case.wants_usage:
            at += 1
        if at < len(sent) and sent[at] == event:
            at += 1
            continue
        check(i == len(kept) - 1, f"not theirs, and not the end: {event[:300]!r}")
        check(told.endswith(b"\n\n"), "our last event is not whole")
        if event == b"data: [DONE]":
            return "clean"
        check(b'"error":{' in event and b'"upstream_broken"' in event, f"not theirs, and no end: {event[:300]!r}")
        return "error"
    plain = told.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf")
    plain = b"\n".join(_spaced(line) for line in plain.split(b"\n"))
    is_over = b"data: [DONE]" in plain if case.upstream == "chat" else has_end(plain, case.upstream)
    check(is_over or THEIR_ERROR.search(plain), "it ends in nothing")
    return "clean" if is_over else "error"


def _spaced(line: bytes) -> bytes:
    return b"data: " + line[5:] if line.startswith(b"data:") and not line.startswith(b"data: ") else line


def _events(told: bytes) -> list[bytes]:
    """Split at blank lines of any kind, terminators kept."""
    ends = [0, *(blank.end() for blank in BLANK.finditer(told)), len(told)]
    return [told[start:end] for start, end in pairwise(ends) if start < end]


# What each dialect allows, from the wire reference.


def framed(told: bytes) -> list[tuple[str | None, object]]:
    """Read strictly framed events: an optional name, one line of data, a blank line; the data is JSON or [DONE]."""
    check(told.endswith(b"\n\n") and b"\r" not in told, "the frame is not whole")
    found: list[tuple[str | None, object]] = []
    for event in told[:-2].split(b"\n\n"):
        lines = event.split(b"\n")
        name = lines.pop(0)[7:].decode() if lines[0].startswith(b"event: ") else None
        check(len(lines) == 1 and lines[0].startswith(b"data: "), f"a frame of another form: {event[:200]!r}")
        try:
            found.append((name, "[DONE]" if lines[0] == b"data: [DONE]" else orjson.loads(lines[0][6:])))
        except orjson.JSONDecodeError:
            raise Violation(f"data is no JSON: {lines[0][:200]!r}") from None
    return found


def chat_grammar(told: bytes, wants_usage: bool) -> Seen:
    """Section 2.3: role, deltas, one finish, usage where asked for, [DONE]; or an error, last."""
    seen, calls = Seen(), []
    events = framed(told)
    heads: set[tuple[object, ...]] = set()
    finish: object = None
    for i, (name, chunk) in enumerate(events):
        is_last = i == len(events) - 1
        check(name is None, "chat has no event names")
        check(seen.end != "error", "something follows an error")
        if chunk == "[DONE]":
            check(is_last and finish is not None, "[DONE] before the end, or before a finish")
            continue
        assert isinstance(chunk, dict)
        if "error" in chunk:
            check_openai_error(chunk)
            seen.end = "error"
            continue
        check(chunk["object"] == "chat.completion.chunk", "not a chunk")
        heads.add((chunk["id"], chunk["created"], chunk["model"]))
        check(len(heads) == 1, "chunks of different answers")
        if not chunk["choices"]:
            check(wants_usage and finish is not None and seen.usage is None, "usage unasked, early or twice")
            seen.usage = openai_usage(chunk["usage"], "prompt_tokens", "completion_tokens")
            continue
        check(chunk.get("usage") is None and ("usage" in chunk) == wants_usage, "usage on a chunk of content")
        check(finish is None and seen.usage is None, "a chunk after the finish")
        (choice,) = chunk["choices"]
        check(set(choice) == {"index", "delta", "logprobs", "finish_reason"} and choice["index"] == 0, "a choice")
        delta = choice["delta"]
        check((delta.get("role") == "assistant") == (i == 0), "the role belongs to the first chunk")
        finish = choice["finish_reason"]
        check(not delta or finish is None, "words in the last chunk")
        chat_delta(delta, seen, calls)
    if seen.end == "error":
        return seen
    check(events and events[-1][1] == "[DONE]", "no [DONE]")
    check(finish in ("stop", "length", "tool_calls", "content_filter"), f"finish {finish!r}")
    check(finish != "tool_calls" or calls, "tool_calls without calls")
    seen.end = {"content_filter": "filtered"}.get(str(finish), str(finish))
    seen.calls = [said_call(call["id"], call["name"], call["text"], is_custom=call["custom"]) for call in calls]
    return seen


def chat_delta(delta: dict[str, object], seen: Seen, calls: list[dict[str, object]]) -> None:
    known = {"role", "content", "refusal", "reasoning_content", "tool_calls", "annotations"}
    check(set(delta) <= known, f"unknown in a delta: {set(delta) - known}")
    seen.text += string_in(delta, "content")
    seen.refusal += string_in(delta, "refusal")
    seen.thoughts += string_in(delta, "reasoning_content")
    for call in delta.get("tool_calls", ()):  # type: ignore[attr-defined]
        inner = call.get("function") or call["custom"]
        key = "arguments" if "function" in call else "input"
        if call["index"] == len(calls):
            check(call["type"] == ("function" if key == "arguments" else "custom"), "the type of a call")
            check(call["id"] and inner["name"], "a call without id or name")
            check(call["id"] not in [before["id"] for before in calls], "an id twice")
            calls.append({"id": call["id"], "name": inner["name"], "text": "", "custom": key == "input"})
        else:
            check(call["index"] == len(calls) - 1, "a delta of no open call")
            check(set(call) == {"index", "custom" if key == "input" else "function"}, "a call begins again")
            check(set(inner) == {key}, "a name again")
        calls[-1]["text"] += inner[key]


def completions_grammar(told: bytes, wants_usage: bool) -> Seen:
    """Chunks of text, one with a finish, usage where asked for, [DONE]; or an error, last."""
    seen, finish = Seen(), None
    events = framed(told)
    for i, (name, chunk) in enumerate(events):
        check(name is None and seen.end != "error", "a name, or something after an error")
        if chunk == "[DONE]":
            check(i == len(events) - 1 and finish is not None, "[DONE] before the end")
            continue
        assert isinstance(chunk, dict)
        if "error" in chunk:
            check_openai_error(chunk)
            seen.end = "error"
            continue
        check(chunk["object"] == "text_completion", "not a chunk")
        if not chunk["choices"]:
            check(wants_usage and finish is not None and seen.usage is None, "usage unasked, early or twice")
            seen.usage = openai_usage(chunk["usage"], "prompt_tokens", "completion_tokens")
            continue
        check(finish is None, "a chunk after the finish")
        (choice,) = chunk["choices"]
        check(set(choice) == {"text", "index", "logprobs", "finish_reason"}, "a choice")
        seen.text += choice["text"]
        finish = choice["finish_reason"]
    if seen.end != "error":
        check(events and events[-1][1] == "[DONE]", "no [DONE]")
        check(finish in ("stop", "length", "content_filter"), f"finish {finish!r}")
        seen.end = str(finish)
    return seen


MESSAGE_ENDS = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length", "refusal": "filtered",
                "pause_turn": "paused"}  # fmt: skip
BLOCKS = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


def messages_grammar(told: bytes, wants_usage: bool) -> Seen:
    """Section 4.4: a start, blocks one after another with contiguous numbers, one delta of the message, a stop."""
    seen = Seen()
    events = framed(told)
    n_blocks, block, pieces, is_signed, stop = 0, None, "", False, None
    for i, (name, data) in enumerate(events):
        assert isinstance(data, dict), "Messages has no [DONE]"
        kind = data["type"]
        check(name == kind, "the name is not the type")
        check(seen.end == "", "something follows the end")
        if kind == "error":
            check(set(data) == {"type", "error", "request_id"}, "an error event")
            check(isinstance(data["error"]["message"], str) and data["error"]["type"], "an error without words")
            seen.end = "error"
            continue
        if kind == "ping":
            continue
        check((kind == "message_start") == (i == 0), "one start, first")
        check(stop is None or kind == "message_stop", "something between the last two")
        if kind == "message_start":
            message = data["message"]
            check(message["content"] == [] and message["stop_reason"] is None, "a start that is not empty")
            check({"id", "type", "role", "model", "usage", "stop_sequence"} <= set(message), "a start lacks something")
            check_counts(message["usage"], "input_tokens", "output_tokens")
        elif kind == "content_block_start":
            check(block is None and data["index"] == n_blocks, "a block inside another, or a gap")
            block, pieces, is_signed = data["content_block"], "", False
            check(block["type"] in (*BLOCKS, "redacted_thinking"), "an unknown block")
            check(not block.get("text") and not block.get("thinking") and not block.get("input"), "a block begins full")
        elif kind == "content_block_delta":
            check(block is not None and data["index"] == n_blocks and not is_signed, "a delta of no open block")
            assert block is not None
            delta = data["delta"]
            if delta["type"] == "signature_delta":
                check(block["type"] == "thinking" and delta["signature"], "a signature of no thought")
                is_signed = True
            elif delta["type"] == "citations_delta":
                check(block["type"] == "text", "a source of no text")
            else:
                check(BLOCKS.get(block["type"]) == delta["type"], "a delta of another kind")
                field = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
                pieces += string_in(delta, field[delta["type"]])
        elif kind == "content_block_stop":
            check(block is not None and data["index"] == n_blocks, "the end of no open block")
            assert block is not None
            if block["type"] == "tool_use":
                check(block["name"] and block["id"], "a call without id or name")
                seen.calls.append(said_call(block["id"], block["name"], pieces, is_custom=False))
            elif block["type"] == "text":
                check(pieces, "an empty text")
                seen.text += pieces
            seen.thoughts += pieces if block["type"] == "thinking" else ""
            n_blocks, block = n_blocks + 1, None
        elif kind == "message_delta":
            check(block is None, "an open block at the end")
            stop = data["delta"]["stop_reason"]
            check(stop in MESSAGE_ENDS and "stop_sequence" in data["delta"], f"stop_reason {stop!r}")
            check(stop != "tool_use" or seen.calls, "tool_use without calls")
            check_counts(data["usage"], "input_tokens", "output_tokens")
            usage = data["usage"]
            total = usage["input_tokens"] + sum(usage[key] or 0 for key in usage if key.startswith("cache_"))
            seen.usage = (total, usage["output_tokens"])
        else:
            check(kind == "message_stop" and stop is not None, f"{kind} in this place")
            seen.end = MESSAGE_ENDS[stop]  # type: ignore[index]
    check(seen.end, "it ends in nothing")
    return seen


RESPONSE_KEYS = frozenset(
    re.findall(
        "[a-z_]+",
        """id object created_at completed_at status incomplete_details model previous_response_id instructions output
        error tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty
        top_logprobs temperature reasoning usage max_output_tokens max_tool_calls store background service_tier
        metadata safety_identifier prompt_cache_key""",
    )
)
ITEM_DELTAS = {
    "response.output_text.delta": "response.output_text.done",
    "response.refusal.delta": "response.refusal.done",
    "response.function_call_arguments.delta": "response.function_call_arguments.done",
    "response.custom_tool_call_input.delta": "response.custom_tool_call_input.done",
    "response.reasoning_summary_text.delta": "response.reasoning_summary_text.done",
    "response.reasoning_text.delta": "response.reasoning_text.done",
}
DONE_FIELDS = {"response.refusal.done": "refusal", "response.function_call_arguments.done": "arguments",
               "response.custom_tool_call_input.done": "input"}  # fmt: skip


def responses_grammar(told: bytes, wants_usage: bool) -> Seen:
    """Section 3.3: numbered events; every delta adds up to its done, every done to its item, every item to the end."""
    seen = Seen()
    events = framed(told)
    is_terminated = bool(events) and events[-1][1] == "[DONE]"
    if is_terminated:
        check(events.pop()[0] is None, "[DONE] has a name")
    items: list[dict[str, object]] = []
    item, part, pieces, dones, parts = None, None, "", [], []
    is_created, end, has_error = False, None, False
    for number, (name, data) in enumerate(events):
        assert isinstance(data, dict)
        kind = data["type"]
        check(name == kind and data["sequence_number"] == number, f"number {data['sequence_number']} at {number}")
        check(end is None, "something follows the end")
        check(not has_error or kind == "response.failed", "something follows an error")
        if kind == "error":
            check(
                isinstance(data["message"], str) and data["error"]["message"] == data["message"],
                "both forms of an error",
            )
            has_error = True
        elif kind in ("response.created", "response.in_progress"):
            check(number == ("created", "in_progress").index(kind[9:]), "the beginning")
            check(set(data["response"]) >= RESPONSE_KEYS and data["response"]["output"] == [], "the response at first")
            is_created = True
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            check(is_created, "an end before the beginning")
            response = data["response"]
            check(set(response) >= RESPONSE_KEYS and response["status"] == kind[9:], "the whole response")
            check(response["output"] == items, "the whole output is not what was told")
            check(item is None or kind == "response.failed", "an open item at the end")
            if kind != "response.failed" and response["usage"] is not None:
                seen.usage = openai_usage(response["usage"], "input_tokens", "output_tokens")
                for key, inner in (
                    ("input_tokens_details", "cached_tokens"),
                    ("output_tokens_details", "reasoning_tokens"),
                ):
                    check_counts(response["usage"][key], inner)
            end = kind
            details = response["incomplete_details"]
            check((details is not None) == (kind == "response.incomplete"), "why it is incomplete")
            words = {"max_output_tokens": "length", "content_filter": "filtered"}
            seen.end = words.get(details["reason"], "paused") if details else "stop"
        elif kind == "response.output_item.added":
            check(
                is_created and item is None and data["output_index"] == len(items), "an item inside another, or a gap"
            )
            item, part, pieces, dones, parts = data["item"], None, "", [], []
            check(
                not item.get("content") and not item.get("summary") and not item.get("arguments"), "an item begins full"
            )
        elif kind == "response.output_item.done":
            assert item is not None, "the end of no item"
            done = data["item"]
            check(data["output_index"] == len(items), "the place of an item")
            check((done["id"], done["type"]) == (item["id"], item["type"]), "an item changed its name")
            check_item(done, dones, parts, seen)
            items.append(done)
            item = None
        else:
            assert item is not None, f"{kind} outside of an item"
            check(data["output_index"] == len(items) and data["item_id"] == item["id"], "an event of another item")
            if kind in ITEM_DELTAS:
                check(part is None or part == data.get("content_index", data.get("summary_index")), "a delta elsewhere")
                check(data["delta"] != "", "an empty delta")
                pieces += data["delta"]
            elif kind in ITEM_DELTAS.values():
                check(data[DONE_FIELDS.get(kind, "text")] == pieces, "the deltas are not the whole")
                dones.append(pieces)
                pieces = ""
            elif kind in ("response.content_part.added", "response.reasoning_summary_part.added"):
                check(part is None and pieces == "", "a part inside another")
                part = data.get("content_index", data.get("summary_index"))
                check(part == len(parts), "the number of a part")
            elif kind in ("response.content_part.done", "response.reasoning_summary_part.done"):
                check(part == data.get("content_index", data.get("summary_index")), "the end of another part")
                parts.append(data["part"])
                part = None
            else:
                check(kind == "response.output_text.annotation.added", f"{kind} is unknown")
    if has_error or end == "response.failed":
        check(has_error and not is_terminated, "[DONE] after a bad end, or one without an error")
        check((end == "response.failed") == is_created, "failed belongs to what was created")
        return Seen(end="error")
    check(end is not None and is_terminated, "it ends in nothing")
    if seen.end == "stop" and seen.calls:
        seen.end = "tool_calls"
    return seen


def check_item(item: dict[str, object], dones: list[str], parts: list[object], seen: Seen) -> None:
    kind = item["type"]
    if kind == "message":
        check(item["content"] == parts and item["role"] == "assistant", "the parts are not the message")
        for said, whole in zip(item["content"], dones, strict=True):  # type: ignore[call-overload]
            check(said.get("text", said.get("refusal")) == whole, "a part is not what was told")
            seen.text += said.get("text", "")
            seen.refusal += said.get("refusal", "")
    elif kind == "reasoning":
        texts = [said["text"] for said in (*item["summary"], *item.get("content", ()))]  # type: ignore[misc]
        check(texts == dones, "thoughts are not what was told")
        seen.thoughts += "".join(texts)
    else:
        is_custom = kind == "custom_tool_call"
        check(is_custom or kind == "function_call", "an unknown item")
        text = item["input" if is_custom else "arguments"]
        check(dones == [text] and item["call_id"] and item["name"], "a call is not what was told")
        seen.calls.append(said_call(item["call_id"], item["name"], text, is_custom=is_custom))


def said_call(call_id: object, name: object, text: object, *, is_custom: bool) -> tuple[str, str, str]:
    """Return a call with its arguments as JSON is written here; what is none stays as it is."""
    assert isinstance(call_id, str)
    assert isinstance(name, str)
    assert isinstance(text, str)
    try:
        return call_id, name, text if is_custom else orjson.dumps(orjson.loads(text or "{}")).decode()
    except orjson.JSONDecodeError:
        return call_id, name, text


def string_in(delta: dict[str, object], key: str) -> str:
    value = delta.get(key, "")
    check(isinstance(value, str), f"{key} is no string")
    return value  # type: ignore[return-value]


def check_openai_error(chunk: dict[str, object]) -> None:
    error = chunk["error"]
    assert isinstance(error, dict)
    check(set(error) == {"message", "type", "param", "code"}, "the envelope of an error")
    check(isinstance(error["message"], str) and isinstance(error["type"], str), "an error without words")
    check(isinstance(error["code"], str | None), "a code that is none")


def check_counts(usage: object, *keys: str) -> None:
    assert isinstance(usage, dict)
    for key in keys:
        check(type(usage[key]) is int and 0 <= usage[key] < 2**63, f"{key} is no count")


def openai_usage(usage: dict[str, int], read: str, written: str) -> tuple[int, int]:
    check_counts(usage, read, written, "total_tokens")
    check(usage["total_tokens"] == usage[read] + usage[written], "the total is not the sum")
    return usage[read], usage[written]


GRAMMARS: dict[str, Callable[[bytes, bool], Seen]] = {
    "chat": chat_grammar,
    "responses": responses_grammar,
    "messages": messages_grammar,
    "completions": completions_grammar,
}


# Many cases.


async def run(seed: int, numbers: range, *, is_loud: bool = False, most_findings: int = 1) -> Counter[str]:
    """Run cases and count how they ended; findings are printed, and more than some end it."""
    ended: Counter[str] = Counter()
    for number in numbers:
        try:
            case = case_of(seed, number)
            how = await try_case(case)
        except Exception as error:
            ended["findings"] += 1
            kind = f"{type(error).__name__}: {str(error)[:300]}"
            print(f"case {seed}/{number}: {kind}\n    {case.client} over {case.upstream}, {case.stream.done}")
            if is_loud:
                raise
            if ended["findings"] >= most_findings:
                break
            continue
        ended[how] += 1
        ended[f"{case.client} over {case.upstream}"] += 1
        for spoil in case.stream.done:
            ended[spoil] += 1
    return ended


def main(arguments: list[str]) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Fuzz the streams of every client API over every dialect.")
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this one case and show all of it")
    parser.add_argument("--findings", type=int, default=20, help="stop after so many")
    chosen = parser.parse_args(arguments)
    if chosen.only is not None:
        case = case_of(chosen.seed, chosen.only)
        print(case, b"".join(case.chunks).decode(errors="replace"), sep="\n")
        told, is_stream = asyncio.run(given(case))
        print(
            "-- the client gets" + ("" if is_stream else " an error with a status"),
            told.decode(errors="replace"),
            sep="\n",
        )
        print(asyncio.run(try_case(case)))
        return 0
    began = time.monotonic()
    numbers = range(chosen.first, chosen.first + chosen.cases)
    ended = asyncio.run(run(chosen.seed, numbers, most_findings=chosen.findings))
    n_cases = ended["clean"] + ended["error"] + ended["refused"] + ended["findings"]
    print(f"{n_cases} cases in {time.monotonic() - began:.0f} s, {ended['findings']} findings")
    print(", ".join(f"{name} {count}" for name, count in sorted(ended.items())))
    return 1 if ended["findings"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
