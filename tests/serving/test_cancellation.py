"""Wherever a request is cancelled, once or twice, the provider is let go of, a record is written, no place is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import orjson
import pytest

from serving.providers.upstream import UpstreamRequest

FIRST = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
#: More turns of the loop than any request below takes.
N_TURNS = 40


class Slow:
    """An upstream with a pause of one turn at every step, which counts the answers that nobody has let go of."""

    def __init__(self, is_stream: bool) -> None:
        self.n_open = self.n_sent = 0
        self._chunks = (FIRST, FIRST, FINISH, DONE) if is_stream else (WHOLE[:20], WHOLE[20:])
        self._type = "text/event-stream" if is_stream else "application/json"

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def send(self, request: UpstreamRequest) -> SlowAnswer:
        self.n_sent += 1
        await asyncio.sleep(0)
        return SlowAnswer(self, self._chunks, {"content-type": self._type})


class SlowAnswer:
    status = 200

    def __init__(self, upstream: Slow, chunks: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._upstream = upstream
        self._chunks = chunks
        self._is_open = True
        upstream.n_open += 1

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            await asyncio.sleep(0)
            yield chunk

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._upstream.n_open -= 1
        await asyncio.sleep(0)  # a close that takes its time can be cancelled too


async def passed(n_turns: int) -> None:
    for _ in range(n_turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", ["alone", "once", "queued"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_request_may_be_cancelled_twice_anywhere(start, pool_toml, is_stream: bool, way: str) -> None:
    upstream = Slow(is_stream)
    body = orjson.dumps({"model": "auto", "stream": is_stream, "messages": [{"role": "user", "content": "Hello."}]})
    key = [(b"idempotency-key", b"k")] if way == "once" else []
    async with start(pool_toml, upstream=upstream) as gateway:
        admission, records = gateway.gateway.admission, gateway.records.kept
        admission.resize(1, 30.0)

        async def send(message: Mapping[str, object]) -> None:
            await asyncio.sleep(0)  # a client that reads slowly

        async def ask() -> None:
            sent = False

            async def receive() -> Mapping[str, object]:
                nonlocal sent
                if sent:
                    await asyncio.Event().wait()
                sent = True
                return {"type": "http.request", "body": body}

            headers = [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(body)), *key]
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
            await gateway.app(scope, receive, send)

        n_cancelled = 0
        for first in range(N_TURNS):
            for second in (0, 1, 2, 3, 5):
                records.clear()
                before = asyncio.create_task(ask()) if way == "queued" else None
                task = asyncio.create_task(ask())
                await passed(first)
                n_cancelled += task.cancel()
                await passed(second)
                task.cancel()
                await asyncio.gather(task, *([before] if before else []), return_exceptions=True)
                await passed(3)
                where = (first, second)
                assert upstream.n_open == 0, where
                assert admission.status().n_in_flight == admission.status().n_waiting == 0, where
                assert all(row.n_in_flight == 0 for row in gateway.gateway.pool.snapshot()), where
                assert not gateway.gateway.idempotency._running, where
                assert len(records) <= 1 + (before is not None), where
                gateway.gateway.idempotency._kept.clear()
        assert n_cancelled > 30 and upstream.n_sent > 20, "the cancellations were to hit requests under way"


async def test_whoever_was_sent_to_is_recorded_wherever_it_was_cancelled(start, pool_toml) -> None:
    upstream = Slow(True)
    async with start(pool_toml, upstream=upstream) as gateway:
        for n_turns in range(N_TURNS):
            gateway.records.kept.clear()
            upstream.n_sent = 0
            task = asyncio.create_task(gateway.chat(stream=True))
            await passed(n_turns)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert len(gateway.records.kept) == upstream.n_sent, n_turns
