"""Gateways on loopback for clients that run in processes of their own: one for each dialect a provider can speak.

They run in a thread with a loop of its own, so that tests may simply wait for a client's process to end. The emulated
providers are scripted to use the tool of ``python/scenario.json``: two calls in parallel, then a text.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.app import create_app
from serving.commands import server_of
from serving.emulator import Emulator, EmulatorServer
from serving.keys import digest_of, new_key
from serving.settings import load

#: The dialects of providers.
UPSTREAMS = ("chat", "responses", "messages", "gemini")
SCENARIO = json.loads(Path(__file__).with_name("python").joinpath("scenario.json").read_text("utf-8"))
POOL = "".join(
    f"""
[[candidates]]
name = "{name}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = {4 * usd}
deployments = [{{ provider = "emulator", model = "{name}-at-provider" }}]
"""
    for name, usd in (("large", 10.0), ("medium", 1.0), ("small", 0.1))
)


def config_of(upstream: str, bundle: Path, key: str) -> str:
    """Write a config: the tiny pool behind an emulated provider of one dialect, and a key to ask for."""
    return f"""
[server]
port = 0
bundle = "{bundle}"
database = ""
watch_bundle_s = 0

[responses]
keep_for_s = 600

[[keys]]
name = "tests"
sha256 = "{digest_of(key)}"

[[providers]]
name = "emulator"
emulated = true
apis = ["{upstream}"]
{POOL}
[[providers]]
name = "embedding"
emulated = true
apis = ["{"gemini" if upstream == "gemini" else "chat"}"]

[[candidates]]
name = "embedder"
embeddings = true
deployments = [{{ provider = "embedding", model = "embedder-at-provider" }}]
"""


@dataclass(frozen=True)
class ListeningGateway:
    """A gateway that listens; ``origin`` is its address without ``/v1``."""

    upstream: str
    origin: str
    key: str
    provider: Emulator


@asynccontextmanager
async def listening(upstream: str, folder: Path, bundle: Path, key: str) -> AsyncIterator[ListeningGateway]:
    """Serve, as ``turnout serve`` does, in front of an emulated provider of one dialect."""
    file = folder / f"{upstream}.toml"
    file.write_text(config_of(upstream, bundle, key), "utf-8")
    settings = load(file)
    app = create_app(settings, emulator=EmulatorServer(speed=0, n_kept=2000))
    app.emulator.app.scripts.put("*", SCENARIO["steps"])
    is_ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = server_of(app, settings, ready=is_ready.set_result)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, is_ready}, return_when=asyncio.FIRST_COMPLETED)
    assert is_ready.done(), "the server did not start"
    try:
        yield ListeningGateway(upstream, f"http://127.0.0.1:{is_ready.result()}", key, app.emulator.app)
    finally:
        server.should_exit = True
        await serving


@pytest.fixture(scope="session")
def gateways(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, ListeningGateway]]:
    """Return a running gateway for each dialect of providers, by its name; one key opens them all."""
    key, _ = new_key()
    folder = tmp_path_factory.mktemp("gateways")
    started: Future[Mapping[str, ListeningGateway]] = Future()
    stop: Future[Callable[[], None]] = Future()

    async def serve() -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.set_result(lambda: loop.call_soon_threadsafe(ending.set))
        async with AsyncExitStack() as stack:
            try:
                running = {
                    name: await stack.enter_async_context(listening(name, folder, tiny_bundle, key))
                    for name in UPSTREAMS
                }
            except BaseException as error:
                started.set_exception(error)
                return
            started.set_result(running)
            await ending.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="gateways")
    thread.start()
    try:
        yield started.result(timeout=30)
    finally:
        stop.result()()
        thread.join()
