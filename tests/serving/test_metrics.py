from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field

import pytest

from serving.admission import AdmissionStatus
from serving.capacity import N_TELLING
from serving.emulated_faults import Fault
from serving.feedback import FeedbackStatus
from serving.health import RetryBudget
from serving.metrics import CONTENT_TYPE, Observed, exposition
from serving.pool import Pool
from serving.records import RecordStatus

SECRET = "sk-turnout-alice-0000000000000000"
KEY = f'[[keys]]\nname = "alice"\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\nmodels = ["small"]\n'

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.*)\}})? (\S+)")


@dataclass
class Family:
    """A family as read back: samples by name and labels."""

    kind: str
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)


def parsed(text: str) -> dict[str, Family]:
    """Read the text format strictly: every line is as the format has it, every sample belongs to its family."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helped = ""
    current = ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped, said = line[7:].split(" ", 1)
            assert re.fullmatch(_NAME, helped) and said
            continue
        if line.startswith("# TYPE "):
            current, kind = line[7:].split(" ")
            assert current == helped and current not in families
            assert kind in ("counter", "gauge", "histogram")
            families[current] = Family(kind)
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        ends = ("_bucket", "_sum", "_count") if families[current].kind == "histogram" else ("",)
        assert name in {current + end for end in ends}
        found = _LABEL.findall(labels or "")
        assert "".join(f'{k}="{v}",' for k, v in found).rstrip(",") == (labels or ""), line
        key = (name, frozenset((k, re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), v)) for k, v in found))
        assert key not in families[current].samples, "a sample twice"
        families[current].samples[key] = float(value)
    for name, family in families.items():
        if family.kind == "histogram":
            _check_histogram(name, family)
        if family.kind == "counter":
            assert name.endswith("_total")
            assert all(value >= 0 for value in family.samples.values())
    return families


def _check_histogram(name: str, family: Family) -> None:
    buckets: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(rest, []).append((float(dict(labels)["le"]), value))
    for labels, counts in buckets.items():
        assert counts == sorted(counts), "bounds and counts go up"
        assert [n for _, n in counts] == sorted(n for _, n in counts)
        assert counts[-1] == (float("inf"), family.samples[f"{name}_count", labels])
        assert (f"{name}_sum", labels) in family.samples


def value_of(families: dict[str, Family], name: str, /, **labels: str) -> float | None:
    family = families.get(name) or families[re.sub("_(bucket|sum|count)$", "", name)]
    return family.samples.get((name, frozenset(labels.items())))


def observed(pool: Pool) -> Observed:
    return Observed(
        pool.snapshot(),
        pool.histograms(),
        RetryBudget(),
        RecordStatus(7, 2, True),
        AdmissionStatus(3, 1, 1000, 0.25, {"high": 0, "normal": 4, "batch": 9}, 0.002),
        "tiny@1",
        1.0e9,
        1.5e9 + 0.25,
        feedback=FeedbackStatus({"kept": 5, "late": 1}),
    )


def test_counts_of_the_pool_are_samples() -> None:
    now = [10.0]
    pool = Pool({"a1": "a", "b1": "b"}, lambda: now[0])
    for outcome in ("ok", "ok", "timeout", "client_disconnected"):
        call = pool.begin("a1")
        now[0] += 0.3
        call.finish(outcome, 5, 0.125 if outcome == "ok" else None)
    pool.begin("a1")
    for _ in range(N_TELLING):
        pool.begin("a1").finish("overloaded", wait_s=4.0)
    families = parsed(exposition(observed(pool)).decode())
    of = {"deployment": "a1", "candidate": "a"}
    count = {
        outcome: value_of(families, "turnout_requests_total", **of, outcome=outcome)
        for outcome in ("ok", "timeout", "client_disconnected", "overloaded", "caller_error", "broken")
    }
    assert count == {
        "ok": 2, "timeout": 1, "client_disconnected": 1, "overloaded": N_TELLING, "caller_error": None, "broken": None,
    }  # fmt: skip
    assert value_of(families, "turnout_in_flight", **of) == 1
    assert value_of(families, "turnout_in_flight_limit", **of) == 1
    assert value_of(families, "turnout_cost_usd_total", **of) == 0.25
    assert value_of(families, "turnout_cooling_seconds", **of) == 4
    assert value_of(families, "turnout_health", **of, state="cooling") == 1
    assert value_of(families, "turnout_health", **of, state="healthy") == 0
    assert value_of(families, "turnout_answer_seconds_bucket", **of, le="0.25") == 0
    assert value_of(families, "turnout_answer_seconds_bucket", **of, le="0.5") == 2
    assert value_of(families, "turnout_answer_seconds_sum", **of) == pytest.approx(0.6)
    assert value_of(families, "turnout_feedback_votes_total", status="kept") == 5
    assert value_of(families, "turnout_records_written_total") == 7
    assert value_of(families, "turnout_records_dropped_total") == 2
    assert value_of(families, "turnout_records_failing") == 1
    assert value_of(families, "turnout_bundle_info", bundle="tiny@1") == 1
    assert value_of(families, "process_start_time_seconds") == 1.5e9 + 0.25


def test_what_is_not_known_has_no_sample_rather_than_zero() -> None:
    families = parsed(exposition(observed(Pool({"b1": "b"}))).decode())
    assert families["turnout_cost_usd_total"].samples == families["turnout_in_flight_limit"].samples == {}
    assert value_of(families, "turnout_requests_total", deployment="b1", candidate="b", outcome="ok") == 0


def test_odd_names_are_escaped() -> None:
    name = 'a"b\\c\nd}, e="'
    families = parsed(exposition(observed(Pool({name: "größer"}))).decode())
    assert value_of(families, "turnout_in_flight", deployment=name, candidate="größer") == 0


async def test_a_scrape_shows_what_passed(start, pool_toml) -> None:
    before = time.time()
    async with start(pool_toml) as gateway:
        gateway.provider.faults.put("medium-at-provider", Fault(status=429))
        for is_stream in (False, True):
            await gateway.chat("SECRETWORD", stream=is_stream)
            await gateway.chat("SECRETWORD 1", stream=is_stream)
        response = await gateway.client.get("/metrics")
        assert (response.status_code, response.headers["content-type"]) == (200, CONTENT_TYPE)
        families = parsed(response.text)
        large = {"deployment": "large@emulator/large-at-provider", "candidate": "large"}
        medium = {"deployment": "medium@emulator/medium-at-provider", "candidate": "medium"}
        assert value_of(families, "turnout_requests_total", **large, outcome="ok") >= 2
        assert value_of(families, "turnout_requests_total", **medium, outcome="overloaded") >= 1
        assert value_of(families, "turnout_first_content_seconds_count", **large) >= 1
        assert value_of(families, "turnout_tokens_total", **large, kind="output") > 0
        assert value_of(families, "turnout_bundle_info", bundle="tiny@1") == 1
        assert before - 1 <= value_of(families, "process_start_time_seconds") <= time.time()
        assert "SECRETWORD" not in response.text


async def test_a_scrape_asks_for_a_key_and_shows_what_the_key_may_use(start, pool_toml) -> None:
    async with start(pool_toml + KEY) as gateway:
        assert (await gateway.client.get("/metrics")).status_code == 401
        response = await gateway.client.get("/metrics", headers={"authorization": f"Bearer {SECRET}"})
        assert response.status_code == 200
        in_flight = parsed(response.text)["turnout_in_flight"].samples
        assert [dict(labels)["candidate"] for _, labels in in_flight] == ["small"]


def test_who_was_turned_away_is_counted_by_priority() -> None:
    families = parsed(exposition(observed(Pool({"a1": "a"}))).decode())
    assert value_of(families, "turnout_shed_total", priority="batch") == 9
    assert value_of(families, "turnout_admitted") == 3


def test_prometheus_own_parser_reads_it() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    pool = Pool({"a1": "a"})
    pool.begin("a1", is_stream=True).finish("ok", 5, 0.125)
    families = {family.name: family for family in text_string_to_metric_families(exposition(observed(pool)).decode())}
    (cost,) = families["turnout_cost_usd"].samples
    assert (cost.labels, cost.value) == ({"deployment": "a1", "candidate": "a"}, 0.125)
    assert families["turnout_first_content_seconds"].type == "histogram"
    assert families["turnout_shed"].type == "counter"
