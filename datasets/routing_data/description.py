"""What a table holds, in numbers: candidates, costs, hull, oracle.

It describes the observed rows as they are; nothing here is predicted, and no split is made. Where
observations are missing, candidates are averaged over different prompts: compare with care.

Entry point: ``describe``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from routing_data.prices import implied_prices
from routing_data.table import OutcomeTable, Source


@dataclass(frozen=True, slots=True)
class Point:
    """Hold a point of the cost-quality plane.

    Parameters
    ----------
    name : str
        The candidate, or ``"oracle"``.
    cost_usd : float or None
        Mean USD per call; None if unknown.
    quality : float
        Mean quality, in [0, 1].
    """

    name: str
    cost_usd: float | None
    quality: float


@dataclass(frozen=True, slots=True)
class CandidateSummary:
    """Hold what is known of one candidate.

    Parameters
    ----------
    name : str
        The candidate.
    n_observed : int
        Prompts with a quality.
    quality : float or None
        Mean observed quality, in [0, 1]; None if nothing was observed.
    cost_usd : float or None
        Mean known USD per call.
    output_tokens : float or None
        Mean known output tokens per call.
    prices : (float, float) or None
        Implied USD per million input and output tokens, see ``implied_prices``.
    on_hull : bool
        Whether it is a corner of the hull of the single candidates.
    """

    name: str
    n_observed: int
    quality: float | None
    cost_usd: float | None
    output_tokens: float | None
    prices: tuple[float, float] | None
    on_hull: bool


@dataclass(frozen=True, slots=True)
class Description:
    """Hold the description of a table.

    Parameters
    ----------
    n_prompts, n_groups : int
        Rows, and distinct groups among them.
    tasks : tuple of (str, int)
        Tasks with their numbers of prompts, most frequent first.
    share_observed : float
        Share of prompt x candidate cells with a quality, in [0, 1].
    simulated : bool
        Whether any source holds simulated outcomes.
    candidates : tuple of CandidateSummary
        In the order of the table.
    best_single : Point or None
        The candidate of highest mean quality, the cheaper one of equals.
    hull : tuple of Point
        Corners of the upper concave envelope of the single candidates, cheapest first, up to the
        best one; candidates of unknown cost are left out.
    oracle : Point or None
        Per prompt the best observed quality, and the cheapest call that reaches it.
    sources : tuple of Source
        Where the rows came from.
    """

    n_prompts: int
    n_groups: int
    tasks: tuple[tuple[str, int], ...]
    share_observed: float
    simulated: bool
    candidates: tuple[CandidateSummary, ...]
    best_single: Point | None
    hull: tuple[Point, ...]
    oracle: Point | None
    sources: tuple[Source, ...]


def describe(table: OutcomeTable) -> Description:
    """Describe a table.

    Parameters
    ----------
    table : OutcomeTable
        The table.

    Returns
    -------
    Description
        Means over what was observed.
    """
    observed = ~np.isnan(table.quality)
    quality = [_mean(table.quality[:, i].astype(np.float64)) for i in range(len(table.candidates))]
    cost = [_mean(table.cost_usd[:, i]) for i in range(len(table.candidates))]
    points = [Point(n, c, q) for n, c, q in zip(table.candidates, cost, quality, strict=True) if q is not None]
    hull = _hull(points)
    corners = {point.name for point in hull}
    prices = implied_prices(table)
    return Description(
        n_prompts=len(table.prompt_ids),
        n_groups=len(set(table.groups)),
        tasks=tuple(Counter(table.tasks).most_common()),
        share_observed=float(observed.mean()) if observed.size else 0.0,
        simulated=table.simulated,
        candidates=tuple(
            CandidateSummary(
                name=name,
                n_observed=int(observed[:, i].sum()),
                quality=quality[i],
                cost_usd=cost[i],
                output_tokens=_mean(table.output_tokens[:, i]),
                prices=prices[name],
                on_hull=name in corners,
            )
            for i, name in enumerate(table.candidates)
        ),
        best_single=min(points, key=lambda p: (-p.quality, _or_inf(p.cost_usd), p.name), default=None),
        hull=hull,
        oracle=_oracle(table),
        sources=table.sources,
    )


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _or_inf(value: float | None) -> float:
    return float("inf") if value is None else value


def _hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """Walk from the cheapest point up, dropping every corner that turns the wrong way."""
    corners: list[tuple[float, float, Point]] = []
    known = [(p.cost_usd, p.quality, p) for p in points if p.cost_usd is not None]
    for cost, quality, point in sorted(known, key=lambda item: (item[0], -item[1], item[2].name)):
        if corners and quality <= corners[-1][1]:
            continue  # dominated: no better than something no dearer
        while len(corners) > 1:
            (c0, q0, _), (c1, q1, _) = corners[-2:]
            if (q1 - q0) * (cost - c0) > (quality - q0) * (c1 - c0):
                break
            corners.pop()
        corners.append((cost, quality, point))
    return tuple(point for _, _, point in corners)


def _oracle(table: OutcomeTable) -> Point | None:
    seen = ~np.isnan(table.quality).all(axis=1) if table.quality.size else np.zeros(0, dtype=bool)
    if not seen.any():
        return None
    quality = np.where(np.isnan(table.quality[seen]), -np.inf, table.quality[seen])
    best = quality.max(axis=1)
    cost = np.where((quality == best[:, None]) & ~np.isnan(table.cost_usd[seen]), table.cost_usd[seen], np.inf)
    cheapest = cost.min(axis=1)
    known = np.isfinite(cheapest)
    return Point("oracle", float(cheapest[known].mean()) if known.all() else None, float(best.mean()))
