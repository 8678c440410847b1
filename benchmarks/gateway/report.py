"""From CPU times by case and round to rows of a report, and the table of it. Entry points: :func:`rows_of`,
:func:`show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from cases import LONG, SHORT, Case, bare_of

if TYPE_CHECKING:
    from load import Sent


def rows_of(
    cases: Iterable[Case], cpu_ms: Mapping[Case, list[float]], sent: Mapping[Case, Sent]
) -> list[dict[str, object]]:
    """Return a row for each case: of streams one for both lengths."""
    rows = []
    for case in cases:
        if case.n_streamed == SHORT:
            continue
        times, base = cpu_ms[case], cpu_ms[bare_of(case)]
        row: dict[str, Any] = {
            "server": case.server,
            "client": case.client,
            "upstream": case.upstream,
            "is_translated": case.is_translated,
            "is_stream": case.n_streamed > 0,
            "n_prompt_tokens": case.n_tokens,
            "budget": case.budget,
            "cpu_ms": round(median(times), 4),
            "cpu_ms_rounds": [round(ms, 4) for ms in times],
        }
        ratios = [ms / bare_ms for ms, bare_ms in zip(times, base, strict=True)]
        if case.n_streamed == LONG:
            row |= _of_stream(case, cpu_ms, sent)
            n, n_bare = sent[case].n_events, sent[bare_of(case)].n_events
            ratios = [ratio / n * n_bare for ratio in ratios]
        row["ratio"] = round(median(ratios), 3)
        row["ratio_rounds"] = [round(ratio, 3) for ratio in ratios]
        measured = row["cpu_ms"] if case.client == "agent" else row["ratio"]
        row["is_met"] = measured <= case.budget if case.budget else None
        rows.append(row)
    return rows


def _of_stream(case: Case, cpu_ms: Mapping[Case, list[float]], sent: Mapping[Case, Sent]) -> dict[str, object]:
    """Tell what each further event costs from what a stream costs at all, by its two lengths."""

    def each_us(of: Case) -> list[float]:
        short = next(other for other in cpu_ms if _is_shorter(other, of))
        more = sent[of].n_events - sent[short].n_events
        return [(a - b) / more * 1e3 for a, b in zip(cpu_ms[of], cpu_ms[short], strict=True)]

    each, bare_each = each_us(case), each_us(bare_of(case))
    n = sent[case].n_events
    fixed = [ms - n * us / 1e3 for ms, us in zip(cpu_ms[case], each, strict=True)]
    return {
        "n_events": n,
        "events_per_read": round(n / sent[case].n_reads, 2),
        "event_us": round(median(cpu_ms[case]) / n * 1e3, 2),
        "further_event_us": round(median(each), 2),
        "fixed_ms": round(median(fixed), 3),
        "further_ratio": round(median([a / b for a, b in zip(each, bare_each, strict=True)]), 3),
    }


def _is_shorter(other: Case, case: Case) -> bool:
    same = ("client", "upstream", "server")
    return other.n_streamed == SHORT and all(getattr(other, name) == getattr(case, name) for name in same)


def show(report: Mapping[str, Any]) -> None:
    """Print what was asked beside what was measured."""
    print(
        f"ready {report['ready_s']} s after start; {report['idle_mb']} MB idle, {report['loaded_mb']} MB after load; "
        f"load average {report['load_average']}; LiteLLM {report['litellm']}"
    )
    for name, latency in report["latency_ms"].items():
        print(f"{name} at one connection, 512 tokens: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms")
    print(f"{'':<44}{'CPU ms':>8}{'× bare':>8}  {'(rounds)':<16}{'asked':>8}  met")
    for row in report["cases"]:
        asked = "" if not row["budget"] else f"{row['budget']:g} {'ms' if row['client'] == 'agent' else '×'}"
        met = {None: "", True: "yes", False: "NO"}[row["is_met"]]
        spread = f"({min(row['ratio_rounds']):.2f} to {max(row['ratio_rounds']):.2f})"
        print(f"{name_of(row):<44}{row['cpu_ms']:>8.3f}{row['ratio']:>8.2f}  {spread:<16}{asked:>8}  {met}")
        if row["is_stream"]:
            print(
                f"{'':<6}{row['n_events']:.0f} events, {row['events_per_read']} a read: {row['event_us']:.1f} µs each; "
                f"a further event {row['further_event_us']:.1f} µs ({row['further_ratio']:.2f} × bare), a stream "
                f"{row['fixed_ms']:.2f} ms besides"
            )


def name_of(row: Mapping[str, Any]) -> str:
    """Name a row for people."""
    size = "88 kB" if row["client"] == "agent" else f"{row['n_prompt_tokens']} tokens"
    kind = "stream" if row["is_stream"] else size
    client = "messages" if row["client"] == "agent" else row["client"]
    return f"{row['server']}: {client} → {row['upstream']}, {kind}"
