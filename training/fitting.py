"""Fit everything a bundle predicts with: encoder, quality with its calibration, output tokens.

``train`` rows fit; ``validation`` rows choose (kind of estimator, how far its differences are trusted); they and the
``calibration`` rows calibrate, since two numbers per candidate gain more from twice the rows than a choice of two
numbers over all candidates can have spoilt. Test rows are not seen here. Entry point: :func:`fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats, Price
from routing_data import OutcomeTable
from training.blend import TopicBlend, fit_blend
from training.calibrate import Calibration, calibrate
from training.embed import embed, fit_encoder
from training.errors import NotEnoughData
from training.estimators import KINDS, Average, Hints, QualityEstimator
from training.fitted_encoder import FittedEncoder
from training.novelty import Novelty, fit_novelty
from training.settings import Settings
from training.tokens import TokenModel, calibrate_tokens, fit_tokens
from training.topics import TopicModel, fit_topics, topics_of

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

PARTS = ("train", "validation", "calibration", "test")
_LEAST_ROWS: Mapping[str, int] = {"train": 50, "validation": 20, "calibration": 20}


@dataclass(frozen=True, slots=True, eq=False)
class QualityModel:
    """Features to calibrated quality with its interval.

    Parameters
    ----------
    kind : str
        Which kind was chosen.
    estimator : QualityEstimator
    blend : TopicBlend or None
    calibration : Calibration
    topics : TopicModel or None
        Tells kinds of task apart; reported with every decision.
    """

    kind: str
    estimator: QualityEstimator
    blend: TopicBlend | None
    calibration: Calibration
    topics: TopicModel | None = None
    novelty: Novelty | None = None

    def predict(self, features: Floats) -> tuple[Matrix, Matrix, Matrix]:
        """Return quality and the bounds of its interval, each of shape (n, m)."""
        logits = self.estimator.decision_function(features)
        if self.blend is not None:
            logits = self.blend.apply(features, logits)
        quality = self.calibration.quality(logits)
        said = quality, *self.calibration.interval(quality)
        return said if self.novelty is None else self.novelty.apply(features, *said)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Everything that was fitted, and why this rather than that.

    Parameters
    ----------
    encoder : FittedEncoder
    features : ndarray of shape (n, dim), float32
        Of every row of the table, so that nothing embeds twice.
    quality : QualityModel
    tokens : TokenModel
    tokens_per_character : ndarray of shape (m,), float64
        Input tokens; 0.25 where the data has none.
    prices : tuple of m (Price or None)
    selection : dict
        What was compared on validation rows, for the report.
    """

    encoder: FittedEncoder
    features: Floats
    quality: QualityModel
    tokens: TokenModel
    tokens_per_character: NDArray[np.float64]
    prices: tuple[Price | None, ...]
    selection: dict[str, object]


def fit(
    table: OutcomeTable,
    parts: NDArray[np.str_],
    prices: Mapping[str, tuple[float, float] | None],
    settings: Settings,
    tell: Callable[[str], None] = lambda stage: None,
    advance: Callable[[int], None] | None = None,
    weights: Matrix | None = None,
    encoder: FittedEncoder | None = None,
    features: Floats | None = None,
) -> Fitted:
    """Fit.

    Parameters
    ----------
    table : OutcomeTable
    parts : ndarray of shape (n,), str
        Which of :data:`PARTS` each row belongs to.
    prices : mapping of str to (float, float) or None
        USD per million input and output tokens.
    settings : Settings
    tell, advance : callable, optional
        For a progress display: the name of each stage as it begins; how many prompts were embedded.
    weights : ndarray of shape (n, m), optional
        For how many outcomes each counts, at least 0; default 1. The encoder and topics, which read prompts and not
        outcomes, know none.
    encoder : FittedEncoder, optional
        Keep this one rather than fit one; its topics, where it has none, are learned from the training rows.
    features : ndarray of shape (n, dim), float32, optional
        What that encoder made of the prompts; a row of NaN is made here from the prompt.

    Returns
    -------
    Fitted

    Raises
    ------
    NotEnoughData
        A part has too few rows, or a candidate was never observed on training rows.
    """
    masks = {name: parts == name for name in PARTS}
    _require(table, masks)
    train, validation = masks["train"], masks["validation"]
    held_out = validation | masks["calibration"]
    quality = table.quality.astype(np.float64)
    weights = _meaningful(weights, quality)
    if weights is not None:
        quality = np.where(weights > 0, quality, np.nan)

    tell("fit encoder")
    topics = topics_of([table.tasks[i] for i in np.flatnonzero(train)], settings.topics.min_prompts)
    hints = Hints(
        None if topics is None else (np.asarray(topics)[:, None] == np.unique(topics)[None, :]).astype(np.float32),
        _standardised(np.log(np.maximum(table.output_tokens[train], 1))),
    )
    texts = [table.prompts[i] for i in np.flatnonzero(train)]
    if encoder is None:
        encoder = fit_encoder(texts, topics, settings, quality[train], hints, tell)
    tell("embed")
    features = _embedded(encoder, table.prompts, features, advance)
    read = features[:, encoder.columns]
    if topics is not None and encoder.topics is None:
        encoder = replace(encoder, topics=fit_topics(features[train], topics))

    tell("fit output tokens")
    of_train, of_held_out = _of(weights, train), _of(weights, held_out)
    tokens = fit_tokens(read[train], table.output_tokens[train], settings.heads, settings.seed, of_train)
    tokens = calibrate_tokens(tokens, read[held_out], table.output_tokens[held_out], of_held_out)
    lengths = np.array([len(prompt) for prompt in table.prompts], np.float64)
    per_character = _tokens_per_character(table.input_tokens[train], lengths[train])

    tell("fit quality")
    fitted: dict[str, QualityEstimator] = {
        kind: KINDS[kind](settings, encoder).fit(features[train], quality[train], hints, of_train)
        for kind in settings.heads.kinds
    }
    kind = settings.heads.kinds[0]
    if len(fitted) > 1:
        kind = "average"
        fitted[kind] = Average(list(fitted.values()))
    errors = {
        name: _brier(
            _sigmoid(estimator.decision_function(features[validation])), quality[validation], _of(weights, validation)
        )
        for name, estimator in fitted.items()
    }
    if settings.heads.choose:
        kind = min(errors, key=lambda name: errors[name])

    tell("calibrate")
    estimator = fitted[kind]
    blend, trust = None, None
    if len(table.candidates) > 1:
        anchors = np.zeros(len(table.candidates), bool)
        anchors[main_pool(np.isfinite(quality[train]))] = True
        blend, trust = fit_blend(
            None if topics is None or encoder.topics is None else (encoder.topics, topics),
            (estimator.decision_function(features[train]), quality[train]),
            features[validation],
            estimator.decision_function(features[validation]),
            quality[validation],
            anchors,
            None if weights is None else (weights[train], weights[validation]),
        )
    logits = estimator.decision_function(features[held_out])
    if blend is not None:
        logits = blend.apply(features[held_out], logits)
    calibrated = calibrate(logits, quality[held_out], settings.seed, of_held_out)
    quality_model = QualityModel(kind, estimator, blend, calibrated, encoder.topics)
    if encoder.novelty is not None:
        said, _, _ = quality_model.predict(features[held_out])
        quality_model = replace(quality_model, novelty=fit_novelty(encoder.novelty, features[held_out], said))
    return Fitted(
        encoder,
        features,
        quality_model,
        tokens,
        per_character,
        tuple(None if price is None else Price(*price) for price in map(prices.get, table.candidates)),
        {
            "validation_brier": errors,
            "kind": kind,
            "topics": [] if topics is None else sorted(set(topics)),
            "blend": trust,
            "calibration": dict(zip(table.candidates, calibrated.methods, strict=True)),
        },
    )


def _require(table: OutcomeTable, masks: Mapping[str, Mask]) -> None:
    for name, least in _LEAST_ROWS.items():
        if (n := int(masks[name].sum())) < least:
            raise NotEnoughData(f"the {name} part has {n} prompts; at least {least} are needed")
    observed = np.isfinite(table.quality[masks["train"]]).sum(axis=0)
    for candidate, n in zip(table.candidates, observed, strict=True):
        if n < 2:
            raise NotEnoughData(
                f"candidate {candidate!r} has {n} outcomes among the training rows; leave it out with --candidates"
            )


def _meaningful(weights: Matrix | None, quality: Matrix) -> Matrix | None:
    """Return None for weights that say nothing: 1 wherever there is an outcome."""
    return None if weights is None or (weights[np.isfinite(quality)] == 1).all() else weights


def _of(weights: Matrix | None, mask: Mask) -> Matrix | None:
    return None if weights is None else weights[mask]


def _embedded(
    encoder: FittedEncoder,
    prompts: Sequence[str],
    features: Floats | None,
    advance: Callable[[int], None] | None,
) -> Floats:
    if features is None:
        return embed(encoder.encoder, prompts, advance)
    missing = np.flatnonzero(np.isnan(features).any(axis=1))
    features = features.copy()
    features[missing] = embed(encoder.encoder, [prompts[i] for i in missing.tolist()], advance)
    return features


def main_pool(known: Mask) -> NDArray[np.intp]:
    """Return the columns that are known on at least nine rows of ten; all columns, where those are fewer than two.

    Rows where a single column is known, such as votes on the one answer that was given, compare nobody and do not
    count where there are others.
    """
    comparing = known.sum(axis=1) > 1
    known = known[comparing] if comparing.any() else known
    columns = np.flatnonzero(known.mean(axis=0) >= 0.9)
    return columns if len(columns) > 1 else np.arange(known.shape[1])


def _tokens_per_character(input_tokens: Matrix, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratio of sums, so that total input cost comes out right."""
    known = np.isfinite(input_tokens)
    characters = (known * lengths[:, None]).sum(axis=0)
    tokens = np.where(known, input_tokens, 0.0).sum(axis=0)
    return np.where((characters > 0) & (tokens > 0), tokens / np.maximum(characters, 1), 0.25)


def _standardised(values: Matrix) -> Floats | None:
    """Return the columns that hold anything with mean 0 and variance 1, NaN staying; None where none does."""
    values = values[:, np.isfinite(values).any(axis=0)]
    if not values.shape[1]:
        return None
    spread = np.nanstd(values, axis=0)
    result: Floats = ((values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)
    return result


def _brier(predicted: Matrix, quality: Matrix, weights: Matrix | None) -> float:
    """Mean over candidates of the mean squared error on observed rows."""
    observed = np.isfinite(quality)
    if weights is not None:
        counts = np.where(observed, weights, 0.0)
        squares = counts * (predicted - np.where(observed, quality, 0.0)) ** 2
        return float((squares.sum(axis=0) / np.maximum(counts.sum(axis=0), 1e-9)).mean())
    error = np.where(observed, predicted - np.where(observed, quality, 0.0), 0.0)
    return float(((error**2).sum(axis=0) / np.maximum(observed.sum(axis=0), 1)).mean())


def _sigmoid(logits: Matrix) -> Matrix:
    result: Matrix = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return result
