"""What was acknowledged is there, however the process ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import httpx

TESTS = Path(__file__).resolve().parent.parent
#: `turnout serve`, with the tests' own encoder tier known to it.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from conftest import LettersEncoder
from router import features
features.TIERS["letters"] = LettersEncoder.from_files
from serving.commands import serve
serve(["--config", {config!r}, "--port", "0"])
"""
SERVER = """
[server]
bundle = "{bundle}"
database = "turnout.sqlite"
{settings}

[[providers]]
name = "emulator"
emulated = true
"""
N_ACKNOWLEDGED = 60


async def test_every_acknowledged_vote_survives_kill_9(configure) -> None:
    """Clients ask and vote, again and again, half of them replacing their votes, until the process is shot."""
    settings = configure(server=SERVER)
    acknowledged: dict[str, float] = {}
    offered: dict[str, float] = {}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.format(tests=str(TESTS), config=str(settings.source)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(os.environ),
    )
    enough = asyncio.Event()

    async def vote_and_vote(client: httpx.AsyncClient, number: int) -> None:
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": f"Say {number}."}],
            "stream": number % 2 == 0,
            "max_tokens": 1,
        }
        for n in range(10_000):
            name = (await client.post("/v1/chat/completions", json=body)).headers["x-request-id"]
            for score in (0.25, 0.75) if n % 2 else (0.5,):
                offered[name] = score
                said = await client.post("/v1/feedback", json={"request_id": name, "rating": score})
                assert said.status_code == 200, said.text
                acknowledged[name] = score
            if len(acknowledged) >= N_ACKNOWLEDGED:
                enough.set()

    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while not (url := re.search(r"http://127\.0\.0\.1:\d+", (await process.stdout.readline()).decode())):
                pass
        async with httpx.AsyncClient(base_url=url[0], timeout=20) as client:
            voters = [asyncio.create_task(vote_and_vote(client, number)) for number in range(8)]
            async with asyncio.timeout(60):
                await enough.wait()
            os.kill(process.pid, signal.SIGKILL)
            ended = await asyncio.gather(*voters, return_exceptions=True)
        assert all(isinstance(error, httpx.TransportError) for error in ended), ended
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    with closing(sqlite3.connect(settings.database_path())) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kept = dict(database.execute("SELECT request_id, score FROM feedback").fetchall())
        n_orphans = database.execute(
            "SELECT count(*) FROM feedback WHERE request_id NOT IN (SELECT id FROM request)"
        ).fetchone()
    assert len(acknowledged) >= N_ACKNOWLEDGED
    # What was offered last may be there too, unheard.
    wrong = {name for name, score in acknowledged.items() if kept.get(name) not in (score, offered[name])}
    assert not wrong
    assert n_orphans == (0,), "a vote is never kept before its request"
