"""Every fault of the proxy, against a tiny server that answers alike every time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from serving.chaos.client import Ask, Client
from serving.chaos.fault import BLACK_HOLE, RESET, ProxyFault, Weather, always
from serving.chaos.fault_proxy import FaultProxy

EVENTS = [b"data: begin\n\n", *(b'data: "~%02d"\n\n' % n for n in range(5)), b"data: end\n\n"]
WHOLE = b'{"text":"' + b"x" * 400 + b'"}'


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer /stream with events, anything else with JSON; keep the connection."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if b"/slow" in head:
                await asyncio.sleep(30)
            if b"/stream" in head:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for event in EVENTS:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE)
                )
                writer.write(WHOLE)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxied(weather: Weather = Weather()) -> AsyncIterator[tuple[FaultProxy, Client]]:  # noqa: B008
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = FaultProxy(server.sockets[0].getsockname()[1], seed=3)
    proxy.weather = weather
    client = Client(await proxy.start())
    try:
        yield proxy, client
    finally:
        client.close()
        await proxy.stop()
        server.close()
        await asyncio.sleep(0.01)


def ask(path: str = "/whole", *, timeout_s: float = 5.0, **more: object) -> Ask:
    return Ask(b'{"content":"17 + 1"}', path, timeout_s=timeout_s, **more)


async def test_without_a_fault_an_answer_passes_untouched_and_the_connection_is_kept():
    async with proxied() as (proxy, client):
        replies = [await client.ask(ask(path)) for path in ("/whole", "/stream", "/whole")]
    assert [bytes(reply.body) for reply in replies] == [WHOLE, b"".join(EVENTS), WHOLE]
    assert [(a.tag, a.ending) for a in proxy.arrivals] == [(17, "whole")] * 3
    assert proxy.n_open == 0


async def test_latency_comes_before_the_answer():
    async with proxied(always(ProxyFault(latency_s=0.1))) as (_, client):
        reply = await client.ask(ask())
    assert reply.ending == "whole" and reply.total_s >= 0.1


async def test_a_drip_sends_everything_bit_by_bit():
    async with proxied(always(ProxyFault(drip_bytes=50, drip_every_s=0.005))) as (proxy, client):
        reply = await client.ask(ask())
        again = await client.ask(ask())
    assert bytes(reply.body) == bytes(again.body) == WHOLE
    assert len(reply.read_s) >= 5
    assert [a.ending for a in proxy.arrivals] == ["whole", "whole"]


@pytest.mark.parametrize("n_bytes", [0, 40, 200])
async def test_a_reset_is_a_reset_after_so_many_bytes(n_bytes):
    async with proxied(always(ProxyFault(reset_after_bytes=n_bytes))) as (proxy, client):
        reply = await client.ask(ask())
    assert reply.ending == "reset"
    assert len(reply.body) < n_bytes + 1
    assert proxy.arrivals[0].ending == "fault"


async def test_half_open_closes_one_side_and_answers_nothing():
    async with proxied(always(ProxyFault(is_half_open=True))) as (_, client):
        reply = await client.ask(ask())
    assert (reply.status, reply.ending) == (0, "closed")


async def test_a_black_hole_takes_the_request_and_never_answers():
    async with proxied(always(BLACK_HOLE)) as (proxy, client):
        reply = await client.ask(ask(timeout_s=0.2))
        assert proxy.n_in_flight == 1
        await asyncio.sleep(0.05)
    assert (reply.status, reply.ending) == (0, "timeout")
    assert proxy.arrivals[0].ending == "left"


async def test_a_status_is_answered_in_the_providers_place():
    async with proxied(always(ProxyFault(status=429, retry_after_s=1.5))) as (_, client):
        reply = await client.ask(ask())
    assert (reply.status, reply.headers["retry-after"]) == (429, "1.5")
    assert b"error" in reply.body


async def test_a_storm_strikes_its_share_and_no_more():
    weather = Weather(((0.3, ProxyFault(status=500)), (0.2, ProxyFault(status=429))))
    async with proxied(weather) as (_, client):
        statuses = [(await client.ask(ask())).status for _ in range(400)]
    assert 80 <= statuses.count(500) <= 160
    assert 40 <= statuses.count(429) <= 120
    assert statuses.count(200) == 400 - statuses.count(500) - statuses.count(429)


async def test_a_wrong_type_and_half_a_json_text_are_sent_as_told():
    async with proxied(always(ProxyFault(status=200, content_type="text/html", body=b"<html>"))) as (_, client):
        reply = await client.ask(ask("/stream"))
    assert (reply.headers["content-type"], bytes(reply.body), reply.ending) == ("text/html", b"<html>", "whole")


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("k", [0, 1, 4])
async def test_a_stream_is_cut_before_event_k_of_those_that_count(k, is_reset):
    fault = ProxyFault(cut_after_events=k, mark=b'"~', is_reset=is_reset)
    async with proxied(always(fault)) as (_, client):
        reply = await client.ask(ask("/stream"))
    assert bytes(reply.body) == b"".join(EVENTS[: 1 + k])
    assert reply.ending == ("reset" if is_reset else "closed")


async def test_a_stream_with_fewer_events_than_the_cut_ends_whole():
    async with proxied(always(ProxyFault(cut_after_events=50))) as (_, client):
        reply = await client.ask(ask("/stream"))
    assert (bytes(reply.body), reply.ending) == (b"".join(EVENTS), "whole")


async def test_comments_come_for_ever_and_nothing_else():
    async with proxied(always(ProxyFault(comments_every_s=0.02))) as (_, client):
        reply = await client.ask(ask("/stream", timeout_s=0.3))
    assert reply.ending == "timeout"
    assert reply.body.count(b": still here\n\n") >= 3
    assert b"data" not in reply.body


async def test_what_is_due_once_goes_before_the_weather_and_then_is_gone():
    async with proxied(always(ProxyFault(status=503))) as (proxy, client):
        proxy._once.append(RESET)
        first, second = await client.ask(ask()), await client.ask(ask())
        proxy.weather = Weather()
        third = await client.ask(ask())
    assert (first.ending, second.status, third.status) == ("reset", 503, 200)


async def test_a_client_that_leaves_is_noted_and_the_provider_is_let_go():
    async with proxied() as (proxy, client):
        reply = await client.ask(ask("/slow", leave_after_s=0.05))
        await asyncio.sleep(0.1)
        assert proxy.n_open == 0
    assert reply.ending == "left"
    assert proxy.arrivals[0].ending == "left"
    assert proxy.arrivals[0].ended_s - reply.ended_s < 0.1


async def test_one_that_leaves_twice_has_left_once():
    async with proxied() as (proxy, client):
        await client.ask(ask("/slow", leave_after_s=0.05, is_double=True))
        await asyncio.sleep(0.1)
        assert proxy.n_open == 0
    assert [a.ending for a in proxy.arrivals] == ["left"]


async def test_a_stopped_proxy_refuses_and_starts_again_on_its_port():
    async with proxied() as (proxy, client):
        port = proxy.port
        await proxy.stop()
        assert (await client.ask(ask())).ending == "refused"
        assert await proxy.start() == port
        assert (await client.ask(ask())).status == 200
