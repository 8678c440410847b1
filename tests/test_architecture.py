"""The rules of the layout, each a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "router": ROOT / "router",
    "training": ROOT / "training",
    "serving": ROOT / "serving",
    "routing_data": ROOT / "datasets" / "routing_data",
}
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "manager", "misc", "types", "logging", "secrets"}
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "router", "training", "datasets", "models", "serving", "notebooks", "tests"),
    *("ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "benchmarks", "deploy"),
}


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.split("\n")[:-1]


def test_the_top_level_holds_what_was_agreed_and_nothing_else():
    found = {path.partition("/")[0] for path in tracked()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


def test_nothing_shadows_a_package():
    assert not (ROOT / "datasets" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not list((ROOT / "models").rglob("*.py"))


def test_no_pickle_and_no_private_data_is_tracked():
    assert not [p for p in tracked() if p.endswith((".pkl", ".pickle", ".joblib", ".pt", ".sqlite3"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_has_one_noun_a_docstring_and_a_bounded_length(path):
    text = path.read_text()
    module = ast.parse(text)
    assert path.stem not in FORBIDDEN_NAMES
    if module.body:
        assert ast.get_docstring(module), "a module says what it is for"
    assert text.count("\n") <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_settings_reads_the_environment(path):
    if path.name == "settings.py":
        return
    names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not names & {"environ", "getenv"}


@pytest.mark.parametrize(("library", "folder"), [("mlflow", "training/registry")])
def test_a_library_has_one_importer(library, folder):
    importers = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if any(name.partition(".")[0] == library for name in names):
                importers.add(str(path.relative_to(ROOT).parent))
    assert importers == {folder}


def test_import_contracts_hold():
    found = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("module", ["router", "serving.app", "router.cli"])
def test_the_request_path_imports_nothing_heavy(module):
    code = (
        f"import sys, {module}; "
        "heavy = {'pandas', 'sklearn', 'scipy', 'torch', 'mlflow', 'onnx', 'pyarrow', 'matplotlib', 'tokenizers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_router_works_without_the_web():
    code = "import sys, router; print(sorted({'fastapi', 'aiohttp', 'httpx', 'uvicorn'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
