"""What the names in a config file lead to: candidates, scenarios, stand-ins; and whether anybody is left to answer.

Judged when the file is loaded, as a whole. What only the bundle knows (presets, tasks) is judged where the bundle is
loaded, in :mod:`serving.state`. Entry point: :func:`misled`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from serving.candidate_settings import CandidateSettings
from serving.demand import Demand
from serving.provider_settings import ProviderSettings
from serving.rules import compiled, shadowed
from serving.scenario_settings import SCENARIO, RuleSettings, ScenarioSettings
from serving.tables import NAME_EXPECTED, is_name

AUTO = "auto"
#: Condition of a rule -> what it reads of a key.
_OF_A_KEY: Mapping[str, str] = {"keys": "name", "projects": "project", "teams": "team"}


class KeyNames(Protocol):
    """What is judged of a key; its table stands in :mod:`serving.settings`."""

    @property
    def name(self) -> str:
        """Who it is."""

    @property
    def models(self) -> Sequence[str]:
        """Globs on the candidates it may use; empty allows all."""

    @property
    def project(self) -> str:
        """Whose it is."""

    @property
    def team(self) -> str:
        """The same, one level up."""


def is_auto(name: str) -> bool:
    """Say whether a model name asks for a decision by a preset."""
    return name == AUTO or name.startswith(f"{AUTO}:")


def is_reserved(name: str) -> bool:
    """Say whether a model name can mean nothing but a preset or a scenario."""
    return name.startswith((f"{AUTO}:", SCENARIO))


def misled(
    providers: Sequence[ProviderSettings],
    candidates: Sequence[CandidateSettings],
    scenarios: Mapping[str, ScenarioSettings],
    rules: Sequence[RuleSettings],
    demands: Mapping[str, Demand],
    aliases: Mapping[str, str],
    keys: Sequence[KeyNames] = (),
) -> list[str]:
    """Say which names lead nowhere, or in circles.

    Parameters
    ----------
    providers, candidates : sequences
    scenarios : Mapping of str to ScenarioSettings
    rules : sequence of RuleSettings
    demands : Mapping of str to Demand
        What keys demand, by the path of their table.
    aliases : Mapping of str to str
    keys : sequence of KeyNames
        The configured keys; with none, what rules say of keys is not judged.

    Returns
    -------
    list of str
        One line for everything wrong, beginning with its path.
    """
    by_name = {provider.name: provider for provider in providers}
    answering = [candidate for candidate in candidates if not candidate.embeddings]
    places = {
        candidate.name: [way.conditions(by_name[way.provider]) for way in candidate.deployments]
        for candidate in answering
        if all(way.provider in by_name for way in candidate.deployments)
    }
    problems = list(_circles(candidates))
    for name, scenario in scenarios.items():
        problems += [f"scenarios.{name}{problem}" for problem in _of_scenario(name, scenario, answering, places)]
    for path, demand in demands.items():
        if places and not any(_meets(ways, demand) for ways in places.values()):
            problems.append(f"{path}: no deployment of any candidate is known to meet {demand.said()}")
    known = {candidate.name for candidate in candidates}
    for i, rule in enumerate(rules):
        problems += [f"rules.{i}{problem}" for problem in _of_rule(rule, rules[:i], scenarios, answering, known)]
        problems += [f"rules.{i}{problem}" for problem in _of_nobody(rule, keys)]
    names = [candidate.name for candidate in candidates]
    for i, key in enumerate(keys):
        if key.models and not any(fnmatchcase(name, glob) for name in names for glob in key.models):
            problems.append(f"keys.{i}.models = {list(key.models)!r}: it matches no candidate ({', '.join(names)})")
    made = compiled(rules)
    for later, earlier in shadowed(made):
        late, early = made[later].name, made[earlier].name
        problems.append(f"rules.{later}: {late!r} never decides: whatever it matches, {early!r} matches before")
    for alias, meant in aliases.items():
        if meant.startswith(SCENARIO) and meant.removeprefix(SCENARIO) not in scenarios:
            problems.append(f"aliases.{alias!r} = {meant!r}: expected {_listed(scenarios)}")
    return problems


def _of_scenario(
    name: str,
    scenario: ScenarioSettings,
    answering: Sequence[CandidateSettings],
    places: Mapping[str, Sequence[tuple[str, frozenset[str]]]],
) -> Iterator[str]:
    names = [candidate.name for candidate in answering]
    if is_auto(name) or name in names or ":" in name:
        yield ": expected a name without a colon that is neither auto nor a candidate's"
    elif not is_name(name):
        yield f": expected {NAME_EXPECTED}"
    yield from scenario.contradictions()
    for glob in scenario.candidates:
        if not any(fnmatchcase(one, glob) for one in names):
            yield f".candidates: {glob!r} matches no candidate that answers ({', '.join(names)})"
    chosen = scenario.candidate
    if chosen is not None and chosen not in names:
        yield f".candidate = {chosen!r}: expected a candidate that answers ({', '.join(names)})"
    elif chosen is not None and not scenario.admits(chosen):
        yield f".candidate = {chosen!r}: expected one of its own candidates"
    demand = scenario.demand()
    pool = [one for one in (names if chosen is None else [chosen]) if scenario.admits(one) and one in places]
    if pool and not any(_meets(places[one], demand) for one in pool):
        yield f": its pool is empty: no deployment of {', '.join(pool)} is known to meet {demand.said()}"


def _of_rule(
    rule: RuleSettings,
    before: Sequence[RuleSettings],
    scenarios: Mapping[str, ScenarioSettings],
    answering: Sequence[CandidateSettings],
    known: set[str],
) -> Iterator[str]:
    if rule.name in [other.name for other in before]:
        yield f".name = {rule.name!r}: expected a name not used before"
    yield from rule.contradictions()
    names = {candidate.name for candidate in answering}
    target = rule.scenario.removeprefix(SCENARIO)
    if target not in scenarios and (target != rule.scenario or (target not in names and not is_auto(target))):
        yield f".scenario = {rule.scenario!r}: expected {_listed(scenarios)}, auto:PRESET or the name of a candidate"
    for glob in rule.models:
        if glob in known or glob.startswith((f"{AUTO}:", SCENARIO)):
            yield f".models: {glob!r} means something already; rules act on auto and on names that mean nothing else"


def _of_nobody(rule: RuleSettings, keys: Sequence[KeyNames]) -> Iterator[str]:
    """Say what of a rule keeps every key from it: one of its conditions, or all of them together."""
    wanted = {
        condition: globs
        for condition in ("keys", "projects", "teams")
        if (globs := getattr(rule, condition)) is not None
    }
    if not keys or not wanted:
        return

    def matches(key: KeyNames, condition: str) -> bool:
        word = getattr(key, _OF_A_KEY[condition])
        return bool(word) and any(fnmatchcase(word, glob) for glob in wanted[condition])

    alone = [condition for condition in wanted if not any(matches(key, condition) for key in keys)]
    for condition in alone:
        yield f".{condition} = {list(wanted[condition])!r}: it matches none of [[keys]]"
    if not alone and not any(all(matches(key, condition) for condition in wanted) for key in keys):
        yield f": {' and '.join(wanted)} match none of [[keys]] together"


def _circles(candidates: Sequence[CandidateSettings]) -> Iterator[str]:
    """Find lists of stand-ins that lead back to where they began; each circle is told once, at its first candidate."""
    failover = {candidate.name: candidate.failover for candidate in candidates}
    told: set[frozenset[str]] = set()
    for i, candidate in enumerate(candidates):
        way = _way_back(candidate.name, failover)
        if way and frozenset(way) not in told:
            told.add(frozenset(way))
            yield f"candidates.{i}.failover: it leads in a circle, {' → '.join((*way, candidate.name))}"


def _way_back(start: str, failover: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a shortest way along the lists from a candidate to itself; empty where there is none, or but one step."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    for way in ways:  # grows while it is walked
        for name in failover.get(way[-1], ()):
            if name == start and len(way) > 1:
                return way
            if name not in seen and name != start:
                seen.add(name)
                ways.append((*way, name))
    return ()


def _meets(ways: Sequence[tuple[str, frozenset[str]]], demand: Demand) -> bool:
    return any(demand.unmet_by(region, policies) is None for region, policies in ways)


def _listed(scenarios: Mapping[str, ScenarioSettings]) -> str:
    return f"a scenario ({', '.join(scenarios)})" if scenarios else "a scenario (there is none)"
