"""Python client packages, unchanged, complete their exchanges through the gateway over every dialect of providers.

Each client runs in a process and an environment of its own (``make clients`` installs them), once for all gateways,
since most of its time is spent importing. What passed is written to ``build/clients.json`` for the README's table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS = ROOT / "build" / "clients.json"
CLIENTS = tomllib.loads((HERE / "CLIENTS.toml").read_text("utf-8"))
UPSTREAMS = ("chat", "responses", "messages", "gemini")
#: The router's choice, and a candidate asked for by name.
MODELS = ("auto", "large")
TIMEOUT_S = 300
#: Nothing listens there: a client that wants the network is refused at once.
NOWHERE = "http://127.0.0.1:9"

#: (upstream, model) -> {"version", "found", "failed"}
Reports = Mapping[tuple[str, str], dict[str, object]]


def environment_of(client: str) -> Path:
    """Return the folder of a client's environment, beside the one that runs here, installed or not."""
    return Path(f"{sys.prefix}-{CLIENTS[client]['environment']}")


def is_installed(client: str) -> bool:
    """Tell whether make has finished installing it."""
    return (environment_of(client) / ".done").exists()


def reports_of(client: str, gateways) -> Reports:
    """Run a client's script against every gateway and model."""
    origins = {gateways[upstream].origin: upstream for upstream in UPSTREAMS}
    key = gateways[UPSTREAMS[0]].key
    script = HERE / "python" / CLIENTS[client]["script"]
    environment = dict(os.environ)
    # Imports take most of the time: let the first one leave bytecode for those to come.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment |= {"HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [environment_of(client) / "bin" / "python", script, key, ",".join(origins), ",".join(MODELS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"origin"')]
    return {(origins[report["origin"]], report["model"]): report for report in reports}


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Reports]]]:
    """Return what each client found, as soon as it has: those that are tested here run two at a time."""
    wanted = dict.fromkeys(
        item.callspec.params["client"] for item in request.session.items if item.path == Path(__file__)
    )
    installed = [client for client in wanted if is_installed(client)]
    gateways = request.getfixturevalue("gateways") if installed else {}
    with ThreadPoolExecutor(2) as pool:
        yield {client: pool.submit(reports_of, client, gateways) for client in installed}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def results() -> Iterator[dict[tuple[str, str, str], dict[str, object]]]:
    """Return where to note what passed; rows of an earlier run that were not tried again stay."""
    rows: dict[tuple[str, str, str], dict[str, object]] = {}
    if RESULTS.exists():
        rows = {row_key(row): row for row in json.loads(RESULTS.read_text("utf-8"))}
    yield rows
    if rows:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n", "utf-8")


def row_key(row: Mapping[str, object]) -> tuple[str, str, str]:
    return str(row["client"]), str(row["upstream"]), str(row["model"])


def skip_unless_installed(client: str) -> None:
    if not is_installed(client):
        pytest.skip(f"{CLIENTS[client]['title']} is not installed: `make clients` does that")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_completes_its_exchanges(client, upstream, model, trials, results) -> None:
    skip_unless_installed(client)
    report = trials[client].result()[upstream, model]
    row = {"client": client, "title": CLIENTS[client]["title"], "version": report["version"]}
    row |= {"upstream": upstream, "model": model, "passed": not report["failed"]}
    results[row_key(row)] = row
    assert report["found"]
    assert not report["failed"], "\n\n".join(f"{name}: {why}" for name, why in report["failed"].items())


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("client", [name for name, row in CLIENTS.items() if row.get("uses_tools", True)])
def test_the_results_of_its_tools_reach_the_provider(client, upstream, trials, gateways) -> None:
    skip_unless_installed(client)
    trials[client].result()
    script = Path(CLIENTS[client]["script"]).stem
    results = [f"{degrees}, measured by {script}".encode() for degrees in ("21 degrees", "4 degrees")]
    bodies = [received.body for received in gateways[upstream].provider.received]
    assert any(all(result in body for result in results) for body in bodies)
