"""The configuration of a training run: one TOML, one frozen object.

Every key has a default, so no file is needed. An unknown key is an error that names the nearest known one; a value
out of range names what was expected. Entry point: :func:`read_settings`.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import cast, get_type_hints

from training.errors import InvalidSettings
from training.toml_file import Rule, hold, read_toml

KINDS = ("mlp", "forest", "heads", "logistic", "ridge", "boosting")
ENCODERS = ("lexical", "minilm", "stacked")


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Shares of the prompt groups per part; they sum to 1.

    ``train`` fits, ``validation`` chooses, ``calibration`` calibrates, ``test`` is looked at once.
    """

    train: float = 0.6
    validation: float = 0.1
    calibration: float = 0.1
    test: float = 0.2


@dataclass(frozen=True, slots=True)
class LexicalSettings:
    """The learned table of the lexical encoder.

    Parameters
    ----------
    n_columns : int
        Columns found by truncated SVD.
    min_prompts : int
        A bucket needs this many training prompts to get a row.
    word_vectors : bool
        Add the general word vectors of :mod:`training.words` as columns.
    """

    n_columns: int = 128
    min_prompts: int = 5
    word_vectors: bool = True


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """Topics learned from the ``task`` column, where the data has one.

    Parameters
    ----------
    min_prompts : int
        A task with fewer training prompts joins its parent (``a/b`` joins ``a``), then the rest.
    """

    min_prompts: int = 60


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """The quality and token estimators.

    Parameters
    ----------
    kinds : tuple of str
        Fitted; of several the mean logit is used, or what ``choose`` says.
    choose : bool
        Compare the kinds and their mean on validation rows and use the best, rather than always the mean.
    hidden, n_nets, epochs, min_steps, batch : int
        Of the networks: units, how many are averaged, passes over the data, least optimiser steps, rows per step.
    dropout, feature_dropout, learning_rate, weight_decay : float
    """

    kinds: tuple[str, ...] = ("mlp", "forest")
    choose: bool = True
    hidden: int = 192
    n_nets: int = 4
    epochs: int = 30
    min_steps: int = 600
    batch: int = 256
    dropout: float = 0.4
    feature_dropout: float = 0.25
    learning_rate: float = 0.002
    weight_decay: float = 0.03


@dataclass(frozen=True, slots=True)
class ForestSettings:
    """The randomised trees.

    Parameters
    ----------
    n_trees, min_leaf : int
        Trees averaged; prompts that a leaf needs.
    max_features : float in (0, 1]
        Share of the features tried at a split.
    """

    n_trees: int = 100
    min_leaf: int = 8
    max_features: float = 0.3


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """The transformer of the stacked tier.

    Parameters
    ----------
    model : str
        Folder or name of a sentence-transformers model to begin with.
    epochs, batch : int
    learning_rate, head_learning_rate, weight_decay, dropout : float
        Dropout is before the heads alone.
    bfloat16 : bool
        Multiply in bfloat16: many times quicker where the processor has units for it (AMX), slower where it has not.
    int8 : bool
        Serve weights of eight bits.
    checkpoint_dir : str
        Where to keep a checkpoint after every epoch, to go on from; empty keeps none.
    """

    model: str = ""
    epochs: int = 3
    batch: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.2
    bfloat16: bool = True
    int8: bool = True
    checkpoint_dir: str = ""


@dataclass(frozen=True, slots=True)
class CertifySettings:
    """What is certified of a bundle on its test rows.

    Parameters
    ----------
    fall_below : float
        At most this share of requests falls below the best single candidate; 0 certifies no such thing.
    keep : float
        Mean quality is at least this share of the best single candidate's; 0 certifies no such thing.
    confidence : float in (0, 1)
    """

    fall_below: float = 0.05
    keep: float = 0.99
    confidence: float = 0.9


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How the report is made."""

    n_resamples: int = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """One training run.

    Parameters
    ----------
    seed : int
        Of the split, the networks and the bootstrap.
    encoder : {'lexical', 'minilm', 'stacked'}
    encoder_dir : str
        Folder made by ``turnout encoder export``; needed by ``minilm``.
    candidates : tuple of str
        Globs; empty keeps every candidate.
    refit : bool
        After measuring, fit once more with the test rows among the training rows. The report stays the one measured
        before.
    licence, attribution : str
        Of sources that do not state their own; they go into the manifest and the card.
    """

    seed: int = 0
    encoder: str = "lexical"
    encoder_dir: str = ""
    candidates: tuple[str, ...] = ()
    refit: bool = False
    licence: str = ""
    attribution: str = ""
    split: SplitSettings = field(default_factory=SplitSettings)
    lexical: LexicalSettings = field(default_factory=LexicalSettings)
    topics: TopicSettings = field(default_factory=TopicSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    forest: ForestSettings = field(default_factory=ForestSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    certify: CertifySettings = field(default_factory=CertifySettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


@dataclass(frozen=True, slots=True)
class EnvironmentTracking:
    """What MLflow's own variables say: the store, and the run that ``mlflow run`` has begun there."""

    uri: str | None
    run_id: str | None


#: MLflow's defaults report home, wait minutes for a store that does not answer, and print between our lines.
_MLFLOW_DEFAULTS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def with_mlflow_defaults() -> None:
    """Set what mlflow shall do, to be called before it is imported. Who has set a variable knows better."""
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)


def gateway_key(variable: str | None) -> str | None:
    """Read the key that a command shows a gateway; None where no variable is named.

    Raises
    ------
    InvalidSettings
        The variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InvalidSettings(f"--key-env: the environment variable {variable} is not set (a key of the gateway)")
    return key


def tracking_of_environment() -> EnvironmentTracking:
    """Return what MLFLOW_TRACKING_URI and MLFLOW_RUN_ID say; empty is absent."""
    return EnvironmentTracking(os.environ.get("MLFLOW_TRACKING_URI") or None, os.environ.get("MLFLOW_RUN_ID") or None)


def read_settings(path: str | os.PathLike[str] | None) -> Settings:
    """Read the settings of a run.

    Parameters
    ----------
    path : path-like or None
        A TOML file; None gives the defaults.

    Returns
    -------
    Settings

    Raises
    ------
    InvalidSettings
        The file cannot be read, or a key or value in it cannot be.
    """
    if path is None:
        return Settings()
    return settings_of(read_toml(path), str(path))


def settings_of(document: Mapping[str, object], where: str) -> Settings:
    """Make settings of a parsed document; raises InvalidSettings, whose messages begin with ``where``."""
    settings = cast(Settings, section_of(Settings, document, where))
    _check(settings, where)
    return settings


def section_of(kind: type[object], document: Mapping[str, object], where: str) -> object:
    """Make a dataclass of a table of plain values; raises InvalidSettings naming the key and what was expected."""
    hints = get_type_hints(kind)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for key, value in document.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            raise InvalidSettings(f"{where}: unknown key {key!r}; the nearest known key is {near!r}")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    return kind(**values)


def _value(expected: object, value: object, where: str) -> object:
    if isinstance(expected, type) and is_dataclass(expected):
        if not isinstance(value, dict):
            raise InvalidSettings(f"{where} must be a table, got {value!r}")
        return section_of(expected, value, where)
    if expected in (tuple[str, ...], tuple[float, ...]):
        item = str if expected == tuple[str, ...] else float
        if not isinstance(value, list):
            raise InvalidSettings(f"{where} must be a list, got {value!r}")
        return tuple(_value(item, entry, where) for entry in value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(expected, type) or type(value) is not expected:
        raise InvalidSettings(f"{where} must be {getattr(expected, '__name__', expected)}, got {value!r}")
    return value


def _check(settings: Settings, where: str) -> None:
    split, heads, forest = settings.split, settings.heads, settings.forest
    finetune, certify = settings.finetune, settings.certify
    parts = (split.train, split.validation, split.calibration, split.test)
    rules: tuple[Rule, ...] = (
        (settings.seed >= 0, "seed", settings.seed, "at least 0"),
        (settings.encoder in ENCODERS, "encoder", settings.encoder, f"one of {', '.join(ENCODERS)}"),
        (
            settings.encoder != "stacked" or bool(finetune.model),
            "finetune.model",
            finetune.model,
            "the folder or name of a sentence-transformers model",
        ),
        (
            (settings.encoder == "stacked") == ("heads" in heads.kinds),
            "heads.kinds",
            heads.kinds,
            "with 'heads' for the encoder 'stacked', and without it for the others",
        ),
        (
            min(finetune.epochs, finetune.batch) >= 1,
            "finetune.epochs, finetune.batch",
            (finetune.epochs, finetune.batch),
            "at least 1",
        ),
        (
            0 <= certify.fall_below < 1 and 0 <= certify.keep < 2 and 0 < certify.confidence < 1,
            "certify",
            (certify.fall_below, certify.keep, certify.confidence),
            "fall_below in [0, 1), keep in [0, 2), confidence in (0, 1)",
        ),
        (0 <= finetune.dropout < 1, "finetune.dropout", finetune.dropout, "in [0, 1)"),
        (
            settings.encoder != "minilm" or bool(settings.encoder_dir),
            "encoder_dir",
            settings.encoder_dir,
            "the folder that 'turnout encoder export' made",
        ),
        (min(parts) > 0 and math.isclose(sum(parts), 1.0, abs_tol=1e-6), "split", parts, "four shares above 0, sum 1"),
        (settings.lexical.n_columns >= 1, "lexical.n_columns", settings.lexical.n_columns, "at least 1"),
        (settings.lexical.min_prompts >= 2, "lexical.min_prompts", settings.lexical.min_prompts, "at least 2"),
        (settings.topics.min_prompts >= 2, "topics.min_prompts", settings.topics.min_prompts, "at least 2"),
        (
            bool(heads.kinds) and set(heads.kinds) <= set(KINDS) and len(set(heads.kinds)) == len(heads.kinds),
            "heads.kinds",
            heads.kinds,
            f"one or more of {', '.join(KINDS)}, each once",
        ),
        (
            min(heads.hidden, heads.n_nets, heads.epochs, heads.min_steps, heads.batch) >= 1,
            "heads",
            (heads.hidden, heads.n_nets, heads.epochs, heads.min_steps, heads.batch),
            "hidden, n_nets, epochs, min_steps, batch at least 1",
        ),
        (
            0 <= heads.dropout < 1 and 0 <= heads.feature_dropout < 1,
            "heads.dropout, heads.feature_dropout",
            (heads.dropout, heads.feature_dropout),
            "in [0, 1)",
        ),
        (
            min(forest.n_trees, forest.min_leaf) >= 1 and 0 < forest.max_features <= 1,
            "forest",
            (forest.n_trees, forest.min_leaf, forest.max_features),
            "n_trees, min_leaf at least 1, max_features in (0, 1]",
        ),
        (heads.learning_rate > 0, "heads.learning_rate", heads.learning_rate, "above 0"),
        (heads.weight_decay >= 0, "heads.weight_decay", heads.weight_decay, "at least 0"),
        (
            settings.evaluation.n_resamples >= 50,
            "evaluation.n_resamples",
            settings.evaluation.n_resamples,
            "at least 50",
        ),
    )
    hold(rules, where)
