"""Deciding: from what a caller asked for to a decision of the router.

A model name either asks for a decision (``auto``, ``auto:PRESET``) or designates a candidate. What a key may
not use is filtered out of the first and does not exist for the second. Synchronous, and pure but for reading
how fast candidates are.
"""

from __future__ import annotations

from dataclasses import replace

from router import Constraints, Decision, InvalidPolicy, NoEligibleCandidate, Policy, Prompt
from router.history import History
from serving.asked import Asked, Headers
from serving.conversations import Conversations, Turn
from serving.dials import Dials
from serving.errors import InvalidRequest, NoEligible, NotFound
from serving.keys import Principal
from serving.pool import Pool
from serving.state import State

#: Filters that are the caller's own word; a designated candidate passes all others, the caller having chosen it.
_CALLERS_OWN = frozenset({"allow", "deny", "max_cost_usd"})
_DESIGNATED = Policy("designated", 0.0)
_GLOB = frozenset("*?[")


def decide(
    state: State,
    pool: Pool,
    principal: Principal,
    model: str,
    dials: Dials,
    prompt: Prompt,
    history: History | None = None,
) -> Decision:
    """Decide who answers one request.

    Parameters
    ----------
    state : State
    pool : Pool
        Says how fast candidates are, for the policy kind ``latency``, for ``max_latency_s`` and for forecasts.
    principal : Principal
        Who asks; limits the candidates.
    model : str
        As the caller wrote it.
    dials : Dials
    prompt : Prompt
    history : History or None
        Of the conversation it goes on with; without effect on a candidate asked for by name.

    Returns
    -------
    Decision

    Raises
    ------
    NotFound
        A model name that is nothing here, or nothing to this caller.
    InvalidRequest
        Two policies at once, or a preset nobody configured.
    NoEligible
        Every candidate was filtered out.
    """
    if model in state.candidates and principal.may_use(model):
        return _designated(state, model, dials.constraints, prompt)
    if model not in state.aliases:
        raise NotFound(
            "no such model: expected auto, auto:PRESET or a candidate that GET /v1/models lists", param="model"
        )
    policy = _policy(state, model, dials)
    try:
        return state.router.route(
            prompt,
            policy,
            _within(state, principal, dials.constraints),
            pool.speeds(),
            history,
        )
    except NoEligibleCandidate as error:
        seen = {name: why for name, why in error.excluded.items() if principal.may_use(name)}
        raise NoEligible(str(NoEligibleCandidate(seen)), param="model") from error


def embedder(state: State, principal: Principal, model: str) -> Decision:
    """Find the candidate that embeds under a name; nothing decides between embedders, whose vectors do not mix.

    Raises
    ------
    NotFound
        Nothing embeds under this name, or nothing that this caller may use.
    """
    if model not in state.embedders or not principal.may_use(model):
        raise NotFound("no such model for embeddings: expected a candidate with embeddings = true", param="model")
    return replace(_unforeseen(state, model), binding="designated", reason="the caller named it")


def turn_in(
    conversations: Conversations,
    state: State,
    principal: Principal,
    model: str,
    asked: Asked,
    headers: Headers,
    raw: bytes,
) -> Turn | None:
    """Find a request's place in its conversation; a candidate asked for by name answers in any case, so has none."""
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


def order_of(state: State, principal: Principal, decision: Decision) -> tuple[str, ...]:
    """Return who may answer, best first: the ranking, or of a designated candidate its own list of stand-ins."""
    if decision.binding != "designated":
        return decision.ranking
    stand_ins = state.failover.get(decision.candidate, ())
    return (decision.candidate, *(name for name in stand_ins if principal.may_use(name)))


def models_for(state: State, principal: Principal) -> tuple[str, ...]:
    """Return every model name a caller may ask for: auto and its presets, candidates, what embeds, exact aliases."""
    named = (*state.candidates, *state.embedders)
    renamed = (
        name for name, to in state.settings.aliases.items() if not _GLOB & set(name) and _is_known(state, principal, to)
    )
    return (*state.aliases, *(name for name in named if principal.may_use(name)), *renamed)


def _is_known(state: State, principal: Principal, name: str) -> bool:
    return name in state.aliases or principal.may_use(name)


def _policy(state: State, model: str, dials: Dials) -> Policy:
    preset = model.partition(":")[2]
    if preset and dials.policy is not None:
        raise InvalidRequest(f"model {model!r} names a preset, so no other policy may be asked for", param="model")
    try:
        return state.router.policy(preset or dials.policy or state.settings.routing.default)
    except InvalidPolicy as error:
        param = dials.policy_param or "model"
        raise InvalidRequest(f"{param}: {error}", param=param) from error


def _within(state: State, principal: Principal, constraints: Constraints) -> Constraints:
    """Add what the key may not use to what the caller refuses."""
    if not principal.models:
        return constraints
    forbidden = tuple(name for name in state.candidates if not principal.may_use(name))
    return replace(constraints, deny=(*constraints.deny, *forbidden)) if forbidden else constraints


def _designated(state: State, name: str, constraints: Constraints, prompt: Prompt) -> Decision:
    """Make the decision for a candidate the caller named: forecast where the bundle can, made in any case."""
    others = tuple(other for other in state.candidates if other != name)
    try:
        decision = state.router.route(prompt, None, replace(constraints, deny=(*constraints.deny, *others)))
    except NoEligibleCandidate as error:
        if error.excluded[name] in _CALLERS_OWN:
            raise NoEligible(str(error), param="model") from error
        decision = _unforeseen(state, name)
    return replace(decision, policy=_DESIGNATED, binding="designated", reason="the caller named it")


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
