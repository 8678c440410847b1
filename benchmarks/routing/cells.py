"""One router on one set and seed: fit, calibrate, choose on validation rows, and measure as the product measures.

Operating points, measures and bootstrap are :func:`training.judgement.judge` for every router. Entry point:
:class:`Bench`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from embeddings import embeddings
from peers import ALSO_LEXICAL, PEERS, Task
from tables import Problem

from router.domain import Price
from router.pricing import expected_cost_usd
from routing_data import implied_prices
from training.calibrate import calibrate
from training.evaluate import Rows
from training.fitting import fit, main_pool
from training.judgement import judge
from training.lexical import fit_lexical
from training.operating import regret
from training.pipeline import export, rows_of
from training.settings import EvaluationSettings, Settings
from training.tokens import calibrate_tokens, fit_tokens

REFERENCES = ("random", "cheapest", "best single", "hull of singles", "oracle")
LEXICAL = " + lexical"
ROUTERS = (*REFERENCES, *PEERS, *(name + LEXICAL for name in ALSO_LEXICAL))
_BINS = 15


class Bench:
    """Routers on one problem; what they share is computed once.

    Parameters
    ----------
    problem : Problem
    model : Path or None
        Of the embeddings; None gives the peers the lexical features instead.
    cache : Path
    tiers : dict of str to Settings
        Turnout's.
    n_resamples : int
    """

    def __init__(self, problem: Problem, model: Path | None, cache: Path, tiers: dict[str, Settings], n_resamples: int):
        self.problem, self.model, self.cache, self.tiers = problem, model, cache, tiers
        self.table, self.parts = problem.table, problem.parts
        self.settings = Settings(seed=problem.seed, evaluation=EvaluationSettings(n_resamples))
        self.quality = self.table.quality.astype(np.float64)
        self.train = self.parts == "train"

    def run(self, router: str) -> dict:
        """Measure one router."""
        if router in self.tiers:
            chosen, rows = self._turnout(self.tiers[router])
        elif router in REFERENCES:
            chosen, rows = "", self._reference(router)
        else:
            chosen, rows = self._peer(router)
        settings = replace(self.settings, evaluation=EvaluationSettings(50)) if router in REFERENCES else self.settings
        report, _ = judge(rows, self.parts, settings)
        kept = ("metrics", "singles", "hull", "best_single", "oracle", "curve", "oracle_curve", "presets")
        report["metrics"]["quality_minus_best_single"] = report["presets"]["quality"]["quality_minus_best_single"]
        return {"settings": chosen, **{k: report[k] for k in kept}, "reliability": self._reliability(rows)}

    @cached_property
    def _lexical(self) -> np.ndarray:
        texts = [self.table.prompts[i] for i in np.flatnonzero(self.train)]
        return fit_lexical(texts, None, self.settings.lexical, self.problem.seed).encoder.encode(self.table.prompts)

    @cached_property
    def _features(self) -> np.ndarray:
        return self._lexical if self.model is None else embeddings(self.table.prompts, self.model, self.cache)

    @cached_property
    def _rows(self) -> Rows:
        """Hold what all but CARROT and Turnout predict of cost: tokens by the product's network on the features."""
        X = _standardised(self._features, self.train)
        tokens = fit_tokens(X[self.train], self.table.output_tokens[self.train], self.settings.heads, self.problem.seed)
        held = (self.parts == "validation") | (self.parts == "calibration")
        tokens = calibrate_tokens(tokens, X[held], self.table.output_tokens[held])
        lengths = np.array([len(p) for p in self.table.prompts], np.float64)
        known = np.isfinite(self.table.input_tokens) & self.train[:, None]
        total = np.where(known, self.table.input_tokens, 0).sum(0)
        ratio = np.where(total > 0, total / np.maximum((known * lengths[:, None]).sum(0), 1), 0.25)
        prices = implied_prices(self.table)
        mean, p90 = (np.where(tokens.known, a, np.nan) for a in tokens.predict(X))
        cost = expected_cost_usd(
            tuple(None if prices[c] is None else Price(*prices[c]) for c in self.table.candidates),
            (lengths[:, None] * ratio).astype(np.float32),
            mean.astype(np.float32),
        )
        unknown = ~np.isfinite(cost).any(0)
        cost[:, unknown] = np.nanmean(self.table.cost_usd[self.train], axis=0)[unknown]
        table = self.table
        return Rows(
            table.candidates, np.full(cost.shape, 0.5), cost, mean, p90, self.quality, table.cost_usd,
            table.output_tokens, table.tasks, table.groups,
        )  # fmt: skip

    def _reference(self, router: str) -> Rows:
        rows, (n, m) = self._rows, self.quality.shape
        test = (self.parts == "test") & rows.complete
        means = np.nanmean(self.quality[self.train], 0)
        if router == "random":
            return replace(rows, predicted=np.random.default_rng(self.problem.seed).random((n, m)))
        if router == "oracle":
            return replace(rows, predicted=self.quality, predicted_cost=self.table.cost_usd)
        if router == "hull of singles":
            at = (
                np.broadcast_to(self.quality[test].mean(0), (n, m)),
                np.broadcast_to(rows.cost_usd[test].mean(0), (n, m)),
            )
            return replace(rows, predicted=at[0], predicted_cost=at[1])
        column = int(np.argmax(means) if router == "best single" else np.nanmean(rows.cost_usd[self.train], 0).argmin())
        # Only one candidate is ever worth its money.
        cost = np.ones((n, m)) * 1e3
        cost[:, column] = 0
        return replace(rows, predicted=np.tile(np.eye(m)[column], (n, 1)), predicted_cost=cost)

    def _peer(self, router: str) -> tuple[str, Rows]:
        features = _standardised(self._features, self.train)
        if router.endswith(LEXICAL):
            features = np.hstack([features, _standardised(self._lexical, self.train)])
        mean = np.nanmean(self.quality[self.train], 0)
        cost = self.table.cost_usd[self.train]
        other = np.flatnonzero(~self.train & (self.parts != "dropped"))
        task = Task(
            features[self.train].astype(np.float64),
            features[other].astype(np.float64),
            self.quality[self.train],
            np.where(np.isfinite(self.quality[self.train]), self.quality[self.train], mean),
            np.where(np.isfinite(cost), cost, np.nanmean(cost, 0)),
            self.problem.seed,
        )
        held = (self.parts[other] == "validation") | (self.parts[other] == "calibration")
        best: tuple[float, str, Rows] | None = None
        for name, logits, *costs in PEERS[router.removesuffix(LEXICAL)](task):
            calibration = calibrate(logits[held], self.quality[other][held], self.problem.seed)
            predicted = np.full(self.quality.shape, 0.5)
            predicted[other] = calibration.quality(logits)
            rows = replace(self._rows, predicted=predicted)
            if costs:
                own = rows.predicted_cost.copy()
                own[other] = costs[0]
                rows = replace(rows, predicted_cost=own)
            loss = self._regret(rows)
            if best is None or loss < best[0]:
                best = loss, name, rows
        assert best is not None
        return best[1], best[2]

    def _regret(self, rows: Rows) -> float:
        pool = main_pool(np.isfinite(rows.quality) & np.isfinite(rows.cost_usd))
        rows = rows.columns(pool)
        rows = rows.select((self.parts == "validation") & rows.complete)
        return regret(rows.predicted, rows.predicted_cost, rows.quality, rows.cost_usd)

    def _turnout(self, settings: Settings) -> tuple[str, Rows]:
        settings = replace(settings, seed=self.problem.seed)
        fitted = fit(self.table, self.parts, implied_prices(self.table), settings)
        return f"{settings.encoder}, {fitted.selection['kind']}", rows_of(self.table, fitted, export(fitted))

    def _reliability(self, rows: Rows) -> list[list[float]]:
        """Return (mean prediction, mean quality) in bins of equal mass over all candidates, test rows."""
        test = self.parts == "test"
        p, y = rows.predicted[test].ravel(), rows.quality[test].ravel()
        p, y = p[np.isfinite(y)], y[np.isfinite(y)]
        return [[float(p[i].mean()), float(y[i].mean())] for i in np.array_split(np.argsort(p), _BINS)]


def _standardised(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    spread = features[train].std(0)
    result: np.ndarray = ((features - features[train].mean(0)) / np.where(spread > 1e-9, spread, 1)).astype(np.float32)
    return result
