"""The tables of the strategies: ``[scenarios.NAME]``, and ``[[rules]]`` that lead to them.

What a single table contradicts is told here; what its names lead to is judged by :mod:`serving.references`, and what
rules mean by :mod:`serving.rules`. Entry points: :class:`ScenarioSettings`, :class:`RuleSettings`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from router.domain import Policy
from serving import tables
from serving.demand import Demand
from serving.keys import PRIORITIES
from serving.tables import about

#: What a model name begins with that asks for a scenario.
SCENARIO = "scenario:"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MODALITIES = ("text", "image", "audio", "file")
CLIENT_DIALECTS = ("chat", "responses", "messages", "completions")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|24:00)")
_LANGUAGE = re.compile(r"[a-z]{2}")


def _globs(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(glob, str) and glob for glob in value):
        raise ValueError('a list of at least one name or glob, such as ["web-*"]')
    return tuple(value)


def _some_of(*words: str) -> tables.Check:
    def check(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not value or any(one not in words for one in value):
            raise ValueError(f"a list of at least one of {', '.join(words)}")
        return tuple(value)

    return check


def _metadata(value: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict) or not value:
        raise ValueError('a table of names and globs, such as { team = ["search-*"] }')
    return {name: _globs([globs] if isinstance(globs, str) else globs) for name, globs in value.items()}


def _languages(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(x, str) and _LANGUAGE.fullmatch(x) for x in value)
    ):
        raise ValueError('a list of ISO 639-1 codes, such as ["de", "fr"]')
    return tuple(value)


def _hours(value: object) -> tuple[tuple[int, int], ...]:
    """Accept windows of the day; return each as its first minute and its length in minutes."""
    windows = [value] if isinstance(value, str) else value
    if not isinstance(windows, list) or not windows:
        raise ValueError('hours such as "22:00-06:00", or a list of them')
    read = []
    for window in windows:
        match = _HOURS.fullmatch(window) if isinstance(window, str) else None
        if match is None:
            raise ValueError('hours such as "22:00-06:00", or a list of them')
        first = int(match[1]) * 60 + int(match[2])
        end = 1440 if match[3] is None else int(match[3]) * 60 + int(match[4])
        if first == end:
            raise ValueError("hours that begin and end at different times")
        read.append((first, (end - first) % 1440 or 1440))
    return tuple(read)


def _time_zone(value: object) -> str:
    try:
        ZoneInfo(str(value))
    except (OSError, ValueError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError("an IANA time zone, such as Europe/Berlin") from None
    except KeyError:
        raise ValueError("an IANA time zone that this machine knows, such as Europe/Berlin") from None
    return str(value)


_probability = tables.number(0)


def _at_most_one(value: object) -> float:
    number = _probability(value)
    assert isinstance(number, float)
    if number > 1:
        raise ValueError("a number of at least 0 and at most 1")
    return number


def policy_set(
    threshold: float | None, willingness_to_pay_usd: float | None, preset: str | None
) -> Policy | str | None:
    """Return the policy that a table sets, or the name of one; None where it sets none."""
    if threshold is not None:
        return Policy("threshold", threshold)
    if willingness_to_pay_usd is not None:
        return Policy("willingness_to_pay_usd", willingness_to_pay_usd)
    return preset


def exclusive(given: Sequence[str]) -> list[str]:
    """Say that only one of some keys of a table may be given, as the rest of a line that begins with its path."""
    return [f".{given[1]}: {' and '.join(given)} exclude each other: expected one of them"] if given[1:] else []


def uncapped(explore_share: float, max_usd_per_day: float) -> list[str]:
    """Say, as the rest of a line, that exploring is never without a cap."""
    if not explore_share or max_usd_per_day:
        return []
    return [f".explore_share = {explore_share:g}: expected explore_max_usd_per_day beside it, above 0"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario over one pool, ready to decide by.

    Parameters
    ----------
    policy : Policy, str or None
        A policy, a preset's name, or None for ``routing.default``.
    candidate : str or None
        Who is designated instead of a policy.
    ruled_out : Mapping of str to str
        Candidates outside its pool, and why.
    """

    name: str
    policy: Policy | str | None
    candidate: str | None
    ruled_out: Mapping[str, str]
    max_cost_usd: float | None
    max_latency_s: float | None
    demand: Demand
    priority: str | None


@dataclass(frozen=True, slots=True)
class ScenarioSettings:
    """``[scenarios.NAME]``: a pool, a policy and limits under a name, asked for as ``scenario:NAME`` or by a rule."""

    description: str = field(default="", metadata=about(tables.path, "For people."))
    candidates: tuple[str, ...] = field(
        default=("*",), metadata=about(_globs, "Globs on the candidates of its pool; each must match one.")
    )
    preset: str | None = field(
        default=None,
        metadata=about(tables.name, "Its policy by name; this or one of the next three; none: routing.default."),
    )
    threshold: float | None = field(
        default=None, metadata=about(_at_most_one, "Cheapest candidate predicted to reach this quality.")
    )
    willingness_to_pay_usd: float | None = field(
        default=None, metadata=about(tables.number(0), "USD that a whole unit of quality is worth.", "USD")
    )
    candidate: str | None = field(
        default=None, metadata=about(tables.name, "No prediction: this candidate, with its own list of stand-ins.")
    )
    max_cost_usd: float | None = field(
        default=None, metadata=about(tables.number(0), "Upper bound on the expected cost of a call.", "USD")
    )
    max_latency_s: float | None = field(
        default=None, metadata=about(tables.number(0, is_open=True), "Upper bound on the expected latency.", "s")
    )
    regions: tuple[str, ...] = field(
        default=(), metadata=about(tables.labels, "Only deployments known to be in one of these regions.")
    )
    data_policies: tuple[str, ...] = field(
        default=(), metadata=about(tables.labels, "Only deployments known to keep all of these data policies.")
    )
    priority: str | None = field(
        default=None, metadata=about(tables.choice(*PRIORITIES), "high, normal or batch, as far as the key allows.")
    )
    explore_share: float = field(
        default=0.0,
        metadata=about(
            tables.share(),
            "Probability with which a request is answered by a candidate drawn among all that may be explored; "
            "0 is never.",
        ),
    )
    explore_max_usd_per_day: float = field(
        default=0.0,
        metadata=about(
            tables.number(0),
            "What that may cost a day (UTC, each process) more than the policy's own choices were expected to.",
            "USD",
        ),
    )

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as the rest of a line that begins with the table's path."""
        policies = ("preset", "threshold", "willingness_to_pay_usd", "candidate")
        problems = exclusive([key for key in policies if getattr(self, key) is not None])
        if self.explore_share and self.candidate is not None:
            problems.append(f".explore_share = {self.explore_share:g}: nothing is decided where a candidate is named")
        return problems + uncapped(self.explore_share, self.explore_max_usd_per_day)

    def admits(self, candidate: str) -> bool:
        """Say whether a candidate is in its pool."""
        return any(fnmatchcase(candidate, glob) for glob in self.candidates)

    def demand(self) -> Demand:
        """Return what it demands of deployments."""
        return Demand.of(self.regions, self.data_policies)

    def policy(self) -> Policy | str | None:
        """Return its policy or the name of one; None where it names none or a candidate."""
        return policy_set(self.threshold, self.willingness_to_pay_usd, self.preset)

    def over(self, name: str, candidates: Iterable[str]) -> Scenario:
        """Return the scenario over a pool."""
        return Scenario(
            name=name,
            policy=self.policy(),
            candidate=self.candidate,
            ruled_out={candidate: "scenario" for candidate in candidates if not self.admits(candidate)},
            max_cost_usd=self.max_cost_usd,
            max_latency_s=self.max_latency_s,
            demand=self.demand(),
            priority=self.priority,
        )


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """``[[rules]]``: where requests go for which all of its conditions hold; the first rule that matches decides."""

    name: str = field(metadata=about(tables.name, "Stands in records and explanations."))
    scenario: str = field(metadata=about(tables.name, "A scenario's name, auto:PRESET or a candidate."))
    models: tuple[str, ...] = field(
        default=("auto",),
        metadata=about(
            _globs,
            "Globs on the model name, as sent or as an alias makes it. Rules act on what means auto, and on names that "
            "mean nothing else; what names a preset, a scenario or a candidate passes them by.",
        ),
    )
    keys: tuple[str, ...] | None = field(default=None, metadata=about(_globs, "Globs on the name of the key."))
    projects: tuple[str, ...] | None = field(default=None, metadata=about(_globs, "Globs on the key's project."))
    teams: tuple[str, ...] | None = field(default=None, metadata=about(_globs, "Globs on the key's team."))
    metadata: Mapping[str, tuple[str, ...]] | None = field(
        default=None,
        metadata=about(_metadata, "Name to globs: strings that the body's metadata object must hold, every name."),
    )
    apis: tuple[str, ...] | None = field(
        default=None,
        metadata=about(_some_of(*CLIENT_DIALECTS), "By which API it came: chat, responses, messages or completions."),
    )
    has_tools: bool | None = field(default=None, metadata=about(tables.flag, "Whether it offers tools."))
    modalities: tuple[str, ...] | None = field(
        default=None,
        metadata=about(_some_of(*MODALITIES), "What it holds: image, audio, file; text where it holds nothing else."),
    )
    min_input_tokens: int | None = field(
        default=None, metadata=about(tables.count(0), "Least input, estimated at four characters a token.", "tokens")
    )
    max_input_tokens: int | None = field(
        default=None, metadata=about(tables.count(0), "Most input, estimated likewise.", "tokens")
    )
    tasks: tuple[str, ...] | None = field(
        default=None, metadata=about(_globs, "Globs on the kind of task that the bundle predicts.")
    )
    min_task_probability: float | None = field(
        default=None, metadata=about(_at_most_one, "How probable that kind must be; with tasks.")
    )
    languages: tuple[str, ...] | None = field(
        default=None,
        metadata=about(_languages, "Language of the human text, ISO 639-1; too short a text has none. Costs 120 MB."),
    )
    hours: tuple[tuple[int, int], ...] | None = field(
        default=None, metadata=about(_hours, 'Time of day, such as "22:00-06:00", or a list of such.')
    )
    days: tuple[str, ...] | None = field(
        default=None,
        metadata=about(_some_of(*DAYS), "mon to sun; hours past midnight belong to the day on which they began."),
    )
    time_zone: str = field(default="UTC", metadata=about(_time_zone, "Of hours and days."))

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as the rest of a line that begins with the table's path."""
        problems = []
        low, high = self.min_input_tokens or 0, self.max_input_tokens
        if high is not None and high < low:
            problems.append(f".max_input_tokens = {high}: expected at least min_input_tokens, {low}")
        if self.min_task_probability is not None and self.tasks is None:
            problems.append(".min_task_probability: says nothing without tasks")
        if self.time_zone != "UTC" and self.hours is None and self.days is None:
            problems.append(".time_zone: says nothing without hours or days")
        return problems
