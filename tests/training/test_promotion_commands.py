from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from training.directory_store import DirectoryStore
from training.gate_results import Verdict, results_of, write_gates
from training.promotion_commands import promote, rollback, sync
from training.versions import identity_of

PASSED = {"name": "slices", "is_passed": True, "measured": 0.00123, "bound": 0.02}
FAILED = {"name": "calibration", "is_passed": False, "measured": 0.09, "bound": 0.05, "reason": "too far off"}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def bundle(tmp_path: Path, write_tiny_bundle):
    return lambda version: write_tiny_bundle(tmp_path / "made" / version, version)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a tracking store with nothing in it; making one takes a second."""
    pytest.importorskip("mlflow", reason="the training extra is not installed")
    return f"sqlite:///{tmp_path_factory.mktemp('empty')}/new.db"


def run(command, *arguments, typed: str = ""):
    return CliRunner().invoke(command, [str(a) for a in arguments], input=typed, catch_exceptions=False)


def test_a_person_sees_the_gates_is_asked_and_may_decline(store, bundle):
    store.register(bundle("1"), [PASSED])
    there = ("--directory", store.where, "--by", "ada")
    declined = run(promote, *there, typed="n\n")
    assert declined.exit_code == 1 and store.aliases() == {"challenger": "tiny@1"}
    for words in ("slices", "0.00123", "0.02", "passed", "Promote tiny@1 to champion?"):
        assert words in declined.output
    agreed = run(promote, *there, typed="y\n")
    assert agreed.exit_code == 0 and "champion is tiny@1 (version tiny@1), by ada" in agreed.output
    assert store.aliases() == {"champion": "tiny@1"}


def test_a_failed_gate_is_exit_3_with_the_reason_and_force_needs_words(store, bundle):
    store.register(bundle("1"), [PASSED, FAILED])
    there = ("--directory", store.where, "--version", "tiny@1")
    for how in (("--auto",), ("--yes", "--by", "ada"), ()):
        refused = run(promote, *there, *how, typed="y\n")
        assert refused.exit_code == 3, refused.output
        assert "calibration: too far off" in refused.output and "--force REASON" in refused.output
    assert store.aliases() == {}
    forced = run(promote, *there, "--force", "measured by hand", "--by", "ada", typed="y\n")
    assert forced.exit_code == 0 and "although tiny@1 failed 1 of 2 gates" in forced.output
    assert store.history()[0].reason == "measured by hand"


def test_auto_promotes_when_all_gates_passed_and_rollback_is_one_command(store, bundle, against):
    for version in "12":
        store.register(bundle(version), [PASSED], opponent=against(store))
        assert run(promote, "--challenger", "--auto", "--directory", store.where).exit_code == 0
    assert [(c.by, c.is_auto) for c in store.history()] == [("auto", True)] * 2
    back = run(rollback, "--directory", store.where, "--by", "ada", "--reason", "slow")
    assert back.exit_code == 0 and "champion is tiny@1 (version tiny@1) again; withdrawn: version tiny@2" in back.output
    again = run(rollback, "--directory", store.where, "--by", "ada")
    assert again.exit_code == 1 and "no previous champion" in again.output


def test_stale_gates_are_exit_3_and_say_what_to_do(store, bundle, against):
    store.register(bundle("1"), [PASSED])
    assert run(promote, "--directory", store.where, "--auto").exit_code == 0
    store.register(bundle("2"), [PASSED], opponent=against(store))
    store.register(bundle("3"), [PASSED], opponent=against(store))
    assert run(promote, "--directory", store.where, "--auto").exit_code == 0
    there = ("--directory", store.where, "--version", "tiny@2")
    refused = run(promote, *there, "--auto")
    assert refused.exit_code == 3 and "judged against tiny@1, and tiny@3 is champion now" in refused.output
    assert "turnout gates" in refused.output and "--force REASON" in refused.output
    forced = run(promote, *there, "--yes", "--by", "ada", "--force", "known to be alike")
    assert forced.exit_code == 0 and store.history()[-1].is_stale


def test_a_bundle_may_be_registered_and_promoted_at_once_with_a_reason(store, bundle):
    store.register(bundle("2"), [PASSED])
    there = ("--directory", store.where, "--bundle", bundle("1"), "--yes", "--by", "ada")
    refused = run(promote, *there)
    assert refused.exit_code == 3 and "no gate was judged for tiny@1" in refused.output
    assert run(promote, *there, "--force", "the first").exit_code == 0
    assert store.aliases() == {"champion": "tiny@1", "challenger": "tiny@2"}, "who waits goes on waiting"


def test_a_bundle_may_bring_the_gates_that_judged_it_and_no_others(store, bundle, tmp_path):
    identity, other = identity_of(bundle("1")), identity_of(bundle("2"))
    for about, name in ((identity, "right.json"), (other, "wrong.json")):
        (tmp_path / name).write_bytes(write_gates(about.bundle, about.manifest_sha256, Verdict(results_of([PASSED]))))
    there = ("--directory", store.where, "--bundle", bundle("1"), "--auto")
    wrong = run(promote, *there, "--gates", tmp_path / "wrong.json")
    assert wrong.exit_code == 1 and "judged tiny@2" in wrong.output and store.aliases() == {}
    assert run(promote, *there, "--gates", tmp_path / "right.json").exit_code == 0
    assert store.aliases() == {"champion": "tiny@1"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--version", "1", "--challenger"), "one of --version"),
        (("--auto", "--force", "x"), "--auto asks only the gates"),
        (("--auto", "--yes", "--by", "ada"), "--auto asks only the gates"),
        (("--yes",), "--yes needs --by"),
        (("--gates", __file__), "--gates needs --bundle"),
        (("--directory", "d", "--tracking-uri", "sqlite:///x.db"), "not both"),
    ],
)
def test_options_that_exclude_each_other_are_named(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(promote, *arguments)
    assert result.exit_code == 2 and words in result.output


def test_a_directory_without_versions_says_so(store):
    result = run(promote, "--directory", store.where, "--auto")
    assert result.exit_code == 1 and "it has no version" in result.output


def test_sync_looks_once_and_says_what_is_so(empty, tmp_path):
    result = run(sync, "--tracking-uri", empty, "--out", tmp_path / "out", "--once")
    assert result.exit_code == 1 and f"champion: nobody in {empty} (turnout)" in result.output
    unreachable = run(sync, "--tracking-uri", "postgresq://me:hunter2@x", "--out", tmp_path / "o", "--once")
    assert unreachable.exit_code == 1 and "postgresq://x" in unreachable.output and "hunter2" not in unreachable.output


def test_sync_ends_when_asked_to(empty, tmp_path):
    out = tmp_path / "out"

    def ask() -> None:
        # It is written by the first look, when the process listens to signals already.
        while not (out / "follows.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    result = run(sync, "--tracking-uri", empty, "--out", out, "--every", 600)
    asking.join()
    assert result.exit_code == 0 and result.output.count("champion: nobody") == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_damaged_champion_does_not_keep_its_successor_out(store, bundle):
    store.register(bundle("1"), [PASSED])
    run(promote, "--directory", store.where, "--auto")
    store.register(bundle("2"), [PASSED])
    (Path(store.where) / "versions" / "tiny@1" / "quality.onnx").write_bytes(b"nonsense")
    done = run(promote, "--directory", store.where, "--auto")
    assert done.exit_code == 0, done.output
    assert store.aliases() == {"champion": "tiny@2"}
