from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from training.errors import ExtraMissing, TrainingError
from training.registry import MlflowStore, record
from training.settings import read_settings

mlflow = pytest.importorskip("mlflow", reason="the training extra is not installed")


def test_a_run_is_recorded_with_parameters_metrics_report_and_bundle(trained, small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_id = record(trained, read_settings(small_config))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["heads.n_nets"] == "2"
    assert run.data.metrics["naiq"] == pytest.approx(trained.report["metrics"]["naiq"]["value"])
    assert run.data.tags["simulated"] == "true"
    names = {entry.path for entry in client.list_artifacts(run_id, "bundle")}
    assert {"bundle/manifest.json", "bundle/quality.onnx", "bundle/report.json"} <= names
    report = json.loads(_artefact(run).read_text())
    assert report["name"] == "sample"
    # A second run joins the same experiment.
    again = client.get_run(record(trained, read_settings(small_config)))
    assert again.info.experiment_id == run.info.experiment_id


def _artefact(run) -> Path:
    return Path(unquote(urlparse(run.info.artifact_uri).path)) / "bundle" / "report.json"


def test_a_store_that_refuses_is_named_without_its_password(trained, small_config):
    with pytest.raises(TrainingError, match=r"tracking store postgresq://somewhere refused") as error:
        record(trained, read_settings(small_config), "postgresq://me:hunter2@somewhere")
    assert "hunter2" not in str(error.value)


def test_a_driver_that_is_not_installed_is_named():
    with pytest.raises(ExtraMissing, match=r"mysql\+cymysql://somewhere/db needs the package cymysql") as error:
        MlflowStore("mysql+cymysql://me:hunter2@somewhere/db").aliases()
    assert "hunter2" not in str(error.value)


def test_recording_a_run_reports_to_nobody():
    code = (
        "from training.settings import with_mlflow_defaults; with_mlflow_defaults(); "
        "from mlflow.telemetry.utils import is_telemetry_disabled; print(is_telemetry_disabled())"
    )
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name and name != "CI"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
