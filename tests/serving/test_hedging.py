"""A second attempt beside a slow one: who answers, what becomes of the other, and how often it may be."""

from __future__ import annotations

import asyncio

import pytest

from serving.emulated_faults import Fault
from serving.errors import UpstreamUnreachable
from serving.health import RetryBudget
from serving.hedging import race

TWO_WAYS = """
[[candidates]]
name = "large"
input_usd_per_mtok = 10.0
output_usd_per_mtok = 40.0
deployments = [{ provider = "emulator", model = "first" }, { provider = "emulator", model = "second" }]
"""
SERVER = """
[server]
port = 0
bundle = "{bundle}"
database = ""
watch_bundle_s = {watch_bundle_s}
hedge_share = 0.05
{settings}
[[providers]]
name = "emulator"
emulated = true
"""


class Response:
    def __init__(self) -> None:
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


class Begun:
    def __init__(self) -> None:
        self.response = Response()


class One:
    """An attempt that begins after some turns of the loop, or fails."""

    def __init__(self, n_turns: int, error: Exception | None = None) -> None:
        self.n_turns, self.error, self.outcome, self.was_cancelled = n_turns, error, None, False

    def finish(self, outcome: str) -> None:
        self.outcome = self.outcome or outcome

    async def begin(self) -> Begun:
        try:
            for _ in range(self.n_turns):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return Begun()


async def run(first: One, second: One | None, *, failed=lambda attempt, error: None, after_s: float = 0.0):
    return await race(first, lambda attempt: attempt.begin(), lambda: second, after_s, failed)


async def test_who_begins_first_answers_and_the_other_is_cancelled() -> None:
    slow, quick = One(10**6), One(2)
    winner, _ = await run(slow, quick)
    assert winner is quick
    assert slow.was_cancelled

    slow, quick = One(10**6), One(5)
    winner, _ = await run(quick, slow)
    assert winner is quick
    assert slow.was_cancelled


async def test_one_that_fails_leaves_it_to_the_other() -> None:
    told = []
    error = UpstreamUnreachable("gone")
    first, second = One(5, error), One(50)
    winner, _ = await run(first, second, failed=lambda *what: told.append(what))
    assert winner is second
    assert told == [(first, error)]


async def test_the_last_failure_is_the_failure_of_both() -> None:
    told = []
    first, second = One(5, UpstreamUnreachable("one")), One(50, UpstreamUnreachable("two"))
    with pytest.raises(UpstreamUnreachable, match="two"):
        await run(first, second, failed=lambda attempt, error: told.append(attempt))
    assert told == [first]


async def test_without_a_rival_it_is_waited_for() -> None:
    only = One(50)
    winner, _ = await run(only, None)
    assert winner is only


async def test_a_client_that_leaves_ends_both() -> None:
    first, second = One(10**6), One(10**6)
    task = asyncio.ensure_future(run(first, second))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert first.was_cancelled and second.was_cancelled
    assert (first.outcome, second.outcome) == (None, "client_disconnected")  # the exchange settles the first


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_hung_deployment_is_overtaken_and_not_blamed(start, is_stream: bool) -> None:
    async with start(TWO_WAYS, server=SERVER) as gateway:
        for _ in range(60):
            assert (await gateway.chat(model="large", stream=is_stream)).status_code == 200
        pool = gateway.gateway.pool
        for name in ("large@emulator/first", "large@emulator/second"):
            for _ in range(20):  # however the requests were spread, enough is known of both
                call = pool.begin(name, is_stream)
                call.first_byte()
                call.finish()
        # On a busy machine one of those before may have been slow enough to spend the budget.
        gateway.gateway.hedges = RetryBudget(0.05, per_s=0.0, most=1.0)
        next_one = pool.choose("large", is_stream=is_stream)
        gateway.provider.faults.put(next_one.rpartition("/")[2], Fault(hang=True))
        response = await gateway.chat(model="large", stream=is_stream)
        assert response.status_code == 200
        assert response.headers["x-turnout-failed-attempts"] == f"{next_one};overtaken"
        record = gateway.records.kept[-1]
        assert (record.outcome, record.attempts) == ("ok", f"{next_one};overtaken")
        assert record.deployment != next_one
        assert all(row.n_in_flight == row.n_errors == 0 for row in gateway.gateway.pool.snapshot())


async def test_at_most_one_request_in_twenty_is_hedged(start) -> None:
    async with start(TWO_WAYS, server=SERVER) as gateway:
        for _ in range(60):
            await gateway.chat(model="large")
        for model in ("first", "second"):
            gateway.provider.faults.put(model, Fault(delay_s=0.02), times=1000)
        answers = await asyncio.gather(*(gateway.chat(model="large") for _ in range(100)))
        n_hedged = sum("overtaken" in answer.headers.get("x-turnout-failed-attempts", "") for answer in answers)
        assert all(answer.status_code == 200 for answer in answers)
        assert 1 <= n_hedged <= 1 + 160 * 0.05


async def test_off_by_default(start) -> None:
    async with start(TWO_WAYS, server=SERVER.replace("hedge_share = 0.05", "")) as gateway:
        for _ in range(60):
            await gateway.chat(model="large")
        for model in ("first", "second"):
            gateway.provider.faults.put(model, Fault(delay_s=0.05), times=1000)
        answers = [await gateway.chat(model="large") for _ in range(5)]
        assert not any("x-turnout-failed-attempts" in answer.headers for answer in answers)


async def test_more_than_a_twentieth_is_refused(configure) -> None:
    from serving.errors import SettingsError

    with pytest.raises(SettingsError, match=r"server\.hedge_share = 0\.2: expected a number from 0 to 0\.05"):
        configure(TWO_WAYS, server=SERVER.replace("0.05", "0.2"))
