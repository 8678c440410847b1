"""Propose a policy for a wanted quality or budget, from a decision log: every stop of a dial is replayed and judged.

What a stop would have cost is known from the replay (:mod:`training.replay`); what quality it would have had, from one
source: feedback, weighted off-policy and refused where there is no overlap (:mod:`training.ope`); a labelled table; or
the predictions alone, which promise nothing. A proposal is the best of many stops and a little flattered by that: it is
meant to be tried against the present policy in an experiment. Entry point: :func:`tune`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.domain import Policy
from router.errors import InvalidInference
from router.sequences import ArmTotals, units_needed
from training.errors import GoalUnreachable, NoOverlap, NotEnoughData
from training.ope import Choices, Estimate
from training.operating import dial_of
from training.quality_source import QualitySource
from training.replay import Replay

KINDS = ("threshold", "willingness_to_pay_usd")
_THRESHOLDS = tuple(round(0.02 * k, 2) for k in range(1, 50))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: a mean quality at the least cost, or the best quality within a budget; one of the two.

    Parameters
    ----------
    quality : float or None
        In [0, 1].
    usd_per_1000 : float or None
        Of a thousand requests.
    """

    quality: float | None = None
    usd_per_1000: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """One setting of the dial.

    Parameters
    ----------
    policy : Policy
    cost_usd, cost_change_usd : Estimate
        Of a request; and minus what was chosen.
    quality, quality_change : Estimate or None
        None where nothing is known of it.
    problem : str or None
        Why not.
    changed_share : float in [0, 1]
        Of the decisions.
    shares : Mapping of str to float
        Of the requests, by candidate.
    """

    policy: Policy
    cost_usd: Estimate
    cost_change_usd: Estimate
    quality: Estimate | None
    quality_change: Estimate | None
    problem: str | None
    changed_share: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Tuning:
    """A proposal, and every stop it was chosen from.

    Parameters
    ----------
    source : str
        Where quality comes from, in words.
    n_requests, n_left_out : int
        Replayed, and not.
    agreement : float or None
        See :class:`training.replay.Replay`.
    cost_usd : Estimate
        Of a request as it was decided.
    stops : tuple of Stop
    proposal : Stop
    """

    source: str
    n_requests: int
    n_left_out: int
    agreement: float | None
    cost_usd: Estimate
    stops: tuple[Stop, ...]
    proposal: Stop


def tune(replay: Replay, source: QualitySource, wish: Wish, kind: str = "threshold") -> Tuning:
    """Propose.

    Parameters
    ----------
    replay : Replay
    source : QualitySource
    wish : Wish
    kind : {'threshold', 'willingness_to_pay_usd'}, default='threshold'
        The dial.

    Returns
    -------
    Tuning

    Raises
    ------
    NoOverlap
        Of no stop the log can say which quality it would have had.
    GoalUnreachable
        No stop is known to give what is wanted; says what comes nearest.
    NotEnoughData
        Nothing is known of costs, or too few requests are independent.
    """
    stops: list[Stop] = []
    before: Choices | None = None
    for policy in dial(replay, kind):
        choices = replay.choices(policy)
        if before is None or (choices != before).any():
            stops.append(_stop(replay, source, policy, choices))
        before = choices
    cost, _ = replay.expected_usd(replay.chosen)
    return Tuning(
        source.words,
        len(replay.ids),
        replay.n_left_out,
        replay.agreement,
        cost,
        tuple(stops),
        best_of(stops, wish),
    )


def units_to_show(replay: Replay, stop: Stop, unit: str) -> int | None:
    """Plan the experiment: how many units, in both arms, until the change of cost shows with probability 0.8.

    Parameters
    ----------
    replay : Replay
    stop : Stop
    unit : str
        ``key``, or what the log does not name: then each request is taken to be one, and it is a lower bound.

    Returns
    -------
    int or None
        None where it takes a thousand million, or nothing changes.
    """
    paid = np.isfinite(replay.paid_usd)
    names = replay.keys[paid] if unit == "key" else replay.ids[paid]
    numbers = np.unique(names, return_inverse=True)[1]
    spent = np.bincount(numbers, replay.paid_usd[paid]).astype(np.float64)
    pilot = ArmTotals.of(np.bincount(numbers).astype(np.float64), spent)
    try:
        return units_needed(pilot, stop.cost_change_usd.value)
    except InvalidInference:
        return None


def dial(replay: Replay, kind: str) -> tuple[Policy, ...]:
    """Return the policies to try, the frugal first."""
    if kind == "threshold":
        return tuple(Policy(kind, value) for value in _THRESHOLDS)
    known = np.isfinite(replay.cost_usd).all(axis=1)
    if not known.any():
        raise NotEnoughData("no replayed request has the expected cost of every candidate")
    return tuple(Policy(kind, float(f"{value:.3g}")) for value in dial_of(replay.cost_usd[known]))


def best_of(stops: Sequence[Stop], wish: Wish) -> Stop:
    """Choose the stop that a wish asks for, by :func:`smoothed` qualities; parameters and errors as of :func:`tune`."""
    known = [stop for stop in stops if stop.quality is not None]
    if not known:
        raise NoOverlap(
            f"of none of {len(stops)} stops the log can say which quality it would have: {stops[0].problem}"
        )
    levels = list(zip(known, smoothed(known), strict=True))
    if wish.quality is not None:
        reach = [stop for stop, level in levels if level >= wish.quality]
        if reach:
            return min(reach, key=lambda stop: stop.cost_usd.value)
        best, level = max(levels, key=lambda pair: pair[1])
        raise GoalUnreachable(
            f"no stop that the log can speak of reaches quality {wish.quality:g}; the best is {best.policy.kind} "
            f"{best.policy.value:g} with {level:.3f}"
        )
    budget = (wish.usd_per_1000 or 0.0) / 1000
    within = [(stop, level) for stop, level in levels if stop.cost_usd.value <= budget]
    if within:
        return max(within, key=lambda pair: (pair[1], -pair[0].cost_usd.value))[0]
    cheapest = min(known, key=lambda stop: stop.cost_usd.value)
    raise GoalUnreachable(
        f"no stop that the log can speak of costs at most {1000 * budget:g} USD per 1,000 requests; the cheapest is "
        f"{cheapest.policy.kind} {cheapest.policy.value:g} with {1000 * cheapest.cost_usd.value:.4g} USD"
    )


def smoothed(stops: Sequence[Stop]) -> list[float]:
    """Return qualities that never fall as the dial goes up: the isotonic fit, weighted by precision.

    The router promises it of predicted quality, so a fall is mostly noise, and so is the top of many estimates.

    Parameters
    ----------
    stops : sequence of Stop
        From the frugal end of the dial, each with a known quality.

    Returns
    -------
    list of float
    """
    from sklearn.isotonic import isotonic_regression

    judged = [stop.quality for stop in stops if stop.quality is not None]
    weights = [1 / max(quality.standard_error, 1e-6) ** 2 for quality in judged]
    fitted = isotonic_regression([quality.value for quality in judged], sample_weight=weights)
    return [float(level) for level in fitted]


def _stop(replay: Replay, source: QualitySource, policy: Policy, choices: Choices) -> Stop:
    cost, change = replay.expected_usd(choices)
    counts = np.bincount(choices, minlength=len(replay.candidates)) / len(choices)
    quality: Estimate | None = None
    quality_change: Estimate | None = None
    problem = None
    try:
        quality, quality_change = source.judge(policy, choices)
    except NoOverlap as error:
        problem = str(error)
    return Stop(
        policy,
        cost,
        change,
        quality,
        quality_change,
        problem,
        float((choices != replay.chosen).mean()),
        {name: float(share) for name, share in zip(replay.candidates, counts, strict=True) if share},
    )
