"""The router: prompt in, decision out. Pure: the same input gives the same decision.

:meth:`Router.route` is the whole story: filter, predict, price, rank, explain. A router is made from a loaded bundle
and a pool of candidates; it holds no state that a request changes, so threads may share it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from router.bundle import Bundle, load
from router.decision import NOT_CERTIFIED, Decision, Encoded, Outlook, known
from router.domain import NO_CONSTRAINTS, Candidate, Constraints, Floats, Policy, Predictions, Prompt, Speed
from router.errors import InvalidPolicy, NoEligibleCandidate, UnknownCandidate
from router.foresight import Foresight
from router.history import History, effective_costs_usd, prefill_s, prefixes, switch_cost_usd
from router.latency import expected_latencies_s, with_mean
from router.policy import DEFAULT_PRESETS, KINDS, check, eligible, order
from router.predictors import INPUT, NOVELTY_OUTPUT, QUALITY_OUTPUTS, TASK_OUTPUT, TOKENS_OUTPUTS
from router.pricing import expected_costs_usd
from router.reasons import continued, explained

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
        self._prices = [c.price for c in self.candidates]
        # A candidate that borrows the anchor's predictions stands in for it.
        self._place = {
            **{like: i for i, like in enumerate(self._like) if like},
            **{name: i for i, name in enumerate(self._names)},
        }
        self._promises = {
            preset: (certificate.sentence(), certificate.void_for(self.candidates))
            for preset, certificate in bundle.manifest.certificates.items()
        }
        self._tokens_per_character = np.array(
            [
                columns[i].input_tokens_per_character if known else DEFAULT_TOKENS_PER_CHARACTER
                for i, known in zip(self._columns, self._known, strict=True)
            ],
            np.float32,
        )
        self._rates = self._tokens_per_character.tolist()
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
            the caller's and the candidate's own limits, and count every answer asked for.
        """
        asked = [Prompt.of(p) if isinstance(p, str) else p for p in prompts]
        quality, low, high, tokens, tokens_p90 = self._predicted(asked, self.bundle.outputs([p.text for p in asked]))
        lengths = np.array([p.shape.n_characters for p in asked], np.float32)
        input_tokens = lengths[:, None] * self._tokens_per_character
        return Predictions(self._names, quality, low, high, input_tokens, tokens, tokens_p90)

    def _predicted(self, prompts: Sequence[Prompt], given: Mapping[str, Floats]) -> Floats:
        """Return quality, its bounds, output tokens and their p90 for the pool, shape (5, n, m)."""
        block = np.array([given[name] for name in (*QUALITY_OUTPUTS, *TOKENS_OUTPUTS)]).take(self._columns, axis=2)
        if not self._all_known:
            block[:, :, ~self._known] = np.nan
        callers = [prompt.shape.max_output_tokens for prompt in prompts]
        if any(callers):
            asked = np.array([limit or np.inf for limit in callers], np.float32)
            np.minimum(block[3:], np.minimum(asked[:, None], self._output_limit), out=block[3:])
        elif self._has_output_limit:
            np.minimum(block[3:], self._output_limit, out=block[3:])
        if any(prompt.shape.n_choices > 1 for prompt in prompts):
            block[3:] *= np.array([prompt.shape.n_choices for prompt in prompts], np.float32)[:, None]
        return block

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

    def foresee(self, prompt: Prompt) -> Foresight:
        """Predict for one prompt, for those who look before they ask for a decision."""
        given = self.bundle.outputs([prompt.text])
        return Foresight(given, *self._task(given), self.bundle)

    def route(
        self,
        prompt: Prompt | str,
        policy: Policy | str | None = None,
        constraints: Constraints = NO_CONSTRAINTS,
        speeds: Mapping[str, Speed] | None = None,
        foresight: Foresight | None = None,
        history: History | None = None,
    ) -> Decision:
        """Decide who shall answer.

        Parameters
        ----------
        prompt : Prompt or str
        policy : Policy, str or None
            A policy, the name of a preset, or the default preset.
        constraints : Constraints
        speeds : Mapping of str to Speed, optional
            How fast candidates answer, for the kind ``latency`` and for ``max_latency_s``: with the predicted output
            tokens it makes the expected latency of this request. One that it says nothing of is ranked at the mean of
            the others; where it says nothing of any, expected output tokens stand in: the longer answer is the slower.
        foresight : Foresight, optional
            What :meth:`foresee` said of this very prompt, so that it is predicted once. What another bundle foresaw
            is not used.
        history : History, optional
            Of the conversation that the request goes on with. An incumbent that is in the middle of something is
            chosen while it may answer; otherwise the policy ranks by costs that count what is cached.

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

        if foresight is None or foresight.bundle is not self.bundle:
            foresight = self.foresee(prompt)
        given = foresight.given
        outlook = self.outlook(prompt, constraints, given, speeds)
        allowed = [why is None for why in outlook.excluded_by]
        if not any(allowed):
            raise NoEligibleCandidate(dict(zip(self._names, map(str, outlook.excluded_by), strict=True)))
        latency, measured = None, None
        if KINDS[rule.kind][3]:
            # Without a measured latency the longer answer is the slower.
            measured = with_mean(outlook.latency_s)
            latency = measured or outlook.output_tokens
        anchor = self._place.get(rule.anchor) if rule.anchor is not None else None
        ranked = order(outlook.quality, outlook.cost_usd, rule, allowed=allowed, latency_s=latency, anchor=anchor)
        alone, switch_usd = ranked[0], None
        if history is not None:
            ranked, switch_usd = self._continued(
                history, outlook, rule, ranked, allowed, latency, anchor, is_measured=measured is not None
            )

        first = ranked[0]
        ranking = tuple(self._names[i] for i in ranked if allowed[i])
        novelty = float(given[NOVELTY_OUTPUT][0, 0]) if NOVELTY_OUTPUT in given else None
        binding, reason = explained(rule, outlook.quality[first], len(ranking), anchor is not None and allowed[anchor])
        if history is not None:
            binding, reason = continued(history, self._names, first, alone, binding, reason)
        if novelty is not None and novelty > 1:
            reason += "; the prompt is unlike those of training, so averages stand in for predictions"
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
            task=foresight.task,
            task_probability=foresight.task_probability,
            novelty=novelty,
            promise=self._promise(rule, allowed, is_policys_own=first == alone),
            incumbent=None if history is None else history.incumbent,
            switch_cost_usd=switch_usd,
            encoded=Encoded(self.bundle.encoder_id, given[INPUT][0]) if INPUT in given else None,
        )

    def _continued(
        self,
        history: History,
        outlook: Outlook,
        rule: Policy,
        ranked: list[int],
        allowed: Sequence[bool],
        latency: Sequence[float] | None,
        anchor: int | None,
        *,
        is_measured: bool,
    ) -> tuple[list[int], float | None]:
        """Rank once more, now that a conversation goes on; return what a switch costs too, where one is in question."""
        alone = ranked[0]
        prefix_tokens = prefixes(history, self._names, self._rates, outlook.input_tokens)
        if any(cached for cached, _ in prefix_tokens):
            costs = effective_costs_usd(history, self._prices, outlook.cost_usd, prefix_tokens)
            # Where output tokens stand in for seconds, there is nothing that seconds could be added to.
            slowed = prefill_s(history, latency, prefix_tokens) if latency and is_measured else latency
            ranked = order(outlook.quality, costs, rule, allowed=allowed, latency_s=slowed, anchor=anchor)
        at = self._names.index(history.incumbent) if history.incumbent in self._names else None
        if history.is_pending and at is not None and allowed[at]:
            ranked = [at, *(i for i in ranked if i != at)]
        other = alone if ranked[0] == at else ranked[0]
        if at is None or other == at:
            return ranked, None
        return ranked, switch_cost_usd(history, self._prices[other], prefix_tokens[other])

    def _promise(self, policy: Policy, allowed: Sequence[bool], *, is_policys_own: bool) -> str | None:
        """Return what is certified of this policy, or why it does not hold for this request."""
        if policy.name not in self._promises or policy != self.bundle.manifest.presets.get(policy.name):
            return None
        sentence, void = self._promises[policy.name]
        if void is None and not all(allowed):
            void = "some candidates may not answer this request"
        if void is None and not is_policys_own:
            void = "the conversation decided, not the policy alone"
        return sentence if void is None else f"{NOT_CERTIFIED} here: {void}"

    def _task(self, given: Mapping[str, Floats]) -> tuple[str | None, float | None]:
        """Return the most probable kind of task, where the bundle tells any apart."""
        if TASK_OUTPUT not in given:
            return None, None
        probability = given[TASK_OUTPUT][0].tolist()
        best = max(probability)
        return self.bundle.manifest.tasks[probability.index(best)], best

    def outlook(
        self,
        prompt: Prompt,
        constraints: Constraints,
        given: Mapping[str, Floats],
        speeds: Mapping[str, Speed] | None = None,
    ) -> Outlook:
        """Price and filter one prompt, by what :meth:`foresee` gave; costs and latencies also of who is filtered."""
        quality, low, high, tokens, tokens_p90 = self._predicted([prompt], given)[:, 0].tolist()
        input_tokens = [prompt.shape.n_characters * rate for rate in self._rates]
        cost_usd = expected_costs_usd(self._prices, input_tokens, tokens)
        excluded = list(eligible(self.candidates, prompt.shape, constraints, input_tokens))
        if not self._all_known:
            for i in np.flatnonzero(~self._known).tolist():
                excluded[i] = excluded[i] or "not_in_bundle"
        if constraints.max_cost_usd is not None:
            for i, usd in enumerate(cost_usd):
                # `not <=` rather than `>`: an unknown cost (NaN) fails too.
                if excluded[i] is None and not usd <= constraints.max_cost_usd:
                    excluded[i] = "max_cost_usd"
        latency_s: Sequence[float] = ()
        if speeds:
            latency_s = expected_latencies_s(self._names, speeds, tokens, prompt.shape.n_choices)
            if constraints.max_latency_s is not None:
                _bound_latency(excluded, latency_s, constraints.max_latency_s)
        return Outlook(
            candidates=self._names,
            like=self._like,
            excluded_by=excluded,
            quality=quality,
            quality_low=low,
            quality_high=high,
            input_tokens=input_tokens,
            output_tokens=tokens,
            output_tokens_p90=tokens_p90,
            cost_usd=cost_usd,
            cost_usd_p90=expected_costs_usd(self._prices, input_tokens, tokens_p90),
            latency_s=latency_s,
        )


def _bound_latency(excluded: list[str | None], latency_s: Sequence[float], most_s: float) -> None:
    """Exclude who is known to be too slow, and, where somebody is known not to be, the unknown too."""
    has_known = any(why is None and s <= most_s for why, s in zip(excluded, latency_s, strict=True))
    for i, seconds in enumerate(latency_s):
        if excluded[i] is None and (seconds > most_s or (has_known and seconds != seconds)):
            excluded[i] = "max_latency_s"
