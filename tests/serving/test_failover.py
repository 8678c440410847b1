"""What happens when an attempt fails: who is tried next, what the caller sees of it, and when it is final."""

from __future__ import annotations

import asyncio
import time
from math import inf

import orjson
import pytest

from router import Candidate
from router.domain import Capabilities
from serving.capacity import N_TELLING
from serving.emulated_faults import Fault
from serving.errors import UpstreamBroken, UpstreamOverloaded, UpstreamRefused
from serving.failover import Failover
from serving.health import RetryBudget
from serving.pool import Pool

HELLO = [{"role": "user", "content": "Say hello."}]
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
TWO_WAYS = """
[[candidates]]
name = "large"
input_usd_per_mtok = 10.0
output_usd_per_mtok = 40.0
deployments = [{ provider = "emulator", model = "first" }, { provider = "emulator", model = "second" }]
"""


def server_of(more: str = "max_attempts = 3") -> str:
    return (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n'
        f'{more}\n{{settings}}\n[[providers]]\nname = "emulator"\nemulated = true\n'
    )


def asked_of(api: str, **more: object) -> dict[str, object]:
    said: dict[str, object] = {"input": "Say hello."} if api == "responses" else {"messages": HELLO}
    limit = {"max_tokens": 50} if api == "messages" else {}
    return {"model": "large", **said, **limit, **more}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    "fault",
    [{"status": 429}, {"status": 500}, {"status": 401}, {"cut_after_events": 0}, {"redirect": True}],
    ids=str,
)
async def test_another_deployment_answers_and_nobody_notices(start, fault, is_stream: bool) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(**fault))
        for _ in range(3):
            response = await gateway.client.post(PATHS["chat"], json=asked_of("chat", stream=is_stream))
            assert response.status_code == 200
            assert "emulated second" in response.text or is_stream
        record = gateway.records.kept[0]
        outcome = {429: "overloaded", 500: "broken", 401: "denied"}.get(fault.get("status"), "broken")
        assert record.attempts in (f"large@emulator/first;{outcome}", "large@emulator/first;unreachable")
        assert (record.deployment, record.outcome) == ("large@emulator/second", "ok")
        assert all(kept.outcome == "ok" for kept in gateway.records.kept)


async def test_the_caller_is_told_of_the_attempts_and_pays_the_one_that_answered(start, pool_toml) -> None:
    async with start(pool_toml, server=server_of()) as gateway:
        gateway.provider.faults.put("medium-at-provider", Fault(status=503))
        response = await gateway.client.post(PATHS["chat"], json={"model": "auto", "messages": HELLO})
        assert response.headers["x-turnout-candidate"] == "large"  # the only other one above the threshold
        assert response.headers["x-turnout-failed-attempts"] == "medium@emulator/medium-at-provider;overloaded"
        record = gateway.records.kept[0]
        assert record.candidate == "large"
        assert record.cost_usd == pytest.approx((record.input_tokens * 10 + record.output_tokens * 40) / 1e6)
        gateway.provider.faults.put("large-at-provider", Fault(status=503))
        rest = await gateway.client.post(PATHS["chat"], json={"model": "auto", "messages": HELLO})
        assert rest.headers["x-turnout-candidate"] == "small"  # below it, but better than nothing


async def test_who_asks_to_be_left_alone_is_left_alone_by_all(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=429, retry_after_s=60))
        for _ in range(10):
            assert (await gateway.client.post(PATHS["chat"], json=asked_of("chat"))).status_code == 200
        assert gateway.provider.seen["first"].n_requests == 1
        gateway.provider.faults.put("second", Fault(status=429, retry_after_s=30))
        last = await gateway.client.post(PATHS["chat"], json=asked_of("chat"))
        assert (last.status_code, last.headers["retry-after"]) == (429, "30")
        refused = await gateway.client.post(PATHS["messages"], json=asked_of("messages"))
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "api_error")
        assert 28 <= int(refused.headers["retry-after"]) <= 30
        assert (gateway.provider.seen["first"].n_requests, gateway.provider.seen["second"].n_requests) == (1, 11)


async def test_what_the_caller_did_is_not_tried_again_and_counts_against_nobody(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("*", Fault(status=400))
        for _ in range(20):
            assert (await gateway.client.post(PATHS["chat"], json=asked_of("chat"))).status_code == 400
        assert gateway.provider.counts()["n_requests"] == 20
        assert all(status.n_ejections == 0 and status.n_errors == 0 for status in gateway.gateway.pool.snapshot())


async def test_too_long_for_one_goes_to_one_that_reads_more(start) -> None:
    pool = "".join(
        f'[[candidates]]\nname = "{name}"\ncontext_window_tokens = {window}\nfailover = {failover}\n'
        f'deployments = [{{ provider = "emulator", model = "{name}-there" }}]\n'
        for name, window, failover in (
            ("large", 1000, '["medium", "small"]'),
            ("medium", 900, "[]"),
            ("small", 5000, "[]"),
        )
    )
    async with start(pool, server=server_of()) as gateway:
        gateway.provider.faults.put("large-there", Fault(status=400, code="context_length_exceeded"))
        response = await gateway.client.post(PATHS["chat"], json=asked_of("chat"))
        assert response.headers["x-turnout-candidate"] == "small"
        gateway.provider.faults.put("small-there", Fault(status=400, code="context_length_exceeded"))
        final = await gateway.client.post(PATHS["chat"], json=asked_of("chat"))
        assert (final.status_code, final.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "medium-there" not in gateway.provider.seen


async def test_one_that_was_named_has_only_its_own_stand_ins(start, pool_toml) -> None:
    alone = pool_toml
    async with start(alone, server=server_of()) as gateway:
        gateway.provider.faults.put("large-at-provider", Fault(status=500), times=1)
        again = await gateway.client.post(PATHS["chat"], json=asked_of("chat"))
        assert (again.status_code, again.headers["x-turnout-candidate"]) == (200, "large")
        assert again.headers["x-turnout-failed-attempts"] == "large@emulator/large-at-provider;broken"
        gateway.provider.faults.put("large-at-provider", Fault(status=500))
        assert (await gateway.client.post(PATHS["chat"], json=asked_of("chat"))).status_code == 500
        assert set(gateway.provider.seen) == {"large-at-provider"}


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("n_events", range(0, 21, 1))
async def test_a_stream_cut_anywhere_fails_over_unseen_or_ends_in_an_error(start, api: str, n_events: int) -> None:
    """Never a second answer after content of the first, never a clean end of a broken one."""
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.scripts.put("first", [{"text": "one " * 40}])
        gateway.provider.scripts.put("second", [{"text": "two " * 40}])
        gateway.provider.faults.put("first", Fault(cut_after_events=n_events))
        response = await gateway.client.post(PATHS[api], json=asked_of(api, stream=True))
        assert response.status_code == 200
        text = text_of(api, response.text)
        if "two" in text:
            assert text == "two " * 40
            assert gateway.records.kept[0].attempts
        else:
            assert text and ("one " * 40).startswith(text) and len(text) < 160
            assert "error" in response.text.split("\n\n")[-2] or "response.failed" in response.text
            assert "[DONE]" not in response.text or api == "responses"
            assert "message_stop" not in response.text and "response.completed" not in response.text
            assert gateway.records.kept[0].outcome in ("broken", "unreachable")
        n_beginnings = {"chat": 1, "responses": 4, "messages": 2}[api]
        assert ("two" in text) is (n_events <= n_beginnings)


def text_of(api: str, raw: str) -> str:
    found = []
    for line in raw.split("\n"):
        event = orjson.loads(line[6:]) if line.startswith("data: {") else {}
        if api == "chat":
            found += [choice["delta"].get("content") or "" for choice in event.get("choices", ())]
        elif api == "messages":
            found.append(event.get("delta", {}).get("text", "") if event.get("type") == "content_block_delta" else "")
        elif event.get("type") == "response.output_text.delta":
            found.append(event["delta"])
    return "".join(found)


async def test_the_callers_patience_bounds_all_attempts(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("*", Fault(hang=True))
        began = time.monotonic()
        waiting = {"x-request-timeout-ms": "300"}
        response = await gateway.client.post(PATHS["chat"], json=asked_of("chat"), headers=waiting)
        assert (response.status_code, response.json()["error"]["code"]) == (504, "upstream_timeout")
        assert time.monotonic() - began < 2.0
        for wrong in ("0", "soon", "-5", "nan"):
            refused = await gateway.client.post(
                PATHS["chat"], json=asked_of("chat"), headers={"x-request-timeout-ms": wrong}
            )
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-request-timeout-ms")


async def test_comments_are_no_progress(start) -> None:
    async with start(TWO_WAYS, server=server_of("max_attempts = 3\nidle_timeout_s = 0.05")) as gateway:
        chunk = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}\n\n'
        comments = [b": still here\n\n"] * 400
        gateway.provider.replays.put("first", 200, {"content-type": "text/event-stream"}, [chunk, *comments])
        response = await gateway.client.post(PATHS["chat"], json=asked_of("chat", stream=True))
        assert response.text.count(": still here") < 400
        assert orjson.loads(response.text.split("\n\n")[-2][6:])["error"]["code"] == "upstream_timeout"
        # Before any content the same silence is nobody's business but ours.
        gateway.provider.replays.put("second", 200, {"content-type": "text/event-stream"}, comments)
        again = await gateway.client.post(PATHS["chat"], json=asked_of("chat", stream=True))
        assert again.headers["x-turnout-failed-attempts"] == "large@emulator/second;timeout"
        assert again.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("api", PATHS)
async def test_one_that_thinks_in_silence_is_not_waited_for_in_silence(start, monkeypatch, api: str) -> None:
    monkeypatch.setattr("serving.beginning.HOLD_S", 0.05)
    monkeypatch.setattr("serving.endpoints.PING_AFTER_S", 0.05)
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("*", Fault(event_delay_s=0.2))
        gateway.provider.scripts.put("*", [{"text": "Well."}])
        response = await gateway.client.post(PATHS[api], json=asked_of(api, stream=True))
        assert text_of(api, response.text) == "Well."
        assert ": still" in response.text or "event: ping" in response.text
        assert gateway.records.kept[0].outcome == "ok"
        if api == "chat":
            return  # it has one event before its content
        # Committed before its content, it can only end in an error.
        beginnings = {"responses": 4, "messages": 2}[api]
        gateway.provider.faults.put("*", Fault(event_delay_s=0.2, cut_after_events=beginnings))
        broken = await gateway.client.post(PATHS[api], json=asked_of(api, stream=True))
        assert broken.status_code == 200
        assert "error" in broken.text.split("\n\n")[-2] or "response.failed" in broken.text


@pytest.mark.parametrize("api", ["responses", "messages"])
@pytest.mark.parametrize("upstream", ["responses", "messages", "chat"])
async def test_an_error_event_before_any_content_is_a_failed_attempt(start, api: str, upstream: str) -> None:
    server = server_of() + f'apis = ["{upstream}"]\n'
    async with start(TWO_WAYS, server=server) as gateway:
        gateway.provider.faults.put("first", Fault(error_after_events=1))
        response = await gateway.client.post(PATHS[api], json=asked_of(api, stream=True))
        assert response.status_code == 200
        assert response.headers["x-turnout-failed-attempts"] == "large@emulator/first;broken"
        assert gateway.records.kept[0].outcome == "ok"


async def test_what_an_error_event_says_decides(start) -> None:
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
    event = b"event: error\ndata: " + orjson.dumps(said) + b"\n\n"
    busy = event.replace(b"invalid_request_error", b"overloaded_error").replace(b"prompt is too long: 9 > 8", b"Busy.")
    async with start(TWO_WAYS, server=server_of() + 'apis = ["messages"]\n') as gateway:
        replay = gateway.provider.replays.put
        for _ in range(6):
            replay("*", 200, {"content-type": "text/event-stream"}, [event])
            refused = await gateway.client.post(PATHS["chat"], json=asked_of("chat", stream=True))
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert all(status.n_ejections == 0 for status in gateway.gateway.pool.snapshot())
        replay("*", 200, {"content-type": "text/event-stream"}, [busy])
        other = await gateway.client.post(PATHS["messages"], json=asked_of("messages", stream=True))
        assert (other.status_code, other.headers["x-turnout-failed-attempts"][-10:]) == (200, "overloaded")


async def test_who_cannot_be_sent_the_request_gives_way_to_who_can(start) -> None:
    server = server_of() + 'apis = ["messages"]\n\n[[providers]]\nname = "chatty"\nemulated = true\napis = ["chat"]\n'
    pool = TWO_WAYS.replace('{ provider = "emulator", model = "second" }', '{ provider = "chatty", model = "second" }')
    async with start(pool, server=server) as gateway:
        response = await gateway.client.post(PATHS["chat"], json=asked_of("chat", logprobs=True))
        assert (response.status_code, gateway.records.kept[0].deployment) == (200, "large@chatty/second")
        gateway.provider.faults.put("second", Fault(status=503))
        failing = await gateway.client.post(PATHS["chat"], json=asked_of("chat", logprobs=True))
        assert failing.status_code == 503  # the provider's failure, not the caller's fault
    async with start(TWO_WAYS, server=server_of() + 'apis = ["messages"]\n') as gateway:
        refused = await gateway.client.post(PATHS["chat"], json=asked_of("chat", logprobs=True))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")


async def test_a_caller_that_leaves_between_attempts_leaves_nothing_behind(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        gateway.provider.faults.put("first", Fault(status=500))
        gateway.provider.faults.put("second", Fault(hang=True))
        task = asyncio.ensure_future(gateway.client.post(PATHS["chat"], json=asked_of("chat")))
        async with asyncio.timeout(5):
            while "second" not in gateway.provider.seen:
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while gateway.provider.counts()["n_in_flight"]:
                await asyncio.sleep(0.01)
        assert all(status.n_in_flight == 0 for status in gateway.gateway.pool.snapshot())
        assert gateway.records.kept[0].outcome == "client_disconnected"


def failover_of(pool: Pool, *, max_attempts: int = 3, until: float = 1e9, is_stream: bool = False) -> Failover:
    windows = {"a": 100, "b": 50, "c": 200}
    candidates = {
        name: Candidate(name, capabilities=Capabilities(context_window_tokens=window))
        for name, window in windows.items()
    }
    known = {"a1", "a2", "b1", "c1"}
    return Failover(
        pool, ["a", "b", "c"], candidates, known, max_attempts=max_attempts, until=until, is_stream=is_stream
    )


def test_the_order_of_attempts() -> None:
    failover = failover_of(Pool({"a1": "a", "a2": "a", "b1": "b", "c1": "c"}), max_attempts=9)
    broken = UpstreamBroken("it broke")
    assert failover.first() == "a1"
    assert failover.after(broken, "a") == ("a2", 0.0)
    assert failover.after(broken, "a") == ("b1", 0.0)
    assert failover.after(broken, "b") == ("c1", 0.0)
    again = failover.after(broken, "c")
    assert again is not None and again[0] in ("a1", "a2") and 0 <= again[1] <= 2.0


def test_a_failure_is_final_after_the_last_attempt_the_deadline_or_the_budget() -> None:
    clock = [0.0]
    pool = Pool({"a1": "a", "b1": "b", "c1": "c"}, clock=lambda: clock[0])
    broken = UpstreamBroken("it broke")
    few = failover_of(pool, max_attempts=2)
    few.first()
    assert few.after(broken, "a") is not None
    assert few.after(broken, "b") is None
    late = failover_of(pool, until=5.0)
    late.first()
    clock[0] = 5.0
    assert late.after(broken, "a") is None
    pool.retries = RetryBudget(share=0.0, per_s=0.0, most=1.0)
    poor = failover_of(pool)
    poor.first()
    assert poor.after(broken, "a") is not None
    assert poor.after(broken, "b") is None


def test_a_refusal_is_final_unless_it_is_about_length() -> None:
    pool = Pool({"a1": "a", "b1": "b", "c1": "c"})
    refused = failover_of(pool)
    refused.first()
    assert refused.after(UpstreamRefused("no"), "a") is None
    long = failover_of(pool)
    long.first()
    assert long.after(UpstreamRefused("no", code="context_length_exceeded"), "a") == ("c1", 0.0)
    assert long.after(UpstreamRefused("no", code="context_length_exceeded"), "c") is None


def test_the_last_one_is_never_ejected_but_may_ask_to_be_left_alone() -> None:
    pool = Pool({"a1": "a"})
    for _ in range(9):
        pool.begin("a1").finish("broken")
    assert failover_of(pool).first() == "a1"
    pool.begin("a1").finish("overloaded", wait_s=20.0)
    with pytest.raises(UpstreamOverloaded) as told:
        failover_of(pool).first()
    assert told.value.retry_after_s == pytest.approx(20.0, abs=1.0)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def answered(pool: Pool, clock: Clock, deployment: str, seconds: float, n: int = 1, *, is_stream: bool = False) -> None:
    for _ in range(n):
        call = pool.begin(deployment, is_stream)
        clock.now += seconds
        call.first_byte()
        call.finish()


def test_an_attempt_gets_its_share_of_the_rest_and_the_last_one_all_of_it() -> None:
    clock = Clock()
    pool = Pool({"a1": "a", "b1": "b", "c1": "c"}, clock)
    streams = failover_of(pool, until=clock.now + 90.0, is_stream=True)
    assert streams.first_content_s(streams.first()) == 30.0
    clock.now += 30.0
    second = streams.after(UpstreamBroken("it broke"), "a")
    assert second is not None and streams.first_content_s(second[0]) == 30.0
    third = streams.after(UpstreamBroken("it broke"), "b")
    assert third is not None and streams.first_content_s(third[0]) == inf, "nobody is asked after it"
    # While nothing is known a share is not cut to less than answers usually take.
    hurried = failover_of(pool, until=clock.now + 12.0, is_stream=True)
    assert hurried.first_content_s(hurried.first()) == 10.0
    whole = failover_of(pool, until=clock.now + 90.0)
    assert whole.first_content_s(whole.first()) == 60.0
    only = failover_of(Pool({"a1": "a"}, clock), until=clock.now + 90.0)
    assert only.first_content_s(only.first()) == inf
    single = failover_of(pool, max_attempts=1, until=clock.now + 90.0)
    assert single.first_content_s(single.first()) == inf


def test_what_is_known_of_a_deployment_bounds_its_share() -> None:
    clock = Clock()
    pool = Pool({"a1": "a", "b1": "b", "c1": "c"}, clock)
    answered(pool, clock, "a1", 3.0, 20, is_stream=True)
    patient = failover_of(pool, until=clock.now + 900.0, is_stream=True)
    assert patient.first_content_s(patient.first()) == 10.0, "twice its slowest, and not less than 10 s"
    hurried = failover_of(pool, until=clock.now + 9.0, is_stream=True)
    assert hurried.first_content_s(hurried.first()) == 6.0, "twice its slowest is more than a third of 9 s"
    middling = failover_of(pool, until=clock.now + 24.0, is_stream=True)
    assert middling.first_content_s(middling.first()) == 8.0


def test_an_attempt_that_is_seldom_quick_enough_is_not_made() -> None:
    clock, broken = Clock(), UpstreamBroken("it broke")
    pool = Pool({"a1": "a", "b1": "b", "c1": "c"}, clock)
    answered(pool, clock, "b1", 20.0)
    answered(pool, clock, "c1", 4.0)
    failover = failover_of(pool, until=clock.now + 10.0)
    failover.first()
    assert failover.after(broken, "a") == ("c1", 0.0), "b1 would take 20 s"
    n_taken = pool.retries.n_taken
    late = failover_of(pool, until=clock.now + 3.0)
    late.first()
    again = late.after(broken, "a")  # only a1, of which nothing is known, may be in time
    assert again is None or again[0] == "a1"
    answered(pool, clock, "a1", 8.0)
    never = failover_of(pool, until=clock.now + 3.0)
    never.first()
    n_taken = pool.retries.n_taken
    assert never.after(broken, "a") is None
    assert pool.retries.n_taken == n_taken, "what is not made costs nothing"


def test_a_short_pause_is_waited_for_and_a_long_one_is_not() -> None:
    clock = Clock()
    pool = Pool({"a1": "a", "b1": "b"}, clock)
    for name, wait_s in (("a1", 1.5), ("b1", 60.0)):
        pool.begin(name).finish("overloaded", wait_s=wait_s)
    failover, rested_s = failover_of(pool, until=clock.now + 100.0), 0.0
    with pytest.raises(UpstreamOverloaded):
        failover.first()
    while True:
        rest_s = failover.rest_s()
        assert rest_s is not None
        rested_s += rest_s
        clock.now += rest_s
        try:
            assert failover.first() == "a1"
            break
        except UpstreamOverloaded:
            continue
    assert 1.5 <= rested_s < 2.0
    pool.begin("a1").finish("overloaded", wait_s=1.0)
    assert failover.rest_s() is None, "its patience is at an end"
    assert failover_of(pool, until=clock.now + 0.5).rest_s() is None, "so long the caller does not wait"


def test_after_a_failure_a_short_pause_of_all_is_waited_for_too() -> None:
    clock = Clock()
    pool = Pool({"a1": "a"}, clock)
    failover = failover_of(pool, until=clock.now + 100.0)
    assert failover.first() == "a1"
    pool.begin("a1").finish("overloaded", wait_s=1.0)
    further = failover.after(UpstreamOverloaded("busy", retry_after_s=1.0), "a")
    assert further is not None and further[0] is None and 0 < further[1] < 0.2
    clock.now += 1.0
    assert failover.first() == "a1"


async def test_requests_wait_for_a_deployment_that_asked_for_a_moment(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        for model in ("first", "second"):
            gateway.provider.faults.put(model, Fault(status=429, retry_after_s=0.3), times=1)
        answers = await asyncio.gather(*(gateway.chat(model="large") for _ in range(8)))
        assert [answer.status_code for answer in answers] == [200] * 8


def test_whoever_cools_longer_than_is_left_is_not_waited_for() -> None:
    clock = Clock()
    pool = Pool({"a1": "a", "b1": "b"}, clock)
    failover = failover_of(pool, until=clock.now + 5.0)
    assert failover.first() == "a1"
    pool.begin("a1").finish("overloaded", wait_s=60.0)
    assert failover.after(UpstreamOverloaded("busy", retry_after_s=60.0), "a") == ("b1", 0.0)
    pool.begin("b1").finish("overloaded", wait_s=60.0)
    assert failover.after(UpstreamOverloaded("busy", retry_after_s=60.0), "b") is None


def test_where_all_are_at_their_limits_the_caller_is_told_to_come_back_soon() -> None:
    clock = Clock()
    pool = Pool({"a1": "a", "b1": "b"}, clock)
    for name in ("a1", "b1"):
        pool.begin(name)
        for _ in range(N_TELLING):
            pool.begin(name).finish("overloaded", wait_s=0.0)
    assert failover_of(pool).first() == "a1", "the last resort"
    pool.begin("a1").finish("overloaded", wait_s=0.0)
    pool.begin("b1").finish("overloaded", wait_s=0.0)
    with pytest.raises(UpstreamOverloaded) as told:
        failover_of(pool).first()
    assert (told.value.status, told.value.retry_after_s) == (503, 1.0)


@pytest.mark.parametrize("fault", [{"hang": True}, {"event_delay_s": 0.4}], ids=str)
async def test_who_has_no_content_within_its_share_is_left_for_another(start, monkeypatch, fault) -> None:
    monkeypatch.setattr("serving.failover.UNKNOWN_STREAM_S", 0.05)
    async with start(TWO_WAYS, server=server_of() + 'apis = ["responses"]\n') as gateway:
        # It hangs, or begins in time but has its content only after four events more.
        gateway.provider.faults.put("first", Fault(**fault))
        response = await gateway.client.post(
            PATHS["responses"], json=asked_of("responses", stream=True), headers={"x-request-timeout-ms": "1500"}
        )
        assert response.status_code == 200
        assert response.headers["x-turnout-failed-attempts"] == "large@emulator/first;timeout"
        assert text_of("responses", response.text)
        assert gateway.records.kept[0].outcome == "ok"


async def test_streams_and_whole_answers_reach_the_pool_as_what_they_are(start) -> None:
    async with start(TWO_WAYS, server=server_of()) as gateway:
        for is_stream in (True, False, True):
            response = await gateway.client.post(PATHS["chat"], json=asked_of("chat", stream=is_stream))
            assert response.status_code == 200
        found = gateway.gateway.pool.snapshot()
        assert sum(status.first_content.n for status in found) == 2
        assert sum(status.whole.n for status in found) == 1
        assert sum(status.tokens.output_tokens for status in found) > 0
