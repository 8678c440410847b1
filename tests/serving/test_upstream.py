from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from serving.errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from serving.providers.upstream import AiohttpUpstream, UpstreamRequest

SECRET = "sk-upstream-secret"
Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[UpstreamRequest]:
    """Serve raw bytes on loopback; yield a request that goes there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                n_bytes = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await handler(head + await reader.readexactly(n_bytes), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    request = UpstreamRequest(
        url=f"http://127.0.0.1:{port}/v1/chat/completions",
        headers={"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"},
        body=b'{"model":"x"}',
        provider="acme",
        deployment="acme/x",
    )
    try:
        yield request
    finally:
        server.close()


@pytest.fixture
async def upstream() -> AsyncIterator[AiohttpUpstream]:
    upstream = AiohttpUpstream(max_response_bytes=10_000)
    await upstream.open()
    yield upstream
    await upstream.close()


def answering(*parts: bytes, then_close: bool = False, pause_s: float = 0.0) -> Handler:
    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for n, part in enumerate(parts):
            if n:
                await asyncio.sleep(pause_s)
            writer.write(part)
        await writer.drain()
        if then_close:
            writer.close()

    return handle


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_bytes_go_out_and_come_back_untouched(upstream: AiohttpUpstream) -> None:
    seen: list[bytes] = []

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(b"HTTP/1.1 201 OK\r\nX-Request-ID: r1\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n")

    async with serving(handle) as request:
        for _ in range(2):
            response = await upstream.send(request)
            assert (response.status, response.headers["x-request-id"]) == (201, "r1")
            assert await response.read() == b"\x00\xff\r\n"
            await response.close()
    first, second = seen
    assert first == second  # no cookie came back
    assert first.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") and first.endswith(b'\r\n\r\n{"model":"x"}')
    names = [line.split(b":")[0].lower() for line in first.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert sorted(names) == [b"accept-encoding", b"authorization", b"content-length", b"content-type", b"host"]
    assert b"accept-encoding: identity" in first.lower()


async def test_chunks_arrive_as_they_are_sent(upstream: AiohttpUpstream) -> None:
    gate = asyncio.Event()

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"3\r\none\r\n")
        await gate.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with serving(handle) as request:
        response = await upstream.send(request)
        chunks = response.chunks()
        assert await anext(chunks) == b"one"
        gate.set()
        assert [chunk async for chunk in chunks] == [b"two"]
        await response.close()


async def test_an_error_status_is_an_answer(upstream: AiohttpUpstream) -> None:
    async with serving(answering(b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}")) as request:
        response = await upstream.send(request)
        assert (response.status, response.headers["retry-after"], await response.read()) == (429, "7", b"{}")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (answering(then_close=True), UpstreamUnreachable),
        (answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then_close=True), UpstreamBroken),
        (
            answering(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            UpstreamBroken,
        ),
        (
            answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"),
            UpstreamBroken,
        ),
    ],
)
async def test_an_answer_that_is_none_is_an_error(
    upstream: AiohttpUpstream, handler: Handler, kind: type[UpstreamError]
) -> None:
    async with serving(handler) as request:
        with pytest.raises(UpstreamError) as caught:
            await upstream.send(request)
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.deployment) == ("acme", "acme/x")
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "handler",
    [
        answering(HEAD + b"3\r\none\r\n", then_close=True),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\none", then_close=True),
        answering(HEAD + b"3\r\none\r\nnonsense\r\n"),
    ],
)
async def test_a_body_cut_short_is_broken_and_not_an_end(upstream: AiohttpUpstream, handler: Handler) -> None:
    async with serving(handler) as request:
        seen: list[bytes] = []
        with pytest.raises(UpstreamBroken):
            async for chunk in (await upstream.send(request)).chunks():
                seen.append(chunk)
        assert b"".join(seen) in (b"one", b"")


async def test_a_compressed_bomb_is_refused_by_its_head_and_never_unpacked(upstream: AiohttpUpstream) -> None:
    n_written = 0
    is_dropped = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    zeros = gzip.compress(bytes(2**20))

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_written
        writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"%x\r\n%s\r\n" % (len(zeros), zeros))
                n_written += len(zeros)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            is_dropped.set()

    async with serving(handle) as request:
        with pytest.raises(UpstreamBroken, match="compressed"):
            await upstream.send(request)
        await asyncio.wait_for(is_dropped.wait(), 5)
    assert n_written < 20 * 2**20, "what a socket holds at most, on the way"


async def test_a_refused_connection_is_unreachable(upstream: AiohttpUpstream) -> None:
    async with serving(answering()) as request:
        pass
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.send(request)
    assert caught.value.__cause__ is not None
    with pytest.raises(UpstreamUnreachable):
        await upstream.send(replace(request, url="http://no-such-host.invalid/v1"))


@pytest.mark.parametrize(
    ("parts", "limits", "phase"),
    [
        ((), {"first_byte_timeout_s": 0.05}, "first_byte"),
        ((HEAD,), {"first_byte_timeout_s": 0.05}, "first_byte"),
        ((HEAD + b"3\r\none\r\n",), {"idle_timeout_s": 0.05}, "idle"),
        ((), {"total_timeout_s": 0.05}, "total"),
        ((HEAD + b"3\r\none\r\n",), {"total_timeout_s": 0.05}, "total"),
    ],
)
async def test_each_wait_has_its_own_limit(
    upstream: AiohttpUpstream, parts: tuple[bytes, ...], limits: dict[str, float], phase: str
) -> None:
    async with serving(answering(*parts)) as request:
        with pytest.raises(UpstreamTimeout) as caught:
            response = await upstream.send(replace(request, **limits))  # type: ignore[arg-type]
            await response.read()
        await upstream.close()
    assert (caught.value.phase, caught.value.status) == (phase, 504)
    assert str(caught.value) == f"acme exceeded the {phase.replace('_', '-')} time-out of 0.05 s"


async def test_a_connection_that_does_not_come_is_a_connect_timeout() -> None:
    one_at_a_time = AiohttpUpstream()
    await one_at_a_time.open()
    assert one_at_a_time._session is not None and one_at_a_time._session.connector is not None
    one_at_a_time._session.connector._limit_per_host = 1
    async with serving(answering(HEAD + b"3\r\none\r\n")) as request:
        held = await one_at_a_time.send(request)
        with pytest.raises(UpstreamTimeout) as caught:
            await one_at_a_time.send(replace(request, connect_timeout_s=0.05))
        assert caught.value.phase == "connect"
        await held.close()
        await one_at_a_time.close()


async def test_silence_between_events_is_allowed_up_to_the_limit(upstream: AiohttpUpstream) -> None:
    parts = (HEAD + b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n0\r\n\r\n")
    async with serving(answering(*parts, pause_s=0.4)) as request:
        response = await upstream.send(replace(request, idle_timeout_s=5.0, first_byte_timeout_s=0.6))
        assert await response.read() == b"abc"  # later than the first-byte limit, and rightly so


async def test_closing_an_unfinished_answer_drops_the_connection_at_once(upstream: AiohttpUpstream) -> None:
    gone = asyncio.Event()

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"3\r\none\r\n")
        assert await reader.read() == b""
        gone.set()

    async with serving(handle) as request:
        response = await upstream.send(request)
        assert await anext(response.chunks()) == b"one"
        await response.close()
        await response.close()
        await asyncio.wait_for(gone.wait(), 5)


async def test_cancelling_a_request_drops_the_connection_at_once(upstream: AiohttpUpstream) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        assert await reader.read() == b""
        gone.set()

    async with serving(handle) as request:
        task = asyncio.create_task(upstream.send(request))
        await asyncio.wait_for(arrived.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 5)


async def test_an_answer_over_the_cap_is_refused(upstream: AiohttpUpstream) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 10001\r\n\r\n" + b"x" * 10_001
    async with serving(answering(body)) as request:
        response = await upstream.send(request)
        with pytest.raises(UpstreamBroken, match="more than 10000 bytes"):
            await response.read()


async def test_a_connection_is_used_again(upstream: AiohttpUpstream) -> None:
    n_connections = 0

    async def handle(request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_connections
        if not getattr(writer, "is_known", False):
            n_connections += 1
            writer.is_known = True  # type: ignore[attr-defined]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with serving(handle) as request:
        for _ in range(5):
            response = await upstream.send(request)
            assert await response.read() == b"ok"
            await response.close()
    assert n_connections == 1


async def test_calls_do_not_wait_for_one_another(upstream: AiohttpUpstream) -> None:
    """Waiting for a connection counts as the provider's failure; how many calls there are is decided elsewhere."""
    assert upstream._session is not None
    connector = upstream._session.connector
    assert (connector.limit, connector.limit_per_host) == (0, 0)


async def test_proxies_in_the_environment_are_ignored(
    upstream: AiohttpUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as request:
        assert await (await upstream.send(request)).read() == b"ok"


async def test_an_upstream_must_be_opened_and_closes_twice() -> None:
    upstream = AiohttpUpstream()
    with pytest.raises(RuntimeError, match="not open"):
        await upstream.send(UpstreamRequest("http://127.0.0.1:1", {}, b""))
    await upstream.close()
    await upstream.open()
    await upstream.close()
    await upstream.close()
