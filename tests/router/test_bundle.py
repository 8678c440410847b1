from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from router import Router, bundle
from router.arrays import read_arrays, write_arrays
from router.errors import (
    BundleCorrupt,
    BundleError,
    BundleMissing,
    BundleSchemaUnknown,
    BundleUnsafe,
    ParityFailed,
)
from router.manifest import FileEntry, Manifest


@pytest.fixture
def folder(tmp_path, tiny_bundle):
    return shutil.copytree(tiny_bundle, tmp_path / "bundle")


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def replace_file(folder, name, data):
    """Replace a file and make its hash right, so that only what is in it is wrong."""
    (folder / name).write_bytes(data)
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
    entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    manifest = replace(manifest, files={**manifest.files, name: entry})
    (folder / "manifest.json").write_bytes(manifest.to_json())


def test_a_bundle_that_is_right_loads_and_predicts(folder):
    predictions = bundle.load(folder).predict(["x" * 100, "7"])
    assert predictions.candidates == ("large", "medium", "small")
    # small: .7 − .1 · 1 hundred characters; medium: .8, and .6 with a digit
    assert predictions.quality == pytest.approx(np.array([[0.9, 0.8, 0.6], [0.9, 0.6, 0.699]]), abs=1e-6)
    assert predictions.quality_low == pytest.approx(predictions.quality - 0.05, abs=1e-6)
    assert predictions.output_tokens.tolist() == [[300, 200, 100]] * 2
    assert predictions.input_tokens.tolist() == [[25, 25, 25], [0.25, 0.25, 0.25]]


def test_token_counts_a_bundle_does_not_know_are_nan(folder):
    edit_manifest(folder, lambda m: m["candidates"][1].update(knows_output_tokens=False))
    predictions = bundle.load(folder).predict(["x"])
    assert np.isnan(predictions.output_tokens).tolist() == [[False, True, False]]
    assert np.isnan(predictions.output_tokens_p90).tolist() == [[False, True, False]]


def test_one_flipped_byte_is_refused(folder):
    data = bytearray((folder / "quality.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "quality.onnx").write_bytes(data)
    with pytest.raises(BundleCorrupt, match=r"quality\.onnx has sha256"):
        bundle.load(folder)


def test_a_truncated_file_is_refused(folder):
    (folder / "quality.onnx").write_bytes((folder / "quality.onnx").read_bytes()[:-1])
    with pytest.raises(BundleCorrupt, match=r"quality\.onnx has .* bytes; the manifest says"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["quality.onnx", "parity.npz", "CARD.md", "manifest.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleMissing, match=name):
        bundle.load(folder)


def test_no_folder_is_named(tmp_path):
    with pytest.raises(BundleMissing, match="no such folder"):
        bundle.load(tmp_path / "nowhere")


def test_a_file_the_manifest_does_not_name_is_refused(folder):
    (folder / "model.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(BundleUnsafe, match=r"model\.pkl"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["quality.onnx", "manifest.json"])
def test_a_symbolic_link_is_refused(folder, tmp_path, name):
    target = tmp_path / "elsewhere"
    (folder / name).rename(target)
    os.symlink(target, folder / name)
    with pytest.raises(BundleUnsafe, match="symbolic link"):
        bundle.load(folder)


def test_an_oversized_file_is_refused(folder, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_FILE_BYTES", 10)
    with pytest.raises(BundleUnsafe, match="larger than 10 bytes"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "", "manifest.json"])
def test_a_path_instead_of_a_file_name_is_refused(folder, name):
    edit_manifest(folder, lambda m: m["files"].update({name: {"sha256": "0", "n_bytes": 0}}))
    with pytest.raises(BundleUnsafe, match="not a plain file name"):
        bundle.load(folder)


def drop(*path):
    def change(document):
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return change


def put(value, *path):
    def change(document):
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (put(99, "schema"), BundleSchemaUnknown, "schema 99; this program reads 1"),
        (drop("schema"), BundleCorrupt, "schema must be int, got None"),
        (put("neural", "encoder", "tier"), BundleSchemaUnknown, "'neural' is unknown; expected one of lexical"),
        (put(1, "encoder", "feature_schema"), BundleSchemaUnknown, "feature schema 1; this program computes 3"),
        (put(3, "encoder", "dim"), BundleCorrupt, "the encoder gives 2 features; the manifest says 3"),
        (put("two", "encoder", "dim"), BundleCorrupt, "dim must be int, got 'two'"),
        (put([], "candidates"), BundleCorrupt, "at least one"),
        (lambda m: m["candidates"].pop(), BundleCorrupt, r"quality\.onnx gives 3 columns of quality"),
        (lambda m: m["candidates"][1].update(name="large"), BundleCorrupt, "each name once"),
        (
            put(0.0, "candidates", 0, "input_tokens_per_character"),
            BundleCorrupt,
            "above 0 and at most 4.0, got 0.0",
        ),
        (put(1e308, "candidates", 0, "input_tokens_per_character"), BundleCorrupt, "at most 4.0"),
        (put(-1.0, "candidates", 0, "reference_price", "input_usd_per_mtok"), BundleCorrupt, "at least 0, got -1.0"),
        (put({"kind": "threshold", "value": 7.0}, "presets", "x"), BundleCorrupt, r"presets\.x: threshold must be"),
        (put([], "files"), BundleCorrupt, "files must be dict"),
        (put(True, "certificate"), BundleCorrupt, "certificate must be dict"),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(folder, change, error, message):
    edit_manifest(folder, change)
    with pytest.raises(error, match=message):
        bundle.load(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_not_a_json_object_is_corrupt(folder, data):
    (folder / "manifest.json").write_bytes(data)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["features", "quality", "output_tokens_p90"])
def test_other_numbers_than_at_export_fail_the_self_test(folder, name):
    arrays = read_arrays((folder / "parity.npz").read_bytes(), "parity.npz")
    replace_file(folder, "parity.npz", write_arrays({**arrays, name: arrays[name] * 1.05 + 0.01}))
    with pytest.raises(ParityFailed, match=f"self-test: {name} differs"):
        bundle.load(folder)


def test_a_self_test_of_nothing_is_refused(folder):
    replace_file(folder, "parity.npz", write_arrays({"texts": np.array(["x"])}))
    with pytest.raises(BundleCorrupt, match=r"parity\.npz lacks features"):
        bundle.load(folder)


def test_a_graph_that_is_not_onnx_is_refused(folder):
    replace_file(folder, "quality.onnx", b"\x80\x04\x95pickle")
    with pytest.raises(BundleError, match=r"quality\.onnx"):
        bundle.load(folder)


def test_swapped_graphs_are_refused(folder):
    replace_file(folder, "quality.onnx", (folder / "output_tokens.onnx").read_bytes())
    with pytest.raises(BundleCorrupt, match=r"expected 'features' to quality"):
        bundle.load(folder)


def test_writing_over_a_bundle_must_be_asked_for(folder, tiny_bundle_files):
    manifest = bundle.load(folder).manifest
    with pytest.raises(FileExistsError):
        bundle.write(folder, manifest, tiny_bundle_files)
    bundle.write(folder, replace(manifest, version="2"), tiny_bundle_files, overwrite=True)
    assert bundle.load(folder).manifest.id == "tiny@2"


def test_a_bundle_that_would_not_load_is_never_written(folder, tiny_bundle_files):
    manifest = bundle.load(folder).manifest
    broken = {**tiny_bundle_files, "quality.onnx": b"nothing"}
    with pytest.raises(BundleError):
        bundle.write(folder, replace(manifest, version="2"), broken, overwrite=True)
    assert bundle.load(folder).manifest.id == "tiny@1"
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_writing_leaves_nothing_but_the_bundle(tmp_path, tiny_bundle, tiny_bundle_files):
    manifest = bundle.load(tiny_bundle).manifest
    bundle.write(tmp_path / "deep" / "er", manifest, tiny_bundle_files)
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["er"]


def test_a_number_that_is_not_finite_becomes_null_in_the_manifest(tiny_bundle):
    manifest = replace(bundle.load(tiny_bundle).manifest, metrics={"auc": float("nan"), "n": np.int64(3)})
    assert json.loads(manifest.to_json())["metrics"] == {"auc": None, "n": 3}


def test_the_manifest_survives_a_round_trip(tiny_bundle):
    manifest = bundle.load(tiny_bundle).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_id_of_an_encoder_is_that_of_what_its_features_depend_on(tiny_bundle):
    files = {name: FileEntry(digest * 64, 1) for name, digest in (("encoder.npz", "a"), ("quality.onnx", "b"))}
    base = replace(bundle.load(tiny_bundle).manifest, encoder_tier="lexical", files=files)
    assert base.encoder_id.startswith("lexical-")
    same = {**files, "quality.onnx": FileEntry("c" * 64, 1), "CARD.md": FileEntry("d" * 64, 1)}
    assert replace(base, version="2", files=same).encoder_id == base.encoder_id
    other = {**files, "encoder.npz": FileEntry("e" * 64, 1)}
    changed = [replace(base, files=other), replace(base, dim=3), replace(base, feature_schema=99)]
    assert len({base.encoder_id, *(one.encoder_id for one in changed)}) == 4


def test_what_serving_asks_for_holds_the_features_and_what_training_asks_for_does_not(tiny_bundle):
    loaded = bundle.load(tiny_bundle)
    given = loaded.outputs(["What is 17 * 23?"])
    assert given["features"].shape == (1, 2) and not given["features"].flags.writeable
    assert np.array_equal(given["features"], loaded.encoder.encode(["What is 17 * 23?"]))
    assert "features" not in loaded.outputs(["a", "b"])
    encoded = Router(loaded).route("What is 17 * 23?").encoded
    assert encoded.encoder == loaded.manifest.encoder_id and encoded.features.shape == (2,)
