"""The way to an MLflow store: where it is, a client of it, and its failures in our words.

Entry points: :func:`tracking_at`, :class:`Tracking`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import ExtraMissing, TrackingFailed
from training.settings import tracking_of_environment, with_mlflow_defaults

DEFAULT_STORE = Path("mlruns") / "mlflow.db"
EXPERIMENT = "turnout"
#: Of MLflow's own message, the words of urllib3.
_UNREACHED = "Max retries exceeded"


@dataclass(frozen=True, slots=True)
class Tracking:
    """An MLflow store; made by :func:`tracking_at`.

    Parameters
    ----------
    uri : str
        May hold a password: show :attr:`where` instead.
    run_id : str or None
        A run that is open already, which ``mlflow run`` began: what is recorded joins it.
    folder : Path or None
        Of the default store, with its artefacts; None leaves those to the store.
    """

    uri: str
    run_id: str | None = None
    folder: Path | None = None

    @property
    def where(self) -> str:
        """Return the address without a password."""
        scheme, separator, rest = self.uri.partition("://")
        return scheme + separator + rest.rpartition("@")[2]

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Give an ``MlflowClient``, quiet.

        Raises
        ------
        ExtraMissing
            mlflow, or the driver of the store's database, is not installed.
        TrackingFailed
            The store refuses or cannot be reached.
        """
        with_mlflow_defaults()
        with _quiet():
            try:
                import mlflow
                from mlflow.exceptions import MlflowException
                from requests.exceptions import RequestException
            except ImportError as exc:
                raise ExtraMissing("this needs mlflow; pip install 'turnout[training]', or do without MLflow") from exc
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
            try:
                yield mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            except ModuleNotFoundError as exc:
                raise ExtraMissing(
                    f"the tracking store {self.where} needs the package {exc.name}: install it"
                ) from None
            except (MlflowException, RequestException) as exc:
                # The cause would repeat the address as it was given.
                said = str(exc).replace(self.uri, self.where)
                if isinstance(exc, RequestException) or _UNREACHED in said:
                    raise TrackingFailed(
                        f"the tracking store {self.where} cannot be reached: start it, or name another with "
                        "--tracking-uri"
                    ) from None
                raise TrackingFailed(f"the tracking store {self.where} refused: {said}") from None

    @contextmanager
    def run(self, client: Any, name: str) -> Iterator[str]:
        """Give the id of a run to record in: the open one, which who began it ends, or a new one of our experiment."""
        if self.run_id is not None:
            yield self.run_id
            return
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            artefacts = None if self.folder is None else self.folder.as_uri()
            experiment_id = client.create_experiment(EXPERIMENT, artifact_location=artefacts)
        else:
            experiment_id = experiment.experiment_id
        run_id: str = client.create_run(experiment_id, run_name=name).info.run_id
        try:
            yield run_id
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)


def tracking_at(uri: str | None = None) -> Tracking:
    """Return the store at an address, or else the one the environment names, or else the default one.

    Parameters
    ----------
    uri : str or None
        Any tracking URI of MLflow.

    Returns
    -------
    Tracking
    """
    environment = tracking_of_environment()
    if uri is not None and uri != environment.uri:
        return Tracking(uri)
    if environment.uri is not None:
        return Tracking(environment.uri, environment.run_id)
    store = DEFAULT_STORE.resolve()
    return Tracking(f"sqlite:///{store}", folder=store.parent)


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
