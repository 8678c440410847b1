"""Exploring in the place of a decision: which requests, by which rate, and out of which purse.

Never where somebody named a candidate, where a certified promise would be void, or where the choice would bind requests
that no cap counts: in the middle of a turn, in a conversation that a provider has cached, with tools whose results go
back to whoever called them. Entry point: :func:`explore`.
"""

from __future__ import annotations

from functools import partial

from router import Prompt
from serving import logs
from serving.conversations import Turn
from serving.deciding import Decided
from serving.errors import StorageUnavailable
from serving.exploration import explorable, explored
from serving.exploration_budget import DAY_S, ExplorationBudget, Reservation
from serving.pool import Pool
from serving.records import RecordStore
from serving.state import State


def explore(
    decided: Decided,
    state: State,
    pool: Pool,
    budget: ExplorationBudget,
    prompt: Prompt,
    turn: Turn | None,
    at_unix_s: float,
    request_id: str | None = None,
) -> Decided:
    """Let chance decide now and then.

    Parameters
    ----------
    decided : Decided
        The policy's own decision.
    state : State
    pool : Pool
        Whose deployments may be called.
    budget : ExplorationBudget
        What is left of the day's money.
    prompt : Prompt
    turn : Turn or None
        The request's place in its conversation.
    at_unix_s : float
        When the request came.
    request_id : str or None
        What is drawn by; None draws nothing, and only says what could be.

    Returns
    -------
    Decided
        The very same where nothing is explored by the settings, or a candidate was named.
    """
    account = decided.scenario or ""
    rate = state.explores.get(account)
    if rate is None or decided.decision.policy.kind == "designated":
        return decided
    exploration = explorable(
        decided.decision,
        rate,
        budget.left_usd(account, rate.max_usd_per_day, at_unix_s),
        partial(_is_up, pool, decided),
        _binding(turn, prompt),
    )
    decision = explored(decided.decision, exploration, request_id)
    order = decision.ranking if decision.is_explored else decided.order
    return decided._replace(decision=decision, order=order, exploration=exploration)


def reserved(decided: Decided, budget: ExplorationBudget, at_unix_s: float) -> Reservation | None:
    """Set aside what an explored request may cost; None for one that is not."""
    exploration, decision = decided.exploration, decided.decision
    if exploration is None or not decision.is_explored or decision.outlook is None:
        return None
    own = exploration.candidates[0]
    return budget.reserve(
        decided.scenario or "",
        exploration.extra_usd[exploration.candidates.index(decision.candidate)],
        decision.outlook.cost_usd[decision.outlook.candidates.index(own)],
        at_unix_s,
    )


def _is_up(pool: Pool, decided: Decided, candidate: str) -> bool:
    return pool.has_another((candidate,), (), decided.deployments)


def _binding(turn: Turn | None, prompt: Prompt) -> str | None:
    """Say why the choice would bind more than this request; None where it does not."""
    if turn is None:
        return None
    if turn.is_pending:
        return "a turn is pending"
    history = turn.history()
    if history is not None and history.cached_tokens:
        return "a provider has the conversation cached"
    return "its tools would bind the requests that follow" if prompt.shape.n_tools else None


async def restore(budget: ExplorationBudget, records: RecordStore, at_unix_s: float) -> None:
    """Learn, once, what exploring has cost today already; while that is unknown nothing is explored."""
    if budget.is_restored:
        return
    try:
        budget.restore(await records.explored_usd(at_unix_s - at_unix_s % DAY_S), at_unix_s)
    except StorageUnavailable as error:
        budget.restore(None, at_unix_s)
        logs.failure("exploring_withheld", error)
