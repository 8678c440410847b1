"""Champion and challenger on the same held-out rows, at the same prices, and how sure a difference is.

Everything is paired: a difference is taken row by row, so what makes a prompt hard for both cancels. Rows of one group
are one observation (:mod:`training.difference`). Entry points: :func:`meet`, :class:`Contest`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from router.bundle import Bundle
from router.domain import Policy
from router.policy import choose
from routing_data import OutcomeTable
from training import metrics
from training.difference import LEAST_GROUPS, Difference, difference
from training.duplicates import Overlap
from training.evaluate import Rows
from training.measure import rows_of
from training.topics import topics_of

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_LEAST_ANSWERS = 30
_TIMED_TEXTS, _TIMED_ROUNDS = 60, 5


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """Both bundles on the same rows.

    Parameters
    ----------
    champion, challenger : Bundle
    old, new : Rows
        What each says of the rows; the columns are the candidates that both know.
    slices : tuple of str or None
        Each row's task, small ones joined; None where the rows tell none apart.
    overlap : Overlap
        Of the holdout with what the challenger was taught.
    time_ratio : float
        Decision time, challenger over champion.
    confidence : float
    is_voted : ndarray of shape (n,), bool, or None
        Rows known by votes alone; a prompt asked again and again may have one on each candidate, but is no sample.
    holdout_sha256 : str
        Of the rows: their identities, prompts, groups and observed quality.
    """

    champion: Bundle
    challenger: Bundle
    old: Rows
    new: Rows
    slices: tuple[str, ...] | None
    overlap: Overlap
    time_ratio: float
    confidence: float
    is_voted: NDArray[np.bool_] | None = None
    holdout_sha256: str = ""

    @property
    def missing(self) -> list[str]:
        """Candidates of the champion that the challenger does not know."""
        return [name for name in self.champion.manifest.names if name not in self.challenger.manifest.names]

    @property
    def missing_presets(self) -> list[str]:
        """Presets of the champion that the challenger has not got; those it promises something of are certificates."""
        certificates = self.champion.manifest.certificates
        promised = {name for name, certificate in certificates.items() if not certificate.abstained}
        return sorted(self.champion.manifest.presets.keys() - self.challenger.manifest.presets.keys() - promised)

    @property
    def slice_names(self) -> list[str]:
        """Names of the slices, sorted."""
        return sorted(set(self.slices or ()))

    def rows_in(self, name: str | None) -> NDArray[np.bool_]:
        """Return which rows a slice has, shape (n,); all for None."""
        if name is None or self.slices is None:
            return np.ones(len(self.old.tasks), bool)
        here: NDArray[np.bool_] = np.array([own == name for own in self.slices], bool)
        return here

    def loss(self, kept: NDArray[np.bool_], column: int | None = None, share: float = 1.0) -> Difference:
        """Return by how much the challenger's mean squared error exceeds the champion's, on some rows.

        ``share`` of the error allowed is spent on this question: where shares sum to 1, the bounds of all questions
        hold together; see :func:`training.difference.shares`.
        """
        quality = self.old.quality[kept]
        counts = np.isfinite(quality).astype(np.float64)
        if self.old.weights is not None:
            counts *= self.old.weights[kept]
        observed = np.where(np.isfinite(quality), quality, 0.0)
        change = (self.new.predicted[kept] - observed) ** 2 - (self.old.predicted[kept] - observed) ** 2
        if column is not None:
            counts, change = counts[:, [column]], change[:, [column]]
        groups = [group for group, keep in zip(self.old.groups, kept, strict=True) if keep]
        return difference((change * counts).sum(axis=1), counts.sum(axis=1), groups, self._each(share))

    def order(self, kept: NDArray[np.bool_], share: float = 1.0) -> Difference:
        """Return the same of differences between candidates: half the mean squared error over pairs of a prompt.

        What makes a prompt hard for all candidates is half the noise of :meth:`loss`, and a level that came right may
        hide there that the candidates' order went wrong. Labelled rows count, once each; ``share`` as of :meth:`loss`.
        """
        is_known = np.isfinite(self.old.quality[kept]) & ~self._voted[kept, None]
        counts = np.maximum(is_known.sum(axis=1) - 1, 0).astype(np.float64)
        observed = _centred(self.old.quality[kept], is_known)
        old, new = (_centred(rows.predicted[kept], is_known) for rows in (self.old, self.new))
        change = ((new - observed) ** 2 - (old - observed) ** 2).sum(axis=1)
        groups = [group for group, keep in zip(self.old.groups, kept, strict=True) if keep]
        return difference(change, counts, groups, self._each(share))

    def moved(self, kept: NDArray[np.bool_], column: int | None = None) -> float:
        """Return the sum of squared changes of what was said, over the outcomes that :meth:`loss` looks at."""
        counts = np.isfinite(self.old.quality[kept]).astype(np.float64)
        if self.old.weights is not None:
            counts *= self.old.weights[kept]
        squares = counts * (self.new.predicted[kept] - self.old.predicted[kept]) ** 2
        return float((squares if column is None else squares[:, column]).sum())

    def moved_order(self, kept: NDArray[np.bool_]) -> float:
        """Return the same for :meth:`order`."""
        is_known = np.isfinite(self.old.quality[kept]) & ~self._voted[kept, None]
        return float((_centred(self.new.predicted[kept] - self.old.predicted[kept], is_known) ** 2).sum())

    def n_moved(self, preset: str, kept: NDArray[np.bool_]) -> int:
        """Return on how many of the rows that :meth:`utility_loss` looks at the two bundles choose differently."""
        at = np.flatnonzero(kept & self.complete)
        mine, yours = (
            chosen(rows.take(at), bundle, preset)
            for rows, bundle in ((self.new, self.challenger), (self.old, self.champion))
        )
        return int((mine != yours).sum())

    def presets(self) -> list[str]:
        """Names of presets that both bundles have."""
        return [name for name in self.champion.manifest.presets if name in self.challenger.manifest.presets]

    def _each(self, share: float) -> float:
        return 1 - (1 - self.confidence) * share

    @property
    def _voted(self) -> NDArray[np.bool_]:
        return np.zeros(len(self.old.tasks), bool) if self.is_voted is None else self.is_voted

    def utility_loss(self, preset: str, kept: NDArray[np.bool_], share: float = 1.0) -> Difference:
        """Return what is lost at a preset, each bundle at its own, in units of quality; ``share`` as of :meth:`loss`.

        Utility is quality − cost / what a unit of quality is worth there. The two bundles' presets may value it
        differently; the value kinder to the challenger counts, since the other would punish a different choice of
        dial, not a worse prediction.
        """
        at = np.flatnonzero(kept & self.complete)
        old, new = self.old.take(at), self.new.take(at)
        mine, yours = (chosen(rows, b, preset) for rows, b in ((new, self.challenger), (old, self.champion)))
        every = np.arange(len(at))
        lost_quality = old.quality[every, yours] - old.quality[every, mine]
        spent_more = old.cost_usd[every, mine] - old.cost_usd[every, yours]
        tried = [
            difference(lost_quality + spent_more / worth, np.ones(len(at)), old.groups, self._each(share))
            for worth in {_worth(self.champion, preset), _worth(self.challenger, preset)}
        ]
        return min(tried, key=lambda found: found.low)

    def quality_lost(self, candidate: str, other: str) -> Difference | None:
        """Return by how much a candidate's mean quality is below another's where labels know both; None without one."""
        names = self.old.candidates
        if candidate not in names or other not in names:
            return None
        lost = self.old.quality[:, names.index(other)] - self.old.quality[:, names.index(candidate)]
        known = np.flatnonzero(np.isfinite(lost) & ~self._voted)
        groups = [self.old.groups[i] for i in known.tolist()]
        return difference(lost[known], np.ones(len(known)), groups, self.confidence)

    @property
    def compares(self) -> bool:
        """Whether enough labelled rows for an interval have every candidate's outcome and cost."""
        n_groups = len({self.old.groups[i] for i in np.flatnonzero(self.complete).tolist()})
        return len(self.old.candidates) > 1 and n_groups >= LEAST_GROUPS

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Labelled rows where outcome and cost of every candidate are known, shape (n,)."""
        return self.old.complete & self.new.complete & ~self._voted

    def voted_utility_loss(self, preset: str, share: float = 1.0) -> Difference:
        """Return what is lost at a preset by what was said of single answers; ``share`` as of :meth:`loss`.

        Each bundle's value is the weighted mean over the answers that its preset would have chosen too: self-normalised
        inverse propensity (Hájek), whose weights are those of the votes. NaN with fewer than 30 effective answers of
        either.
        """
        counts = np.where(np.isfinite(self.old.quality) & np.isfinite(self.old.cost_usd), 1.0, 0.0)
        counts *= 1.0 if self.old.weights is None else self.old.weights
        worth = max(_worth(self.champion, preset), _worth(self.challenger, preset))
        utility = np.nan_to_num(self.old.quality) - np.nan_to_num(self.old.cost_usd) / worth
        every, parts, values, least = np.arange(len(counts)), [], [], np.inf
        for rows, bundle in ((self.old, self.champion), (self.new, self.challenger)):
            column = chosen(rows, bundle, preset)
            weight, own = counts[every, column], utility[every, column]
            least = min(least, weight.sum() ** 2 / max((weight**2).sum(), 1e-12))
            values.append(float((weight * own).sum() / max(weight.sum(), 1e-12)))
            parts.append(weight * (own - values[-1]) / max(weight.sum(), 1e-12))
        if least < _LEAST_ANSWERS:
            return Difference(values[0] - values[1], float("nan"), float("nan"), 0)
        names, group = np.unique(np.asarray(self.old.groups, dtype=np.str_), return_inverse=True)
        influence = np.bincount(group, parts[0] - parts[1], len(names))
        n, value = len(names), values[0] - values[1]
        half = float(student.ppf(self._each(share), n - 1) * np.sqrt((influence**2).sum() * n / (n - 1)))
        return Difference(value, value - half, value + half, n)

    def ece(self, rows: Rows) -> tuple[float, float]:
        """Return the calibration error averaged over candidates, and what a calibrated predictor would show."""
        errors, floors = [], []
        for j in range(len(rows.candidates)):
            observed = np.isfinite(rows.quality[:, j])
            counts = np.ones(int(observed.sum())) if rows.weights is None else rows.weights[observed, j]
            if counts.sum() > 0:
                score = rows.predicted[observed, j]
                errors.append(float(metrics.ece(score, rows.quality[observed, j], counts[None, :])[0]))
                floors.append(metrics.ece_floor(score))
        return float(np.mean(errors)), float(np.mean(floors))


def _centred(values: Matrix, is_known: NDArray[np.bool_]) -> Matrix:
    """Return each row less its mean over the known cells; 0 elsewhere."""
    values = np.where(is_known, values, 0.0)
    mean = values.sum(axis=1, keepdims=True) / np.maximum(is_known.sum(axis=1, keepdims=True), 1)
    centred: Matrix = np.where(is_known, values - mean, 0.0)
    return centred


def chosen(rows: Rows, bundle: Bundle, preset: str) -> NDArray[np.intp]:
    """Return the column that a bundle's preset chooses on each row, shape (n,)."""
    policy: Policy = bundle.manifest.presets[preset]
    latency = rows.output_tokens if policy.kind == "latency" else None
    anchor = rows.candidates.index(policy.anchor) if policy.anchor in rows.candidates else None
    return choose(rows.predicted, rows.predicted_cost, policy, latency_s=latency, anchor=anchor)


def _worth(bundle: Bundle, preset: str) -> float:
    """Return USD per unit of quality at a preset; where its kind does not say, at ``balanced``, else cost is nothing.

    A preset with a margin was chosen to lose no quality, whatever stop of the dial served that: its cost is nothing.
    """
    presets = bundle.manifest.presets
    for name in (preset, "balanced"):
        policy = presets.get(name)
        if policy is not None and policy.margin is not None:
            break
        if policy is not None and policy.kind == "willingness_to_pay_usd" and policy.value > 0:
            return policy.value
    return float("inf")


def meet(
    champion: Bundle,
    challenger: Bundle,
    holdout: OutcomeTable,
    weights: Matrix | None,
    overlap: Overlap,
    *,
    min_slice: int,
    confidence: float,
    is_voted: NDArray[np.bool_] | None = None,
    time_ratio: Callable[[Bundle, Bundle, Sequence[str]], float] | None = None,
) -> Contest:
    """Let two bundles predict the same held-out rows.

    Parameters
    ----------
    champion, challenger : Bundle
    holdout : OutcomeTable
        Rows that taught neither.
    weights : ndarray of shape (n, m) or None
        For how many outcomes each counts.
    overlap : Overlap
    min_slice : int
        Prompts of a task slice.
    confidence : float
    is_voted : ndarray of shape (n,), bool, optional
    time_ratio : callable, optional
        Default: :func:`measured_time_ratio`.

    Returns
    -------
    Contest
    """
    common = [
        name for name in holdout.candidates if name in champion.manifest.names and name in challenger.manifest.names
    ]
    if weights is not None:
        weights = weights[:, [holdout.candidates.index(name) for name in common]]
    table = holdout.select(candidates=common)
    prices = {column.name: column.reference_price for column in challenger.manifest.candidates}
    old, new = (replace(rows_of(bundle, table, prices), weights=weights) for bundle in (champion, challenger))
    ratio = measured_time_ratio if time_ratio is None else time_ratio
    return Contest(
        champion,
        challenger,
        old,
        new,
        topics_of(table.tasks, min_slice),
        overlap,
        ratio(champion, challenger, table.prompts),
        confidence,
        is_voted=is_voted,
        holdout_sha256=_digest(holdout),
    )


def _digest(table: OutcomeTable) -> str:
    """Return the SHA-256 of a table's rows."""
    digest = hashlib.sha256()
    for row in (table.candidates, *zip(table.prompt_ids, table.prompts, table.groups, strict=True)):
        digest.update("\0".join((*row, "")).encode("utf-8", "replace"))
    # All NaN are written alike.
    digest.update(np.where(np.isnan(table.quality), np.float32(-1), table.quality).astype("<f4").tobytes())
    return digest.hexdigest()


def measured_time_ratio(champion: Bundle, challenger: Bundle, texts: Sequence[str]) -> float:
    """Return the median decision time of one over that of the other, by turns on the same texts, the best of five."""
    texts = list(texts[:_TIMED_TEXTS])
    if not texts:
        return 1.0
    best = np.full((2, len(texts)), np.inf)
    for _ in range(_TIMED_ROUNDS):
        for i, text in enumerate(texts):
            for row, bundle in enumerate((champion, challenger)):
                begun = time.perf_counter()
                bundle.predictor.predict(bundle.encoder.encode([text]))
                best[row, i] = min(best[row, i], time.perf_counter() - begun)
    median = np.median(best, axis=1)
    return float(median[1] / median[0])
