"""Remember training runs: parameters, metrics, report and bundle. The only importer of mlflow.

The store is a SQLite file below the current folder unless told otherwise; mlflow's own telemetry is turned off. It
takes seconds to import, so it is imported when a run is recorded. Entry point: :func:`record`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from training.errors import ExtraMissing, TrainingError
from training.pipeline import Trained
from training.settings import Settings, without_telemetry

DEFAULT_STORE = Path("mlruns") / "mlflow.db"
EXPERIMENT = "turnout"


def default_uri() -> str:
    """Return the tracking URI of the default store, below the current folder."""
    return f"sqlite:///{DEFAULT_STORE.resolve()}"


def record(trained: Trained, settings: Settings, tracking_uri: str | None = None) -> str:
    """Record a run.

    Parameters
    ----------
    trained : Trained
    settings : Settings
    tracking_uri : str, optional
        Default: :func:`default_uri`.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    ExtraMissing
        mlflow is not installed.
    TrainingError
        The store refuses; the bundle itself is written already.
    """
    uri = tracking_uri or default_uri()
    if tracking_uri is None:
        DEFAULT_STORE.parent.mkdir(parents=True, exist_ok=True)
    without_telemetry()
    with _quiet():
        try:
            import mlflow
            from mlflow.exceptions import MlflowException
        except ImportError as exc:
            raise ExtraMissing("tracking needs mlflow; pip install 'turnout[training]', or pass --no-tracking") from exc
        try:
            client = mlflow.MlflowClient(tracking_uri=uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                artefacts = None if tracking_uri else DEFAULT_STORE.parent.resolve().as_uri()
                experiment_id = client.create_experiment(EXPERIMENT, artifact_location=artefacts)
            else:
                experiment_id = experiment.experiment_id
            run = client.create_run(experiment_id, run_name=trained.manifest.id)
            run_id: str = run.info.run_id
            for key, value in _flat(asdict(settings)).items():
                client.log_param(run_id, key, value)
            client.set_tag(run_id, "fingerprint", str(trained.manifest.training["fingerprint"]))
            client.set_tag(run_id, "simulated", str(trained.report["simulated"]).lower())
            for name, entry in trained.report["metrics"].items():
                if entry["value"] is not None and entry["value"] == entry["value"]:
                    client.log_metric(run_id, name, entry["value"])
            client.log_artifacts(run_id, str(trained.directory), "bundle")
            client.set_terminated(run_id)
        except MlflowException as exc:
            shown = _without_password(uri)
            # The cause would repeat the address as it was given.
            raise TrainingError(f"the tracking store {shown} refused: {str(exc).replace(uri, shown)}") from None
    return run_id


def _flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple):
            flat[prefix + key] = ", ".join(map(str, value))
        else:
            flat[prefix + key] = str(value)
    return flat


def _without_password(uri: str) -> str:
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep mlflow and the migration of its store from talking; its errors still raise."""
    # By level of the whole process: mlflow configures its loggers anew when it is imported.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(mlflow|pydantic|sqlalchemy|alembic|google)\b.*")
            yield
    finally:
        logging.disable(before)
