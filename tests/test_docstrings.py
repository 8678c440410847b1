"""Every public name of the packages is documented, in numpydoc's form."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

PACKAGES = ("router", "serving", "training", "routing_data")
# What is asked of every public docstring: a summary in one line that ends in a full stop, sections in order, and
# parameters that are those of the signature, each with a type. Short docstrings without sections are allowed.
CHECKED = {"GL03", "GL06", "GL07", "GL08", "SS02", "SS03", "SS04", "SS06", "PR02", "PR03"}


def public_names() -> list[str]:
    found = []
    for package in PACKAGES:
        for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                if name.startswith("_") or getattr(value, "__module__", None) != info.name:
                    continue
                if inspect.isclass(value) or inspect.isfunction(value):
                    found.append(f"{info.name}.{name}")
    return found


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_documented(name):
    errors = [f"{code}: {text}" for code, text in validate(name)["errors"] if code in CHECKED]
    assert not errors
