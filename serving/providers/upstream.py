"""The only module that talks to a provider.

Signatures first; the implementation follows in the next commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One call to a provider; ``provider`` and ``deployment`` are only for the words of errors."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    connect_timeout_s: float = 3.0
    first_byte_timeout_s: float = 120.0
    idle_timeout_s: float = 30.0
    total_timeout_s: float = 600.0
    provider: str = ""
    deployment: str = ""
    method: str = "POST"


class UpstreamResponse(Protocol):
    """An answer whose head has arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    async def close(self) -> None: ...


class Upstream(Protocol):
    """Whatever can carry a request to a provider."""

    async def open(self) -> None: ...

    async def send(self, request: UpstreamRequest) -> UpstreamResponse: ...

    async def close(self) -> None: ...


class AiohttpUpstream:
    """The real one."""

    def __init__(self, *, n_connections_per_host: int = 1000, max_response_bytes: int = 64 * 1024 * 1024) -> None: ...

    async def open(self) -> None:
        raise NotImplementedError

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
