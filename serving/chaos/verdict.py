"""What a check is asked, what it measured, and whether that will do. Pure.

Entry points: :class:`Bound` (asked), :class:`Measured`, :func:`judged`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Literal

from serving.chaos.figures import written


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure and where it must stay.

    Parameters
    ----------
    figure : str
        Its name among the figures of the check.
    relation : str
        "<=", ">=" or "=".
    limit : float
    unit : str
        As for :func:`serving.chaos.figures.written`.
    """

    figure: str
    relation: Literal["<=", ">=", "="]
    limit: float
    unit: str = ""

    def holds(self, value: float) -> bool:
        """Say whether a value stays there; NaN never does."""
        if self.relation == "=":
            return value == self.limit
        return value <= self.limit if self.relation == "<=" else value >= self.limit

    def asked(self) -> str:
        """Write it for people."""
        sign = {"<=": "≤", ">=": "≥"}.get(self.relation, "=")
        return f"{self.figure.replace('_', ' ')} {sign} {written(self.limit, self.unit)}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a check found.

    Parameters
    ----------
    figures : Mapping of str to float
        By name; those that bounds name, and others worth knowing.
    note : str
        What a reader must know besides.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One bound, and what came of it; ``value`` is None where nothing was measured, which never will do."""

    bound: Bound
    value: float | None
    is_met: bool

    def measured(self) -> str:
        """Write the value for people."""
        return "not measured" if self.value is None or isnan(self.value) else written(self.value, self.bound.unit)


def judged(bounds: Sequence[Bound], measured: Measured) -> list[Judgement]:
    """Hold figures against bounds; unknown is not met."""
    found = []
    for bound in bounds:
        value = measured.figures.get(bound.figure)
        found.append(Judgement(bound, value, value is not None and bound.holds(value)))
    return found


def bound_of(text: str) -> tuple[str, str, float]:
    """Read ``CHECK.FIGURE=LIMIT``, which puts another limit in the place of a check's own.

    Raises
    ------
    ValueError
        It has not that form.
    """
    place, _, limit = text.partition("=")
    check, _, figure = place.partition(".")
    if not (check and figure and limit):
        raise ValueError(f"{text!r}: expected CHECK.FIGURE=LIMIT")
    return check, figure, float(limit)
