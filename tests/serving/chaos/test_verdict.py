"""Figures, and what is made of them."""

from __future__ import annotations

import pytest

from serving.chaos.figures import quantile, slope, written
from serving.chaos.load import Outcome, Tally
from serving.chaos.report import document_of
from serving.chaos.suite import CHECKS, Finding, chosen, with_limits
from serving.chaos.verdict import Bound, Measured, bound_of, judged


@pytest.mark.parametrize(
    ("q", "expected"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.75, 3.25), (0.99, pytest.approx(3.97))]
)
def test_a_quantile_is_linear_between_neighbours(q, expected):
    assert quantile([4.0, 1.0, 3.0, 2.0], q) == expected


def test_a_quantile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)


def test_a_slope_is_that_of_the_least_squares_line():
    assert slope([0, 1, 2, 3], [1.0, 3.0, 5.0, 7.0]) == pytest.approx(2.0)
    assert slope([0, 1, 2], [1.0, 4.0, 1.0]) == pytest.approx(0.0)
    assert slope([1.0, 1.0], [2.0, 9.0]) == 0.0


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.003, "share", "0.3 %"),
        (0.012, "s", "12 ms"),
        (2.5, "s", "2.5 s"),
        (1200.0, "", "1,200"),
        (1.5, "MB", "1.5 MB"),
    ],
)
def test_figures_are_written_for_people(value, unit, expected):
    assert written(value, unit) == expected


@pytest.mark.parametrize(
    ("relation", "value", "is_met"),
    [
        ("<=", 1.0, True),
        ("<=", 1.1, False),
        (">=", 1.0, True),
        (">=", 0.9, False),
        ("=", 1.0, True),
        ("=", 2.0, False),
        ("<=", float("nan"), False),
        (">=", float("nan"), False),
        ("<=", float("inf"), False),
    ],
)
def test_a_bound_holds_or_does_not(relation, value, is_met):
    (judgement,) = judged([Bound("x", relation, 1.0)], Measured({"x": value}))
    assert judgement.is_met is is_met


def test_what_was_not_measured_is_not_met():
    (judgement,) = judged([Bound("x", "<=", 1.0)], Measured({"y": 0.0}))
    assert (judgement.value, judgement.is_met, judgement.measured()) == (None, False, "not measured")


def test_no_number_is_not_measured():
    (judgement,) = judged([Bound("x", "<=", 1.0, "s")], Measured({"x": float("nan")}))
    assert (judgement.is_met, judgement.measured()) == (False, "not measured")


def test_a_tally_counts_what_callers_saw():
    tally = Tally(
        [Outcome(0.0, 0.1, 200, ""), Outcome(1.0, 0.3, 503, "status 503"), Outcome(2.0, 0.2, 200, "", "high")]
    )
    assert (tally.n, tally.n_failed, tally.failures()) == (3, 1, "1 × status 503")
    assert tally.failed_share == pytest.approx(1 / 3)
    assert tally.since(1.0).n == 2
    assert tally.of("high").quantile_s(1.0) == 0.2
    assert tally.per_s() == pytest.approx(2 / 2.2)
    assert Tally().failed_share == 1.0
    assert Tally().quantile_s(0.5) == float("inf")


@pytest.mark.parametrize("text", ["x", "a.b", "a=1", "a.b=c", ".b=1"])
def test_a_limit_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError):
        bound_of(text)


def test_limits_are_replaced_by_check_and_figure():
    checks = with_limits(chosen(["throughput"], is_quick=False, is_soak=False), {("throughput", "failures"): 7.0})
    assert [(b.figure, b.limit) for b in checks[0].bounds] == [("many_against_few", 0.8), ("failures", 7.0)]
    with pytest.raises(ValueError, match="no check is asked that"):
        with_limits(checks, {("throughput", "nonsense"): 1.0})


def test_the_soak_is_only_run_alone():
    names = {check.name for check in chosen([], is_quick=False, is_soak=False)}
    assert "soak" not in names and len(names) == 15
    assert [check.name for check in chosen([], is_quick=False, is_soak=True)] == ["soak"]
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    with pytest.raises(ValueError, match="expected one of"):
        chosen(["nonsense"], is_quick=False, is_soak=False)


def test_json_holds_no_number_that_is_none():
    measured = Measured({"failures": float("inf"), "many_against_few": 0.9})
    check = chosen(["throughput"], is_quick=False, is_soak=False)[0]
    document = document_of([Finding(check, measured, tuple(judged(check.bounds, measured)), 1.0)], {"seed": 1})
    assert document["is_met"] is False
    assert document["checks"][0]["figures"] == {"failures": None, "many_against_few": 0.9}
