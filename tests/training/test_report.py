from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from training.decision_log import DecisionLog
from training.report import Estimate, report
from training.report_command import report as command


@pytest.fixture(scope="module")
def made(small_log):
    with DecisionLog(small_log.path) as log:
        return report(log)


def test_the_whole_is_the_sum_of_the_log(made, small_log) -> None:
    requests, whole = small_log.requests, made.whole
    assert whole.n == whole.n_routed == whole.n_emulated == len(requests)
    assert whole.spend_usd == pytest.approx(requests.cost_usd.sum())
    assert whole.reference_usd == pytest.approx(requests.reference_cost_usd.sum())
    assert whole.saving.value == pytest.approx(1 - requests.cost_usd.sum() / requests.reference_cost_usd.sum())
    assert whole.n_explored == requests.is_explored.sum()
    assert whole.n_voted == len(small_log.feedback)
    assert whole.voted_quality.value == pytest.approx(small_log.feedback.score.mean())
    assert whole.p50_s == pytest.approx(requests.total_s.median(), rel=0.05)


@pytest.mark.parametrize("name", ["candidate", "scenario", "key", "day"])
def test_groups_partition_the_whole_and_agree_with_pandas(made, small_log, name: str) -> None:
    requests = small_log.requests.assign(day=pd.to_datetime(small_log.requests.time_unix_s, unit="s").dt.strftime("%F"))
    truth = requests.groupby(name)
    groups = {group.label: group for group in made.by[name]}
    assert set(groups) == set(truth.groups)
    assert sum(group.share for group in groups.values()) == pytest.approx(1)
    for label, rows in truth:
        assert groups[str(label)].n == len(rows)
        assert groups[str(label)].spend_usd == pytest.approx(rows.cost_usd.sum())
        assert groups[str(label)].saving.value == pytest.approx(1 - rows.cost_usd.sum() / rows.reference_cost_usd.sum())


def test_the_interval_of_the_saving_covers_the_truth_as_often_as_it_says(tmp_path, log_tables) -> None:
    rng = np.random.default_rng(0)
    n, n_logs, hits = 300, 200, 0
    parts = []
    for i in range(n_logs):
        reference = rng.lognormal(-6, 1, n)
        parts.append(
            pd.DataFrame(
                {
                    "id": [f"{i}-{j}" for j in range(n)],
                    "time_unix_s": 0.0,
                    "key": f"log-{i}",
                    "outcome": "ok",
                    "candidate": "small",
                    "reference": "large",
                    "cost_usd": reference * rng.uniform(0.1, 0.5, n),
                    "reference_cost_usd": reference,
                }
            )
        )
    with DecisionLog(log_tables(tmp_path / "LOG", requests=pd.concat(parts))) as log:
        for group in report(log, by=["key"]).by["key"]:
            hits += group.saving.low <= 0.7 <= group.saving.high
    assert 0.9 <= hits / n_logs <= 0.99


def test_what_is_unknown_is_counted_and_in_no_sum(tmp_path, log_tables) -> None:
    rows = {
        "id": ["a", "b", "c", "d"],
        "time_unix_s": [0.0, 1.0, 2.0, 90_000.0],
        "key": "k",
        "outcome": ["ok", "ok", "upstream_timeout", "ok"],
        "binding": ["threshold", "designated", "threshold", "threshold"],
        "candidate": ["small", "large", None, "small"],
        "cost_usd": [1.0, 4.0, None, None],
        "reference_cost_usd": [2.0, 4.0, 2.0, 2.0],
    }
    with DecisionLog(log_tables(tmp_path / "LOG", requests=pd.DataFrame(rows))) as log:
        whole = report(log).whole
        assert (whole.n, whole.n_routed, whole.n_failed, whole.n_unknown_cost, whole.n_compared) == (4, 2, 1, 1, 1)
        assert whole.spend_usd == 5 and whole.saving == Estimate(0.5)
        assert whole.voted_quality == Estimate(None) and whole.prediction_ratio is None
        assert {group.label for group in report(log).by["candidate"]} == {"small", "large", "(nobody)"}
        later = report(log, since_unix_s=50_000.0)
        assert later.whole.n == 1 and later.whole.saving == Estimate(None)


@pytest.mark.parametrize(
    ("outcome", "counted_as"),
    [
        ("upstream_error", "n_failed"),
        ("timeout", "n_failed"),
        ("shed", "n_failed"),
        ("shutting_down", "n_failed"),
        ("gateway_error", "n_failed"),
        ("client_disconnected", "n_of_caller"),
        ("caller_error", "n_of_caller"),
        ("caller_deadline", "n_of_caller"),
        ("replayed", "n_replayed"),
    ],
)
def test_only_what_a_provider_or_the_gateway_failed_at_has_failed(tmp_path, log_tables, outcome, counted_as) -> None:
    rows = {"id": ["a", "b"], "time_unix_s": 0.0, "key": "k", "outcome": ["ok", outcome], "candidate": "small"}
    with DecisionLog(log_tables(tmp_path / "LOG", requests=pd.DataFrame(rows))) as log:
        whole = report(log, by=[]).whole
    counts = {name: getattr(whole, name) for name in ("n_failed", "n_of_caller", "n_replayed")}
    assert counts == {**dict.fromkeys(counts, 0), counted_as: 1} and whole.n_routed == 1


def test_traffic_that_named_its_candidate_moves_spending_and_nothing_else(tmp_path, log_tables) -> None:
    routed = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(40)],
            "time_unix_s": 0.0,
            "key": "team",
            "outcome": "ok",
            "binding": "threshold",
            "candidate": ["small", "large"] * 20,
            "cost_usd": 1.0,
            "reference_cost_usd": 2.0,
            "predicted_quality": 0.8,
        }
    )
    labels = routed.assign(
        id=[f"l{i}" for i in range(40)],
        key="labels",
        binding="designated",
        candidate="small",
        cost_usd=5.0,
        predicted_quality=0.1,
    )
    votes = pd.DataFrame(
        {
            "request_id": [*routed["id"], *labels["id"]],
            "key": "team",
            "source": "vote",
            "score": [0.9] * 40 + [0.0] * 40,
            "time_unix_s": 1.0,
        }
    )
    for name, requests in (("alone", routed), ("both", pd.concat([routed, labels]))):
        log_tables(tmp_path / name, requests=requests, feedback=votes)
    with DecisionLog(tmp_path / "alone") as log:
        alone = report(log)
    with DecisionLog(tmp_path / "both") as log:
        both = report(log)
    assert both.whole.spend_usd == alone.whole.spend_usd + 200 and both.whole.n_designated == 40
    for one, other in ((alone.whole, both.whole), *zip(alone.by["candidate"], both.by["candidate"][::-1], strict=True)):
        assert one.label == other.label
        for figure in ("share", "saving", "voted_quality", "predicted_of_voted", "predicted_quality", "n_voted"):
            assert getattr(one, figure) == getattr(other, figure), figure
    printed = CliRunner().invoke(command, ["--log", str(tmp_path / "both")])
    assert "40 named their candidate: they are in no share, quality or saving" in printed.output


def test_a_shadow_is_compared_with_the_policys_own_choices(tmp_path, log_tables) -> None:
    n = 100
    rows = pd.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "time_unix_s": 0.0,
            "key": "k",
            "chosen": "large",
            "is_explored": [i >= 80 for i in range(n)],
            "expected_cost_usd": 0.02,
            "shadow_bundle": "mine@2",
            "shadow_candidate": ["small" if i % 4 == 0 else "large" for i in range(n)],
            "shadow_cost_usd": [0.01 if i % 4 == 0 else 0.02 for i in range(n)],
        }
    )
    with DecisionLog(log_tables(tmp_path / "LOG", requests=rows)) as log:
        (shadow,) = report(log).shadows
    assert (shadow.bundle, shadow.n, shadow.agreement.value) == ("mine@2", 80, 0.75)
    assert shadow.saving.value == pytest.approx(0.125)
    assert shadow.saving.low < 0.125 < shadow.saving.high


def test_the_command_prints_tables_and_json(small_log, tmp_path) -> None:
    printed = CliRunner().invoke(command, ["--log", str(small_log.path)], env={"COLUMNS": "160"})
    assert printed.exit_code == 0, printed.output
    assert "EMULATOR" in printed.output and "saving against the reference" in printed.output
    assert all(name in printed.output for name in ("sample-large", "team-0", "default"))
    as_json = CliRunner().invoke(command, ["--log", str(small_log.path), "--json", "--by", "key"])
    assert list(json.loads(as_json.output)["by"]) == ["key"]
    refused = CliRunner().invoke(command, ["--log", str(tmp_path / "nowhere")])
    assert refused.exit_code == 1 and "turnout log export" in refused.output
