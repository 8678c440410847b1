from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.state import State

NO_EMULATOR = '[server]\nbundle = "{bundle}"\ndatabase = ""\n'


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def own_bundle(tmp_path: Path, write_tiny_bundle) -> Path:
    return write_tiny_bundle(tmp_path / "own")


def edit(state: State, old: str, new: str) -> None:
    """Change the config file behind a state."""
    text = state.settings.source.read_text("utf-8")
    assert old in text
    state.settings.source.write_text(text.replace(old, new), "utf-8")


async def test_sighup_reads_settings_and_bundle_again(start, pool_toml, own_bundle, write_tiny_bundle) -> None:
    async with start(pool_toml, bundle=own_bundle) as gateway:
        before = gateway.gateway.ready()
        await gateway.chat("Say hello.")
        edit(before, "input_usd_per_mtok = 1.0", "input_usd_per_mtok = 2.0")
        write_tiny_bundle(own_bundle, "2")
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: gateway.gateway.ready() is not before)
        after = await gateway.chat("Say hello.")
        assert after.headers["x-turnout-bundle"] == "tiny@2"
        # 2.5 input tokens at 2 USD/M now, 200 output tokens at 4.
        assert after.headers["x-turnout-expected-cost-usd"] == "0.000805000"
        status = next(row for row in gateway.gateway.pool.snapshot() if row.candidate == "medium")
        assert status.n_requests == 2, "a deployment that stays keeps its history"


async def test_a_new_bundle_in_the_folder_is_noticed(start, pool_toml, own_bundle, write_tiny_bundle) -> None:
    async with start(pool_toml, bundle=own_bundle, watch_bundle_s=0.01) as gateway:
        for version in "23":
            write_tiny_bundle(own_bundle, version)
            await eventually(lambda: gateway.gateway.ready().bundle_id == f"tiny@{version}")  # noqa: B023


async def test_a_damaged_bundle_is_tried_once_and_the_repaired_one_is_taken(
    start, pool_toml, own_bundle, write_tiny_bundle, caplog
) -> None:
    async with start(pool_toml, bundle=own_bundle, watch_bundle_s=0.01) as gateway:
        with caplog.at_level("INFO", "turnout"):
            (own_bundle / "CARD.md").write_bytes(b"edited")
            await eventually(lambda: "reload_refused" in caplog.messages)
            await asyncio.sleep(0.1)
        assert caplog.messages.count("reload_refused") == 1
        assert gateway.gateway.ready().bundle_id == "tiny@1"
        write_tiny_bundle(own_bundle, "2")
        await eventually(lambda: gateway.gateway.ready().bundle_id == "tiny@2")


BREAKS = {
    "settings not TOML": lambda state, bundle: edit(state, "[server]", "[server"),
    "unknown key": lambda state, bundle: edit(state, "database", "databse"),
    "unknown like": lambda state, bundle: edit(state, 'name = "small"', 'name = "newcomer"\nlike = "nobody"'),
    "missing variable": lambda state, bundle: edit(
        state,
        "[[candidates]]",
        '[[providers]]\nname = "x"\nbase_url = "http://x/v1"\napi_key_env = "NOT_SET_ANYWHERE"\n[[candidates]]',
    ),
    "bundle corrupt": lambda state, bundle: (bundle / "quality.onnx").write_bytes(b"nonsense"),
    "bundle gone": lambda state, bundle: (bundle / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=BREAKS)
async def test_any_error_keeps_the_last_good_state_whole(start, pool_toml, own_bundle, caplog, damage) -> None:
    async with start(pool_toml, bundle=own_bundle) as gateway:
        before = gateway.gateway.ready()
        damage(before, own_bundle)
        with caplog.at_level("INFO", "turnout"):
            assert not await gateway.app.reloader.reload()
        assert "reload_refused" in caplog.messages
        assert gateway.gateway.ready() is before
        assert (await gateway.chat()).status_code == 200


async def test_requests_in_flight_keep_the_state_they_began_with(
    start, pool_toml, own_bundle, write_tiny_bundle
) -> None:
    async with start(pool_toml, bundle=own_bundle) as gateway:
        slow = asyncio.create_task(gateway.chat("Say hello.", emulate={"delay_s": 0.2}))
        await eventually(lambda: gateway.provider.counts()["n_in_flight"] == 1)
        # medium goes, and the prices of all change, while its answer is awaited.
        state = gateway.gateway.ready()
        edit(state, 'name = "medium"', 'name = "newcomer"\nlike = "medium"')
        write_tiny_bundle(own_bundle, "2")
        assert await gateway.app.reloader.reload()
        assert "medium" not in gateway.gateway.ready().candidates
        answer = await slow
        assert answer.status_code == 200
        assert (answer.headers["x-turnout-candidate"], answer.headers["x-turnout-bundle"]) == ("medium", "tiny@1")
        (record,) = gateway.records.kept
        assert (record.bundle, record.cost_usd) == ("tiny@1", float(answer.headers["x-turnout-cost-usd"]))
        assert (await gateway.chat("Say hello.")).headers["x-turnout-like"] == "medium"


async def test_reloading_under_requests_fails_none_of_them(start, pool_toml, own_bundle, write_tiny_bundle) -> None:
    async with start(pool_toml, bundle=own_bundle) as gateway:
        is_over = asyncio.Event()
        seen: list[tuple[int, str]] = []

        async def ask() -> None:
            while not is_over.is_set():
                response = await gateway.chat("Say hello.")
                seen.append((response.status_code, response.headers["x-turnout-bundle"]))

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        for version in "2345":
            write_tiny_bundle(own_bundle, version)
            assert await gateway.app.reloader.reload()
        is_over.set()
        await asyncio.gather(*asking)
        assert {status for status, _ in seen} == {200}
        assert len({bundle for _, bundle in seen}) > 1


async def test_what_only_a_restart_changes_is_said(start, pool_toml, caplog) -> None:
    async with start(pool_toml) as gateway:
        edit(gateway.gateway.ready(), "port = 0", "port = 1")
        with caplog.at_level("INFO", "turnout"):
            assert await gateway.app.reloader.reload()
        assert "restart_needed" in caplog.messages


KEY = f'\n[[keys]]\nname = "alice"\nsha256 = "{"0" * 64}"\n'


async def test_a_listener_that_others_reach_never_loses_its_keys(start, pool_toml, caplog) -> None:
    async with start(pool_toml + KEY, settings='host = "0.0.0.0"') as gateway:
        before = gateway.gateway.ready()
        edit(before, KEY, "")
        edit(before, 'host = "0.0.0.0"', 'host = "127.0.0.1"')  # the file is good, the socket is another matter
        with caplog.at_level("INFO", "turnout"):
            assert not await gateway.app.reloader.reload()
        assert "reload_refused" in caplog.messages
        assert gateway.gateway.ready() is before
        assert (await gateway.chat()).status_code == 401


async def test_a_listener_on_loopback_stays_open_whatever_host_the_file_turns_to(start, pool_toml) -> None:
    async with start(pool_toml + KEY) as gateway:
        edit(gateway.gateway.ready(), "port = 0", 'port = 0\nhost = "0.0.0.0"')
        assert await gateway.app.reloader.reload()
        assert (await gateway.chat()).status_code == 401
        edit(gateway.gateway.ready(), KEY, "")
        edit(gateway.gateway.ready(), 'host = "0.0.0.0"', 'host = "localhost"')
        assert await gateway.app.reloader.reload()
        assert (await gateway.chat()).status_code == 200


async def test_a_provider_that_becomes_emulated_starts_the_emulator(start, pool_toml) -> None:
    real = '[[providers]]\nname = "real"\nbase_url = "http://127.0.0.1:9/v1"\n'
    async with start(real + pool_toml.replace('"emulator"', '"real"'), server=NO_EMULATOR) as gateway:
        assert not gateway.app.emulator.base_url
        assert (await gateway.chat()).json()["error"]["code"] == "upstream_unreachable"
        edit(gateway.gateway.ready(), 'base_url = "http://127.0.0.1:9/v1"', "emulated = true")
        assert await gateway.app.reloader.reload()
        assert (await gateway.chat()).status_code == 200
