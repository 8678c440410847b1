from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import serving
from serving.errors import InvalidRequest, StorageUnavailable
from serving.storage import writer as module
from serving.storage.writer import SqliteWriter, Table

MARK = Table("mark", ("name",))


def make_table(database: sqlite3.Connection) -> None:
    database.execute("CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY)")


def put(name: str) -> module.Job[int]:
    def job(database: sqlite3.Connection) -> int:
        database.execute("INSERT INTO mark VALUES (?)", (name,))
        return len(names(database))

    return job


def names(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM mark ORDER BY rowid")]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SqliteWriter]:
    writer = SqliteWriter(tmp_path / "turnout.sqlite")
    writer.open()
    yield writer
    writer.close()


async def test_a_change_is_on_disk_when_it_returns_and_so_is_every_row_before_it(writer: SqliteWriter) -> None:
    await writer.change(make_table)
    writer.add(MARK, ("row",))
    assert await writer.change(put("change")) == 2
    assert await writer.read(names) == ["row", "change"]


async def test_many_changes_at_once_are_all_made(writer: SqliteWriter) -> None:
    await writer.change(make_table)
    assert await asyncio.gather(*(writer.change(put(f"n{i}")) for i in range(300))) == list(range(1, 301))


async def test_what_a_job_raises_undoes_it_alone(writer: SqliteWriter) -> None:
    def refuse(database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO mark VALUES ('half')")
        raise InvalidRequest("score: expected a number in [0, 1]", param="score")

    await writer.change(make_table)
    made = await asyncio.gather(
        writer.change(put("before")), writer.change(refuse), writer.change(put("after")), return_exceptions=True
    )
    assert made[0] == 1 and isinstance(made[1], InvalidRequest) and made[2] == 2
    assert await writer.read(names) == ["before", "after"]
    assert not writer.status().is_failing


async def test_a_failing_disk_is_told_to_who_waits_and_what_was_given_up_is_not_made_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    path = tmp_path / "missing" / "turnout.sqlite"
    writer = SqliteWriter(path)
    writer.open()
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        await writer.change(make_table)
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        await writer.read(names)
    assert writer.status().is_failing
    path.parent.mkdir()
    assert writer.flush()
    assert await writer.read(lambda database: database.execute("SELECT name FROM sqlite_master").fetchall())
    with pytest.raises(StorageUnavailable):
        await writer.read(names)  # there is still no such table
    writer.close()


async def test_a_writer_that_is_not_open_makes_no_promise(tmp_path: Path) -> None:
    writer = SqliteWriter(tmp_path / "turnout.sqlite")
    with pytest.raises(StorageUnavailable):
        await writer.change(make_table)
    writer.open()
    writer.close()
    with pytest.raises(StorageUnavailable):
        await writer.change(make_table)


def test_an_acknowledged_change_survives_kill_9(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from serving.storage.writer import SqliteWriter\n"
        "async def main():\n"
        "    writer = SqliteWriter(Path(sys.argv[1])); writer.open()\n"
        "    await writer.change(lambda d: d.execute('CREATE TABLE mark (name TEXT)') and None)\n"
        "    n = 0\n"
        "    while True:\n"
        "        await writer.change(lambda d: d.execute('INSERT INTO mark VALUES (?)', (str(n),)) and None)\n"
        "        print(n, flush=True); n += 1\n"
        "asyncio.run(main())\n"
    )
    path, root = tmp_path / "turnout.sqlite", str(Path(serving.__file__).parents[1])
    command = [sys.executable, "-c", program, str(path), root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [next(child.stdout) for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        acknowledged += list(child.stdout)
    with closing(sqlite3.connect(path)) as database:
        kept = names(database)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert [line.strip() for line in acknowledged] == kept[: len(acknowledged)]


async def test_who_is_cancelled_just_as_its_answer_comes_is_cancelled(writer: SqliteWriter) -> None:
    async def worker() -> None:
        await writer.change(make_table)
        await asyncio.sleep(60)

    task = asyncio.create_task(worker())
    await asyncio.sleep(0)
    assert writer.flush()  # the loop stands still meanwhile: the answer is there, and nobody has looked at it
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=2)
    assert task.cancelled()
