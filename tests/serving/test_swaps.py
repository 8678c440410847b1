"""Bundles swapped behind a symbolic link: noticed, whole, one version to each decision, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from router import Prompt, Router
from router.bundle import load
from router.errors import BundleMissing
from serving.bundle_folder import fingerprint, resolved

ARCHIVE = "versions"


def point(link: Path, target: Path) -> None:
    """Let a link lead elsewhere, in one step."""
    fresh = link.with_name(f".{link.name}-new")
    fresh.symlink_to(target, target_is_directory=True)
    os.replace(fresh, link)


@pytest.fixture
def store(tmp_path: Path, write_tiny_bundle) -> Path:
    """Return a folder with two versions and a link ``champion`` to the first."""
    for version in "12":
        write_tiny_bundle(tmp_path / ARCHIVE / f"tiny@{version}", version)
    point(tmp_path / "champion", tmp_path / ARCHIVE / "tiny@1")
    return tmp_path


async def eventually(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_link_that_is_swapped_is_noticed(start, pool_toml, store) -> None:
    async with start(pool_toml, bundle=store / "champion", watch_bundle_s=0.01) as gateway:
        for version in "2121":
            point(store / "champion", store / ARCHIVE / f"tiny@{version}")
            await eventually(lambda: gateway.gateway.ready().bundle_id == f"tiny@{version}")  # noqa: B023
            said = await gateway.chat()
            assert said.headers["x-turnout-bundle"] == f"tiny@{version}" == gateway.records.kept[-1].bundle


def test_two_bundles_of_the_same_sizes_and_times_are_told_apart(tmp_path: Path, tiny_bundle: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        shutil.copytree(tiny_bundle, folder)
        for path in folder.iterdir():
            os.utime(path, ns=(10**18, 10**18))
    link = tmp_path / "champion"
    seen = []
    for folder in folders:
        point(link, folder)
        seen.append(fingerprint(link))
    assert seen[0] and seen[1] and seen[0] != seen[1]
    point(link, folders[0])
    assert fingerprint(link) == seen[0], "nothing but the link was touched"


def test_a_link_into_nothing_or_into_itself_is_no_bundle(tmp_path: Path) -> None:
    point(tmp_path / "gone", tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert fingerprint(tmp_path / "gone") == fingerprint(tmp_path / "circle") == ()


async def test_a_link_that_leads_nowhere_keeps_the_last_good_bundle(start, pool_toml, store, caplog) -> None:
    async with start(pool_toml, bundle=store / "champion") as gateway:
        (store / "champion").unlink()
        (store / "champion").symlink_to(store / "champion")
        with caplog.at_level("INFO", "turnout"):
            assert not await gateway.app.reloader.reload()
        assert "reload_refused" in caplog.messages
        refused = next(record for record in caplog.records if record.message == "reload_refused")
        assert "champion" in refused.fields["problem"], "the log says why"
        assert (await gateway.chat()).headers["x-turnout-bundle"] == "tiny@1"


def test_what_one_bundle_foresaw_is_no_other_bundles_decision(tiny_bundle: Path) -> None:
    one, other = load(tiny_bundle), load(tiny_bundle)
    mine, theirs = Router(one), Router(other)
    prompt = Prompt.of("Say hello.")
    seen = mine.foresee(prompt)
    lied = replace(seen, given={name: values * 0 for name, values in seen.given.items()})
    assert mine.route(prompt, foresight=lied).quality == 0.0, "its own foresight is believed"
    assert theirs.route(prompt, foresight=lied) == theirs.route(prompt)


async def test_states_that_were_swapped_out_are_freed_at_once(start, pool_toml, store) -> None:
    """Without the cycle collector, which never looks again at what was there when the server began."""
    async with start(pool_toml, bundle=store / "champion") as gateway:
        await gateway.chat()
        gc.collect()
        gc.disable()
        try:
            former = []
            for n in range(50):
                state = gateway.gateway.ready()
                former += [weakref.ref(thing) for thing in (state.router, state.router.bundle.predictor, state.keys)]
                point(store / "champion", store / ARCHIVE / f"tiny@{(n + 1) % 2 + 1}")
                del state
                assert await gateway.app.reloader.reload()
                said = await gateway.chat(f"Say hello {n}.")
                assert said.headers["x-turnout-bundle"] == f"tiny@{(n + 1) % 2 + 1}"
            # The thread that built the last one lets go of it a moment after.
            await eventually(lambda: not any(ref() is not None for ref in former))
        finally:
            gc.enable()


async def test_a_request_in_flight_is_one_versions_whatever_is_swapped_meanwhile(start, pool_toml, store) -> None:
    async with start(pool_toml, bundle=store / "champion") as gateway:
        slow = asyncio.create_task(gateway.chat("Say hello.", emulate={"delay_s": 0.2}))
        await eventually(lambda: gateway.provider.counts()["n_in_flight"] == 1)
        for version in "212":
            point(store / "champion", store / ARCHIVE / f"tiny@{version}")
            assert await gateway.app.reloader.reload()
        assert (await slow).headers["x-turnout-bundle"] == "tiny@1"
        assert gateway.records.kept[-1].bundle == "tiny@1"


def test_a_link_that_leads_nowhere_is_named_with_where_it_leads(tmp_path):
    (tmp_path / "champion").symlink_to("versions/gone@1")
    with pytest.raises(
        BundleMissing, match=r"at \S*/champion: the link leads to \S*/versions/gone@1, which is not there"
    ):
        resolved(tmp_path / "champion")
    assert fingerprint(tmp_path / "champion") == ()
