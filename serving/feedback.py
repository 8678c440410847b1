"""Feedback: what callers say of answers, and the rules by which it counts.

::

                                            ┌─ nobody may see it ──────────▶ unknown
                                            ├─ nobody answered it ─────────▶ refused
    vote ──read_vote──▶ Vote ──of a request─┼─ it is too long ago ─────────▶ late
                                            │            ┌─ none before ───▶ kept
                                            └─ may count ┼─ the same ──────▶ unchanged
                                                         ├─ an earlier one ▶ replaced
                                                         └─ a later one ───▶ superseded

A vote is numbers and short words of a closed alphabet: nothing of a prompt or an answer fits into one. One vote of a
key counts for a request, the latest. Pure. Entry points: :func:`read_vote`, :func:`judged`, :class:`FeedbackStore`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from serving import fields
from serving.errors import InvalidRequest

#: What may become of a vote.
STATUSES = ("kept", "replaced", "unchanged", "superseded", "unknown", "late", "refused")
#: Of these, what leaves the vote, or the same, or a later one, in the database.
STANDING = frozenset(STATUSES[:4])
MAX_VOTES, MAX_TAGS = 1_000, 16
DAY_S = 86_400.0
#: Clocks of those who say when they voted may differ from ours by so much.
SKEW_S = 300.0
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_WORD_EXPECTED = "a word of letters, digits and _ . : - (at most 64)"
_THUMBS: Mapping[str, float] = {"up": 1.0, "down": 0.0}
_SAYINGS = ("rating", "thumbs", "correct", "grader")
_FIELDS = frozenset({"request_id", *_SAYINGS, "score", "tags", "time_unix_s"})
#: How requests end of which there is an answer to judge: whole, or as far as their caller wanted to see it.
_ANSWERED, _CUT_OFF = "ok", "client_disconnected"
ABANDONED = "abandoned"


class Vote(NamedTuple):
    """What somebody says of one answer.

    Parameters
    ----------
    request_id : str
        The answer's ``x-request-id``.
    kind : {'rating', 'thumbs', 'correct', 'grader'}
    score : float
        In [0, 1]; thumbs and correct are 0 or 1.
    grader : str or None
        Who judged, of the kind ``grader``.
    tags : tuple of str
    time_unix_s : float or None
        When it was given; None is now.
    """

    request_id: str
    kind: str
    score: float
    grader: str | None = None
    tags: tuple[str, ...] = ()
    time_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class Voter:
    """Who votes.

    Parameters
    ----------
    name : str or None
        Of the key; None votes in the name of whoever asked, and on every request: the operator's own files.
    grades : tuple of str
        Globs on the names of keys on whose requests it may vote besides its own.
    """

    name: str | None
    grades: tuple[str, ...] = ()

    def may_grade(self, key: str) -> bool:
        """Tell whether it may vote on the requests of a key."""
        return self.name is None or key == self.name or any(fnmatchcase(key, glob) for glob in self.grades)


OPERATOR = Voter(None)


class Subject(NamedTuple):
    """What the record of a request says of it, as far as votes are concerned."""

    id: str
    time_unix_s: float
    key: str
    outcome: str
    binding: str | None
    candidate: str | None
    signals: str | None


class Verdict(NamedTuple):
    """What became of a vote: one of :data:`STATUSES`, and why where it does not stand."""

    request_id: str
    status: str
    why: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackStatus:
    """Votes since the start, by what became of them."""

    n_votes: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))


class FeedbackStore(Protocol):
    """Where feedback is kept; ``is_on`` says whether it is at all."""

    is_on: bool

    async def cast(self, votes: Sequence[tuple[Vote, Voter]], now_unix_s: float, window_s: float) -> Sequence[Verdict]:
        """Judge votes in their order and keep what counts; once this returns it is on disk.

        Raises
        ------
        StorageUnavailable
            None of them was kept.
        """

    def signal(self, request_id: str, key: str, sign: str, now_unix_s: float) -> None:
        """Keep, soon, what the behaviour of a key says of an earlier answer; the first sign of a request counts."""

    def count(self, status: str) -> None:
        """Count a vote that never became one."""

    def status(self) -> FeedbackStatus:
        """Return the counts."""


class NullFeedbackStore:
    """Keeps nothing, and says so."""

    is_on = False

    async def cast(self, votes: Sequence[tuple[Vote, Voter]], now_unix_s: float, window_s: float) -> Sequence[Verdict]:
        """Refuse them all."""
        raise InvalidRequest(
            "feedback is kept in the database of the request records, and server.database is empty",
            code="feedback_off",
        )

    def signal(self, request_id: str, key: str, sign: str, now_unix_s: float) -> None:
        """Forget it."""

    def count(self, status: str) -> None:
        """Count nothing."""

    def status(self) -> FeedbackStatus:
        """Return zeros."""
        return FeedbackStatus()


def read_vote(given: object, at: str = "") -> Vote:
    """Read one vote.

    Parameters
    ----------
    given : object
        A JSON object: ``request_id``, exactly one of ``rating``, ``thumbs``, ``correct`` and ``grader`` with
        ``score``, perhaps ``tags`` and ``time_unix_s``.
    at : str, default=""
        Path of what holds it, with its dot, for errors.

    Raises
    ------
    InvalidRequest
        It is none; names the field. Text is never shown back.
    """
    if not isinstance(given, dict):
        raise fields.wrong(at.rstrip(".") or "the vote", given, "an object")
    unknown = sorted(set(given) - _FIELDS)
    if unknown:
        # A stranger's word is not repeated: it may be the comment that somebody wanted to leave.
        known = ", ".join(sorted(_FIELDS))
        raise InvalidRequest(f"{at or 'a vote: '}unknown field; expected only {known}", param=at.rstrip(".") or None)
    said = [name for name in _SAYINGS if given.get(name) is not None]
    wanted = "exactly one of rating, thumbs, correct and grader"
    if not said:
        raise InvalidRequest(f"{at}rating is missing: expected {wanted}", param=f"{at}rating")
    if len(said) > 1:
        raise InvalidRequest(f"{at}{said[1]} stands beside {said[0]}: expected {wanted}", param=f"{at}{said[1]}")
    kind = said[0]
    if kind != "grader" and given.get("score") is not None:
        raise InvalidRequest(f"{at}score is of a grader: expected grader beside it", param=f"{at}score")
    return Vote(
        _word(given.get("request_id"), f"{at}request_id"),
        kind,
        _score(kind, given, at),
        _word(given["grader"], f"{at}grader") if kind == "grader" else None,
        _tags(given.get("tags"), f"{at}tags"),
        None if given.get("time_unix_s") is None else fields.amount(given["time_unix_s"], f"{at}time_unix_s"),
    )


def judged(vote: Vote, subject: Subject | None, voter: Voter, now_unix_s: float, window_s: float) -> Verdict | None:
    """Say why a vote cannot count; None where it can.

    Parameters
    ----------
    vote : Vote
    subject : Subject or None
        The request; None where there is no record of it.
    voter : Voter
    now_unix_s : float
    window_s : float
        How long after a request, in seconds, votes on it are taken. The moment the vote comes in counts, not when it
        says it was given.

    Returns
    -------
    Verdict or None
        What a caller may not see is as unknown as what is not there.
    """
    if subject is None or not voter.may_grade(subject.key):
        return Verdict(vote.request_id, "unknown", "no request of this id is known to this key", "request_id")
    if (why := _unanswered(subject)) is not None:
        return Verdict(vote.request_id, "refused", why, "request_id")
    if now_unix_s - subject.time_unix_s > window_s:
        days = f"{window_s / DAY_S:g} days"
        return Verdict(vote.request_id, "late", f"feedback is taken for {days} after a request", "request_id")
    given = vote.time_unix_s
    if given is not None and not subject.time_unix_s - SKEW_S <= given <= now_unix_s + SKEW_S:
        return Verdict(vote.request_id, "refused", "expected a time between the request and now", "time_unix_s")
    return None


def succession(new: Vote, old: Vote | None) -> str:
    """Say what a vote that may count does to the one before it, both with their times: the later one stands."""
    if old is None:
        return "kept"
    assert new.time_unix_s is not None and old.time_unix_s is not None
    if new._replace(time_unix_s=None) == old._replace(time_unix_s=None):
        return "unchanged"
    return "replaced" if new.time_unix_s >= old.time_unix_s else "superseded"


def _unanswered(subject: Subject) -> str | None:
    """Say why there is nothing to vote on; None where there is."""
    if subject.outcome == "replayed":
        return "this request repeated an earlier answer: vote on the request that was answered first"
    is_cut_off = subject.outcome == _CUT_OFF and ABANDONED in (subject.signals or "").split(",")
    if subject.outcome != _ANSWERED and not is_cut_off:
        return f"this request was not answered: it ended as {subject.outcome}"
    if not subject.binding or subject.candidate is None:
        return "this request was not routed: no candidate answered it"
    return None


def _score(kind: str, given: Mapping[str, object], at: str) -> float:
    value = given[kind]
    if kind == "rating":
        return fields.amount(value, f"{at}rating", 1.0)
    if kind == "grader":
        if given.get("score") is None:
            raise fields.wrong(f"{at}score", None, "a number in [0, 1]")
        return fields.amount(given["score"], f"{at}score", 1.0)
    if kind == "thumbs":
        if not isinstance(value, str) or value not in _THUMBS:
            raise InvalidRequest(f"{at}thumbs must be up or down", param=f"{at}thumbs")
        return _THUMBS[value]
    if not isinstance(value, bool):
        raise fields.wrong(f"{at}correct", value, "true or false")
    return float(value)


def _tags(given: object, param: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MAX_TAGS:
        raise InvalidRequest(f"{param} must be a list of at most {MAX_TAGS} words", param=param)
    return tuple(dict.fromkeys(_word(tag, f"{param}[{i}]") for i, tag in enumerate(given)))


def _word(given: object, param: str) -> str:
    if not isinstance(given, str) or not _WORD.fullmatch(given):
        raise fields.wrong(param, given, _WORD_EXPECTED)
    return given
