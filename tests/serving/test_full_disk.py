"""A disk that is full or a store that is slow: traffic goes on, it shows, it is said once, and it passes."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import serving
from serving.records import RequestRecord, Retained
from serving.storage.record_store import SqliteRecordStore
from serving.storage.writer import N_BATCH

RECORD = RequestRecord("r", 1.0, "k", "auto", 200, "ok", False)

#: A gateway whose process may write no file beyond a limit, as on a full disk: serve, hit it, serve on, lift it.
PROGRAM = """
import asyncio, json, resource, signal, sys
from pathlib import Path
import httpx
sys.path.insert(0, sys.argv[3])
from conftest import LettersEncoder
from router import features
features.TIERS["letters"] = LettersEncoder.from_files
from serving import logs
from serving.app import create_app
from serving.emulator import EmulatorServer
from serving.settings import load
from serving.storage import writer

writer.PATIENCE_S = 0.3
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[2])
logs.configure("warning")
said = []

async def run():
    app = create_app(load(Path(sys.argv[1])), emulator=EmulatorServer(speed=0))
    n_asked = iter(range(1000))

    def body():
        return {"model": "auto", "messages": [{"role": "user", "content": f"Say hello, {next(n_asked)}."}]}

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.lifespan(), client:
        async def many(n):
            answers = [(await client.post("/v1/chat/completions", json=body())).status_code for _ in range(n)]
            app.storage.writer.flush()
            shown = (await client.get("/v1/pool")).json()["records"]
            metrics = (await client.get("/metrics")).text
            gauge = next(line for line in metrics.splitlines() if line.startswith("turnout_records_failing"))
            vote = await client.post("/v1/feedback", json={"request_id": "req_nobody", "thumbs": "up"})
            said.append([sorted(set(answers)), shown, gauge.split()[1], vote.status_code])
        await many(5)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        await many(20)
        await many(5)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await many(5)

asyncio.run(run())
print(json.dumps(said))
"""


def test_a_full_disk_stops_no_traffic_is_said_once_and_passes(tmp_path: Path, configure, pool_toml) -> None:
    path = tmp_path / "turnout.sqlite"
    server = (
        f'[server]\nport = 0\nbundle = "{{bundle}}"\ndatabase = "{path}"\n'
        'watch_bundle_s = {watch_bundle_s}\n{settings}\n[[providers]]\nname = "emulator"\nemulated = true\n'
    )
    source = configure(pool_toml, server=server).source
    root = Path(serving.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(source), str(path), str(root / "tests")],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    whole, full, still_full, better = json.loads(done.stdout)
    assert [answers for answers, *_ in (whole, full, still_full, better)] == [[200]] * 4
    assert whole[1] == {"n_written": 5, "n_dropped": 0, "is_failing": False, "n_waiting": 0}
    assert full[1] == {"n_written": 5, "n_dropped": 0, "is_failing": True, "n_waiting": full[1]["n_waiting"]}
    # Beside the records wait a vote and a step of the expiry, which are skipped once nobody waits for them any more.
    assert 20 <= full[1]["n_waiting"] <= 22
    assert 25 <= still_full[1]["n_waiting"] <= 28
    assert better[1] == {"n_written": 35, "n_dropped": 0, "is_failing": False, "n_waiting": 0}
    assert [float(gauge) for _, _, gauge, _ in (whole, full, better)] == [0.0, 1.0, 0.0]
    # A vote is acknowledged only once it is kept: while the disk is full it is refused.
    assert [status for *_, status in (whole, full, better)] == [404, 503, 404]
    assert [done.stderr.count(f'"event":"records_{what}"') for what in ("failing", "recovered")] == [1, 1]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM request").fetchone() == (35,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_a_store_that_is_slow_delays_nobody(start, pool_toml, tmp_path: Path) -> None:
    path = tmp_path / "turnout.sqlite"
    store = SqliteRecordStore(path)
    async with start(pool_toml, records=store) as gateway:
        await gateway.chat()
        assert store.flush()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # somebody else writes, and takes their time
            began_at = time.monotonic()
            for _ in range(10):
                assert (await gateway.chat()).status_code == 200
            await asyncio.sleep(1.2)  # the writer has tried by now, and waits
            assert (await gateway.chat()).status_code == 200
            assert time.monotonic() - began_at < 4.0, "nobody waited for the five seconds that the writer waits"
            assert store.status().n_written == 1
            other.execute("ROLLBACK")
        assert store.flush(10.0)
        assert (store.status().n_written, store.status().n_dropped) == (12, 0)


def test_a_huge_backlog_is_bounded_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = tmp_path / "later" / "turnout.sqlite"
    store = SqliteRecordStore(missing, n_queue=2_000)
    store.open()
    with caplog.at_level(logging.WARNING, "turnout"):
        for n in range(10_000):
            kept = Retained(f"r{n}", 1.0, "content", "x" * 1000)
            store.add(RECORD._replace(id=f"r{n}"), kept)
        assert store.status().n_waiting <= 2_000 + N_BATCH  # what could not be written comes back to the others
        assert store.flush()
        missing.parent.mkdir()
        assert store.flush(20.0)
    status = store.status()
    store.close()
    assert (status.n_waiting, status.is_failing) == (0, False)
    # Every row is accounted for; rows of records that found no place are dropped with what was retained of them.
    with closing(sqlite3.connect(missing)) as database:
        n_records, n_retained = (
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("request", "retained")
        )
        orphans = database.execute("SELECT count(*) FROM retained WHERE request_id NOT IN (SELECT id FROM request)")
        assert orphans.fetchone() == (0,)
    assert status.n_written == n_records + n_retained and n_records >= 1_000 > n_retained > N_BATCH / 2
    said = [record.msg for record in caplog.records]
    assert (said.count("records_dropping"), said.count("records_failing")) == (1, 1)
    assert said.count("records_recovered") in (1, 2)  # the disk is back; the queue has caught up
