from __future__ import annotations

import io
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from serving import logs, records
from serving.records import NullRecordStore, RecordStatus, RecordStore, RequestRecord
from serving.storage.migrations import MIGRATIONS
from serving.storage.record_store import SqliteRecordStore

RECORD = RequestRecord(
    id="dec-1",
    time_unix_s=1000.0,
    key="alice",
    requested_model="auto",
    status=200,
    outcome="ok",
    is_stream=True,
    candidate="small",
    policy_kind="threshold",
    policy_value=0.8,
    propensity=1.0,
    input_tokens=12,
    cost_usd=None,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteRecordStore]:
    store = SqliteRecordStore(tmp_path / "turnout.sqlite3")
    store.open()
    yield store
    store.close()


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("turnout")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def ids_in(folder: Path) -> list[str]:
    """Return the ids of the records on disk, oldest first."""
    with closing(sqlite3.connect(folder / "turnout.sqlite3")) as database:
        return [name for (name,) in database.execute("SELECT id FROM request ORDER BY time_unix_s, rowid")]


def test_a_record_is_on_disk_as_it_went_in(store: SqliteRecordStore, tmp_path: Path) -> None:
    store.add(RECORD)
    store.add(RECORD._replace(id="dec-2", time_unix_s=1001.0, is_stream=False))
    assert store.flush()
    with closing(sqlite3.connect(tmp_path / "turnout.sqlite3")) as database:
        columns = ", ".join(RequestRecord._fields)
        first, second = database.execute(f"SELECT {columns} FROM request ORDER BY id").fetchall()
    assert RequestRecord(*first) == RECORD
    assert RequestRecord(*second) == RECORD._replace(id="dec-2", time_unix_s=1001.0, is_stream=False)
    assert store.status() == RecordStatus(2, 0, False)


def test_the_unknown_is_null_on_disk(store: SqliteRecordStore, tmp_path: Path) -> None:
    store.add(RECORD)
    store.close()
    database = sqlite3.connect(tmp_path / "turnout.sqlite3")
    assert database.execute("SELECT cost_usd, input_tokens, total_s FROM request").fetchall() == [(None, 12, None)]
    database.close()


def test_closing_writes_what_is_queued_and_reopening_goes_on(store: SqliteRecordStore, tmp_path: Path) -> None:
    for n in range(2000):
        store.add(RECORD._replace(id=f"dec-{n}"))
    store.close()
    assert store.status() == RecordStatus(2000, 0, False)
    store.add(RECORD)  # nobody listens any more: counted, not kept
    assert store.status() == RecordStatus(2000, 1, False)
    store.open()
    store.add(RECORD._replace(id="later"))
    assert store.flush()
    assert len(ids_in(tmp_path)) == 2001


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    missing = tmp_path / "no such folder" / "turnout.sqlite3"
    store = SqliteRecordStore(missing, n_queue=10)
    store.open()
    for n in range(25):
        store.add(RECORD._replace(id=f"dec-{n}"))
    assert store.flush()
    assert store.status() == RecordStatus(0, 15, True, 10)
    missing.parent.mkdir()
    assert store.flush()
    assert store.status() == RecordStatus(10, 15, False)  # what waited was saved when the disk came back
    store.close()


def test_a_disk_that_fails_stops_nothing_and_is_logged_once(tmp_path: Path, log: io.StringIO) -> None:
    store = SqliteRecordStore(tmp_path)  # a folder is no database
    store.open()
    for n in range(3):
        store.add(RECORD._replace(id=f"dec-{n}"))
        assert store.flush()
    store.close()
    assert store.status() == RecordStatus(0, 3, True)
    assert log.getvalue().count("records_failing") == 1


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, not a database at all\n" * 50)
    store = SqliteRecordStore(path)
    store.open()
    store.add(RECORD)
    store.close()
    assert store.status() == RecordStatus(0, 1, True)
    assert path.read_text().startswith("these are my notes")


def test_a_value_the_disk_cannot_hold_loses_its_batch_and_nothing_more(
    store: SqliteRecordStore, tmp_path: Path
) -> None:
    store.add(RECORD._replace(id="huge", input_tokens=2**70))
    assert store.flush()
    store.add(RECORD)
    assert store.flush()
    assert ids_in(tmp_path) == ["dec-1"]
    assert store.status() == RecordStatus(1, 1, False)


def test_two_stores_share_a_file(tmp_path: Path) -> None:
    stores = [SqliteRecordStore(tmp_path / "turnout.sqlite3") for _ in range(3)]

    def work(number: int) -> None:
        stores[number].open()
        for n in range(300):
            stores[number].add(RECORD._replace(id=f"{number}-{n}"))
        stores[number].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [store.status() for store in stores] == [RecordStatus(300, 0, False)] * 3
    database = sqlite3.connect(tmp_path / "turnout.sqlite3")
    assert database.execute("SELECT count(*) FROM request").fetchone() == (900,)
    database.close()


def test_a_killed_process_leaves_whole_batches(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from serving.records import RequestRecord\n"
        "from serving.storage.record_store import SqliteRecordStore\n"
        "store = SqliteRecordStore(Path(sys.argv[1])); store.open()\n"
        "for n in range(100):\n"
        "    store.add(RequestRecord(f'dec-{n}', 1.0, 'k', 'auto', 200, 'ok', False))\n"
        "assert store.flush()\n"
        "store.add(RequestRecord('late', 1.0, 'k', 'auto', 200, 'ok', False))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "turnout.sqlite3"
    environment = {**os.environ, "PYTHONPATH": str(Path(records.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert database.execute("SELECT count(*) FROM request").fetchone()[0] >= 100
    database.close()


def test_migrations_run_once_and_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "turnout.sqlite3"
    for n in range(2):
        store = SqliteRecordStore(path)
        store.open()
        store.add(RECORD._replace(id=f"dec-{n}"))
        store.close()
        assert store.status().n_written == 1
    database = sqlite3.connect(path)
    assert database.execute("SELECT name FROM migration").fetchall() == [
        (migration.__name__,) for migration in MIGRATIONS
    ]
    database.close()


def test_the_table_has_a_column_for_each_field_and_none_for_content(tmp_path: Path) -> None:
    store = SqliteRecordStore(tmp_path / "turnout.sqlite3")
    store.open()
    store.add(RECORD)
    store.close()
    database = sqlite3.connect(tmp_path / "turnout.sqlite3")
    columns = [row[1] for row in database.execute("PRAGMA table_info(request)")]
    database.close()
    assert sorted(columns) == sorted(RequestRecord._fields)
    content = {"prompt", "messages", "text", "content", "completion", "body", "headers", "response", "request"}
    assert not content & set(columns)


@pytest.mark.parametrize("store", [NullRecordStore(), SqliteRecordStore(Path("never opened"))])
def test_a_store_that_was_never_opened_keeps_nothing_and_closes(store: RecordStore) -> None:
    store.add(RECORD)
    assert store.status().n_written == 0
    store.close()
    store.close()
    assert not Path("never opened").exists()


def test_the_logged_fields_are_allowed() -> None:
    assert {"error", "n_dropped"} <= set(logs.FIELDS)
