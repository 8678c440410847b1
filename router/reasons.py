"""Why a candidate was chosen: the constraint that decided, and a sentence for a person.

Entry points: :func:`explained`, and :func:`continued` where a conversation decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain import Policy
from router.history import History
from router.policy import FALL_BELOW


def continued(
    history: History, names: Sequence[str], first: int, alone: int, binding: str, reason: str
) -> tuple[str, str]:
    """Return binding constraint and sentence, changed where the conversation decided."""
    if names[first] == history.incumbent and history.is_pending:
        return "conversation", "the conversation is in the middle of a turn of this candidate's, which goes on with it"
    if first == alone:
        return binding, reason
    if names[first] == history.incumbent:
        return (
            "conversation",
            f"{reason}, once reading the conversation anew is paid for: alone it would be {names[alone]}",
        )
    return binding, f"{reason}, with what is cached of the conversation; alone it would be {names[alone]}"


def explained(policy: Policy, quality: float, n_eligible: int, has_anchor: bool) -> tuple[str, str]:
    """Return the binding constraint and a sentence for a person."""
    if n_eligible == 1:
        return "only_eligible", "the only eligible candidate"
    if policy.anchor is not None and not has_anchor and (policy.kind == FALL_BELOW or policy.margin is not None):
        return "no_anchor", f"{policy.anchor} may not answer here, so nothing is measured from it; the best predicted"
    if policy.kind == FALL_BELOW:
        return policy.kind, f"least expected cost + {policy.value:g} USD · chance of an answer below {policy.anchor}'s"
    if policy.kind == "willingness_to_pay_usd":
        guard = "" if policy.margin is None else f", at least {policy.margin:+g} predicted over {policy.anchor}"
        return policy.kind, f"largest predicted quality · {policy.value:g} USD − expected cost{guard}"
    if policy.kind == "quality_per_usd":
        if quality < policy.value:
            return "none_clears_floor", f"no candidate is predicted to reach {policy.value:g}; the best predicted"
        return "floor", f"most predicted quality per USD among those predicted to reach {policy.value:g}"
    if quality < policy.value:
        return "none_clears_threshold", f"no candidate is predicted to reach {policy.value:g}; the best predicted"
    if policy.kind == "latency":
        return "latency", f"fastest candidate predicted to reach {policy.value:g}"
    return "threshold", f"cheapest candidate predicted to reach {policy.value:g}"
