"""The routing benchmark, end to end on a small part of the sample."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROUTERS = "best single;hull of singles;oracle;random;kNN;ridge;item response (MIRT manner);CARROT"


def bench(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "routing"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    sample = ROOT / "datasets" / "samples" / "checkable"
    arguments = ["--data", sample, "--seeds", 1, "--routers", ROUTERS, "--resamples", 50, "--cache", folder / "cache"]
    # No model in this folder: the peers read the lexical features.
    arguments += ["--model", folder, "--results", folder / "results", "--report", folder / "RESULTS.md"]
    first = bench(*map(str, arguments))
    assert first.returncode == 0, first.stderr
    cells = json.loads((folder / "results" / "routing_peers.json").read_text())
    return {cell["router"]: cell for cell in cells}, (folder / "RESULTS.md").read_text(), first.stdout


def value(cell: dict, name: str) -> float:
    return cell["metrics"][name][0]


def test_known_answers(run):
    cells, _, _ = run
    assert set(cells) == set(ROUTERS.split(";"))
    assert value(cells["hull of singles"], "naiq") == pytest.approx(0, abs=1e-9)
    assert value(cells["oracle"], "naiq") == pytest.approx(1, abs=1e-9)
    assert value(cells["oracle"], "gap_closed") == pytest.approx(1, abs=1e-9)
    assert value(cells["best single"], "gap_closed") == pytest.approx(0, abs=1e-9)
    assert value(cells["best single"], "save_100") == pytest.approx(0, abs=1e-9)
    for name, cell in cells.items():
        assert value(cell, "gap_closed") <= 1 + 1e-9, name
        assert value(cell, "regret") >= value(cells["oracle"], "regret"), name


def test_peers_learn_something_and_the_random_one_does_not(run):
    cells, _, _ = run
    for name in ("kNN", "ridge", "CARROT", "item response (MIRT manner)"):
        assert value(cells[name], "auc_macro") > 0.6, name
        assert value(cells[name], "naiq") > value(cells["random"], "naiq"), name
    assert value(cells["random"], "auc_macro") == pytest.approx(0.5, abs=0.08)


def test_the_report_has_every_router_and_says_which_features(run):
    cells, text, said = run
    assert all(f"| {name} |" in text for name in cells)
    assert "lexical" in text and "lexical features instead" in said


def test_without_the_data_it_says_what_to_do(tmp_path):
    result = bench("--data", str(tmp_path / "nothing"))
    assert result.returncode == 1 and "datasets/samples/checkable" in result.stderr
