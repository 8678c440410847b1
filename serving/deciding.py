"""Deciding: from what a caller asked for to a decision of the router.

A model name asks for a decision (``auto``, ``auto:PRESET``, ``scenario:NAME``) or designates a candidate; plain
``auto`` goes where the first matching rule leads. :func:`decide` reads top to bottom: the course (by name, by rule),
what is demanded of deployments, who is left, who is best. What a key may not use is filtered out of decisions and does
not exist by name; demands of key, scenario and request add up, and who meets them is settled before anything is
ranked. Synchronous, and pure but for reading how fast candidates are and, for rules that ask, the time.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from typing import NamedTuple

from router import Constraints, Decision, InvalidPolicy, NoEligibleCandidate, Policy
from router.domain import NO_CONSTRAINTS
from router.history import History
from router.pricing import expected_costs_usd
from router.routing import DEFAULT_TOKENS_PER_CHARACTER
from serving.asked import Asked, Headers
from serving.conversations import Conversations, Turn
from serving.course import Course, course_of, tried
from serving.demand import NO_DEMAND, Demand
from serving.designation import (
    beyond,
    designated,
    is_any,
    limited,
    refused_by_name,
    stand_ins,
    unforeseen,
    without_policy,
)
from serving.dials import Dials
from serving.errors import InvalidRequest, NoEligible, NotFound
from serving.exploration import Exploration
from serving.keys import PRIORITIES, Principal
from serving.pool import Pool
from serving.records import RETENTIONS
from serving.scenario_settings import Scenario
from serving.state import State
from serving.trial import Entry, preferring


class Decided(NamedTuple):
    """A decision, and what goes with it through all attempts. A tuple: every request makes one.

    Parameters
    ----------
    decision : Decision
    order : tuple of str
        Candidates that may answer, best first: the ranking, or of a designated candidate its own list of stand-ins.
    deployments : container of str
        Those that meet what is demanded; no other may be called.
    model : str
        What was asked for, by a name of the settings: a stranger's word is ``auto``.
    scenario, rule : str or None
        By name.
    priority : str
        One of :data:`~serving.keys.PRIORITIES`.
    demand : Demand
    is_explained : bool
        Whether a response header shall explain it.
    entry : Entry or None
        Its place in an experiment.
    exploration : Exploration or None
        Among whom chance may choose, where the settings let it; see :mod:`serving.exploring`.
    retention : str
        What may be kept of the prompt: one of :data:`~serving.records.RETENTIONS`.
    constraints : Constraints
        By which candidates were filtered.
    history : History or None
        Of the conversation, as the decision knew it.
    """

    decision: Decision
    order: tuple[str, ...]
    deployments: Container[str]
    model: str
    scenario: str | None = None
    rule: str | None = None
    priority: str = "normal"
    demand: Demand = NO_DEMAND
    is_explained: bool = False
    entry: Entry | None = None
    exploration: Exploration | None = None
    retention: str = "none"
    constraints: Constraints = NO_CONSTRAINTS
    history: History | None = None


def decide(
    state: State,
    pool: Pool,
    principal: Principal,
    asked: Asked,
    api: str = "",
    at_unix_s: float | None = None,
    turn: Turn | None = None,
    enters: Callable[[Entry], None] | None = None,
) -> Decided:
    """Decide who answers one request.

    Parameters
    ----------
    state : State
    pool : Pool
        Says how fast candidates are, for the policy kind ``latency``, for ``max_latency_s`` and for forecasts.
    principal : Principal
        Who asks; limits the candidates.
    asked : Asked
    api : str
        By which it came, such as "messages"; for rules.
    at_unix_s : float or None
        The time, for rules; None is now.
    turn : Turn or None
        Its place in a conversation; without effect on a candidate that was named. While something is pending there, the
        rule that the human's turn began with goes on; limits of key and request hold as ever.
    enters : callable (entry) or None
        Is told of its place in an experiment before anything is decided: it took part even if nobody may answer.

    Returns
    -------
    Decided

    Raises
    ------
    NotFound
        A model name that is nothing here, or nothing to this caller.
    InvalidRequest
        Two policies at once, or one in the body beside a candidate that was named; a preset nobody configured; a
        priority or a retention above the key's.
    NoEligible
        Every candidate was filtered out.
    """
    dials = asked.dials
    history = None if turn is None else turn.history()
    course = course_of(state, principal, asked, api, at_unix_s, None if turn is None else turn.kept_rule())
    if turn is not None:
        turn.goes_by(course.rule)
    if state.trials:
        course = tried(state, course, principal, asked, turn)
    scenario, entry = course.scenario, course.entry
    if entry is not None and enters is not None:
        enters(entry)
    priority = _priority(principal, scenario, asked)
    retention = _retention(state, principal, asked)
    demand = _demand(principal, scenario, asked)
    deployments = _meeting(state, demand)
    constraints = _constraints(state, principal, scenario, dials, demand)
    candidate = course.candidate or (scenario.candidate if scenario else None)
    # The caller's policy goes before the scenario's, or the rule's; who names a candidate wants that one.
    is_designated = candidate is not None and (dials.policy is None or (course.rule is None and scenario is None))
    if candidate is not None and is_designated:
        without_policy(state, asked)
        outlook = limited(state, pool, asked, constraints, course.foresight)
        decision = designated(state, candidate, constraints, asked, course.foresight)
        if why := beyond(outlook, candidate, constraints):
            raise NoEligible(str(NoEligibleCandidate({candidate: why})), param="model")
        order = (candidate, *stand_ins(state, principal, candidate, constraints, outlook))
    else:
        policy = _policy(state, course, asked)
        if policy.kind == "latency" and priority == "batch":
            policy = replace(policy, kind="threshold")  # who is in no hurry pays for none
        try:
            decision = course.router(state).route(
                asked.prompt,
                policy,
                constraints,
                pool.speeds(),
                foresight=course.foresight,
                history=history,
            )
        except NoEligibleCandidate as error:
            raise _nobody(error, principal) from error
        if entry is not None and entry.setting.candidate is not None:
            decision = preferring(decision, entry.setting.candidate, entry.experiment)
        order = decision.ranking
    return Decided(
        decision,
        order,
        deployments,
        course.model,
        scenario.name if scenario else None,
        course.rule,
        priority,
        demand,
        dials.explain,
        entry=entry,
        retention=retention,
        constraints=constraints,
        history=history,
    )


def embedder(state: State, principal: Principal, asked: Asked) -> Decided:
    """Find the candidate that embeds under a name; nothing decides between embedders, whose vectors do not mix.

    Raises
    ------
    NotFound
        Nothing embeds under this name, or nothing that this caller may use.
    NoEligible
        What embeds under this name has no deployment that meets what is demanded, is not allowed by the request, or
        costs more. How long embedding takes is not predicted: ``max_latency_s`` excludes nobody.
    InvalidRequest
        A policy in the body, or a preset nobody configured.
    """
    model = state.meant(asked.model)
    if model not in state.embedders or not principal.may_use(model):
        raise NotFound("no such model for embeddings: expected a candidate with embeddings = true", param="model")
    without_policy(state, asked)
    # Nothing is decided by what is embedded, so nothing of it is kept; asking for more than the key's is a mistake.
    _retention(state, principal, asked)
    demand = _demand(principal, None, asked)
    deployments = _meeting(state, demand)
    constraints = _constraints(state, principal, None, asked.dials, demand)
    n_tokens = asked.prompt.shape.n_characters * DEFAULT_TOKENS_PER_CHARACTER

    def why_not(name: str) -> str | None:
        if why := refused_by_name(name, constraints):
            return why
        most_usd = constraints.max_cost_usd
        if most_usd is None:
            return None
        (usd,) = expected_costs_usd([state.embedders[name].price], [n_tokens], [0.0])
        return None if usd <= most_usd else "max_cost_usd"  # an unknown cost (NaN) fails

    if why := why_not(model):
        raise _nobody(NoEligibleCandidate({model: why}), principal)
    decision = replace(unforeseen(state, model), binding="designated", reason="the caller named it")
    stand_ins = (name for name in state.failover.get(model, ()) if principal.may_use(name) and why_not(name) is None)
    return Decided(
        decision,
        (model, *stand_ins),
        deployments,
        model,
        priority=_priority(principal, None, asked),
        demand=demand,
        is_explained=asked.dials.explain,
    )


def turn_in(
    conversations: Conversations, state: State, principal: Principal, asked: Asked, headers: Headers, raw: bytes
) -> Turn | None:
    """Find a request's place in its conversation; a candidate asked for by name answers in any case, so has none.

    Dials do not tell conversations apart: they may change within one, and a pending call stays where it is.
    """
    model = state.meant(asked.model)
    if model in state.candidates:
        return None
    return conversations.turn_of(
        (principal.name, model),
        asked.body,
        headers,
        n_messages=asked.prompt.shape.n_messages,
        raw=raw,
        keep_for_s=state.settings.routing.conversations_keep_for_s,
    )


def meets(state: State, principal: Principal, asked: Asked, scenario: Scenario | None = None) -> Container[str]:
    """Return the deployments that may see a request of this caller's, whatever is done with it."""
    return _meeting(state, _demand(principal, scenario, asked))


def _priority(principal: Principal, scenario: Scenario | None, asked: Asked) -> str:
    """Return the class of a request: its own word, the scenario's, else normal; never above the key's."""
    own = asked.dials.priority
    if own is None and scenario is None and principal.priority != "batch":
        return "normal"
    if own is not None and PRIORITIES.index(own) < PRIORITIES.index(principal.priority):
        raise InvalidRequest(f"priority: this key may ask for {principal.priority} at most", param="priority")
    wanted = own or (scenario.priority if scenario else None) or "normal"
    return max(wanted, principal.priority, key=PRIORITIES.index)


def _retention(state: State, principal: Principal, asked: Asked) -> str:
    """Return what may be kept of a prompt: the key's own level, or the lower one that the request asks for."""
    most = principal.retention or state.settings.log.retention
    own = asked.dials.retention
    if own is None:
        return most
    if RETENTIONS.index(own) > RETENTIONS.index(most):
        raise InvalidRequest(f"retention: this key has {most} kept; a request may only ask for less", param="retention")
    return own


def _demand(principal: Principal, scenario: Scenario | None, asked: Asked) -> Demand:
    """Add up what key, scenario and request demand: each may only tighten."""
    demand = principal.demand.also(asked.dials.demand)
    return demand.also(scenario.demand) if scenario else demand


def _meeting(state: State, demand: Demand) -> Container[str]:
    """Return the deployments that meet a demand."""
    if demand is NO_DEMAND:
        return state.deployments
    return frozenset(
        name for name, one in state.deployments.items() if demand.unmet_by(one.region, one.data_policies) is None
    )


def _unmet(state: State, demand: Demand) -> dict[str, str]:
    """Return the candidates without a deployment that meets a demand, and what they lack."""
    if demand is NO_DEMAND:
        return {}
    lacking: dict[str, str] = {}
    meeting = set()
    for one in state.deployments.values():
        why = demand.unmet_by(one.region, one.data_policies)
        if why is None:
            meeting.add(one.candidate)
        elif lacking.get(one.candidate) != "data_policy":  # of two deployments the one that came closer is told
            lacking[one.candidate] = why
    return {candidate: why for candidate, why in lacking.items() if candidate not in meeting}


def _constraints(
    state: State, principal: Principal, scenario: Scenario | None, dials: Dials, demand: Demand
) -> Constraints:
    """Add what the key may not use, the scenario's pool and limits, and the demands to what the caller refuses."""
    own = dials.constraints
    if not principal.models and scenario is None and demand is NO_DEMAND and not dials.also_allow:
        return own
    ruled_out = _unmet(state, demand)
    if dials.also_allow:
        ruled_out.update((name, "allow") for name in state.everyone if not is_any(name, dials.also_allow))
    if scenario is not None:
        ruled_out.update(scenario.ruled_out)
        own = replace(
            own,
            max_cost_usd=_least(own.max_cost_usd, scenario.max_cost_usd),
            max_latency_s=_least(own.max_latency_s, scenario.max_latency_s),
        )
    if principal.models:
        ruled_out.update((name, "deny") for name in state.candidates if not principal.may_use(name))
    return replace(own, ruled_out=ruled_out) if ruled_out else own


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _policy(state: State, course: Course, asked: Asked) -> Policy:
    """Return the caller's own policy, else that of the course, else the default."""
    dials = asked.dials
    if course.preset and course.rule is None and dials.policy is not None:
        raise InvalidRequest(
            f"model {course.model!r} names a preset, so no other policy may be asked for", param="model"
        )
    own = course.entry.setting.policy if course.entry else None
    wanted = dials.policy or own or course.preset or (course.scenario.policy if course.scenario else None)
    try:
        return course.router(state).policy(wanted or state.settings.routing.default)
    except InvalidPolicy as error:
        param = dials.policy_param or "model"
        raise InvalidRequest(f"{param}: {error}", param=param) from error


def _nobody(error: NoEligibleCandidate, principal: Principal) -> NoEligible:
    """Say why nobody may answer, without the names that the caller may not know."""
    seen = {name: why for name, why in error.excluded.items() if principal.may_use(name)}
    return NoEligible(str(NoEligibleCandidate(seen)), param="model")
