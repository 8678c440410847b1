"""Labelled prompts in, a bundle out: the whole of training, top to bottom, in :func:`train`.

Load → split → fit (embed, fit, choose, calibrate) → export → verify → evaluate what the graphs say → write. What is
measured is what serves: the report is made from the exported graphs with the policy code of the router.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version as version_of
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from router.bundle import parity, write
from router.domain import Floats, Policy
from router.features import FEATURE_SCHEMA
from router.manifest import Column, Manifest
from router.predictors import QUALITY_FILE, TOKENS_FILE, Predictor
from router.pricing import expected_cost_usd
from routing_data import OutcomeTable, implied_prices, merge, read, split
from training import parity as parity_texts
from training.card import card_of
from training.errors import NotEnoughData
from training.evaluate import Report, Rows
from training.export import n_tasks_of, quality_graph, tokens_graph, verify
from training.fitted_encoder import FittedEncoder
from training.fitting import PARTS, Fitted, fit
from training.judgement import certified, judge
from training.settings import Settings

REPORT_FILE, CARD_FILE = "report.json", "CARD.md"
_VERIFIED_ROWS = 512
_VERSIONS = ("numpy", "scikit-learn", "skl2onnx", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run made.

    Parameters
    ----------
    directory : Path
        The bundle.
    manifest : Manifest
    report : dict
        As in ``report.json``.
    """

    directory: Path
    manifest: Manifest
    report: Report


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """What a retraining knows beside its table; see :func:`training.fitting.fit`.

    Parameters
    ----------
    weights : ndarray of shape (n, m), optional
    is_voted : ndarray of shape (n,), bool, optional
        Rows known by votes alone: they teach, but compare no candidates, even where a prompt that was asked again and
        again has a vote on each; such prompts are no sample.
    encoder : FittedEncoder, optional
    features : ndarray of shape (n, dim), float32, optional
    prices : Mapping of str to (float, float)
        USD per million input and output tokens, where the table's costs are not to tell.
    presets : Mapping of str to Policy
        Used where the table cannot tell: deciding is measured on rows that compare candidates.
    provenance : Mapping
        More for the manifest's ``training``.
    """

    weights: NDArray[np.float64] | None = None
    is_voted: NDArray[np.bool_] | None = None
    encoder: FittedEncoder | None = None
    features: Floats | None = None
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    presets: Mapping[str, Policy] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)


def train(
    paths: Sequence[Path],
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    advance: Callable[[int], None] | None = None,
) -> Trained:
    """Train a bundle.

    Parameters
    ----------
    paths : sequence of Path
        Outcome tables, merged.
    out : Path
        The bundle's folder, ``models/NAME/VERSION`` or ``models/NAME``.
    settings : Settings
    overwrite : bool, default=False
        Replace what is there.
    tell, advance : callable, optional
        For a progress display: the name of each stage as it begins; how many prompts were embedded.

    Returns
    -------
    Trained

    Raises
    ------
    TrainingError
        Too little data, or the export differs from the estimators.
    routing_data.DataError
        A table cannot be read.
    FileExistsError
        ``out`` is there and ``overwrite`` is False.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists; choose another version or pass --overwrite")
    tell("load")
    return build(load(paths, settings.candidates), out, settings, overwrite=overwrite, tell=tell, advance=advance)


def build(
    table: OutcomeTable,
    out: Path,
    settings: Settings,
    *,
    taught: Taught = Taught(),
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    advance: Callable[[int], None] | None = None,
) -> Trained:
    """Make a bundle of a table: fit, export, evaluate, write; parameters and errors as of :func:`train`.

    Parameters
    ----------
    table : OutcomeTable
    out : Path
    settings : Settings
    taught : Taught
        What is known beside the table.
    overwrite : bool, default=False
    tell, advance : callable, optional

    Returns
    -------
    Trained
    """
    # Small products, and often other work on the machine: more threads only wait for each other.
    with threadpool_limits(limits=1):
        return _build(table, out, settings, taught, overwrite, tell, advance)


def _build(
    table: OutcomeTable,
    out: Path,
    settings: Settings,
    taught: Taught,
    overwrite: bool,
    tell: Callable[[str], None],
    advance: Callable[[int], None] | None,
) -> Trained:
    table = _with_licence(table, settings)
    parts = split(table.groups, asdict(settings.split), settings.seed)
    prices = {**implied_prices(table), **taught.prices}

    def fit_on(parts: NDArray[np.str_]) -> Fitted:
        kept = (taught.weights, taught.encoder, taught.features)
        return fit(table, parts, prices, settings, tell, advance, *kept)

    fitted = fit_on(parts)

    tell("export")
    files = export(fitted)

    tell("evaluate")
    rows = replace(rows_of(table, fitted, files), weights=taught.weights)
    if taught.is_voted is not None:
        rows = replace(rows, cost_usd=np.where(taught.is_voted[:, None], np.nan, rows.cost_usd))
    report, presets = judge(rows, parts, settings)
    # Fitting again on the test rows would leave none that a promise could rest on.
    promises = {} if settings.refit else certified(rows, parts, fitted.prices, settings)
    if settings.refit:
        tell("refit")
        fitted = fit_on(np.where(parts == "test", "train", parts))
        files = export(fitted)

    tell("write")
    name, version = identity_of(out)
    presets = presets or dict(taught.presets)
    report = {
        "name": name,
        "version": version,
        "simulated": table.simulated,
        "data": [asdict(source) for source in table.sources],
        "parts": {part: int((parts == part).sum()) for part in PARTS},
        "selection": fitted.selection,
        "refit": settings.refit,
        "presets_chosen": {n: asdict(p) for n, p in presets.items()},
        "certificates": [certificate.to_json() for certificate, _ in promises.values()],
        **report,
    }
    presets = {**presets, **{name: policy for name, (_, policy) in promises.items()}}
    manifest = _manifest(name, version, table, parts, fitted, presets, report, settings, taught.provenance)
    predictor = predictor_of(fitted, files)
    files = {
        **files,
        **fitted.encoder.encoder.files(),
        "parity.npz": parity(fitted.encoder.encoder, predictor, parity_texts.TEXTS),
        REPORT_FILE: report_bytes(report),
        CARD_FILE: card_of(manifest, report).encode(),
    }
    manifest = write(out, manifest, files, overwrite=overwrite)
    return Trained(out, manifest, report)


def report_bytes(report: Report) -> bytes:
    """Return the report as it stands in a bundle."""
    return (json.dumps(finite(report), indent=1, ensure_ascii=False) + "\n").encode()


def load(paths: Sequence[Path], candidates: Sequence[str] = ()) -> OutcomeTable:
    """Read and merge tables, and keep the candidates that match any of the globs (all, without globs).

    Raises
    ------
    NotEnoughData
        No candidate matches, or no prompt has an outcome of those that do.
    """
    table = merge([read(path) for path in paths])
    if candidates:
        kept = [name for name in table.candidates if any(fnmatchcase(name, glob) for glob in candidates)]
        if not kept:
            raise NotEnoughData(
                f"no candidate matches {', '.join(candidates)}; there are {', '.join(table.candidates)}"
            )
        table = table.select(candidates=kept)
    observed = np.flatnonzero(np.isfinite(table.quality).any(axis=1))
    if not len(observed):
        raise NotEnoughData("no prompt has an observed quality")
    return table if len(observed) == len(table.prompt_ids) else table.select(observed)


def _with_licence(table: OutcomeTable, settings: Settings) -> OutcomeTable:
    """State the configured licence and attribution for sources that state none."""
    sources = tuple(
        replace(
            source,
            licence=source.licence or settings.licence or None,
            attribution=source.attribution or settings.attribution or None,
        )
        for source in table.sources
    )
    return replace(table, sources=sources)


def export(fitted: Fitted) -> dict[str, bytes]:
    """Return both graphs, verified against the estimators on real rows; raises ExportMismatch."""
    dim, columns = fitted.encoder.encoder.dim, fitted.encoder.columns
    files = {
        QUALITY_FILE: quality_graph(fitted.quality, dim),
        TOKENS_FILE: tokens_graph(fitted.tokens, columns, dim),
    }
    verify(files, fitted.quality, fitted.tokens, columns, fitted.features[:_VERIFIED_ROWS])
    return files


def predictor_of(fitted: Fitted, files: dict[str, bytes]) -> Predictor:
    """Return what will serve."""
    return Predictor(files, fitted.encoder.encoder.dim, len(fitted.prices), n_tasks_of(fitted.quality))


def rows_of(table: OutcomeTable, fitted: Fitted, files: dict[str, bytes]) -> Rows:
    """Return what the graphs say of every row of the table, beside what happened."""
    predictor = predictor_of(fitted, files)
    said = predictor.predict(fitted.features)
    lengths = np.array([len(prompt) for prompt in table.prompts], np.float32)
    known = fitted.tokens.known
    tokens = np.where(known, said["output_tokens"], np.float32("nan"))
    input_tokens = (lengths[:, None] * fitted.tokens_per_character).astype(np.float32)
    return Rows(
        candidates=table.candidates,
        predicted=said["quality"].astype(np.float64),
        predicted_cost=expected_cost_usd(fitted.prices, input_tokens, tokens),
        output_tokens=tokens.astype(np.float64),
        output_tokens_p90=np.where(known, said["output_tokens_p90"], np.nan).astype(np.float64),
        quality=table.quality.astype(np.float64),
        cost_usd=table.cost_usd,
        true_output_tokens=table.output_tokens,
        tasks=table.tasks,
        groups=table.groups,
    )


def _manifest(
    name: str,
    version: str,
    table: OutcomeTable,
    parts: NDArray[np.str_],
    fitted: Fitted,
    presets: dict[str, Policy],
    report: Report,
    settings: Settings,
    provenance: Mapping[str, object],
) -> Manifest:
    config = asdict(settings)
    n_observed = np.isfinite(table.quality[parts == "train"]).sum(axis=0)
    sources = [{**{key: value for key, value in asdict(source).items() if key != "path"}} for source in table.sources]
    fingerprint = hashlib.sha256(
        json.dumps([[s["sha256"] for s in sources], list(table.candidates), config], sort_keys=True).encode()
    ).hexdigest()
    return Manifest(
        name=name,
        version=version,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        candidates=tuple(
            Column(
                candidate,
                float(fitted.tokens_per_character[j]),
                bool(fitted.tokens.known[j]),
                int(n_observed[j]),
                fitted.prices[j],
            )
            for j, candidate in enumerate(table.candidates)
        ),
        encoder_tier=fitted.encoder.encoder.tier,
        feature_schema=FEATURE_SCHEMA,
        dim=fitted.encoder.encoder.dim,
        tasks=() if fitted.quality.topics is None else fitted.quality.topics.labels,
        presets=presets,
        metrics={
            "test": report["metrics"],
            "best_single": report.get("best_single"),
            "training_mean_quality": report["training_mean_quality"],
            "points": report["points"],
            "points_of": list(report["candidates"]),
        },
        certificate={"certificates": report["certificates"]} if report["certificates"] else None,
        training={
            "fingerprint": fingerprint,
            "config": config,
            "data": sources,
            "simulated": table.simulated,
            "versions": {"python": platform.python_version(), **{p: version_of(p) for p in _VERSIONS}},
            **provenance,
        },
    )


def identity_of(out: Path) -> tuple[str, str]:
    """Return name and version of the bundle in ``NAME/VERSION``, or in ``models/NAME``: then today is the version."""
    return (out.parent.name, out.name) if out.parent.name != "models" else (out.name, f"{datetime.now(UTC):%Y.%m.%d}")


def finite(value: object) -> object:
    """Make a value JSON can hold: not-finite numbers become null."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
