"""What an attempt may take, and what it says of the deployment: callers in a hurry, demands, denials, drips, bugs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf

import pytest

from serving import relay
from serving.emulated_faults import Fault
from serving.errors import UpstreamBroken
from serving.failover import MOST_UNKNOWN_S, Failover
from serving.hedging import race
from serving.pool import Pool

ONE_WAY = """
[[candidates]]
name = "large"
input_usd_per_mtok = 10.0
output_usd_per_mtok = 40.0
deployments = [{ provider = "emulator", model = "first" }]
"""
TWO_WAYS = ONE_WAY.replace('"first" }', '"first" }, { provider = "emulator", model = "second" }')
REGIONS = """
[[providers]]
name = "eu"
emulated = true
region = "eu"
[[providers]]
name = "us"
emulated = true
region = "us"
[[candidates]]
name = "large"
deployments = [{ provider = "eu", model = "first" }, { provider = "us", model = "second" }]
"""
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server_of(more: str = "max_attempts = 3") -> str:
    return (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n'
        f'{more}\n{{settings}}\n[[providers]]\nname = "emulator"\nemulated = true\n'
    )


@asynccontextmanager
async def raw_provider(say: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve one raw answer to every request; give the candidate's TOML, with the emulator behind it."""

    handling: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            await say(writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            ONE_WAY.replace(
                '{ provider = "emulator", model = "first" }',
                '{ provider = "raw", model = "first" }, { provider = "emulator", model = "second" }',
            )
            + f'[[providers]]\nname = "raw"\nbase_url = "http://127.0.0.1:{port}/v1"\napis = ["chat"]\n'
        )
    finally:
        server.close()
        for task in handling:
            task.cancel()
        await asyncio.gather(*handling, return_exceptions=True)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_caller_in_a_hurry_ejects_nobody(start, is_stream: bool) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        for model in ("first", "second"):
            gateway.provider.faults.put(model, Fault(delay_s=0.1))
        for _ in range(8):
            late = await gateway.chat(model="large", stream=is_stream, headers={"x-request-timeout-ms": "30"})
            assert late.status_code == 504
        assert {row.health for row in gateway.gateway.pool.snapshot()} == {"healthy"}
        assert {kept.outcome for kept in gateway.records.kept} == {"caller_deadline"}
        assert all(row.n_errors == 0 for row in gateway.gateway.pool.snapshot())


async def test_a_stream_longer_than_its_caller_waits_ejects_nobody(start) -> None:
    async with start(ONE_WAY, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(event_delay_s=0.03))
        for _ in range(6):
            cut = await gateway.chat(model="large", stream=True, headers={"x-request-timeout-ms": "100"})
            assert "error" in cut.text
        (status,) = gateway.gateway.pool.snapshot()
        assert (status.health, status.n_errors) == ("healthy", 0)


async def test_one_that_is_too_slow_for_any_caller_is_still_ejected(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        pool = gateway.gateway.pool
        for name in ("large@emulator/first", "large@emulator/second"):
            for _ in range(20):
                pool.begin(name).finish()
        gateway.provider.faults.put("first", Fault(hang=True))
        for _ in range(30):
            answer = await gateway.chat(model="large", headers={"x-request-timeout-ms": "300"})
            if pool.snapshot()[0].health == "ejected":
                break
        assert pool.snapshot()[0].health == "ejected", "a third of a second is many times what it needs"
        assert (await gateway.chat(model="large")).status_code == 200
        assert answer.status_code in (200, 504)


@pytest.mark.parametrize("fault", [Fault(status=401), Fault(status=429, code="insufficient_quota")], ids=str)
async def test_who_denies_us_is_not_asked_again(start, fault: Fault) -> None:
    async with start(ONE_WAY, server=server_of()) as gateway:
        gateway.provider.faults.put("first", fault)
        assert (await gateway.chat(model="large")).status_code >= 400
        assert gateway.provider.counts()["n_requests"] == 1


async def test_a_refused_call_costs_nothing_when_the_client_leaves_in_the_pause(start) -> None:
    async with start(ONE_WAY, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=429, retry_after_s=1.5))
        asking = asyncio.create_task(gateway.chat(model="large"))
        async with asyncio.timeout(10):
            while not gateway.gateway.pool.snapshot()[0].n_errors:
                await asyncio.sleep(0.005)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        (record,) = gateway.records.kept
        assert (record.outcome, record.cost_usd) == ("client_disconnected", None)
        assert not record.is_usage_estimated


async def test_others_that_may_not_be_called_neither_help_nor_hurry(start) -> None:
    async with start(REGIONS, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=429, retry_after_s=60))
        demand = {"x-turnout-regions": "eu"}
        await gateway.chat(model="large", headers=demand)
        refused = await gateway.chat(model="large", headers=demand)
        assert refused.status_code == 503
        assert 50_000 < float(refused.headers["retry-after-ms"]) <= 60_000
        assert gateway.provider.counts()["n_requests"] == 1


def test_a_deployment_alone_within_a_demand_has_the_whole_deadline() -> None:
    pool = Pool({"eu1": "a", "us1": "a"}, clock=lambda: 0.0)
    failover = Failover(pool, ["a"], {}, {"eu1"}, max_attempts=3, until=900.0, is_stream=True)
    assert failover.first_content_s(failover.first()) == inf


def test_of_one_that_nobody_knows_a_stream_is_not_awaited_for_minutes() -> None:
    pool = Pool({"a1": "a", "a2": "a"}, clock=lambda: 0.0)
    failover = Failover(pool, ["a"], {}, {"a1", "a2"}, max_attempts=3, until=900.0, is_stream=True)
    assert failover.first_content_s(failover.first()) == MOST_UNKNOWN_S


def test_the_failure_that_ejects_the_only_one_is_final_and_nobody_waits_for_it() -> None:
    pool = Pool({"a1": "a"})
    failover = Failover(pool, ["a"], {}, {"a1"}, max_attempts=3, until=inf)
    for _ in range(4):
        pool.begin("a1").finish("broken")
    failover.first()
    pool.begin("a1").finish("broken")
    assert failover.after(UpstreamBroken("it broke"), "a") is None


async def test_a_deployment_that_cannot_be_sent_the_request_takes_no_retry_away(start) -> None:
    toml = """
[[providers]]
name = "able"
emulated = true
apis = ["chat"]
[[providers]]
name = "unable"
emulated = true
apis = ["messages"]
[[candidates]]
name = "large"
deployments = [{ provider = "able", model = "first" }, { provider = "unable", model = "second" }]
"""
    async with start(toml, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=500), times=1)
        answer = await gateway.chat(model="large", logprobs=True)
        assert (answer.status_code, gateway.records.kept[0].attempts) == (200, "large@able/first;broken")


@pytest.mark.parametrize("status", [b"500 Internal Server Error", b"200 OK"])
async def test_a_body_that_drips_is_left_for_another(start, monkeypatch, status: bytes) -> None:
    for name in ("UNKNOWN_STREAM_S", "UNKNOWN_WHOLE_S", "MOST_UNKNOWN_S"):
        monkeypatch.setattr(f"serving.failover.{name}", 0.1)

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        while True:
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_provider(drip) as toml, start(toml, server=server_of()) as gateway:
        answer = await gateway.chat(model="large", headers={"x-request-timeout-ms": "3000"})
        assert answer.status_code == 200
        assert answer.headers["x-turnout-failed-attempts"].startswith("large@raw/first;")


async def test_pings_do_not_hold_a_thinker_back_for_ever(start, monkeypatch) -> None:
    monkeypatch.setattr("serving.beginning.HOLD_S", 0.1)
    is_over = asyncio.Event()

    async def think(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        writer.write(b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n')
        while not is_over.is_set():
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b'data: {"choices":[]}\n\n')

    async with raw_provider(think) as toml, start(toml, server=server_of()) as gateway:
        given = asyncio.Event()
        answer_of = type(gateway.gateway)._answer

        def noting(self, *args):
            given.set()
            return answer_of(self, *args)

        monkeypatch.setattr(type(gateway.gateway), "_answer", noting)
        asking = asyncio.create_task(gateway.chat(model="large", stream=True))
        await asyncio.wait_for(given.wait(), 5)
        is_over.set()
        await asking


async def test_a_fault_of_ours_amid_a_stream_ends_it_with_an_error_event(running, monkeypatch) -> None:
    pass_on, seen = relay._PassingStream.pass_on, 0

    def broken(self, event: bytes) -> bytes:
        nonlocal seen
        seen += 1
        if seen == 4:
            raise ValueError("canary")
        return pass_on(self, event)

    monkeypatch.setattr(relay._PassingStream, "pass_on", broken)
    running.provider.faults.put("*", Fault(event_delay_s=0.005))
    answer = await running.chat(model="medium", stream=True)
    assert '"error"' in answer.text and "canary" not in answer.text and "[DONE]" not in answer.text
    assert running.records.kept[0].outcome == "gateway_error"
    assert all(row.n_in_flight == row.n_errors == 0 for row in running.gateway.pool.snapshot())


async def test_an_error_that_names_a_time_is_left_alone_whatever_it_is(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=500, retry_after_s=30))
        for _ in range(4):
            assert (await gateway.chat(model="large")).status_code == 200
        first, _ = gateway.gateway.pool.snapshot()
        assert (first.n_requests, first.health) == (1, "cooling")


async def test_only_the_same_candidate_is_asked_beside(start) -> None:
    toml = TWO_WAYS.replace(', { provider = "emulator", model = "second" }', "") + (
        'failover = ["small"]\n[[candidates]]\nname = "small"\n'
        'deployments = [{ provider = "emulator", model = "second" }]\n'
    )
    async with start(toml, server=server_of("hedge_share = 0.05")) as gateway:
        for _ in range(25):
            await gateway.chat(model="large")
        gateway.provider.faults.put("first", Fault(delay_s=0.2))
        answer = await gateway.chat(model="large")
        assert answer.headers["x-turnout-candidate"] == "large"


class Response:
    is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Slow:
    """An attempt that begins after a while, or fails, and takes time to end."""

    def __init__(self, after_s: float, error: Exception | None = None, end_s: float = 0.0) -> None:
        self.after_s, self.error, self.end_s, self.outcome = after_s, error, end_s, None
        self.response, self.stream = Response(), None

    def finish(self, outcome: str) -> None:
        self.outcome = self.outcome or outcome

    async def begin(self) -> Slow:
        try:
            await asyncio.sleep(self.after_s)
        except asyncio.CancelledError:
            await asyncio.sleep(self.end_s)
            raise
        if self.error is not None:
            raise self.error
        return self


async def test_a_client_that_leaves_while_the_loser_ends_is_heard() -> None:
    slow, quick = Slow(30, end_s=0.1), Slow(0.02)
    task = asyncio.ensure_future(race(slow, Slow.begin, lambda: quick, 0.01, lambda *what: None))
    await asyncio.sleep(0.06)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert quick.response.is_closed, "nobody is left to read it"


async def test_a_fault_of_ours_in_one_leaves_no_call_behind() -> None:
    first, second = Slow(0.03, KeyError("a bug")), Slow(30)
    with pytest.raises(KeyError):
        await race(first, Slow.begin, lambda: second, 0.01, lambda *what: None)
    assert second.outcome is not None
