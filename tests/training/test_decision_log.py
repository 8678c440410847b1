"""The exported log, read back: layout, types, days, and what is wrong with it."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.decision_log import REQUESTS, TABLES, DecisionLog
from training.errors import LogUnreadable

START = 1_793_750_400.0  # 2026-11-04, midnight


def _requests(n: int, start: float = START, **more: object) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"r{i}" for i in range(n)], "time_unix_s": start, "key": "a", **more})


def test_every_table_comes_back_as_written(small_log):
    with DecisionLog(small_log.path) as log:
        requests, feedback, retained = log.requests(), log.feedback(), log.retained()
    assert list(requests["id"]) == list(small_log.requests["id"])
    assert requests["propensity"].tolist() == small_log.requests["propensity"].tolist()
    assert requests["outlook"][7][2] == small_log.requests["outlook"][7][2]
    assert requests["is_explored"].dtype == bool
    assert set(feedback["request_id"]) == set(small_log.feedback["request_id"])
    assert feedback["score"].sum() == small_log.feedback["score"].sum()
    assert retained["prompt"].tolist() == small_log.retained["prompt"].tolist()


def test_a_column_of_a_newer_or_older_log_is_kept_or_null(tmp_path, log_tables):
    log_tables(tmp_path, requests=_requests(2, arrived_by="pigeon"))
    log_tables(tmp_path, requests=_requests(3, START + 86_400, candidate="x"))
    frame = DecisionLog(tmp_path).requests()
    assert {field.name for field in REQUESTS} < set(frame.columns)
    assert frame["candidate"].isna().sum() == 2 and frame["arrived_by"].isna().sum() == 3
    assert frame["outlook"].isna().all() and frame["is_stream"].isna().all()


def test_days_before_are_not_even_opened(tmp_path, log_tables):
    log_tables(tmp_path, requests=_requests(2))
    log_tables(tmp_path, requests=_requests(3, START + 2 * 86_400 + 5))
    log = DecisionLog(tmp_path)
    assert len(log.requests(["id"], since_unix_s=START + 86_400)) == 3
    assert len(log.requests(["id", "day"], since_unix_s=START)) == 5
    assert log.requests(["id"], since_unix_s=START + 2 * 86_400 + 6).empty
    plan = log.query("EXPLAIN ANALYZE SELECT count(*) FROM requests WHERE day >= DATE '2026-11-05'").to_string()
    assert "Scanning Files: 1/2" in plan


def test_sql_sees_the_three_views(small_log):
    log = DecisionLog(small_log.path)
    found = log.query(
        "SELECT r.candidate, count(*) AS n FROM requests r JOIN feedback f ON f.request_id = r.id"
        " WHERE r.key = ? GROUP BY 1 ORDER BY 1",
        ["team-0"],
    )
    own = small_log.feedback[small_log.feedback["key"] == "team-0"]
    assert found["n"].sum() == len(own)
    unnested = log.query("SELECT count(*) AS n FROM (SELECT unnest(outlook) FROM requests)")
    assert unnested["n"][0] == 4 * len(small_log.requests)


def test_feedback_and_retained_may_be_absent(tmp_path, log_tables):
    log_tables(tmp_path, requests=_requests(1))
    log = DecisionLog(tmp_path)
    for name in ("feedback", "retained"):
        frame = getattr(log, name)()
        assert frame.empty and [field.name for field in TABLES[name]] == [c for c in frame.columns if c != "day"]


def test_a_path_may_hold_quotes_and_brackets_and_unfinished_files(tmp_path, log_tables):
    folder = tmp_path / "it's [one]*"
    log_tables(folder, requests=_requests(2))
    (folder / "requests" / "day=2026-11-04" / ".part.parquet").write_bytes(b"half a file")
    assert len(DecisionLog(folder).requests()) == 2


def test_opening_is_nothing_until_asked_and_closing_is_idempotent(tmp_path, log_tables):
    log = DecisionLog(tmp_path / "later")
    log.close()
    with pytest.raises(LogUnreadable, match=r"no such folder.*turnout log export"):
        log.requests()
    log_tables(tmp_path / "later", requests=_requests(1))
    assert len(log.requests()) == 1
    log.close()
    log.close()
    log_tables(tmp_path / "later", requests=_requests(1, START + 86_400))
    assert len(log.requests()) == 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"id": ["a"], "key": ["k"]}, "requests lacks the column time_unix_s; found .*id"),
        ({"id": ["a"], "key": ["k"], "time_unix_s": ["noon"]}, "Could not convert string 'noon' to DOUBLE"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, table, says):
    folder = tmp_path / "requests" / "day=2026-11-04"
    folder.mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "a.parquet")
    with pytest.raises(LogUnreadable, match=says):
        DecisionLog(tmp_path).requests()


def test_a_damaged_file_a_wrong_column_and_bad_sql_are_clear_errors(tmp_path, log_tables):
    with pytest.raises(LogUnreadable, match="no request in it"):
        DecisionLog(tmp_path).requests()
    log_tables(tmp_path, requests=_requests(1))
    log = DecisionLog(tmp_path)
    with pytest.raises(LogUnreadable, match="no column 'candidates'; the nearest is 'candidate'"):
        log.requests(["id", "candidates"])
    with pytest.raises(LogUnreadable, match="elephants"):
        log.query("SELECT * FROM elephants")
    (tmp_path / "requests" / "day=2026-11-04" / "z.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(LogUnreadable, match="requests cannot be read"):
        DecisionLog(tmp_path).requests()


@pytest.mark.parametrize("name", TABLES)
def test_each_column_is_there_once(small_log, name):
    with DecisionLog(small_log.path) as log:
        columns = list(log.query(f"SELECT * FROM {name} LIMIT 1").columns)
    assert columns == [*(field.name for field in TABLES[name]), *(c for c in columns if c == "day")]
