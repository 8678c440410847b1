"""Every client API over every upstream dialect: 3 × 4 cells, streamed and not, read as a client would.

The readers here are written from the wire reference and share nothing with the dialects.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import pytest

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
UPSTREAMS = ("chat", "responses", "messages", "gemini")
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
TOOL = {"name": "weather", "description": "Tell the weather.", "parameters": SCHEMA}
SCRIPT = [
    {
        "text": "Let me look.",
        "calls": [
            {"name": "weather", "arguments": {"city": "Oslo", "n": 1}, "id": "call_a"},
            {"name": "weather", "arguments": {"city": "Bergen", "n": 2}, "id": "call_b"},
        ],
    },
    {"text": "Snow in Oslo, rain in Bergen."},
]


@dataclass
class Read:
    """What a client makes of an answer."""

    text: str = ""
    calls: list[dict[str, object]] = field(default_factory=list)
    finish: object = None
    input_tokens: int | None = None
    output_tokens: int | None = None


def body_of(api: str, turns: list[dict[str, object]], *, tools: bool = False, structured: bool = False) -> dict:
    """Write a request in one API; ``turns`` are of Chat."""
    if api == "chat":
        body: dict[str, object] = {"messages": turns}
        if tools:
            body["tools"] = [{"type": "function", "function": TOOL}]
        if structured:
            form = {"name": "place", "schema": SCHEMA, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
    elif api == "responses":
        body = {"input": [item for turn in turns for item in items_of(turn)]}
        if tools:
            body["tools"] = [{"type": "function", **TOOL, "strict": False}]
        if structured:
            body["text"] = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
    else:
        body = {"max_tokens": 1000, "messages": blocks_of(turns)}
        if tools:
            body["tools"] = [{"name": "weather", "description": TOOL["description"], "input_schema": SCHEMA}]
        if structured:
            body["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    return {"model": "large", **body}


def items_of(turn: dict) -> list[dict[str, object]]:
    if turn["role"] == "tool":
        return [{"type": "function_call_output", "call_id": turn["tool_call_id"], "output": turn["content"]}]
    items: list[dict[str, object]] = []
    if turn["content"]:
        items.append({"role": turn["role"], "content": turn["content"]})
    for call in turn.get("tool_calls", ()):
        items.append({"type": "function_call", "call_id": call["id"], **call["function"]})
    return items


def blocks_of(turns: list[dict]) -> list[dict[str, object]]:
    messages: list[dict] = []
    for turn in turns:
        if turn["role"] == "tool":
            block = {"type": "tool_result", "tool_use_id": turn["tool_call_id"], "content": turn["content"]}
            if messages[-1]["role"] == "user":
                messages[-1]["content"].append(block)
            else:
                messages.append({"role": "user", "content": [block]})
            continue
        content: list[dict[str, object]] = [{"type": "text", "text": turn["content"]}] if turn["content"] else []
        for call in turn.get("tool_calls", ()):
            function = call["function"]
            block = {"type": "tool_use", "id": call["id"], "name": function["name"]}
            content.append({**block, "input": orjson.loads(function["arguments"])})
        messages.append({"role": turn["role"], "content": content})
    return messages


def read_whole(api: str, body: dict) -> Read:
    if api == "chat":
        (choice,) = body["choices"]
        usage = body["usage"]
        calls = [
            {
                "id": call["id"],
                "name": call["function"]["name"],
                "arguments": orjson.loads(call["function"]["arguments"]),
            }
            for call in choice["message"].get("tool_calls", ())
        ]
        return Read(
            choice["message"]["content"] or "",
            calls,
            choice["finish_reason"],
            usage["prompt_tokens"],
            usage["completion_tokens"],
        )
    if api == "responses":
        assert body["object"] == "response"
        texts = [p["text"] for item in body["output"] if item["type"] == "message" for p in item["content"]]
        calls = [
            {"id": item["call_id"], "name": item["name"], "arguments": orjson.loads(item["arguments"])}
            for item in body["output"]
            if item["type"] == "function_call"
        ]
        usage = body["usage"]
        return Read("".join(texts), calls, body["status"], usage["input_tokens"], usage["output_tokens"])
    assert (body["type"], body["role"]) == ("message", "assistant")
    usage = body["usage"]
    return Read(
        "".join(block["text"] for block in body["content"] if block["type"] == "text"),
        [
            {"id": block["id"], "name": block["name"], "arguments": block["input"]}
            for block in body["content"]
            if block["type"] == "tool_use"
        ],
        body["stop_reason"],
        usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0),
        usage["output_tokens"],
    )


def events_of(raw: str) -> list[tuple[str | None, dict]]:
    events = []
    for block in raw.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        name = next((line[7:] for line in lines if line.startswith("event: ")), None)
        (data,) = [line[6:] for line in lines if line.startswith("data: ")]
        events.append((name, {"done": True} if data == "[DONE]" else orjson.loads(data)))
    return events


def read_stream(api: str, raw: str) -> Read:
    events = events_of(raw)
    return {"chat": read_chat, "responses": read_responses, "messages": read_messages}[api](events)


def read_chat(events: list[tuple[str | None, dict]]) -> Read:
    read, calls = Read(), {}
    assert events[-1][1] == {"done": True}
    assert len({chunk["id"] for _, chunk in events[:-1]}) == 1
    for name, chunk in events[:-1]:
        assert name is None
        if not chunk["choices"]:
            read.input_tokens = chunk["usage"]["prompt_tokens"]
            read.output_tokens = chunk["usage"]["completion_tokens"]
            continue
        (choice,) = chunk["choices"]
        read.text += choice["delta"].get("content") or ""
        for delta in choice["delta"].get("tool_calls", ()):
            call = calls.setdefault(delta["index"], {"arguments": ""})
            if "id" in delta:
                call |= {"id": delta["id"], "name": delta["function"]["name"]}
            call["arguments"] += delta["function"].get("arguments", "")
        read.finish = choice["finish_reason"] or read.finish
    read.calls = [{**call, "arguments": orjson.loads(call["arguments"])} for call in calls.values()]
    return read


def read_responses(events: list[tuple[str | None, dict]]) -> Read:
    if events[-1][1] == {"done": True}:
        events = events[:-1]
    assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
    assert all(name == event["type"] for name, event in events)
    assert events[0][0] == "response.created"
    final = events[-1][1]
    assert final["type"] == "response.completed"
    read = read_whole("responses", final["response"])
    streamed = "".join(event["delta"] for name, event in events if name == "response.output_text.delta")
    assert streamed == read.text
    done = [event["item"] for name, event in events if name == "response.output_item.done"]
    assert done == final["response"]["output"]
    return read


def read_messages(events: list[tuple[str | None, dict]]) -> Read:
    events = [(name, event) for name, event in events if name != "ping"]
    assert all(name == event["type"] for name, event in events)
    assert (events[0][0], events[-1][0]) == ("message_start", "message_stop")
    message, blocks = events[0][1]["message"], []
    for name, event in events[1:]:
        if name == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "json": ""})
        elif name == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            delta = event["delta"]
            if delta["type"] == "text_delta":
                blocks[-1]["text"] += delta["text"]
            elif delta["type"] == "input_json_delta":
                blocks[-1]["json"] += delta["partial_json"]
        elif name == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = orjson.loads(block["json"] or "{}")
    return read_whole("messages", {**message, "content": blocks})


@pytest.fixture(params=UPSTREAMS)
async def over(request, start, pool_toml, configure) -> AsyncIterator[object]:
    """Return a gateway whose provider speaks one dialect."""
    server = (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        f'[[providers]]\nname = "emulator"\nemulated = true\napis = ["{request.param}"]\n'
    )
    async with start(pool_toml, server=server) as gateway:
        gateway.upstream = request.param
        yield gateway


async def ask(gateway, api: str, body: dict, *, is_stream: bool, headers: dict[str, str] | None = None) -> Read:
    if is_stream:
        body = {**body, "stream": True}
        if api == "chat":
            body["stream_options"] = {"include_usage": True}
    response = await gateway.client.post(PATHS[api], json=body, headers=headers)
    assert response.status_code == 200, response.text
    translated = response.headers.get("x-turnout-translated")
    assert translated == (None if api == gateway.upstream else f"{api}>{gateway.upstream}")
    assert "x-turnout-lost" not in response.headers
    return read_stream(api, response.text) if is_stream else read_whole(api, response.json())


both_ways = pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
every_api = pytest.mark.parametrize("api", PATHS)


@both_ways
@every_api
async def test_a_question_is_answered_counted_and_priced(over, api: str, is_stream: bool) -> None:
    read = await ask(over, api, body_of(api, [{"role": "user", "content": "What is 17 * 23?"}]), is_stream=is_stream)
    assert read.text == "[emulated large-at-provider] What is 17 * 23 = 391"
    assert read.finish == {"chat": "stop", "responses": "completed", "messages": "end_turn"}[api]
    (record,) = over.records.kept
    assert (read.input_tokens, read.output_tokens) == (4, 13) == (record.input_tokens, record.output_tokens)
    # 10 and 40 USD per million tokens.
    assert record.cost_usd == pytest.approx((4 * 10 + 13 * 40) / 1e6)
    assert (record.api, record.upstream_dialect, record.outcome) == (api, over.upstream, "ok")


@both_ways
@every_api
async def test_a_round_of_parallel_tools(over, api: str, is_stream: bool) -> None:
    over.provider.scripts.put("*", SCRIPT)
    turns: list[dict[str, object]] = [{"role": "user", "content": "Weather in Oslo and Bergen?"}]
    read = await ask(over, api, body_of(api, turns, tools=True), is_stream=is_stream)
    assert read.text == "Let me look."
    assert [(call["name"], call["arguments"]) for call in read.calls] == [
        ("weather", {"city": "Oslo", "n": 1}),
        ("weather", {"city": "Bergen", "n": 2}),
    ]
    assert len({call["id"] for call in read.calls}) == 2
    assert read.finish == {"chat": "tool_calls", "responses": "completed", "messages": "tool_use"}[api]
    called = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": orjson.dumps(call["arguments"]).decode()},
        }
        for call in read.calls
    ]
    turns.append({"role": "assistant", "content": read.text, "tool_calls": called})
    turns += [
        {"role": "tool", "tool_call_id": call["id"], "content": said}
        for call, said in zip(read.calls, ("snow", "rain"), strict=True)
    ]
    again = await ask(over, api, body_of(api, turns, tools=True), is_stream=is_stream)
    assert again.text == "Snow in Oslo, rain in Bergen."
    sent = over.provider.received[-1].body
    assert b"snow" in sent and b"rain" in sent and sent.index(b"snow") < sent.index(b"rain")


@both_ways
@every_api
async def test_structured_output(over, api: str, is_stream: bool) -> None:
    body = body_of(api, [{"role": "user", "content": "Name a place."}], structured=True)
    read = await ask(over, api, body, is_stream=is_stream)
    place = orjson.loads(read.text)
    assert set(place) == {"city", "n"} and isinstance(place["city"], str) and isinstance(place["n"], int)


@every_api
async def test_a_stream_that_breaks_ends_in_the_error_event_of_the_caller(over, api: str) -> None:
    over.provider.faults.put("*", _fault(cut_after_events=8))
    body = {**body_of(api, [{"role": "user", "content": "Say hello."}]), "stream": True}
    response = await over.client.post(PATHS[api], json=body)
    raw = response.text
    events = events_of(raw)
    if api == "chat":
        assert "[DONE]" not in raw and events[-1][1]["error"]["code"]
    elif api == "messages":
        assert "message_stop" not in raw and events[-1][0] == "error"
        assert events[-1][1]["error"]["type"] == "api_error"
    else:
        assert "response.completed" not in raw
        assert "error" in [name for name, _ in events]
    (record,) = over.records.kept
    assert record.outcome in ("broken", "unreachable")


@every_api
async def test_errors_leave_in_the_envelope_of_the_caller(over, api: str) -> None:
    over.provider.faults.put("*", _fault(status=429, retry_after_s=7))
    asked = body_of(api, [{"role": "user", "content": "Say hello."}])
    response = await over.client.post(PATHS[api], json=asked)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-request-id"] == response.headers["request-id"] == over.records.kept[0].id
    error = response.json()
    if api == "messages":
        assert (error["type"], error["error"]["type"]) == ("error", "rate_limit_error")
    else:
        assert set(error) == {"error"} and error["error"]["type"]
    missing = await over.client.post(PATHS[api], json={**asked, "model": "absent"})
    assert missing.status_code == 404
    kind = missing.json()["error"]
    assert kind["type"] == "not_found_error"
    assert "absent" not in missing.text


def _fault(**what: object) -> object:
    from serving.emulated_faults import Fault

    return Fault(**what)  # type: ignore[arg-type]
