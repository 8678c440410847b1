"""Find the boldest policy that keeps a promise, with a finite-sample guarantee (Learn then Test, arXiv 2110.01052).

The policies form a sequence from "always the safe candidate" to bolder ones; each is tested in turn on labelled rows
that taught neither predictor nor calibration, and the first that cannot be shown to keep the promise ends it
(fixed-sequence testing, so no correction for many tests). The promise then holds with probability 1 − δ over the draw
of the rows, whatever the predictor is worth. One row per prompt group is used, so that rows are independent. Entry
point: :func:`certify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from router.certificate import Certificate
from router.domain import Policy, Price
from router.policy import FALL_BELOW, choose
from training.evaluate import Rows, resamples, summary

Vector = NDArray[np.float64]

PRESETS = {"fall_below": "safe", "keep": "assured", "quality": "assured_quality"}
METHOD = "Learn then Test, fixed sequence; {}; one row per prompt group"
_TESTS = {"fall_below": "exact binomial (Clopper–Pearson)", "keep": "betting bound", "quality": "betting bound"}
# 50 a decade, from where money hardly counts to where it alone does.
_STEPS_USD = np.geomspace(10, 1e-6, 351)
_LEAST_SLICE = 100
_MOST_LABELS = 1_000_000


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise to certify.

    Parameters
    ----------
    kind : {'fall_below', 'keep', 'quality'}
        See :class:`router.certificate.Certificate`.
    level : float in (0, 1)
    confidence : float in (0, 1)
    """

    kind: str
    level: float
    confidence: float = 0.9


def certify(rows: Rows, goal: Goal, anchor: int, prices: Sequence[Price | None]) -> tuple[Certificate, Policy]:
    """Certify.

    Parameters
    ----------
    rows : Rows
        Labelled rows of the pool that taught nothing; those where some candidate is unknown are left out.
    goal : Goal
    anchor : int
        Column of the safe candidate, chosen on other rows.
    prices : sequence of m (Price or None)
        That the predicted costs are made of; recorded.

    Returns
    -------
    certificate : Certificate
    policy : Policy
        What it is about, to be a preset of its name.
    """
    rows = independent(rows.select(rows.complete))
    steps = sequence(goal, rows.candidates[anchor])
    first, passed = None, 0
    for step in steps:
        loss = loss_of(rows, goal, anchor, choose(rows.predicted, rows.predicted_cost, step, anchor=anchor))
        first = loss if first is None else first
        if p_value(loss, goal) > 1 - goal.confidence:
            break
        passed += 1
    always = Policy(FALL_BELOW, float(_STEPS_USD[0]), PRESETS[goal.kind], rows.candidates[anchor], margin=1.0)
    policy = steps[passed - 1] if passed else always
    chosen = choose(rows.predicted, rows.predicted_cost, policy, anchor=anchor)
    loss = loss_of(rows, goal, anchor, chosen)
    return (
        Certificate(
            preset=PRESETS[goal.kind],
            goal=goal.kind,
            level=goal.level,
            confidence=goal.confidence,
            anchor=rows.candidates[anchor],
            candidates=rows.candidates,
            prices=tuple(prices),
            method=METHOD.format(_TESTS[goal.kind]),
            n_labels=len(rows.tasks),
            abstained=not passed,
            measured=_measured(loss, goal) if passed else None,
            bound=bound(loss, goal) if passed else None,
            saving=_saving(rows, chosen, anchor),
            labels_needed=None if passed else labels_needed(first, goal),
            slices=_slices(rows, loss, goal) if passed else (),
        ),
        policy,
    )


def independent(rows: Rows) -> Rows:
    """Keep one row per prompt group, at random, in random order: a bet on the next row must not know its benchmark."""
    order = np.random.default_rng(0).permutation(len(rows.groups))
    _, first = np.unique(np.asarray(rows.groups)[order], return_index=True)
    return rows.take(order[np.sort(first)])


def sequence(goal: Goal, anchor: str) -> list[Policy]:
    """Return the policies to test, from the safest; the steps are fixed, so they depend on no row.

    For ``fall_below`` what a fall costs goes down, so that more and more is risked; for the others the willingness to
    pay does.
    """
    kind = FALL_BELOW if goal.kind == "fall_below" else "willingness_to_pay_usd"
    return [Policy(kind, float(f"{usd:.4g}"), PRESETS[goal.kind], anchor) for usd in _STEPS_USD]


def p_value(loss: Vector, goal: Goal) -> float:
    """Return a valid p-value for "the promise is not kept", from losses of independent rows.

    ``fall_below``: losses are 0 or 1 and the binomial tail is exact. Else losses lie in [0, 1] and must be at most 1/2
    in the mean (they are shifted so); the p-value is one over the largest wealth of a gambler who bets against the
    promise's failure with stakes fixed before each row (Waudby-Smith and Ramdas 2024, Ville's inequality).
    """
    n = len(loss)
    if not n:
        return 1.0
    if goal.kind == "fall_below":
        return float(binom.cdf(loss.sum(), n, goal.level))
    gain = 1 - loss - 0.5
    before = np.concatenate([[0.0], np.cumsum(gain)[:-1]])
    seen = np.arange(n)
    squares = np.concatenate([[0.0], np.cumsum((gain - before / np.maximum(seen, 1)) ** 2)[:-1]])
    variance = (0.25 + squares) / (seen + 1)
    stake = np.minimum(np.sqrt(2 * np.log(1 / (1 - goal.confidence)) / (variance * n)), 1.0)
    wealth = np.cumsum(np.log1p(stake * gain))
    return float(np.exp(-max(wealth.max(), 0.0)))


def bound(loss: Vector, goal: Goal) -> float:
    """Return the bound on what the promise is about, at the goal's confidence.

    An upper bound on the share that falls below (Clopper–Pearson); for the others, the promised level itself.
    """
    if goal.kind != "fall_below":
        return goal.level
    n, k = len(loss), int(loss.sum())
    return float(beta.ppf(goal.confidence, k + 1, n - k)) if k < n else 1.0


def labels_needed(loss: Vector | None, goal: Goal) -> int | None:
    """Return about how many labels would certify a policy that loses as often as this; None if it loses too often."""
    delta = 1 - goal.confidence
    loss = np.zeros(0) if loss is None else loss
    if goal.kind == "fall_below":
        rate = float(loss.mean()) if len(loss) else 0.0
        if rate >= goal.level:
            return None
        n = int(np.ceil(np.log(delta) / np.log1p(-goal.level)))
        while n < _MOST_LABELS and binom.cdf(np.floor(rate * n), n, goal.level) > delta:
            n = int(n * 1.1) + 1
        return n
    spare = 0.5 - float(loss.mean()) if len(loss) else 0.0
    if spare <= 0:
        return None
    # A bettor's wealth grows by about spare² / (2 · variance) a row.
    return int(np.ceil(2 * float(loss.var()) * np.log(1 / delta) / spare**2))


def loss_of(rows: Rows, goal: Goal, anchor: int, chosen: NDArray[np.intp]) -> Vector:
    """Return one loss per row in [0, 1], shape (n,); see :func:`p_value` for what its mean must not exceed."""
    every = np.arange(len(chosen))
    quality, safe = rows.quality[every, chosen], rows.quality[:, anchor]
    if goal.kind == "fall_below":
        return (quality < safe).astype(np.float64)
    lacking = goal.level * safe - quality if goal.kind == "keep" else goal.level - quality
    return (1 + lacking) / 2


def _measured(loss: Vector, goal: Goal) -> float:
    """Return the share that fell below, or by how much mean quality exceeds what was promised plus that promise."""
    mean = float(loss.mean())
    return mean if goal.kind == "fall_below" else goal.level + (1 - 2 * mean)


def _saving(rows: Rows, chosen: NDArray[np.intp], anchor: int) -> dict[str, float]:
    weights = resamples(rows.groups, 200, 0)
    spent = weights @ rows.cost_usd[np.arange(len(chosen)), chosen]
    return summary(1 - spent / (weights @ rows.cost_usd[:, anchor]))


def _slices(rows: Rows, loss: Vector, goal: Goal) -> tuple[dict[str, object], ...]:
    if goal.kind != "fall_below":
        return ()
    tasks = np.asarray(rows.tasks)
    found: list[dict[str, object]] = []
    for task in np.unique(tasks):
        own = loss[tasks == task]
        if len(own) >= _LEAST_SLICE:
            found.append({"task": str(task), "n": len(own), "measured": float(own.mean()), "bound": bound(own, goal)})
    return tuple(found)
