"""The sync process, following a directory as it would follow MLflow: it knows stores only by what they can do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router.bundle import load
from training.directory_store import DirectoryStore
from training.errors import StoreDamaged
from training.promotion import promote, rollback
from training.sync import Sync

PASSED = {"name": "slices", "is_passed": True}


class Following:
    """A store, a directory that follows it, and what was said."""

    def __init__(self, folder: Path, write_bundle, against) -> None:
        self.store = DirectoryStore(folder / "store")
        self.out = folder / "out"
        self.lines: list[str] = []
        self.sync = Sync(self.store, self.out, self.lines.append)
        self._made = folder / "made"
        self._write = write_bundle
        self._against = against

    def challenge(self, version: str) -> None:
        bundle = self._write(self._made / version, version)
        self.store.register(bundle, [PASSED], opponent=self._against(self.store))

    def links(self) -> dict[str, str]:
        return {path.name: load(path).manifest.id for path in self.out.iterdir() if path.is_symlink()}

    def said(self) -> list[str]:
        lines, self.lines[:] = list(self.lines), []
        return lines


@pytest.fixture
def following(tmp_path, write_tiny_bundle, against) -> Following:
    return Following(tmp_path, write_tiny_bundle, against)


def test_links_follow_the_aliases_forth_and_back(following):
    following.challenge("1")
    assert not following.sync.look(), "nobody serves yet"
    assert following.links() == {"challenger": "tiny@1"}
    promote(following.store, approved_by="ada")
    following.challenge("2")
    assert following.sync.look()
    assert following.links() == {"champion": "tiny@1", "challenger": "tiny@2"}
    promote(following.store, approved_by="ada")
    assert following.sync.look()
    assert following.links() == {"champion": "tiny@2"}
    rollback(following.store, by="ada")
    assert following.sync.look()
    assert following.links() == {"champion": "tiny@1"}
    where = following.store.where
    assert following.said() == [
        f"champion: nobody in {where}; it stays absent",
        "challenger: tiny@1 (version tiny@1)",
        "champion: tiny@1 (version tiny@1)",
        "challenger: tiny@2 (version tiny@2)",
        "champion: tiny@2 (version tiny@2)",
        "challenger: nobody",
        "champion: tiny@1 (version tiny@1)",
    ]
    assert following.sync.look() and not following.said(), "what is so is said once"
    assert not list((following.out / "versions").glob(".*")), "nothing is left half done"


def test_a_version_that_does_not_load_leaves_the_last_good_one(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    following.sync.look()
    following.challenge("2")
    promote(following.store, approved_by="ada")
    graph = Path(following.store.where) / "versions" / "tiny@2" / "quality.onnx"
    good = graph.read_bytes()
    graph.write_bytes(b"nonsense")
    following.said()
    for _ in range(3):
        assert not following.sync.look()
        assert following.links() == {"champion": "tiny@1"}
    (line,) = following.said()
    assert "quality.onnx" in line and line.endswith("it stays tiny@1")
    assert [path.name for path in (following.out / "versions").iterdir()] == ["tiny@1"]
    graph.write_bytes(good)
    assert following.sync.look()
    assert following.said() == ["champion: tiny@2 (version tiny@2)"]


def test_a_store_that_is_gone_changes_nothing_and_is_said_once_each_way(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    following.sync.look()
    store = Path(following.store.where)
    store.rename(store.with_name("away"))
    store.mkdir()
    (store / "champion").symlink_to("versions/tiny@1")
    following.said()
    assert not following.sync.look() and not following.sync.look()
    assert following.links() == {"champion": "tiny@1"}
    (line,) = following.said()
    assert "has no 'tiny@1'" in line
    shutil.rmtree(store)
    store.with_name("away").rename(store)
    assert following.sync.look()


def test_a_bundle_damaged_on_our_side_is_fetched_again_after_a_restart(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    following.sync.look()
    (following.out / "versions" / "tiny@1" / "quality.onnx").write_bytes(b"nonsense")
    again = Sync(following.store, following.out, following.lines.append)
    assert again.look()
    assert following.links() == {"champion": "tiny@1"}


def test_what_a_killed_process_left_is_swept_and_the_loop_ends_when_told(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    half = following.out / "versions" / ".incoming-killed"
    (half / "bundle").mkdir(parents=True)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 3

    following.sync.run(7.0, wait)
    assert waits == [7.0] * 3
    assert not half.exists() and following.links() == {"champion": "tiny@1"}


def test_nobody_promotes_in_a_directory_that_follows_another_store(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    following.challenge("2")
    following.sync.look()
    copy = DirectoryStore(following.out)
    with pytest.raises(StoreDamaged, match=r"follows .*store, which would undo a change here"):
        promote(copy, approved_by="ada", force="here")
    with pytest.raises(StoreDamaged, match="follows"):
        copy.register(following.out / "champion", [PASSED])
    assert following.links() == {"champion": "tiny@1", "challenger": "tiny@2"}


def test_a_folder_in_the_place_of_a_link_is_left_alone(following):
    following.challenge("1")
    promote(following.store, approved_by="ada")
    (following.out / "champion").mkdir(parents=True)
    assert not following.sync.look()
    assert "no symbolic link" in following.said()[0]
    assert (following.out / "champion").is_dir()


def test_old_versions_go_but_never_one_that_is_linked(following):
    sync = Sync(following.store, following.out, following.lines.append, n_kept=1)
    for version in "1234":
        following.challenge(version)
        promote(following.store, approved_by="ada")
        assert sync.look()
    rollback(following.store, by="ada")
    assert sync.look()
    assert following.links() == {"champion": "tiny@3"}
    # Of those that nobody names the newest stays; tiny@1 went when the third came, tiny@2 when the fourth did.
    assert sorted(path.name for path in (following.out / "versions").iterdir()) == ["tiny@3", "tiny@4"]
    removed = [line for line in following.said() if line.startswith("removed")]
    assert removed == [f"removed tiny@{version}, which no link names" for version in "12"]
