"""The scratch stand: a temporary folder, emulated providers, fault proxies before them, gateways with fresh memory.

::

    load ──▶ gateway (own process) ──▶ proxy alpha ──┐
                     │            └──▶ proxy beta  ──┼──▶ emulated providers (own process)
                     └───────── plain ───────────────┘

The candidate ``pair`` has two deployments, ``alpha`` and ``beta``; ``plain`` has one, with no proxy before it. Every
check gets a gateway of its own, so that what one did to the health of a deployment is no matter of the next. Entry
points: :class:`Scratch`, :class:`Gateway`.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from serving.chaos.client import Ask, Client
from serving.chaos.fault import ProxyFault, Weather
from serving.chaos.fault_proxy import FaultProxy
from serving.chaos.process import Process, output_of, started
from serving.keys import new_key

#: Time limits of scratch gateways, short, so that a check need not wait for those of production.
SERVER: Mapping[str, float | int] = {
    "max_body_bytes": 4 * 2**20,
    "receive_timeout_s": 5.0,
    "connect_timeout_s": 2.0,
    "first_byte_timeout_s": 2.0,
    "idle_timeout_s": 2.0,
    "total_timeout_s": 60.0,
    "watch_bundle_s": 0,
    "shutdown_timeout_s": 5.0,
}
MODELS = ("alpha", "beta")
_CANDIDATE = """
[[candidates]]
name = "{name}"
{more}
input_usd_per_mtok = 1.0
output_usd_per_mtok = 4.0
deployments = [{deployments}]
"""
#: Records are written once a second.
_RECORDS_AFTER_S = 1.6


@dataclass(slots=True)
class Gateway:
    """A scratch gateway, from outside.

    Attributes
    ----------
    process : Process
    client : Client
        Of high priority, where the gateway knows any: what is measured shall not be shed because the machine is busy.
    normal, batch : Client
        Of the other priorities.
    database : Path
        Of its records.
    """

    process: Process
    client: Client
    normal: Client
    batch: Client
    database: Path

    async def pool(self) -> list[dict[str, object]]:
        """Return the status of every deployment that ``/v1/pool`` shows."""
        reply = await self.client.get("/v1/pool")
        rows: list[dict[str, object]] = []
        if reply.status == 200:
            for candidate in orjson.loads(reply.body)["candidates"]:
                rows += [deployment["status"] for deployment in candidate["deployments"]]
        return rows

    async def total(self, field: str) -> float:
        """Return the sum of a number over all deployments."""
        values = [row.get(field) for row in await self.pool()]
        return float(sum(value for value in values if isinstance(value, int | float)))

    async def status_of(self, provider: str) -> dict[str, object]:
        """Return the status of the deployment at one provider."""
        found = [row for row in await self.pool() if f"@{provider}/" in str(row.get("deployment"))]
        return found[0] if found else {}

    async def records(self, columns: str, since: int = 0) -> list[tuple[object, ...]]:
        """Return the records of requests, oldest first, once those of the last second have been written."""
        await asyncio.sleep(_RECORDS_AFTER_S)
        if not self.database.exists():
            return []
        with sqlite3.connect(self.database, timeout=5.0) as database:
            rows = database.execute(f"SELECT {columns} FROM request ORDER BY id").fetchall()
        database.close()
        return rows[since:]


class Scratch:
    """Everything a check needs.

    Parameters
    ----------
    folder : Path
        Its own, deleted by whoever made it.
    is_quick : bool
        Smaller counts, shorter times.
    seed : int
        Of everything drawn by lot.
    soak_s : float
        How long a soak lasts.

    Attributes
    ----------
    alpha, beta : FaultProxy
    once : deque of ProxyFault
        Faults of the next requests, whichever proxy they come to.
    provider : Client
        Of the emulated providers, with nothing between.
    keys : frozenset of str
        Every key of the config file that this gateway knows.
    rng : random.Random
    """

    def __init__(self, folder: Path, *, is_quick: bool, seed: int, soak_s: float = 0.0) -> None:
        self.is_quick = is_quick
        self.seed = seed
        self.soak_s = soak_s
        self.rng = random.Random()
        self.once: deque[ProxyFault] = deque()
        self.keys: frozenset[str] = frozenset()
        self.alpha: FaultProxy
        self.beta: FaultProxy
        self.provider: Client
        self._folder = folder
        self._provider_port = 0
        self._n_gateways = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Scratch]:
        """Start the emulated providers and the proxies."""
        async with AsyncExitStack() as stack:
            self.keys = keys_of(await output_of(["settings"]))
            emulator = started(["emulate", "--port", "0", "--speed", "0"], self._folder / "emulator.log")
            self._provider_port = (await stack.enter_async_context(emulator)).port
            self.provider = Client(self._provider_port)
            stack.callback(self.provider.close)
            self.alpha = FaultProxy(self._provider_port, once=self.once)
            self.beta = FaultProxy(self._provider_port, once=self.once)
            for proxy in (self.alpha, self.beta):
                await proxy.start()
                stack.push_async_callback(proxy.stop)
            yield self

    @asynccontextmanager
    async def gateway(self, **server: float) -> AsyncIterator[Gateway]:
        """Start a gateway that has seen nothing yet, before proxies and providers that do as they should.

        Parameters
        ----------
        **server : float
            Keys of ``[server]``; those that this gateway does not know are left out.

        Yields
        ------
        Gateway
        """
        self.calm()
        for model in ("*", *MODELS, "plain"):
            await self.script(model, None)
            await self.pace(model, 0.0)
        self._n_gateways += 1
        folder = self._folder / f"gateway{self._n_gateways}"
        folder.mkdir()
        secrets = {name: new_key() for name in ("normal", "high", "batch")}
        config = folder / "turnout.toml"
        config.write_text(self._config({**SERVER, **server}, {name: sha for name, (_, sha) in secrets.items()}))
        arguments = ["serve", "--config", str(config), "--port", "0"]
        async with started(arguments, folder / "gateway.log") as process:
            clients = {name: Client(process.port, secret) for name, (secret, _) in secrets.items()}
            try:
                yield Gateway(process, clients["high"], clients["normal"], clients["batch"], folder / "records.sqlite")
            finally:
                for client in clients.values():
                    client.close()

    def reseed(self, name: str) -> None:
        """Begin the draws of one check: the same for the same seed, whichever checks ran before."""
        self.rng.seed(f"{self.seed} {name}")
        for proxy in (self.alpha, self.beta):
            proxy.seed(self.rng.getrandbits(64))

    def calm(self) -> None:
        """Let both proxies do as they should, and forget what they saw."""
        self.once.clear()
        for proxy in (self.alpha, self.beta):
            proxy.weather = Weather()
            proxy.arrivals.clear()

    def of(self, quick: float, full: float) -> float:
        """Return the first where the run is quick, else the second."""
        return quick if self.is_quick else full

    @property
    def n_arrivals(self) -> int:
        """Requests that came to the proxies since :meth:`calm`."""
        return len(self.alpha.arrivals) + len(self.beta.arrivals)

    async def script(self, model: str, text: str | None) -> None:
        """Put words into the mouth of an emulated model; None takes them out again."""
        steps = None if text is None else [{"text": text}]
        await self._tell("/emulator/script", {"model": model, "steps": steps})

    async def pace(self, model: str, event_delay_s: float, delay_s: float = 0.0) -> None:
        """Let an emulated model wait before its answer and between events."""
        fault = {"event_delay_s": event_delay_s, "delay_s": delay_s}
        await self._tell("/emulator/faults", {"model": model, "fault": fault if event_delay_s or delay_s else None})

    async def n_in_flight_at_providers(self) -> int:
        """Return how many requests the emulated providers are at work on."""
        reply = await self.provider.get("/emulator/requests")
        return int(orjson.loads(reply.body)["n_in_flight"])

    async def _tell(self, path: str, what: Mapping[str, object]) -> None:
        reply = await self.provider.ask(Ask(path=path, body=orjson.dumps(what)))
        assert reply.status == 200, "the emulator took no order"

    def _config(self, server: Mapping[str, float | int], keys: Mapping[str, str]) -> str:
        known = {name: value for name, value in server.items() if f"server.{name}" in self.keys}
        lines = ["[server]", 'database = "records.sqlite"', *(f"{name} = {value}" for name, value in known.items())]
        ports = {"alpha": self.alpha.port, "beta": self.beta.port, "plain": self._provider_port}
        for name, port in ports.items():
            lines.append(f'[[providers]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}/v1"\napis = ["chat"]')
        pair = ", ".join(f'{{ provider = "{name}", model = "{name}" }}' for name in MODELS)
        lines.append(_CANDIDATE.format(name="pair", more="", deployments=pair))
        plain = '{ provider = "plain", model = "plain" }'
        lines.append(_CANDIDATE.format(name="plain", more='like = "gpt-4o-2024-05-13"', deployments=plain))
        for name, sha256 in keys.items():
            lines.append(f'[[keys]]\nname = "{name}"\nsha256 = "{sha256}"')
            if "keys[].priority" in self.keys:
                lines.append(f'priority = "{name}"')
        return "\n".join(lines) + "\n"


def keys_of(printed: str) -> frozenset[str]:
    """Return the keys that ``turnout settings`` printed."""
    return frozenset(line.split()[0] for line in printed.splitlines() if line.strip())
