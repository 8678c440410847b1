"""The configuration of a retraining: that of a training run, with three tables more.

``[retrain]``, ``[feedback]`` and ``[gates]`` stand beside the keys of :mod:`training.settings` in the same TOML; every
key has a default. Entry point: :func:`read_retrain_settings`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from training.errors import InvalidSettings
from training.settings import Settings, section_of, settings_of
from training.toml_file import Rule, hold, read_toml

ENCODERS = ("new", "champion")


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """What a challenger is made of.

    Parameters
    ----------
    encoder : {'new', 'champion'}
        Fit one, as the training settings say, or keep the champion's: then prompts of which only the features were
        retained count too.
    label_weight : float
        For how many outcomes each cell of the labelled tables counts, beside votes whose mean is 1.
    min_new_labels : int
        Votes that must have come since the champion was made; fewer and nothing is done.
    min_votes : int
        A candidate that neither champion nor tables know needs this many votes to become one.
    """

    encoder: str = "new"
    label_weight: float = 1.0
    min_new_labels: int = 0
    min_votes: int = 100


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """What votes count for.

    Parameters
    ----------
    weight : float
        For how many labelled outcomes the mean vote counts.
    window_days : float
        A vote later than this after its request is dropped.
    clip : float
        Largest inverse propensity.
    share : float in (0, 1]
        Of all feedback's weight, what one key may have; see :func:`training.influence.capped`.
    is_strict : bool
        Keep to the share even where keys are few.
    tolerance : float
        Mean disagreement with everybody else at which a key is not believed; see :func:`training.influence.trust`.
    trusted : tuple of str
        Keys that are neither capped nor doubted.
    signals : bool
        Take what was seen of an answer's reception (an abandoned stream, an invalid tool call) as weak votes against
        it, where nobody voted.
    signal_weight : float
        Of such a vote, beside 1.
    """

    weight: float = 1.0
    window_days: float = 7.0
    clip: float = 10.0
    share: float = 0.05
    is_strict: bool = False
    tolerance: float = 0.2
    trusted: tuple[str, ...] = ()
    signals: bool = False
    signal_weight: float = 0.1


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Bounds of the gates; see :mod:`training.gates` for what each is held against.

    Parameters
    ----------
    min_prompts : int
        Held-out prompts there must be.
    near_share : float
        Of the holdout, what may be nearly a prompt of the other rows.
    loss : float
        Mean squared error: by how much the challenger's may exceed the champion's on the whole, at the upper end of
        the interval.
    slice_loss, candidate_loss : float
        The same of a task slice (and there of the differences between candidates too), and of one candidate: a lower
        end of the interval above it is refused.
    min_slice : int
        Prompts of a task slice; smaller ones join their parent, then the rest.
    utility, slice_utility : float
        Quality minus cost at each preset, in units of quality: a loss whose lower end exceeds it is refused, on the
        whole and by slice.
    ece : float
        Calibration error beyond the champion's, or beyond what a calibrated predictor would show.
    latency : float
        Times the champion's decision time.
    size, size_mb : float
        Times the champion's bytes, or megabytes, whichever allows more: a bundle grows with what it has learned.
    certificates : bool
        Whether a challenger that cannot renew the champion's promises is refused; a log alone renews none, since
        promises need prompts on which all candidates were observed.
    confidence : float in (0, 1)
        One-sided, of the intervals' ends; of all slices, candidates or presets together.
    """

    min_prompts: int = 100
    near_share: float = 0.01
    loss: float = 0.015
    slice_loss: float = 0.005
    candidate_loss: float = 0.005
    min_slice: int = 20
    utility: float = 0.01
    slice_utility: float = 0.02
    ece: float = 0.02
    latency: float = 1.5
    size: float = 2.0
    size_mb: float = 20.0
    certificates: bool = True
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Retraining:
    """All settings of one retraining.

    Parameters
    ----------
    training : Settings
    retrain : RetrainSettings
    feedback : FeedbackSettings
    gates : GateSettings
    """

    training: Settings = field(default_factory=Settings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)
    gates: GateSettings = field(default_factory=GateSettings)


def read_retrain_settings(path: str | os.PathLike[str] | None) -> Retraining:
    """Read the settings of a retraining.

    Parameters
    ----------
    path : path-like or None
        A TOML file; None gives the defaults.

    Returns
    -------
    Retraining

    Raises
    ------
    InvalidSettings
        The file cannot be read, or a key or value in it cannot be.
    """
    if path is None:
        return Retraining()
    return retraining_of(read_toml(path), str(path))


def retraining_of(document: Mapping[str, object], where: str) -> Retraining:
    """Make settings of a parsed document; raises InvalidSettings, whose messages begin with ``where``."""
    rest = dict(document)
    tables = {}
    for name, kind in (("retrain", RetrainSettings), ("feedback", FeedbackSettings), ("gates", GateSettings)):
        table = rest.pop(name, {})
        if not isinstance(table, dict):
            raise InvalidSettings(f"{where}: {name} must be a table, got {table!r}")
        tables[name] = section_of(kind, table, f"{where}: [{name}]")
    found = Retraining(
        settings_of(rest, where),
        cast(RetrainSettings, tables["retrain"]),
        cast(FeedbackSettings, tables["feedback"]),
        cast(GateSettings, tables["gates"]),
    )
    _check(found, where)
    return found


def _check(settings: Retraining, where: str) -> None:
    retrain, feedback, gates = settings.retrain, settings.feedback, settings.gates
    rules: tuple[Rule, ...] = (
        (retrain.encoder in ENCODERS, "retrain.encoder", retrain.encoder, f"one of {', '.join(ENCODERS)}"),
        (retrain.label_weight > 0, "retrain.label_weight", retrain.label_weight, "above 0"),
        (retrain.min_new_labels >= 0, "retrain.min_new_labels", retrain.min_new_labels, "at least 0"),
        (retrain.min_votes >= 2, "retrain.min_votes", retrain.min_votes, "at least 2"),
        (feedback.weight > 0, "feedback.weight", feedback.weight, "above 0"),
        (feedback.window_days > 0, "feedback.window_days", feedback.window_days, "above 0"),
        (feedback.clip >= 1, "feedback.clip", feedback.clip, "at least 1"),
        (0 < feedback.share <= 1, "feedback.share", feedback.share, "in (0, 1]"),
        (feedback.tolerance > 0, "feedback.tolerance", feedback.tolerance, "above 0"),
        (0 < feedback.signal_weight <= 1, "feedback.signal_weight", feedback.signal_weight, "in (0, 1]"),
        (gates.min_prompts >= 1, "gates.min_prompts", gates.min_prompts, "at least 1"),
        (gates.min_slice >= 2, "gates.min_slice", gates.min_slice, "at least 2"),
        (0.5 <= gates.confidence < 1, "gates.confidence", gates.confidence, "in [0.5, 1)"),
        (min(gates.latency, gates.size) >= 1, "gates.latency, gates.size", (gates.latency, gates.size), "at least 1"),
        (
            min(gates.near_share, gates.loss, gates.slice_loss, gates.candidate_loss, gates.utility) >= 0
            and min(gates.slice_utility, gates.ece) >= 0,
            "gates",
            gates,
            "bounds of at least 0",
        ),
    )
    hold(rules, where)
