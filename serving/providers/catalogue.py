"""Prices and context windows as the ``genai-prices`` package publishes them.

It carries its data with it: no network, and its self-update is never started. A model it does not know, or knows
without both prices, has no price (None), never a zero. Of tiered prices the base tier is taken, of conditional
ones what holds today, and no variant (batch, priority). Entry points: :func:`lookup`, :func:`entries`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from router.domain import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What the catalogue knows of one LLM; None is unknown.

    Parameters
    ----------
    provider, model : str
        The catalogue's own ids, to show where a price comes from.
    price : Price or None
        USD per million tokens.
    context_window_tokens : int or None
        Longest input.
    """

    provider: str
    model: str
    price: Price | None
    context_window_tokens: int | None


def lookup(provider: str | None, model: str, *, base_url: str | None = None) -> CatalogueEntry | None:
    """Find what a provider charges for a model.

    Parameters
    ----------
    provider : str or None
        Its name ("openai", "anthropic"); None guesses by the model's name, right only for a maker's own API.
    model : str
        The provider's name for the model.
    base_url : str or None
        Where the provider is called; when given it alone decides who the provider is, so that a proxy that
        happens to be called "openai" is not priced like OpenAI.

    Returns
    -------
    CatalogueEntry or None
        None when the catalogue does not know the provider or the model.
    """
    # Importing takes a third of a second and some 35 MB: only those who ask pay for it.
    from genai_prices.data_snapshot import get_snapshot

    try:
        found, info = get_snapshot().find_provider_model(
            model, None, None if base_url is not None else provider, base_url
        )
    except LookupError:
        return None
    return CatalogueEntry(found.id, info.id, _price_of(info), info.context_window)


def entries() -> list[CatalogueEntry]:
    """Return every LLM that the catalogue knows both prices of, by provider and model."""
    from genai_prices.data_snapshot import get_snapshot

    found = [
        CatalogueEntry(provider.id, info.id, price, info.context_window)
        for provider in get_snapshot().providers
        for info in provider.models
        if (price := _price_of(info)) is not None
    ]
    return sorted(found, key=lambda entry: (entry.provider, entry.model))


def _price_of(info: ModelInfo) -> Price | None:
    published = vars(info.get_prices(datetime.now(UTC)))
    input_usd = _base_of(published.get("input_mtok"))
    output_usd = _base_of(published.get("output_mtok"))
    if input_usd is None or output_usd is None:
        return None
    return Price(
        input_usd,
        output_usd,
        _base_of(published.get("cache_read_mtok")),
        _base_of(published.get("cache_write_mtok")),
    )


def _base_of(published: object) -> float | None:
    """Return one price as a float: of a tiered one its base."""
    value = getattr(published, "base", published)
    return float(value) if isinstance(value, Decimal) else None
