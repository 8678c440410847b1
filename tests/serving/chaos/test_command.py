"""``turnout chaos`` end to end, on checks that take a moment, and one bound that nobody can meet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.chaos.command import chaos
from serving.chaos.suite import CHECKS

RUN = "from serving.chaos.command import chaos; chaos(prog_name='turnout chaos')"


def test_the_list_names_every_check_and_starts_nothing():
    found = CliRunner().invoke(chaos, ["--list"])
    assert found.exit_code == 0
    assert all((check.name in found.output) is not check.is_soak for check in CHECKS)
    assert "visible failures ≤ 0.3 %" in found.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "nonsense"], "expected one of"),
        (["--only", "soak"], "--soak-minutes"),
        (["--json", "no/such/folder/x.json"], "there is no such folder"),
        (["--bound", "first-chunk.added_p50"], "CHECK.FIGURE=LIMIT"),
        (["--bound", "first-chunk.nonsense=1"], "no check is asked that"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, says):
    found = CliRunner().invoke(chaos, arguments)
    assert found.exit_code == 2
    assert says in found.output


def test_a_run_tells_the_truth_in_a_table_in_json_and_by_its_status(tmp_path: Path):
    file = tmp_path / "chaos.json"
    # A text can be told twice in no fewer than -1 streams: the first check must fail, whatever the gateway does.
    arguments = ["--quick", "--seed", "5", "--json", str(file)]
    arguments += ["--only", "cut-streams", "--bound", "cut-streams.duplicated_or_mixed_texts=-1"]
    arguments += ["--only", "first-chunk", "--bound", "first-chunk.added_p50=60"]
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "FAILED  cut-streams" in done.stdout and "passed  first-chunk" in done.stdout
    assert "seed: 5" in done.stdout and "turnout chaos" in done.stdout
    document = json.loads(file.read_text())
    cut, first = document["checks"]
    assert (document["seed"], document["is_met"], cut["is_met"], first["is_met"]) == (5, False, False, True)
    # But for the impossible, the streams ended as they should.
    assert [asked["is_met"] for asked in cut["asked"]] == [True, True, False]
    assert cut["figures"]["duplicated_or_mixed_texts"] == 0
    assert cut["figures"]["streams_cut"] == 30


@pytest.mark.parametrize("n_children", [1, 2], ids=["while it starts", "amid a check"])
def test_told_to_end_it_takes_what_it_started_with_it(n_children: int):
    arguments = ["--quick", "--seed", "5", "--only", "first-chunk"]
    with subprocess.Popen([sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert "seed: 5" in process.stdout.readline()
        began = time.monotonic()
        while len(children_of(process.pid)) < n_children and time.monotonic() - began < 60:
            time.sleep(0.05)
        children = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
    assert status != 0
    assert len(children) == n_children and not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        pytest.skip("there is no /proc here")
