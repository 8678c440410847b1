from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing_data import implied_prices


def priced(make_table, tokens_in, tokens_out, cost):
    column = lambda values: np.array(values, np.float64)[:, None]  # noqa: E731
    table = make_table([[1.0]] * len(cost))
    return replace(table, input_tokens=column(tokens_in), output_tokens=column(tokens_out), cost_usd=column(cost))


def test_prices_are_recovered_from_costs(make_table):
    # 5 and 15 USD per million: 100 in, 10 out -> 500 + 150 = 650 millionths
    table = priced(make_table, [100, 20, 50], [10, 200, 30], [650e-6, 3100e-6, 700e-6])
    assert implied_prices(table)["a"] == pytest.approx((5.0, 15.0))


def test_a_free_input_is_zero_and_not_negative(make_table):
    table = priced(make_table, [100, 20, 50], [10, 200, 30], [20e-6, 400e-6, 60e-6])
    assert implied_prices(table)["a"] == pytest.approx((0.0, 2.0), abs=1e-9)


def test_rows_with_anything_unknown_are_left_out(make_table):
    nan = np.nan
    table = priced(make_table, [100, 20, nan, 7], [10, 200, 5, nan], [650e-6, 3100e-6, 9, 9])
    assert implied_prices(table)["a"] == pytest.approx((5.0, 15.0))


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "cost"),
    [
        ([np.nan] * 3, [1, 2, 3], [1, 2, 3]),  # nothing known
        ([100], [10], [650e-6]),  # one row, two unknowns
        ([100, 200, 300], [10, 20, 30], [1e-3, 2e-3, 3e-3]),  # proportional: cannot tell the prices apart
        ([100, 20, 50], [10, 200, 30], [650e-6, 3100e-6, 1500e-6]),  # the third costs twice what it should
        ([1, 2, 3], [0, 0, 0], [1e-6, 2e-6, 3e-6]),  # no output: its price is unknown, not zero
    ],
)
def test_prices_are_none_where_the_rows_do_not_tell(make_table, tokens_in, tokens_out, cost):
    assert implied_prices(priced(make_table, tokens_in, tokens_out, cost))["a"] is None


def test_free_calls_have_price_zero(make_table):
    assert implied_prices(priced(make_table, [100, 20], [10, 200], [0, 0]))["a"] == (0.0, 0.0)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.integers(0, 100))
def test_any_pair_of_prices_is_recovered(price_in, price_out, seed):
    from routing_data.prices import _fit

    rng = np.random.default_rng(seed)
    tokens_in, tokens_out = rng.integers(10, 4_000, 40).astype(float), rng.integers(1, 900, 40).astype(float)
    found = _fit(tokens_in, tokens_out, (tokens_in * price_in + tokens_out * price_out) / 1e6)
    assert found == pytest.approx((price_in, price_out), rel=1e-6)
