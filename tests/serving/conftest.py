"""A running gateway over the tiny bundle and the emulator: real parts, no mocks, nothing waits.

The tiny bundle (``tests/conftest.py``): at the preset ``balanced`` (threshold .75) a text without digits goes to
``medium`` (quality .8), one with digits to ``large``; ``price`` (threshold .5) sends both to ``small``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from serving.app import Application, create_app
from serving.commands import server_of
from serving.emulator import Emulator, EmulatorServer
from serving.gateway import Gateway
from serving.providers.upstream import Upstream
from serving.records import NullRecordStore, RecordStore, RequestRecord, Retained
from serving.settings import Settings, load

CANDIDATE = """
[[candidates]]
name = "{name}"
input_usd_per_mtok = {input}
output_usd_per_mtok = {output}
deployments = [{{ provider = "emulator", model = "{name}-at-provider" }}]
"""
POOL = "".join(
    CANDIDATE.format(name=name, input=usd, output=4 * usd)
    for name, usd in (("large", 10.0), ("medium", 1.0), ("small", 0.1))
)
SERVER = """
[server]
port = 0
bundle = "{bundle}"
database = ""
max_attempts = 1
watch_bundle_s = {watch_bundle_s}
{settings}

[[providers]]
name = "emulator"
emulated = true
"""


class KeptRecords(NullRecordStore):
    """Keeps records in a list, and what is retained of prompts in another."""

    is_on = True

    def __init__(self) -> None:
        self.kept: list[RequestRecord] = []
        self.retained: list[Retained] = []

    def add(self, record: RequestRecord, retained: Retained | None = None) -> None:
        self.kept.append(record)
        if retained is not None:
            self.retained.append(retained)


@dataclass
class Running:
    """A gateway that serves, a client of it, and what stands behind it."""

    app: Application
    client: httpx.AsyncClient
    records: KeptRecords = field(default_factory=KeptRecords)

    @property
    def gateway(self) -> Gateway:
        return self.app.gateway

    @property
    def provider(self) -> Emulator:
        return self.app.emulator.app

    async def chat(self, content: str = "Say hello.", *, headers: dict[str, str] | None = None, **body: object):
        asked = {"model": "auto", "messages": [{"role": "user", "content": content}], **body}
        return await self.client.post("/v1/chat/completions", json=asked, headers=headers)


#: (TOML besides the server's, …) -> a running gateway
Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def pool_toml() -> str:
    return POOL


@pytest.fixture
def server_toml() -> str:
    return SERVER


@pytest.fixture
def configure(tmp_path: Path, tiny_bundle: Path) -> Callable[..., Settings]:
    """Return a function that writes a config and loads it."""

    def write(
        more: str = POOL,
        *,
        server: str = SERVER,
        bundle: Path = tiny_bundle,
        settings: str = "",
        watch_bundle_s: float = 0,
    ) -> Settings:
        file = tmp_path / "turnout.toml"
        file.write_text(server.format(bundle=bundle, settings=settings, watch_bundle_s=watch_bundle_s) + more, "utf-8")
        return load(file)

    return write


@pytest.fixture
def start(configure: Callable[..., Settings]) -> Start:
    """Return a context manager that runs a gateway in this loop, its client talking ASGI to it."""

    @asynccontextmanager
    async def running(
        more: str = POOL, *, upstream: Upstream | None = None, records: RecordStore | None = None, **written: object
    ) -> AsyncIterator[Running]:
        settings = configure(more, **written)
        app = create_app(
            settings,
            reread=lambda: load(settings.source),
            records=records or KeptRecords(),
            upstream=upstream,
            emulator=EmulatorServer(speed=0, n_kept=20),
        )
        transport = httpx.ASGITransport(app)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Running(app, client, app.gateway.records)

    return running


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    """Return a gateway over the whole tiny pool."""
    async with start() as gateway:
        yield gateway


@asynccontextmanager
async def listening(app: Application, settings: Settings) -> AsyncIterator[str]:
    """Serve on a free loopback port as ``turnout serve`` does; give the base URL."""
    is_ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = server_of(app, settings, ready=is_ready.set_result)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, is_ready}, return_when=asyncio.FIRST_COMPLETED)
    assert is_ready.done(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{is_ready.result()}"
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def listen() -> Callable[[Application, Settings], AbstractAsyncContextManager[str]]:
    """Return :func:`listening`."""
    return listening


@pytest.fixture
async def online(configure: Callable[..., Settings]) -> AsyncIterator[Running]:
    """Return a gateway behind a real HTTP server, with an HTTP client."""
    settings = configure()
    app = create_app(settings, records=KeptRecords(), emulator=EmulatorServer(speed=0, n_kept=20))
    async with listening(app, settings) as url, httpx.AsyncClient(base_url=url) as client:
        yield Running(app, client, app.gateway.records)


@pytest.fixture
def keep(configure: Callable[..., Settings]) -> Start:
    """Return a context manager that runs a gateway behind a real HTTP server, its records and feedback in SQLite.

    The file is ``settings.database_path()``.
    """

    @asynccontextmanager
    async def keeping(more: str = POOL, **written: object) -> AsyncIterator[Running]:
        server = SERVER.replace('database = ""', 'database = "turnout.sqlite"')
        settings = configure(more, **{"server": server, **written})
        app = create_app(settings, reread=lambda: load(settings.source), emulator=EmulatorServer(speed=0, n_kept=20))
        async with listening(app, settings) as url, httpx.AsyncClient(base_url=url) as client:
            yield Running(app, client)

    return keeping
