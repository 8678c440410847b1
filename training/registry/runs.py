"""Remember training runs: parameters, metrics, bundle, and report and plots where there are any.

Entry point: :func:`record`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.registry.tracking import tracking_at

if TYPE_CHECKING:
    from training.pipeline import Trained
    from training.settings import Settings

BUNDLE, REPORT = "bundle", "report"


def record(
    trained: Trained, settings: Settings, tracking_uri: str | None = None, artefacts_dir: Path | None = None
) -> str:
    """Record a run.

    Parameters
    ----------
    trained : Trained
    settings : Settings
    tracking_uri : str, optional
        Default: what MLFLOW_TRACKING_URI names, else a SQLite file below the current folder.
    artefacts_dir : Path, optional
        A folder of report and plots.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    ExtraMissing
        mlflow is not installed.
    TrackingFailed
        The store refuses; the bundle itself is written already.
    """
    tracking = tracking_at(tracking_uri)
    with tracking.client() as client, tracking.run(client, trained.manifest.id) as run_id:
        metrics = {name: entry["value"] for name, entry in trained.report["metrics"].items()}
        log_run(
            client,
            run_id,
            trained.directory,
            parameters=asdict(settings),
            metrics=metrics,
            tags={
                "fingerprint": str(trained.manifest.training["fingerprint"]),
                "simulated": str(trained.report["simulated"]).lower(),
            },
            artefacts_dir=artefacts_dir,
        )
    return run_id


def log_run(
    client: Any,
    run_id: str,
    bundle_dir: Path,
    *,
    parameters: Mapping[str, object],
    metrics: Mapping[str, float | None],
    tags: Mapping[str, str],
    artefacts_dir: Path | None,
) -> None:
    """Write everything that a run remembers, in few calls; numbers that are not finite are left out.

    Parameters
    ----------
    client : mlflow.MlflowClient
    run_id : str
    bundle_dir : Path
        Becomes the artefact ``bundle``.
    parameters : Mapping
        Tables in it become ``table.key``.
    metrics, tags : Mapping
    artefacts_dir : Path or None
        Becomes the artefact ``report``.
    """
    from mlflow.entities import Metric, Param, RunTag

    now_ms = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[
            Metric(name, float(value), now_ms, 0)
            for name, value in metrics.items()
            if value is not None and isfinite(value)
        ],
        params=[Param(key, value) for key, value in flat(parameters).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.log_artifacts(run_id, str(bundle_dir), BUNDLE)
    if artefacts_dir is not None and artefacts_dir.is_dir():
        client.log_artifacts(run_id, str(artefacts_dir), REPORT)


def flat(values: Mapping[str, object]) -> dict[str, str]:
    """Return ``table.key`` to the text of a value; of a list its items with commas."""
    return dict(_flat(values, ""))


def _flat(values: Mapping[str, object], prefix: str) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield prefix + key, ", ".join(map(str, value))
        else:
            yield prefix + key, str(value)
