"""``mlflow run training``: every entry point is a command that exists. One is really run in test_mlflow_server."""

from __future__ import annotations

import importlib
import shlex
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="the training extra is not installed")
ROOT = Path(__file__).resolve().parents[2]
PROJECT = ROOT / "training"


def entries():
    from mlflow.projects._project_spec import load_project

    return load_project(str(PROJECT))._entry_points


@pytest.mark.parametrize("name", ["train", "promote", "rollback"])
def test_an_entry_point_is_a_command_with_options_that_it_has(name):
    entry = entries()[name]
    given = {parameter: "a b" for parameter, what in entry.parameters.items() if what.default is None}
    line = entry.compute_command(given, None)
    assert line.startswith("cd .. && turnout ")
    _, command, *arguments = shlex.split(line.removeprefix("cd .. && "))
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["turnout.commands"]
    module, _, attribute = points[command].partition(":")
    # Parsed, not run: an option that the command does not know, or one it lacks, raises.
    context = getattr(importlib.import_module(module), attribute).make_context(command, arguments)
    assert "a b" in str(context.params.values()), "values reach the command whole"


def test_there_is_nothing_else():
    assert set(entries()) == {"train", "promote", "rollback"}
