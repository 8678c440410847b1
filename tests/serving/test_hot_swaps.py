"""Bundles swapped under load over real HTTP: nobody's request fails, and every decision is one version's.

``benchmarks/hot_swaps.py`` does it 50 times and measures.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from router import bundle, features
from router.manifest import Manifest
from router.predictors import Predictor

#: What each version says of whom its preset takes: large where the text has a digit, else medium.
PREDICTED = {
    ("tiny@1", "large"): 0.9,
    ("tiny@1", "medium"): 0.8,
    ("tiny@2", "large"): 0.92,
    ("tiny@2", "medium"): 0.82,
}
TEXTS = ("Say hello.", "What is 17 * 23?")


def point(link: Path, folder: Path) -> None:
    """Let a link lead to a folder in one step, as `turnout sync` does."""
    fresh = link.with_name(f".{link.name}")
    fresh.symlink_to(folder)
    os.replace(fresh, link)


def write_better(folder: Path, version: str, files: dict[str, bytes], manifest: Manifest) -> None:
    """Write a bundle that predicts .02 more for everybody: what a decision says tells which one made it."""
    model = onnx.load_from_string(files["quality.onnx"])
    for weights in model.graph.initializer:
        if weights.name.endswith(".b"):
            weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(0.02), weights.name))
    files = {**files, "quality.onnx": model.SerializeToString()}
    encoder = features.encoder_of("letters", {})
    files["parity.npz"] = bundle.parity(encoder, Predictor(files, manifest.dim, len(manifest.candidates)), TEXTS)
    bundle.write(folder, replace(manifest, version=version), files)


async def test_five_swaps_under_load_fail_nobody_and_mix_nothing(
    keep, pool_toml, tmp_path, write_tiny_bundle, tiny_bundle_files
) -> None:
    one, two = (tmp_path / "versions" / f"tiny@{version}" for version in "12")
    write_tiny_bundle(one, "1")
    manifest = bundle.load(one).manifest
    write_better(two, "2", tiny_bundle_files, manifest)
    link = tmp_path / "champion"
    point(link, one)
    async with keep(pool_toml, bundle=link, watch_bundle_s=0.01) as gateway:
        is_over = asyncio.Event()
        seen: list[tuple[int, str, str]] = []

        async def ask() -> None:
            while not is_over.is_set():
                # Half of the questions come again, and are answered from what was predicted before.
                answer = await gateway.chat(f"Say hello {'again' if len(seen) % 2 else len(seen)}.")
                named = (answer.headers.get(f"x-turnout-{name}", "") for name in ("decision-id", "bundle"))
                seen.append((answer.status_code, *named))

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for n in range(5):
            n_before = len(seen)
            folder = (two, one)[n % 2]
            point(link, folder)
            async with asyncio.timeout(20):
                while len(seen) < n_before + 10 or seen[-1][2] != folder.name:
                    await asyncio.sleep(0.005)
        is_over.set()
        await asyncio.gather(*asking)
        database = gateway.gateway.ready().settings.database_path()
    connection = sqlite3.connect(database)
    rows = connection.execute("SELECT id, bundle, round(predicted_quality, 4), chosen FROM request").fetchall()
    connection.close()
    assert {status for status, _, _ in seen} == {200}
    # The header and the record name the same version, and every number in it is that version's.
    assert {identity: named for _, identity, named in seen} == {identity: by for identity, by, _, _ in rows}
    assert {(by, chosen): quality for _, by, quality, chosen in rows} == PREDICTED
    assert all(quality == PREDICTED[by, chosen] for _, by, quality, chosen in rows)
