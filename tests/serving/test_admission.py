"""Who is taken on, who waits, and who is turned away when there is too much to do."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable

import pytest

from serving.admission import BATCH, HIGH, NORMAL, SHORT_WAIT_S, Admission, Priority, priority_of
from serving.errors import InvalidRequest, Overloaded
from serving.keys import ANONYMOUS, Principal
from serving.loop_lag import MEMORY_S, QUIET_S, TICK_S, LoopLag

HELLO = [{"role": "user", "content": "Say hello."}]
SECRET = "sk-turnout-batch-0000000000000000"


def filled(max_in_flight: int, priority: Priority, *, queue_wait_s: float = 5.0) -> Admission:
    """Return an admission whose places for a class are all taken."""
    admission = Admission(max_in_flight, queue_wait_s)
    while admission.take(priority):
        pass
    return admission


async def settled() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_fifth_of_the_places_is_for_high_alone() -> None:
    admission = filled(10, NORMAL)
    assert admission.status().n_in_flight == 8
    assert not admission.take(BATCH)
    assert admission.take(HIGH) and admission.take(HIGH)
    assert not admission.take(HIGH)
    admission.give_back(HIGH)
    assert not admission.take(NORMAL), "the place of a high one is not for a normal one"
    admission.give_back(NORMAL)
    assert admission.take(NORMAL)


async def test_a_single_place_is_for_everybody() -> None:
    assert filled(1, BATCH).status().n_in_flight == 1


async def test_a_place_that_comes_free_goes_to_the_most_urgent_and_then_to_who_came_first() -> None:
    admission = filled(4, HIGH)
    order: list[str] = []

    async def enter(name: str, priority: Priority) -> None:
        await admission.wait(priority)
        order.append(name)
        admission.give_back(priority)

    arriving = (("batch", BATCH), ("normal 1", NORMAL), ("high", HIGH), ("normal 2", NORMAL))
    waiting = [asyncio.create_task(enter(*one)) for one in arriving]
    await settled()
    assert admission.status().n_waiting == 4
    admission.give_back(HIGH)
    await asyncio.gather(*waiting)
    assert order == ["high", "normal 1", "normal 2", "batch"]
    assert (admission.status().n_waiting, admission.status().n_in_flight) == (0, 3)


async def test_who_waits_too_long_is_turned_away_and_told_when_to_come_back() -> None:
    admission = filled(1, NORMAL, queue_wait_s=0.01)
    with pytest.raises(Overloaded) as caught:
        await admission.wait(BATCH)
    assert caught.value.retry_after_s == BATCH.retry_after_s
    assert admission.status().n_shed == {"high": 0, "normal": 0, "batch": 1}
    assert admission.status().n_waiting == 0


async def test_where_waiting_was_in_vain_few_wait_and_shortly_until_it_may_help_again() -> None:
    now = 0.0
    admission = Admission(2, 5.0, clock=lambda: now)
    while admission.take(NORMAL):
        pass
    admission._wait_ended(NORMAL, asyncio.get_running_loop().create_future())  # one waited all its time
    first = asyncio.create_task(admission.wait(NORMAL))
    await settled()
    with pytest.raises(Overloaded):
        admission.screen(NORMAL)
    admission.screen(HIGH)
    admission.give_back(NORMAL)
    await first
    with pytest.raises(Overloaded):
        admission.screen(BATCH)  # there is room, but not for batch as long as normal ones are turned away
    first = asyncio.create_task(admission.wait(NORMAL))
    async with asyncio.timeout(2):
        with pytest.raises(Overloaded):
            await first
    now = 10.0
    admission.screen(NORMAL)
    patient = asyncio.create_task(admission.wait(NORMAL))
    await asyncio.sleep(2 * SHORT_WAIT_S)
    assert not patient.done()
    admission.give_back(NORMAL)
    await patient


async def test_high_waits_four_times_as_long_and_never_in_vain() -> None:
    admission = filled(1, HIGH, queue_wait_s=0.02)
    began_at = time.monotonic()
    for _ in range(2):
        with pytest.raises(Overloaded):
            await admission.wait(HIGH)
    assert time.monotonic() - began_at >= 2 * 4 * 0.02


async def test_where_nobody_may_wait_it_is_said_before_the_body_is_read() -> None:
    admission = filled(1, NORMAL, queue_wait_s=0.0)
    with pytest.raises(Overloaded):
        admission.screen(HIGH)


async def test_in_a_full_queue_the_last_of_the_lowest_class_leaves_for_a_more_urgent_one() -> None:
    admission = filled(2, HIGH)
    first, last = (asyncio.create_task(admission.wait(BATCH)) for _ in range(2))
    await settled()
    with pytest.raises(Overloaded):
        admission.screen(BATCH)
    with pytest.raises(Overloaded):
        await admission.wait(BATCH)
    normal = asyncio.create_task(admission.wait(NORMAL))
    await settled()
    assert last.done() and isinstance(last.exception(), Overloaded)
    assert not first.done() and not normal.done()
    assert admission.status().n_waiting == 2
    for task in (first, normal):
        task.cancel()
    await asyncio.gather(first, normal, return_exceptions=True)


async def test_who_leaves_while_waiting_leaves_no_trace() -> None:
    admission = filled(1, NORMAL)
    waiting = asyncio.create_task(admission.wait(NORMAL))
    await settled()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert admission.status().n_waiting == 0
    admission.give_back(NORMAL)
    assert admission.status().n_in_flight == 0


async def test_who_is_let_in_and_leaves_in_the_same_turn_gives_the_place_back() -> None:
    admission = filled(2, NORMAL)
    leaving, next_one = (asyncio.create_task(admission.wait(NORMAL)) for _ in range(2))
    await settled()
    admission.give_back(NORMAL)  # it is the first one's now
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    async with asyncio.timeout(1):
        await next_one
    admission.give_back(NORMAL)
    assert admission.status().n_in_flight == 0


@pytest.mark.parametrize(
    ("lag_s", "shares"),
    [(0.02, (0, 0, 0)), (0.0375, (0, 0, 0.5)), (0.05, (0, 0, 1)), (0.15, (0, 0.5, 1)), (9.0, (0, 1, 1))],
)
async def test_a_late_loop_turns_away_batch_first_then_normal_and_never_high(
    lag_s: float, shares: tuple[float, ...]
) -> None:
    chances = [(i + 0.5) / 100 for i in range(100)]
    for priority, share in zip((HIGH, NORMAL, BATCH), shares, strict=True):
        left = iter(chances)
        admission = Admission(chance=lambda left=left: next(left))
        admission.lag.lag_s = lag_s
        n_shed = 0
        for _ in chances:
            try:
                admission.screen(priority)
            except Overloaded:
                n_shed += 1
        assert n_shed / 100 == pytest.approx(share, abs=0.011)


def test_one_long_turn_is_no_overload_and_a_lasting_one_is() -> None:
    lag = LoopLag(lambda: True)
    lag.note(0.5, 0.52)
    lag.note(0.0, TICK_S)
    assert lag.lag_s == 0.0
    for _ in range(10):
        lag.note(0.2, 0.2 + TICK_S)
    assert lag.lag_s == pytest.approx(0.2, rel=0.01)
    for _ in range(round(MEMORY_S / TICK_S)):
        lag.note(0.0, TICK_S)
    assert lag.lag_s == pytest.approx(0.2 / 2.718, rel=0.15)


async def test_the_lag_is_measured_while_there_is_something_to_do_and_then_no_longer() -> None:
    is_busy, now = True, 0.0
    lag = LoopLag(lambda: is_busy, clock=lambda: now)

    def ticked(after_s: float) -> None:
        nonlocal now
        now += after_s
        assert lag._timer is not None
        lag._timer.cancel()
        lag._tick()

    lag.watch()
    for _ in range(4):
        ticked(0.1)
    assert 0.04 < lag.lag_s < 0.08
    for _ in range(100):
        ticked(TICK_S)
    assert lag.lag_s < QUIET_S and lag._timer is not None
    is_busy = False
    ticked(TICK_S)
    assert (lag.lag_s, lag._timer) == (0.0, None)


@pytest.mark.parametrize(
    ("own", "claim", "expected"),
    [
        ("normal", None, NORMAL),
        ("normal", b"batch", BATCH),
        ("high", None, HIGH),
        ("high", b" Normal ", NORMAL),
        ("high", b"HIGH", HIGH),
    ],
)
def test_a_request_may_be_less_urgent_than_its_key(own, claim, expected) -> None:
    assert priority_of(Principal("alice", priority=own), claim) is expected


@pytest.mark.parametrize(("own", "claim"), [("normal", b"high"), ("batch", b"high"), ("batch", b"Normal")])
def test_a_request_may_not_be_more_urgent_than_its_key(own, claim) -> None:
    with pytest.raises(InvalidRequest, match=f"this key may ask for {own} at most") as caught:
        priority_of(Principal("alice", priority=own), claim)
    assert caught.value.param == "x-turnout-priority"


def test_on_this_machine_alone_anything_may_be_claimed_and_nothing_is_assumed() -> None:
    assert [priority_of(ANONYMOUS, claim) for claim in (None, b"high", b"batch")] == [NORMAL, HIGH, BATCH]


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(InvalidRequest, match="one of high, normal, batch") as caught:
        priority_of(ANONYMOUS, b"urgent")
    assert caught.value.param == "x-turnout-priority"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def full(start, pool_toml) -> AsyncIterator[tuple[object, asyncio.Task]]:
    """Return a gateway with a single place, and the request that has it and never ends by itself."""
    async with start(pool_toml, settings="max_in_flight = 1\nqueue_wait_s = 0.02") as gateway:
        holding = asyncio.create_task(gateway.chat(emulate={"hang": True}))
        await until(lambda: gateway.provider.counts()["n_in_flight"] == 1)
        yield gateway, holding
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


@pytest.mark.parametrize(
    ("path", "more", "status", "kind"),
    [
        ("/v1/chat/completions", {"messages": HELLO}, 503, "server_error"),
        ("/v1/responses", {"input": "Say hello."}, 503, "server_error"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 9}, 529, "overloaded_error"),
    ],
)
async def test_too_much_is_said_in_the_callers_own_form(full, path, more, status, kind) -> None:
    gateway, _ = full
    response = await gateway.client.post(path, json={"model": "auto", **more})
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"]
    assert gateway.records.kept == [], "counted, not recorded"
    assert all(row.n_errors == 0 for row in gateway.gateway.pool.snapshot())
    seen = (await gateway.client.get("/v1/pool")).json()["admission"]
    assert (seen["n_in_flight"], seen["max_in_flight"], seen["n_shed"]["normal"]) == (1, 1, 1)


async def test_a_place_comes_free_however_a_request_ends(start, pool_toml) -> None:
    async with start(pool_toml, settings="max_in_flight = 2") as gateway:
        status = gateway.gateway.admission.status
        for asked in (
            {},
            {"stream": True},
            {"model": "nonsense"},
            {"emulate": {"status": 500}},
            {"stream": True, "emulate": {"cut_after_events": 3}},
            {"stream": True, "emulate": {"error_after_events": 0}},
        ):
            await gateway.chat(**asked)
            assert status().n_in_flight == 0, asked
        for asked in ({"emulate": {"hang": True}}, {"stream": True, "emulate": {"hang_after_events": 3}}):
            asking = asyncio.create_task(gateway.chat(**asked))
            await until(lambda: gateway.provider.counts()["n_in_flight"] == 1)
            assert status().n_in_flight == 1
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert status().n_in_flight == 0, asked
            await until(lambda: gateway.provider.counts()["n_in_flight"] == 0)


async def test_who_waits_for_a_place_and_leaves_is_noticed(online) -> None:
    admission = online.gateway.admission
    admission.resize(1, 30.0)
    holding = asyncio.create_task(online.chat(emulate={"hang": True}))
    await until(lambda: online.provider.counts()["n_in_flight"] == 1)
    waiting = asyncio.create_task(online.chat())
    await until(lambda: admission.status().n_waiting == 1)
    waiting.cancel()
    await until(lambda: admission.status().n_waiting == 0)
    holding.cancel()
    await until(lambda: admission.status().n_in_flight == 0)


async def test_a_shed_request_is_turned_away_before_its_body_and_the_connection_lives_on(online) -> None:
    online.gateway.admission.resize(1, 0.0)
    holding = asyncio.create_task(online.chat(emulate={"hang": True}))
    await until(lambda: online.provider.counts()["n_in_flight"] == 1)
    url = online.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\n"
    for _ in range(2):
        writer.write(head)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert answer.startswith(b"HTTP/1.1 503 ")
        n_bytes = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        assert b'"overloaded"' in await reader.readexactly(n_bytes)
        writer.write(b"null")
    writer.close()
    holding.cancel()
    await until(lambda: online.gateway.admission.status().n_in_flight == 0)


async def test_the_class_of_a_key_comes_from_the_file(start, pool_toml) -> None:
    sha256 = hashlib.sha256(SECRET.encode()).hexdigest()
    keys = f'\n[[keys]]\nname = "nightly"\nsha256 = "{sha256}"\npriority = "batch"\n'
    async with start(pool_toml + keys) as gateway:
        gateway.gateway.admission.lag.lag_s = BATCH.sheds_all_s
        gateway.gateway.admission.lag._timer = asyncio.get_running_loop().call_later(60, lambda: None)
        shed = await gateway.chat(headers={"authorization": f"Bearer {SECRET}"})
        assert (shed.status_code, shed.headers["retry-after"]) == (503, "5")
        assert gateway.gateway.admission.status().n_shed["batch"] == 1


@pytest.mark.parametrize("claim", ["high", "High", " BATCH "])
async def test_a_class_is_read_in_any_case_by_all_who_read_it(running, claim: str) -> None:
    assert (await running.chat(headers={"x-turnout-priority": claim})).status_code == 200


async def test_an_unknown_class_in_the_header_is_a_400(running) -> None:
    response = await running.chat(headers={"x-turnout-priority": "urgent"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-turnout-priority")


async def test_a_reload_changes_the_limits(start, pool_toml) -> None:
    async with start(pool_toml, settings="max_in_flight = 7") as gateway:
        file = gateway.gateway.ready().settings.source
        file.write_text(file.read_text("utf-8").replace("max_in_flight = 7", "max_in_flight = 9"), "utf-8")
        gateway.app.reloader.ask()
        await until(lambda: gateway.gateway.admission.status().max_in_flight == 9)
