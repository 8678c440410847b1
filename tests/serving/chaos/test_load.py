"""The loads, against a proxy that answers everything itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serving.chaos.client import Ask, Client, Reply
from serving.chaos.fault import ProxyFault, Weather, always
from serving.chaos.fault_proxy import FaultProxy
from serving.chaos.load import affordable_per_s, closed_loop, open_loop


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    answering = FaultProxy(1, seed=4)
    answering.weather = always(ProxyFault(status=200))
    await answering.start()
    yield answering
    await answering.stop()


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Client]:
    asking = Client(proxy.port)
    yield asking
    asking.close()


def ask(number: int) -> Ask:
    return Ask(b'{"content":"%d + 1"}' % number)


def judge(reply: Reply, number: int) -> str:
    return "" if reply.status == 200 else f"status {reply.status}"


async def test_a_closed_loop_asks_each_once_over_so_many_connections(proxy, client):
    proxy.weather = always(ProxyFault(status=200, latency_s=0.02))
    tally = await closed_loop(client, ask, judge, n_connections=4, n=50, first=100)
    assert sorted(arrival.tag for arrival in proxy.arrivals) == list(range(100, 150))
    assert (tally.n, tally.n_failed, proxy.n_open) == (50, 0, 4)


async def test_an_open_loop_goes_on_whatever_becomes_of_the_requests(proxy, client):
    proxy.weather = always(ProxyFault(is_black_hole=True))

    def impatient(number: int) -> Ask:
        return Ask(b"{}", timeout_s=0.4)

    tally = await open_loop(client, impatient, judge, per_s=100, duration_s=0.3, label=lambda n: "odd" if n % 2 else "")
    assert 25 <= tally.n <= 31  # not one waited for the one before
    assert tally.n_failed == tally.n
    assert tally.of("odd").n == tally.n // 2


async def test_an_open_loop_leaves_out_what_the_machine_could_not_hold(proxy, client):
    proxy.weather = always(ProxyFault(is_black_hole=True))
    tally = await open_loop(
        client, lambda number: Ask(b"{}", timeout_s=0.3), judge, per_s=200, duration_s=0.2, most_at_once=5
    )
    assert tally.n == 5


async def test_what_is_affordable_is_never_more_than_what_is_wanted(proxy, client):
    proxy.weather = always(ProxyFault(status=200, latency_s=0.05))
    assert await affordable_per_s(client, ask, judge, 5.0) == 5.0
    # Four connections and 50 ms an answer: no more than 80 a second, 40 % of it with ease.
    assert await affordable_per_s(client, ask, judge, 1_000.0) <= 0.4 * 80 + 1


async def test_the_same_seed_brings_the_same_weather(proxy, client):
    proxy.weather = Weather(((0.5, ProxyFault(status=500)),), ProxyFault(status=200))
    seen = []
    for _ in range(2):
        proxy.seed(9)
        seen.append([(await client.ask(ask(n))).status for n in range(30)])
    assert seen[0] == seen[1] and {200, 500} == set(seen[0])


async def test_a_connection_that_the_server_closed_is_not_used_again(proxy, client):
    await client.ask(ask(1))
    await proxy.stop()
    await asyncio.sleep(0.02)
    await proxy.start()
    assert (await client.ask(ask(2))).status == 200
