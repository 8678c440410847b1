"""One idempotency key, one call, one charge: whoever asks again hears the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import httpx
import pytest

from serving import idempotency
from serving.emulated_faults import Fault
from serving.errors import IdempotencyConflict, IdempotencyKeyReused, InvalidRequest
from serving.idempotency import IdempotencyStore, Replay, Turn

KEY = {"idempotency-key": "order-66"}
REPLAYED = "x-turnout-idempotent-replay"
ALICE, BOB = "sk-turnout-alice-0000000000000000", "sk-turnout-bob-00000000000000000000"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def said(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Return what a client sees, but for the mark of a replay and what the server adds to every answer."""
    ignored = (REPLAYED, "date", "connection", "transfer-encoding")
    return response.status_code, response.content, [row for row in response.headers.items() if row[0] not in ignored]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_fifty_at_once_are_one_call_one_charge_and_fifty_equal_answers(online, is_stream: bool) -> None:
    asked = {"headers": KEY, "stream": is_stream, "emulate": {"delay_s": 0.1}}
    async with httpx.AsyncClient(base_url=online.client.base_url, limits=httpx.Limits(max_connections=60)) as client:
        online.client, kept = client, online.client
        answers = await asyncio.gather(*(online.chat(**asked) for _ in range(50)))
        online.client = kept
    assert len({str(said(answer)) for answer in answers}) == 1
    assert answers[0].status_code == 200
    assert sum(REPLAYED in answer.headers for answer in answers) == 49
    assert online.provider.counts()["n_requests"] == 1
    charged = [record for record in online.records.kept if record.outcome == "ok"]
    replayed = [record for record in online.records.kept if record.outcome == "replayed"]
    assert (len(charged), len(replayed)) == (1, 49)
    assert charged[0].id == answers[0].headers["x-request-id"]
    assert charged[0].cost_usd is not None
    assert all(record.cost_usd is record.input_tokens is None for record in replayed)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_later_ones_get_the_answer_that_was_kept(running, is_stream: bool) -> None:
    first = await running.chat(headers=KEY, stream=is_stream)
    second = await running.chat(headers=KEY, stream=is_stream)
    assert said(first) == said(second)
    assert (REPLAYED in first.headers, second.headers[REPLAYED]) == (False, "true")
    assert running.provider.counts()["n_requests"] == 1
    assert running.gateway.admission.status().n_in_flight == 0


async def test_another_body_is_refused_and_calls_nobody(running) -> None:
    await running.chat("Say hello.", headers=KEY)
    other = await running.chat("Say goodbye.", headers=KEY)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert running.provider.counts()["n_requests"] == 1


async def test_keys_of_clients_and_paths_are_apart(start, pool_toml) -> None:
    rows = "".join(
        f'\n[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
        for name, secret in (("alice", ALICE), ("bob", BOB))
    )
    async with start(pool_toml + rows) as gateway:
        for secret in (ALICE, BOB):
            answer = await gateway.chat(headers={**KEY, "authorization": f"Bearer {secret}"})
            assert REPLAYED not in answer.headers
        body = {"model": "auto", "prompt": "Say hello."}
        other = await gateway.client.post(
            "/v1/completions", json=body, headers={**KEY, "authorization": f"Bearer {ALICE}"}
        )
        assert (other.status_code, gateway.provider.counts()["n_requests"]) == (200, 3)


async def test_after_an_error_the_key_is_free_and_those_who_waited_hear_of_the_same_error(online) -> None:
    online.provider.faults.put("*", Fault(delay_s=0.1, status=503), times=1)
    failed = await asyncio.gather(*(online.chat(headers=KEY) for _ in range(5)))
    assert {answer.status_code for answer in failed} == {503}
    assert len({str(said(answer)) for answer in failed}) == 1
    assert online.provider.counts()["n_requests"] == 1
    again = await online.chat(headers=KEY)
    assert (again.status_code, REPLAYED in again.headers) == (200, False)


async def test_a_stream_that_broke_is_shared_by_those_who_waited_and_not_kept(online) -> None:
    online.provider.faults.put("*", Fault(delay_s=0.1, cut_after_events=3), times=1)
    first, second = await asyncio.gather(*(online.chat(headers=KEY, stream=True) for _ in range(2)))
    assert said(first) == said(second)
    assert b'"error"' in first.content and b"[DONE]" not in first.content
    again = await online.chat(headers=KEY, stream=True)
    assert again.content.endswith(b"data: [DONE]\n\n") and REPLAYED not in again.headers


@pytest.mark.parametrize(
    "asked",
    [{"emulate": {"hang": True}}, {"stream": True, "emulate": {"hang_after_events": 3}}],
    ids=["whole", "stream"],
)
async def test_a_client_that_leaves_frees_the_key_and_one_who_waited_takes_its_turn(online, asked) -> None:
    # The fault is the first request's alone, though the bodies are the same.
    fault = asked["emulate"]
    online.provider.faults.put("*", Fault(**fault), times=1)
    more = {"stream": True} if "stream" in asked else {}
    leaving = asyncio.create_task(online.chat(headers=KEY, **more))
    await until(lambda: online.provider.counts()["n_in_flight"] == 1)
    waiting = asyncio.create_task(online.chat(headers=KEY, **more))
    await asyncio.sleep(0.05)
    assert online.provider.counts()["n_requests"] == 1
    leaving.cancel()
    async with asyncio.timeout(10):
        answer = await waiting
    assert (answer.status_code, REPLAYED in answer.headers) == (200, False)
    assert online.provider.counts()["n_cancelled"] == 1
    assert sorted(record.outcome for record in online.records.kept) == ["client_disconnected", "ok"]


async def test_one_who_waits_and_leaves_disturbs_nobody(online) -> None:
    asked = {"headers": KEY, "emulate": {"delay_s": 0.2}}
    first = asyncio.create_task(online.chat(**asked))
    await until(lambda: online.provider.counts()["n_in_flight"] == 1)
    leaving = asyncio.create_task(online.chat(**asked))
    await asyncio.sleep(0.05)
    leaving.cancel()
    assert (await first).status_code == 200
    assert online.provider.counts()["n_requests"] == 1


async def test_who_waits_too_long_is_told_that_it_is_being_answered(online, monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "WAIT_S", 0.05)
    first = asyncio.create_task(online.chat(headers=KEY, emulate={"delay_s": 0.5}))
    await until(lambda: online.provider.counts()["n_in_flight"] == 1)
    second = await online.chat(headers=KEY, emulate={"delay_s": 0.5})
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_in_progress")
    assert second.headers["retry-after"] == "1"
    assert (await first).status_code == 200


async def test_an_answer_too_large_to_keep_is_neither_repeated_nor_made_twice(running, monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_ANSWER_BYTES", 100)
    assert (await running.chat(headers=KEY)).status_code == 200
    again = await running.chat(headers=KEY)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_answer_not_kept")
    assert running.provider.counts()["n_requests"] == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256])
async def test_a_key_that_is_none_is_refused(running, key: str) -> None:
    response = await running.chat(headers={"idempotency-key": key})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_two_keys_are_refused(running) -> None:
    headers = [("idempotency-key", "a"), ("idempotency-key", "b")]
    response = await running.client.post("/v1/chat/completions", json={}, headers=headers)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_it_can_be_switched_off(start, pool_toml) -> None:
    async with start(pool_toml, settings="idempotency_keep_for_s = 0") as gateway:
        for _ in range(2):
            assert REPLAYED not in (await gateway.chat(headers=KEY)).headers
        assert gateway.provider.counts()["n_requests"] == 2


async def ended(store: IdempotencyStore, key: bytes, outcome: str = "ok", body: bytes = b"answer") -> None:
    """Answer one key."""
    turn = await store.claim("alice", "/x", key, b"asked")
    assert isinstance(turn, Turn)

    async def send(message: object) -> None:
        return

    noting = turn.recording(send)
    await noting({"type": "http.response.start", "status": 200, "headers": []})
    await noting({"type": "http.response.body", "body": body})
    turn.end(outcome)


async def test_answers_expire() -> None:
    now = 0.0
    store = IdempotencyStore(10.0, clock=lambda: now)
    await ended(store, b"a")
    now = 9.9
    assert isinstance(await store.claim("alice", "/x", b"a", b"asked"), Replay)
    now = 10.0
    assert isinstance(await store.claim("alice", "/x", b"a", b"asked"), Turn)
    assert store._n_bytes == 0 and not store._kept


async def test_memory_is_bounded_by_bytes_and_the_keys_of_what_was_let_go_are_still_known(monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT_BYTES", 25)
    store = IdempotencyStore()
    for key in (b"a", b"b", b"c"):
        await ended(store, key, body=b"x" * 10)
    assert store._n_bytes == 20
    with pytest.raises(IdempotencyConflict):
        await store.claim("alice", "/x", b"a", b"asked")
    assert isinstance(await store.claim("alice", "/x", b"c", b"asked"), Replay)


async def test_making_room_looks_only_at_what_is_let_go(monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEPT_BYTES", 25)
    now = 0.0
    store = IdempotencyStore(10.0, clock=lambda: now)
    let_go = 0
    own = store._let_go

    def counting(entry: object) -> None:
        nonlocal let_go
        let_go += 1
        own(entry)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_let_go", counting)
    for i in range(100):
        await ended(store, b"%d" % i, body=b"x" * (30 if i == 50 else 10))
    assert let_go == 98, "once each, however many keys without answers are still known"
    assert len(store._kept) == 100 and len(store._answers) == 2
    now = 10.0
    assert isinstance(await store.claim("alice", "/x", b"99", b"asked"), Turn)
    assert store._n_bytes == 0 and not store._kept and not store._answers


async def test_memory_is_bounded_by_keys(monkeypatch) -> None:
    monkeypatch.setattr(idempotency, "MAX_KEYS", 2)
    store = IdempotencyStore()
    for key in (b"a", b"b", b"c"):
        await ended(store, key)
    assert len(store._kept) == 2
    assert isinstance(await store.claim("alice", "/x", b"a", b"asked"), Turn)


async def test_what_failed_is_not_kept_and_bodies_are_compared_while_it_runs() -> None:
    store = IdempotencyStore()
    await ended(store, b"a", "broken")
    turn = await store.claim("alice", "/x", b"a", b"asked")
    assert isinstance(turn, Turn)
    with pytest.raises(IdempotencyKeyReused):
        await store.claim("alice", "/x", b"a", b"something else")
    with pytest.raises(InvalidRequest):
        await store.claim("alice", "/x", b"\xff", b"asked")
    turn.end("")
    turn.end("ok")  # the second end of a turn says nothing
    assert not store._running and not store._kept
