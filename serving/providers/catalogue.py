"""Prices and context windows as the ``genai-prices`` package publishes them.

It carries its data with it: no network, and its self-update is never started. A model it does not know, or knows
without both prices, has no price (None), never a zero. Of conditional prices those are taken that hold today, and no
variant (batch, priority). It knows nothing of what an LLM can do but what is paid for apart, such as sound. Entry
points: :func:`lookup`, :func:`entries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from router.domain import Price, PriceTier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

#: The catalogue's names of the prices in a :class:`Price`, in its order.
_UNITS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok")


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
    paid_apart : tuple of str
        What costs something that ``price`` leaves out, such as "input_audio", "web_searches" or "requests" (each of
        them); all that the catalogue knows of what an LLM can do.
    is_deprecated : bool
        The provider is known to be about to end it.
    """

    provider: str
    model: str
    price: Price | None
    context_window_tokens: int | None
    paid_apart: tuple[str, ...] = ()
    is_deprecated: bool = False


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
    return _entry_of(found.id, info)


def entries() -> list[CatalogueEntry]:
    """Return every LLM that the catalogue knows both prices of, by provider and model."""
    from genai_prices.data_snapshot import get_snapshot

    every = (_entry_of(provider.id, info) for provider in get_snapshot().providers for info in provider.models)
    found = [entry for entry in every if entry.price is not None]
    return sorted(found, key=lambda entry: (entry.provider, entry.model))


def _entry_of(provider: str, info: ModelInfo) -> CatalogueEntry:
    published = vars(info.get_prices(datetime.now(UTC)))
    return CatalogueEntry(
        provider,
        info.id,
        _price_of(published),
        info.context_window,
        tuple(unit.rpartition("_")[0] for unit in sorted(published.keys() - _UNITS) if published[unit] is not None),
        bool(info.deprecated),
    )


def _price_of(published: Mapping[str, object]) -> Price | None:
    """Return the price of short requests, with the tiers of longer ones."""
    base = _price_above(published, 0)
    if base is None:
        return None
    starts = {tier.start for unit in _UNITS for tier in getattr(published.get(unit), "tiers", ())}
    tiers = [(start, _price_above(published, start)) for start in sorted(starts)]
    return replace(base, tiers=tuple(PriceTier(start, price) for start, price in tiers if price is not None))


def _price_above(published: Mapping[str, object], input_tokens: int) -> Price | None:
    """Return what a request pays of which the input is longer than so many tokens; None without both prices."""
    input_usd, output_usd, read_usd, write_usd, write_1h_usd = (
        _amount_above(published.get(unit), input_tokens) for unit in _UNITS
    )
    if input_usd is None or output_usd is None:
        return None
    return Price(input_usd, output_usd, read_usd, write_usd, write_1h_usd)


def _amount_above(published: object, input_tokens: int) -> float | None:
    reached = [tier.price for tier in getattr(published, "tiers", ()) if tier.start <= input_tokens]
    value = reached[-1] if reached else getattr(published, "base", published)
    return float(value) if isinstance(value, Decimal) else None
