from __future__ import annotations

import numpy as np
import pytest

from router.certificate import Certificate
from router.domain import Candidate, Price, PriceTier
from router.pricing import Usage, charge_usd, expected_cost_usd, expected_costs_usd

PRICE = Price(2.0, 8.0, cache_read_usd_per_mtok=0.5)
TIERED = Price(
    2.0,
    8.0,
    cache_read_usd_per_mtok=0.5,
    tiers=(PriceTier(1_000, Price(4.0, 12.0, cache_read_usd_per_mtok=1.0)), PriceTier(5_000, Price(6.0, 20.0))),
)


def test_a_call_costs_input_plus_output():
    # 1,000 · 2/1e6 + 500 · 8/1e6 = .002 + .004
    assert charge_usd(Usage(1_000, 500), PRICE) == pytest.approx(0.006)


def test_cached_tokens_cost_the_cache_price():
    # 400 plain · 2 + 600 read · .5 + 500 · 8 = 800 + 300 + 4000 millionths
    assert charge_usd(Usage(1_000, 500, cache_read_tokens=600), PRICE) == pytest.approx(0.0051)


def test_cached_tokens_cost_the_full_price_where_no_cache_price_is_published():
    assert charge_usd(Usage(1_000, 0, cache_write_tokens=600), PRICE) == pytest.approx(0.002)


def test_what_is_written_for_an_hour_costs_its_own_price_or_that_of_other_writing():
    usage = Usage(1_000, 0, cache_read_tokens=100, cache_write_tokens=600, cache_write_1h_tokens=200)
    # 300 plain · 2 + 100 read · 2 + 400 written · 3 + 200 written for an hour · 4 (or 3), in millionths
    assert charge_usd(usage, Price(2.0, 8.0, None, 3.0, 4.0)) == pytest.approx(0.0028)
    assert charge_usd(usage, Price(2.0, 8.0, None, 3.0)) == pytest.approx(0.0026)


def test_tokens_known_only_to_be_written_for_an_hour_are_no_plain_ones():
    assert charge_usd(Usage(600, 0, cache_write_1h_tokens=600), Price(2.0, 8.0, None, 3.0, 4.0)) == pytest.approx(
        0.0024
    )


@pytest.mark.parametrize(
    ("input_tokens", "usd"),
    [(1_000, 0.002 + 0.0008), (1_001, 0.004004 + 0.0012), (5_000, 0.02 + 0.0012), (5_001, 0.030006 + 0.002)],
)
def test_a_long_request_costs_its_tier_for_every_token(input_tokens, usd):
    assert charge_usd(Usage(input_tokens, 100), TIERED) == pytest.approx(usd)


def test_the_tier_is_that_of_the_whole_input_and_so_is_its_cache_price():
    # 1,001 of input reach the tier although one of them is plain: 1 · 4 + 1,000 read · 1
    assert charge_usd(Usage(1_001, 0, cache_read_tokens=1_000), TIERED) == pytest.approx(0.001004)


def test_predicted_calls_cost_the_price_of_short_ones():
    assert expected_costs_usd([TIERED], [6_000.0], [100.0]) == [pytest.approx(0.0128)]


def test_a_certificate_keeps_every_part_of_a_price():
    prices = (TIERED, None)
    certificate = Certificate(
        "safe", "keep", 0.9, 0.9, "a", ("a", "b"), prices, "method", 10, False, 0.1, 0.2, {"value": 0.5}
    )
    again = Certificate.from_json(certificate.to_json())
    assert again.prices == prices
    assert again.void_for([Candidate("a", Price(2.0, 8.0)), Candidate("b")]) is None


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
