"""The ``[server]`` table: where the gateway listens, what it loads, how long it waits, how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving import tables
from serving.tables import about


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """``[server]``: where it listens, what it loads, how long it waits."""

    host: str = field(
        default="127.0.0.1",
        metadata=about(tables.text, "Address to listen on; beyond loopback keys are required."),
    )
    port: int = field(default=8080, metadata=about(tables.count(0, 65535), "TCP port; 0 takes a free one."))
    bundle: str = field(
        default="",
        metadata=about(tables.path, "Directory of the bundle; empty takes the one shipped in models/default."),
    )
    database: str = field(
        default="turnout.sqlite",
        metadata=about(tables.path, "SQLite file for the request records; empty keeps none."),
    )
    max_body_bytes: int = field(
        default=32 * 2**20,
        metadata=about(tables.count(1024), "Largest request body accepted; more is 413.", "bytes"),
    )
    receive_timeout_s: float = field(
        default=30.0,
        metadata=about(tables.number(0, is_open=True), "A request must have arrived whole by then, or 408.", "s"),
    )
    connect_timeout_s: float = field(
        default=5.0,
        metadata=about(tables.number(0, is_open=True), "Longest wait for a connection to a provider.", "s"),
    )
    first_byte_timeout_s: float = field(
        default=300.0,
        metadata=about(tables.number(0, is_open=True), "Longest wait for the first byte of an answer.", "s"),
    )
    idle_timeout_s: float = field(
        default=120.0,
        metadata=about(tables.number(0, is_open=True), "Longest silence inside an answer.", "s"),
    )
    total_timeout_s: float = field(
        default=900.0,
        metadata=about(tables.number(0, is_open=True), "Longest duration of one call to a provider.", "s"),
    )
    max_attempts: int = field(
        default=3,
        metadata=about(
            tables.count(1, 10),
            "Most attempts for one request, the first included; the next is made only before any content was sent.",
        ),
    )
    hedge_share: float = field(
        default=0.0,
        metadata=about(
            tables.share(0.05),
            "Share of requests, at most 0.05, that may be sent to a second deployment when the first takes longer than "
            "95 in 100 of its answers did; both may be billed. 0 is never.",
        ),
    )
    watch_bundle_s: float = field(
        default=2.0,
        metadata=about(tables.number(0), "How often the bundle directory is checked for change; 0 is never.", "s"),
    )
    max_in_flight: int = field(
        default=1000,
        metadata=about(
            tables.count(1), "Most requests in flight; a fifth of the places is kept for the priority high."
        ),
    )
    queue_wait_s: float = field(
        default=0.25,
        metadata=about(
            tables.number(0),
            "Longest wait for a place among them, of the priority high four times that; then 503, or 529 on Messages.",
            "s",
        ),
    )
    idempotency_keep_for_s: float = field(
        default=600.0,
        metadata=about(
            tables.number(0),
            "How long answers are kept in memory, to be repeated to the same Idempotency-Key; 0 is never.",
            "s",
        ),
    )
    shutdown_timeout_s: float = field(
        default=30.0,
        metadata=about(
            tables.number(0),
            "How long requests in flight may finish after SIGTERM; then streams end with an error event.",
            "s",
        ),
    )
    state_secret_env: str | None = field(
        default=None,
        metadata=about(
            tables.variable,
            "Environment variable with a secret that seals reasoning state, the same for all replicas; absent: a new "
            "one at every start.",
        ),
    )
