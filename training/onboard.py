"""Add a candidate to a bundle from a few labelled prompts, without training anything: what ``turnout onboard`` does.

Load → predict with the bundle → place the newcomer among its candidates → append its column to the graphs → verify →
write. The other columns stay bit for bit what they were. Entry point: :func:`onboard`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from router.bundle import Bundle, load, parity, write
from router.domain import Floats, Price
from router.manifest import Column, Manifest
from router.predictors import QUALITY_FILE, QUALITY_OUTPUTS, TASK_OUTPUT, TOKENS_FILE, TOKENS_OUTPUTS, Predictor
from routing_data import OutcomeTable, implied_prices
from training import parity as parity_texts
from training.ability import Lengths, Placement, fit_quality, fit_tokens
from training.errors import ExportMismatch, InvalidSettings, NotEnoughData
from training.measure import trained_on
from training.newcomer_graph import with_quality, with_tokens
from training.pipeline import CARD_FILE, identity_of
from training.pipeline import load as load_table

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LEAST_LABELS = 8
_BATCH = 256
_TOLERANCES = {**dict.fromkeys(QUALITY_OUTPUTS, 1e-3), **dict.fromkeys(TOKENS_OUTPUTS, 1e-2)}


@dataclass(frozen=True, slots=True)
class Onboarded:
    """What was added.

    Parameters
    ----------
    manifest : Manifest
        Of the new bundle.
    n_labels : int
    mean_label, mean_quality, mean_low, mean_high : float
        Over the labelled prompts: what was observed, what is predicted, the bounds of its interval.
    notes : tuple of str
        What a person should know about the new bundle.
    """

    manifest: Manifest
    n_labels: int
    mean_label: float
    mean_quality: float
    mean_low: float
    mean_high: float
    notes: tuple[str, ...]


def onboard(
    directory: Path,
    paths: Sequence[Path],
    candidate: str,
    out: Path,
    *,
    price: Price | None = None,
    overwrite: bool = False,
) -> Onboarded:
    """Write a bundle that also knows a new candidate.

    Parameters
    ----------
    directory : Path
        The bundle to start from; it stays as it is.
    paths : sequence of Path
        Outcome tables with labels of the new candidate. Outcomes of the bundle's candidates on the same prompts make
        the labels tell more; rows without a label help to learn how the bundle's candidates relate.
    candidate : str
        Its name in the table.
    out : Path
        Folder of the new bundle, ``models/NAME/VERSION`` or ``models/NAME``.
    price : Price, optional
        Reference price; by default what the table's costs imply, if they do.
    overwrite : bool, default=False

    Returns
    -------
    Onboarded

    Raises
    ------
    InvalidSettings
        The bundle has the candidate already.
    NotEnoughData
        The table has not the candidate, fewer than :data:`LEAST_LABELS` labels of it, or labels that are all the same.
    ExportMismatch
        The new graphs do not say what was fitted.
    FileExistsError
        ``out`` is there and ``overwrite`` is False.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another version or pass --overwrite")
    bundle = load(directory)
    if candidate in bundle.manifest.names:
        raise InvalidSettings(f"{bundle.manifest.id} has the candidate {candidate!r} already; train to renew it")
    table = load_table(paths)
    labels = _labels_of(table, candidate)
    column = table.candidates.index(candidate)
    features = _features(bundle, table.prompts)
    said = bundle.predictor.predict(features)
    known_quality, tasks = _regressors(said)
    placement = fit_quality(known_quality, tasks, labels, _outcomes(bundle, table))
    tokens = table.output_tokens[:, column]
    knows_tokens = bool(np.isfinite(tokens).sum() >= LEAST_LABELS)
    known_tokens = said["output_tokens"].astype(np.float64)
    lengths = fit_tokens(known_tokens, tokens) if knows_tokens else Lengths.unknown(len(bundle.manifest.names))

    files = {name: (directory / name).read_bytes() for name in bundle.manifest.files}
    files[QUALITY_FILE] = with_quality(files[QUALITY_FILE], placement, len(bundle.manifest.names))
    files[TOKENS_FILE] = with_tokens(files[TOKENS_FILE], lengths)
    predictor = Predictor(files, bundle.manifest.dim, len(bundle.manifest.names) + 1, len(bundle.manifest.tasks))
    _verify(predictor, features, said, placement, lengths)

    known = np.isfinite(labels)
    if price is None and (implied := implied_prices(table)[candidate]) is not None:
        price = Price(*implied)
    newcomer = Column(candidate, _tokens_per_character(bundle, table, column), knows_tokens, int(known.sum()), price)
    notes = _notes(bundle, table, knows_tokens, price)
    manifest = _manifest(bundle.manifest, newcomer, table, out, notes)
    quality, low, high = (float(part[known].mean()) for part in placement.quality(known_quality, tasks))
    result = Onboarded(manifest, int(known.sum()), float(labels[known].mean()), quality, low, high, notes)
    files["parity.npz"] = parity(bundle.encoder, predictor, parity_texts.TEXTS)
    files[CARD_FILE] = (files.get(CARD_FILE, b"").decode() + _card(result, candidate)).encode()
    return replace(result, manifest=write(out, manifest, files, overwrite=overwrite))


def _labels_of(table: OutcomeTable, candidate: str) -> Vector:
    if candidate not in table.candidates:
        near = difflib.get_close_matches(candidate, table.candidates, n=1, cutoff=0.0)[0]
        raise NotEnoughData(f"the data has no candidate {candidate!r}; the nearest is {near!r}")
    labels: Vector = table.quality[:, table.candidates.index(candidate)].astype(np.float64)
    known = labels[np.isfinite(labels)]
    if len(known) < LEAST_LABELS:
        raise NotEnoughData(f"{candidate!r} has {len(known)} labelled prompts; at least {LEAST_LABELS} are needed")
    if known.min() == known.max():
        raise NotEnoughData(
            f"all {len(known)} labels of {candidate!r} are {known[0]:g}: they cannot tell how good it is; label more "
            "prompts, easy and hard ones"
        )
    return labels


def _features(bundle: Bundle, prompts: Sequence[str]) -> Floats:
    starts = range(0, len(prompts), _BATCH)
    return np.concatenate([bundle.encoder.encode(prompts[start : start + _BATCH]) for start in starts])


def _regressors(said: Mapping[str, Floats]) -> tuple[Matrix, Matrix]:
    """Return what a placement reads: known qualities and probabilities of tasks, the latter of no column if unknown."""
    quality = said[QUALITY_OUTPUTS[0]].astype(np.float64)
    tasks = said.get(TASK_OUTPUT)
    return quality, np.zeros((len(quality), 0)) if tasks is None else tasks.astype(np.float64)


def _outcomes(bundle: Bundle, table: OutcomeTable) -> Matrix:
    """Return what the bundle's candidates did on the table's prompts, shape (n, m); NaN where that is not said."""
    outcomes = np.full((len(table.prompts), len(bundle.manifest.names)), np.nan)
    for j, name in enumerate(bundle.manifest.names):
        if name in table.candidates:
            outcomes[:, j] = table.quality[:, table.candidates.index(name)]
    return outcomes


def _tokens_per_character(bundle: Bundle, table: OutcomeTable, column: int) -> float:
    """Ratio of sums over the rows that tell, else the mean of the bundle's candidates."""
    tokens = table.input_tokens[:, column]
    known = np.isfinite(tokens) & (tokens > 0)
    if not known.any():
        return float(np.mean([c.input_tokens_per_character for c in bundle.manifest.candidates]))
    characters = np.array([len(prompt) for prompt in table.prompts], np.float64)
    return float(tokens[known].sum() / characters[known].sum())


def _verify(
    predictor: Predictor, features: Floats, before: Mapping[str, Floats], placement: Placement, lengths: Lengths
) -> None:
    """Compare the new graphs with the formulas and with the graphs they grew from."""
    after = predictor.predict(features)
    expected = {
        **dict(zip(QUALITY_OUTPUTS, placement.quality(*_regressors(before)), strict=True)),
        **dict(zip(TOKENS_OUTPUTS, lengths.tokens(before["output_tokens"].astype(np.float64)), strict=True)),
    }
    for name, values in expected.items():
        if not np.array_equal(after[name][:, :-1], before[name]):
            raise ExportMismatch(f"{name}: the graph says something else of the candidates it knew")
        difference = float((np.abs(after[name][:, -1] - values) / np.maximum(values, 1)).max())
        if not difference <= _TOLERANCES[name]:
            raise ExportMismatch(f"{name}: the graph differs from the formula by {difference:.3g}")


def _notes(bundle: Bundle, table: OutcomeTable, knows_tokens: bool, price: Price | None) -> tuple[str, ...]:
    """Say what the newcomer's arrival leaves open."""
    said = {
        "the presets were chosen without the new candidate": bool(bundle.manifest.presets),
        "the certificate is gone: it was for another pool": bundle.manifest.certificate is not None,
        "some of these rows taught the bundle": trained_on(bundle, table),
        "no token counts: its output tokens, and so its cost, stay unknown": not knows_tokens,
        "no reference price: state one in the serving configuration or with --prices": price is None,
    }
    return tuple(note for note, holds in said.items() if holds)


def _manifest(before: Manifest, newcomer: Column, table: OutcomeTable, out: Path, notes: tuple[str, ...]) -> Manifest:
    name, version = identity_of(out)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    record = {
        "candidate": newcomer.name,
        "bundle": before.id,
        "created_at": created_at,
        "n_labels": newcomer.n_observed,
        "data": [{key: value for key, value in asdict(s).items() if key != "path"} for s in table.sources],
        "simulated": table.simulated,
        "notes": list(notes),
    }
    earlier = cast(Sequence[Any], before.training.get("onboarded", []))
    return replace(
        before,
        name=name,
        version=version,
        created_at=created_at,
        candidates=(*before.candidates, newcomer),
        training={**before.training, "onboarded": [*earlier, record]},
        presets={preset: policy for preset, policy in before.presets.items() if preset not in before.certificates},
        certificate=None,
    )


def _card(result: Onboarded, candidate: str) -> str:
    labels = f"{result.n_labels:,} labelled prompts (mean {result.mean_label:.3f})"
    lines = [
        "",
        f"## Onboarded: {candidate}",
        "",
        f"Added from {labels} without training: predicted {result.mean_quality:.3f} on average there, 90 % interval of "
        f"a prompt {result.mean_low:.3f} to {result.mean_high:.3f}. The measures above are of the bundle before.",
        *(f"- {note}" for note in result.notes),
        "",
    ]
    return "\n".join(lines)
