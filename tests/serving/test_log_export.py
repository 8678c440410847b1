"""The exported log: its layout, what an export writes again and what it leaves, and that nothing is ever half there."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import serving
from serving.app import create_app
from serving.emulator import EmulatorServer
from serving.errors import SettingsError, StorageUnavailable
from serving.log_command import log
from serving.log_export import export
from serving.records import RequestRecord, Retained
from serving.storage.migrations import MIGRATIONS
from serving.storage.record_store import REQUESTS, RETAINED
from serving.storage.votes import FEEDBACK
from serving.storage.writer import Table, connect

DAY_S = 86_400.0
FIRST = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
OUTLOOK = json.dumps([["a", None, 0.5, 0.4, 0.6, 12.5, 0.001], ["b", "deny", 0.9, None, None, None, None]])


def put(path: Path, table: Table, *rows: tuple) -> None:
    with closing(connect(path)) as database, database:
        for row in rows:
            database.execute(table.insert(1), row)


def record(n: int, day: float, **more: object) -> RequestRecord:
    made = RequestRecord(f"r{n:03d}", FIRST + day * DAY_S, "alice", "auto", 200, "ok", False, outlook=OUTLOOK)
    return made._replace(**more)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a database of three days, with a vote and what was retained on the first."""
    path = tmp_path / "turnout.sqlite"
    put(path, REQUESTS, *(record(n, n / 10) for n in range(30)))
    put(path, FEEDBACK, ("r000", "alice", "vote", "rating", 0.75, None, "slow,terse", FIRST + 10.0))
    features = np.array([0.5, -2.0], "<f2").tobytes()
    put(path, RETAINED, Retained("r000", FIRST, "content", "Say hello.", features, "lexical-abc", 0.5))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "log"


def files(out: Path) -> dict[str, int]:
    """Return the files of a log and when each was written."""
    return {str(file.relative_to(out)): file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}


def read(out: Path, table: str, day: str = "2026-11-20") -> pa.Table:
    (file,) = (out / table / f"day={day}").glob("*.parquet")
    return pq.ParquetFile(file).read()


def test_the_layout_is_the_agreed_one(database: Path, out: Path) -> None:
    done = export(database, out)
    assert (done.n_rows, done.n_days, done.n_unchanged) == (32, 5, 0)
    days = {path.parent.relative_to(out).as_posix() for path in out.rglob("*.parquet")}
    assert days == {
        *(f"requests/day=2026-11-{day}" for day in (20, 21, 22)),
        *(f"{table}/day=2026-11-20" for table in ("feedback", "retained")),
    }
    requests = read(out, "requests")
    assert tuple(requests.column_names) == RequestRecord._fields
    struct = "struct<candidate: string, excluded_by: string, quality: double, quality_low: double, quality_high: double"
    kinds = {field.name: str(field.type) for field in requests.schema}
    assert kinds["outlook"].startswith(f"list<item: {struct}") or kinds["outlook"].startswith(f"list<element: {struct}")
    flags = ("is_stream", "is_usage_estimated", "is_explored", "is_emulated")
    assert {kinds[name] for name in flags} == {"bool"} and {kinds["status"], kinds["input_tokens"]} == {"int64"}
    assert {kinds["time_unix_s"], kinds["cost_usd"], kinds["shadow_cost_usd"]} == {"double"}
    first = requests.to_pylist()[0]
    assert first["id"] == "r000" and first["is_stream"] is False and first["is_emulated"] is None
    assert first["outlook"] == [
        {"candidate": "a", "excluded_by": None, "quality": 0.5, "quality_low": 0.4, "quality_high": 0.6,
         "output_tokens": 12.5, "cost_usd": 0.001},
        {"candidate": "b", "excluded_by": "deny", "quality": 0.9, "quality_low": None, "quality_high": None,
         "output_tokens": None, "cost_usd": None},
    ]  # fmt: skip
    assert read(out, "feedback").to_pylist() == [
        {"request_id": "r000", "key": "alice", "source": "vote", "kind": "rating", "score": 0.75, "grader": None,
         "tags": ["slow", "terse"], "time_unix_s": FIRST + 10.0}
    ]  # fmt: skip
    assert read(out, "retained").to_pylist() == [
        {"request_id": "r000", "time_unix_s": FIRST, "level": "content", "prompt": "Say hello.",
         "features": [0.5, -2.0], "encoder": "lexical-abc", "task": None, "task_probability": 0.5}
    ]  # fmt: skip


def test_rows_without_an_outlook_features_or_tags_are_told_from_empty_ones(database: Path, out: Path) -> None:
    put(database, REQUESTS, record(900, 5, outlook=None), record(901, 5.1), record(902, 5.2, outlook="[]"))
    put(database, RETAINED, Retained("r901", FIRST + 5 * DAY_S, "features"))
    put(database, FEEDBACK, ("r901", "k", "vote", "thumbs", 1.0, None, None, FIRST + 5 * DAY_S))
    export(database, out)
    outlooks = [row["outlook"] for row in read(out, "requests", "2026-11-25").to_pylist()]
    assert outlooks[0] is None and len(outlooks[1]) == 2 and outlooks[2] == []
    assert read(out, "retained", "2026-11-25").to_pylist()[0]["features"] is None
    assert read(out, "feedback", "2026-11-25").to_pylist()[0]["tags"] == []


def test_only_days_that_changed_are_written_again(database: Path, out: Path) -> None:
    export(database, out)
    before = files(out)
    assert export(database, out).n_days == 0
    assert files(out) == before
    put(database, REQUESTS, record(700, 2.95))
    done = export(database, out)
    assert (done.n_rows, done.n_days, done.n_unchanged) == (11, 1, 4)
    changed = {name for name, at in files(out).items() if before.get(name) != at and name.endswith(".parquet")}
    assert {Path(name).parent.as_posix() for name in changed} == {"requests/day=2026-11-22"}
    assert read(out, "requests", "2026-11-22").num_rows == 11


@pytest.mark.parametrize("change", ["score = 0.5", "tags = 'slow'", "kind = 'correct'", "grader = 'judge'"])
def test_a_vote_that_was_replaced_is_written_again(database: Path, out: Path, change: str) -> None:
    export(database, out)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"UPDATE feedback SET {change}")
    assert export(database, out).n_days == 1
    (row,) = read(out, "feedback").to_pylist()
    name, _, value = change.partition(" = ")
    assert row[name] == (["slow"] if name == "tags" else 0.5 if name == "score" else value.strip("'"))


def test_a_vote_that_moves_to_another_day_is_there_once(database: Path, out: Path) -> None:
    put(database, FEEDBACK, ("r001", "k", "vote", "thumbs", 1.0, None, None, FIRST + 1.5 * DAY_S))
    put(database, FEEDBACK, ("r002", "k", "vote", "thumbs", 1.0, None, None, FIRST + 1.6 * DAY_S))
    export(database, out)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE feedback SET time_unix_s = ? WHERE request_id = 'r001'", (FIRST + 2.5 * DAY_S,))
    export(database, out)
    ids = [read(out, "feedback", f"2026-11-{day}").column("request_id").to_pylist() for day in (21, 22)]
    assert ids == [["r002"], ["r001"]]


def test_a_file_that_is_gone_and_notes_that_are_spoilt_are_written_again(database: Path, out: Path) -> None:
    export(database, out)
    (file,) = (out / "requests" / "day=2026-11-21").glob("*")
    file.unlink()
    assert export(database, out).n_days == 1
    (notes,) = out.glob(".export-*.json")
    for spoilt in (b"{", b"[]", b'{"version": 0}', b'{"version": 1, "seen": {}}'):
        notes.write_bytes(spoilt)
        assert export(database, out).n_days == 5


def test_prompts_that_expired_leave_the_log_and_records_stay(database: Path, out: Path) -> None:
    export(database, out)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM retained")
        connection.execute("DELETE FROM request WHERE time_unix_s < ?", (FIRST + 1.25 * DAY_S,))
        connection.execute("DELETE FROM feedback")
    done = export(database, out)
    assert (done.n_days, done.n_removed) == (0, 1)
    assert not list((out / "retained").iterdir())
    assert [read(out, "requests", f"2026-11-{day}").num_rows for day in (20, 21, 22)] == [10, 10, 10]
    assert read(out, "feedback").num_rows == 1
    put(database, REQUESTS, record(700, 2.95))
    assert export(database, out).n_days == 1


def expire(database: Path, until: float) -> None:
    """Delete what the gateway would: records and feedback from before a time."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table in ("request", "feedback"):
            connection.execute(f"DELETE FROM {table} WHERE time_unix_s < ?", (until,))


def test_a_day_that_is_expiring_is_no_other_database(database: Path, out: Path) -> None:
    """The row written last need not be the newest: a request that came late may have ended before a long one."""
    put(database, REQUESTS, record(700, 0.85))
    export(database, out)
    expire(database, FIRST + 0.88 * DAY_S)
    assert export(database, out).n_days == 0
    assert read(out, "requests").num_rows == 11


def test_what_has_expired_stays_beside_what_is_new_on_its_day(database: Path, out: Path) -> None:
    put(database, FEEDBACK, ("r009", "alice", "vote", "rating", 0.5, None, None, FIRST + 0.95 * DAY_S))
    export(database, out)
    expire(database, FIRST + 0.75 * DAY_S)
    put(database, REQUESTS, record(700, 0.99))
    put(database, FEEDBACK, ("r009", "bob", "vote", "rating", 1.0, None, None, FIRST + 0.97 * DAY_S))
    assert export(database, out).n_days == 2
    whole = read(out, "requests")
    assert whole.column("id").to_pylist() == [*(f"r{n:03d}" for n in range(10)), "r700"]
    assert whole.column("outlook").to_pylist()[0] == whole.column("outlook").to_pylist()[-1]
    assert read(out, "feedback").column("score").to_pylist() == [0.75, 0.5, 1.0]
    # As long as there are files, notes may be lost.
    (notes,) = out.glob(".export-*.json")
    notes.unlink()
    export(database, out)
    assert read(out, "requests").num_rows == 11


def test_a_prompt_that_expired_leaves_its_day(database: Path, out: Path) -> None:
    put(database, RETAINED, Retained("r001", FIRST + 100.0, "content", "Say goodbye."))
    export(database, out)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM retained WHERE request_id = 'r000'")
    export(database, out)
    assert read(out, "retained").column("prompt").to_pylist() == ["Say goodbye."]


def test_a_log_of_another_database_at_the_same_place_is_left_alone(database: Path, out: Path) -> None:
    export(database, out)
    before = files(out)
    for file in database.parent.glob("turnout.sqlite*"):
        file.unlink()
    put(database, REQUESTS, record(0, 0))
    with pytest.raises(SettingsError, match="on 2026-11-20 the log holds requests that the database does not know"):
        export(database, out)
    assert files(out) == before


def test_two_databases_share_a_log(database: Path, out: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    put(other, REQUESTS, record(500, 0))
    export(database, out)
    export(other, out)
    assert export(database, out).n_days == export(other, out).n_days == 0
    found = [pq.ParquetFile(file).metadata.num_rows for file in (out / "requests" / "day=2026-11-20").iterdir()]
    assert sorted(found) == [1, 10]


def test_the_texts_of_prompts_can_be_left_out_and_taken_out(database: Path, out: Path) -> None:
    export(database, out)
    assert export(database, out, with_content=False).n_days == 1
    (row,) = read(out, "retained").to_pylist()
    assert row["prompt"] is None and row["features"] == [0.5, -2.0]
    assert export(database, out, with_content=False).n_days == 0
    export(database, out)
    assert read(out, "retained").to_pylist()[0]["prompt"] == "Say hello."


def test_days_before_since_are_not_looked_at(database: Path, out: Path) -> None:
    assert export(database, out, since=date(2026, 11, 21)).n_days == 2
    assert export(database, out).n_days == 3


def test_a_database_from_before_the_columns_has_nulls(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        MIGRATIONS[0](old)
        old.execute(
            "INSERT INTO request (id, time_unix_s, key, requested_model, status, outcome, is_stream) "
            "VALUES ('r', ?, 'k', 'auto', 200, 'ok', 1)",
            (FIRST,),
        )
    assert export(path, out).n_rows == 1
    (row,) = read(out, "requests").to_pylist()
    assert row["is_stream"] is True and row["outlook"] is None and row["retention"] is None


def test_what_is_no_database_is_said(tmp_path: Path, out: Path) -> None:
    with pytest.raises(SettingsError, match="there is no such database"):
        export(tmp_path / "missing.sqlite", out)
    (tmp_path / "notes.txt").write_text("no database " * 1000)
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        export(tmp_path / "notes.txt", out)


def test_a_failure_in_the_middle_leaves_what_was_there(database: Path, out: Path, monkeypatch) -> None:
    export(database, out)
    before = files(out)
    put(database, REQUESTS, *(record(100 + n, n / 10) for n in range(30)))

    def stop(n_rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(database, out, wrote=stop)
    assert files(out) == before
    assert export(database, out).n_days == 3


def test_a_killed_export_leaves_nothing_half_and_the_next_one_ends_it(database: Path, out: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from serving.log_export import export\n"
        "n = []\n"
        "def wrote(rows):\n"
        "    n.append(rows)\n"
        "    if len(n) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "export(Path(sys.argv[1]), Path(sys.argv[2]), wrote=wrote)\n"
    )
    root = str(Path(serving.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program, str(database), str(out)], env={"PYTHONPATH": root}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    whole = list(out.rglob("*.parquet"))
    assert [pq.ParquetFile(file).metadata.num_rows for file in whole if not file.name.startswith(".")] == [10]
    assert list(out.rglob(".part-*")), "it was killed in the middle of the second day"
    assert export(database, out).n_days == 4
    assert not list(out.rglob(".part-*")) and len(list(out.rglob("*.parquet"))) == 5


async def test_a_running_gateway_is_exported(configure, pool_toml, tmp_path, out) -> None:
    server = (
        f'[server]\nport = 0\nbundle = "{{bundle}}"\ndatabase = "{tmp_path}/live.sqlite"\n'
        'watch_bundle_s = {watch_bundle_s}\n{settings}\n[log]\nretention = "content"\n'
        '[[providers]]\nname = "emulator"\nemulated = true\n'
    )
    app = create_app(configure(pool_toml, server=server), emulator=EmulatorServer(speed=0))
    transport = httpx.ASGITransport(app)
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}
        answer = await client.post("/v1/chat/completions", json=body)
        assert app.storage.writer.flush()
        done = CliRunner().invoke(log, ["export", "--config", str(tmp_path / "turnout.toml"), "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert "2 rows of 2 days written" in done.output
        shown = CliRunner().invoke(log, ["status", "--database", str(tmp_path / "live.sqlite")])
        assert shown.exit_code == 0 and "content" in shown.output and "requests" in shown.output
    day = datetime.fromtimestamp(time.time(), UTC).date().isoformat()
    (row,) = read(out, "requests", day).to_pylist()
    assert row["id"] == answer.headers["x-request-id"] and row["chosen"] == "medium" and row["is_emulated"] is True
    assert [one["candidate"] for one in row["outlook"]] == ["large", "medium", "small"]
    assert read(out, "retained", day).column("prompt").to_pylist() == ["Say hello."]


def test_the_commands_say_what_is_wrong(tmp_path: Path, pool_toml: str, monkeypatch) -> None:
    for command in (["status"], ["export", "--out", str(tmp_path / "log")]):
        missing = CliRunner().invoke(log, [*command, "--database", str(tmp_path / "none.sqlite")])
        assert missing.exit_code == 1 and "there is no such database" in missing.output
    config = tmp_path / "turnout.toml"
    config.write_text('[server]\ndatabase = ""\n[[providers]]\nname = "emulator"\nemulated = true\n' + pool_toml)
    off = CliRunner().invoke(log, ["status", "--config", str(config)])
    assert off.exit_code == 1 and "server.database is empty" in off.output
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    without = CliRunner().invoke(log, ["export", "--database", "x", "--out", str(tmp_path / "log")])
    assert without.exit_code == 1 and "pip install 'turnout[training]'" in without.output


def test_the_reader_of_training_finds_every_column_with_its_type(database: Path, out: Path) -> None:
    from training.decision_log import TABLES, DecisionLog

    export(database, out)
    with DecisionLog(out) as read_back:
        assert read_back.requests()["id"].tolist() == [f"r{n:03d}" for n in range(30)]
        (vote,) = read_back.feedback().to_dict("records")
        assert (vote["score"], list(vote["tags"])) == (0.75, ["slow", "terse"])
        (kept,) = read_back.retained().to_dict("records")
        assert (kept["prompt"], list(kept["features"])) == ("Say hello.", [0.5, -2.0])
        (row,) = read_back.query("SELECT outlook[2].quality AS q, typeof(outlook) AS kind FROM requests LIMIT 1").values
    assert row[0] == 0.9
    for name, fields in TABLES.items():
        stored = {
            column for file in (out / name).rglob("*.parquet") for column in pq.ParquetFile(file).schema_arrow.names
        }
        assert {field.name for field in fields} <= stored, "the reader would show NULL for what is not exported"
