"""What is kept of a request: numbers and names, and of its prompt what the key has chosen, by default nothing.

The request path only appends to a bounded queue; :mod:`serving.storage` writes. Records fail OPEN: traffic goes on
without them, and that shows. :class:`NullRecordStore` keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: How much of a prompt is kept, from nothing to all that the router read of it.
RETENTIONS = ("none", "features", "content")


@dataclass(frozen=True, slots=True)
class RecordStatus:
    """How a store is doing since it was opened; ``n_dropped`` rows were never kept, ``n_waiting`` are not yet."""

    n_written: int
    n_dropped: int
    is_failing: bool
    n_waiting: int = 0


class RequestRecord(NamedTuple):
    """One served request; None is unknown. A tuple, since it is the row that is written.

    ``id`` is the decision id that went out in the response headers, ``time_unix_s`` its arrival, ``key`` the
    name of the client's key, ``outcome`` "ok" or the ``outcome`` of the error that ended it. Token counts are
    the provider's own; ``predicted_quality`` and ``expected_cost_usd`` are what the decision said of the choice;
    ``api`` is what the client spoke, ``losses`` the paths of what the provider could not be sent as it was,
    ``attempts`` the deployments that failed before the one that answered, ``is_usage_estimated`` says that an answer
    was cut off and its tokens are our estimate, ``scenario`` and ``rule`` are names of the settings. ``chosen`` is who
    was decided for (``candidate`` is who answered), ``propensity`` the exact probability of that choice; ``outlook``
    holds all that was predicted, as JSON rows of candidate, what excluded it, quality, its bounds, output tokens and
    expected cost; ``reference_cost_usd`` is what the ``reference`` candidate would have cost; ``policy_version``
    digests the settings that decide; ``task`` is kept at retention ``features`` and ``content`` only; ``signals`` are
    implicit ones, with commas; ``unit`` is a keyed digest of whom an experiment assigned; ``shadow_…`` is what a
    challenger would have done; ``explorable`` names with commas among whom chance could choose, the policy's own
    choice first, so that the record can be replayed, and ``explore_usd`` is what an explored answer cost more than that
    choice was expected to.
    """

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
    api: str | None = None
    upstream_dialect: str | None = None
    losses: str | None = None
    attempts: str | None = None
    is_usage_estimated: bool = False
    scenario: str | None = None
    rule: str | None = None
    chosen: str | None = None
    is_explored: bool = False
    outlook: str | None = None
    reference: str | None = None
    reference_cost_usd: float | None = None
    policy_version: str | None = None
    retention: str = "none"
    task: str | None = None
    is_emulated: bool | None = None
    signals: str | None = None
    experiment: str | None = None
    arm: str | None = None
    arm_share: float | None = None
    unit: str | None = None
    shadow_bundle: str | None = None
    shadow_candidate: str | None = None
    shadow_quality: float | None = None
    shadow_cost_usd: float | None = None
    explorable: str | None = None
    explore_usd: float | None = None


class Retained(NamedTuple):
    """What is kept of the prompt of one request, at the levels ``features`` and ``content`` only.

    ``prompt`` is the human request as the router read it, at ``content`` only; ``features`` are little-endian float16,
    as ``encoder`` made them; ``task_probability`` is that of the record's ``task``.
    """

    request_id: str
    time_unix_s: float
    level: str
    prompt: str | None = None
    features: bytes | None = None
    encoder: str | None = None
    task_probability: float | None = None


class RecordStore(Protocol):
    """Where records go; no method raises for want of a disk, and :meth:`add` never waits.

    ``is_on`` says whether anything is kept at all: what is not kept need not be made.
    """

    is_on: bool

    def open(self) -> None:
        """Start keeping records."""

    def add(self, record: RequestRecord, retained: Retained | None = None) -> None:
        """Keep one record, soon, and what is retained of its prompt."""

    def status(self) -> RecordStatus:
        """Return the counts."""

    async def explored_usd(self, since_unix_s: float) -> Mapping[str, float]:
        """Return what exploring has cost since then, by scenario, "" for requests without one.

        Raises
        ------
        StorageUnavailable
            Nobody knows.
        """

    def close(self) -> None:
        """Write what is queued and stop. Idempotent."""


class NullRecordStore:
    """Keeps nothing."""

    is_on = False

    def open(self) -> None:
        """Do nothing."""

    def add(self, record: RequestRecord, retained: Retained | None = None) -> None:
        """Forget the record."""

    def status(self) -> RecordStatus:
        """Return zeros."""
        return RecordStatus(0, 0, False)

    async def explored_usd(self, since_unix_s: float) -> Mapping[str, float]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""
