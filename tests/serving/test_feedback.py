from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.feedback import OPERATOR, SKEW_S, STANDING, Voter, judged, read_vote
from serving.records import RequestRecord
from serving.storage.migrations import migrate
from serving.storage.record_store import REQUESTS
from serving.storage.votes import cast

DAY = 86_400.0
WINDOW = 30 * DAY
RECORD = RequestRecord("req_1", 1e9, "alice", "auto", 200, "ok", False, candidate="small", binding="threshold")


def put(database: sqlite3.Connection, *records: RequestRecord) -> None:
    for record in records:
        database.execute(REQUESTS.insert(1), record)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        migrate(opened)
        put(opened, RECORD, RECORD._replace(id="req_2", key="bob"))
        yield opened


def vote(**said: object):
    return read_vote({"request_id": "req_1", **said})


def statuses(database: sqlite3.Connection, *cast_votes, now: float = 1e9 + 1) -> list[str]:
    return [verdict.status for verdict in cast(database, cast_votes, now, WINDOW)]


@pytest.mark.parametrize(
    ("said", "kind", "score"),
    [
        ({"rating": 0.25}, "rating", 0.25),
        ({"rating": 1}, "rating", 1.0),
        ({"thumbs": "up"}, "thumbs", 1.0),
        ({"thumbs": "down"}, "thumbs", 0.0),
        ({"correct": True}, "correct", 1.0),
        ({"correct": False}, "correct", 0.0),
        ({"grader": "exact-match", "score": 0.5}, "grader", 0.5),
        ({"rating": 0.5, "thumbs": None}, "rating", 0.5),
    ],
)
def test_every_kind_becomes_a_score(said, kind, score) -> None:
    read = vote(**said, tags=["tone.bad", "tone.bad", "v:2"])
    assert (read.kind, read.score, read.tags) == (kind, score, ("tone.bad", "v:2"))
    assert read.grader == said.get("grader")


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "rating"),
        ({"rating": 0.5, "correct": True}, "correct"),
        ({"rating": 1.01}, "rating"),
        ({"rating": True}, "rating"),
        ({"rating": float("nan")}, "rating"),
        ({"rating": "0.5"}, "rating"),
        ({"thumbs": "sideways"}, "thumbs"),
        ({"correct": 1}, "correct"),
        ({"grader": "judge"}, "score"),
        ({"grader": "judge", "score": -0.1}, "score"),
        ({"grader": "a judge", "score": 1}, "grader"),
        ({"rating": 1, "score": 1}, "score"),
        ({"rating": 1, "tags": ["free text"]}, "tags[0]"),
        ({"rating": 1, "tags": ["x" * 65]}, "tags[0]"),
        ({"rating": 1, "tags": [str(n) for n in range(17)]}, "tags"),
        ({"rating": 1, "tags": "x"}, "tags"),
        ({"rating": 1, "comment": "secret words"}, None),
        ({"rating": 1, "time_unix_s": "today"}, "time_unix_s"),
        ({"rating": 1, "request_id": "../x"}, "request_id"),
        ({"rating": 1, "request_id": None}, "request_id"),
    ],
)
def test_what_is_no_vote_is_refused_by_its_field_and_its_text_is_not_repeated(said, param) -> None:
    with pytest.raises(InvalidRequest) as refused:
        vote(**said)
    assert refused.value.param == param
    assert "secret" not in str(refused.value) and "free text" not in str(refused.value)


def test_who_may_vote_on_what() -> None:
    assert Voter("alice").may_grade("alice") and not Voter("alice").may_grade("bob")
    assert Voter("judge", ("app-*",)).may_grade("app-1") and not Voter("judge", ("app-*",)).may_grade("alice")
    assert OPERATOR.may_grade("anybody")


def test_what_may_not_be_seen_is_as_unknown_as_what_is_not_there(database) -> None:
    hidden, absent = cast(
        database,
        [(vote(request_id="req_2", rating=1), Voter("alice")), (vote(request_id="req_9", rating=1), Voter("alice"))],
        1e9,
        WINDOW,
    )
    assert hidden._replace(request_id="") == absent._replace(request_id="")
    assert statuses(database, (vote(request_id="req_2", rating=1), Voter("alice", ("b*",)))) == ["kept"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (RECORD._replace(outcome="timeout"), "ended as timeout"),
        (RECORD._replace(outcome="client_disconnected"), "ended as client_disconnected"),
        (RECORD._replace(outcome="replayed"), "repeated an earlier answer"),
        (RECORD._replace(binding=None), "not routed"),
        (RECORD._replace(candidate=None), "not routed"),
    ],
)
def test_only_what_was_answered_and_routed_can_be_voted_on(database, record, said) -> None:
    put(database, record._replace(id="req_3"))
    (verdict,) = cast(database, [(vote(request_id="req_3", rating=1), OPERATOR)], 1e9, WINDOW)
    assert verdict.status == "refused" and said in (verdict.why or "")


def test_an_answer_that_its_caller_stopped_can_be_voted_on(database) -> None:
    put(database, RECORD._replace(id="req_3", outcome="client_disconnected", signals="abandoned"))
    assert statuses(database, (vote(request_id="req_3", thumbs="down"), Voter("alice"))) == ["kept"]


def test_the_window_is_judged_by_when_a_vote_comes_in(database) -> None:
    at_last, too_late = 1e9 + WINDOW, 1e9 + WINDOW + 1
    alice = Voter("alice")
    assert statuses(database, (vote(rating=1), alice), now=at_last) == ["kept"]
    assert statuses(database, (vote(rating=0.5, time_unix_s=1e9 + 5), alice), now=too_late) == ["late"]
    assert statuses(database, (vote(rating=0.5, time_unix_s=1e9 - SKEW_S - 1), alice)) == ["refused"]
    assert statuses(database, (vote(rating=0.5, time_unix_s=1e9 + SKEW_S + 2), alice)) == ["refused"]


def test_the_latest_vote_of_a_key_stands(database) -> None:
    alice, operator = Voter("alice"), Voter("judge", ("*",))
    assert statuses(
        database,
        (vote(rating=0.5, time_unix_s=1e9 + 2), alice),
        (vote(rating=0.6, time_unix_s=1e9 + 3), alice),
        (vote(rating=0.6, time_unix_s=1e9 + 1), alice),
        (vote(rating=0.7, time_unix_s=1e9 + 2), alice),
        (vote(thumbs="down"), operator),
        now=1e9 + 10,
    ) == ["kept", "replaced", "unchanged", "superseded", "kept"]
    rows = database.execute("SELECT key, source, kind, score, time_unix_s FROM feedback ORDER BY key").fetchall()
    assert rows == [("alice", "vote", "rating", 0.6, 1e9 + 3), ("judge", "vote", "thumbs", 0.0, 1e9 + 10)]
    assert statuses(database, (vote(rating=0.6), alice), now=1e9 + 20) == ["unchanged"], "sent again: nothing is new"


def test_a_vote_without_a_voter_is_that_of_whoever_asked(database) -> None:
    assert statuses(database, (vote(rating=1), OPERATOR), (vote(rating=0), Voter("alice"))) == ["kept", "replaced"]


IDS, KEYS = ("req_1", "req_2", "req_9"), ("alice", "bob", "judge")
CASTS = st.tuples(
    st.sampled_from(IDS),
    st.sampled_from(KEYS),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.none() | st.integers(0, 40),
    st.integers(0, 40),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(CASTS, max_size=5), max_size=5))
def test_the_database_holds_of_every_key_the_latest_vote_that_counted(batches) -> None:
    """The rules as a small machine: a dictionary of (request, key) must agree with the table, however votes come in."""
    grades = {"alice": (), "bob": (), "judge": ("a*",)}
    owners = {"req_1": "alice", "req_2": "bob"}
    model: dict[tuple[str, str], tuple[float, float]] = {}
    with closing(sqlite3.connect(":memory:")) as database:
        migrate(database)
        put(database, RECORD, RECORD._replace(id="req_2", key="bob"))
        for batch in batches:
            now = max((arrived for *_, arrived in batch), default=0) * DAY + 1e9
            votes = [
                (
                    read_vote(
                        {"request_id": of, "rating": score, "time_unix_s": None if day is None else 1e9 + day * DAY}
                    ),
                    Voter(key, grades[key]),
                )
                for of, key, score, day, _ in batch
            ]
            verdicts = cast(database, votes, now, WINDOW)
            for (ballot, voter), verdict in zip(votes, verdicts, strict=True):
                owner = owners.get(ballot.request_id)
                at = now if ballot.time_unix_s is None else ballot.time_unix_s
                of = (ballot.request_id, str(voter.name))
                if owner is None or (owner != voter.name and not (voter.name == "judge" and owner == "alice")):
                    expected = "unknown"
                elif now - 1e9 > WINDOW:
                    expected = "late"
                elif at > now + SKEW_S:
                    expected = "refused"
                elif of not in model:
                    expected, model[of] = "kept", (ballot.score, at)
                elif model[of][0] == ballot.score:
                    expected = "unchanged"
                elif at >= model[of][1]:
                    expected, model[of] = "replaced", (ballot.score, at)
                else:
                    expected = "superseded"
                assert verdict.status == expected
                assert (verdict.why is None) == (expected in STANDING)
        rows = database.execute("SELECT request_id, key, score, time_unix_s FROM feedback").fetchall()
    assert {(of, key): (score, at) for of, key, score, at in rows} == model


def test_many_requests_are_looked_up_in_pieces(database) -> None:
    put(database, *(RECORD._replace(id=f"req_x{n}") for n in range(1200)))
    votes = [(vote(request_id=f"req_x{n}", rating=1), Voter("alice")) for n in range(1200)]
    assert {verdict.status for verdict in cast(database, votes, 1e9, WINDOW)} == {"kept"}
    assert database.execute("SELECT count(*) FROM feedback").fetchone() == (1200,)


def test_judging_needs_no_database() -> None:
    assert judged(vote(rating=1), None, OPERATOR, 0.0, WINDOW).status == "unknown"


def test_the_table_has_no_room_for_content(database) -> None:
    columns = {row[1]: row[2] for row in database.execute("PRAGMA table_info(feedback)")}
    assert set(columns) == {"request_id", "key", "source", "kind", "score", "grader", "tags", "time_unix_s"}
