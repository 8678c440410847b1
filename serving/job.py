"""One request that is decided, with all that its attempts need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.asked import Asked
from serving.client_api import ClientApi
from serving.exchange import Exchange, Header
from serving.state import State
from serving.streamed_answer import Keep


@dataclass(frozen=True, slots=True)
class Job:
    """One request that is decided, on its way through its attempts."""

    state: State
    api: ClientApi
    exchange: Exchange
    asked: Asked
    sent: Mapping[str, object]
    headers: list[Header]
    query: bytes
    until: float
    is_bounded: bool
    keep: Keep | None
    priority: str
