"""A gateway from outside, over HTTP: who its candidates are, and one call of one of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from router.domain import Price, PriceTier
from training.errors import GatewayFailed
from training.labelling.call import Target

_PRICES = (
    "input_usd_per_mtok",
    "output_usd_per_mtok",
    "cache_read_usd_per_mtok",
    "cache_write_usd_per_mtok",
    "cache_write_1h_usd_per_mtok",
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; ``body`` is None where it is no JSON object, ``status`` 0 where nothing came."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, object] | None
    latency_s: float


class Gateway:
    """One gateway; an asynchronous context manager.

    Parameters
    ----------
    url : str
        Its root, such as ``http://127.0.0.1:8080``.
    key : str or None
        Sent as bearer token.
    timeout_s : float
        Of one call.
    n_connections : int
    """

    def __init__(self, url: str, key: str | None, timeout_s: float, n_connections: int) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout_s
        self._n_connections = n_connections
        self._client: httpx.AsyncClient

    async def __aenter__(self) -> Gateway:
        """Open connections when they are needed."""
        try:
            self._client = httpx.AsyncClient(
                base_url=self._url,
                headers=self._headers,
                timeout=httpx.Timeout(self._timeout_s, connect=10.0, pool=None),
                limits=httpx.Limits(max_connections=self._n_connections),
                # A proxy of the environment is for the network, and the key is for this gateway.
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise GatewayFailed(f"{self._url}: {error}; expected one such as http://127.0.0.1:8080") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close connections."""
        await self._client.aclose()

    async def targets(self) -> tuple[Target, ...]:
        """Return the candidates that answer, in the order of their names.

        Raises
        ------
        GatewayFailed
            It is not there, knows us not, or is no gateway of ours.
        """
        try:
            reply = await self._client.get("/v1/pool")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise GatewayFailed(
                f"no gateway answers at {self._url} ({type(error).__name__}): start one with `turnout serve`, say with "
                "--url where it is, or have one started with --config"
            ) from error
        if reply.status_code in (401, 403):
            raise GatewayFailed(
                f"the gateway at {self._url} asks for a key: name the variable that holds one: --key-env"
            )
        try:
            rows = reply.json()["candidates"] if reply.status_code == 200 else None
            if isinstance(rows, list):
                return tuple(sorted(map(_target, (r for r in rows if not r["is_embedder"])), key=lambda t: t.name))
        except (ValueError, KeyError, TypeError) as error:
            raise GatewayFailed(f"{self._url}/v1/pool is not that of a Turnout gateway") from error
        raise GatewayFailed(f"{self._url}/v1/pool answers {reply.status_code}; expected a Turnout gateway")

    async def ask(self, body: Mapping[str, object], idempotency_key: str) -> Reply:
        """Call a candidate by name. What goes wrong on the way is a reply of status 0, never an exception."""
        began_at = time.perf_counter()
        headers = {
            "idempotency-key": idempotency_key,
            "content-type": "application/json",
            # These prompts are nobody's traffic: kept, they would pass for what users ask.
            "x-turnout-retention": "none",
        }
        content = json.dumps(body).encode()
        try:
            got = await self._client.post("/v1/chat/completions", content=content, headers=headers)
        except httpx.HTTPError as error:
            return Reply(0, {"x-reason": type(error).__name__}, None, time.perf_counter() - began_at)
        latency_s = time.perf_counter() - began_at
        try:
            said = got.json()
        except ValueError:
            said = None
        return Reply(got.status_code, got.headers, said if isinstance(said, dict) else None, latency_s)


def _target(row: dict[str, object]) -> Target:
    deployments = row["deployments"]
    assert isinstance(deployments, list)
    models = sorted({str(one["model"]) for one in deployments})
    return Target(
        name=str(row["name"]),
        price=_price(row["price"]),
        identity=json.dumps([row["parameters"], models], sort_keys=True),
        is_emulated=bool(deployments) and all(one["is_emulated"] for one in deployments),
    )


def _price(told: object) -> Price | None:
    if not isinstance(told, dict):
        return None
    tiers = told.get("tiers") or []
    parts = [PriceTier(tier["above_input_tokens"], price) for tier in tiers if (price := _price(tier["price"]))]
    amounts: dict[str, Any] = {name: told.get(name) for name in _PRICES}
    return Price(**amounts, tiers=tuple(parts))
