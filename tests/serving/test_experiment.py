"""Definitions and assignment: what is refused, by its path; and that a place depends on nothing but its digest."""

from __future__ import annotations

import json
import sqlite3
import tomllib
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Policy
from router.sequences import ArmTotals
from serving import experiment_watch
from serving.assignment import digest_of, place_of, user_of
from serving.errors import InvalidRequest
from serving.experiment import METRICS, defined
from serving.experiment_status import Readout, read_out
from serving.promotion import permanent
from serving.storage.experiments import ExperimentRow
from serving.storage.writer import connect
from serving.trial import Setting, Trial

ARMS = [{"name": "control", "share": 0.5}, {"name": "cheap", "share": 0.5, "threshold": 0.6}]
DEFINITION = {"name": "cheaper", "on": "auto", "unit": "user", "arms": ARMS}
SALT = bytes(range(32))


def test_a_definition_goes_there_and_back() -> None:
    definition = {
        **DEFINITION,
        "arms": [
            {"name": "a", "share": 0.2, "willingness_to_pay_usd": 0.0},
            {"name": "b", "share": 0.3, "preset": "price", "bundle": "models/next", "bundle_id": "mix@2"},
            {"name": "c", "share": 0.5, "candidate": "small"},
        ],
        "guards": [{"metric": "failures", "worse_by": 0.02}, {"metric": "cost_usd", "worse_by_share": 0.2}],
        "metric": "quality",
        "alpha": 0.1,
        "min_units": 100,
        "ends_at": "2027-01-01T01:00:00+01:00",
    }
    experiment = defined(definition)
    assert experiment.control.name == "a", "the first, where none is called control"
    assert experiment.ends_at == "2027-01-01T00:00:00+00:00"
    document = json.loads(json.dumps(experiment.to_document()))
    assert defined(document) == experiment
    assert document == {**definition, "ends_at": "2027-01-01T00:00:00+00:00"}
    assert [arm.sets() for arm in experiment.arms] == [
        "willingness_to_pay_usd=0",
        "preset=price, bundle=mix@2",
        "candidate=small",
    ]


def arms(**changes: object) -> list[dict[str, object]]:
    return [ARMS[0], {**ARMS[1], **changes}]


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"name": "a b"}, "name", "at most 64"),
        ({"name": None}, "name", "a name of letters"),
        ({"on": "large"}, "on", "scenario:NAME"),
        ({"unit": "request"}, "unit", "key, user, conversation"),
        ({"arms": ARMS[:1]}, "arms", "2 to 8"),
        ({"arms": ARMS * 5}, "arms", "2 to 8"),
        ({"arms": "two"}, "arms", "an array of tables"),
        ({"arms": arms(share=0.4)}, "arms", "sum 1, got 0.9"),
        ({"arms": arms(share=0)}, "arms.1.share", "above 0 and below 1"),
        ({"arms": arms(share=True)}, "arms.1.share", "above 0"),
        ({"arms": arms(name="control")}, "arms.1.name", "not used before"),
        ({"arms": arms(threshold=2)}, "arms.1.threshold", "from 0 to 1"),
        ({"arms": arms(preset="price")}, "arms.1.preset", "exclude each other"),
        ({"arms": arms(threshold=None)}, "arms.1.threshold", "a number"),
        ({"arms": [ARMS[0], {"name": "b", "share": 0.5, "candidate": "x", "bundle": "y"}]}, "arms.1.bundle", "exclude"),
        ({"arms": arms(treshold=0.5)}, "arms.1.treshold", "nearest known one is 'threshold'"),
        ({"guards": [{"metric": "speed", "worse_by": 1}]}, "guards.0.metric", "cost_usd, quality"),
        ({"guards": [{"metric": "failures"}]}, "guards.0.worse_by", "one of them"),
        ({"guards": [{"metric": "failures", "worse_by": 1, "worse_by_share": 1}]}, "guards.0.worse_by", "one of them"),
        ({"guards": [{"metric": "failures", "worse_by": -1}]}, "guards.0.worse_by", "at least 0"),
        ({"guards": [{"metric": "quality", "worse_by_share": 1}]}, "guards.0.worse_by_share", "less than 1"),
        ({"guards": [{"metric": "failures", "worse_by": 1}] * 2}, "guards.1.metric", "not used before"),
        ({"alpha": 0}, "alpha", "at most 0.5"),
        ({"min_units": 1}, "min_units", "from 2"),
        ({"ends_at": "tomorrow"}, "ends_at", "2026-12-24"),
        ({"ends_at": "9999-12-31T23:59:59-14:00"}, "ends_at", "2026-12-24"),
        ({"metric": "clicks"}, "metric", "cost_usd"),
    ],
)
def test_a_bad_definition_names_the_field_and_what_was_expected(changes, param, said) -> None:
    with pytest.raises(InvalidRequest) as caught:
        defined({**DEFINITION, **changes})
    assert caught.value.param == param
    assert said in caught.value.message


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        defined({"unit": "key"})
    assert all(f"{key}: missing" in caught.value.message for key in ("name", "on", "arms"))


def test_places_are_the_same_for_ever() -> None:
    """Golden values: whoever changes these moves people between arms of experiments that run."""
    assert digest_of(SALT, "cheaper", (b"key", b"alice")) == "b95c52fd939d4e69ba83edd7d1bd8693"
    digests = [digest_of(SALT, "cheaper", (b"user", b"alice", b"%d" % i)) for i in range(8)]
    assert [place_of(digest, (0.5, 0.3, 0.2)) for digest in digests] == [2, 2, 0, 0, 0, 0, 1, 1]
    assert digest_of(SALT, "cheaper", (b"user", b"ab", b"c")) != digest_of(SALT, "cheaper", (b"user", b"a", b"bc"))
    assert digest_of(SALT, "other", (b"key", b"alice")) != digest_of(SALT, "cheaper", (b"key", b"alice"))
    assert digest_of(bytes(32), "cheaper", (b"key", b"alice")) != digest_of(SALT, "cheaper", (b"key", b"alice"))


def test_shares_are_kept_and_experiments_do_not_follow_one_another() -> None:
    shares = (0.7, 0.2, 0.1)
    places = [place_of(digest_of(SALT, "one", (b"user", b"%d" % i)), shares) for i in range(20_000)]
    for i, share in enumerate(shares):
        # Within five standard deviations of what 20,000 fair draws give.
        assert abs(places.count(i) / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5
    others = [place_of(digest_of(SALT, "two", (b"user", b"%d" % i)), shares) for i in range(20_000)]
    both = sum(a == b == 0 for a, b in zip(places, others, strict=True)) / 20_000
    assert abs(both - 0.49) < 5 * (0.49 * 0.51 / 20_000) ** 0.5


@given(st.binary(max_size=40), st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_unit_has_one_place(unit, weights) -> None:
    shares = [weight / sum(weights) for weight in weights]
    digest = digest_of(SALT, "x", (unit,))
    place = place_of(digest, shares)
    assert 0 <= place < len(shares) and place == place_of(digest, shares)
    # Who is in an arm stays in it when only arms after it are divided anew.
    assert place_of(digest, [*shares[:-1], shares[-1] / 2, shares[-1] / 2]) in (
        place,
        place + (place == len(shares) - 1),
    )


def test_the_units_of_a_stopped_arm_come_to_the_control() -> None:
    experiment = defined(
        {
            **DEFINITION,
            "arms": [{"name": "a", "share": 0.3}, {"name": "control", "share": 0.5}, {"name": "b", "share": 0.2}],
        }
    )
    arm_settings = {arm.name: Setting() for arm in experiment.arms}
    before = Trial(experiment, arm_settings, SALT)
    after = Trial(experiment, arm_settings, SALT, frozenset({"a"}))
    for i in range(200):
        was, now = (trial.enter(lambda kind, i=i: (b"user", b"%d" % i)) for trial in (before, after))
        assert was.unit == now.unit
        assert now.arm == ("control" if was.arm == "a" else was.arm)
        assert now.share == pytest.approx({"control": 0.8, "b": 0.2}[now.arm])
        assert was.share == {"a": 0.3, "control": 0.5, "b": 0.2}[was.arm]
    promoted = Trial(experiment, arm_settings, None, promoted="b").enter(lambda kind: (b"key",))
    assert (promoted.arm, promoted.share, promoted.unit) == ("b", 1.0, None)


@pytest.mark.parametrize(
    ("body", "user"),
    [
        ({"user": "u", "metadata": {"user_id": "m"}, "safety_identifier": "s"}, "u"),
        ({"metadata": {"user_id": "m"}, "safety_identifier": "s"}, "m"),
        ({"metadata": "m", "safety_identifier": "s"}, "s"),
        ({"user": "", "metadata": {}}, None),
        ({"user": 7}, None),
    ],
)
def test_who_a_request_is_for(body, user) -> None:
    assert user_of(body) == user


PRESETS = {"price": Policy("threshold", 0.5, "price"), "safe": Policy("fall_below_usd", 1.0, "safe", "large")}


@pytest.mark.parametrize(
    ("on", "sets", "found"),
    [
        ("auto", {"threshold": 0.6}, {"routing": {"default": "x-b", "presets": {"x-b": ("threshold", 0.6)}}}),
        ("auto", {"preset": "price"}, {"routing": {"default": "price"}}),
        ("auto", {"candidate": "small"}, {"rules": [{"name": "x", "scenario": "small"}]}),
        ("auto", {"bundle": "models/next"}, {"server": {"bundle": "models/next"}}),
        ("auto", {}, {}),
        (
            "auto:price",
            {"willingness_to_pay_usd": 2.0, "bundle": "next"},
            {
                "server": {"bundle": "next"},
                "routing": {"presets": {"price": ("willingness_to_pay_usd", 2.0)}},
            },
        ),
        ("auto:quality", {"preset": "price"}, {"routing": {"presets": {"quality": ("threshold", 0.5)}}}),
        ("auto:quality", {"preset": "safe"}, {}),
        ("auto:quality", {"candidate": "small"}, {}),
        ("scenario:web", {"threshold": 0.6}, {"scenarios": {"web": {"threshold": 0.6}}}),
        ("scenario:a.b/c", {"threshold": 0.6}, {"scenarios": {"a.b/c": {"threshold": 0.6}}}),
        ("scenario:web", {"candidate": "small"}, {"scenarios": {"web": {"candidate": "small"}}}),
    ],
)
def test_the_lines_that_make_an_arm_permanent(on, sets, found) -> None:
    experiment = defined({**DEFINITION, "name": "x", "on": on, "arms": [ARMS[0], {"name": "b", "share": 0.5, **sets}]})
    written = permanent(experiment, experiment.arm("b"), PRESETS)
    read = tomllib.loads(written)
    for preset, table in read.get("routing", {}).get("presets", {}).items():
        read["routing"]["presets"][preset] = (table["kind"], table["value"])
    assert read == found
    assert written.startswith("# x, arm b:") and (found or written.count("#") == 2), "what it cannot say it says so"


@pytest.mark.parametrize(
    ("guard", "control", "arm", "is_tripped"),
    [
        # What a control that never failed is to be multiplied by says nothing; that the arm fails does.
        ({"metric": "failures", "worse_by_share": 0.2}, 0.0, 0.5, True),
        ({"metric": "failures", "worse_by_share": 0.2}, 0.4, 0.8, True),
        ({"metric": "failures", "worse_by_share": 1.2}, 0.4, 0.8, False),
        ({"metric": "cost_usd", "worse_by_share": 0.2}, 0.0, 0.01, True),
        ({"metric": "quality", "worse_by_share": 0.2}, 0.8, 0.5, True),
        ({"metric": "quality", "worse_by_share": 0.5}, 0.8, 0.5, False),
        ({"metric": "quality", "worse_by_share": 0.2}, 0.8, 0.0, True),
        ({"metric": "failures", "worse_by": 0.2}, 0.0, 0.5, True),
    ],
)
def test_a_guard_that_allows_a_share_holds_against_a_control_at_zero(guard, control, arm, is_tripped) -> None:
    experiment = defined({**DEFINITION, "name": "x", "arms": ARMS, "guards": [guard]})

    def of(mean: float) -> ArmTotals:
        """Make 400 units of two requests, whose mean varies between them where it can."""
        spread = min(mean, 1 - mean) * np.tile([-0.5, 0.5], 200)
        return ArmTotals.of(np.full(400, 2.0), 2 * (mean + spread))

    totals = {
        name: dict.fromkeys(METRICS, of(mean)) for name, mean in zip(("control", "cheap"), (control, arm), strict=True)
    }
    (verdict,) = read_out(experiment, totals, [400, 400]).guards
    assert verdict.is_tripped is is_tripped
    assert "nan" not in verdict.why and "inf" not in verdict.why


def test_units_beyond_the_bound_are_not_counted_and_records_may_begin_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(experiment_watch, "MOST_UNITS", 100)
    experiment = defined({**DEFINITION, "name": "x"})
    row = ExperimentRow("x", "auto", "", "running", SALT, {}, None, "", 0.0, None, 0.0)
    with closing(connect(tmp_path / "turnout.sqlite")) as database:

        def put(n_units: int) -> None:
            with database:
                database.executemany(
                    "INSERT INTO request (id, time_unix_s, key, requested_model, status, outcome, is_stream, "
                    "candidate, cost_usd, experiment, arm, unit) "
                    "VALUES (?, 1, 'k', 'auto', 200, 'ok', 0, 'm', 1, 'x', ?, ?)",
                    [(f"{n_units}/{i}", ARMS[i % 2]["name"], f"u{i}") for i in range(n_units)],
                )

        watch = experiment_watch.Watch(experiment)

        def look() -> Readout:
            try:
                return watch.look(database, row)
            finally:
                database.rollback()

        put(90)
        assert (look().n_units, look().is_full) == (90, False)
        put(150)
        readout = look()
        assert (readout.n_units, readout.n_requests, readout.is_full) == (100, 190, True)
        with database:
            database.execute("DELETE FROM request")
        put(10)
        assert (look().n_units, look().n_requests, look().is_full) == (10, 10, False)


def test_units_beyond_the_bound_are_those_that_came_last_of_whatever_arm(tmp_path, monkeypatch) -> None:
    """A first look at many, as after a restart, counts whom a gateway that was there all the time has counted."""
    monkeypatch.setattr(experiment_watch, "MOST_UNITS", 1_000)
    experiment = defined({**DEFINITION, "name": "x"})
    row = ExperimentRow("x", "auto", "", "running", SALT, {}, None, "", 0.0, None, 0.0)
    units = [digest_of(SALT, "x", (b"user", b"%d" % i)) for i in range(1_500)]
    arms = [ARMS[place_of(unit, experiment.shares)]["name"] for unit in units]
    with closing(connect(tmp_path / "turnout.sqlite")) as database:
        with database:
            database.executemany(
                "INSERT INTO request (id, time_unix_s, key, requested_model, status, outcome, is_stream, candidate, "
                "experiment, arm, unit) VALUES (?, 1, 'k', 'auto', 200, 'ok', 0, 'm', 'x', ?, ?)",
                [(f"r{i}", arm, unit) for i, (arm, unit) in enumerate(zip(arms, units, strict=True))],
            )
        readout = experiment_watch.Watch(experiment).look(database, row)
    assert readout.is_full and not readout.sample_ratio.is_alarming
    assert [arm.n_units for arm in readout.arms] == [arms[:1_000].count(arm["name"]) for arm in ARMS]


def test_a_look_that_fails_half_way_counts_nothing_twice(tmp_path) -> None:
    experiment = defined({**DEFINITION, "name": "x"})
    row = ExperimentRow("x", "auto", "", "running", SALT, {}, None, "", 0.0, None, 0.0)
    with closing(connect(tmp_path / "turnout.sqlite")) as database:
        with database:
            database.executemany(
                "INSERT INTO request (id, time_unix_s, key, requested_model, status, outcome, is_stream, candidate, "
                "experiment, arm, unit) VALUES (?, 1, 'k', 'auto', 200, 'ok', 0, 'm', 'x', ?, ?)",
                [(f"r{i}", ARMS[i % 2]["name"], f"u{i}") for i in range(400)],
            )
            database.executemany(
                "INSERT INTO feedback VALUES (?, 'k', 'vote', 'rating', 1.0, NULL, NULL, 1)",
                [(f"r{i}",) for i in range(400)],
            )
        watch = experiment_watch.Watch(experiment)
        n_looks = 0
        readout = None
        while readout is None:
            # A disk that gives up after so much work.
            work = iter(range(2 * n_looks))
            database.set_progress_handler(lambda: next(work, None) is None, 100)  # noqa: B023
            n_looks += 1
            try:
                readout = watch.look(database, row)
            except sqlite3.OperationalError:
                continue
            finally:
                database.set_progress_handler(None, 0)
                database.rollback()
    assert n_looks > 20
    assert (readout.n_units, readout.n_requests) == (400, 400)
    assert [arm.metrics["quality"].n_requests for arm in readout.arms] == [200, 200]
