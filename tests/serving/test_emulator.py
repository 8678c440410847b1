from __future__ import annotations

import asyncio
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
import orjson
import pytest

import serving
from serving.dialects.chat.dialect import CHAT
from serving.dialects.conversation import ToolCall
from serving.dialects.losses import Losses
from serving.emulated_answers import CANDIDATES, TimedAnswer, n_tokens_of
from serving.emulated_answers import answer_of as timed_answer_of
from serving.emulated_faults import Fault, StickyFaults, fault_of
from serving.emulator import EmulatorServer
from serving.errors import InvalidRequest
from serving.sse import EventSplitter, data_of

MODEL = "gpt-4o-2024-05-13"
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me a story."}]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["C", "F"]},
                    "at": {"$ref": "#/$defs/at"},
                },
                "$defs": {"at": {"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]}},
            },
        },
    }
]


@pytest.fixture
async def emulator() -> AsyncIterator[EmulatorServer]:
    emulator = EmulatorServer(speed=0, n_kept=5)
    await emulator.start()
    yield emulator
    await emulator.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def answer_of(model: str, body: dict[str, object]) -> TimedAnswer:
    return timed_answer_of(model, CHAT.read_request({"model": model, **body}, Losses()))


def text_of(timed: TimedAnswer) -> str:
    return timed.answer.parts[0].text  # type: ignore[union-attr]


def ask(http: aiohttp.ClientSession, emulator: EmulatorServer, **more: object) -> aiohttp.client._RequestContextManager:
    return http.post(f"{emulator.base_url}/chat/completions", json={**QUESTION, **more}, allow_redirects=False)


async def events_of(response: aiohttp.ClientResponse) -> list[bytes]:
    splitter = EventSplitter()
    events = [event async for chunk in response.content.iter_any() for event in splitter.feed(chunk)]
    assert splitter.rest() == b""
    return [data for event in events if (data := data_of(event)) is not None]


async def eventually(emulator: EmulatorServer, **counts: int) -> None:
    for _ in range(500):
        if all(emulator.app.counts()[name] == n for name, n in counts.items()):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"expected {counts}, saw {emulator.app.counts()}")


async def test_every_answer_says_that_it_is_emulated(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator) as response:
        answer = await response.json()
        assert (response.status, response.headers["x-turnout-emulated"]) == (200, "true")
    text = answer["choices"][0]["message"]["content"]
    assert text.startswith(f"[emulated {MODEL}] ") and "no LLM ran" in text
    assert answer["usage"]["completion_tokens"] == n_tokens_of(text)
    assert answer["usage"]["prompt_tokens"] == n_tokens_of("Tell me a story.") == 4
    assert (answer["model"], answer["choices"][0]["finish_reason"]) == (MODEL, "stop")


async def test_the_openai_package_reads_it_streamed_and_not(emulator: EmulatorServer) -> None:
    client = openai.AsyncOpenAI(base_url=emulator.base_url, api_key="any", max_retries=0)
    messages = QUESTION["messages"]
    whole = await client.chat.completions.create(model=MODEL, messages=messages)  # type: ignore[call-overload]
    stream = await client.chat.completions.create(  # type: ignore[call-overload]
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage and chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [model.id async for model in client.models.list()] == [row.name for row in CANDIDATES]
    await client.close()


async def test_usage_is_only_streamed_when_asked_for(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, stream=True) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *chunks, done = await events_of(response)
    assert done == b"[DONE]"
    read = [orjson.loads(chunk) for chunk in chunks]
    assert not any("usage" in chunk for chunk in read)
    assert read[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in read[-2:]] == [None, "stop"]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in read}) == 1


@pytest.mark.parametrize(
    ("question", "value"),
    [("17 * 23", "391"), ("What is 7 / 2?", "3.5"), ("compute 10/5 =", "2"), ("1/0", "undefined"), ("-3 - -4", "1")],
)
def test_plain_arithmetic_is_really_answered(question: str, value: str) -> None:
    answer = answer_of("phi-3-mini", {"messages": [{"role": "user", "content": question}]})
    text = text_of(answer)
    assert text.startswith("[emulated phi-3-mini] ") and text.endswith(f" = {value}")


def test_the_same_request_gets_the_same_answer_and_others_differ() -> None:
    answers = {row.name: answer_of(row.name, QUESTION) for row in CANDIDATES}
    assert answers[MODEL] == answer_of(MODEL, QUESTION)
    assert len({timed.answer.usage.output_tokens for timed in answers.values()}) > 3
    for row in CANDIDATES:
        lengths = [
            answer_of(row.name, {"messages": [{"role": "user", "content": f"{n}?!"}]}).answer.usage.output_tokens or 0
            for n in range(200)
        ]
        assert row.mean_output_tokens / 3.2 < min(lengths) < max(lengths) < row.mean_output_tokens * 3.2


def test_a_token_limit_cuts_and_says_so() -> None:
    timed = answer_of(MODEL, {**QUESTION, "max_tokens": 10})
    assert (timed.answer.finished.reason, timed.answer.usage.output_tokens) == ("length", 10)
    assert len(text_of(timed)) == 40


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_demanded_tool_is_called(emulator: EmulatorServer, http: aiohttp.ClientSession, choice: object) -> None:
    async with ask(http, emulator, tools=TOOLS, tool_choice=choice) as response:
        (answer,) = (await response.json())["choices"]
    (call,) = answer["message"]["tool_calls"]
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
    assert orjson.loads(call["function"]["arguments"]) == {"city": "[emulated]", "days": 1, "unit": "C", "at": [1.5]}
    async with ask(http, emulator, tools=TOOLS, tool_choice=choice, stream=True) as response:
        deltas = [orjson.loads(event)["choices"][0]["delta"] for event in (await events_of(response))[:-1]]
    calls = [delta["tool_calls"][0] for delta in deltas if delta.get("tool_calls")]
    assert "".join(part["function"]["arguments"] for part in calls) == call["function"]["arguments"]
    assert [part["id"] for part in calls if "id" in part] == [call["id"]]


def test_tools_nobody_demands_are_not_called_nor_after_their_result() -> None:
    assert text_of(answer_of(MODEL, {**QUESTION, "tools": TOOLS, "tool_choice": "auto"}))
    (called,) = answer_of(MODEL, {**QUESTION, "tools": TOOLS, "tool_choice": "required"}).answer.parts
    assert isinstance(called, ToolCall)
    messages = [*QUESTION["messages"], {"role": "tool", "tool_call_id": "c", "content": "sunny"}]  # type: ignore[misc]
    assert text_of(answer_of(MODEL, {"messages": messages, "tools": TOOLS, "tool_choice": "required"}))


def test_json_is_answered_where_json_is_asked_for() -> None:
    schema = TOOLS[0]["function"]["parameters"]  # type: ignore[index]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    text = text_of(answer_of(MODEL, {**QUESTION, "response_format": wanted}))
    assert orjson.loads(text)["city"] == f"[emulated {MODEL}]"
    plain = answer_of(MODEL, {**QUESTION, "response_format": {"type": "json_object"}})
    assert orjson.loads(text_of(plain))["emulated"]


async def test_it_refuses_with_the_status_asked_for(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, emulate={"status": 429, "retry_after_s": 7}) as response:
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
    async with ask(http, emulator, emulate={"status": 529}) as response:
        assert response.status == 529


async def test_it_redirects_and_talks_garbage(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, emulate={"redirect": True}) as response:
        assert (response.status, response.headers["location"]) == (302, "/elsewhere")
    async with ask(http, emulator, emulate={"garbage": True}) as response:
        assert (response.status, (await response.read())[:6]) == (200, b"<html>")
    async with ask(http, emulator, emulate={"garbage": True}, stream=True) as response:
        assert (await events_of(response))[1] == b"{not json"


async def test_a_cut_stream_ends_without_an_end(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, emulate={"cut_after_events": 3}, stream=True) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    async with ask(http, emulator, emulate={"cut_after_events": 0}) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_truncated_answer_ends_cleanly_and_too_early(
    emulator: EmulatorServer, http: aiohttp.ClientSession
) -> None:
    async with ask(http, emulator, emulate={"truncate": True}, stream=True) as response:
        events = await events_of(response)
    assert events and b"[DONE]" not in events
    assert all(orjson.loads(event)["choices"][0]["finish_reason"] is None for event in events)
    async with ask(http, emulator, emulate={"truncate": True}) as response:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(await response.read())


async def test_an_error_event_ends_a_stream(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, emulate={"error_after_events": 2}, stream=True) as response:
        *_, last = await events_of(response)
    assert orjson.loads(last)["error"]["type"] == "server_error"


@pytest.mark.parametrize("more", [{"emulate": {"hang": True}}, {"emulate": {"hang_after_events": 2}, "stream": True}])
async def test_a_client_that_leaves_is_noticed(
    emulator: EmulatorServer, http: aiohttp.ClientSession, more: dict[str, object]
) -> None:
    async def read() -> None:
        async with ask(http, emulator, **more) as response:
            await response.read()

    reading = asyncio.create_task(read())
    await eventually(emulator, n_in_flight=1)
    reading.cancel()
    await asyncio.wait([reading])
    await eventually(emulator, n_requests=1, n_in_flight=0, n_cancelled=1)
    async with http.get(f"{emulator.base_url[:-3]}/emulator/requests") as response:
        assert (await response.json())["models"][MODEL] == {"n_requests": 1, "n_in_flight": 0, "n_cancelled": 1}


async def test_a_slow_stream_is_given_up_when_the_client_leaves(
    emulator: EmulatorServer, http: aiohttp.ClientSession
) -> None:
    async with ask(http, emulator, emulate={"event_delay_s": 0.02}, stream=True) as response:
        assert await response.content.readany()
        await eventually(emulator, n_in_flight=1, n_cancelled=0)
        response.close()
    await eventually(emulator, n_in_flight=0, n_cancelled=1)


async def test_sticky_faults_hit_the_next_requests_to_their_model(
    emulator: EmulatorServer, http: aiohttp.ClientSession
) -> None:
    faults = f"{emulator.base_url[:-3]}/emulator/faults"
    async with http.post(faults, json={"model": MODEL, "fault": {"status": 503}, "times": 2}) as response:
        assert response.status == 200
    statuses = []
    for _ in range(3):
        async with ask(http, emulator) as response:
            statuses.append(response.status)
    assert statuses == [503, 503, 200]
    async with http.post(faults, json={"model": MODEL, "fault": {"nonsense": 1}}) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "fault.nonsense")


def test_a_sticky_fault_stays_until_lifted_and_its_own_model_goes_first() -> None:
    faults = StickyFaults()
    faults.put("*", Fault(status=500))
    faults.put("a", Fault(status=429), times=1)
    assert [faults.take(model).status for model in ("a", "a", "b")] == [429, 500, 500]
    faults.put("*", None)
    assert faults.take("b") == Fault()


@pytest.mark.parametrize("asked", [7, {"x": 1}, {"status": "429"}, {"status": True}, {"hang": 1}, {"delay_s": "1"}])
def test_a_fault_that_is_none_is_refused(asked: object) -> None:
    with pytest.raises(InvalidRequest):
        fault_of(asked)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":1,"messages":[]}', b'{"model":"x","messages":"hi"}'])
async def test_what_is_no_request_is_refused(
    emulator: EmulatorServer, http: aiohttp.ClientSession, body: bytes
) -> None:
    async with http.post(f"{emulator.base_url}/chat/completions", data=body) as response:
        assert (response.status, response.headers["x-turnout-emulated"]) == (400, "true")


async def test_what_arrived_can_be_looked_at_by_tests(emulator: EmulatorServer, http: aiohttp.ClientSession) -> None:
    async with ask(http, emulator, seed=1):
        pass
    (received,) = emulator.app.received
    assert (received.path, orjson.loads(received.body)["seed"]) == ("/v1/chat/completions", 1)
    assert dict(received.headers)[b"content-type"] == b"application/json"


async def test_time_passes_at_the_speed_given() -> None:
    emulator = EmulatorServer(speed=0.001)
    await emulator.start()
    loop = asyncio.get_running_loop()
    answer = answer_of(MODEL, QUESTION)
    began_at = loop.time()
    async with aiohttp.ClientSession() as http, ask(http, emulator) as response:
        await response.read()
    assert loop.time() - began_at >= 0.001 * answer.total_s
    await emulator.stop()


async def test_stopping_ends_what_hangs_and_is_idempotent(http: aiohttp.ClientSession) -> None:
    emulator = EmulatorServer(speed=0)
    await emulator.start()

    async def hang() -> int:
        async with ask(http, emulator, emulate={"hang": True}) as response:
            return response.status

    hanging = asyncio.create_task(hang())
    await eventually(emulator, n_in_flight=1)
    await emulator.stop()
    await emulator.stop()
    (ended,) = await asyncio.wait_for(asyncio.gather(hanging, return_exceptions=True), 5)
    assert ended == 500 or isinstance(ended, aiohttp.ClientError)
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"{emulator.base_url}/models")


def test_the_demo_settings_charge_what_the_rows_say() -> None:
    demo = tomllib.loads(Path(serving.__file__).with_name("demo.toml").read_text())
    prices = {c["name"]: (c["input_usd_per_mtok"], c["output_usd_per_mtok"]) for c in demo["candidates"]}
    assert prices == {row.name: (row.input_usd_per_mtok, row.output_usd_per_mtok) for row in CANDIDATES}
