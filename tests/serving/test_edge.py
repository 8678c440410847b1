from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.arrival import _Coalescing, protocol_of
from serving.edge import IS_WHOLE, App, Edge, Limits, Message, Receive, Scope, Send, read_body, send_error
from serving.errors import (
    BodyTooLarge,
    ClientDisconnected,
    NotFound,
    ReceiveTimeout,
    UpstreamOverloaded,
)
from serving.providers.upstream import AiohttpUpstream, UpstreamRequest

LIMITS = Limits(max_body_bytes=100, receive_timeout_s=0.2, header_timeout_s=0.2, max_headers=8, max_header_bytes=500)


def a_scope(*headers: tuple[bytes, bytes], path: str = "/v1/x", method: str = "POST") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


def receiving(*messages: Message) -> Receive:
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Sent:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return self.messages[0]["status"]

    @property
    def code(self) -> str:
        return orjson.loads(self.messages[1]["body"])["error"]["code"]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(scope, receive, LIMITS)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def test_a_body_in_parts_is_joined() -> None:
    receive = receiving(part(b"a" * 60, True), part(b"b" * 40))
    assert await read_body(a_scope(), receive, LIMITS) == b"a" * 60 + b"b" * 40


async def test_a_body_over_the_cap_is_refused_while_it_arrives() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(a_scope(), receiving(part(b"a" * 60, True), part(b"b" * 41, True)), LIMITS)
    with pytest.raises(BodyTooLarge):
        await read_body(a_scope(), receiving(part(b"a" * 101)), LIMITS)


async def test_a_body_announced_over_the_cap_is_not_waited_for() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(a_scope((b"content-length", b"101")), receiving(), LIMITS)


async def test_a_body_that_trickles_has_one_deadline_in_all() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.05)
        return part(b"a", True)

    with pytest.raises(ReceiveTimeout):
        await read_body(a_scope(), receive, LIMITS)


async def test_a_client_that_leaves_early_is_said_to_have_left() -> None:
    with pytest.raises(ClientDisconnected):
        await read_body(a_scope(), receiving(part(b"a", True), {"type": "http.disconnect"}), LIMITS)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ([(b"host", b"a"), (b"host", b"a")], 400, "invalid_header"),
        ([(b"content-length", b"1"), (b"content-length", b"1")], 400, "invalid_header"),
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], 400, "invalid_header"),
        ([(b"content-length", b"-1")], 400, "invalid_header"),
        ([(b"content-length", b"1_0")], 400, "invalid_header"),
        ([(b"content-length", b"9" * 30)], 400, "invalid_header"),
        ([(b"content-encoding", b"gzip")], 415, "unsupported_encoding"),
        ([(b"x", b"y")] * 9, 431, "headers_too_large"),
        ([(b"x", b"y" * 500)], 431, "headers_too_large"),
        ([(b"content-length", b"101")], 413, "body_too_large"),
    ],
)
async def test_a_head_that_is_too_much_or_ambiguous_is_refused(
    headers: list[tuple[bytes, bytes]], status: int, code: str
) -> None:
    sent = Sent()
    await Edge(echo, LIMITS)(a_scope(*headers), receiving(part(b"x")), sent)
    assert (sent.status, sent.code) == (status, code)


async def test_a_body_that_did_not_arrive_in_time_ends_the_connection() -> None:
    sent = Sent()
    await Edge(echo, LIMITS)(a_scope((b"content-length", b"5")), receiving(part(b"x", True)), sent)
    assert (sent.status, sent.code) == (408, "receive_timeout")
    assert (b"connection", b"close") in sent.messages[0]["headers"]


@pytest.mark.parametrize(
    "own", [{}, {"/v1/x": lambda error, request_id: error.to_openai()}], ids=["read here", "there"]
)
async def test_a_handler_gets_the_same_body_read_here_or_there(own) -> None:
    sent = Sent()
    edge = Edge(echo, LIMITS, own)
    await edge(a_scope((b"content-length", b"5")), receiving(part(b"he", True), part(b"llo")), sent)
    assert (sent.status, sent.messages[1]["body"]) == (200, b"hello")


async def test_after_the_body_a_handler_still_hears_of_a_disconnect() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([(await receive())["type"], (await receive())["type"]])

    receive = receiving(part(b"x"), {"type": "http.disconnect"})
    await Edge(app, LIMITS)(a_scope((b"content-length", b"1")), receive, Sent())
    assert heard == ["http.request", "http.disconnect"]


async def test_an_error_nobody_answered_is_answered_in_the_envelope() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFound("no candidate is called x", param="model")

    sent = Sent()
    await Edge(app, LIMITS)(a_scope(), receiving(), sent)
    assert (sent.status, sent.code) == (404, "model_not_found")


async def test_an_unexpected_error_says_nothing_of_itself() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the prompt was: hello")

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    sent = Sent()
    await Edge(app, LIMITS)(a_scope(), receiving(), sent)
    logging.getLogger().removeHandler(handler)
    assert (sent.status, sent.code) == (500, "internal_error")
    assert b"prompt" not in sent.messages[1]["body"]
    assert "unexpected_error" in stream.getvalue() and "hello" not in stream.getvalue()


async def test_after_the_response_has_started_nothing_is_added() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("late")

    sent = Sent()
    await Edge(app, LIMITS)(a_scope(), receiving(), sent)
    assert [message["type"] for message in sent.messages] == ["http.response.start"]


async def test_an_error_takes_its_headers_along() -> None:
    sent = Sent()
    await send_error(sent, UpstreamOverloaded("slow", retry_after_s=3), [(b"x-request-id", b"r")])
    headers = dict(sent.messages[0]["headers"])
    assert (headers[b"retry-after"], headers[b"x-request-id"]) == (b"3", b"r")
    assert headers[b"content-length"] == b"%d" % len(sent.messages[1]["body"])


@asynccontextmanager
async def listening(
    app: App = echo, connections: set[object] | None = None, *, reads_itself: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an app behind the edge on loopback through our protocol; yield one raw connection to it."""
    own = {"/v1/x": lambda error, _: error.to_openai()} if reads_itself else None
    config = uvicorn.Config(Edge(app, LIMITS, own), lifespan="off", ws="none", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    state.connections = state.connections if connections is None else connections
    protocol = protocol_of(LIMITS)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        await asyncio.sleep(0.01)


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    n_bytes = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if b"ontent-l" in head else 0
    return head.split(b"\r\n")[0], await reader.readexactly(n_bytes)


HEAD = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


async def test_head_and_body_of_an_answer_leave_together() -> None:
    async with listening() as (reader, writer):
        writer.write(HEAD % 2 + b"ok")
        arrived = await asyncio.wait_for(reader.read(65536), 5)
        assert arrived.startswith(b"HTTP/1.1 200 OK") and arrived.endswith(b"2\r\nok\r\n0\r\n\r\n")


async def test_an_answer_that_closes_its_connection_is_sent_whole() -> None:
    async with listening() as (reader, writer):
        writer.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        arrived = await asyncio.wait_for(reader.read(), 5)
        assert arrived.startswith(b"HTTP/1.1 200 OK") and arrived.endswith(b"0\r\n\r\n")


async def test_a_body_in_two_pieces_is_awaited_and_timed() -> None:
    async with listening() as (reader, writer):
        writer.write(HEAD % 4 + b"he")
        await asyncio.sleep(0.05)
        writer.write(b"y!")
        assert (await _answer(reader))[0] == b"HTTP/1.1 200 OK"
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        writer.write(HEAD % 4 + b"he")
        assert (await _answer(reader))[0] == b"HTTP/1.1 408 Request Timeout"


async def test_a_body_known_to_be_whole_is_capped_all_the_same() -> None:
    scope = {**a_scope(), IS_WHOLE: True}
    assert await read_body(scope, receiving(part(b"a" * 100)), LIMITS) == b"a" * 100
    with pytest.raises(BodyTooLarge):
        await read_body(scope, receiving(part(b"a" * 101)), LIMITS)


@pytest.mark.parametrize("start", [b"", b"POST /v1/x HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_head_that_never_ends_is_cut_off(start: bytes) -> None:
    async with listening() as (reader, writer):
        writer.write(start)
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_trickling_head_is_cut_off_on_a_kept_connection_too() -> None:
    async with listening() as (reader, writer):
        writer.write(HEAD % 2 + b"ok")
        assert (await _answer(reader))[0] == b"HTTP/1.1 200 OK"
        await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
        await asyncio.sleep(0.3)  # idle between requests is not a head under way
        writer.write(b"POST /v1/x HTTP/1.1\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"X-Slow: ")
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_an_endless_head_is_answered_and_cut_off_by_size(monkeypatch) -> None:
    monkeypatch.setattr("serving.arrival._LAST_WORDS_S", 0.05)
    async with listening() as (reader, writer):
        # The end of the head is held back: without the cap only the deadline would close the connection, in silence.
        writer.write(b"POST /v1/x HTTP/1.1\r\n")
        for _ in range(20):
            writer.write(b"X: %s\r\n" % (b"y" * 90))
            await asyncio.sleep(0.001)
        status, body = await _answer(reader)
        assert (status[:12], orjson.loads(body)["error"]["code"]) == (b"HTTP/1.1 431", "headers_too_large")
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_refused_body_may_end_and_the_connection_lives_on() -> None:
    async with listening() as (reader, writer):
        writer.write(HEAD % 300 + b"x" * 100)
        status, body = await _answer(reader)
        assert (status[:12], orjson.loads(body)["error"]["code"]) == (b"HTTP/1.1 413", "body_too_large")
        writer.write(b"x" * 200 + HEAD % 2 + b"ok")
        assert (await _answer(reader))[0] == b"HTTP/1.1 200 OK"


async def test_a_refused_body_that_never_ends_is_cut_off() -> None:
    async with listening() as (reader, writer):
        writer.write(HEAD % 300 + b"x" * 100)
        await _answer(reader)
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_an_event_that_comes_alone_leaves_alone_and_at_once() -> None:
    heard = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(3):
            # The next event is made only once the client has read this one: nothing may wait for company.
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % n, "more_body": True})
            await asyncio.wait_for(heard.wait(), 5)
            heard.clear()
        await send({"type": "http.response.body", "body": b""})

    async with listening(app) as (reader, writer):
        writer.write(HEAD % 0)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        for n in range(3):
            assert await asyncio.wait_for(reader.readuntil(b"\n\n\r\n"), 5) == b"9\r\ndata: %d\n\n\r\n" % n
            heard.set()
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5) == b"0\r\n\r\n"


def has_no_delay(transport: asyncio.BaseTransport) -> bool:
    return bool(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_small_writes_are_not_held_back_on_either_side(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        (connection,) = connections
        seen.append(has_no_delay(connection.transport))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"more", "more_body": True})
        await receive()

    async def both() -> None:
        upstream = AiohttpUpstream()
        await upstream.open()
        async with listening(app, connections) as (_, writer):
            writer.close()
            connections.clear()
            host, port = writer.get_extra_info("peername")
            response = await upstream.send(UpstreamRequest(f"http://{host}:{port}/v1/x", {}, b""))
            seen.append(has_no_delay(response._response.connection.transport))  # type: ignore[attr-defined]
            await response.close()
        await upstream.close()

    connections: set[uvicorn.protocols.http.httptools_impl.HttpToolsProtocol] = set()
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(both())
    assert seen == [True, True]


CHUNKED = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILERS = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 20) for i in range(10))


async def test_trailers_are_dropped_and_the_connection_lives_on() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        seen.append(scope["headers"])

    async with listening(noting) as (reader, writer):
        for _ in range(2):
            writer.write(CHUNKED + b"2\r\nok\r\n0\r\n")
            await asyncio.sleep(0.02)
            writer.write(TRAILERS + b"\r\n")
            assert (await _answer(reader))[0] == b"HTTP/1.1 200 OK"
            assert (await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)).startswith(b"2\r\nok")
    assert seen == [[(b"host", b"x"), (b"transfer-encoding", b"chunked")]] * 2


@pytest.mark.parametrize("line", [TRAILERS, b"y" * 300], ids=["many", "one that never ends"])
@pytest.mark.parametrize("is_refused", [False, True])
async def test_endless_trailers_close_the_connection(line: bytes, is_refused: bool) -> None:
    scopes: list[Scope] = []

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        if is_refused:
            await send_error(send, NotFound("nothing here"))
        else:
            await echo(scope, receive, send)

    async with listening(refusing, reads_itself=True) as (reader, writer):
        writer.write(CHUNKED + b"2\r\nok\r\n0\r\nX: ")
        if is_refused:
            assert (await _answer(reader))[0] == b"HTTP/1.1 404 Not Found"
        n_sent = 0
        with contextlib.suppress(ConnectionError):
            while n_sent < 100 and not reader.at_eof():
                writer.write(line)
                await writer.drain()
                await asyncio.sleep(0.001)
                n_sent += 1
            await asyncio.wait_for(reader.read(), 5)
        assert n_sent < 20, "closed by size, long before the deadline of a body"
        assert len(scopes[0]["headers"]) == 2


async def test_a_body_in_tiny_chunks_is_no_trailer() -> None:
    async with listening() as (reader, writer):
        writer.write(CHUNKED)
        for _ in range(90):  # their framing alone is more than the trailers may be
            writer.write(b"1\r\n")
            await asyncio.sleep(0)
            writer.write(b"x")
            await asyncio.sleep(0)
            writer.write(b"\r\n")
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        assert (await _answer(reader))[0] == b"HTTP/1.1 200 OK"


@asynccontextmanager
async def unread(app: App) -> AsyncIterator[set[object]]:
    """Ask an app for something and read nothing of it; yield the server's connections."""
    connections: set[object] = set()
    async with listening(app, connections) as (_, writer):
        port = writer.get_extra_info("peername")[1]
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            writer.transport.abort()
            await until(lambda: len(connections) == 1)
            client.sendall(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            yield connections


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def flooding(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without an end, until the client has left."""
    await read_body(scope, receive, LIMITS)
    leaving = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while not leaving.done():
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0)


async def wholly(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once with more than the client's system takes, and close."""
    await read_body(scope, receive, LIMITS)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 8_000_000})


@pytest.mark.parametrize("app", [flooding, wholly])
async def test_who_stops_reading_is_cut_off(app: App, monkeypatch) -> None:
    monkeypatch.setattr("serving.arrival.UNREAD_FOR_S", 0.1)
    async with unread(app) as connections:
        await until(lambda: not connections)


class SlowTransport:
    """One whose client takes what we say."""

    def __init__(self, *n_unsent: int) -> None:
        self.n_unsent = list(n_unsent)
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.n_unsent.pop(0)

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        return

    def abort(self) -> None:
        self.is_aborted = True

    get_extra_info = pause_reading = resume_reading = None


class HandCranked:
    """A loop whose timers are run by hand."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, call: Callable[..., None], *given: object) -> object:
        self.timers.append(lambda: call(*given))
        return self


@pytest.mark.parametrize(
    ("n_unsent", "n_looks", "is_aborted"),
    [
        ([0], 0, False),  # nothing waits
        ([9, 9], 1, True),
        ([9, 8, 8, 8], 2, True),  # it moved, and then no more
        ([9, 8, 8, 5, 5, 0, 0], 3, False),  # slow all the way, and done
    ],
)
def test_who_reads_slowly_is_not_cut_off(n_unsent: list[int], n_looks: int, is_aborted: bool) -> None:
    transport, loop = SlowTransport(*n_unsent), HandCranked()
    _Coalescing(transport, loop).close()  # type: ignore[arg-type]
    n = 0
    while loop.timers:
        loop.timers.pop()()
        n += 1
    assert (n, transport.is_aborted, transport.n_unsent) == (n_looks, is_aborted, [])
