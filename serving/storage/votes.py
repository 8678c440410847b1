"""Feedback in SQLite: one row for each request, key and source.

Entry points: :class:`SqliteFeedbackStore`, :func:`cast`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

from serving.feedback import (
    STATUSES,
    FeedbackStatus,
    Subject,
    Verdict,
    Vote,
    Voter,
    judged,
    succession,
)
from serving.storage.writer import SqliteWriter, Table

FEEDBACK = Table("feedback", ("request_id", "key", "source", "kind", "score", "grader", "tags", "time_unix_s"))
#: What a sign against an answer counts, where somebody lets signs count.
_AGAINST = 0.0
#: Requests looked up at once; SQLite takes 999 parameters everywhere.
_N_LOOKED_UP = 500
_UPSERT = (
    "INSERT INTO feedback (request_id, key, source, kind, score, grader, tags, time_unix_s) "
    "VALUES (?, ?, 'vote', ?, ?, ?, ?, ?) ON CONFLICT (request_id, key, source) DO UPDATE SET "
    "kind = excluded.kind, score = excluded.score, grader = excluded.grader, tags = excluded.tags, "
    "time_unix_s = excluded.time_unix_s"
)


class SqliteFeedbackStore:
    """Keeps feedback beside the records.

    Parameters
    ----------
    writer : SqliteWriter
        The records' own: what it was given before a vote is written before it, so that a vote finds its request.
    """

    is_on = True

    def __init__(self, writer: SqliteWriter) -> None:
        self._writer = writer
        self._n_votes: Counter[str] = Counter()

    async def cast(self, votes: Sequence[tuple[Vote, Voter]], now_unix_s: float, window_s: float) -> Sequence[Verdict]:
        """Judge votes in their order and keep what counts, in one change; see :func:`cast`."""
        verdicts = await self._writer.change(partial(cast, votes=votes, now_unix_s=now_unix_s, window_s=window_s))
        self._n_votes.update(verdict.status for verdict in verdicts)
        return verdicts

    def signal(self, request_id: str, key: str, sign: str, now_unix_s: float) -> None:
        """Queue a row that nobody waits for."""
        self._writer.add(FEEDBACK, (request_id, key, "signal", "signal", _AGAINST, None, sign, now_unix_s))

    def count(self, status: str) -> None:
        """Count a vote that never became one."""
        self._n_votes[status] += 1

    def status(self) -> FeedbackStatus:
        """Return the counts."""
        return FeedbackStatus({status: self._n_votes[status] for status in STATUSES})


def cast(
    database: sqlite3.Connection, votes: Sequence[tuple[Vote, Voter]], now_unix_s: float, window_s: float
) -> list[Verdict]:
    """Judge votes in their order and keep what counts.

    Parameters
    ----------
    database : sqlite3.Connection
        In a transaction, whose end is the caller's.
    votes : sequence of (Vote, Voter)
    now_unix_s : float
    window_s : float
        Of :func:`~serving.feedback.judged`.

    Returns
    -------
    list of Verdict
        In the order of the votes.
    """
    verdicts: list[Verdict] = []
    subjects, standing = _found(database, sorted({vote.request_id for vote, _ in votes}))
    changed: dict[tuple[str, str], Vote] = {}
    for vote, voter in votes:
        subject = subjects.get(vote.request_id)
        verdict = judged(vote, subject, voter, now_unix_s, window_s)
        if verdict is None:
            assert subject is not None, "what is unknown cannot be voted on"
            given_unix_s = now_unix_s if vote.time_unix_s is None else min(vote.time_unix_s, now_unix_s)
            vote, of = vote._replace(time_unix_s=given_unix_s), (vote.request_id, voter.name or subject.key)
            status = succession(vote, standing.get(of))
            if status in ("kept", "replaced"):
                standing[of] = changed[of] = vote
            verdict = Verdict(vote.request_id, status)
        verdicts.append(verdict)
    database.executemany(
        _UPSERT,
        [
            (*of, vote.kind, vote.score, vote.grader, ",".join(vote.tags) or None, vote.time_unix_s)
            for of, vote in changed.items()
        ],
    )
    return verdicts


def _found(database: sqlite3.Connection, ids: Sequence[str]) -> tuple[dict[str, Subject], dict[tuple[str, str], Vote]]:
    """Return the requests of these ids, and the votes there are on them by request and key."""
    subjects: dict[str, Subject] = {}
    standing: dict[tuple[str, str], Vote] = {}
    for some in _chunks(ids):
        among = f"({', '.join('?' * len(some))})"
        columns = ", ".join(Subject._fields)
        for row in database.execute(f"SELECT {columns} FROM request WHERE id IN {among}", some):
            subjects[row[0]] = Subject(*row)
        for request_id, key, kind, score, grader, tags, time_unix_s in database.execute(
            "SELECT request_id, key, kind, score, grader, tags, time_unix_s FROM feedback "
            f"WHERE source = 'vote' AND request_id IN {among}",
            some,
        ):
            words = tuple(tags.split(",")) if tags else ()
            standing[request_id, key] = Vote(request_id, kind, score, grader, words, time_unix_s)
    return subjects, standing


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    left = iter(ids)
    while some := list(islice(left, _N_LOOKED_UP)):
        yield some
