"""What Prometheus scrapes: the pool's counts in the text exposition format, written when they are asked for.

Nothing is counted for it alone, so a request pays nothing for it. A family of metrics is one row of data; labels are
configured names (deployment, candidate) and outcomes, never anything of a request. A value nobody knows yet (a limit
never met, a cost without a price) has no sample rather than 0. Format: version 0.0.4,
https://prometheus.io/docs/instrumenting/exposition_formats/. Entry point: :func:`exposition`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Protocol

from serving.admission import AdmissionStatus
from serving.feedback import FeedbackStatus
from serving.health import WORDS, RetryBudget
from serving.latency import BOUNDS_S, Histogram
from serving.records import RecordStatus
from serving.shadow_tally import ShadowStatus
from serving.tally import DeploymentStatus, TokenCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[tuple[str, str], ...]
#: End of the name, labels, value.
_Sample = tuple[str, _Labels, float]


class Explored(Protocol):
    """What is exposed of exploring under one scenario."""

    @property
    def spent_usd(self) -> float:
        """Today, beyond the policy's own choices."""

    @property
    def n_explored(self) -> int:
        """Requests, today."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that is exposed, as it was at one moment.

    Parameters
    ----------
    deployments : sequence of DeploymentStatus
    histograms : Mapping of str to (Histogram, Histogram)
        By deployment: :meth:`serving.pool.Pool.histograms`.
    retries : RetryBudget
    records : RecordStatus
    admission : AdmissionStatus
    bundle : str
        ``name@version``.
    loaded_unix_s, started_unix_s : float
        When the present settings and bundle were loaded, and when the process began.
    feedback : FeedbackStatus
    exploration : Mapping of str to Explored
        By scenario, "" of requests without one.
    shadow : ShadowStatus or None
    """

    deployments: Sequence[DeploymentStatus]
    histograms: Mapping[str, tuple[Histogram, Histogram]]
    retries: RetryBudget
    records: RecordStatus
    admission: AdmissionStatus
    bundle: str
    loaded_unix_s: float
    started_unix_s: float
    feedback: FeedbackStatus
    exploration: Mapping[str, Explored] = field(default_factory=dict)
    shadow: ShadowStatus | None = None


def exposition(observed: Observed) -> bytes:
    """Write everything in the text format; every family is there, if without samples."""
    lines: list[str] = []
    for name, kind, help_, samples in _families(observed):
        lines.append(f"# HELP {name} {help_}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(_line(name + end, labels, value) for end, labels, value in samples)
    return ("\n".join(lines) + "\n").encode()


def _families(seen: Observed) -> Iterator[tuple[str, str, str, Iterable[_Sample]]]:
    """Give name, kind, help and samples of each family."""
    who = [(_of(d), d) for d in seen.deployments]
    yield (
        "turnout_requests_total",
        "counter",
        "Calls that ended, by outcome; every attempt is one.",
        [("", (*of, ("outcome", outcome)), n) for of, d in who for outcome, n in _outcomes(d)],
    )
    yield (
        "turnout_in_flight",
        "gauge",
        "Calls under way.",
        [("", of, d.n_in_flight) for of, d in who],
    )
    yield (
        "turnout_in_flight_limit",
        "gauge",
        "Calls at once, as learned from refusals; no sample where none was learned.",
        [("", of, d.n_in_flight_limit) for of, d in who if d.n_in_flight_limit is not None],
    )
    yield (
        "turnout_first_content_seconds",
        "histogram",
        "Time to the first content of streamed answers.",
        [sample for of, d in who for sample in _buckets(of, seen.histograms[d.deployment][0])],
    )
    yield (
        "turnout_answer_seconds",
        "histogram",
        "Duration of whole answers, those not streamed.",
        [sample for of, d in who for sample in _buckets(of, seen.histograms[d.deployment][1])],
    )
    yield (
        "turnout_tokens_total",
        "counter",
        "Tokens as providers counted them; those of the cache are parts of input, those of reasoning of output.",
        [
            ("", (*of, ("kind", kind.name.removesuffix("_tokens"))), getattr(d.tokens, kind.name))
            for of, d in who
            for kind in fields(TokenCounts)
        ],
    )
    yield (
        "turnout_cost_usd_total",
        "counter",
        "Cost of calls whose price is known.",
        [("", of, d.cost_usd) for of, d in who if d.cost_usd is not None],
    )
    yield (
        "turnout_unknown_cost_total",
        "counter",
        "Successful calls whose cost is not known.",
        [("", of, d.n_unknown_cost) for of, d in who],
    )
    yield (
        "turnout_signals_total",
        "counter",
        "Signs against answers: abandoned, invalid_tool_call, invalid_json, regenerated.",
        [("", (*of, ("signal", sign)), n) for of, d in who for sign, n in sorted(d.signals.items())],
    )
    yield (
        "turnout_health",
        "gauge",
        "1 for the state a deployment is in, 0 for the others.",
        [("", (*of, ("state", word)), d.health == word) for of, d in who for word in WORDS],
    )
    yield (
        "turnout_cooling_seconds",
        "gauge",
        "How long a deployment is left alone still because it asked for it.",
        [("", of, d.cooling_for_s) for of, d in who],
    )
    yield (
        "turnout_ejected_seconds",
        "gauge",
        "How long a deployment is left alone still because it failed too often.",
        [("", of, d.ejected_for_s) for of, d in who],
    )
    yield from _of_process(seen)


def _of_process(seen: Observed) -> Iterator[tuple[str, str, str, Iterable[_Sample]]]:
    yield "turnout_retries_total", "counter", "Further attempts made.", [("", (), seen.retries.n_taken)]
    yield (
        "turnout_retries_refused_total",
        "counter",
        "Further attempts that the retry budget did not allow.",
        [("", (), seen.retries.n_refused)],
    )
    yield "turnout_records_written_total", "counter", "Records kept.", [("", (), seen.records.n_written)]
    yield "turnout_records_dropped_total", "counter", "Records lost.", [("", (), seen.records.n_dropped)]
    yield "turnout_records_waiting", "gauge", "Records not written yet.", [("", (), seen.records.n_waiting)]
    yield "turnout_records_failing", "gauge", "1 while records cannot be written.", [("", (), seen.records.is_failing)]
    yield (
        "turnout_feedback_votes_total",
        "counter",
        "Votes by what became of them: kept, replaced, unchanged, superseded, unknown, late, refused.",
        [("", (("status", status),), n) for status, n in seen.feedback.n_votes.items()],
    )
    at = seen.admission
    yield "turnout_admitted", "gauge", "Requests that have a place.", [("", (), at.n_in_flight)]
    yield "turnout_admitted_limit", "gauge", "Places there are.", [("", (), at.max_in_flight)]
    yield "turnout_waiting", "gauge", "Requests that wait for a place.", [("", (), at.n_waiting)]
    yield (
        "turnout_shed_total",
        "counter",
        "Requests turned away, by priority.",
        [("", (("priority", name),), n) for name, n in at.n_shed.items()],
    )
    yield "turnout_loop_lag_seconds", "gauge", "How late the event loop is.", [("", (), at.lag_s)]
    yield (
        "turnout_explored_today",
        "gauge",
        "Requests explored since midnight UTC, by scenario.",
        [("", (("scenario", name),), one.n_explored) for name, one in seen.exploration.items()],
    )
    yield (
        "turnout_explore_spent_today_usd",
        "gauge",
        "What they cost more than the policy's own choices were expected to.",
        [("", (("scenario", name),), one.spent_usd) for name, one in seen.exploration.items()],
    )
    yield from _of_shadow(seen.shadow)
    yield "turnout_bundle_info", "gauge", "The bundle that predicts.", [("", (("bundle", seen.bundle),), 1)]
    yield "turnout_loaded_time_seconds", "gauge", "Unix time of the last load.", [("", (), seen.loaded_unix_s)]
    yield "process_start_time_seconds", "gauge", "Unix time of the start.", [("", (), seen.started_unix_s)]


def _of_shadow(shadow: ShadowStatus | None) -> Iterator[tuple[str, str, str, Iterable[_Sample]]]:
    """Give what a challenger would have done; no samples without one."""
    of = () if shadow is None or shadow.bundle is None else (("bundle", shadow.bundle),)
    for end, name, help_ in (
        ("decisions", "n", "Decisions that champion and challenger both made."),
        ("dropped", "n_dropped", "Decisions that the challenger was too busy for."),
        ("late", "n_late", "Decisions whose request was over before the challenger came to it."),
        ("failed", "n_failed", "Decisions that the challenger could not make."),
        ("agreement", "agreement", "Share of decisions with the same choice."),
        ("saving", "saving", "Part of the predicted cost that the challenger would save."),
    ):
        value = getattr(shadow, name) if of else None
        yield f"turnout_shadow_{end}", "gauge", help_, [] if value is None else [("", of, value)]


def _of(d: DeploymentStatus) -> _Labels:
    return ("deployment", d.deployment), ("candidate", d.candidate)


def _outcomes(d: DeploymentStatus) -> Iterable[tuple[str, int]]:
    """Give every outcome there was; success always, so that a share of it can be taken from the first scrape on."""
    return sorted({"ok": 0, **d.outcomes}.items())


def _buckets(of: _Labels, histogram: Histogram) -> Iterator[_Sample]:
    counts = tuple(accumulate(histogram.counts))
    for bound_s, n in zip((*(f"{s:g}" for s in BOUNDS_S), "+Inf"), counts, strict=True):
        yield "_bucket", (*of, ("le", bound_s)), n
    yield "_sum", of, histogram.sum_s
    yield "_count", of, counts[-1]


def _line(name: str, labels: _Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    # repr keeps every digit, and writes true and whole numbers as the format reads them.
    return f"{name}{{{inner}}} {float(value)!r}" if inner else f"{name} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
