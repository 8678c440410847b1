"""Live status of deployments."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A snapshot of one deployment; None is "nothing observed yet"."""

    deployment: str
    candidate: str
    n_in_flight: int
    n_requests: int
    n_errors: int
    errors: Mapping[str, int]
    n_client_disconnects: int
    n_caller_errors: int
    first_byte_s: float | None
    first_byte_p50_s: float | None
    first_byte_p95_s: float | None
    total_s: float | None
    total_p50_s: float | None
    total_p95_s: float | None
    output_tokens_per_s: float | None
    cost_usd: float | None
    n_unknown_cost: int
    last_error: str | None
    last_error_age_s: float | None
    last_used_age_s: float | None


class Call:
    """One request in flight at a deployment; ``finish`` is idempotent: the first outcome counts."""

    deployment: str
    first_byte_s: float | None
    total_s: float | None

    def first_byte(self) -> None:
        """Note that the first byte of the answer has arrived."""

    def finish(self, outcome: str = "ok", output_tokens: int | None = None, cost_usd: float | None = None) -> None:
        """End the call. ``outcome``: "ok", or ``error.outcome`` of any GatewayError."""


class Pool:
    """Every deployment's live status; ``deployments`` maps deployment name to candidate name, in order."""

    def __init__(self, deployments: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None: ...

    def replace(self, deployments: Mapping[str, str]) -> None:
        """Swap the configured set (hot reload); what stays keeps its history."""

    def choose(self, candidate: str) -> str | None:
        """Name the deployment to use for a candidate: least (in flight + 1) x EWMA; None when it has none."""

    def begin(self, deployment: str) -> Call:
        raise NotImplementedError

    def latency_s(self, candidate: str, output_tokens: float | None = None) -> float | None:
        """Estimate the total time of an answer; None until observed."""

    def snapshot(self) -> tuple[DeploymentStatus, ...]:
        raise NotImplementedError
