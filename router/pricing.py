"""The only place where tokens become USD.

Prices are USD per million tokens; an unknown price gives an unknown cost (None, or NaN in arrays), never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats, Price

TOKENS_PER_PRICE_UNIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call as the provider counted them; None is unknown.

    ``cache_read_tokens`` and ``cache_write_tokens`` are parts of ``input_tokens``, ``cache_write_1h_tokens`` of
    ``cache_write_tokens``; ``reasoning_tokens`` is a part of ``output_tokens``.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_1h_tokens: int | None = None


def charge_usd(usage: Usage, price: Price | None) -> float | None:
    """Price one finished call.

    Cached tokens cost the cache price where the provider publishes one, else the full input price; what is written
    for an hour costs the price of other writing where there is none of its own. The tier is that of the whole input.

    Parameters
    ----------
    usage : Usage
        What the provider counted.
    price : Price or None
        None gives None.

    Returns
    -------
    float or None
        USD, at least 0; None when the price or either total is unknown.
    """
    if price is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    price = _at_volume(price, usage.input_tokens)
    full = price.input_usd_per_mtok
    read = usage.cache_read_tokens or 0
    kept_1h = usage.cache_write_1h_tokens or 0
    written = max(usage.cache_write_tokens or 0, kept_1h)
    read_price = _first(price.cache_read_usd_per_mtok, full)
    write_price = _first(price.cache_write_usd_per_mtok, full)
    plain = max(usage.input_tokens - read - written, 0)
    total = plain * full + read * read_price + (written - kept_1h) * write_price
    total += kept_1h * _first(price.cache_write_1h_usd_per_mtok, write_price)
    return (total + usage.output_tokens * price.output_usd_per_mtok) / TOKENS_PER_PRICE_UNIT


def counterfactual_usd(usage: Usage, price: Price | None, *, input_scale: float, output_tokens: float) -> float | None:
    """Price a call that another candidate answered, as it would have been at this one.

    cost = :func:`charge_usd` of this price for ``input_scale`` × the tokens that were read, of which the same shares
    come from a cache or go there, and the output tokens predicted for this candidate. How much either reads is known
    by their tokens per character, so no text is counted again.

    Parameters
    ----------
    usage : Usage
        Of the call, as its provider counted it.
    price : Price or None
        Of the candidate that did not answer.
    input_scale : float
        Its input tokens for one of the other's.
    output_tokens : float
        Predicted for it; NaN where unknown.

    Returns
    -------
    float or None
        USD; None where price, input or output is unknown, never 0 for that.
    """
    if price is None or usage.input_tokens is None or output_tokens != output_tokens:
        return None

    def scaled(n_tokens: int | None) -> int | None:
        return None if n_tokens is None else round(n_tokens * input_scale)

    return charge_usd(
        Usage(
            scaled(usage.input_tokens),
            round(output_tokens),
            scaled(usage.cache_read_tokens),
            scaled(usage.cache_write_tokens),
            cache_write_1h_tokens=scaled(usage.cache_write_1h_tokens),
        ),
        price,
    )


def expected_cost_usd(
    prices: Sequence[Price | None], input_tokens: Floats, output_tokens: Floats
) -> NDArray[np.float64]:
    """Price predicted calls, at the price of short ones: without its tiers.

    Parameters
    ----------
    prices : sequence of m Price or None
        In column order.
    input_tokens, output_tokens : ndarray of shape (n, m), float32
        Tokens; NaN where unknown.

    Returns
    -------
    ndarray of shape (n, m), float64
        USD; NaN where the price or a token count is unknown.
    """
    unknown = float("nan")
    input_price = np.array([unknown if p is None else p.input_usd_per_mtok for p in prices])
    output_price = np.array([unknown if p is None else p.output_usd_per_mtok for p in prices])
    cost: NDArray[np.float64] = (
        input_tokens.astype(np.float64) * input_price + output_tokens.astype(np.float64) * output_price
    ) / TOKENS_PER_PRICE_UNIT
    return cost


def expected_costs_usd(
    prices: Sequence[Price | None], input_tokens: Sequence[float], output_tokens: Sequence[float]
) -> list[float]:
    """Price one predicted call per candidate: :func:`expected_cost_usd` for a single request, without arrays.

    Parameters
    ----------
    prices : sequence of m Price or None
    input_tokens, output_tokens : sequences of m float
        NaN where unknown.

    Returns
    -------
    list of m float
        USD; NaN where the price or a token count is unknown.
    """
    unknown = float("nan")
    return [
        unknown if p is None else (i * p.input_usd_per_mtok + o * p.output_usd_per_mtok) / TOKENS_PER_PRICE_UNIT
        for p, i, o in zip(prices, input_tokens, output_tokens, strict=True)
    ]


def _at_volume(price: Price, input_tokens: int) -> Price:
    """Return what a request of so many input tokens costs."""
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.above_input_tokens), price)


def _first(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price
