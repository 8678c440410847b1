from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from routing_data import SOURCES, PublicSource, RemoteFile, read
from training.data_commands import data

SAMPLE = Path(__file__).parents[2] / "datasets" / "samples" / "checkable"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments])


def test_importing_the_commands_is_cheap():
    code = (
        "import sys, training.data_commands; print({'pandas', 'pyarrow', 'numpy', 'httpx', 'rich'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_validate_says_what_is_valid_and_what_is_simulated():
    result = run("validate", SAMPLE)
    assert result.exit_code == 0
    assert result.stdout == f"{SAMPLE}: valid, 2000 prompts x 4 candidates; outcomes are SIMULATED\n"


def test_validate_lists_every_problem_and_exits_with_1(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,candidate,quality,colour\na,x,2\nb,x,3,red\n,x,1,red\n" + "c,x,9,red\n" * 12)
    result = run("validate", path)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert lines[0] == "rows.csv, row 1: 3 fields; expected 4 fields"
    assert "unknown column 'colour'" in lines[1]
    assert any("row 3: empty or only white space" in line for line in lines)
    assert any("(and 3 more like it)" in line for line in lines)  # 13 qualities out of range, 10 listed
    assert lines[-1].startswith("Error: ") and lines[-1].endswith(" problems found")


def test_validate_checks_every_path(tmp_path):
    result = run("validate", tmp_path / "no.csv", SAMPLE)
    assert result.exit_code == 1 and "valid, 2000 prompts" in result.stdout
    assert result.stderr == ("no.csv: no such file or folder; expected one that exists\nError: 1 problem found\n")


def test_describe_shows_candidates_hull_and_oracle():
    result = run("describe", SAMPLE)
    assert result.exit_code == 0
    text = result.stdout
    assert text.startswith("outcomes are SIMULATED")
    assert "best single sample-large: quality 0.82" in text and "oracle: quality 0.95" in text
    assert "hull: sample-nano - sample-small - sample-medium - sample-large" in text
    row = next(line for line in text.splitlines() if "sample-nano" in line)
    assert "0.05 / 0.2" in row and row.split()[-1] == "yes"


def test_describe_prints_json():
    result = run("describe", "--json", SAMPLE)
    found = json.loads(result.stdout)
    assert found["simulated"] is True and found["n_prompts"] == 2000
    assert [c["name"] for c in found["candidates"]] == ["sample-large", "sample-medium", "sample-nano", "sample-small"]
    assert found["candidates"][2]["prices"] == pytest.approx([0.05, 0.2])
    assert found["sources"][0]["path"] == "checkable"


def test_describe_merges_several_tables_and_unknown_costs_stay_unknown(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,candidate,quality\nhello,[bold]x,1\n")
    found = json.loads(run("describe", "--json", SAMPLE, path).stdout)
    assert found["n_prompts"] == 2001 and len(found["candidates"]) == 5
    assert found["candidates"][0] == {
        "name": "[bold]x", "n_observed": 1, "quality": 1.0, "cost_usd": None, "output_tokens": None,
        "prices": None, "on_hull": False,
    }  # fmt: skip
    text = run("describe", path).stdout
    assert "[bold]x" in text and "unknown" in text and "no costs known" in text and "SIMULATED" not in text


def test_describe_of_a_broken_table_is_an_error(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,candidate,quality\nhello,x,7\n")
    result = run("describe", path)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr == "Error: rows.csv, column 'quality', row 1: '7'; expected a number in [0, 1]\n"


def test_sample_writes_what_it_is_asked_for(tmp_path):
    result = run("sample", "--out", tmp_path / "s", "--n-prompts", 12, "--seed", 5)
    assert result.exit_code == 0 and result.stdout.endswith("s: 12 prompts; outcomes are SIMULATED\n")
    assert len(read(tmp_path / "s").prompts) == 12


def test_fetch_of_an_unknown_source_names_the_nearest(tmp_path):
    result = run("fetch", "routerbnch", "--out", tmp_path / "x")
    assert result.exit_code == 1 and not (tmp_path / "x").exists()
    assert "unknown source 'routerbnch'; did you mean 'routerbench'?" in result.stderr


@pytest.fixture
def tiny_source(monkeypatch):
    """Serve one CSV on the loopback as the source "tiny"; yield the list of paths asked for."""
    body = b"id,text,score\n1,hello,1\n2,there,0\n"
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    def convert(paths):
        rows = pd.read_csv(paths["tiny.csv"])
        prompts = pd.DataFrame({"prompt_id": rows["id"], "prompt": rows["text"]})
        return prompts, pd.DataFrame({"prompt_id": rows["id"], "candidate": "x", "quality": rows["score"]})

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{http.server_address[1]}/tiny.csv"
    file = RemoteFile("tiny.csv", url, hashlib.sha256(body).hexdigest(), len(body))
    monkeypatch.setitem(SOURCES, "tiny", PublicSource("tiny", None, "us", (file,), convert))
    yield asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_fetch_downloads_once_and_writes_a_folder(tiny_source, tmp_path):
    for _ in range(2):
        result = run("fetch", "tiny", "--out", tmp_path / "out", "--cache", tmp_path / "cache")
        assert result.exit_code == 0, result.output
    assert tiny_source == ["/tiny.csv"]
    assert "2 prompts x 1 candidates; licence not stated" in result.stdout
    table = read(tmp_path / "out")
    assert table.prompts == ("hello", "there") and table.sources[0].attribution == "us"
