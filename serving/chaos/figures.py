"""Figures of measurements: quantiles, slopes, and how they are written. Pure.

Entry points: :func:`quantile`, :func:`slope`, :func:`written`.
"""

from __future__ import annotations

from collections.abc import Sequence


def quantile(values: Sequence[float], q: float) -> float:
    """Return a quantile of values, linear between neighbours.

    Parameters
    ----------
    values : sequence of float
        At least one, in any order.
    q : float
        In [0, 1].

    Raises
    ------
    ValueError
        There is no value.
    """
    if not values:
        raise ValueError("a quantile of nothing")
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the slope of the least-squares line; 0 for fewer than two different xs."""
    n = len(xs)
    if n < 2:
        return 0.0
    mean_x, mean_y = sum(xs) / n, sum(ys) / n
    spread = sum((x - mean_x) ** 2 for x in xs)
    if not spread:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


def written(value: float, unit: str) -> str:
    """Write a figure for people.

    Parameters
    ----------
    value : float
    unit : str
        "share" is written in percent, "s" below one second in milliseconds, "" is a count or a ratio, any other
        follows the number.
    """
    if unit == "share":
        return f"{100 * value:.4g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    number = f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"
    return f"{number} {unit}".rstrip()
