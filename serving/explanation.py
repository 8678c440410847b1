"""A decision explained: briefly in response headers, at length for ``POST /v1/route`` and ``turnout explain``. Pure.

Entry points: :func:`headers_of`, :func:`told`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from router import Explanation
from serving.deciding import Decided
from serving.demand import NO_DEMAND
from serving.exploration import Exploration
from serving.rules import Verdict
from serving.shadow import Shadowed

#: Of the explanation in a header; what does not fit is left out: the ranking from its end, the reason, names.
MAX_HEADER_BYTES = 2_048
N_RANKED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledExplanation(Explanation):
    """An explanation, and how the request came to its policy.

    ``rules`` says of every rule whether it matches and what stands against it; ``demand`` is what deployments had to
    meet, as the header ``x-turnout-data-policy`` says it. ``exploration`` is null where nothing is explored; else whom
    chance could choose, or why nobody. ``shadow`` is what the challenger would decide; null where there is none.
    ``arm_share`` is how probably the request came to its arm of the experiment.
    """

    scenario: str | None = None
    rule: str | None = None
    priority: str = "normal"
    demand: str = ""
    rules: tuple[Verdict, ...] = ()
    exploration: Exploration | None = None
    shadow: Shadowed | None = None
    experiment: str | None = None
    arm: str | None = None
    arm_share: float | None = None


def told(
    decided: Decided, rules: tuple[Verdict, ...], may_know: Callable[[str], bool], beside: Shadowed | None = None
) -> RuledExplanation:
    """Explain a decision at length.

    Parameters
    ----------
    decided : Decided
    rules : tuple of Verdict
    may_know : callable (candidate) -> bool
        Whether the caller may know of a candidate; what it may not use does not exist for it.
    beside : Shadowed or None
        What a challenger would decide.
    """
    said, entry = decided.decision.explain(), decided.entry
    known = replace(said, forecasts=tuple(f for f in said.forecasts if may_know(f.candidate)))
    return RuledExplanation(
        **{field.name: getattr(known, field.name) for field in fields(Explanation)},
        scenario=decided.scenario,
        rule=decided.rule,
        priority=decided.priority,
        demand=decided.demand.said(),
        rules=rules,
        exploration=decided.exploration,
        shadow=beside,
        experiment=entry.experiment if entry else None,
        arm=entry.arm if entry else None,
        arm_share=entry.share if entry else None,
    )


def headers_of(decided: Decided) -> tuple[tuple[bytes, bytes], ...]:
    """Return the response headers that say by what it was decided; none where there is nothing to say."""
    decision, entry = decided.decision, decided.entry
    has_course = decided.scenario is not None or decided.rule is not None or entry is not None
    has_demand = decided.demand is not NO_DEMAND
    if not (has_course or has_demand or decided.is_explained or decision.propensity != 1.0):
        return ()
    headers = []
    if entry is not None:
        headers.append((b"x-turnout-experiment", f"{entry.experiment}/{entry.arm}".encode()))
    if decision.propensity != 1.0:
        headers.append((b"x-turnout-propensity", b"%.6g" % decision.propensity))
    if decision.is_explored:
        headers.append((b"x-turnout-explored", b"true"))
    if decided.scenario is not None:
        headers.append((b"x-turnout-scenario", decided.scenario.encode("latin-1", "replace")))
    if decided.rule is not None:
        headers.append((b"x-turnout-rule", decided.rule.encode("latin-1", "replace")))
    if demanded := decided.demand.said():
        headers.append((b"x-turnout-data-policy", demanded.encode("latin-1", "replace")))
    if decided.is_explained:
        headers.append((b"x-turnout-explanation", _compact(decided)))
    return tuple(headers)


def _compact(decided: Decided) -> bytes:
    """Write an explanation as ASCII JSON that fits into a header."""
    decision, outlook = decided.decision, decided.decision.outlook
    at = {} if outlook is None else {name: i for i, name in enumerate(outlook.candidates)}

    def predicted(name: str) -> dict[str, object]:
        if outlook is None or name not in at:
            return {"candidate": name, "quality": None, "cost_usd": None}
        quality, usd = outlook.quality[at[name]], outlook.cost_usd[at[name]]
        return {
            "candidate": name,
            "quality": None if quality != quality else round(quality, 4),
            "cost_usd": None if usd != usd else float(f"{usd:.6g}"),
        }

    ranking = [predicted(name) for name in decided.order[:N_RANKED]]
    said = {
        "scenario": decided.scenario,
        "rule": decided.rule,
        "binding": decision.binding,
        "reason": decision.reason,
        "task": decision.task,
        "ranking": ranking,
    }
    spare = ["rule", "scenario", "binding", "task", "reason"]
    while len(written := json.dumps(said, separators=(",", ":")).encode()) > MAX_HEADER_BYTES and (ranking or spare):
        if ranking:
            ranking.pop()
        else:
            said[spare.pop()] = ""
    return written
