"""Designation: a candidate that was named, by the caller, a scenario or a rule, instead of being decided for.

It passes the filters of capabilities, since it was chosen; what somebody refuses, and limits on cost and time, hold for
it and for those of its own list that may stand in for it. Entry points: :func:`designated`, :func:`stand_ins`,
:func:`beyond`.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from router import Constraints, Decision, InvalidPolicy, NoEligibleCandidate, Policy
from router.decision import Outlook
from router.domain import NO_CONSTRAINTS
from router.foresight import Foresight
from serving.asked import Asked
from serving.dials import FIELD
from serving.errors import InvalidRequest, NoEligible
from serving.keys import Principal
from serving.pool import Pool
from serving.state import State

#: Filters that somebody set; a designated candidate passes those of capabilities, the caller having chosen it. Limits
#: on cost and time are looked at by themselves: :func:`beyond`.
_SET_BY_SOMEBODY = frozenset({"allow", "deny", "region", "data_policy", "scenario"})
_DESIGNATED = Policy("designated", 0.0)


def designated(
    state: State,
    name: str,
    constraints: Constraints,
    asked: Asked,
    foresight: Foresight | None,
) -> Decision:
    """Make the decision for a candidate that was named: forecast where the bundle can, made in any case."""
    others = tuple(other for other in state.candidates if other != name)
    # Names, not globs: a candidate's name may hold neither * nor ? nor [.
    alone = replace(constraints, deny=(*constraints.deny, *others), max_cost_usd=None, max_latency_s=None)
    try:
        decision = state.router.route(asked.prompt, None, alone, foresight=foresight)
    except NoEligibleCandidate as error:
        if error.excluded[name] in _SET_BY_SOMEBODY:
            raise NoEligible(str(NoEligibleCandidate({name: error.excluded[name]})), param="model") from error
        decision = unforeseen(state, name)
    named_by = "the caller" if asked.model == name or state.meant(asked.model) == name else "the scenario or rule"
    return replace(decision, policy=_DESIGNATED, binding="designated", reason=f"{named_by} named it")


def without_policy(state: State, asked: Asked) -> None:
    """Refuse a policy where a candidate was named, since there is nothing for it to decide.

    In a header it only goes unused, as ``x-turnout-policy`` tells: clients send such headers with all they ask.
    """
    policy, param = asked.dials.policy, asked.dials.policy_param or "model"
    if policy is None:
        return
    try:
        state.router.policy(policy)
    except InvalidPolicy as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from error
    if param.startswith(f"{FIELD}."):
        raise InvalidRequest(f"{param}: the model names a candidate, so there is nothing to decide", param=param)


def limited(
    state: State, pool: Pool, asked: Asked, constraints: Constraints, foresight: Foresight | None
) -> Outlook | None:
    """Predict what limits on cost and time are held against; None where there are none."""
    if constraints.max_cost_usd is None and constraints.max_latency_s is None:
        return None
    seen = foresight or state.router.foresee(asked.prompt)
    return state.router.outlook(asked.prompt, NO_CONSTRAINTS, seen.given, pool.speeds())


def beyond(outlook: Outlook | None, name: str, constraints: Constraints) -> str | None:
    """Return the limit that a named candidate is expected to break, or None.

    An unknown cost breaks a limit on cost, since unknown is not zero; an unknown speed breaks none, since nobody else
    is asked in its place.
    """
    if outlook is None:
        return None
    at = outlook.candidates.index(name)
    most_usd, most_s = constraints.max_cost_usd, constraints.max_latency_s
    if most_usd is not None and not outlook.cost_usd[at] <= most_usd:
        return "max_cost_usd"
    return "max_latency_s" if most_s is not None and outlook.latency_s and outlook.latency_s[at] > most_s else None


def stand_ins(
    state: State, principal: Principal, candidate: str, constraints: Constraints, outlook: Outlook | None
) -> tuple[str, ...]:
    """Return who may stand in for a designated candidate: of its own list those that nobody refuses."""
    return tuple(
        name
        for name in state.failover.get(candidate, ())
        if principal.may_use(name) and not refused_by_name(name, constraints) and not beyond(outlook, name, constraints)
    )


def refused_by_name(name: str, constraints: Constraints) -> str | None:
    """Return the filter by name that removes a candidate, whatever it can do and costs."""
    if why := constraints.ruled_out.get(name):
        return why
    if is_any(name, constraints.deny):
        return "deny"
    return "allow" if constraints.allow and not is_any(name, constraints.allow) else None


def is_any(name: str, globs: tuple[str, ...]) -> bool:
    """Say whether a name matches one of some globs."""
    return any(fnmatchcase(name, glob) for glob in globs)


def unforeseen(state: State, name: str) -> Decision:
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
