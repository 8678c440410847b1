"""Who shall answer, and what was expected of everybody else.

A :class:`Decision` is made for every request, so it holds what serving needs at once and the rest as bare columns
(:class:`Outlook`); the rows a person reads (:class:`Forecast`, :class:`Counterfactual`) are made when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from router.domain import Floats, Policy
from router.policy import dominated_one

#: How a promise begins that is none here.
NOT_CERTIFIED = "not certified"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a decision says of one candidate; None is unknown, never zero.

    ``excluded_by`` names the filter that removed it, or is None; ``is_dominated`` says that another eligible
    candidate is at least as good for at most the same money. ``latency_s`` is expected until the answer is whole, from
    how fast the candidate was lately.
    """

    candidate: str
    like: str | None
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    input_tokens: float | None
    output_tokens: float | None
    output_tokens_p90: float | None
    cost_usd: float | None
    cost_usd_p90: float | None
    quality_per_usd: float | None
    is_dominated: bool
    excluded_by: str | None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """What another threshold would have chosen.

    ``cost_change`` is relative to the decision's own choice (-0.62 is 62 % cheaper), None when unknown.
    """

    threshold: float
    candidate: str
    quality: float
    cost_usd: float | None
    cost_change: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """Predictions for every candidate of a pool, as columns in the pool's order.

    Parameters
    ----------
    candidates, like, excluded_by : sequences of m (str or None)
    quality, quality_low, quality_high, input_tokens, output_tokens, output_tokens_p90 : sequences of m float
        NaN where unknown.
    cost_usd, cost_usd_p90 : sequences of m float
        NaN where unknown.
    latency_s : sequence of m float
        Expected seconds until the answer is whole, NaN where unknown; empty where no speed is known at all.
    """

    candidates: Sequence[str]
    like: Sequence[str | None]
    excluded_by: Sequence[str | None]
    quality: Sequence[float]
    quality_low: Sequence[float]
    quality_high: Sequence[float]
    input_tokens: Sequence[float]
    output_tokens: Sequence[float]
    output_tokens_p90: Sequence[float]
    cost_usd: Sequence[float]
    cost_usd_p90: Sequence[float]
    latency_s: Sequence[float] = ()

    def forecasts(self) -> tuple[Forecast, ...]:
        """Make one row per candidate."""
        pointless = self._dominated()
        return tuple(
            Forecast(
                name,
                self.like[i],
                known(self.quality[i]),
                known(self.quality_low[i]),
                known(self.quality_high[i]),
                known(self.input_tokens[i]),
                known(self.output_tokens[i]),
                known(self.output_tokens_p90[i]),
                known(self.cost_usd[i]),
                known(self.cost_usd_p90[i]),
                known(self.quality[i] / self.cost_usd[i]) if self.cost_usd[i] else None,
                pointless[i],
                self.excluded_by[i],
                known(self.latency_s[i]) if self.latency_s else None,
            )
            for i, name in enumerate(self.candidates)
        )

    def _dominated(self) -> list[bool]:
        allowed = [why is None and q == q for why, q in zip(self.excluded_by, self.quality, strict=True)]
        quality = [q if q == q else 0.0 for q in self.quality]
        cost = [c if c == c else inf for c in self.cost_usd]
        return dominated_one(quality, cost, allowed)


class Encoded(NamedTuple):
    """What an encoder made of one prompt: its id (:attr:`router.manifest.Manifest.encoder_id`), and a row (dim,)."""

    encoder: str
    features: Floats


def known(value: float) -> float | None:
    """Return a number, or None for NaN."""
    return None if value != value else value


@dataclass(frozen=True, slots=True)
class Decision:
    """Who shall answer, who next, and why.

    Parameters
    ----------
    candidate : str
        The choice, ``ranking[0]``.
    ranking : tuple of str
        Every eligible candidate, best first.
    reason : str
        One sentence for a person.
    binding : str
        The constraint that decided: 'threshold', 'none_clears_threshold', 'willingness_to_pay_usd', 'floor',
        'none_clears_floor', 'latency', 'fall_below_usd', 'no_anchor', 'only_eligible', 'conversation', 'explored'.
    propensity : float
        Probability, in (0, 1], with which this policy chooses this candidate here.
    bundle : str
        ``name@version`` of the bundle that predicted.
    like : str or None
        The bundle candidate whose predictions the choice borrows.
    quality, cost_usd : float or None
        Predicted of the choice.
    outlook : Outlook or None
        Predictions for the whole pool; None where the bundle could say nothing.
    task : str or None
        What kind of task the prompt most probably is; None where the bundle tells none apart.
    task_probability : float or None
    novelty : float or None
        How unlike the training prompts this one is; above 1 the candidates' averages stand in for predictions. None
        where the bundle cannot tell.
    promise : str or None
        What is certified of the policy, or why it does not hold here; None for a policy without certificate.
    incumbent : str or None
        The candidate that answered last in this conversation; None where the request opens one, or none is known.
    switch_cost_usd : float or None
        What it costs once to let another candidate read the conversation anew: the choice, or, where the incumbent
        stays, the one that the policy alone would have chosen. None where no switch was in question or its price is
        unknown.
    encoded : Encoded or None
        The prompt's features, for those who may keep them; None where the bundle could say nothing.
    is_explored : bool
        Chance chose the candidate, not the policy.
    explorable : tuple of str
        Among whom chance could choose, the policy's own choice first; empty where it could not.
    """

    candidate: str
    ranking: tuple[str, ...]
    policy: Policy
    reason: str
    binding: str
    propensity: float
    bundle: str
    like: str | None = None
    quality: float | None = None
    cost_usd: float | None = None
    outlook: Outlook | None = field(default=None, repr=False, compare=False)
    task: str | None = None
    task_probability: float | None = None
    novelty: float | None = None
    promise: str | None = None
    incumbent: str | None = None
    switch_cost_usd: float | None = None
    encoded: Encoded | None = field(default=None, repr=False, compare=False)
    is_explored: bool = False
    explorable: tuple[str, ...] = ()

    @property
    def is_promised(self) -> bool:
        """Whether something is certified of the policy, and holds here."""
        return self.promise is not None and not self.promise.startswith(NOT_CERTIFIED)

    @property
    def forecasts(self) -> tuple[Forecast, ...]:
        """What was predicted of every candidate, the ineligible too."""
        return () if self.outlook is None else self.outlook.forecasts()

    def forecast(self, candidate: str) -> Forecast:
        """Return what was predicted of one candidate, by name."""
        return next(f for f in self.forecasts if f.candidate == candidate)

    @property
    def counterfactuals(self) -> tuple[Counterfactual, ...]:
        """Whom a threshold policy would choose, each at the highest threshold at which it still does."""
        own = self.cost_usd
        frontier = [
            (f.quality, f.cost_usd, f.candidate)
            for f in self.forecasts
            if f.excluded_by is None and not f.is_dominated and f.quality is not None
        ]
        return tuple(
            Counterfactual(quality, name, quality, usd, usd / own - 1 if usd is not None and own else None)
            for quality, usd, name in sorted(frontier, key=lambda row: row[0])
        )

    def explain(self) -> Explanation:
        """Return everything there is to say, ready to be written as JSON."""
        return Explanation(
            self.candidate,
            self.ranking,
            self.policy,
            self.reason,
            self.binding,
            self.propensity,
            self.bundle,
            self.task,
            self.task_probability,
            self.novelty,
            self.promise,
            self.incumbent,
            self.switch_cost_usd,
            self.is_explored,
            self.explorable,
            self.forecasts,
            self.counterfactuals,
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with all its rows; the fields are those of :class:`Decision`."""

    candidate: str
    ranking: tuple[str, ...]
    policy: Policy
    reason: str
    binding: str
    propensity: float
    bundle: str
    task: str | None
    task_probability: float | None
    novelty: float | None
    promise: str | None
    incumbent: str | None
    switch_cost_usd: float | None
    is_explored: bool
    explorable: tuple[str, ...]
    forecasts: tuple[Forecast, ...]
    counterfactuals: tuple[Counterfactual, ...]
