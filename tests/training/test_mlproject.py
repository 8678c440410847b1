"""``mlflow run training``: every entry point is a command that exists. One is really run in test_mlflow_server."""

from __future__ import annotations

import importlib
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="the training extra is not installed")
ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "training"
#: Entry point to the optional parameters that are tried too.
OPTIONAL = {"train": (), "retrain": ("log", "data"), "label": ("key_env",), "promote": (), "rollback": ()}


def entries():
    from mlflow.projects._project_spec import load_project

    return load_project(str(PROJECT))._entry_points


def test_these_are_all():
    assert set(entries()) == set(OPTIONAL)


@pytest.mark.parametrize("with_optional", [False, True])
@pytest.mark.parametrize("name", OPTIONAL)
def test_an_entry_point_is_a_command_with_options_that_it_has(name, with_optional, tmp_path):
    (tmp_path / "it's here").touch()
    entry = entries()[name]
    values = {"max_usd": "2.5", "url": "http://127.0.0.1:1", "key_env": "GATEWAY_KEY"}
    given = {
        parameter: values.get(parameter, str(tmp_path / "it's here"))
        for parameter, what in entry.parameters.items()
        if what.default is None or (with_optional and parameter in OPTIONAL[name])
    }
    if name in ("train", "retrain", "label"):
        given["out"] = str(tmp_path / "out")
    # Run by bash as MLflow does, but for the program itself: what it would be given is printed.
    line = 'turnout() { printf \'%s\\0\' "$PWD" "$@"; }; ' + entry.compute_command(given, None)
    done = subprocess.run(["bash", "-c", line], cwd=PROJECT, capture_output=True, text=True, check=True)
    where, command, *arguments = done.stdout.split("\0")[:-1]
    assert os.path.samefile(where, ROOT)
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["turnout.commands"]
    module, _, attribute = points[command].partition(":")
    # Parsed, not run: an option that the command does not know, or one it lacks, raises.
    context = getattr(importlib.import_module(module), attribute).make_context(command, arguments)
    understood = {str(value) for value in context.params.values()} | {
        str(item) for value in context.params.values() if isinstance(value, tuple) for item in value
    }
    assert set(given.values()) <= understood, "values reach the command whole"
