"""Programs of others, run to their end at home in an empty folder, with no network but loopback; and what passed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CLIENTS = tomllib.loads((HERE / "CLIENTS.toml").read_text("utf-8"))
#: What passed, of all clients; the table in the README is made from it.
RESULTS = HERE.parents[2] / "build" / "clients.json"
#: Nothing listens there: a program that wants the network is refused at once.
NOWHERE = "http://127.0.0.1:9"
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Finished:
    """How a program ended; ``status`` is None where it had to be ended."""

    status: int | None
    said: str
    complained: str

    def __str__(self) -> str:
        return f"exit status {self.status}\n--- stdout\n{self.said[-4000:]}\n--- stderr\n{self.complained[-4000:]}"


@pytest.fixture(scope="session")
def program_of() -> Callable[[str], Path]:
    """Return a function that gives the path of a client's program, and skips the test where it is not installed."""

    def find(client: str) -> Path:
        row = CLIENTS[client]
        folder = HERE / row["folder"]
        program = folder / row["program"]
        if shutil.which("node") is None:
            pytest.skip("Node is not installed")
        if not program.exists() or not (folder / "node_modules" / row["package"]).exists():
            pytest.skip(f"{row['title']} is not installed: `make clients-all` does it (npm ci in {folder})")
        return program

    return find


@pytest.fixture(scope="session")
def run_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Return a function (command…, folder, env) that runs a program."""

    def run(*command: str | Path, folder: Path | None = None, env: Mapping[str, str] | None = None) -> Finished:
        home = tmp_path_factory.mktemp("home")
        surroundings = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1",
            **(env or {}),
        }
        with subprocess.Popen(
            command,
            cwd=folder or home,
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                said, complained = process.communicate(timeout=PATIENCE_S)
                status: int | None = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said, complained = process.communicate()
                status = None
        return Finished(status, said, complained)

    return run


@pytest.fixture(scope="module")
def noted(program_of: Callable[[str], Path]) -> Iterator[Callable[[str, str, str], AbstractContextManager[None]]]:
    """Return a function (client, upstream, model): the block it stands before passed, or did not; kept with the rest.

    Rows of an earlier run that were not tried again stay. Skips the test where the client is not installed.
    """
    rows: dict[tuple[str, str, str], dict[str, object]] = {}

    @contextmanager
    def note(client: str, upstream: str, model: str) -> Iterator[None]:
        program_of(client)
        about = CLIENTS[client]
        package = HERE / about["folder"] / "node_modules" / about["package"] / "package.json"
        version = json.loads(package.read_text("utf-8"))["version"]
        row = {"client": client, "title": about["title"], "version": version, "upstream": upstream, "model": model}
        rows[client, upstream, model] = row | {"passed": False}
        yield
        rows[client, upstream, model] = row | {"passed": True}

    yield note
    if rows:
        earlier = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else []
        rows = {(row["client"], row["upstream"], row["model"]): row for row in earlier} | rows
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n", "utf-8")
