"""An experiment as it was defined: what it acts on, its arms, and what stops one of them. Frozen, checked whole.

A definition comes as TOML or JSON and is judged like the settings: every problem is told with its path. Shares are
fixed for an experiment's life: who wants others begins a new one, with a salt of its own. Entry point: :func:`defined`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from math import isclose
from typing import Any

from router.domain import Policy
from serving import tables
from serving.errors import InvalidRequest
from serving.scenario_settings import exclusive, policy_set
from serving.tables import about

UNITS = ("key", "user", "conversation")
#: What is measured of requests, and whether more of it is worse.
METRICS: Mapping[str, bool] = {"cost_usd": True, "quality": False, "latency_s": True, "failures": True}
MOST_ARMS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ON = re.compile(r"auto|(?:auto|scenario):[A-Za-z0-9._:/@+-]{1,128}")
_SETS = ("threshold", "willingness_to_pay_usd", "preset", "candidate")


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("a name of letters, digits and . _ - (at most 64)")
    return value


def _on(value: object) -> str:
    if not isinstance(value, str) or not _ON.fullmatch(value):
        raise ValueError("auto, auto:PRESET or scenario:NAME")
    return value


def _open_share(most: float, *, is_closed: bool = False) -> tables.Check:
    def check(value: object) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (0 < value < most or (is_closed and value == most)):  # type: ignore[operator]
            raise ValueError(f"a number above 0 and {'at most' if is_closed else 'below'} {most:g}")
        return float(value)  # type: ignore[arg-type]

    return check


def _moment(value: object) -> str:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError("a time such as 2026-12-24T18:00:00+01:00; without an offset UTC") from None


@dataclass(frozen=True, slots=True)
class Arm:
    """``[[arms]]``: one of the settings that are compared; one that sets nothing goes by the settings of the file."""

    name: str = field(metadata=about(_name, "Stands in records and in x-turnout-experiment."))
    share: float = field(metadata=about(_open_share(1), "Of the units; all of them together 1."))
    threshold: float | None = field(
        default=None, metadata=about(tables.share(), "Cheapest candidate predicted to reach this quality.")
    )
    willingness_to_pay_usd: float | None = field(
        default=None, metadata=about(tables.number(0), "USD that a whole unit of quality is worth.", "USD")
    )
    preset: str | None = field(default=None, metadata=about(tables.name, "A policy by name."))
    candidate: str | None = field(
        default=None, metadata=about(tables.name, "Who comes first wherever it may answer; then the policy goes on.")
    )
    bundle: str | None = field(
        default=None, metadata=about(tables.text, "Directory of another bundle that predicts, alone or with a policy.")
    )
    bundle_id: str | None = field(
        default=None, metadata=about(tables.text, "What that bundle was when the experiment was made; filled in.")
    )

    def policy(self) -> Policy | str | None:
        """Return the policy that it sets, or the name of one; None where it sets none."""
        return policy_set(self.threshold, self.willingness_to_pay_usd, self.preset)

    def sets(self) -> str:
        """Say for people what it sets: ``threshold=0.6``, ``bundle=mix@2``, ``nothing``."""
        said = [f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in self._given()]
        if self.bundle is not None:
            said.append(f"bundle={self.bundle_id or self.bundle}")
        return ", ".join(said) or "nothing"

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as the rest of a line that begins with the arm's path."""
        problems = exclusive([key for key, _ in self._given()])
        if self.candidate is not None and self.bundle is not None:
            problems.append(".bundle: candidate and bundle exclude each other: nothing is predicted for one candidate")
        return problems

    def _given(self) -> list[tuple[str, object]]:
        return [(key, value) for key in _SETS if (value := getattr(self, key)) is not None]


@dataclass(frozen=True, slots=True)
class Guard:
    """``[[guards]]``: an arm is stopped once it is shown to be worse than the control by more than this."""

    metric: str = field(metadata=about(tables.choice(*METRICS), f"One of {', '.join(METRICS)}."))
    worse_by: float | None = field(
        default=None, metadata=about(tables.number(0), "Difference of means, in the metric's own unit.")
    )
    worse_by_share: float | None = field(
        default=None, metadata=about(tables.number(0), "Difference relative to the control: 0.2 is a fifth worse.")
    )

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, as the rest of a line that begins with the guard's path."""
        if (self.worse_by is None) is (self.worse_by_share is None):
            return [".worse_by: expected worse_by or worse_by_share, one of them"]
        if self.metric == "quality" and self.worse_by_share is not None and self.worse_by_share >= 1:
            return [f".worse_by_share = {self.worse_by_share:g}: expected less than 1: no quality is below 0"]
        return []


@dataclass(frozen=True)
class Experiment:
    """A definition that holds together. The control is the arm of that name, else the first."""

    name: str = field(metadata=about(_name, "Used once: records refer to it for ever."))
    on: str = field(
        metadata=about(
            _on, "What it acts on, auto, auto:PRESET or scenario:NAME, where a request brings no policy of its own."
        )
    )
    arms: tuple[Arm, ...] = field(metadata={"rows": Arm, "help": f"What is compared; 2 to {MOST_ARMS}."})
    unit: str = field(
        default="key",
        metadata=about(
            tables.choice(*UNITS),
            "What stays with its arm: key, user (as the body names it, within its key) or conversation; without a "
            "name the key.",
        ),
    )
    guards: tuple[Guard, ...] = field(default=(), metadata={"rows": Guard, "help": "What stops an arm."})
    metric: str = field(
        default="cost_usd", metadata=about(tables.choice(*METRICS), "What it is about; shown before the others.")
    )
    alpha: float = field(
        default=0.05,
        metadata=about(
            _open_share(0.5, is_closed=True), "Chance that an interval is ever wrong, of each metric and arm by itself."
        ),
    )
    min_units: int = field(
        default=50, metadata=about(tables.count(2), "Units of an arm before anything is said of it; never below 50.")
    )
    ends_at: str | None = field(default=None, metadata=about(_moment, "When it stops by itself."))
    description: str = field(default="", metadata=about(tables.path, "For people."))

    @cached_property
    def control(self) -> Arm:
        """Return the arm that the others are compared with, and that takes over from those that are stopped."""
        return next((arm for arm in self.arms if arm.name == "control"), self.arms[0])

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Return the arms' shares, in their order."""
        return tuple(arm.share for arm in self.arms)

    @property
    def ends_unix_s(self) -> float | None:
        """Return when it stops by itself."""
        return None if self.ends_at is None else datetime.fromisoformat(self.ends_at).timestamp()

    def arm(self, name: str) -> Arm:
        """Return an arm by its name.

        Raises
        ------
        InvalidRequest
            There is none of that name; lists those there are.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise InvalidRequest(f"arm: expected one of {', '.join(arm.name for arm in self.arms)}", param="arm")

    def to_document(self) -> dict[str, object]:
        """Return the definition as :func:`defined` takes it, without what nobody said."""
        return _said(self)

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as a line that begins with its path."""
        problems = []
        if not 2 <= len(self.arms) <= MOST_ARMS:
            problems.append(f"arms: expected 2 to {MOST_ARMS} of them, got {len(self.arms)}")
        elif not isclose(sum(self.shares), 1.0, abs_tol=1e-6):
            problems.append(f"arms: expected shares with sum 1, got {sum(self.shares):g}")
        problems += [f"arms.{i}{problem}" for i, arm in enumerate(self.arms) for problem in arm.contradictions()]
        problems += [f"guards.{i}{problem}" for i, one in enumerate(self.guards) for problem in one.contradictions()]
        for path, names in (
            ("arms.{}.name", [arm.name for arm in self.arms]),
            ("guards.{}.metric", [guard.metric for guard in self.guards]),
        ):
            problems += [
                f"{path.format(i)} = {name!r}: expected one not used before"
                for i, name in enumerate(names)
                if name in names[:i]
            ]
        return problems


def defined(raw: Mapping[str, object]) -> Experiment:
    """Read a definition.

    Parameters
    ----------
    raw : Mapping
        As TOML or JSON gave it.

    Returns
    -------
    Experiment

    Raises
    ------
    InvalidRequest
        With a line for everything wrong; ``param`` is the path of the first.
    """
    problems: list[str] = []
    experiment = tables.read(Experiment, raw, "", problems)
    if experiment is not None:
        problems = experiment.contradictions()
    if experiment is None or problems:
        raise refused(problems)
    return experiment


def refused(problems: list[str]) -> InvalidRequest:
    """Make the error that lists everything wrong with a definition, each line beginning with its path."""
    path = re.match(r"[\w.]*", problems[0])
    return InvalidRequest(
        "the experiment cannot be used: " + "; ".join(problems), param=(path[0] if path else "") or None
    )


def _said(value: Any) -> dict[str, object]:
    """Write a dataclass without the fields that are at their default."""
    written: dict[str, object] = {}
    for one in fields(value):
        given = getattr(value, one.name)
        if given != one.default:
            written[one.name] = [_said(row) for row in given] if "rows" in one.metadata else given
    return written
