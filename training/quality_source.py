"""Which quality a policy would have had: by feedback, by labels, or by predictions alone.

Entry points: :class:`Feedback`, :class:`Labels`, :class:`Predicted`, each a :class:`QualitySource`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from router.domain import Policy
from router.policy import choose
from training.errors import NotEnoughData
from training.evaluate import Rows
from training.ope import Choices, Estimate, Evaluation, Logged, estimate, evaluate
from training.replay import Replay

if TYPE_CHECKING:
    import pandas as pd


class QualitySource(Protocol):
    """Says which quality a policy would have had, and how it differs from what was chosen."""

    @property
    def words(self) -> str:
        """What it is, for people."""

    def judge(self, policy: Policy, choices: Choices) -> tuple[Estimate, Estimate | None]:
        """Return quality and change; raises NoOverlap."""


class Feedback:
    """Quality as callers said it, weighted by how likelier a policy makes what was chosen: doubly robust.

    Who votes is taken to be as happy as who does not. Where the log says among whom chance could choose, only requests
    with everybody among them count: elsewhere, such as when the day's money for exploring is spent, it says nothing of
    another policy.

    Parameters
    ----------
    replay : Replay
    votes : pandas.DataFrame
        With ``request_id`` and ``score``; several of a request are averaged. Signals are no votes.

    Raises
    ------
    NotEnoughData
        No replayed request has a vote.
    """

    def __init__(self, replay: Replay, votes: pd.DataFrame) -> None:
        import pandas as pd

        if "source" in votes:
            votes = votes[votes["source"].isna() | (votes["source"] == "vote")]
        scores = votes.groupby("request_id")["score"].mean().reindex(pd.Index(replay.ids))
        voted = scores.notna().to_numpy()
        if not voted.any():
            raise NotEnoughData(f"none of {len(replay.ids):,} replayed requests has a vote")
        self._n_closed = 0 if replay.is_open is None else int((voted & ~replay.is_open).sum())
        self._rows = np.flatnonzero(voted if replay.is_open is None else voted & replay.is_open)
        if not len(self._rows):
            raise NotEnoughData(
                f"chance could choose among all candidates in none of {self._n_closed:,} requests with a vote"
            )
        self._log = Logged(
            replay.chosen[self._rows],
            replay.propensity[self._rows],
            scores.to_numpy(dtype=np.float64)[self._rows],
            replay.quality[self._rows],
            replay.clusters[self._rows],
        )

    @property
    def words(self) -> str:
        """How many votes there are."""
        closed = f" ({self._n_closed:,} more where chance could not choose freely)" if self._n_closed else ""
        return f"votes on {len(self._rows):,} requests{closed}, doubly robust"

    def evaluation(self, choices: Choices) -> Evaluation:
        """Evaluate choices for all replayed requests; raises NoOverlap, NotEnoughData."""
        return evaluate(self._log, choices[self._rows])

    def judge(self, policy: Policy, choices: Choices) -> tuple[Estimate, Estimate | None]:
        """Return quality and change; raises NoOverlap."""
        found = self.evaluation(choices)
        return found.estimates["dr"], found.changes["dr"]


class Labels:
    """Quality of a labelled table, on which the policy chooses by the bundle's predictions.

    Its prompts stand for the traffic as well as they are like it. Nothing is compared with what the log chose.

    Parameters
    ----------
    rows : Rows
        Predictions of the bundle that is in the log, and outcomes.
    candidates : sequence of str
        Of the log; others are left out.

    Raises
    ------
    NotEnoughData
        A candidate of the log has no label, or no row has them all.
    """

    def __init__(self, rows: Rows, candidates: tuple[str, ...]) -> None:
        missing = [name for name in candidates if name not in rows.candidates]
        if missing:
            raise NotEnoughData(f"the labels have nothing of {', '.join(missing)}, which may be chosen in the log")
        rows = rows.columns(np.array([rows.candidates.index(name) for name in candidates], dtype=np.intp))
        known = np.flatnonzero(np.isfinite(rows.quality + rows.predicted).all(axis=1))
        if not len(known):
            raise NotEnoughData("no labelled prompt has the quality of every candidate of the log")
        self._rows = rows.take(known)
        self._clusters = np.unique(np.asarray(self._rows.groups), return_inverse=True)[1]

    @property
    def words(self) -> str:
        """How many prompts there are."""
        return f"labels of {len(self._rows.tasks):,} prompts"

    def judge(self, policy: Policy, choices: Choices) -> tuple[Estimate, Estimate | None]:
        """Return quality; there is no change to tell."""
        rows = self._rows
        own = choose(rows.predicted, rows.predicted_cost, policy)
        quality = rows.quality[np.arange(len(own)), own]
        return estimate(float(quality.mean()), quality, self._clusters), None


class Predicted:
    """Quality as the bundle predicts it: nothing was observed, and nothing is refused.

    Parameters
    ----------
    replay : Replay
    """

    words = "predictions alone: nothing of it was observed"

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def judge(self, policy: Policy, choices: Choices) -> tuple[Estimate, Estimate | None]:
        """Return the mean prediction and its change; the intervals are of the requests alone."""
        quality, every = self._replay.quality, np.arange(len(choices))
        then, now = quality[every, choices], quality[every, self._replay.chosen]
        clusters = self._replay.clusters
        return estimate(float(then.mean()), then, clusters), estimate(float((then - now).mean()), then - now, clusters)
