"""The end of the process: nobody is reset, what can finish finishes, the rest is told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from serving.app import create_app
from serving.commands import server_of
from serving.drain import Drain
from serving.emulator import EmulatorServer
from serving.errors import ClientDisconnected, NotReady, ShuttingDown
from serving.records import NullRecordStore, RequestRecord
from serving.server import LAST_WORDS_S

TESTS = Path(__file__).resolve().parent.parent
N_STREAMS = 50
#: `turnout serve`, with the tests' own encoder tier known to it.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from conftest import LettersEncoder
from router import features
features.TIERS["letters"] = LettersEncoder.from_files
from serving.commands import serve
serve(["--config", {config!r}, "--port", "0"])
"""
SERVER = """
[server]
bundle = "{bundle}"
database = "records.sqlite"
{settings}

[[providers]]
name = "emulator"
emulated = true
"""
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


@dataclass
class Serving:
    """A serving process of its own."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient

    async def ended(self) -> str:
        """Wait for the end; return its log."""
        async with asyncio.timeout(20):
            _, logged = await self.process.communicate()
        return logged.decode()


@pytest.fixture
def serving(configure) -> Callable[..., Awaitable[Serving]]:
    """Return what starts `turnout serve` as a process of its own."""

    @asynccontextmanager
    async def started(settings: str) -> AsyncIterator[Serving]:
        code = PROGRAM.format(tests=str(TESTS), config=str(configure(server=SERVER, settings=settings).source))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                url = None
                while url is None:
                    line = (await process.stdout.readline()).decode()
                    assert line, (await process.communicate())[1].decode()
                    url = re.search(r"http://127\.0\.0\.1:\d+", line)
            limits = httpx.Limits(max_connections=100)
            async with httpx.AsyncClient(base_url=url[0], limits=limits, timeout=20) as client:
                yield Serving(process, client)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return started


def asked(api: str, **fault: object) -> dict[str, object]:
    hello = [{"role": "user", "content": "Say hello."}]
    said: dict[str, object] = {"input": hello} if api == "responses" else {"messages": hello}
    return {"model": "auto", "stream": True, "max_tokens": 50, **said, "emulate": fault}


async def streamed(client: httpx.AsyncClient, api: str, begun: asyncio.Semaphore, **fault: object) -> str:
    """Read one stream to its end; release the semaphore at its first event."""
    body = asked(api, **fault)
    if api == "responses":
        del body["max_tokens"]
    text = ""
    async with client.stream("POST", PATHS[api], json=body) as response:
        async for chunk in response.aiter_text():
            if not text:
                begun.release()
            text += chunk
    return text


async def test_at_the_first_signal_open_streams_finish_and_nobody_new_comes_in(serving) -> None:
    async with serving("shutdown_timeout_s = 15") as gateway:
        begun = asyncio.Semaphore(0)
        streams = [
            asyncio.create_task(streamed(gateway.client, "chat", begun, event_delay_s=0.03)) for _ in range(N_STREAMS)
        ]
        for _ in streams:
            await begun.acquire()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)  # uvicorn looks for a signal ten times a second
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient(base_url=gateway.client.base_url) as newcomer:
                await newcomer.get("/healthz")
        assert not any(stream.done() for stream in streams), "they were to be still open by now"
        assert all(text.endswith("data: [DONE]\n\n") for text in await asyncio.gather(*streams))
        logged = await gateway.ended()
    assert "Traceback" not in logged and '"level":"error"' not in logged
    assert logged.count('"outcome":"ok"') == N_STREAMS


async def test_when_the_grace_is_over_streams_end_with_the_error_event_of_their_api(serving) -> None:
    async with serving("shutdown_timeout_s = 0.3") as gateway:
        begun = asyncio.Semaphore(0)
        apis = [api for _ in range(10) for api in PATHS]
        streams = [asyncio.create_task(streamed(gateway.client, api, begun, hang_after_events=8)) for api in apis]
        for _ in streams:
            await begun.acquire()
        hello = [{"role": "user", "content": "Say hello."}]
        body = {"model": "auto", "messages": hello, "emulate": {"hang": True}}
        whole = asyncio.create_task(gateway.client.post(PATHS["chat"], json=body))
        await asyncio.sleep(0.2)
        began_at = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        for api, text in zip(apis, await asyncio.gather(*streams), strict=True):
            events = [event for event in text.split("\n\n") if event]
            data = json.loads(events[-1].split("data: ")[1])
            error = data["error"]
            code = error["details"]["error_code"] if api == "messages" else error["code"]
            assert code == "shutting_down", api
            assert "[DONE]" not in text
            assert sum("shutting_down" in event for event in events) == 1
        answer = await whole
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
        assert answer.headers["retry-after"] == "1" and answer.headers["connection"] == "close"
        logged = await gateway.ended()
        assert time.monotonic() - began_at < 5
    assert "Traceback" not in logged
    assert logged.count('"outcome":"shutting_down"') == len(streams) + 1


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_now_and_still_resets_nobody(serving, second: signal.Signals) -> None:
    async with serving("shutdown_timeout_s = 60") as gateway:
        begun = asyncio.Semaphore(0)
        stream = asyncio.create_task(streamed(gateway.client, "chat", begun, hang_after_events=5))
        await begun.acquire()
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert not stream.done()
        began_at = time.monotonic()
        gateway.process.send_signal(second)
        assert "shutting_down" in await stream
        logged = await gateway.ended()
        assert time.monotonic() - began_at < 5
    assert logged.count('"outcome":"shutting_down"') == 1 and "Traceback" not in logged


async def test_who_does_not_even_read_is_left_behind_in_time(configure) -> None:
    settings = configure(settings="shutdown_timeout_s = 0.2")
    kept: list[RequestRecord] = []
    records = NullRecordStore()
    records.is_on = True
    records.add = lambda record, retained=None: kept.append(record)  # type: ignore[method-assign]
    app = create_app(settings, records=records, emulator=EmulatorServer(speed=0))
    app.emulator.app.scripts.put("*", [{"text": "word " * 60_000}])
    body = json.dumps({**asked("chat"), "emulate": None, "max_tokens": None}).encode()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = server_of(app, settings, ready=port.set_result)
    serving = asyncio.create_task(server.serve())
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.connect(("127.0.0.1", await port))
    reader, writer = await asyncio.open_connection(sock=small, limit=1024)
    try:
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert await asyncio.wait_for(reader.read(12), 20) == b"HTTP/1.1 200"
        await asyncio.sleep(0.3)  # from here on nothing more can be written to it
        began_at = time.monotonic()
        server.should_exit = True
        await serving
        assert time.monotonic() - began_at < LAST_WORDS_S + 10
    finally:
        writer.close()
    (record,) = kept
    assert record.outcome == "shutting_down"
    assert app.gateway.admission.status().n_in_flight == 0


async def test_ready_is_503_from_the_first_signal_on_and_alive_is_not(running) -> None:
    running.gateway.drain.begin()
    ready = await running.client.get("/readyz")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "not_ready")
    assert (await running.client.get("/healthz")).status_code == 200
    # Whoever is connected still is served.
    assert (await running.chat()).status_code == 200


def test_the_end_has_two_steps() -> None:
    drain = Drain()
    drain.check()
    assert isinstance(drain.cause(), ClientDisconnected)
    drain.begin()
    with pytest.raises(NotReady):
        drain.check()
    assert isinstance(drain.cause(), ClientDisconnected)
    drain.end()
    assert isinstance(drain.cause(), ShuttingDown)
