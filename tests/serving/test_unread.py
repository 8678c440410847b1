"""A client that stops reading holds nothing for long: no place, no call, no connection, and no heap of pings."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, MutableMapping
from typing import Any

import httpx

from serving.edge import ABORT

BODY = json.dumps({"model": "medium", "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}).encode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_blocked_stream_is_not_pinged_and_ends_with_the_time_of_its_request(running, monkeypatch) -> None:
    monkeypatch.setattr("serving.endpoints.PING_AFTER_S", 0.02)
    is_aborted = is_asked = False
    blocked = 0

    def abort() -> None:
        nonlocal is_aborted
        is_aborted = True

    async def receive() -> MutableMapping[str, Any]:
        nonlocal is_asked
        if is_asked:
            await asyncio.Event().wait()
        is_asked = True
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal blocked
        if message["type"] == "http.response.body":
            blocked += 1
            await asyncio.Event().wait()

    headers = [(b"host", b"127.0.0.1"), (b"x-request-timeout-ms", b"500")]
    path = "/v1/chat/completions"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "client": ("127.0.0.1", 9),
        ABORT: abort,
    }
    async with asyncio.timeout(20):
        await running.app({**scope, "query_string": b"", "state": {}}, receive, send)
    assert is_aborted
    assert blocked == 1, "what was being sent, and no ping behind it"
    assert [record.outcome for record in running.records.kept] == ["client_disconnected"]
    assert running.gateway.admission.status().n_in_flight == 0
    assert sum(row.n_in_flight for row in running.gateway.pool.snapshot()) == 0


async def test_who_stops_reading_a_stream_has_left(online, monkeypatch) -> None:
    monkeypatch.setattr("serving.arrival.UNREAD_FOR_S", 0.2)
    online.provider.scripts.put("*", [{"text": "word " * 60_000}])
    url = httpx.URL(str(online.client.base_url))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((url.host, url.port))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        await until(lambda: bool(online.records.kept))
        assert [record.outcome for record in online.records.kept] == ["client_disconnected"]
        await until(lambda: online.gateway.admission.status().n_in_flight == 0)
        await until(lambda: online.provider.counts()["n_in_flight"] == 0)
