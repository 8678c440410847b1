from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices
from pydantic import TypeAdapter

from router.domain import Price, PriceTier
from router.pricing import Usage as OurUsage
from router.pricing import charge_usd
from serving.providers.catalogue import entries, lookup


def test_a_well_known_price_is_that_of_the_package_itself() -> None:
    entry = lookup("openai", "gpt-4o-2024-05-13")
    assert entry is not None and entry.price is not None
    assert (entry.provider, entry.model, entry.context_window_tokens) == ("openai", "gpt-4o-2024-05-13", 128_000)
    assert (entry.price.input_usd_per_mtok, entry.price.output_usd_per_mtok) == (5.0, 15.0)
    theirs = calc_price(Usage(input_tokens=2000, output_tokens=300), "gpt-4o-2024-05-13", provider_id="openai")
    ours_usd = (2000 * entry.price.input_usd_per_mtok + 300 * entry.price.output_usd_per_mtok) / 1e6
    assert ours_usd == pytest.approx(float(theirs.total_price))


#: As a provider reports it: input, output, read from the cache, written to it, of that for an hour.
USAGES = [
    (1_000, 500, 0, 0, 0),
    (150_000, 4_000, 100_000, 30_000, 0),
    (150_000, 4_000, 100_000, 30_000, 10_000),
    (200_000, 8_000, 0, 0, 0),
    (200_001, 8_000, 0, 0, 0),
    (350_000, 8_000, 250_000, 0, 0),
    (900_000, 8_000, 400_000, 100_000, 50_000),
]
MODELS = [
    ("anthropic", "claude-sonnet-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-opus-4-5"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("openai", "gpt-4o-mini"),
    ("openai", "o3"),
    ("deepseek", "deepseek-chat"),
]


@pytest.mark.parametrize("usage", USAGES, ids=str)
@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_a_call_costs_what_the_package_itself_says(provider: str, model: str, usage: tuple[int, ...]) -> None:
    n_input, n_output, read, written, written_1h = usage
    entry = lookup(provider, model)
    assert entry is not None and entry.price is not None
    theirs = calc_price(
        Usage(
            input_tokens=n_input,
            output_tokens=n_output,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cache_write_1h_tokens=written_1h,
        ),
        model,
        provider_id=provider,
    )
    ours_usd = charge_usd(OurUsage(n_input, n_output, read, written, cache_write_1h_tokens=written_1h), entry.price)
    assert ours_usd == pytest.approx(float(theirs.total_price), rel=1e-12)


def test_every_model_costs_what_the_package_itself_says() -> None:
    """Text alone, at every tier; where each request is paid for too, the entry says that the price leaves it out."""
    n_compared = 0
    for provider in get_snapshot().providers:
        for info in provider.models:
            entry = lookup(provider.id, info.id)
            if entry is None or entry.price is None or entry.model != info.id or "requests" in entry.paid_apart:
                continue
            for n_input in (1_000, *(tier.above_input_tokens + 1 for tier in entry.price.tiers)):
                usage = Usage(input_tokens=n_input, output_tokens=500, cache_read_tokens=800)
                theirs = info.get_prices(datetime.now(UTC)).calc_price(usage)
                ours_usd = charge_usd(OurUsage(n_input, 500, 800), entry.price)
                assert ours_usd == pytest.approx(float(theirs["total_price"]), rel=1e-12), (provider.id, info.id)
                n_compared += 1
    assert n_compared > 2_000


def test_of_tiered_prices_base_and_tiers_are_taken() -> None:
    _, info = get_snapshot().find_provider_model("claude-sonnet-4-5", None, "anthropic", None)
    prices = info.get_prices(datetime.now(UTC))
    assert isinstance(prices, ModelPrice) and isinstance(prices.input_mtok, TieredPrices)
    assert isinstance(prices.input_mtok.base, Decimal)
    entry = lookup("anthropic", "claude-sonnet-4-5")
    tier = PriceTier(200_000, Price(6.0, 22.5, 0.6, 7.5, 12.0))
    assert entry is not None and entry.price == Price(3.0, 15.0, 0.3, 3.75, 6.0, tiers=(tier,))


def test_a_price_can_be_hashed_and_told_as_json() -> None:
    entry = lookup("anthropic", "claude-sonnet-4-5")
    assert entry is not None and hash(entry.price) == hash(replace(entry).price)
    told = json.loads(TypeAdapter(Price).dump_json(entry.price))
    assert told["tiers"][0]["price"]["cache_write_1h_usd_per_mtok"] == 12.0


def test_what_is_known_besides_is_only_what_is_paid_for_apart() -> None:
    known = {(entry.provider, entry.model): entry for entry in entries()}
    assert "input_audio" in known["google", "gemini-2.0-flash"].paid_apart
    assert known["google", "gemini-2.0-flash"].is_deprecated
    assert known["perplexity", "sonar"].paid_apart == ("requests",)
    assert known["deepseek", "deepseek-chat"].paid_apart == () and not known["openai", "gpt-4o-mini"].is_deprecated


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
