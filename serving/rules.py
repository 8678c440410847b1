"""Rules: which scenario a request goes to, by the first rule of the file of which every condition holds.

A condition is one of four kinds (words, a range, yes or no, times of the week), reads one fact and can say whether
another condition implies it; so a rule that can never be the first to match is found when the file is loaded
(:func:`shadowed`). Facts that cost something (a prediction, a language, a walk through the body) are found out when the
first rule asks for them, and conditions stand from cheap to dear. Pure: the time is handed in.

Entry points: :func:`compiled`, :func:`first_match`, :func:`verdicts`, :class:`Facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf
from typing import Protocol
from zoneinfo import ZoneInfo

from router import Prompt
from router.foresight import Foresight
from router.routing import DEFAULT_TOKENS_PER_CHARACTER
from serving.keys import Principal
from serving.modalities import modalities_of
from serving.scenario_settings import DAYS, RuleSettings

_WILD = frozenset("*?[")
MINUTES_OF_DAY, MINUTES_OF_WEEK = 1440, 7 * 1440


class Facts:
    """What rules may look at of one request.

    Parameters
    ----------
    principal : Principal
    models : tuple of str
        The name asked for, and what an alias makes of it.
    api : str
        By which it came, such as "messages".
    body : Mapping
    prompt : Prompt
    now_unix_s : float
    foresee : callable () -> Foresight
        Predicts.
    language_of : callable (text) -> str or None
    """

    def __init__(
        self,
        principal: Principal,
        models: tuple[str, ...],
        api: str,
        body: Mapping[str, object],
        prompt: Prompt,
        now_unix_s: float,
        foresee: Callable[[], Foresight],
        language_of: Callable[[str], str | None],
    ) -> None:
        self.principal = principal
        self.models = models
        self.api = api
        self.prompt = prompt
        self.now_unix_s = now_unix_s
        self._body = body
        self._foresee = foresee
        self._language_of = language_of
        #: What was predicted, where a rule asked for it.
        self.seen: Foresight | None = None

    @property
    def foresight(self) -> Foresight:
        """Return what is predicted; predicted once."""
        if self.seen is None:
            self.seen = self._foresee()
        return self.seen

    @cached_property
    def language(self) -> str | None:
        """Return the language of the human text; None where it cannot be told."""
        return self._language_of(self.prompt.text)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Return what the body holds besides text; ``text`` where that is nothing."""
        return modalities_of(self._body) or ("text",)

    @property
    def input_tokens(self) -> float:
        """Return the estimated length of the input."""
        return self.prompt.shape.n_characters * DEFAULT_TOKENS_PER_CHARACTER

    def metadata(self, name: str) -> tuple[str, ...]:
        """Return a string of the body's ``metadata``, or nothing."""
        held = self._body.get("metadata")
        value = held.get(name) if isinstance(held, Mapping) else None
        return (value,) if isinstance(value, str) else ()

    def minute_of_week(self, zone: tzinfo) -> int:
        """Return the minute since Monday began in a time zone."""
        there = datetime.fromtimestamp(self.now_unix_s, zone)
        return there.weekday() * MINUTES_OF_DAY + there.hour * 60 + there.minute


class Condition(Protocol):
    """One condition of a rule."""

    @property
    def key(self) -> str:
        """The key of the settings."""

    def holds(self, facts: Facts) -> bool:
        """Say whether it holds."""

    def because(self, facts: Facts) -> str:
        """Say in words why it does not."""

    def is_implied_by(self, other: Condition) -> bool:
        """Say whether it surely holds wherever ``other`` does; False where that is not known."""


#: Words of a request, by key of a rule; none where there is nothing to read.
_WORDS: Mapping[str, Callable[[Facts], tuple[str, ...]]] = {
    "keys": lambda facts: (facts.principal.name,),
    "projects": lambda facts: (facts.principal.project,) if facts.principal.project else (),
    "teams": lambda facts: (facts.principal.team,) if facts.principal.team else (),
    "models": lambda facts: facts.models,
    "apis": lambda facts: (facts.api,),
    "modalities": lambda facts: facts.modalities,
    "tasks": lambda facts: (facts.foresight.task,) if facts.foresight.task else (),
    "languages": lambda facts: (facts.language,) if facts.language else (),
}
_NUMBERS: Mapping[str, Callable[[Facts], float]] = {
    "input_tokens": lambda facts: facts.input_tokens,
    "min_task_probability": lambda facts: facts.foresight.task_probability or 0.0,
}
#: Of these a caller is told nothing but that they are others.
_OTHERS_OWN = frozenset({"keys", "projects", "teams"})
#: Their globs may name what a restricted key may not know of.
_OF_NAMES = ("models", "metadata.")


@dataclass(frozen=True, slots=True)
class Words:
    """Some word of the request matches some glob."""

    key: str
    globs: tuple[str, ...]

    def holds(self, facts: Facts) -> bool:
        """Say whether it holds."""
        for word in self._words(facts):  # plain loops: a generator costs more than most comparisons
            for glob in self.globs:
                if word == glob or fnmatchcase(word, glob):
                    return True
        return False

    def because(self, facts: Facts) -> str:
        """Say in words why it does not."""
        is_restricted = bool(facts.principal.models)
        if self.key in _OTHERS_OWN or (is_restricted and self.key.startswith(_OF_NAMES)):
            return f"{self.key}: it is for others"
        words = self._words(facts)
        seen = " and ".join(words) if words else "unknown" if self.key in ("tasks", "languages") else "nothing"
        return f"{self.key}: expected one of {', '.join(self.globs)}, got {seen}"

    def is_implied_by(self, other: Condition) -> bool:
        """Say whether each of the other's globs lies within one of these."""
        if not isinstance(other, Words) or other.key != self.key:
            return False
        return all(any(is_within(inner, outer) for outer in self.globs) for inner in other.globs)

    def _words(self, facts: Facts) -> tuple[str, ...]:
        read = _WORDS.get(self.key)
        return read(facts) if read is not None else facts.metadata(self.key.partition(".")[2])


@dataclass(frozen=True, slots=True)
class Range:
    """A number of the request lies within bounds."""

    key: str
    low: float
    high: float

    def holds(self, facts: Facts) -> bool:
        """Say whether it holds."""
        return self.low <= _NUMBERS[self.key](facts) <= self.high

    def because(self, facts: Facts) -> str:
        """Say in words why it does not."""
        number = _NUMBERS[self.key](facts)
        bound = f"at least {self.low:g}" if number < self.low else f"at most {self.high:g}"
        return f"{self.key}: expected {bound}, got {number:.4g}"

    def is_implied_by(self, other: Condition) -> bool:
        """Say whether the other's bounds lie within these."""
        is_alike = isinstance(other, Range) and other.key == self.key
        return is_alike and self.low <= other.low and other.high <= self.high  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Tools:
    """It offers tools, or none."""

    wanted: bool
    key: str = "has_tools"

    def holds(self, facts: Facts) -> bool:
        """Say whether it holds."""
        return (facts.prompt.shape.n_tools > 0) is self.wanted

    def because(self, facts: Facts) -> str:
        """Say in words why it does not."""
        return f"has_tools: expected {'some' if self.wanted else 'none'}, got {facts.prompt.shape.n_tools}"

    def is_implied_by(self, other: Condition) -> bool:
        """Say whether the other asks for the same."""
        return other == self


@dataclass(frozen=True, slots=True)
class Times:
    """It is one of some minutes of the week: bit i of ``minutes`` is the minute i since Monday began."""

    minutes: int
    time_zone: str
    zone: tzinfo
    key: str = "hours"

    def holds(self, facts: Facts) -> bool:
        """Say whether it holds."""
        return bool(self.minutes >> facts.minute_of_week(self.zone) & 1)

    def because(self, facts: Facts) -> str:
        """Say in words why it does not."""
        day, minute = divmod(facts.minute_of_week(self.zone), MINUTES_OF_DAY)
        there = f"{DAYS[day]} {minute // 60:02}:{minute % 60:02} {self.time_zone}"
        return f"{self.key}: it is {there}, which is outside"

    def is_implied_by(self, other: Condition) -> bool:
        """Say whether the other's minutes are among these; of different time zones that is not known."""
        if not isinstance(other, Times) or other.time_zone != self.time_zone:
            return self.minutes == _EVERY_MINUTE
        return other.minutes & ~self.minutes == 0


_EVERY_MINUTE = (1 << MINUTES_OF_WEEK) - 1


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, its conditions from cheap to dear."""

    name: str
    scenario: str
    conditions: tuple[Condition, ...]

    def first_failed(self, facts: Facts) -> Condition | None:
        """Return the first condition that does not hold; None where the rule matches."""
        for condition in self.conditions:
            if not condition.holds(facts):
                return condition
        return None

    def shadows(self, later: Rule) -> bool:
        """Say whether this one surely matches wherever ``later`` does."""
        return all(any(ours.is_implied_by(theirs) for theirs in later.conditions) for ours in self.conditions)

    def asks_for(self, key: str) -> bool:
        """Say whether a condition reads this."""
        return any(condition.key == key for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule said of a request; ``because`` is None where it matches."""

    rule: str
    scenario: str
    is_match: bool
    because: str | None


def compiled(rules: Iterable[RuleSettings]) -> tuple[Rule, ...]:
    """Make rules of their tables, in the order of the file."""
    return tuple(Rule(rule.name, rule.scenario, tuple(_conditions(rule))) for rule in rules)


def first_match(rules: Sequence[Rule], facts: Facts) -> Rule | None:
    """Return the rule that decides, or None where none matches."""
    return next((rule for rule in rules if rule.first_failed(facts) is None), None)


def verdicts(rules: Sequence[Rule], facts: Facts) -> tuple[Verdict, ...]:
    """Say of every rule whether it matches, and what stands against it; the first match decides."""
    said = []
    for rule in rules:
        failed = rule.first_failed(facts)
        said.append(
            Verdict(rule.name, rule.scenario, failed is None, None if failed is None else failed.because(facts))
        )
    return tuple(said)


def shadowed(rules: Sequence[Rule]) -> list[tuple[int, int]]:
    """Find rules that can never decide, each with the earlier rule that matches wherever it does.

    Sound, not complete: what is found is unreachable; several rules that only together leave nothing over are not.
    """
    found = []
    for i, later in enumerate(rules):
        before = next((j for j, earlier in enumerate(rules[:i]) if earlier.shadows(later)), None)
        if before is not None:
            found.append((i, before))
    return found


def is_within(inner: str, outer: str) -> bool:
    """Say whether every word that one glob matches is surely matched by another."""
    if inner == outer or outer == "*":
        return True
    if not _WILD & set(inner):
        return fnmatchcase(inner, outer)
    # Both match many: known where the outer one is a beginning that the inner one has.
    beginning = outer[:-1]
    return outer.endswith("*") and not _WILD & set(beginning) and inner.startswith(beginning)


def minutes_of(hours: Iterable[tuple[int, int]] | None, days: Iterable[str] | None) -> int:
    """Return minutes of the week as bits; a window past midnight belongs to the day on which it began."""
    minutes = 0
    for day in DAYS if days is None else days:
        for first, n_minutes in hours or ((0, MINUTES_OF_DAY),):
            window = ((1 << n_minutes) - 1) << (DAYS.index(day) * MINUTES_OF_DAY + first)
            minutes |= window | window >> MINUTES_OF_WEEK  # Sunday night goes on on Monday
    return minutes & _EVERY_MINUTE


def _conditions(rule: RuleSettings) -> Iterator[Condition]:
    for key in ("keys", "projects", "teams", "models", "apis"):
        globs = getattr(rule, key)
        if globs is not None:
            yield Words(key, globs)
    if rule.has_tools is not None:
        yield Tools(rule.has_tools)
    if rule.min_input_tokens is not None or rule.max_input_tokens is not None:
        high = inf if rule.max_input_tokens is None else rule.max_input_tokens
        yield Range("input_tokens", rule.min_input_tokens or 0, high)
    for name, globs in (rule.metadata or {}).items():
        yield Words(f"metadata.{name}", globs)
    if rule.hours is not None or rule.days is not None:
        zone = UTC if rule.time_zone == "UTC" else ZoneInfo(rule.time_zone)
        key = "days" if rule.hours is None else "hours" if rule.days is None else "hours and days"
        yield Times(minutes_of(rule.hours, rule.days), rule.time_zone, zone, key)
    for key in ("modalities", "tasks"):
        globs = getattr(rule, key)
        if globs is not None:
            yield Words(key, globs)
    if rule.min_task_probability is not None:
        yield Range("min_task_probability", rule.min_task_probability, 1.0)
    if rule.languages is not None:
        yield Words("languages", rule.languages)
