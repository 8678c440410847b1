from __future__ import annotations

import asyncio
import hashlib
import math
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from serving import feedback_import
from serving.errors import GatewayError, InvalidRequest, StorageUnavailable
from serving.feedback_command import feedback
from serving.feedback_import import IntoDatabase, Outcome, ThroughGateway, imported
from serving.records import RequestRecord
from serving.settings import load
from serving.storage.record_store import SqliteRecordStore
from serving.vote_file import Row, rows_of

KEYS = "".join(
    f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}'
    for name, more in (("alice", ""), ("judge", 'grades = ["*"]\n'))
)
#: When the requests were made; now is a hundred seconds later.
MADE = int(time.time()) - 100
SERVER = '[server]\nbundle = "{bundle}"\ndatabase = "NAME"\n[[providers]]\nname = "emulator"\nemulated = true\n'


@pytest.fixture
def kept(configure, pool_toml) -> Path:
    """Return a config whose database holds two requests of alice's and an old one."""
    settings = configure(pool_toml + KEYS, server=SERVER.replace("NAME", "turnout.sqlite"))
    record = RequestRecord("req_1", MADE, "alice", "auto", 200, "ok", False, candidate="small", binding="threshold")
    store = SqliteRecordStore(settings.database_path())
    store.open()
    for name, time_unix_s in (("req_1", MADE), ("req_2", MADE), ("req_old", MADE - 31 * 86_400)):
        store.add(record._replace(id=name, time_unix_s=time_unix_s))
    store.close()
    return settings.source


def votes_in(config: Path, columns: str = "request_id, key, kind, score, grader, tags, time_unix_s") -> list[tuple]:
    with closing(sqlite3.connect(config.with_name("turnout.sqlite"))) as database:
        return database.execute(f"SELECT {columns} FROM feedback ORDER BY request_id, key").fetchall()


def imports(file: Path, config: Path) -> Result:
    return CliRunner().invoke(feedback, ["import", str(file), "--config", str(config)])


def test_a_csv_goes_in_and_again_changes_nothing(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(
        "request_id,key,rating,thumbs,correct,grader,score,tags,time\n"
        f"req_1,,0.5,,,,,tone.bad; v:2,{datetime.fromtimestamp(MADE + 2, UTC).isoformat()}\n"
        f"req_1,judge,,,,exact,1,,{MADE + 3}\n"
        "req_2,,,,TRUE,,,,\n"
    )
    first = imports(file, kept)
    assert (first.exit_code, first.stdout) == (0, "3 rows: 3 kept\n"), first.output
    expected = [
        ("req_1", "alice", "rating", 0.5, None, "tone.bad,v:2", MADE + 2),
        ("req_1", "judge", "grader", 1.0, "exact", None, MADE + 3),
        ("req_2", "alice", "correct", 1.0, None, None, pytest.approx(MADE + 100, abs=3600)),
    ]
    assert votes_in(kept) == expected
    assert imports(file, kept).stdout == "3 rows: 3 unchanged\n"
    assert votes_in(kept) == expected


def test_every_row_that_does_not_stand_is_told_with_its_line(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_text(
        '{"request_id": "req_1", "rating": 0.5}\n'
        "\n"
        "{not json\n"
        "[1]\n"
        '{"request_id": "req_9", "rating": 0.5}\n'
        '{"request_id": "req_old", "rating": 0.5}\n'
        '{"request_id": "req_1", "rating": 7}\n'
        '{"request_id": "req_1", "rating": 0.5, "comment": "secret words"}\n'
        '{"request_id": "req_1", "rating": 0.5, "key": "nobody"}\n'
        '{"request_id": "req_1", "thumbs": "down", "time_unix_s": MADE}\n'.replace("MADE", str(MADE + 1))
        + '{"request_id": "req_1", "thumbs": "up"}\n'
    )
    done = imports(file, kept)
    assert done.exit_code == 1
    assert done.stdout == "10 rows: 1 kept, 1 replaced, 1 superseded, 1 unknown, 1 late, 5 refused\n"
    told = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    assert list(told) == ["line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "line 9"]
    assert told["line 3"] == "refused: expected a JSON object"
    assert told["line 5"].startswith("unknown: ") and told["line 6"].startswith("late: ")
    assert "rating must be a number" in told["line 7"] and "unknown field" in told["line 8"]
    assert "name of a key in the config" in told["line 9"]
    assert "secret" not in done.output


def test_parquet_with_lists_times_and_gaps(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "votes.parquet"
    table = pa.table(
        {
            "request_id": ["req_1", "req_2", "req_2"],
            "correct": [1.0, math.nan, None],
            "thumbs": [None, "down", None],
            "tags": [["a", "b"], None, []],
            "time": pa.array([(MADE + 5) * 10**6, None, None], pa.timestamp("us", "UTC")),
        }
    )
    pq.write_table(table, file)
    done = imports(file, kept)
    assert done.stdout == "3 rows: 2 kept, 1 refused\n"
    assert "line 3: refused: rating is missing" in done.stderr
    assert votes_in(kept) == [
        ("req_1", "alice", "correct", 1.0, None, "a,b", MADE + 5),
        ("req_2", "alice", "thumbs", 0.0, None, None, pytest.approx(MADE + 100, abs=3600)),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("votes.txt", "", "expected a name that ends in .csv, .jsonl, .ndjson, .parquet"),
        ("votes.csv", "request_id,comment\nreq_1,x\n", "unknown column 'comment'"),
        ("votes.csv", "id,rating\nreq_1,1\n", "unknown column 'id'"),
        ("votes.csv", "rating\n1\n", "expected a column request_id"),
        ("votes.parquet", "no parquet", "cannot be read: ArrowInvalid"),
        ("votes.csv", b"request_id,rating\nreq_1,\xff\n", "cannot be read: UnicodeDecodeError"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_why(kept: Path, tmp_path: Path, name, content, said) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = imports(file, kept)
    assert done.exit_code == 1 and said in done.output


def test_cells_beyond_the_columns_and_texts_that_are_no_numbers_are_refused_by_line(tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("request_id,rating,time\nreq_1,1,,more\nreq_1,much,yesterday\nreq_1\n")
    assert list(rows_of(file)) == [
        Row(2, {}, problem="more cells than columns"),
        Row(3, {"request_id": "req_1", "rating": "much", "time_unix_s": "yesterday"}),
        Row(4, {"request_id": "req_1"}),
    ]


def test_a_config_without_a_database_and_one_that_was_never_used_are_told(configure, pool_toml, tmp_path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("request_id,rating\nreq_1,1\n")
    assert "server.database is empty" in imports(file, configure().source).output
    server = (
        '[server]\nbundle = "{bundle}"\ndatabase = "none.sqlite"\n[[providers]]\nname = "emulator"\nemulated = true\n'
    )
    assert "is not there" in imports(file, configure(pool_toml, server=server).source).output


def test_one_of_config_and_gateway_is_given(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "votes.csv"
    file.write_text("")
    for options in ([], ["--config", str(kept), "--url", "http://x"], ["--config", str(kept), "--key-env", "K"]):
        assert CliRunner().invoke(feedback, ["import", str(file), *options]).exit_code == 2


def test_an_import_that_stops_half_way_keeps_whole_batches_and_goes_on(kept: Path, monkeypatch) -> None:
    monkeypatch.setattr(feedback_import, "N_BATCH", 2)
    target = IntoDatabase(load(kept))
    rows = [Row(n, {"request_id": name, "thumbs": "up"}) for n, name in enumerate(("req_1", "req_2", "req_1"), 1)]

    def broken():
        yield from rows
        raise InvalidRequest("the file ends here")

    told: list[Outcome] = []
    with pytest.raises(InvalidRequest):
        imported(broken(), target, told.extend)
    assert [outcome.line for outcome in told] == [1, 2]
    told.clear()
    imported(rows, target, told.extend)
    assert [outcome.status for outcome in told] == ["unchanged"] * 3


def test_a_database_in_use_is_waited_for(kept: Path, monkeypatch) -> None:
    monkeypatch.setattr(feedback_import, "PAUSE_S", 0.01)
    path = kept.with_name("turnout.sqlite")
    monkeypatch.setattr(feedback_import, "connect", lambda path: sqlite3.connect(path, timeout=0.01))
    target = IntoDatabase(load(kept))
    row = Row(1, {"request_id": "req_1", "thumbs": "up"})
    told: list[Outcome] = []
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageUnavailable):
            imported([row], target, told.extend)
        assert told == []
    imported([row], target, told.extend)
    assert [outcome.status for outcome in told] == ["kept"]


async def test_through_a_running_gateway_in_batches(keep, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feedback_import, "N_BATCH", 2)
    async with keep() as gateway:
        names = [(await gateway.chat()).headers["x-request-id"] for _ in range(3)]
        file = tmp_path / "votes.csv"
        file.write_text("request_id,rating\n" + "".join(f"{name},0.5\n" for name in [*names, "req_0", names[0]]))
        arguments = ["import", str(file), "--url", str(gateway.client.base_url)]
        done = await asyncio.to_thread(CliRunner().invoke, feedback, arguments)
        assert done.stdout == "5 rows: 3 kept, 1 unchanged, 1 unknown\n", done.output
        assert (done.exit_code, done.stderr.split(":")[0]) == (0, "line 5")


@pytest.mark.parametrize("n_failures", [2, 99])
def test_a_gateway_that_is_busy_is_waited_for_and_one_that_refuses_ends_it(monkeypatch, n_failures) -> None:
    monkeypatch.setattr(feedback_import, "PAUSE_S", 0.0)
    monkeypatch.setattr(feedback_import, "MOST_PAUSE_S", 0.0)
    n_asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal n_asked
        n_asked += 1
        if n_asked == 1:
            raise httpx.ConnectError("nobody listens")
        if n_asked <= n_failures:
            return httpx.Response(503, json={"error": {"message": "not now"}}, headers={"retry-after": "1"})
        return httpx.Response(200, json={"votes": [{"status": "kept", "error": None}]})

    told: list[Outcome] = []
    row = Row(1, {"request_id": "req_1", "thumbs": "up"})
    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://gateway") as client:
        if n_failures == 2:
            imported(
                [row, Row(2, {"request_id": "req_1", "thumbs": "up"}, "alice")], ThroughGateway(client), told.extend
            )
            assert [outcome.status for outcome in told] == ["kept", "refused"]
        else:
            with pytest.raises(GatewayError, match="503, not now"):
                imported([row], ThroughGateway(client), told.extend)
            assert (told, n_asked) == ([], feedback_import.N_TRIES)


@pytest.mark.parametrize("said", [b"<html>", b"{}", b"[]", b'{"votes": []}', b'{"votes": [1]}', b'{"votes": [{}]}'])
def test_who_is_no_gateway_is_said(said) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=said))
    row = Row(1, {"request_id": "req_1", "thumbs": "up"})
    with (
        httpx.Client(transport=transport, base_url="http://other") as client,
        pytest.raises(GatewayError, match="http://other did not answer as a gateway does"),
    ):
        imported([row], ThroughGateway(client), lambda outcomes: None)
