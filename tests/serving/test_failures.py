"""What a client gets when a provider fails, and that a stream ends in exactly one way."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import pytest

from serving import logs
from serving.emulated_faults import Fault
from serving.providers.upstream import UpstreamRequest
from serving.storage.record_store import SqliteRecordStore


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def error_of(response: httpx.Response) -> dict[str, object]:
    return response.json()["error"]


async def test_a_429_keeps_status_body_and_retry_after(running) -> None:
    response = await running.chat(emulate={"status": 429, "retry_after_s": 7})
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-turnout-candidate"] == "medium"
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert running.records.kept[0].outcome == "overloaded"
    (status,) = (row for row in running.gateway.pool.snapshot() if row.candidate == "medium")
    assert (status.n_errors, status.n_in_flight, status.last_error) == (1, 0, "overloaded")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"status": 400, "code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        ({"status": 404, "code": "model_not_found"}, 404, "model_not_found"),
        ({"status": 500}, 500, None),
        ({"status": 503}, 503, None),
        ({"status": 401}, 502, "upstream_credential_refused"),
        ({"redirect": True}, 502, "upstream_broken"),
        ({"compressed": True}, 502, "upstream_broken"),
        ({"cut_after_events": 0}, 502, None),
    ],
    ids=lambda value: next(iter(value)) + str(next(iter(value.values()))) if isinstance(value, dict) else None,
)
async def test_a_failure_before_the_answer_is_an_http_error(running, is_stream, fault, status, code) -> None:
    response = await running.chat(stream=is_stream, emulate=fault)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    if code is not None:
        assert error_of(response)["code"] == code
    assert response.headers["x-request-id"] == running.records.kept[0].id
    assert running.records.kept[0].status == status
    assert all(row.n_in_flight == 0 for row in running.gateway.pool.snapshot())


@pytest.mark.parametrize("fault", [{"garbage": True}, {"truncate": True}])
async def test_a_broken_200_is_never_passed_on_as_an_answer(running, fault) -> None:
    response = await running.chat(emulate=fault)
    assert response.status_code == 502
    assert error_of(response)["code"] == "upstream_broken"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"cut_after_events": 3}, "broken"),
        ({"truncate": True}, "broken"),
        ({"error_after_events": 3}, "broken"),
    ],
    ids=["cut", "clean end without finish_reason", "error event"],
)
async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(running, fault, outcome) -> None:
    response = await running.chat(stream=True, emulate=fault)
    assert response.status_code == 200
    events = [event for event in response.text.split("\n\n") if event]
    assert "[DONE]" not in response.text
    assert "error" in json.loads(events[-1].removeprefix("data: "))
    assert sum('"error"' in event for event in events) == 1
    (record,) = running.records.kept
    assert (record.status, record.outcome) == (200, outcome)
    assert next(row for row in running.gateway.pool.snapshot() if row.candidate == "medium").n_errors == 1


@pytest.mark.parametrize(
    ("timeout", "fault", "is_stream", "status"),
    [
        ("first_byte_timeout_s = 0.05", {"hang": True}, False, 504),
        ("first_byte_timeout_s = 0.05", {"hang": True}, True, 504),
        ("total_timeout_s = 0.05", {"hang": True}, False, 504),
        ("idle_timeout_s = 0.05", {"hang_after_events": 2}, True, 200),
        ("total_timeout_s = 0.1", {"hang_after_events": 2}, True, 200),
    ],
)
async def test_a_silent_provider_is_given_up(start, pool_toml, timeout, fault, is_stream, status) -> None:
    async with start(pool_toml, settings=timeout) as gateway:
        response = await gateway.chat(stream=is_stream, emulate=fault)
        assert response.status_code == status
        (record,) = gateway.records.kept
        assert (record.status, record.outcome) == (status, "timeout")
        if status == 504:
            assert error_of(response)["code"] == "upstream_timeout"
        else:
            assert "[DONE]" not in response.text
            last = response.text.strip().split("\n\n")[-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_timeout"


class Scripted:
    """An upstream that answers with given chunks; an exception among them is raised there."""

    def __init__(self, *chunks: bytes | Exception, content_type: str = "text/event-stream") -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self.n_closed = 0
        self._chunks = chunks

    async def open(self) -> None:
        return

    async def send(self, request: UpstreamRequest) -> Scripted:
        return self

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await asyncio.sleep(0)
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def close(self) -> None:
        self.n_closed += 1


FIRST = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("chunks", "told"),
    [
        ((FIRST + FINISH + DONE,), FIRST + FINISH + DONE),
        ((FIRST[:20], FIRST[20:] + FINISH, b"data: [DO", b"NE]\n\n"), FIRST + FINISH + DONE),
        ((b": waiting\n\n", FIRST, FINISH, DONE, FIRST), b": waiting\n\n" + FIRST + FINISH + DONE),
        ((FIRST, FINISH, b"data: [DONE]"), FIRST + FINISH + DONE),
        ((FIRST, FINISH), FIRST + FINISH + DONE),
    ],
    ids=["one chunk", "cut anywhere", "comment first, words after the end", "no blank line", "no [DONE]"],
)
async def test_a_whole_answer_ends_with_one_done_however_it_arrives(start, pool_toml, chunks, told) -> None:
    async with start(pool_toml, upstream=Scripted(*chunks)) as gateway:
        response = await gateway.chat(stream=True)
        assert response.content == told
        assert gateway.records.kept[0].outcome == "ok"


@pytest.mark.parametrize(
    "chunks",
    [(), (b'data: {"error":{"message":"overloaded"}}\n\n',), (b"data: {",)],
    ids=["nothing", "an error at once", "half an event"],
)
async def test_a_stream_that_never_begins_is_an_http_error(start, pool_toml, chunks) -> None:
    upstream = Scripted(*chunks)
    async with start(pool_toml, upstream=upstream) as gateway:
        response = await gateway.chat(stream=True)
        assert (response.status_code, error_of(response)["code"]) == (502, "upstream_broken")
        assert upstream.n_closed


@pytest.mark.parametrize(("is_stream", "kind"), [(True, "application/json"), (False, "text/event-stream")])
async def test_an_answer_of_the_wrong_form_is_refused(start, pool_toml, is_stream, kind) -> None:
    chunk = b'{"choices":[]}' if is_stream else FIRST + FINISH + DONE
    async with start(pool_toml, upstream=Scripted(chunk, content_type=kind)) as gateway:
        assert (await gateway.chat(stream=is_stream)).status_code == 502


async def test_a_providers_headers_are_made_fit_for_the_wire(start, pool_toml) -> None:
    upstream = Scripted(b'{"choices":[]}', content_type="application/json")
    upstream.headers = {**upstream.headers, "x-request-id": "r\u00e9q-\u2713\udcff\r\nx-evil: 1\x00\x85"}
    async with start(pool_toml, upstream=upstream) as gateway:
        response = await gateway.chat()
        assert response.status_code == 200
        assert dict(response.headers.raw)[b"x-upstream-request-id"] == b"r\xe9q-??x-evil: 1"
        assert "x-evil" not in response.headers


async def test_an_error_inside_a_200_is_an_error(start, pool_toml) -> None:
    async with start(pool_toml, upstream=Scripted(b'{"error":{"message":"no"}}')) as gateway:
        assert (await gateway.chat()).status_code == 502


async def test_a_bug_is_a_500_that_says_nothing_and_is_settled(start, pool_toml) -> None:
    async with start(pool_toml, upstream=Scripted(ZeroDivisionError("canary"))) as gateway:
        response = await gateway.chat()
        assert response.status_code == 500
        assert error_of(response)["code"] == "internal_error"
        assert "canary" not in response.text
        assert gateway.records.kept[0].outcome == "gateway_error"
        assert all(row.n_in_flight == 0 for row in gateway.gateway.pool.snapshot())


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_stops_the_provider(online, is_stream) -> None:
    asking = asyncio.create_task(online.chat("Say hello.", stream=is_stream, emulate={"hang": True}))
    await eventually(lambda: online.provider.counts()["n_in_flight"] == 1)
    asking.cancel()
    await eventually(lambda: online.provider.counts()["n_cancelled"] == 1)
    await eventually(lambda: bool(online.records.kept))
    record = online.records.kept[0]
    assert (record.outcome, record.status) == ("client_disconnected", 499)
    assert all(row.n_in_flight == row.n_errors == 0 for row in online.gateway.pool.snapshot())
    # Nobody counted, and the provider bills what it has read: of a whole answer also what it was expected to write.
    assert record.is_usage_estimated
    assert record.input_tokens > 0
    assert record.output_tokens == 0 if is_stream else record.output_tokens > 0
    assert record.cost_usd > 0


async def test_a_client_that_leaves_in_the_middle_stops_the_provider(online) -> None:
    body = {
        "model": "auto",
        "stream": True,
        "messages": [{"role": "user", "content": "Say hello."}],
        "emulate": {"hang_after_events": 3},
    }
    async with online.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
    await eventually(lambda: online.provider.counts()["n_cancelled"] == 1)
    await eventually(lambda: bool(online.records.kept))
    record = online.records.kept[0]
    assert (record.outcome, record.status) == ("client_disconnected", 200)
    assert all(row.n_in_flight == row.n_errors == 0 for row in online.gateway.pool.snapshot())
    assert record.is_usage_estimated
    assert record.output_tokens > 0
    assert record.cost_usd > 0


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
@pytest.mark.parametrize("spoken", ["chat", "responses", "messages", "gemini"])
async def test_a_cut_off_answer_is_estimated_by_what_came_of_it(start, api: str, spoken: str) -> None:
    server = (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        f'[[providers]]\nname = "emulator"\nemulated = true\napis = ["{spoken}"]\n'
    )
    async with start(server=server) as gateway:
        gateway.provider.scripts.put("*", [{"text": "abcd " * 200}])
        path = {"chat": "/v1/chat/completions"}.get(api, f"/v1/{api}")
        said = {"input": "Say hello."} if api == "responses" else {"messages": [{"role": "user", "content": "Hi"}]}
        asked = {"model": "large", "stream": True, "max_tokens": 5000, **said}
        whole = await gateway.client.post(path, json=asked)
        n_events = whole.text.count("data:")
        gateway.provider.scripts.put("*", [{"text": "abcd " * 200}])
        gateway.provider.faults.put("*", Fault(cut_after_events=n_events * 3 // 4))
        broken = await gateway.client.post(path, json=asked)
        assert "error" in broken.text
        record = gateway.records.kept[-1]
        assert record.outcome == "broken"
        assert record.is_usage_estimated
        # Three quarters of 1,000 characters, give or take the events around them; a token is taken to be four.
        assert 130 <= record.output_tokens <= 250


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"stream": True},
        {"model": "CANARY"},
        {"n": "CANARY"},
        {"turnout": {"CANARY": 1}},
        {"emulate": {"status": 400}},
        {"emulate": {"status": 500}},
        {"emulate": {"status": 401}},
        {"emulate": {"garbage": True}},
        {"emulate": {"redirect": True}},
        {"stream": True, "emulate": {"cut_after_events": 2}},
        {"stream": True, "emulate": {"truncate": True}},
        {"stream": True, "emulate": {"error_after_events": 2}},
    ],
    ids=str,
)
async def test_no_word_of_a_request_or_answer_is_kept_or_logged(
    start, pool_toml, tmp_path: Path, capsys, asked
) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    logs.configure("debug")
    try:
        records = SqliteRecordStore(tmp_path / "records.sqlite")
        async with start(pool_toml, records=records) as gateway:
            await gateway.chat("CANARY in the prompt", user="CANARY", headers={"x-canary": "CANARY"}, **asked)
            assert records.flush()
            assert records.status().n_written == 1
    finally:
        root.handlers, root.level = before[0], before[1]
    logged = capsys.readouterr().err
    assert '"event":"request"' in logged
    assert "CANARY" not in logged
    assert "emulated medium" not in logged
    for file in tmp_path.glob("records.sqlite*"):
        assert b"CANARY" not in file.read_bytes()
