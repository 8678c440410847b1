"""The registry against a real ``mlflow server`` on loopback, which hands out artefacts itself. It is started once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.bundle import load
from training.errors import NoSuchVersion, PromotionRefused, StoreDamaged, TrackingFailed
from training.gate_results import Opponent
from training.promotion import promote, rollback
from training.registry import MlflowStore, record
from training.settings import read_settings
from training.sync import Sync

mlflow = pytest.importorskip("mlflow", reason="the training extra is not installed")
PASSED = {"name": "slices", "is_passed": True, "measured": 0.001, "bound": 0.02, "reason": ""}
FAILED = {"name": "calibration", "is_passed": False, "measured": 0.09, "bound": 0.05, "reason": "too far off"}
START_WITHIN_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Return the address of a tracking server and the folder where it keeps artefacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "NO_PROXY": "127.0.0.1",
    }
    artefacts = folder / "artefacts"
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--serve-artifacts"]
    arguments += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(artefacts)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *arguments],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            address = f"http://127.0.0.1:{port}"
            wait_for(f"{address}/health", process, folder / "log")
            yield address, artefacts
    finally:
        # Its worker is a process of its own, in a group that is ours alone.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    give_up_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])


def links(out: Path) -> dict[str, str]:
    return {path.name: load(path).manifest.id for path in out.iterdir() if path.is_symlink()}


def test_from_registration_to_rollback_through_a_real_server(server, tmp_path, write_tiny_bundle, against):
    uri, artefacts = server
    report = tmp_path / "report"
    report.mkdir()
    (report / "curve.png").write_bytes(b"\x89PNG")
    store = MlflowStore(uri)
    lines: list[str] = []
    sync = Sync(store, tmp_path / "out", lines.append)
    assert not sync.look() and "nobody" in lines[-1]

    for number in "12":
        bundle = write_tiny_bundle(tmp_path / "made" / number, number)
        metrics = {"naiq": 0.5, "worst": float("nan")}
        made = store.register(bundle, [PASSED], metrics, report, opponent=against(store))
        assert (made.version, made.is_challenger) == (number, True)
        assert store.aliases()["challenger"] == number
        change = promote(store, approved_by="ada", is_auto=False)
        assert (change.version, change.bundle) == (number, f"tiny@{number}")
        assert sync.look()
        assert links(tmp_path / "out") == {"champion": f"tiny@{number}"}
    # Everything came through the server: runs keep an address that only it can open.
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED" and run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert run.data.metrics == {"naiq": 0.5} and run.data.tags["gates"] == "passed"
    assert run.data.tags["judged_against"] == "tiny@1"
    held = {entry.path for folder in ("bundle", "report", None) for entry in client.list_artifacts(made.run_id, folder)}
    assert {"bundle/manifest.json", "report/curve.png", "gates.json"} <= held

    rollback(store, by="bob", reason="complaints")
    assert sync.look()
    assert links(tmp_path / "out") == {"champion": "tiny@1"}
    with pytest.raises(PromotionRefused, match="rollback to 1 by bob"):
        rollback(store, by="bob")
    assert [(c.action, c.version, c.former, c.by) for c in store.history()] == [
        ("promote", "1", None, "ada"),
        ("promote", "2", "1", "ada"),
        ("rollback", "1", "2", "bob"),
    ]
    assert client.get_model_version("turnout", "1").tags["rollback.reason"] == "complaints"

    # Judged against a champion that is none any more: the file of gates says so, through the server.
    stale = store.register(
        bundle, [PASSED], opponent=Opponent("tiny@0", "0" * 64, "0" * 64), as_challenger=False
    ).version
    with pytest.raises(PromotionRefused, match="tiny@2 was judged against tiny@0, and tiny@1 is champion now"):
        promote(store, stale, approved_by="ada")

    # A version that failed is kept, with the reason; nothing moves.
    refused = store.register(write_tiny_bundle(tmp_path / "made" / "3", "3"), [PASSED, FAILED])
    assert not refused.is_challenger and store.aliases() == {"champion": "1"}
    with pytest.raises(PromotionRefused, match="calibration: too far off"):
        promote(store, refused.version, approved_by="ada", is_auto=True)
    assert client.get_model_version("turnout", refused.version).tags["gates"] == "failed: calibration"

    # A challenger that fails when it is judged again waits no longer, whatever it passed before.
    fourth = write_tiny_bundle(tmp_path / "made" / "4", "4")
    assert store.register(fourth, [PASSED]).version == store.aliases()["challenger"]
    assert not store.register(fourth, [FAILED]).is_challenger and "challenger" not in store.aliases()

    # What is changed behind the registry's back is found out: the gates, then the bundle.
    (gates,) = artefacts.glob(f"*/{refused.run_id}/artifacts/gates.json")
    gates.write_text(gates.read_text().replace('"is_passed": false', '"is_passed": true'))
    with pytest.raises(StoreDamaged, match="not the one that was registered"):
        promote(store, refused.version, approved_by="ada")
    (manifest,) = artefacts.glob(f"*/{made.run_id}/artifacts/bundle/manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"value": 0.75', b'"value": 0.10'))
    with pytest.raises(StoreDamaged, match="the store now gives"):
        promote(store, "2", approved_by="ada")
    client.set_registered_model_alias("turnout", "challenger", "2")
    # A folder that is good already is not fetched again; a new one gets nothing that is not what was judged.
    assert sync.look()
    fresh = Sync(store, tmp_path / "fresh", lines.append)
    assert not fresh.look() and links(tmp_path / "fresh") == {"champion": "tiny@1"}
    assert "challenger: version 2" in lines[-1] and lines[-1].endswith("it stays absent")

    # A name in the registry that leads out of the folder makes nothing anywhere.
    client.set_model_version_tag("turnout", "2", "bundle", "../../../away/x@1")
    assert not fresh.look() and "expected NAME@VERSION" in lines[-1]
    assert not (tmp_path / "away").exists() and not (tmp_path.parent / "away").exists()
    client.set_model_version_tag("turnout", "2", "bundle", "tiny@2")

    # Somebody else's version, of a bundle's name that is taken, or of none.
    client.create_model_version("turnout", run.info.artifact_uri, run_id=made.run_id)
    with pytest.raises(StoreDamaged, match="not been registered by turnout"):
        store.version("7")
    with pytest.raises(NoSuchVersion, match="champion = 1"):
        store.version("9")
    other = write_tiny_bundle(tmp_path / "other", "1")
    (other / "manifest.json").write_bytes((other / "manifest.json").read_bytes().replace(b"2026-11-22", b"2026-11-23"))
    with pytest.raises(StoreDamaged, match="a version of its own"):
        store.register(other, [PASSED])


def test_a_run_that_mlflow_began_is_joined_and_left_open(server, trained, small_config, tmp_path, monkeypatch):
    uri, _ = server
    client = mlflow.MlflowClient(tracking_uri=uri)
    begun = client.create_run(client.create_experiment("project"))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "curve.png").write_bytes(b"PNG")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", begun.info.run_id)
    assert record(trained, read_settings(small_config), artefacts_dir=tmp_path / "report") == begun.info.run_id
    run = client.get_run(begun.info.run_id)
    assert run.info.status == "RUNNING", "who began it ends it"
    assert run.data.params["heads.n_nets"] == "2"
    assert {entry.path for entry in client.list_artifacts(begun.info.run_id)} == {"bundle", "report"}


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """Return a folder that says which commands this checkout has: what is installed may be older or elsewhere."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["turnout.commands"]
    info = tmp_path / "commands" / "turnout-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: turnout\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[turnout.commands]", *lines, ""]))
    return info.parent


def test_mlflow_run_promotes_in_the_name_of_somebody(server, tmp_path, trained, commands, against):
    uri, _ = server
    store = MlflowStore(uri)
    made = store.register(trained.directory, [PASSED], opponent=against(store))
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join((str(commands), str(ROOT), str(ROOT / "datasets"))),
    }
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT / "training"), "-e", "promote", "--env-manager", "local"]
    done = subprocess.run(
        [*command, "-P", "by=Ada L"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert store.aliases()["champion"] == made.version
    assert store.history()[-1].by == "Ada L"
    (run, *_) = mlflow.MlflowClient(tracking_uri=uri).search_runs(["0"])
    assert run.info.status == "FINISHED" and run.data.params["version"] == "challenger"


def test_a_server_that_is_gone_is_said_once_and_the_links_stay(server, tmp_path, monkeypatch, write_tiny_bundle):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: refused at once
        uri = f"http://me:hunter2@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrackingFailed) as error:
            MlflowStore(uri).aliases()
        lines: list[str] = []
        sync = Sync(MlflowStore(uri), tmp_path / "out", lines.append)
        assert not sync.look() and not sync.look()
    (line,) = lines
    assert "the links stay as they are" in line
    assert "hunter2" not in line + str(error.value)
