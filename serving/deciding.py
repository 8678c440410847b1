"""Deciding: from what a caller asked for to a decision of the router.

A model name asks for a decision (``auto``, ``auto:PRESET``, ``scenario:NAME``) or designates a candidate; plain
``auto`` goes where the first matching rule leads. :func:`decide` reads top to bottom: the course (by name, by rule),
what is demanded of deployments, who is left, who is best. What a key may not use is filtered out of decisions and does
not exist by name; demands of key, scenario and request add up, and who meets them is settled before anything is
ranked. Synchronous, and pure but for reading how fast candidates are and, for rules that ask, the time.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from router import Constraints, Decision, InvalidPolicy, NoEligibleCandidate, Policy
from router.history import History
from router.routing import Foresight
from serving.asked import Asked, Headers
from serving.conversations import Conversations, Turn
from serving.course import Course, course_of
from serving.demand import NO_DEMAND, Demand
from serving.errors import InvalidRequest, NoEligible, NotFound
from serving.keys import PRIORITIES, Principal
from serving.pool import Pool
from serving.scenario_settings import Scenario
from serving.state import State

#: Filters that somebody set; a designated candidate passes all others, the caller having chosen it.
_SET_BY_SOMEBODY = frozenset({"allow", "deny", "max_cost_usd", "max_latency_s", "region", "data_policy", "scenario"})
_DESIGNATED = Policy("designated", 0.0)


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


def decide(
    state: State,
    pool: Pool,
    principal: Principal,
    asked: Asked,
    api: str = "",
    at_unix_s: float | None = None,
    history: History | None = None,
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
    history : History or None
        Of the conversation it goes on with; without effect on a candidate that was named.

    Returns
    -------
    Decided

    Raises
    ------
    NotFound
        A model name that is nothing here, or nothing to this caller.
    InvalidRequest
        Two policies at once, a preset nobody configured, or a priority above the key's.
    NoEligible
        Every candidate was filtered out.
    """
    dials = asked.dials
    course = course_of(state, principal, asked, api, at_unix_s)
    scenario = course.scenario
    priority = _priority(principal, scenario, asked)
    demand = _demand(principal, scenario, asked)
    deployments = _meeting(state, demand)
    constraints = _constraints(state, principal, scenario, dials.constraints, demand)
    candidate = course.candidate or (scenario.candidate if scenario else None)
    # The caller's policy goes before the scenario's, or the rule's; who names a candidate wants that one.
    is_designated = candidate is not None and (dials.policy is None or (course.rule is None and scenario is None))
    if candidate is not None and is_designated:
        decision = _designated(state, candidate, constraints, asked, course.foresight)
        order = (candidate, *_stand_ins(state, principal, decision, constraints))
    else:
        policy = _policy(state, course, asked)
        if policy.kind == "latency" and priority == "batch":
            policy = replace(policy, kind="threshold")  # who is in no hurry pays for none
        try:
            decision = state.router.route(
                asked.prompt,
                policy,
                constraints,
                pool.speeds(),
                foresight=course.foresight,
                history=history,
            )
        except NoEligibleCandidate as error:
            raise _nobody(error, principal) from error
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
    )


def embedder(state: State, principal: Principal, asked: Asked) -> Decided:
    """Find the candidate that embeds under a name; nothing decides between embedders, whose vectors do not mix.

    Raises
    ------
    NotFound
        Nothing embeds under this name, or nothing that this caller may use.
    NoEligible
        What embeds under this name has no deployment that meets what is demanded.
    """
    model = state.meant(asked.model)
    if model not in state.embedders or not principal.may_use(model):
        raise NotFound("no such model for embeddings: expected a candidate with embeddings = true", param="model")
    demand = _demand(principal, None, asked)
    deployments = _meeting(state, demand)
    if why := _unmet(state, demand).get(model):
        raise _nobody(NoEligibleCandidate({model: why}), principal)
    decision = replace(_unforeseen(state, model), binding="designated", reason="the caller named it")
    stand_ins = tuple(name for name in state.failover.get(model, ()) if principal.may_use(name))
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
    """Find a request's place in its conversation; a candidate asked for by name answers in any case, so has none."""
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


def meets(state: State, principal: Principal, asked: Asked) -> Container[str]:
    """Return the deployments that may see a request of this caller's, whatever is done with it."""
    return _meeting(state, _demand(principal, None, asked))


def _priority(principal: Principal, scenario: Scenario | None, asked: Asked) -> str:
    """Return the class of a request: its own word, the scenario's, else normal; never above the key's."""
    own = asked.dials.priority
    if own is None and scenario is None and principal.priority != "batch":
        return "normal"
    if own is not None and PRIORITIES.index(own) < PRIORITIES.index(principal.priority):
        raise InvalidRequest(f"priority: this key may ask for {principal.priority} at most", param="priority")
    wanted = own or (scenario.priority if scenario else None) or "normal"
    return max(wanted, principal.priority, key=PRIORITIES.index)


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
    state: State, principal: Principal, scenario: Scenario | None, own: Constraints, demand: Demand
) -> Constraints:
    """Add what the key may not use, the scenario's pool and limits, and the demands to what the caller refuses."""
    if not principal.models and scenario is None and demand is NO_DEMAND:
        return own
    ruled_out = _unmet(state, demand)
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
    wanted = dials.policy or course.preset or (course.scenario.policy if course.scenario else None)
    try:
        return state.router.policy(wanted or state.settings.routing.default)
    except InvalidPolicy as error:
        param = dials.policy_param or "model"
        raise InvalidRequest(f"{param}: {error}", param=param) from error


def _designated(
    state: State,
    name: str,
    constraints: Constraints,
    asked: Asked,
    foresight: Foresight | None,
) -> Decision:
    """Make the decision for a candidate that was named: forecast where the bundle can, made in any case."""
    others = tuple(other for other in state.candidates if other != name)
    # Names, not globs: a candidate's name may hold neither * nor ? nor [.
    alone = replace(constraints, deny=(*constraints.deny, *others))
    try:
        decision = state.router.route(asked.prompt, None, alone, foresight=foresight)
    except NoEligibleCandidate as error:
        if error.excluded[name] in _SET_BY_SOMEBODY:
            raise NoEligible(str(NoEligibleCandidate({name: error.excluded[name]})), param="model") from error
        decision = _unforeseen(state, name)
    named_by = "the caller" if asked.model == name or state.meant(asked.model) == name else "the scenario or rule"
    return replace(decision, policy=_DESIGNATED, binding="designated", reason=f"{named_by} named it")


def _stand_ins(state: State, principal: Principal, decision: Decision, constraints: Constraints) -> tuple[str, ...]:
    """Return who may stand in for a designated candidate: of its own list those that nobody refuses."""
    outlook = decision.outlook
    cost_usd = {} if outlook is None else dict(zip(outlook.candidates, outlook.cost_usd, strict=True))
    most_usd = constraints.max_cost_usd

    def may(name: str) -> bool:
        if not principal.may_use(name) or name in constraints.ruled_out:
            return False
        if any(fnmatchcase(name, glob) for glob in constraints.deny):
            return False
        if constraints.allow and not any(fnmatchcase(name, glob) for glob in constraints.allow):
            return False
        return most_usd is None or cost_usd.get(name, float("nan")) <= most_usd

    return tuple(name for name in state.failover.get(decision.candidate, ()) if may(name))


def _nobody(error: NoEligibleCandidate, principal: Principal) -> NoEligible:
    """Say why nobody may answer, without the names that the caller may not know."""
    seen = {name: why for name, why in error.excluded.items() if principal.may_use(name)}
    return NoEligible(str(NoEligibleCandidate(seen)), param="model")


def _unforeseen(state: State, name: str) -> Decision:
    """Make a decision without forecasts: the bundle does not know the candidate, or thinks it unable."""
    return Decision(
        candidate=name,
        ranking=(name,),
        policy=_DESIGNATED,
        reason="",
        binding="",
        propensity=1.0,
        bundle=state.bundle_id,
    )
