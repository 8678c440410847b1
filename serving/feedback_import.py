"""Importing votes: a file into the database of a config, or through a running gateway, in batches.

Every batch is kept whole or not at all, and a vote that stands already changes nothing, so whatever ended an import,
the same command goes on with it. Entry points: :func:`imported`, :class:`IntoDatabase`, :class:`ThroughGateway`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from serving.errors import GatewayError, InvalidRequest, SettingsError, StorageUnavailable
from serving.feedback import DAY_S, OPERATOR, Vote, Voter, read_vote
from serving.keys import ANONYMOUS
from serving.settings import Settings
from serving.storage.votes import cast
from serving.storage.writer import connect
from serving.vote_file import Row

if TYPE_CHECKING:
    import httpx

N_BATCH = 500
#: How often a batch is tried, and for how long it is waited before each further time.
N_TRIES, PAUSE_S, MOST_PAUSE_S = 6, 0.5, 30.0


class Outcome(NamedTuple):
    """What became of a row: a status of :data:`serving.feedback.STATUSES`, and why where its vote does not stand."""

    line: int
    status: str
    why: str = ""


@dataclass(slots=True)
class Summary:
    """What became of all rows so far; ``n_rows`` were judged."""

    n_rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count more."""
        for outcome in outcomes:
            self.n_rows += 1
            self.counts[outcome.status] += 1


class Target(Protocol):
    """Where votes go."""

    def voter_of(self, row: Row) -> Voter:
        """Say who votes by a row; raises InvalidRequest where nobody may be named so."""

    def cast(self, votes: Sequence[tuple[Row, Vote, Voter]]) -> Sequence[Outcome]:
        """Keep a batch; raises GatewayError where none of it was kept."""


def imported(rows: Iterable[Row], target: Target, told: Callable[[Sequence[Outcome]], None]) -> None:
    """Import rows.

    Parameters
    ----------
    rows : iterable of Row
    target : Target
    told : callable
        Gets what became of each batch, in the order of the file, once it is kept.

    Raises
    ------
    GatewayError
        The file or the target fails; what was told of is kept.
    """
    left = iter(rows)
    while some := list(islice(left, N_BATCH)):
        outcomes: list[Outcome] = []
        votes: list[tuple[Row, Vote, Voter]] = []
        for row in some:
            try:
                if row.problem:
                    raise InvalidRequest(row.problem)
                votes.append((row, read_vote(row.given), target.voter_of(row)))
            except InvalidRequest as error:
                outcomes.append(Outcome(row.line, "refused", error.message))
        if votes:
            outcomes += target.cast(votes)
        told(sorted(outcomes))


class IntoDatabase:
    """Straight into the database of a config, while its gateway runs or not.

    A row without a key votes in the name of whoever made the request; one with a key may only what that key may.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    SettingsError
        The config keeps no database, or there is none yet.
    """

    def __init__(self, settings: Settings) -> None:
        path = settings.database_path()
        if path is None:
            raise SettingsError(f"{settings.source}: server.database is empty, so there is nothing to vote on")
        if not path.exists():
            raise SettingsError(f"{path} is not there: expected the database that a gateway has made")
        self._path = path
        self._window_s = settings.feedback.window_days * DAY_S
        self._voters = {key.name: Voter(key.name, key.grades) for key in settings.keys} or {
            ANONYMOUS.name: Voter(ANONYMOUS.name, ANONYMOUS.grades)
        }

    def voter_of(self, row: Row) -> Voter:
        """Say who votes by a row."""
        if row.key is None:
            return OPERATOR
        if row.key not in self._voters:
            raise InvalidRequest("key: expected the name of a key in the config", param="key")
        return self._voters[row.key]

    def cast(self, votes: Sequence[tuple[Row, Vote, Voter]]) -> Sequence[Outcome]:
        """Keep a batch in one transaction; a database in use is waited for."""
        ballots = [(vote, voter) for _, vote, voter in votes]
        for n in range(N_TRIES):
            try:
                with closing(connect(self._path)) as database, database:
                    database.execute("BEGIN IMMEDIATE")
                    verdicts = cast(database, ballots, time.time(), self._window_s)
                break
            except sqlite3.Error as error:
                if n == N_TRIES - 1 or not isinstance(error, sqlite3.OperationalError):
                    raise StorageUnavailable(f"{self._path} cannot be written to: {type(error).__name__}") from error
                time.sleep(PAUSE_S)
        return [
            Outcome(row.line, verdict.status, verdict.why or "")
            for (row, *_), verdict in zip(votes, verdicts, strict=True)
        ]


class ThroughGateway:
    """Through a gateway's ``POST /v1/feedback``; every vote is that of the key shown.

    Parameters
    ----------
    client : httpx.Client
        With the gateway's base URL and the key.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def voter_of(self, row: Row) -> Voter:
        """Say who votes by a row; the gateway knows."""
        if row.key is not None:
            raise InvalidRequest("key: through a gateway the key shown votes; leave the column out", param="key")
        return OPERATOR

    def cast(self, votes: Sequence[tuple[Row, Vote, Voter]]) -> Sequence[Outcome]:
        """Send a batch; a gateway that is busy, ends or begins is waited for."""
        response = self._sent({"votes": [row.given for row, *_ in votes]})
        try:
            return [
                Outcome(row.line, said["status"], (said["error"] or {}).get("message", ""))
                for (row, *_), said in zip(votes, response.json()["votes"], strict=True)
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise GatewayError(f"{self._client.base_url} did not answer as a gateway does: is it one?") from None

    def _sent(self, body: Mapping[str, object]) -> httpx.Response:
        import httpx

        pause_s, why = PAUSE_S, ""
        for n in range(N_TRIES):
            if n:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
            try:
                response = self._client.post("/v1/feedback", json=body)
            except httpx.UnsupportedProtocol:
                why = "expected a URL such as http://127.0.0.1:8080"
                break
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: start one with `turnout serve`, or say with --url where it is"
                continue
            if response.status_code == 200:
                return response
            why = _said(response)
            if response.status_code == 401:
                why += "; name the variable that holds one: --key-env"
            if response.status_code not in (429, 503):
                break
            pause_s = min(max(pause_s, _retry_after_s(response)), MOST_PAUSE_S)
        raise GatewayError(f"the gateway at {self._client.base_url} did not take the votes: {why}")


def _said(response: httpx.Response) -> str:
    """Return a gateway's own words, or its status where it has none."""
    try:
        return f"{response.status_code}, {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return str(response.status_code)


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
