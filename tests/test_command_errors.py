"""The commands of the learning loop where something is missing: one line that says what to do, and no traceback."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import queue
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pandas as pd
import pytest
from click.testing import CliRunner

pytest.importorskip("duckdb", reason="the training extra is not installed")

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = str(ROOT / "datasets" / "samples" / "checkable")
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["turnout.commands"]
#: Nobody listens there.
NOBODY = "http://127.0.0.1:9"
SECRETS = {name: f"sk-turnout-{name}-{'0' * 32}" for name in ("team", "boss")}
CONFIG = """
[server]
bundle = "{bundle}"
database = "{database}"

[[providers]]
name = "emulator"
emulated = true

[[candidates]]
name = "large"
input_usd_per_mtok = 1.0
output_usd_per_mtok = 1.0
deployments = [{{ provider = "emulator", model = "large" }}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bundle, log_tables) -> Path:
    """Return a folder of things that are not what a command expects; read-only by agreement."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "dangling").symlink_to("versions/gone@1")
    (folder / "notoml.toml").write_text("x = [")
    (folder / "votes.csv").write_text("request_id,correct\nreq_1,true\n")
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
    (folder / "prompts.jsonl").write_text('{"prompt_id": "a", "prompt": "1 + 1?", "reference": "2"}\n')
    (folder / "nothing.jsonl").write_text("")
    (folder / "turnout.toml").write_text(CONFIG.format(bundle=tiny_bundle, database=folder / "absent.sqlite"))
    (folder / "recordless.toml").write_text(CONFIG.format(bundle=tiny_bundle, database=""))
    (folder / "text.sqlite").write_text("no database, and longer than the header of one would be " * 2)
    requests = pd.DataFrame({"id": ["a", "b"], "time_unix_s": 1e9, "key": "k", "outcome": "ok", "candidate": "large"})
    votes = pd.DataFrame({"request_id": ["a"], "key": "k", "source": "vote", "score": 1.0, "time_unix_s": 1e9})
    log_tables(folder / "VOTELESS", requests=requests)
    log_tables(folder / "TEXTLESS", requests=requests, feedback=votes)
    broken = folder / "BROKEN" / "requests" / "day=2026-11-01"
    broken.mkdir(parents=True)
    (broken / "part.parquet").write_text("no Parquet")
    return folder


@pytest.fixture(scope="session")
def log_tables() -> Callable[..., Path]:
    from training.simulated_log import write_tables

    return write_tables


@pytest.fixture
def run(place, tiny_bundle, monkeypatch) -> Callable[..., tuple[int, str]]:
    """Return the function that gives a command in that folder, and gives back its exit code and last line."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'datasets'}")
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name.upper(), secret)
    monkeypatch.setenv("WRONG", "sk-turnout-nobody")

    def given(line: str, **places: object) -> tuple[int, str]:
        name, *arguments = line.format(S=SAMPLE, B=tiny_bundle, U=NOBODY, **places).split(" ")
        module, _, attribute = POINTS[name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        # What is not an error of ours would be raised here.
        done = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert "Traceback" not in done.output
        return done.exit_code, done.output.strip()

    return given


NO_LOG = "there is no such folder; 'turnout log export --out' makes one"
NO_GATEWAY = "start one with `turnout serve`"
BEGIN = "the first champion comes by 'turnout promote --bundle BUNDLE --force REASON'"
UNREACHED = "the tracking store http://127.0.0.1:9 cannot be reached: start it, or name another with --tracking-uri"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("report --log nowhere", NO_LOG),
        ("report --log file", NO_LOG),
        ("report --log empty", "there is no request in it (requests/day=YYYY-MM-DD/*.parquet): expected what"),
        ("report --log BROKEN", "requests cannot be read"),
        ("drift --log nowhere", NO_LOG),
        ("drift --log VOTELESS --config notoml.toml", "notoml.toml: cannot be read as TOML"),
        ("retrain --champion nowhere --out x --data {S}", "there is no bundle at nowhere: no such folder"),
        ("retrain --champion file --out x --data {S}", "there is no bundle at file: not a folder"),
        ("retrain --champion empty --out x --data {S}", "empty/manifest.json is absent"),
        ("retrain --champion dangling --out x --data {S}", "the link leads to versions/gone@1, which is not there"),
        ("retrain --champion {B} --out x --data nowhere", "nowhere: no such file or folder"),
        ("retrain --champion {B} --out x --data empty", "empty: a folder without prompts.parquet; expected one with"),
        ("retrain --champion {B} --out x --log VOTELESS", "no vote: they come by POST /v1/feedback, or by 'turnout"),
        ("retrain --champion {B} --out x --log TEXTLESS", "keys with retention = 'content' have theirs kept"),
        ("retrain --champion {B} --out x --log BROKEN", "requests cannot be read"),
        ("retrain --champion {B} --out x --data {S} --config nowhere.toml", "nowhere.toml: cannot be read as TOML"),
        ("retrain --champion {B} --out empty --data {S}", "empty exists; choose another version or pass --overwrite"),
        ("gates --champion dangling --bundle {B} --data {S}", "the link leads to versions/gone@1, which is not there"),
        ("gates --champion {B} --bundle nowhere --data {S}", "there is no bundle at nowhere: no such folder"),
        ("gates --champion {B} --bundle {B} --data {S}", "did not hold out the rows that tiny@1 did"),
        ("promote --directory nowhere", BEGIN),
        ("promote --directory empty --version x@1", "empty has no 'x@1'; it has no version"),
        ("promote --directory store --bundle empty", "empty/manifest.json is absent"),
        ("rollback --directory nowhere --by ada", "nowhere has no previous champion to go back to"),
        ("tune --log nowhere --quality 0.8", NO_LOG),
        ("tune --log VOTELESS --quality 0.8", "none was decided by a policy of any bundle"),
        ("tune --log VOTELESS --read trial", "no request of experiment 'trial'; it knows none at all"),
        ("tune --promote x --arm a --yes --url {U}", NO_GATEWAY),
        ("tune --promote x --arm a --yes --url nonsense", NO_GATEWAY),
        ("tune --promote x --arm a --yes --key-env ABSENT", "the environment variable ABSENT is not set"),
        ("label --prompts prompts.jsonl --out t --max-usd 1 --grader numeric --url {U}", NO_GATEWAY),
        ("label --prompts prompts.jsonl --out t --max-usd 1 --grader numeric --url nonsense", NO_GATEWAY),
        ("label --prompts prompts.jsonl --out t --max-usd 1 --grader numeric --url http://x:y", "Invalid port: 'y'"),
        ("label --prompts nothing.jsonl --out t --max-usd 1 --url {U}", "expected at least one row"),
        ("label --prompts binary.csv --out t --max-usd 1 --url {U}", "expected UTF-8 text"),
        ("label --log VOTELESS --out t --max-usd 1 --url {U}", "it takes keys with retention = 'content'"),
        ("log export --config turnout.toml --out L", "there is no such database; expected the server.database"),
        ("log export --config recordless.toml --out L", "server.database is empty, so no request is recorded"),
        ("log export --config notoml.toml --out L", "cannot be read"),
        ("log export --database text.sqlite --out L", "text.sqlite cannot be read: file is not a database"),
        ("log status --config turnout.toml", "there is no such database; expected the server.database"),
        ("feedback import --config turnout.toml votes.csv", "expected the database that a gateway has made"),
        ("feedback import --config recordless.toml votes.csv", "server.database is empty, so there is nothing to vote"),
        ("feedback import --url nonsense votes.csv", "expected a URL such as http://127.0.0.1:8080"),
        ("feedback import --url http://x:y votes.csv", "Invalid port: 'y'; expected one such as"),
        ("feedback import --url {U} --key-env ABSENT votes.csv", "the environment variable ABSENT is not set"),
        ("experiment list --url {U}", NO_GATEWAY),
        ("experiment list --url nonsense", NO_GATEWAY),
        ("experiment list --key-env ABSENT", "the environment variable ABSENT is not set"),
        ("experiment create notoml.toml", "notoml.toml cannot be read"),
        ("pool --once --url http://x:y", "Invalid port: 'y'; expected one such as"),
    ],
)
def test_what_is_missing_is_said_in_one_line_with_what_to_do(run, line, words):
    exit_code, said = run(line)
    *before, last = said.splitlines()
    assert exit_code == 1 and words in said, said
    # Settings files are judged as a whole: their problems stand in lines of their own.
    if not line.startswith("log export --config notoml"):
        assert last.startswith("Error: ") and not [one for one in before if "rror" in one], said


@pytest.mark.parametrize("line", ["promote --version 1", "rollback --by ada", "sync --out o --once"])
def test_an_mlflow_server_that_is_not_there_is_one_line(run, line):
    pytest.importorskip("mlflow")
    exit_code, said = run(f"{line} --tracking-uri http://me:hunter2@127.0.0.1:9")
    assert exit_code == 1 and UNREACHED in said and len(said.splitlines()) == 1 and "hunter2" not in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("retrain --champion {B} --out x", "give --log, --data or both"),
        ("retrain --champion {B} --out x --data {S} --directory file", "'file' is a file"),
        ("gates --champion {B} --bundle {B}", "give --log, --data or both"),
        ("promote --directory file", "'file' is a file"),
        ("promote --directory store --bundle nowhere", "'nowhere' does not exist"),
        ("tune --quality 0.8", "give --log, the folder that 'turnout log export' wrote"),
        ("report --log VOTELESS --since soon", "expected a duration as 30d or a UTC date as 2026-11-01, got 'soon'"),
        ("label --out t --max-usd 1 --url {U}", "give one of --prompts and --log"),
        ("label --prompts prompts.jsonl --out t --max-usd 1", "give one of --url and --config"),
        ("feedback import votes.csv", "give --config FILE or --url URL, one of them"),
        ("experiment create --name x --arm a", "'a': expected a number in the place of ''"),
        ("experiment create", "give FILE, or --name, --on and an --arm for each arm"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(run, line, words):
    exit_code, said = run(line)
    assert exit_code == 2 and words in said, said


@contextmanager
def serving(config: Path) -> Iterator[str]:
    from serving.app import create_app
    from serving.commands import server_of
    from serving.settings import load

    settings, ports = load(config), queue.Queue[int]()
    server = server_of(create_app(settings, reread=lambda: settings), settings, ready=ports.put)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=20)}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, tiny_bundle) -> Iterator[tuple[str, Path]]:
    """Return the address of a gateway that asks for keys and was asked nothing yet, and its config."""
    folder = tmp_path_factory.mktemp("gateway")
    config = folder / "turnout.toml"
    text = CONFIG.format(bundle=tiny_bundle, database=folder / "records.sqlite")
    for name, secret in SECRETS.items():
        more = "admin = true\n" if name == "boss" else ""
        text += f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n{more}'
    config.write_text(text)
    with serving(config) as url:
        yield url, config


WANTS_KEY = "asks for a key: name the variable that holds one: --key-env"
WANTS_ADMIN = "asks for a key with admin = true: name the variable that holds it: --key-env"
LABEL = "label --prompts prompts.jsonl --out t --max-usd 1 --grader numeric --url {G}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LABEL, WANTS_KEY),
        (LABEL + " --key-env WRONG", WANTS_KEY),
        (LABEL + " --key-env TEAM --candidates nobody", "no candidate of the gateway matches; it has large"),
        ("feedback import --url {G} votes.csv", "no key: send it as Authorization"),
        ("feedback import --url {G} --key-env WRONG votes.csv", "name the variable that holds one: --key-env"),
        ("pool --once --url {G}", WANTS_KEY),
        ("experiment list --url {G}", WANTS_ADMIN),
        ("experiment list --url {G} --key-env TEAM", WANTS_ADMIN),
        ("experiment status ghost --url {G} --key-env BOSS", "no experiment is named 'ghost'"),
        ("tune --promote x --arm a --yes --url {G}", WANTS_ADMIN),
        ("tune --promote x --arm a --yes --url {G} --key-env TEAM", WANTS_ADMIN),
        ("tune --promote ghost --arm a --yes --url {G} --key-env BOSS", "no experiment is named 'ghost'"),
        ("report --log {L}", "there is no request in it"),
        ("label --log {L} --out t --max-usd 1 --url {G} --key-env TEAM", "there is no request in it"),
    ],
)
def test_what_a_gateway_has_not_or_does_not_let_is_said_in_one_line(run, gateway, line, words):
    url, config = gateway
    log = config.parent / "LOG"
    if "{L}" in line:  # of a database without a row
        assert run("log export --config {C} --out {L}", C=config, L=log)[0] == 0
    exit_code, said = run(line, G=url, L=log)
    assert exit_code == 1 and words in said.splitlines()[-1], said
    assert not [secret for secret in SECRETS.values() if secret in said]
