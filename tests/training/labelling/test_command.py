"""``turnout label`` as a person runs it: with a gateway of its own, killed, and gone on with."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

import routing_data
from serving.chaos.process import started
from serving.keys import new_key
from training.labelling.command import label

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
[server]
bundle = "{bundle}"
database = ""
watch_bundle_s = 0

[[providers]]
name = "emulator"
{provider}

[[candidates]]
name = "phi-3-mini"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.1
deployments = [{{ provider = "emulator", model = "phi-3-mini" }}]

[[candidates]]
name = "gemini-1.5-flash"
input_usd_per_mtok = 0.075
output_usd_per_mtok = 0.3
deployments = [{{ provider = "emulator", model = "gemini-1.5-flash" }}]
"""


def write_prompts(path: Path, n: int) -> Path:
    rows = [{"prompt_id": f"q{i}", "prompt": f"What is {i} * 23?", "reference": str(i * 23)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_config(path: Path, provider: str = "emulated = true") -> Path:
    path.write_text(CONFIG.format(bundle=ROOT / "models" / "default", provider=provider))
    return path


def lines(out: Path, kind: str) -> list[dict]:
    path = out / "answers.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in told if line["line"] == kind]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_gateway_of_its_own_labels_and_training_reads(tmp_path, monkeypatch):
    secret, sha256 = new_key()
    monkeypatch.setenv("KEY_FOR_LABELS", secret)
    out, config = tmp_path / "table", write_config(tmp_path / "turnout.toml")
    text = config.read_text().replace('database = ""', f'database = "{tmp_path}/records.sqlite"')
    config.write_text(text + f'[[keys]]\nname = "labels"\nsha256 = "{sha256}"\nretention = "content"\n')
    options = ["--config", str(config), "--max-usd", "0.5", "--grader", "numeric", "--key-env", "KEY_FOR_LABELS"]
    prompts = write_prompts(tmp_path / "prompts.jsonl", 6)
    found = CliRunner().invoke(label, ["--prompts", str(prompts), "--out", str(out), *options])
    assert found.exit_code == 0, found.output
    assert "EMULATED" in found.output and "phi-3-mini" in found.output
    assert "12 calls made, 0 answers were there" in found.output
    table = routing_data.read(out)
    assert table.simulated and (table.quality == 1.0).all() and table.quality.shape == (6, 2)
    assert (table.cost_usd > 0).all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["judge"] is None and summary["candidates"][0]["quality"]["n"] == 6
    # Labels are in the records, under their key, and nothing of their prompts is kept, whatever the key allows.
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as database:
        records = database.execute("SELECT DISTINCT key, binding, retention, task FROM request").fetchall()
        assert records == [("labels", "designated", "none", None)]
        assert database.execute("SELECT count(*) FROM request").fetchone() == (12,)
        assert database.execute("SELECT count(*) FROM retained").fetchone() == (0,)
    assert secret not in found.output
    assert not [path for path in out.iterdir() if secret.encode() in path.read_bytes()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
async def test_killed_in_the_middle_it_leaves_no_gateway_behind_and_goes_on_without_paying_twice(tmp_path):
    out, prompts = tmp_path / "table", write_prompts(tmp_path / "prompts.jsonl", 20)
    async with started(["emulate", "--port", "0", "--speed", "0.25"], tmp_path / "emulator.log") as emulator:
        provider = f'base_url = "http://127.0.0.1:{emulator.port}/v1"'
        config = write_config(tmp_path / "turnout.toml", provider)
        arguments = ["--prompts", prompts, "--out", out, "--config", config, "--max-usd", "1", "--grader", "numeric"]
        program = "from training.labelling.command import label; label()"
        command = (sys.executable, "-c", program, *map(str, arguments))
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 60
            while len(lines_or_none(out)) < 5:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.02)
            tasks = f"/proc/{process.pid}/task/*/children"
            children = {int(pid) for path in Path("/").glob(tasks[1:]) for pid in path.read_text().split()}
            assert children and all(map(alive, children))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        while any(map(alive, children)):
            assert time.monotonic() < deadline, "the gateway outlives the run"
            time.sleep(0.05)
        answered = {line["call"] for line in lines(out, "answered")}
        lost = len(lines(out, "begun")) - len(answered)
        assert 5 <= len(answered) < 40
        found = await asyncio.to_thread(CliRunner().invoke, label, [*map(str, arguments)])
        assert found.exit_code == 0, found.output
        assert f"{40 - len(answered)} calls made, {len(answered)} answers were there" in found.output
        asked_again = [line["call"] for line in lines(out, "begun")]
        assert all(asked_again.count(call) == 1 for call in answered)
        assert len(asked_again) == 40 + lost
    assert (routing_data.read(out).quality == 1.0).all()


def lines_or_none(out: Path) -> list[dict]:
    try:
        return lines(out, "answered")
    except ValueError:  # the last line is being written
        return []


def test_a_gateway_that_does_not_start_says_why(tmp_path):
    config = write_config(tmp_path / "turnout.toml", 'emulated = true\nnonsense = "x"')
    prompts = write_prompts(tmp_path / "prompts.jsonl", 1)
    found = CliRunner().invoke(
        label,
        [
            *("--prompts", str(prompts), "--out", str(tmp_path / "o"), "--config", str(config)),
            *("--max-usd", "1", "--grader", "numeric"),
        ],
    )
    assert found.exit_code == 1
    assert "did not start" in found.output and "nonsense" in found.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--url", "http://127.0.0.1:9"], "give one of --prompts and --log"),
        (["--prompts", "PROMPTS"], "give one of --url and --config"),
        (["--prompts", "PROMPTS", "--url", "http://127.0.0.1:9"], "no grader; expected one of exact, numeric"),
        (["--prompts", "PROMPTS", "--url", "http://127.0.0.1:9", "--grader", "numeric"], "no gateway answers"),
        (["--prompts", "PROMPTS", "--url", "x", "--key-env", "NO_SUCH_KEY_OF_OURS"], "NO_SUCH_KEY_OF_OURS is not set"),
        (["--prompts", "PROMPTS", "--url", "x", "--similarity", "bleu"], "--similarity bleu: expected chrf"),
        (["--log", "nowhere", "--url", "x"], "there is no such folder"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(tmp_path, options, words):
    prompts = write_prompts(tmp_path / "prompts.jsonl", 1)
    given = [str(prompts) if option == "PROMPTS" else option for option in options]
    found = CliRunner().invoke(label, [*given, "--out", str(tmp_path / "out"), "--max-usd", "1"])
    assert found.exit_code != 0
    assert words in " ".join(found.output.split())
    assert "Traceback" not in found.output
