"""The router: prompt in, decision out. Pure: the same input gives the same decision.

:meth:`Router.route` is the whole story: filter, predict, price, rank, explain. A router is made from a loaded bundle
and a pool of candidates; it holds no state that a request changes, so threads may share it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from router.bundle import Bundle, load
from router.decision import Decision, Outlook, known
from router.domain import NO_CONSTRAINTS, Candidate, Constraints, Floats, Policy, Predictions, Prompt
from router.errors import InvalidPolicy, NoEligibleCandidate, UnknownCandidate
from router.policy import DEFAULT_PRESETS, KINDS, Matrix, check, eligible, rank
from router.pricing import PriceRows

#: Input tokens per character where neither the candidate nor the one it is like is in the bundle.
DEFAULT_TOKENS_PER_CHARACTER = 0.25
DEFAULT_PRESET = "balanced"


class Router:
    """Choose a candidate for each prompt.

    Parameters
    ----------
    bundle : Bundle
        What predicts.
    candidates : sequence of Candidate, optional
        The pool. Default: the bundle's own candidates at its reference prices. A candidate that neither the bundle
        knows nor has a ``like`` is never chosen, only designated by name.
    presets : Mapping of str to Policy, optional
        Named policies, over those of the bundle.

    Raises
    ------
    UnknownCandidate
        A ``like`` the bundle does not know, or a name twice in the pool.
    InvalidPolicy
        A preset that cannot be.
    """

    def __init__(
        self,
        bundle: Bundle,
        candidates: Sequence[Candidate] | None = None,
        presets: Mapping[str, Policy] | None = None,
    ) -> None:
        columns = bundle.manifest.candidates
        position = {column.name: i for i, column in enumerate(columns)}
        if candidates is None:
            candidates = [Candidate(c.name, c.reference_price, parameters=c.parameters) for c in columns]
        # Sorted by name, so that a tie never depends on the order of a configuration file.
        self.candidates = tuple(sorted(candidates, key=lambda c: c.name))
        for before, after in zip(self.candidates, self.candidates[1:], strict=False):
            if before.name == after.name:
                raise UnknownCandidate(f"candidate {after.name!r} is in the pool twice")
        for candidate in self.candidates:
            if candidate.like is not None and candidate.like not in position:
                raise UnknownCandidate(
                    f"candidate {candidate.name!r} is like {candidate.like!r}, which the bundle does not know; "
                    f"it knows {', '.join(position)}"
                )
        self.bundle = bundle
        self.presets: dict[str, Policy] = {**DEFAULT_PRESETS, **bundle.manifest.presets, **(presets or {})}
        for policy in self.presets.values():
            check(policy)
        # A name the bundle knows is its own evidence; `like` is for names it does not know.
        borrowed = [c.name if c.name in position else c.like for c in self.candidates]
        self._like = tuple(b if b != c.name else None for b, c in zip(borrowed, self.candidates, strict=True))
        self._columns = np.array([position.get(b, 0) if b else 0 for b in borrowed], np.intp)
        self._known = np.array([b is not None for b in borrowed], bool)
        self._names = tuple(c.name for c in self.candidates)
        self._all_known = bool(self._known.all())
        self._prices = PriceRows.of([c.price for c in self.candidates])
        self._tokens_per_character = np.array(
            [
                columns[i].input_tokens_per_character if known else DEFAULT_TOKENS_PER_CHARACTER
                for i, known in zip(self._columns, self._known, strict=True)
            ],
            np.float32,
        )
        self._output_limit = np.array([c.capabilities.max_output_tokens or np.inf for c in self.candidates], np.float32)
        self._has_output_limit = bool(np.isfinite(self._output_limit).any())

    @classmethod
    def load(cls, directory: str | os.PathLike[str], candidates: Sequence[Candidate] | None = None) -> Router:
        """Load the bundle in a folder and make a router of it; raises as :func:`router.bundle.load` does."""
        return cls(load(directory), candidates)

    def predict(self, prompts: Sequence[Prompt | str]) -> Predictions:
        """Predict for n prompts and the m candidates of the pool.

        Parameters
        ----------
        prompts : sequence of n (Prompt or str)

        Returns
        -------
        Predictions
            Columns in the order of :attr:`candidates`; NaN where the bundle says nothing. ``output_tokens`` respect
            the caller's and the candidate's own limits.
        """
        asked = [Prompt.of(p) if isinstance(p, str) else p for p in prompts]
        raw = self.bundle.outputs([p.text for p in asked])
        lengths = np.array([p.shape.n_characters for p in asked], np.float32)
        limit = self._limits(asked)

        def columns(values: Floats) -> Floats:
            picked: Floats = values[:, self._columns]
            return picked if self._all_known else np.where(self._known, picked, np.float32("nan"))

        return Predictions(
            candidates=self._names,
            quality=columns(raw["quality"]),
            quality_low=columns(raw["quality_low"]),
            quality_high=columns(raw["quality_high"]),
            input_tokens=lengths[:, None] * self._tokens_per_character,
            output_tokens=_at_most(columns(raw["output_tokens"]), limit),
            output_tokens_p90=_at_most(columns(raw["output_tokens_p90"]), limit),
        )

    def _limits(self, prompts: Sequence[Prompt]) -> Floats | None:
        """Return the largest possible outputs, shape (n, m) or (m,); None where nothing limits any."""
        callers = [prompt.shape.max_output_tokens for prompt in prompts]
        if any(callers):
            asked = np.array([limit or np.inf for limit in callers], np.float32)
            return np.minimum(asked[:, None], self._output_limit)
        return self._output_limit if self._has_output_limit else None

    def policy(self, policy: Policy | str | None) -> Policy:
        """Resolve a preset's name, or the default, to a checked policy.

        Raises
        ------
        InvalidPolicy
            A name that is no preset; the message lists them.
        """
        if policy is None:
            policy = DEFAULT_PRESET
        if isinstance(policy, str):
            if policy not in self.presets:
                raise InvalidPolicy(f"preset {policy!r} is unknown; expected one of {', '.join(self.presets)}")
            return self.presets[policy]
        return check(policy)

    def route(
        self,
        prompt: Prompt | str,
        policy: Policy | str | None = None,
        constraints: Constraints = NO_CONSTRAINTS,
        latency_s: Mapping[str, float] | None = None,
    ) -> Decision:
        """Decide who shall answer.

        Parameters
        ----------
        prompt : Prompt or str
        policy : Policy, str or None
            A policy, the name of a preset, or the default preset.
        constraints : Constraints
        latency_s : Mapping of str to float, optional
            Expected seconds per candidate, for the kind ``latency``. Where it says nothing of any candidate, expected
            output tokens stand in: the longer answer is the slower.

        Returns
        -------
        Decision

        Raises
        ------
        NoEligibleCandidate
            Every candidate was filtered out; the error says by what.
        InvalidPolicy
            See :meth:`policy`.
        """
        rule = self.policy(policy)
        if isinstance(prompt, str):
            prompt = Prompt.of(prompt)

        predictions = self.predict([prompt])
        cost = self._prices.cost_usd(predictions.input_tokens, predictions.output_tokens)
        outlook = self._outlook(prompt, predictions, cost, constraints)
        allowed = np.array([[why is None for why in outlook.excluded_by]])
        if not allowed.any():
            raise NoEligibleCandidate(dict(zip(self._names, map(str, outlook.excluded_by), strict=True)))
        latency = self._latency(latency_s, predictions) if KINDS[rule.kind][2] else None
        order = rank(predictions.quality, cost, rule, allowed=allowed, latency_s=latency)[0].tolist()

        first = order[0]
        ranking = tuple(self._names[i] for i in order if outlook.excluded_by[i] is None)
        binding, reason = _explain(rule, outlook.quality[first], len(ranking))
        return Decision(
            candidate=ranking[0],
            ranking=ranking,
            policy=rule,
            reason=reason,
            binding=binding,
            propensity=1.0,
            bundle=self.bundle.manifest.id,
            like=self._like[first],
            quality=known(outlook.quality[first]),
            cost_usd=known(outlook.cost_usd[first]),
            outlook=outlook,
        )

    def _outlook(self, prompt: Prompt, predictions: Predictions, cost: Matrix, constraints: Constraints) -> Outlook:
        input_tokens = predictions.input_tokens[0].tolist()
        cost_usd = cost[0].tolist()
        excluded = list(eligible(self.candidates, prompt.shape, constraints, input_tokens))
        if not self._all_known:
            for i in np.flatnonzero(~self._known).tolist():
                excluded[i] = excluded[i] or "not_in_bundle"
        if constraints.max_cost_usd is not None:
            for i, usd in enumerate(cost_usd):
                # `not <=` rather than `>`: an unknown cost (NaN) fails too.
                if excluded[i] is None and not usd <= constraints.max_cost_usd:
                    excluded[i] = "max_cost_usd"
        return Outlook(
            candidates=self._names,
            like=self._like,
            excluded_by=excluded,
            quality=predictions.quality[0].tolist(),
            quality_low=predictions.quality_low[0].tolist(),
            quality_high=predictions.quality_high[0].tolist(),
            input_tokens=input_tokens,
            output_tokens=predictions.output_tokens[0].tolist(),
            output_tokens_p90=predictions.output_tokens_p90[0].tolist(),
            cost_usd=cost_usd,
            cost_usd_p90=self._prices.cost_usd(predictions.input_tokens, predictions.output_tokens_p90)[0].tolist(),
        )

    def _latency(self, latency_s: Mapping[str, float] | None, predictions: Predictions) -> Matrix:
        if not latency_s:
            return predictions.output_tokens.astype(np.float64)
        return np.array([[latency_s.get(name, np.nan) for name in self._names]], np.float64)


def _at_most(tokens: Floats, limit: Floats | None) -> Floats:
    return tokens if limit is None else np.minimum(tokens, limit)


def _explain(policy: Policy, quality: float, n_eligible: int) -> tuple[str, str]:
    """Return the binding constraint and a sentence for a person."""
    if n_eligible == 1:
        return "only_eligible", "the only eligible candidate"
    if policy.kind == "willingness_to_pay_usd":
        return policy.kind, f"largest predicted quality · {policy.value:g} USD − expected cost"
    if policy.kind == "quality_per_usd":
        if quality < policy.value:
            return "none_clears_floor", f"no candidate is predicted to reach {policy.value:g}; the best predicted"
        return "floor", f"most predicted quality per USD among those predicted to reach {policy.value:g}"
    if quality < policy.value:
        return "none_clears_threshold", f"no candidate is predicted to reach {policy.value:g}; the best predicted"
    if policy.kind == "latency":
        return "latency", f"fastest candidate predicted to reach {policy.value:g}"
    return "threshold", f"cheapest candidate predicted to reach {policy.value:g}"
