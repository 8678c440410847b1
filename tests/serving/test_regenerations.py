from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from serving.feedback import NullFeedbackStore
from serving.pool import Pool
from serving.regenerations import LEAST_S, MOST_BYTES, Regenerations, Saying

HELLO = [{"role": "user", "content": "Write a poem."}]
WITHIN_S = 300.0


class Signs(NullFeedbackStore):
    """A store that holds signs in a list."""

    is_on = True

    def __init__(self) -> None:
        self.kept: list[tuple[str, str, str]] = []

    def signal(self, request_id: str, key: str, sign: str, now_unix_s: float) -> None:
        self.kept.append((request_id, key, sign))


class Memory:
    """A memory with a clock that is set by hand."""

    def __init__(self, n_most: int = 100) -> None:
        self.now = 0.0
        self.signs = Signs()
        self.pool = Pool({"d": "c"})
        self.memory = Regenerations(self.signs, self.pool, n_most=n_most, clock=lambda: self.now)

    def asks(self, body: dict[str, object] | None = None, key: str = "alice", **told: object) -> Saying | None:
        given = {"headers": [], "n_bytes": 100, "priority": "normal", "within_s": WITHIN_S, **told}
        return self.memory.note(key, {"messages": HELLO} if body is None else body, **given)

    def answers(self, name: str, body: dict[str, object] | None = None, **told: object) -> None:
        saying = self.asks(body, **told)
        assert saying is not None
        saying.answered(name, "d")


@pytest.fixture
def memory() -> Memory:
    return Memory()


def test_the_same_conversation_again_is_a_sign_against_its_answer_once(memory) -> None:
    memory.answers("req_1")
    for n in range(2, 6):
        memory.now += LEAST_S
        memory.answers(f"req_{n}")
    assert memory.signs.kept == [("req_1", "alice", "regenerated")]
    assert [row.signals for row in memory.pool.snapshot()] == [{"regenerated": 1}]


def test_model_and_sampling_may_differ(memory) -> None:
    memory.answers("req_1", {"messages": HELLO, "model": "auto", "temperature": 1})
    memory.now += LEAST_S
    memory.asks({"messages": HELLO, "model": "large", "seed": 2})
    assert [name for name, *_ in memory.signs.kept] == ["req_1"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"messages": [{"role": "user", "content": "Write a poem!"}]}, {}),
        ({"messages": HELLO, "system": "Be brief."}, {}),
        ({"messages": HELLO, "user": "somebody"}, {}),
        ({"messages": HELLO, "temperature": 0}, {}),
        ({"messages": HELLO}, {"key": "bob"}),
        ({"messages": HELLO}, {"headers": [(b"x-session-id", b"2")]}),
        ({"messages": HELLO}, {"headers": [(b"x-stainless-retry-count", b"1")]}),
        ({"messages": HELLO}, {"priority": "batch"}),
        ({"messages": HELLO}, {"within_s": 0.0}),
        ({"messages": HELLO}, {"n_bytes": MOST_BYTES + 1}),
    ],
)
def test_what_is_another_conversation_or_a_program_is_no_sign(memory, body, told) -> None:
    memory.answers("req_1")
    memory.now += LEAST_S
    memory.asks(body, **told)
    assert memory.signs.kept == []
    memory.asks()
    assert len(memory.signs.kept) == 1, "the case would have been seen otherwise"


def test_what_was_not_answered_or_not_yet_is_no_sign(memory) -> None:
    first = memory.asks()
    memory.now += 10
    memory.asks()
    assert memory.signs.kept == [], "it never ended"
    assert first is not None
    first.answered("req_1", "d")
    memory.now += LEAST_S / 2
    memory.asks()
    assert memory.signs.kept == [], "nobody has read it yet"
    memory.now += WITHIN_S
    memory.asks()
    assert memory.signs.kept == [], "too long ago"


def test_a_tool_loop_is_no_sign(memory) -> None:
    turns = [
        *HELLO,
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]
    assert memory.asks({"messages": turns}) is None
    result = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
    assert memory.asks({"messages": [*HELLO, {"role": "user", "content": [result]}]}) is None
    assert memory.asks({"input": [*HELLO, {"type": "function_call_output", "call_id": "a", "output": "x"}]}) is None
    assert memory.asks({"input": "Write a poem."}) is not None
    assert memory.asks({"prompt": "legacy"}) is None


def test_the_memory_is_bounded_and_forgets() -> None:
    memory = Memory(n_most=10)
    for n in range(50):
        memory.answers(f"req_{n}", {"input": str(n)})
    assert len(memory.memory) == 10
    memory.now += WITHIN_S + 1
    for n in range(20):
        memory.answers(f"req_{n}", {"input": f"later {n}"})
    assert len(memory.memory) <= 20
    memory.now += LEAST_S
    memory.asks({"input": "45"})
    assert memory.signs.kept == []


async def test_a_regeneration_is_a_row_of_feedback_on_the_earlier_request(keep, monkeypatch) -> None:
    monkeypatch.setattr("serving.regenerations.LEAST_S", 0.0)
    async with keep() as gateway:
        await gateway.chat("Say hello.", emulate={"status": 500})
        first = (await gateway.chat("Say hello.")).headers["x-request-id"]
        await gateway.chat("Say hello.", stream=True)
        await gateway.chat("Say hello.", model="large")
        assert gateway.gateway.records.flush()
        with closing(sqlite3.connect(gateway.gateway.ready().settings.database_path())) as database:
            rows = database.execute("SELECT request_id, key, source, kind, score, tags FROM feedback").fetchall()
        assert rows == [(first, "anonymous", "signal", "signal", 0.0, "regenerated")]
        assert 'signal="regenerated"} 1' in (await gateway.client.get("/metrics")).text


async def test_an_idempotency_key_that_comes_again_is_no_sign(keep, monkeypatch) -> None:
    monkeypatch.setattr("serving.regenerations.LEAST_S", 0.0)
    async with keep() as gateway:
        for _ in range(2):
            await gateway.chat("Say hello.", headers={"idempotency-key": "one"})
        assert all(not row.signals for row in gateway.gateway.pool.snapshot())


async def test_a_stream_that_its_caller_leaves_is_abandoned_and_can_be_voted_on(keep) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
    async with keep() as gateway:
        slow = {**body, "emulate": {"event_delay_s": 0.05}}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=slow) as answer:
            left = answer.headers["x-request-id"]
            async for line in answer.aiter_lines():
                if '"content"' in line:
                    break
        kept = {}
        for _ in range(100):
            await asyncio.sleep(0.02)
            gateway.gateway.records.flush()
            with closing(sqlite3.connect(gateway.gateway.ready().settings.database_path())) as database:
                kept = dict(database.execute("SELECT id, outcome || ' ' || signals FROM request").fetchall())
            if kept:
                break
        assert kept == {left: "client_disconnected abandoned"}
        said = await gateway.client.post("/v1/feedback", json={"request_id": left, "thumbs": "down"})
        assert said.json()["status"] == "kept"
