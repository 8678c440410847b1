"""Steps in a mean: found where they are, bounded honestly, and hardly ever claimed where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from router.sequences import ArmTotals
from training.change_points import Series, change, is_beyond, level


def bernoulli(rng, rates, n_a_period: int) -> Series:
    period = np.repeat(np.arange(len(rates)), n_a_period)
    return Series(period, (rng.random(len(period)) < np.asarray(rates)[period]).astype(float), np.ones(len(period)))


def test_a_step_is_found_where_it_is() -> None:
    series = bernoulli(np.random.default_rng(0), [0.8] * 6 + [0.5] * 5, 200)
    found = change(series, 0.05)
    assert found is not None and found.period == 6
    assert found.before == pytest.approx(series.y[:1200].mean())
    assert found.after == pytest.approx(series.y[1200:].mean())
    assert found.difference.low < -0.3 < found.difference.high < 0
    assert is_beyond(found.difference, 0.05) and not is_beyond(found.difference, 0.3)


def test_looking_after_every_period_claims_hardly_ever_what_is_not_there() -> None:
    """100 series of 12 periods, each looked at eleven times, at 20 %; a plain test at each look claims in most."""
    rng = np.random.default_rng(1)
    n_false = n_plain = 0
    for _ in range(100):
        whole = bernoulli(rng, [0.7] * 12, 40)
        false = plain = False
        for n in range(80, 481, 40):
            look = Series(whole.period[:n], whole.y[:n], whole.n[:n])
            step = change(look, 0.2)
            if step is not None:
                n_before = int((look.period < step.period).sum())
                false |= is_beyond(step.difference, 0.0)
                plain |= abs(step.difference.value) > 1.28 * np.sqrt(0.21 / n_before + 0.21 / (n - n_before))
        n_false, n_plain = n_false + false, n_plain + plain
    assert n_false / 100 <= 0.2 and n_plain / 100 > 0.5


def test_rows_as_units_are_what_unit_numbers_say() -> None:
    rng = np.random.default_rng(2)
    one = bernoulli(rng, [0.6, 0.6, 0.4, 0.4], 100)
    weights = rng.uniform(0.5, 3, 400)
    plain = Series(one.period, one.y * weights, weights)
    numbered = Series(one.period, one.y * weights, weights, np.arange(400))
    assert change(plain, 0.05).difference.low == pytest.approx(change(numbered, 0.05).difference.low)
    assert level(plain, 0.05).high == pytest.approx(level(numbered, 0.05).high)
    found = change(plain, 0.05)
    late = one.period >= found.period
    assert found.after == pytest.approx(np.average(one.y[late], weights=weights[late]))


def test_units_that_come_again_widen_what_is_said() -> None:
    rng = np.random.default_rng(3)
    unit = rng.integers(0, 100, 4000)
    habit = rng.random(100) < 0.5
    y = (rng.random(4000) < np.where(habit, 0.9, 0.3)[unit]).astype(float)
    period = np.repeat([0, 1, 2, 3], 1000)
    clustered, alone = (level(Series(period, y, np.ones(4000), u), 0.05) for u in (unit, None))
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)
    both = change(Series(period, y, np.ones(4000), unit), 0.05)
    whole = ArmTotals.of(
        np.bincount(unit[period >= both.period]), np.bincount(unit[period >= both.period], y[period >= both.period])
    )
    assert both.after == pytest.approx(whole.mean)


def test_a_ratio_does_not_hang_on_its_unit_and_little_says_nothing() -> None:
    rng = np.random.default_rng(4)
    expected = rng.lognormal(-6, 1, 2000)
    paid = expected * rng.lognormal(0, 0.3, 2000) * np.where(np.arange(2000) < 1200, 1.0, 1.5)
    period = np.arange(2000) // 200
    usd, cents = (change(Series(period, factor * paid, factor * expected), 0.05) for factor in (1.0, 100.0))
    assert usd.period == 6 and usd.difference.low == pytest.approx(cents.difference.low) and usd.difference.low > 0.1
    few = Series(period[:60], paid[:60], expected[:60])
    assert change(few, 0.05) is None
    assert change(Series(period[:0], paid[:0], expected[:0]), 0.05) is None
    assert not np.isfinite(level(Series(period[:20], paid[:20], expected[:20]), 0.05).high)


def test_a_level_that_has_seen_too_little_of_what_is_rare_does_not_look_certain() -> None:
    """Right in 19 of 20, a tenth of the rows at ten times the weight: mostly none of the heavy ones is wrong."""
    rng = np.random.default_rng(5)
    n_false, n_plain = 0, 0
    for _ in range(100):
        weight = np.where(rng.random(300) < 0.1, 10.0, 1.0)
        y = weight * (rng.random(300) < 0.95)
        rows = Series(np.zeros(300, dtype=np.intp), y, weight)
        n_plain += is_beyond(level(rows, 0.05), 0.0, expected=0.95)
        floored = Series(rows.period, y, weight, variance=weight**2 * 0.95 * 0.05)
        n_false += is_beyond(level(floored, 0.05), 0.0, expected=0.95)
    assert n_false / 100 <= 0.05 < n_plain / 100
