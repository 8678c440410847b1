"""What is kept of a request: numbers and names, never a word of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One served request; None is unknown."""

    id: str
    time_unix_s: float
    key: str
    requested_model: str
    status: int
    outcome: str
    is_stream: bool
    candidate: str | None = None
    deployment: str | None = None
    policy_kind: str | None = None
    policy_value: float | None = None
    policy_name: str | None = None
    binding: str | None = None
    propensity: float | None = None
    bundle: str | None = None
    predicted_quality: float | None = None
    expected_cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    first_byte_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True)
class RecordStatus:
    """How the store is doing."""

    n_written: int
    n_dropped: int
    is_failing: bool


class RecordStore(Protocol):
    """Where records go; no method ever raises or blocks on the request path."""

    def open(self) -> None: ...

    def add(self, record: RequestRecord) -> None: ...

    def recent(self, n: int) -> tuple[RequestRecord, ...]:
        """Newest first; reads the disk, so call it off the event loop."""
        ...

    def status(self) -> RecordStatus: ...

    def close(self) -> None: ...


class NullRecordStore:
    """Keeps nothing."""

    def open(self) -> None: ...

    def add(self, record: RequestRecord) -> None: ...

    def recent(self, n: int) -> tuple[RequestRecord, ...]:
        return ()

    def status(self) -> RecordStatus:
        return RecordStatus(0, 0, False)

    def close(self) -> None: ...


class SqliteRecordStore(NullRecordStore):
    """One SQLite file, one writer thread."""

    def __init__(self, path: Path, *, n_queue: int = 10_000) -> None: ...
