"""The emulated providers in each of their dialects, by raw requests and expectations from the wire reference."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from collections.abc import AsyncIterator, Mapping

import httpx
import openai
import orjson
import pytest

from serving.dialects.conversation import Conversation, Message, Text
from serving.emulated_replays import Replays
from serving.emulated_scripts import Scripts, steps_of
from serving.emulator import EmulatorServer
from serving.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages?beta=true",
    "gemini": "/v1beta/models/m:generateContent",
}
DIALECTS = list(PATHS)
QUESTION = "What is 17 * 23?"
ANSWER = "[emulated m] What is 17 * 23 = 391"


@pytest.fixture
async def emulator() -> AsyncIterator[EmulatorServer]:
    emulator = EmulatorServer(speed=0, n_kept=50)
    await emulator.start()
    yield emulator
    await emulator.stop()


@pytest.fixture
async def http(emulator: EmulatorServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.base_url.removesuffix("/v1"), timeout=10) as client:
        yield client


def body_of(dialect: str, text: str = QUESTION) -> dict[str, object]:
    bodies: dict[str, dict[str, object]] = {
        "chat": {"model": "m", "messages": [{"role": "user", "content": text}]},
        "responses": {"model": "m", "input": text},
        "messages": {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": text}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": text}]}]},
    }
    return bodies[dialect]


def tools_of(dialect: str, *names: str) -> dict[str, object]:
    """Return the fields that offer tools."""
    functions = [{"name": name, "description": "d", "parameters": SCHEMA} for name in names]
    if dialect == "chat":
        return {"tools": [{"type": "function", "function": function} for function in functions]}
    if dialect == "responses":
        return {"tools": [{"type": "function", **function} for function in functions]}
    if dialect == "messages":
        return {"tools": [{"name": f["name"], "description": "d", "input_schema": SCHEMA} for f in functions]}
    return {"tools": [{"functionDeclarations": functions}]}


FORCED: dict[str, dict[str, object]] = {
    "chat": {"tool_choice": {"type": "function", "function": {"name": "second"}}},
    "responses": {"tool_choice": {"type": "function", "name": "second"}},
    "messages": {"tool_choice": {"type": "tool", "name": "second"}},
    "gemini": {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["second"]}}},
}
STRUCTURED: dict[str, dict[str, object]] = {
    "chat": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    "responses": {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "gemini": {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}},
}
LIMITED: dict[str, dict[str, object]] = {
    "chat": {"max_completion_tokens": 3},
    "responses": {"max_output_tokens": 3},
    "messages": {"max_tokens": 3},
    "gemini": {"generationConfig": {"maxOutputTokens": 3}},
}


async def ask(http: httpx.AsyncClient, dialect: str, **more: object) -> httpx.Response:
    return await http.post(PATHS[dialect], json={**body_of(dialect), **more})


async def stream(http: httpx.AsyncClient, dialect: str, **more: object) -> httpx.Response:
    if dialect == "gemini":
        return await http.post("/v1beta/models/m:streamGenerateContent?alt=sse", json={**body_of(dialect), **more})
    return await ask(http, dialect, stream=True, **more)


def text_of(dialect: str, answer: dict) -> str:  # type: ignore[type-arg]
    if dialect == "chat":
        return answer["choices"][0]["message"]["content"]
    if dialect == "responses":
        return "".join(p["text"] for o in answer["output"] if o["type"] == "message" for p in o["content"])
    if dialect == "messages":
        return "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    return "".join(part.get("text", "") for part in answer["candidates"][0]["content"]["parts"])


def call_of(dialect: str, answer: dict) -> tuple[str, object]:  # type: ignore[type-arg]
    if dialect == "chat":
        function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
        return function["name"], orjson.loads(function["arguments"])
    if dialect == "responses":
        (call,) = (item for item in answer["output"] if item["type"] == "function_call")
        return call["name"], orjson.loads(call["arguments"])
    if dialect == "messages":
        (block,) = (block for block in answer["content"] if block["type"] == "tool_use")
        return block["name"], block["input"]
    (part,) = (part for part in answer["candidates"][0]["content"]["parts"] if "functionCall" in part)
    return part["functionCall"]["name"], part["functionCall"]["args"]


def finish_of(dialect: str, answer: dict) -> str:  # type: ignore[type-arg]
    if dialect == "chat":
        return answer["choices"][0]["finish_reason"]
    if dialect == "responses":
        return (answer["incomplete_details"] or {"reason": answer["status"]})["reason"]
    if dialect == "messages":
        return answer["stop_reason"]
    return answer["candidates"][0]["finishReason"]


def data_of(response: httpx.Response) -> list[dict]:  # type: ignore[type-arg]
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    return [orjson.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_same_question_has_one_answer_in_every_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    response = await ask(http, dialect)
    assert (response.status_code, response.headers["x-turnout-emulated"]) == (200, "true")
    assert text_of(dialect, response.json()) == ANSWER
    natural = {"chat": "stop", "responses": "completed", "messages": "end_turn", "gemini": "STOP"}
    assert finish_of(dialect, response.json()) == natural[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_demanded_tool_is_called_in_every_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    tools = tools_of(dialect, "first", "second")
    response = await ask(http, dialect, **tools, **FORCED[dialect])
    assert call_of(dialect, response.json()) == ("second", {"city": "[emulated]"})
    natural = {"chat": "tool_calls", "responses": "completed", "messages": "tool_use", "gemini": "STOP"}
    assert finish_of(dialect, response.json()) == natural[dialect]
    assert text_of(dialect, (await ask(http, dialect, **tools)).json()) == ANSWER


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_schema_gets_an_example_in_every_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    response = await ask(http, dialect, **STRUCTURED[dialect])
    assert orjson.loads(text_of(dialect, response.json())) == {"city": "[emulated m]"}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_token_limit_cuts_in_every_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    answer = (await ask(http, dialect, **LIMITED[dialect])).json()
    cut = {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens", "gemini": "MAX_TOKENS"}
    assert (text_of(dialect, answer), finish_of(dialect, answer)) == (ANSWER[:12], cut[dialect])


ENVELOPES = {
    "chat": {
        "error": {
            "message": "emulated status 429",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    },
    "messages": {"type": "error", "error": {"type": "rate_limit_error", "message": "emulated status 429"}},
    "gemini": {"error": {"code": 429, "message": "emulated status 429", "status": "RESOURCE_EXHAUSTED"}},
}
ENVELOPES["responses"] = ENVELOPES["chat"]


def holds(value: object, wanted: object) -> bool:
    """Tell whether everything wanted is in a value, which may hold more."""
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(holds(value.get(name), inner) for name, inner in wanted.items())
    return value == wanted


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_status_comes_in_the_envelope_of_the_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    response = await ask(http, dialect, emulate={"status": 429, "retry_after_s": 7})
    assert response.status_code == 429
    assert holds(response.json(), ENVELOPES[dialect]), response.text
    if dialect == "gemini":
        delays = [detail.get("retryDelay") for detail in response.json()["error"]["details"]]
        assert "7s" in delays and "retry-after" not in response.headers
    else:
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_error_event_has_the_form_of_the_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    response = await stream(http, dialect, emulate={"error_after_events": 2})
    assert response.status_code == 200
    *_, last = data_of(response)
    assert "emulated status 500" in (last.get("error") or {}).get("message", ""), response.text
    wanted = {
        "chat": {"error": {"type": "server_error"}},
        "responses": {"type": "error"},
        "messages": {"type": "error", "error": {"type": "api_error"}},
        "gemini": {"error": {"code": 500, "status": "INTERNAL"}},
    }
    assert holds(last, wanted[dialect])
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_streams_are_cut_truncated_and_garbled_in_every_dialect(http: httpx.AsyncClient, dialect: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await stream(http, dialect, emulate={"cut_after_events": 2})
    end = {"chat": '"stop"', "responses": "response.completed", "messages": "message_stop", "gemini": '"STOP"'}
    truncated = await stream(http, dialect, emulate={"truncate": True})
    assert data_of(truncated) and end[dialect] not in truncated.text
    assert end[dialect] in (await stream(http, dialect)).text
    assert "data: {not json\n\n" in (await stream(http, dialect, emulate={"garbage": True})).text
    with pytest.raises(httpx.ReadTimeout):
        await http.post(PATHS[dialect], json={**body_of(dialect), "emulate": {"hang": True}}, timeout=0.1)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_sticky_fault_counts_requests_of_every_dialect(
    emulator: EmulatorServer, http: httpx.AsyncClient, dialect: str
) -> None:
    sticky = {"model": "m", "fault": {"status": 503}, "times": 1}
    assert (await http.post("/emulator/faults", json=sticky)).status_code == 200
    assert [(await ask(http, dialect)).status_code for _ in range(2)] == [503, 200]
    path, _, query = PATHS[dialect].partition("?")
    assert [(received.path, received.query) for received in emulator.app.received] == [(path, query)] * 2


SCRIPT = {
    "text": "On it.",
    "reasoning": "Hm.",
    "state": "c2ln",
    "calls": [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "call_1"}],
}


async def test_messages_streams_what_is_scripted_event_by_event(
    emulator: EmulatorServer, http: httpx.AsyncClient
) -> None:
    emulator.app.scripts.put("m", [SCRIPT])
    response = await stream(http, "messages", **tools_of("messages", "weather"))
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = data_of(response)
    names = [line.removeprefix("event: ") for line in response.text.split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    first = events[0]["message"]
    assert (first["role"], first["content"], first["stop_reason"], first["model"]) == ("assistant", [], None, "m")
    assert first["usage"]["input_tokens"] > 0
    assert events[1:-2] == [
        {"type": "content_block_start", "index": 0, "content_block": events[1]["content_block"]},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "On i"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "t."}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
        },
        *(
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in ('{"ci', 'ty":', '"Osl', 'o"}')
        ),
        {"type": "content_block_stop", "index": 2},
    ]
    assert events[1]["content_block"]["type"] == "thinking"
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    # "Hm." and "On it." are 9 characters, name and arguments of the call 22: at four a token, 8.
    assert events[-2]["usage"]["output_tokens"] == 8
    assert events[-1] == {"type": "message_stop"}


async def test_gemini_signs_the_call_and_streams_it_whole(emulator: EmulatorServer, http: httpx.AsyncClient) -> None:
    emulator.app.scripts.put("m", [SCRIPT])
    chunks = data_of(await stream(http, "gemini", **tools_of("gemini", "weather")))
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    assert parts[0] == {"text": "Hm.", "thought": True}
    assert [part["text"] for part in parts[1:3]] == ["On i", "t."]
    (call,) = (part for part in parts if "functionCall" in part)
    assert call["functionCall"] == {"id": "call_1", "name": "weather", "args": {"city": "Oslo"}}
    assert call["thoughtSignature"] == "c2ln"
    last = chunks[-1]
    assert last["candidates"][0]["finishReason"] == "STOP"
    counts = last["usageMetadata"]
    assert (counts["candidatesTokenCount"], counts["thoughtsTokenCount"]) == (7, 1)
    assert counts["totalTokenCount"] == counts["promptTokenCount"] + 8
    assert all(chunk["modelVersion"] == "m" for chunk in chunks)


async def test_chat_tells_thoughts_and_signature_as_its_providers_do(
    emulator: EmulatorServer, http: httpx.AsyncClient
) -> None:
    emulator.app.scripts.put("m", [SCRIPT])
    answer = (await ask(http, "chat", **tools_of("chat", "weather"))).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", "On it.")
    assert message["tool_calls"] == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
            "extra_content": {"google": {"thought_signature": "c2ln"}},
        }
    ]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}
    deltas = [c["choices"][0]["delta"] for c in data_of(await stream(http, "chat", **tools_of("chat", "weather")))]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content") or "" for delta in deltas) == "On it."


async def test_responses_counts_its_events_and_repeats_them_in_the_end(
    emulator: EmulatorServer, http: httpx.AsyncClient
) -> None:
    emulator.app.scripts.put("m", [SCRIPT])
    more = {**tools_of("responses", "weather"), "include": ["reasoning.encrypted_content"]}
    events = data_of(await stream(http, "responses", **more))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    assert done[0]["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert done[0]["encrypted_content"] == "c2ln"
    assert (done[2]["call_id"], done[2]["arguments"]) == ("call_1", '{"city":"Oslo"}')
    assert (events[-1]["type"], events[-1]["response"]["output"]) == ("response.completed", done)
    assert events[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] == 1


async def test_a_custom_tool_gets_its_raw_input(emulator: EmulatorServer, http: httpx.AsyncClient) -> None:
    emulator.app.scripts.put("*", [{"calls": [{"name": "patch", "arguments": "*** Begin"}]}])
    answer = (await ask(http, "responses", tools=[{"type": "custom", "name": "patch"}])).json()
    (item,) = answer["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "*** Begin")
    forced = {"tools": [{"type": "custom", "name": "other"}], "tool_choice": {"type": "custom", "name": "other"}}
    (item,) = (await ask(http, "responses", **forced)).json()["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "[emulated]")


AFTER_ONE_TURN: dict[str, dict[str, object]] = {
    "chat": {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": f"c{i}", "type": "function", "function": {"name": "weather", "arguments": "{}"}} for i in (1, 2)
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "sun"},
            {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        ]
    },
    "responses": {
        "input": [
            {"role": "user", "content": "?"},
            *({"type": "function_call", "call_id": f"c{i}", "name": "weather", "arguments": "{}"} for i in (1, 2)),
            *({"type": "function_call_output", "call_id": f"c{i}", "output": "sun"} for i in (1, 2)),
        ]
    },
    "messages": {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": f"c{i}", "name": "weather", "input": {}} for i in (1, 2)
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": f"c{i}", "content": "sun"} for i in (1, 2)
            ]},
        ]
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {}}} for _ in (1, 2)]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "weather", "response": {"output": "sun"}}} for _ in (1, 2)
            ]},
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_script_goes_on_with_every_turn_that_called(http: httpx.AsyncClient, dialect: str) -> None:
    steps = [{"calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}, {"text": "Sunny.", "finish": "length"}]
    put = await http.post("/emulator/script", json={"model": "*", "steps": steps})
    assert put.json() == {"model": "*", "steps": steps}
    tools = tools_of(dialect, "weather")
    first = (await ask(http, dialect, **tools)).json()
    assert call_of(dialect, first) == ("weather", {"city": "Oslo"})
    second = (await ask(http, dialect, **tools, **AFTER_ONE_TURN[dialect])).json()
    cut = {"chat": "length", "responses": "max_output_tokens", "messages": "max_tokens", "gemini": "MAX_TOKENS"}
    assert (text_of(dialect, second), finish_of(dialect, second)) == ("Sunny.", cut[dialect])
    assert text_of(dialect, (await ask(http, dialect)).json()) == ANSWER, "a tool that is not offered is not called"
    assert (await http.post("/emulator/script", json={"model": "*", "steps": None})).status_code == 200
    assert text_of(dialect, (await ask(http, dialect, **tools)).json()) == ANSWER


async def test_scripted_usage_stands_in_the_place_of_what_was_counted(
    emulator: EmulatorServer, http: httpx.AsyncClient
) -> None:
    usage = {"input_tokens": 100, "cache_read_tokens": 60, "cache_write_tokens": 30, "output_tokens": 5}
    emulator.app.scripts.put("*", [{"text": "x", "usage": usage}])
    counts = (await ask(http, "messages")).json()["usage"]
    assert (counts["input_tokens"], counts["cache_read_input_tokens"]) == (10, 60)
    assert (counts["cache_creation_input_tokens"], counts["output_tokens"]) == (30, 5)
    counts = (await ask(http, "chat")).json()["usage"]
    assert counts["prompt_tokens_details"] == {"cached_tokens": 60, "cache_write_tokens": 30}
    emulator.app.scripts.put("*", [{"text": "x", "usage": {"input_tokens": None}}])
    assert "usage" not in (await ask(http, "chat")).json()


def test_a_models_own_script_goes_before_the_one_of_all() -> None:
    scripts = Scripts()
    scripts.put("*", [{"text": "all"}])
    scripts.put("a", [{"text": "own"}])
    asked = Conversation((Message("user", (Text("?"),)),))
    steps = [scripts.step_for(model, asked) for model in ("a", "b")]
    assert [step.text for step in steps if step] == ["own", "all"]


@pytest.mark.parametrize(
    ("steps", "param"),
    [
        (7, "steps"),
        ([], "steps"),
        (["x"], "steps[0]"),
        ([{}, {"txt": "x"}], "steps[1].txt"),
        ([{"text": 1}], "steps[0].text"),
        ([{"calls": {}}], "steps[0].calls"),
        ([{"calls": [{"arguments": {}}]}], "steps[0].calls[0].name"),
        ([{"calls": [{"name": "a", "arguments": []}]}], "steps[0].calls[0].arguments"),
        ([{"finish": "done"}], "steps[0].finish"),
        ([{"usage": {"tokens": 1}}], "steps[0].usage.tokens"),
        ([{"usage": {"input_tokens": -1}}], "steps[0].usage.input_tokens"),
    ],
)
def test_a_script_that_is_none_is_refused_by_the_field(steps: object, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        steps_of(steps)
    assert caught.value.param == param
    assert caught.value.message.startswith(param.rpartition(".")[0] or param)


async def test_it_is_as_tolerant_as_providers_of_chat(http: httpx.AsyncClient) -> None:
    odd = {
        "n": 2,
        "logprobs": True,
        "temperature": "hot",
        "response_format": {"type": "odd"},
        "tools": [{"type": "odd"}],
        "modalities": ["audio"],
        "unheard": {"of": 1},
    }
    response = await ask(http, "chat", **odd)
    assert response.status_code == 200, response.text
    assert text_of("chat", response.json()) == ANSWER
    parts = [{"type": "text", "text": QUESTION}, {"type": "odd", "odd": 1}]
    response = await ask(http, "chat", messages=[{"role": "user", "content": parts}])
    assert text_of("chat", response.json()) == ANSWER


async def test_what_no_provider_takes_is_refused_in_the_envelope_of_the_dialect(http: httpx.AsyncClient) -> None:
    unlimited = await http.post("/v1/messages", json={"model": "m", "messages": [{"role": "user", "content": "x"}]})
    assert (unlimited.status_code, unlimited.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "max_tokens" in unlimited.json()["error"]["message"]
    broken = await http.post("/v1beta/models/m:generateContent", content=b"{")
    assert (broken.status_code, broken.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    stored = await ask(http, "responses", previous_response_id="resp_1")
    assert (stored.status_code, stored.json()["error"]["code"]) == (400, "previous_response_not_found")
    array = await http.post("/v1beta/models/m:streamGenerateContent", json=body_of("gemini"))
    assert array.status_code == 400
    unknown = await http.post("/v1beta/models/m:predict", json={})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")


async def test_a_model_in_a_path_may_have_any_name(emulator: EmulatorServer, http: httpx.AsyncClient) -> None:
    response = await http.post("/v1/models/org%2Fname%3Atag@1:generateContent", json=body_of("gemini"))
    assert response.json()["modelVersion"] == "org/name:tag@1"
    assert emulator.app.counts()["models"] == {"org/name:tag@1": {"n_requests": 1, "n_in_flight": 0, "n_cancelled": 0}}


async def test_tokens_are_counted_where_a_dialect_has_a_counter(http: httpx.AsyncClient) -> None:
    n_tokens = math.ceil(len(QUESTION) / 4)
    body = {name: value for name, value in body_of("messages").items() if name != "max_tokens"}
    assert (await http.post("/v1/messages/count_tokens", json=body)).json() == {"input_tokens": n_tokens}
    body = body_of("gemini")
    for asked in (body, {"generateContentRequest": {"model": "models/m", **body}}):
        response = await http.post("/v1beta/models/m:countTokens", json=asked)
        assert response.json() == {"totalTokens": n_tokens}
    counted = await http.post("/v1/responses/input_tokens", json=body_of("responses"))
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": n_tokens}


async def test_embeddings_are_unit_vectors_in_both_encodings(http: httpx.AsyncClient) -> None:
    asked = {"model": "e", "input": ["sun", "rainfall", "sun"], "dimensions": 5}
    plain = (await http.post("/v1/embeddings", json=asked)).json()
    assert (plain["object"], plain["model"]) == ("list", "e")
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert [(row["object"], row["index"]) for row in plain["data"]] == [("embedding", i) for i in range(3)]
    sun, rain, again = (row["embedding"] for row in plain["data"])
    assert sun == again != rain
    assert len(sun) == 5 and math.isclose(math.hypot(*sun), 1)
    packed = (await http.post("/v1/embeddings", json={**asked, "encoding_format": "base64"})).json()
    assert struct.unpack("<5f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx(sun)
    tokens = (await http.post("/v1/embeddings", json={"model": "e", "input": [[1, 2, 3], [4]]})).json()
    assert (len(tokens["data"]), tokens["usage"]["prompt_tokens"]) == (2, 4)
    refused = await http.post("/v1/embeddings", json={"model": "e", "input": []})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
    one = {"content": {"parts": [{"text": "sun"}]}, "outputDimensionality": 5}
    assert (await http.post("/v1beta/models/e:embedContent", json=one)).json() == {"embedding": {"values": sun}}
    many = {"requests": [{"model": "models/e", **one}, {"model": "models/e", **one}]}
    batch = (await http.post("/v1beta/models/e:batchEmbedContents", json=many)).json()
    assert batch == {"embeddings": [{"values": sun}] * 2}


async def test_the_openai_package_reads_responses_and_embeddings(emulator: EmulatorServer) -> None:
    emulator.app.scripts.put("m", [SCRIPT, {"text": "Sunny."}])
    async with openai.AsyncOpenAI(base_url=emulator.base_url, api_key="any", max_retries=0) as client:
        tools = tools_of("responses", "weather")["tools"]
        whole = await client.responses.create(model="m", input="?", tools=tools)  # type: ignore[call-overload]
        assert [item.type for item in whole.output] == ["reasoning", "message", "function_call"]
        result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
        history = [{"role": "user", "content": "?"}, *(item.model_dump() for item in whole.output), result]
        async with client.responses.stream(model="m", input=history, tools=tools) as events:  # type: ignore[arg-type]
            types = [event.type async for event in events]
            final = await events.get_final_response()
        assert (types[0], types[-1]) == ("response.created", "response.completed")
        assert (final.output_text, final.usage.output_tokens if final.usage else None) == ("Sunny.", 2)
        found = await client.embeddings.create(model="e", input="sun", dimensions=4)
        assert len(found.data[0].embedding) == 4
        called = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "?"}], tools=tools_of("chat", "weather")["tools"]
        )  # type: ignore[call-overload]
        assert called.choices[0].message.tool_calls[0].function.arguments == '{"city":"Oslo"}'


async def test_a_replay_is_sent_byte_for_byte_and_once(emulator: EmulatorServer, http: httpx.AsyncClient) -> None:
    chunks = [b": waiting\n\n", b"data: {\xc3", b"\xa4", b"}\r\n\r\n"]
    emulator.app.replays.put("m", 207, {"Content-Type": "text/event-stream", "x-odd": "1"}, chunks)
    async with http.stream("POST", PATHS["messages"], json=body_of("messages")) as response:
        assert (response.status_code, response.headers["x-odd"]) == (207, "1")
        assert response.headers["x-turnout-emulated"] == "true"
        assert [chunk async for chunk in response.aiter_raw()] == chunks
    assert text_of("chat", (await ask(http, "chat")).json()) == ANSWER
    assert emulator.app.counts()["n_requests"] == 2


async def test_a_replay_can_be_cut(emulator: EmulatorServer, http: httpx.AsyncClient) -> None:
    emulator.app.replays.put("*", 200, {"content-type": "application/json"}, [b'{"a":'], is_cut=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(http, "responses")


def test_replays_wait_in_line_and_a_models_own_go_first() -> None:
    replays = Replays()
    for model, status in (("*", 500), ("a", 201), ("a", 202)):
        replays.put(model, status, {}, [])
    taken = [replays.take("a") for _ in range(4)]
    assert [replay.status if replay else None for replay in taken] == [201, 202, 500, None]


async def test_time_passes_in_every_dialect() -> None:
    emulator = EmulatorServer(speed=0.05)
    await emulator.start()
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=emulator.base_url.removesuffix("/v1")) as http:
        for dialect in DIALECTS:
            began_at = loop.time()
            await ask(http, dialect)
            # 0.3 s to the first token and 100 tokens a second, times three quarters at least
            assert loop.time() - began_at >= 0.05 * 0.75 * (0.3 + 9 / 100)
    await emulator.stop()
