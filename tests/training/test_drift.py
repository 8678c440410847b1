"""Drift: what changed in a log of known truth is found, dated and named; what did not is left alone."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from routing_data.sample import generate
from training.decision_log import DecisionLog
from training.drift import COST, LENGTH, QUALITY, QUALITY_BY_TASK, TASK_SHARE, UNFAMILIAR, advice, drift_of
from training.drift_command import drift as command
from training.errors import NotEnoughData
from training.foreseen import foreseen
from training.simulated_log import simulate, write_tables
from training.simulated_world import Shift

SAMPLE = generate()
# What is predicted is the truth, so that nothing but the shifts is off.
TRUTH = SAMPLE.truth.pivot(index="prompt_id", columns="candidate", values="probability")
OPTIONS = {
    "n_requests": 8000,
    "n_days": 10,
    "predicted": TRUTH.loc[list(SAMPLE.table.prompt_ids)].to_numpy(),
    "vote_share": 0.8,
}
SHIFTS = (
    Shift("sample-medium", quality=-0.3),
    Shift("sample-large", quality=-0.8, task="arithmetic"),
    Shift("sample-nano", length=1.6),
)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("steady") / "LOG", SAMPLE, seed=1, **OPTIONS)


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    path = tmp_path_factory.mktemp("shifted") / "LOG"
    return simulate(path, SAMPLE, seed=1, shifts=SHIFTS, late_task="geometry", **OPTIONS)


def found_in(path, **options):
    with DecisionLog(path) as log:
        return drift_of(foreseen(log, **options), log)


def test_nothing_is_shown_where_nothing_changes(steady) -> None:
    found = found_in(steady.path)
    assert not found.shown and not found.is_shown and advice(found) == ["no drift is shown"]
    by_candidate = [row for row in found.findings if row.measure is QUALITY]
    assert [row.candidate for row in by_candidate] == sorted(TRUTH.columns)
    for row in by_candidate:
        assert row.level.low <= 0 <= row.level.high and row.level.high - row.level.low < 0.3


def test_what_changed_is_named_and_dated_and_nothing_else(shifted) -> None:
    found = found_in(shifted.path)
    changed = {(row.measure, row.candidate, row.task): row for row in found.shown if row.is_changed}
    assert set(changed) >= {
        (QUALITY, "sample-medium", None),
        (COST, "sample-nano", None),
        (LENGTH, "sample-nano", None),
        (TASK_SHARE, None, "geometry"),
        (UNFAMILIAR, None, None),
    }
    assert {row.candidate for row in found.shown if row.measure is QUALITY} == {"sample-medium"}
    by_task = {row.candidate for row in found.shown if row.measure is QUALITY_BY_TASK}
    assert by_task <= {"sample-medium", "sample-large"}
    # Half of ten days from 2026-11-04 on.
    assert {f"{row.since:%F}" for row in changed.values() if row.measure is not QUALITY_BY_TASK} == {"2026-11-09"}
    step = changed[QUALITY, "sample-medium", None].change
    # The truth is clipped at 0, and late prompts of one task are new: the mean shift is not quite −0.3.
    assert step.difference.low < -0.27 < step.difference.high and step.before == pytest.approx(0, abs=0.05)
    assert changed[COST, "sample-nano", None].change.after == pytest.approx(1.6, rel=0.08)
    said = " ".join(advice(found, "LOGS"))
    assert "turnout label --log LOGS --candidates sample-" in said and "answers of sample-nano" in said
    assert "prompts are not what they were" in said and "look at their prices" not in said


def test_a_change_of_one_task_is_found_where_votes_suffice(tmp_path) -> None:
    made = simulate(
        tmp_path, SAMPLE, seed=2, shifts=[Shift("sample-nano", quality=-0.7, task="sorting")], explored=1.0,
        **(OPTIONS | {"n_requests": 16_000}),
    )  # fmt: skip
    (row,) = (row for row in found_in(made.path).shown if row.is_changed)
    assert (row.measure, row.candidate, row.task) == (QUALITY_BY_TASK, "sample-nano", "sorting")


def test_scales_that_differ_steadily_are_not_taken_for_drift_of_candidates(steady, tmp_path) -> None:
    votes = steady.feedback.assign(score=steady.feedback["score"] * 0.5)
    write_tables(tmp_path, requests=steady.requests, feedback=votes)
    found = found_in(tmp_path)
    assert all(row.is_off for row in found.findings if row.measure is QUALITY)
    (said,) = advice(found)
    assert "voters' scale" in said


def test_dearer_calls_of_the_same_length_speak_of_prices(steady, tmp_path) -> None:
    requests = steady.requests.copy()
    late = (requests["candidate"] == "sample-small") & (requests.index >= 4000)
    requests.loc[late, "cost_usd"] *= 1.5
    write_tables(tmp_path, requests=requests)
    found = found_in(tmp_path)
    assert [(row.measure, row.candidate) for row in found.shown] == [(COST, "sample-small")]
    assert "calls of sample-small" in advice(found)[0] and "prices" in advice(found)[0]


def test_many_keys_are_the_units_and_few_are_not(tmp_path) -> None:
    keys = tuple(f"key-{i}" for i in range(60))
    made = simulate(tmp_path / "many", SAMPLE, seed=3, keys=keys, **OPTIONS)
    with DecisionLog(made.path) as log:
        seen = foreseen(log)
        assert seen.is_by_key and len(np.unique(seen.units)) == 60
        assert not drift_of(seen).shown
    with DecisionLog(simulate(tmp_path / "few", SAMPLE, seed=3, **OPTIONS).path) as log:
        assert foreseen(log).units is None


def test_only_requests_of_the_newest_bundle_or_the_one_named_count(steady, tmp_path) -> None:
    requests = steady.requests.assign(bundle=np.where(steady.requests.index < 5000, "sample@1", "sample@2"))
    write_tables(tmp_path, requests=requests, feedback=steady.feedback)
    with DecisionLog(tmp_path) as log:
        assert len(foreseen(log).rows) == 3000 and foreseen(log).bundle == "sample@2"
        assert len(foreseen(log, bundle="sample@1").rows) == 5000
        middle = float(requests["time_unix_s"][7000])
        assert len(foreseen(log, since_unix_s=middle).rows) == 1000
        with pytest.raises(NotEnoughData, match=r"was decided by sample@3; bundles: sample@2, sample@1"):
            foreseen(log, bundle="sample@3")


def test_a_failed_over_answer_is_held_against_what_was_predicted_of_who_answered(steady) -> None:
    with DecisionLog(steady.path) as log:
        rows = foreseen(log).rows.set_index("id")
    requests = steady.requests.set_index("id")
    others = requests[requests["candidate"] != requests["chosen"]]
    assert len(others) > 50
    for request_id, row in others.head(50).iterrows():
        (own,) = (each for each in row["outlook"] if each["candidate"] == row["candidate"])
        assert rows.loc[request_id, "predicted"] == own["quality"]
        assert rows.loc[request_id, "expected_usd"] == own["cost_usd"]


def test_periods_say_what_pandas_says(steady) -> None:
    with DecisionLog(steady.path) as log:
        seen = foreseen(log)
    periods = seen.by_period()
    assert len(periods) == 4 * 10 and periods["n_votes"].sum() == len(seen.voted)
    voted = seen.voted
    own = voted[(voted["candidate"] == "sample-small") & (voted["period"] == 3)]
    (row,) = periods[(periods["candidate"] == "sample-small") & (periods["period"] == 3)].itertuples()
    assert row.voted == pytest.approx(np.average(own["score"], weights=own["weight"]))
    assert row.gap == pytest.approx(row.voted - row.predicted) and row.low < row.gap < row.high
    assert f"{row.begins:%F}" == "2026-11-07"
    # Predictions are the truth here, so that nineteen intervals of twenty hold 0.
    assert ((periods["low"] <= 0) & (periods["high"] >= 0)).mean() >= 0.85


def test_a_log_of_requests_alone_is_looked_at_and_says_little(tmp_path) -> None:
    write_tables(
        tmp_path,
        requests=pd.DataFrame({"id": ["a", "b"], "time_unix_s": [0.0, 9e4], "key": "k", "bundle": "x@1"}),
    )
    found = found_in(tmp_path)
    assert not found.is_shown and found.apart is None and len(found.seen.voted) == 0
    write_tables(tmp_path / "none", requests=pd.DataFrame({"id": ["a"], "time_unix_s": [0.0], "key": "k"}))
    with pytest.raises(NotEnoughData, match="decided by a bundle; bundles: none"):
        found_in(tmp_path / "none")


def test_the_command_prints_and_fails_where_it_is_asked_to(steady, shifted, tmp_path) -> None:
    run = CliRunner().invoke
    calm = run(command, ["--log", str(steady.path), "--fail"])
    assert calm.exit_code == 0 and "no drift is shown" in calm.output and "8,000 requests" in calm.output
    shown = run(command, ["--log", str(shifted.path), "--fail"])
    assert shown.exit_code == 3 and "CHANGED" in shown.output and "2026-11-09" in shown.output
    printed = run(command, ["--log", str(shifted.path), "--json", "--since", "2026-11-06"])
    document = json.loads(printed.output)
    assert printed.exit_code == 0
    assert document["is_shown"] and document["unit"] == "request"
    rows = {(row["measure"], row["candidate"], row["task"]): row for row in document["findings"]}
    assert rows["quality", "sample-medium", None]["change"]["since"].startswith("2026-11-09")
    short = run(command, ["--log", str(steady.path), "--period", "1m"])
    assert short.exit_code == 1 and "period must leave at most 1,000 periods, got 60 s" in short.output
    nowhere = run(command, ["--log", str(tmp_path / "nowhere")])
    assert nowhere.exit_code == 1 and "turnout log export" in nowhere.output
