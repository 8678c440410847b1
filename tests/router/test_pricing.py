from __future__ import annotations

import numpy as np
import pytest

from router.domain import Price
from router.pricing import Usage, charge_usd, expected_cost_usd, expected_costs_usd

PRICE = Price(2.0, 8.0, cache_read_usd_per_mtok=0.5)


def test_a_call_costs_input_plus_output():
    # 1,000 · 2/1e6 + 500 · 8/1e6 = .002 + .004
    assert charge_usd(Usage(1_000, 500), PRICE) == pytest.approx(0.006)


def test_cached_tokens_cost_the_cache_price():
    # 400 plain · 2 + 600 read · .5 + 500 · 8 = 800 + 300 + 4000 millionths
    assert charge_usd(Usage(1_000, 500, cache_read_tokens=600), PRICE) == pytest.approx(0.0051)


def test_cached_tokens_cost_the_full_price_where_no_cache_price_is_published():
    assert charge_usd(Usage(1_000, 0, cache_write_tokens=600), PRICE) == pytest.approx(0.002)


def test_reasoning_tokens_are_part_of_the_output_and_not_charged_twice():
    assert charge_usd(Usage(0, 500, reasoning_tokens=400), PRICE) == pytest.approx(0.004)


@pytest.mark.parametrize(("usage", "price"), [(Usage(1, 1), None), (Usage(None, 1), PRICE), (Usage(1, None), PRICE)])
def test_unknown_is_none_and_never_zero(usage, price):
    assert charge_usd(usage, price) is None


def test_expected_costs_are_nan_where_price_or_tokens_are_unknown():
    tokens = np.array([[1_000.0, 1_000.0], [1_000.0, 1_000.0]], np.float32)
    output = np.array([[500.0, 500.0], [np.nan, 500.0]], np.float32)
    cost = expected_cost_usd([PRICE, None], tokens, output)
    assert cost[0, 0] == pytest.approx(0.006)
    assert expected_costs_usd([PRICE, None], tokens[0].tolist(), output[0].tolist())[0] == cost[0, 0]
    assert np.isnan(expected_costs_usd([PRICE, None], tokens[1].tolist(), output[1].tolist())).all()
    assert np.isnan(cost[[0, 1, 1], [1, 0, 1]]).all()
