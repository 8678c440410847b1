from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from router.errors import BundleError
from training.directory_store import DirectoryStore
from training.errors import NoSuchVersion, PromotionRefused, StoreDamaged
from training.gate_results import Opponent, results_of
from training.promotion import promote, rollback

PASSED = {"name": "slices", "is_passed": True, "measured": 0.001, "bound": 0.02, "reason": ""}
FAILED = {"name": "calibration", "is_passed": False, "measured": 0.09, "bound": 0.05, "reason": "ECE 0.09 above 0.05"}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def bundle(tmp_path: Path, write_tiny_bundle):
    return lambda version: write_tiny_bundle(tmp_path / "made" / version, version)


@pytest.fixture
def crown(store, bundle, against):
    """Return the function that registers a version, judged against today's champion, and promotes it."""

    def crowned(version: str):
        made = store.register(bundle(version), [PASSED], opponent=against(store))
        assert made.is_challenger
        return promote(store, approved_by="ada")

    return crowned


def test_a_champion_is_promoted_rolled_back_once_and_every_change_is_remembered(store, crown, tmp_path):
    for version in "12":
        crown(version)
    assert store.aliases() == {"champion": "tiny@2", "previous": "tiny@1"}, "who was promoted waits no longer"
    # Relative, so that the folder may be mounted elsewhere.
    assert (tmp_path / "store" / "champion").readlink() == Path("versions/tiny@2")
    rollback(store, by="bob", reason="complaints")
    assert store.aliases() == {"champion": "tiny@1"}
    with pytest.raises(
        PromotionRefused, match=r"no previous champion .* the last change was a rollback to tiny@1 by bob"
    ):
        rollback(store, by="bob")
    promote(store, "tiny@2", approved_by="ada")
    assert store.aliases() == {"champion": "tiny@2", "previous": "tiny@1"}
    history = [(c.action, c.version, c.former, c.by, c.reason) for c in store.history()]
    assert history == [
        ("promote", "tiny@1", None, "ada", None),
        ("promote", "tiny@2", "tiny@1", "ada", None),
        ("rollback", "tiny@1", "tiny@2", "bob", "complaints"),
        ("promote", "tiny@2", "tiny@1", "ada", None),
    ]
    with pytest.raises(PromotionRefused, match="champion already"):
        promote(store, "tiny@2", approved_by="ada")


def test_a_failed_gate_refuses_unless_a_reason_is_given_and_never_by_itself(store, bundle):
    registered = store.register(bundle("1"), [PASSED, FAILED])
    assert not registered.is_challenger and store.aliases() == {}
    for is_auto, force in ((False, None), (True, None), (True, "because"), (False, "")):
        with pytest.raises(PromotionRefused, match=r"failed 1 of 2 gates: calibration: ECE 0\.09 above 0\.05"):
            promote(store, registered.version, approved_by="ada", is_auto=is_auto, force=force)
    assert store.aliases() == {} and store.history() == []
    promote(store, registered.version, approved_by="ada", force="measured by hand")
    (change,) = store.history()
    assert (change.reason, change.failed_gates) == ("measured by hand", ("calibration",))


def test_a_refused_version_leaves_the_challenger_alone(store, bundle):
    store.register(bundle("1"), [PASSED])
    store.register(bundle("2"), [FAILED])
    assert store.aliases() == {"challenger": "tiny@1"}


def test_gates_against_another_champion_refuse_until_it_is_judged_again(store, bundle, crown, against):
    crown("1")
    waiting = store.register(bundle("3"), [PASSED], opponent=against(store)).version
    crown("2")
    stale = r"tiny@3 was judged against tiny@1, and tiny@2 is champion now: judge it again with 'turnout gates'"
    for is_auto, force in ((False, None), (True, None), (True, "because")):
        with pytest.raises(PromotionRefused, match=stale):
            promote(store, waiting, approved_by="ada", is_auto=is_auto, force=force)
    assert store.aliases()["champion"] == "tiny@2" and len(store.history()) == 2
    # Back to the champion it was judged against, it may serve; and judged again, it may too.
    rollback(store, by="ada")
    assert promote(store, waiting, approved_by="ada").former == "tiny@1"
    store.register(bundle("2"), [PASSED], opponent=against(store))
    assert promote(store, approved_by="ada").former == "tiny@3"
    assert [change.is_stale for change in store.history()] == [False] * 5


def test_a_reason_promotes_in_spite_of_stale_gates_and_both_are_remembered(store, bundle, crown, against):
    crown("1")
    other = replace(against(store), manifest_sha256="f" * 64)
    for version, opponent, words in (
        ("2", None, "do not say against which champion they were judged, and tiny@1 is champion"),
        ("3", other, r"against tiny@1, and tiny@1 is champion now \(manifest ffffffffffff, now [0-9a-f]{12}\)"),
    ):
        made = store.register(bundle(version), [PASSED], opponent=opponent)
        with pytest.raises(PromotionRefused, match=words):
            promote(store, made.version, approved_by="ada")
    promote(store, made.version, approved_by="ada", force="they are alike")
    assert [(c.reason, c.is_stale, c.failed_gates) for c in store.history()[1:]] == [("they are alike", True, ())]


def test_a_file_of_gates_says_who_was_judged_against_whom_on_what(store, bundle):
    opponent = Opponent("tiny@0", "a" * 64, "b" * 64)
    made = store.register(bundle("1"), [PASSED], opponent=opponent)
    path = Path(store.where) / "gates" / "tiny@1.json"
    document = json.loads(path.read_text())
    assert document["opponent"] == {"bundle": "tiny@0", "manifest_sha256": "a" * 64, "holdout_sha256": "b" * 64}
    assert store.verdict(store.version(made.version)).opponent == opponent
    for spoilt in ("tiny@0", {"bundle": "tiny@0"}, {"name": 1}):
        path.write_text(json.dumps({**document, "opponent": spoilt}))
        with pytest.raises(StoreDamaged, match="expected bundle, manifest_sha256, opponent, gates"):
            promote(store, approved_by="ada", force="I insist")


def test_a_challenger_that_fails_when_it_is_judged_again_is_challenger_no_longer(store, bundle):
    store.register(bundle("1"), [PASSED])
    assert store.aliases() == {"challenger": "tiny@1"}
    store.register(bundle("1"), [FAILED])
    assert store.aliases() == {}
    store.register(bundle("1"), [], as_challenger=False)  # no judgement undoes none
    with pytest.raises(PromotionRefused, match="failed 1 of 1 gates"):
        promote(store, "tiny@1", approved_by="ada")


def test_without_gates_nothing_is_promoted_by_itself(store, bundle):
    store.register(bundle("1"), [])
    with pytest.raises(PromotionRefused, match="no gate was judged"):
        promote(store, approved_by="auto", is_auto=True)
    promote(store, approved_by="ada", force="the first")
    assert store.aliases() == {"champion": "tiny@1"}


def test_bytes_that_changed_since_they_were_judged_are_not_promoted(
    store, bundle, tmp_path, write_tiny_bundle, against
):
    store.register(bundle("1"), [PASSED])
    place = tmp_path / "store" / "versions" / "tiny@1"
    write_tiny_bundle(place, "1")  # the same bytes
    assert promote(store, approved_by="ada").version == "tiny@1"
    store.register(bundle("2"), [PASSED], opponent=against(store))
    manifest = tmp_path / "store" / "versions" / "tiny@2" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"value": 0.75', b'"value": 0.10'))
    with pytest.raises(StoreDamaged, match="judged tiny@2"):
        promote(store, approved_by="ada", force="I insist")
    (manifest.parent / "quality.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match=r"quality\.onnx"):
        promote(store, approved_by="ada", force="I insist")
    assert store.aliases()["champion"] == "tiny@1" and len(store.history()) == 1


def test_a_rollback_to_a_damaged_bundle_moves_nothing(store, crown, tmp_path):
    for version in "12":
        crown(version)
    (tmp_path / "store" / "versions" / "tiny@1" / "quality.onnx").unlink()
    with pytest.raises(BundleError):
        rollback(store, by="ada")
    assert store.aliases()["champion"] == "tiny@2" and len(store.history()) == 2


def test_two_bundles_of_one_name_cannot_both_be_registered(store, bundle, tmp_path, write_tiny_bundle):
    store.register(bundle("1"), [PASSED])
    store.register(bundle("1"), [PASSED])  # the same again is nothing new
    other = tmp_path / "other"
    write_tiny_bundle(other, "1")
    manifest = other / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"2026-11-22", b"2026-11-23"))
    with pytest.raises(StoreDamaged, match="a name of its own"):
        store.register(other, [PASSED])


def test_a_name_that_would_leave_the_folder_is_refused(store, tmp_path, write_tiny_bundle):
    bad = write_tiny_bundle(tmp_path / "bad", "../../x")
    with pytest.raises(StoreDamaged, match=r"expected NAME@VERSION"):
        store.register(bad, [PASSED])
    for wanted in ("../made", "challenger", "tiny@9", ""):
        with pytest.raises(NoSuchVersion):
            store.version(wanted)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"name": "a"}, "is_passed must be true or false, got None"),
        ({"name": "a", "is_passed": "false"}, "is_passed must be true or false, got 'false'"),
        ({"is_passed": True}, "name must be text"),
        ({"name": "a", "is_passed": True, "bound": "low"}, "bound must be a number or null, got 'low'"),
        ({"name": "a", "is_passed": True, "reason": None}, "reason must be text"),
    ],
)
def test_a_gate_that_cannot_be_is_named(row, words):
    with pytest.raises(StoreDamaged, match=words):
        results_of([row])


def test_gates_may_come_as_numpy_scalars_and_not_finite(store, bundle):
    import numpy as np

    row = {"name": "a", "is_passed": np.bool_(True), "measured": np.float32(0.5), "bound": float("nan")}
    registered = store.register(bundle("1"), [row])
    (gate,) = store.verdict(store.version(registered.version)).gates
    assert (gate.is_passed, gate.measured, gate.bound) == (True, 0.5, None)
    json.loads((Path(store.where) / "gates" / "tiny@1.json").read_text())


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_champion_that_is_damaged_or_gone_can_be_replaced(store, bundle, tmp_path, is_gone):
    for version in "12":
        store.register(bundle(version), [PASSED])
        if version == "1":
            promote(store, approved_by="ada")
    place = tmp_path / "store" / "versions" / "tiny@1"
    shutil.rmtree(place) if is_gone else (place / "quality.onnx").unlink()
    assert promote(store, approved_by="ada").former == "tiny@1"
    assert store.aliases() == {"champion": "tiny@2"}, "there is nothing to go back to"
    with pytest.raises(PromotionRefused, match="no previous champion"):
        rollback(store, by="ada")
