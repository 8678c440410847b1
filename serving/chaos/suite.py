"""The table of checks: what is asked of each, and the function that measures it.

Entry points: :data:`CHECKS`, :func:`run`.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving.chaos.checks.black_hole import black_hole
from serving.chaos.checks.capacity import overload, overload_of_work, throughput
from serving.chaos.checks.cuts import cut_streams
from serving.chaos.checks.disconnects import disconnects
from serving.chaos.checks.drain import drain
from serving.chaos.checks.failures import both_down, random_failures, throttled
from serving.chaos.checks.hostile import slow_and_big
from serving.chaos.checks.idempotency import idempotency
from serving.chaos.checks.silence import hung
from serving.chaos.checks.soak import soak
from serving.chaos.checks.streaming import first_chunk, streams
from serving.chaos.scratch import Scratch
from serving.chaos.verdict import Bound, Judgement, Measured, judged
from serving.errors import GatewayError

#: A check that takes longer has hung itself; a soak gets its own time on top.
_LONGEST_S = 400.0
NONE = 0.0
_SHEDDING = (
    Bound("high_success", ">=", 0.994, "share"),
    Bound("shed_p99", "<=", 0.1, "s"),
    Bound("shed_without_retry_after", "<=", NONE),
    Bound("failed_otherwise", "<=", NONE),
    Bound("normal_again_after", "<=", 10.0, "s"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One row.

    Parameters
    ----------
    name : str
    about : str
        What is done, in a line.
    bounds : tuple of Bound
        What is asked.
    measure : callable
        Scratch -> Measured.
    is_quick : bool
        Part of a quick run.
    is_soak : bool
        Only run when a soak is asked for, and then alone.
    """

    name: str
    about: str
    bounds: tuple[Bound, ...]
    measure: Callable[[Scratch], Awaitable[Measured]]
    is_quick: bool = True
    is_soak: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check."""

    check: Check
    measured: Measured
    judgements: tuple[Judgement, ...]
    took_s: float

    @property
    def is_met(self) -> bool:
        """Everything that was asked holds."""
        return all(judgement.is_met for judgement in self.judgements)


CHECKS = (
    Check(
        "random-failures",
        "two providers fail 5 % of the time (three fifths of it 429), 10,000 requests",
        (Bound("visible_failures", "<=", 0.003, "share"),),
        random_failures,
    ),
    Check(
        "throttled",
        "one of two providers always answers 429 with Retry-After: 5",
        (
            Bound("success", ">=", 0.999, "share"),
            Bound("requests_per_5_s_after_the_first_burst", "<=", 1.0),
            Bound("added_p99", "<=", 0.15, "s"),
        ),
        throttled,
    ),
    Check(
        "black-hole",
        "one of two providers accepts and never answers",
        (
            Bound("failures_until_ejected", "<=", 5),
            Bound("p99_after_against_normal", "<=", 1.2),
            Bound("probes_per_30_s", "<=", 1),
            Bound("visible_failures", "<=", 0.003, "share"),
        ),
        black_hole,
        is_quick=False,
    ),
    Check(
        "both-down",
        "both providers down for 60 s at 200 requests a second; attempts ≤ 1.2 × + 3/s",
        (Bound("attempts_over_budget", "<=", 0), Bound("recovery", "<=", 5.0, "s")),
        both_down,
        is_quick=False,
    ),
    Check(
        "cut-streams",
        "streams cut and reset after k = 0 … 20 events of text, on three APIs",
        (
            Bound("seen_at_k_0", "<=", NONE),
            Bound("without_a_clean_error_event", "<=", NONE),
            Bound("duplicated_or_mixed_texts", "<=", NONE),
        ),
        cut_streams,
    ),
    Check(
        "disconnects",
        "1,000 clients leave: amid the request, before the first word, amid the stream; a third of them twice",
        (
            Bound("upstream_closed_after", "<=", 1.0, "s"),
            Bound("still_in_flight", "<=", NONE),
            Bound("records_missing_or_double", "<=", NONE),
            Bound("errors_held_against_a_deployment", "<=", NONE),
        ),
        disconnects,
    ),
    Check(
        "streams",
        "500 streams of 60 chunks at once, against the same past the gateway",
        (
            Bound("complete", ">=", 1.0, "share"),
            Bound("longest_gap_added", "<=", 0.2, "s"),
            Bound("loop_stall_added", "<=", 0.2, "s"),
        ),
        streams,
        is_quick=False,
    ),
    Check(
        "throughput",
        "requests a second over 128 connections against 16",
        (Bound("many_against_few", ">=", 0.8), Bound("failures", "<=", NONE)),
        throughput,
        is_quick=False,
    ),
    Check(
        "overload",
        "four times what there are places for, three priorities, 30 s",
        (*_SHEDDING, Bound("served_against_capacity", ">=", 0.8)),
        overload,
    ),
    Check(
        "overload-of-work",
        "four times what the processor can do, three priorities, 30 s",
        (*_SHEDDING, Bound("served_against_capacity", ">=", 0.8)),
        overload_of_work,
        is_quick=False,
    ),
    Check(
        "hung",
        "providers that send comments for ever, half answers, HTML, or a byte at a time",
        (
            Bound("not_failed_over", "<=", NONE),
            Bound("hangs", "<=", NONE),
            Bound("unclear_ends", "<=", NONE),
            Bound("comments_beyond_the_idle_limit", "<=", 2.0, "s"),
            Bound("dripped_answers_lost", "<=", NONE),
        ),
        hung,
        is_quick=False,
    ),
    Check(
        "drain",
        "SIGTERM with 50 streams open, ten of them longer than the grace",
        (
            Bound("resets", "<=", NONE),
            Bound("without_a_clean_end", "<=", NONE),
            Bound("short_streams_cut", "<=", NONE),
            Bound("new_connections_taken", "<=", NONE),
            Bound("beyond_the_grace", "<=", 2.0, "s"),
            Bound("mixed_texts", "<=", NONE),
        ),
        drain,
        is_quick=False,
    ),
    Check(
        "idempotency",
        "the same request 50 times at once under one Idempotency-Key; then another body",
        (
            Bound("upstream_calls", "=", 1),
            Bound("charges", "=", 1),
            Bound("different_answers", "=", 1),
            Bound("odd_statuses", "<=", NONE),
            Bound("status_of_another_body", "=", 422),
            Bound("status_of_another_key", "=", 200),
        ),
        idempotency,
    ),
    Check(
        "slow-and-big",
        "200 slow connections; heads, bodies, depths and lists that are too much",
        (
            Bound("p99_during_against_before", "<=", 2.0),
            Bound("slow_heads_closed_after", "<=", 15.0, "s"),
            Bound("slow_bodies_closed_after", "<=", 10.0, "s"),
            Bound("wrong_statuses", "<=", NONE),
        ),
        slow_and_big,
        is_quick=False,
    ),
    Check(
        "first-chunk",
        "the first word of a stream through the gateway, against past it",
        (Bound("added_p50", "<=", 0.003, "s"),),
        first_chunk,
    ),
    Check(
        "soak",
        "half load with 10 % disconnects and 5 % 429",
        (
            Bound("memory_slope", "<=", 1.0, "MB/min"),
            Bound("descriptors_above_idle", "<=", 8),
            Bound("still_in_flight", "<=", NONE),
        ),
        soak,
        is_soak=True,
    ),
)


def chosen(names: Sequence[str], *, is_quick: bool, is_soak: bool) -> list[Check]:
    """Return the checks of a run: the named ones, or all that belong to its kind.

    Raises
    ------
    ValueError
        A name is not that of a check.
    """
    known = {check.name: check for check in CHECKS}
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r}: expected one of {', '.join(known)}")
    if names:
        return [check for check in CHECKS if check.name in names]
    if is_soak:
        return [check for check in CHECKS if check.is_soak]
    return [check for check in CHECKS if not check.is_soak and (check.is_quick or not is_quick)]


def with_limits(checks: Sequence[Check], limits: Mapping[tuple[str, str], float]) -> list[Check]:
    """Put other limits in the place of the checks' own, by check and figure.

    Raises
    ------
    ValueError
        No check is asked that.
    """
    asked = {(check.name, bound.figure) for check in CHECKS for bound in check.bounds}
    for name, figure in limits:
        if (name, figure) not in asked:
            raise ValueError(f"{name}.{figure}: no check is asked that")
    return [
        replace(
            check, bounds=tuple(replace(b, limit=limits.get((check.name, b.figure), b.limit)) for b in check.bounds)
        )
        for check in checks
    ]


async def run(
    checks: Sequence[Check], *, is_quick: bool, seed: int, soak_s: float, tell: Callable[[Finding], None]
) -> list[Finding]:
    """Run checks one after another on one stand.

    Parameters
    ----------
    checks : sequence of Check
    is_quick : bool
    seed : int
    soak_s : float
    tell : callable
        Called with each finding as it comes.

    Returns
    -------
    list of Finding
        One for each check; one that could not be carried through has no figures, and so is not met.
    """
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="turnout-chaos-") as folder:
        async with Scratch(Path(folder), is_quick=is_quick, seed=seed, soak_s=soak_s).open() as scratch:
            for check in checks:
                began_s = time.perf_counter()
                measured = await _measured(check, scratch)
                took_s = time.perf_counter() - began_s
                finding = Finding(check, measured, tuple(judged(check.bounds, measured)), took_s)
                findings.append(finding)
                tell(finding)
    return findings


async def _measured(check: Check, scratch: Scratch) -> Measured:
    """Carry one check through; what stops it is told, and stops no other."""
    scratch.reseed(check.name)
    try:
        async with asyncio.timeout(_LONGEST_S + 2 * scratch.soak_s * check.is_soak):
            return await check.measure(scratch)
    except TimeoutError:
        return Measured({}, "the check itself did not end in time")
    except (GatewayError, OSError, ZeroDivisionError, ValueError, KeyError) as error:
        return Measured({}, f"the check could not be carried through: {type(error).__name__}: {error}")
