from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from serving import settings
from serving.app import create_app
from serving.commands import emulate, key, serve, server_of
from serving.commands import settings as settings_command
from serving.keys import Key, KeyRing, digest_of

TESTS = Path(__file__).resolve().parent.parent
#: `turnout serve`, with the tests' own encoder tier known to it.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from conftest import LettersEncoder
from router import features
features.TIERS["letters"] = LettersEncoder.from_files
from serving.commands import serve
serve(["--config", {config!r}, "--port", "0"])
"""


@pytest.fixture
def process(configure) -> Iterator[subprocess.Popen[str]]:
    """Return a serving process whose standard output is read as text."""
    config = configure(settings='database = "records.sqlite"', server=SERVER).source
    code = PROGRAM.format(tests=str(TESTS), config=str(config))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        yield started
        started.kill()


SERVER = """
[server]
bundle = "{bundle}"
{settings}

[[providers]]
name = "emulator"
emulated = true
"""


def test_serve_greets_serves_reloads_and_ends(process: subprocess.Popen[str], tmp_path: Path) -> None:
    assert process.stdout is not None and process.stderr is not None
    greeting = ""
    while "at threshold" not in greeting:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        greeting += line
    found = re.search(r"curl -i (http://127\.0\.0\.1:\d+)/v1/chat/completions", greeting)
    assert found
    assert "EMULATED" in greeting
    assert "tiny@1" in greeting
    assert "medium" in greeting
    chat = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 1}
    with httpx.Client(base_url=found[1]) as client:
        assert client.get("/readyz").status_code == 200
        answer = client.post("/v1/chat/completions", json=chat)
        assert answer.headers["x-turnout-emulated"] == "true"
        assert "server" not in answer.headers
        process.send_signal(signal.SIGHUP)
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
    process.send_signal(signal.SIGTERM)
    _, logged = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)
    assert '"event":"ready"' in logged
    assert logged.count('"event":"request"') == 2
    assert "Traceback" not in logged
    assert (tmp_path / "records.sqlite").exists()


def test_serve_says_in_one_message_why_it_does_not_start(tmp_path: Path, configure, pool_toml) -> None:
    config = configure(pool_toml, bundle=tmp_path / "absent").source
    config.write_text(config.read_text("utf-8").replace("[server]", "[sever]"), "utf-8")
    found = CliRunner().invoke(serve, ["--config", str(config)])
    assert found.exit_code == 1
    assert "Error: " in found.output and "sever: unknown key; the nearest known one is 'server'" in found.output


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"from serving.commands import serve; serve({list(arguments)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_serve_names_a_missing_bundle_and_a_missing_variable(tmp_path: Path, configure, pool_toml) -> None:
    config = configure(pool_toml, bundle=tmp_path / "absent").source
    found = run_serve("--config", str(config))
    assert found.returncode == 1
    assert f"Error: there is no bundle at {tmp_path / 'absent'}" in found.stderr
    assert "Traceback" not in found.stderr
    text = config.read_text("utf-8").replace(
        "emulated = true", 'base_url = "http://x/v1"\napi_key_env = "NOT_SET_HERE"'
    )
    config.write_text(text, "utf-8")
    assert "the environment variable NOT_SET_HERE is not set" in run_serve("--config", str(config)).stderr


def test_serve_refuses_to_be_reached_by_others_without_keys(configure) -> None:
    found = run_serve("--config", str(configure().source), "--host", "0.0.0.0")
    assert found.returncode == 1
    assert "turnout key new" in found.stderr


@pytest.mark.parametrize(("asked_s", "given_s"), [("0", 2), ("0.4", 3), ("1.2", 4), ("30", 32)])
def test_a_shutdown_always_ends(configure, asked_s: str, given_s: int) -> None:
    read = configure(settings=f"shutdown_timeout_s = {asked_s}")
    server = server_of(create_app(read), read, ready=lambda port: None)
    assert server.config.timeout_graceful_shutdown == given_s


def test_demo_and_config_exclude_each_other(configure) -> None:
    found = CliRunner().invoke(serve, ["--demo", "--config", str(configure().source)])
    assert found.exit_code == 2


def test_key_new_prints_the_secret_once_and_lines_that_the_config_takes(configure, pool_toml) -> None:
    printed = CliRunner().invoke(key, ["new", "--name", "alice"]).output
    (secret,) = re.findall(r"sk-turnout-\S+", printed)
    snippet = printed[printed.index("[[keys]]") :]
    (row,) = tomllib.loads(snippet)["keys"]
    assert row["sha256"] == digest_of(secret)
    read = configure(pool_toml + snippet).keys[0]
    ring = KeyRing([Key(read.name, read.sha256, read.models)])
    caller = ring.authenticate([(b"authorization", f"Bearer {secret}".encode())])
    assert caller.name == "alice"
    assert caller.may_use("anything")
    assert CliRunner().invoke(key, ["new", "--name", 'a"b']).exit_code == 2


def test_settings_prints_every_key() -> None:
    printed = CliRunner().invoke(settings_command).output
    markdown = CliRunner().invoke(settings_command, ["--markdown"]).output
    for row in settings.reference():
        assert row.key in printed
        assert f"| `{row.key}` |" in markdown
    assert len(markdown.strip().splitlines()) == 2 + len(settings.reference())


def test_emulate_says_which_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = CliRunner().invoke(emulate, ["--port", str(port)])
    assert found.exit_code == 1
    assert f"127.0.0.1:{port}" in found.output


def test_serve_says_which_port_is_taken(configure) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = PROGRAM.format(tests=str(TESTS), config=str(configure().source)).replace('"0"', f'"{port}"')
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
        )
    assert found.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in found.stderr
