from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace

import pytest

SECRETS = {name: f"sk-turnout-{name}-0000000000000000" for name in ("alice", "bob", "judge")}
GRADES = {"judge": 'grades = ["al*"]\n'}
KEYS = "".join(
    f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{GRADES.get(name, "")}'
    for name, secret in SECRETS.items()
)


def shown(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[name]}"}


def rows(gateway, columns: str = "request_id, key, source, kind, score, grader, tags") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(gateway.gateway.ready().settings.database_path())) as database:
        return database.execute(f"SELECT {columns} FROM feedback ORDER BY key, request_id").fetchall()


async def asked(gateway, name: str | None = None, **body: object) -> str:
    response = await gateway.chat(headers=shown(name) if name else None, **body)
    assert response.status_code == 200, response.text
    return response.headers["x-request-id"]


async def voted(gateway, name: str | None = None, **said: object):
    return await gateway.client.post("/v1/feedback", json=said, headers=shown(name) if name else None)


async def test_a_vote_right_after_the_answer_finds_its_request(keep) -> None:
    async with keep() as gateway:
        for _ in range(5):
            said = await voted(gateway, request_id=await asked(gateway), rating=0.5)
            assert (said.status_code, said.json()["status"]) == (200, "kept"), said.text


@asynccontextmanager
async def open_ended_provider() -> AsyncIterator[str]:
    """Serve one streamed answer whose connection stays open after its last event; give the candidate's TOML."""
    chunk = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'

    is_over = asyncio.Event()
    handling: list[asyncio.Task[None] | None] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + chunk + b"data: [DONE]\n\n")
            await is_over.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            f'[[providers]]\nname = "raw"\nbase_url = "http://127.0.0.1:{port}/v1"\napis = ["chat"]\n'
            '[[candidates]]\nname = "large"\ndeployments = [{ provider = "raw", model = "m" }]\n'
        )
    finally:
        server.close()
        is_over.set()
        await asyncio.gather(*filter(None, handling))


async def test_a_vote_right_after_the_last_event_of_a_stream_finds_its_request(keep) -> None:
    """The stream is not over yet for the gateway: its provider keeps the connection open."""
    body = {"model": "large", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
    async with open_ended_provider() as candidate, keep(candidate) as gateway:
        async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.endswith("[DONE]"):
                    said = await voted(gateway, request_id=answer.headers["x-request-id"], rating=0.5)
                    break
        assert (said.status_code, said.json()["status"]) == (200, "kept"), said.text


async def test_one_vote_of_a_key_counts_and_the_latest_stands(keep) -> None:
    async with keep() as gateway:
        name = await asked(gateway)
        first = (await voted(gateway, request_id=name, thumbs="down")).json()
        assert first == {"request_id": name, "status": "kept", "replaced": False, "error": None}
        again = (await voted(gateway, request_id=name, thumbs="down")).json()
        assert (again["status"], again["replaced"]) == ("unchanged", False)
        second = (await voted(gateway, request_id=name, grader="exact", score=0.75, tags=["math", "v:2"])).json()
        assert (second["status"], second["replaced"]) == ("replaced", True)
        assert rows(gateway) == [(name, "anonymous", "vote", "grader", 0.75, "exact", "math,v:2")]


async def test_what_a_key_may_not_see_is_unknown_to_it(keep, pool_toml) -> None:
    async with keep(pool_toml + KEYS) as gateway:
        name = await asked(gateway, "alice")
        assert (await voted(gateway, request_id=name, rating=1)).status_code == 401
        hidden = await voted(gateway, "bob", request_id=name, rating=1)
        absent = await voted(gateway, "bob", request_id="req_0", rating=1)
        assert hidden.status_code == absent.status_code == 404 and hidden.json() == absent.json()
        assert hidden.json()["error"]["code"] == "request_not_found"
        assert (await voted(gateway, "alice", request_id=name, rating=1)).json()["status"] == "kept"
        assert (await voted(gateway, "judge", request_id=name, rating=0)).json()["status"] == "kept"
        bobs = await asked(gateway, "bob")
        assert (await voted(gateway, "judge", request_id=bobs, rating=0)).status_code == 404
        assert [row[1] for row in rows(gateway)] == ["alice", "judge"]


async def test_what_was_not_answered_cannot_be_voted_on(keep) -> None:
    async with keep() as gateway:
        failed = await gateway.chat(emulate={"status": 500})
        refused = await voted(gateway, request_id=failed.headers["x-request-id"], rating=1)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "feedback_refused")
        assert "not answered: it ended as broken" in refused.json()["error"]["message"]
        assert rows(gateway) == []


async def test_late_feedback_is_refused_and_counted(keep, pool_toml) -> None:
    async with keep("[feedback]\nwindow_days = 0.000001\n" + pool_toml) as gateway:
        name = await asked(gateway)
        await asyncio.sleep(0.1)
        late = await voted(gateway, request_id=name, rating=1)
        assert (late.status_code, late.json()["error"]["code"]) == (400, "feedback_too_late")
        assert gateway.gateway.feedback.status().n_votes["late"] == 1


async def test_many_votes_are_answered_one_by_one(keep) -> None:
    async with keep() as gateway:
        name, other = await asked(gateway), await asked(gateway)
        given = [
            {"request_id": name, "rating": 0.5},
            {"request_id": "req_0", "rating": 0.5},
            {"request_id": other, "rating": 2},
            "nothing",
            {"request_id": name, "rating": 0.75},
        ]
        answer = (await voted(gateway, votes=given)).json()
        assert [vote["status"] for vote in answer["votes"]] == ["kept", "unknown", "refused", "refused", "replaced"]
        assert answer["votes"][2]["error"]["param"] == "votes[2].rating"
        assert answer["counts"] == {"kept": 1, "unknown": 1, "refused": 2, "replaced": 1}
        assert [row[4] for row in rows(gateway)] == [0.75]
        n_votes = gateway.gateway.feedback.status().n_votes
        assert {name: n for name, n in n_votes.items() if n} == answer["counts"]


@pytest.mark.parametrize("votes", [[], [{}] * 1001, "x", None])
async def test_a_list_of_votes_has_its_limits(keep, votes) -> None:
    async with keep() as gateway:
        refused = await voted(gateway, votes=votes)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "votes")


async def test_a_hundred_votes_at_once_on_one_request_are_one_row(keep) -> None:
    async with keep() as gateway:
        name = await asked(gateway)
        answers = await asyncio.gather(*(voted(gateway, request_id=name, rating=n / 100) for n in range(100)))
        statuses = [answer.json()["status"] for answer in answers]
        assert statuses.count("kept") == 1
        assert statuses.count("replaced") + statuses.count("superseded") == 99
        assert len(rows(gateway)) == 1


async def test_without_a_database_feedback_is_refused_with_the_reason(running) -> None:
    refused = await running.client.post("/v1/feedback", json={"request_id": "req_0", "rating": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "feedback_off")
    assert "server.database" in refused.json()["error"]["message"]


async def test_a_vote_that_cannot_be_kept_is_not_acknowledged(keep) -> None:
    async with keep() as gateway:
        name = await asked(gateway)
        assert (await voted(gateway, request_id=name, rating=0.5)).status_code == 200
        gateway.gateway.records.close()
        lost = await voted(gateway, request_id=name, rating=1)
        assert (lost.status_code, lost.json()["error"]["code"]) == (503, "storage_unavailable")
        assert "retry-after" in lost.headers
        assert [row[4] for row in rows(gateway)] == [0.5]


async def test_the_page_of_the_api_documents_it(running) -> None:
    described = (await running.client.get("/openapi.json")).json()["paths"]["/v1/feedback"]["post"]
    assert "grades" in described["description"]
    assert "/v1/feedback" in (await running.client.get("/docs")).text


async def test_grades_are_read_from_the_file(configure, pool_toml) -> None:
    settings = configure(pool_toml + KEYS)
    assert [key.grades for key in settings.keys] == [(), (), ("al*",)]
    assert replace(settings.feedback).window_days == 30
