"""Prices and context windows from the ``genai-prices`` package."""

from __future__ import annotations

from dataclasses import dataclass

from router.domain import Price


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """What the catalogue knows of one LLM; None is unknown."""

    provider: str
    model: str
    price: Price | None
    context_window_tokens: int | None


def lookup(provider: str | None, model: str) -> CatalogueEntry | None:
    """Find a model; None when the catalogue does not know it."""
    raise NotImplementedError
