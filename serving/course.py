"""The course of a request: what its model name comes to, by itself or by the first rule that matches.

Plain ``auto``, and a name that means nothing else, goes where the rules lead; without one that matches ``auto`` is
``routing.default`` and the other name does not exist. What names a preset, a scenario or a candidate passes rules by.
Entry points: :func:`course_of`, :func:`tried`, :func:`judged` (for people), :func:`models_for`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from router import Router
from router.foresight import Foresight
from serving.asked import Asked
from serving.assignment import user_of
from serving.conversations import Turn
from serving.errors import NoEligible, NotFound
from serving.keys import Principal
from serving.references import AUTO, is_auto, is_reserved
from serving.rules import Facts, Verdict, first_match, verdicts
from serving.scenario_settings import SCENARIO, Scenario
from serving.state import State
from serving.trial import Entry

_GLOB = frozenset("*?[")


class Course(NamedTuple):
    """What a model name comes to, before anything is known of candidates. A tuple: every request makes one.

    ``preset`` and ``candidate`` are the name's or the rule's own; ``foresight`` is what a rule had predicted; ``entry``
    is its place in an experiment, whose policy and router go before the others.
    """

    model: str
    candidate: str | None = None
    preset: str | None = None
    scenario: Scenario | None = None
    rule: str | None = None
    foresight: Foresight | None = None
    entry: Entry | None = None

    @property
    def acts_on(self) -> str:
        """Return what experiments act on here: auto, auto:PRESET, scenario:NAME; "" for a candidate."""
        if self.candidate is not None:
            return ""
        if self.scenario is not None:
            return SCENARIO + self.scenario.name
        return f"{AUTO}:{self.preset}" if self.preset else AUTO

    def router(self, state: State) -> Router:
        """Return who predicts and ranks."""
        return (self.entry and self.entry.setting.router) or state.router


def judged(
    state: State, principal: Principal, asked: Asked, api: str = "", at_unix_s: float | None = None
) -> tuple[Verdict, ...]:
    """Say of every rule whether it matches a request and why not; where the name passes rules by, that.

    Where a rule leads to a candidate that this caller may not use, its target is "".
    """
    meant = state.meant(asked.model)
    if _means_something(state, principal, meant):
        why = f"models: rules act on auto, and {asked.model} means something else already"
        said = tuple(Verdict(rule.name, rule.scenario, False, why) for rule in state.rules)
    else:
        said = verdicts(state.rules, _facts(state, principal, asked, meant, api, at_unix_s))
    if not principal.models:
        return said
    return tuple(one if _may_know(state, principal, one.scenario) else replace(one, scenario="") for one in said)


def models_for(state: State, principal: Principal) -> tuple[str, ...]:
    """Return every model name a caller may ask for: auto, presets, scenarios, candidates, embedders, exact aliases."""
    named = (*state.candidates, *state.embedders)
    renamed = (
        name for name, to in state.settings.aliases.items() if not _GLOB & set(name) and _is_known(state, principal, to)
    )
    return (*state.aliases, *(name for name in named if principal.may_use(name)), *renamed)


def _means_something(state: State, principal: Principal, meant: str) -> bool:
    """Say whether a name passes rules by: a preset, a scenario, or a candidate that this caller may use."""
    return (meant in state.aliases and meant != AUTO) or (meant in state.candidates and principal.may_use(meant))


def course_of(
    state: State,
    principal: Principal,
    asked: Asked,
    api: str,
    at_unix_s: float | None = None,
    kept_rule: str | None = None,
) -> Course:
    """Find out what a model name comes to.

    Parameters
    ----------
    state : State
    principal : Principal
    asked : Asked
    api : str
    at_unix_s : float or None
        The time, for rules; None is now.
    kept_rule : str or None
        By which rule the turn began that the request goes on with, "" by none; None where rules are free to lead
        elsewhere. A rule that is no longer in the file does not count.

    Returns
    -------
    Course

    Raises
    ------
    NotFound
        A model name that is nothing here, or nothing to this caller.
    NoEligible
        A rule leads to a candidate that this key may not use.
    """
    meant = state.meant(asked.model)
    if _means_something(state, principal, meant):
        return _course_to(state, meant, meant)
    name = meant if meant == AUTO or meant in state.candidates else AUTO
    if kept_rule == "" and meant == AUTO:
        return Course(name)
    if state.rules and not is_reserved(meant):
        facts = _facts(state, principal, asked, meant, api, at_unix_s)
        rule = next((one for one in state.rules if one.name == kept_rule), None) if kept_rule else None
        rule = rule or first_match(state.rules, facts)
        if rule is not None:
            course = _course_to(state, name, rule.scenario)
            if course.candidate is not None and not principal.may_use(course.candidate):
                raise NoEligible("the rule that matches leads to what this key may not use", param="model")
            return course._replace(rule=rule.name, foresight=facts.seen)
        if meant == AUTO:
            return Course(name, foresight=facts.seen)
    if meant != AUTO:
        raise NotFound(
            "no such model: expected auto, auto:PRESET, scenario:NAME or a candidate that GET /v1/models lists",
            param="model",
        )
    return Course(name)


def tried(state: State, course: Course, principal: Principal, asked: Asked, turn: Turn | None) -> Course:
    """Put a request into the experiment that acts on its course, if any; who asks for a policy of its own is in none.

    The unit is found before anything is decided, so that the arm cannot have a say in who takes part.
    """
    trial = state.trials.get(course.acts_on)
    if trial is None or asked.dials.policy is not None or not all(map(principal.may_use, trial.candidates())):
        return course

    def unit_of(kind: str) -> tuple[bytes, ...]:
        if kind == "conversation" and turn is not None:
            return b"conversation", turn.told
        user = user_of(asked.body) if kind == "user" else None
        key = principal.name.encode()
        return (b"key", key) if user is None else (b"user", key, user.encode("utf-8", "surrogatepass"))

    entry = trial.enter(unit_of)
    setting, scenario = entry.setting, course.scenario
    if scenario is not None and (setting.policy is not None or setting.candidate is not None):
        scenario = replace(scenario, policy=setting.policy or scenario.policy, candidate=None)
    return course._replace(entry=entry, scenario=scenario)


def _course_to(state: State, model: str, target: str) -> Course:
    """Return the course that a name of the settings stands for."""
    if target in state.candidates:
        return Course(model, candidate=target)
    if is_auto(target):
        return Course(model, preset=target.partition(":")[2] or None)
    return Course(model, scenario=state.scenarios[target.removeprefix(SCENARIO)])


def _facts(state: State, principal: Principal, asked: Asked, meant: str, api: str, at_unix_s: float | None) -> Facts:
    return Facts(
        principal,
        (asked.model,) if meant == asked.model else (asked.model, meant),
        api,
        asked.body,
        asked.prompt,
        time.time() if at_unix_s is None else at_unix_s,
        lambda: state.router.foresee(asked.prompt),
        state.language_of,
    )


def _may_know(state: State, principal: Principal, target: str) -> bool:
    return target not in state.candidates or principal.may_use(target)


def _is_known(state: State, principal: Principal, name: str) -> bool:
    return name in state.aliases or principal.may_use(name)
