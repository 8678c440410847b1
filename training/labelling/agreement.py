"""How far a judge can be trusted: with itself, and with grades that are known to be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval, over n observations; NaN where there is none."""

    value: float
    low: float
    high: float
    n: int


def share(values: Sequence[float]) -> Estimate:
    """Return a mean of values in [0, 1] with Wilson's score interval (Wilson 1927).

    Of values other than 0 and 1 the interval is wider than need be: none varies more than a yes or no.

    Parameters
    ----------
    values : sequence of n float
        Each in [0, 1].

    Returns
    -------
    Estimate
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = math.fsum(values) / n
    shrink = 1 + _Z_95**2 / n
    centre = (mean + _Z_95**2 / (2 * n)) / shrink
    half = _Z_95 / shrink * math.sqrt(max(0.0, mean * (1 - mean)) / n + _Z_95**2 / (4 * n * n))
    return Estimate(mean, max(0.0, centre - half), min(1.0, centre + half), n)


def kappa(pairs: Sequence[tuple[bool, bool]]) -> Estimate:
    """Return Cohen's kappa of two graders who each say good or not (Cohen 1960).

    1 is agreement, 0 what chance would give. The interval is the usual one of large samples.

    Parameters
    ----------
    pairs : sequence of (bool, bool)
        What the one and the other said, answer by answer.

    Returns
    -------
    Estimate
        Of value NaN where both say the same of every answer: then chance explains all.
    """
    n = len(pairs)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    agreed = sum(a == b for a, b in pairs) / n
    first, second = sum(a for a, _ in pairs) / n, sum(b for _, b in pairs) / n
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance >= 1.0:
        return Estimate(math.nan, math.nan, math.nan, n)
    value = (agreed - by_chance) / (1 - by_chance)
    half = _Z_95 * math.sqrt(agreed * (1 - agreed) / n) / (1 - by_chance)
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), n)
