from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from router.domain import Price
from serving.providers.catalogue import lookup


def test_a_well_known_price_is_that_of_the_package_itself() -> None:
    entry = lookup("openai", "gpt-4o-2024-05-13")
    assert entry is not None and entry.price is not None
    assert (entry.provider, entry.model, entry.context_window_tokens) == ("openai", "gpt-4o-2024-05-13", 128_000)
    assert (entry.price.input_usd_per_mtok, entry.price.output_usd_per_mtok) == (5.0, 15.0)
    theirs = calc_price(Usage(input_tokens=2000, output_tokens=300), "gpt-4o-2024-05-13", provider_id="openai")
    ours_usd = (2000 * entry.price.input_usd_per_mtok + 300 * entry.price.output_usd_per_mtok) / 1e6
    assert ours_usd == pytest.approx(float(theirs.total_price))


def test_of_tiered_prices_the_base_is_taken() -> None:
    _, info = get_snapshot().find_provider_model("claude-sonnet-4-5", None, "anthropic", None)
    prices = info.get_prices(datetime.now(UTC))
    assert isinstance(prices, ModelPrice) and isinstance(prices.input_mtok, TieredPrices)
    assert isinstance(prices.input_mtok.base, Decimal)
    entry = lookup("anthropic", "claude-sonnet-4-5")
    assert entry is not None and entry.price == Price(3.0, 15.0, 0.3, 3.75)


def test_the_maker_is_guessed_only_when_nobody_is_named() -> None:
    guessed = lookup(None, "gemini-1.5-flash")
    assert guessed is not None and guessed.provider == "google"
    assert lookup("my-own-server", "gemini-1.5-flash") is None


def test_the_address_alone_says_who_charges() -> None:
    entry = lookup("whatever", "gpt-4o", base_url="https://api.openai.com/v1")
    assert entry is not None and entry.provider == "openai"
    assert lookup("openai", "gpt-4o", base_url="http://127.0.0.1:8000/v1") is None


def test_an_unknown_model_has_no_entry() -> None:
    assert lookup(None, "no-such-model-of-ours") is None
    assert lookup("openai", "no-such-model-of-ours") is None


def test_every_published_price_is_a_number_or_nothing() -> None:
    n_priced = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            entry = lookup(provider.id, model.id)
            if entry is not None and entry.price is not None:
                n_priced += 1
                assert 0 <= entry.price.input_usd_per_mtok < 10_000
    assert n_priced > 1000


def test_the_data_is_loaded_only_when_asked_for() -> None:
    program = "import sys, serving.providers.catalogue; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
