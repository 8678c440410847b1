"""What a conversation has cost so far, and what it would cost to go on with somebody else.

Providers keep the beginning of a conversation for some minutes and read it again at a fraction of the price. Who
switches pays for it anew: :func:`effective_costs_usd` spreads that over the requests that the choice binds, and
:func:`prefill_s` says how long reading anew takes. Policies rank by these instead of by the costs of a request that
stands alone, and are otherwise unchanged. Pure arithmetic; who remembers a conversation is no matter of this module.

A choice binds the requests of one human turn: while tools are called nobody else may answer, afterwards everybody may,
and who was left is still warm for a while. How many there will be is an assumption, the average so far
(:func:`n_requests_bound`); spreading over all that may remain in the conversation was worse for chat and for most
documents, and no different for agents (``benchmarks/conversations.py``). How fast providers read is another
(:data:`S_PER_PREFILL_TOKEN`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from router.domain import Price
from router.pricing import TOKENS_PER_PRICE_UNIT

#: Reading anew, with nothing measured: ten thousand tokens a second.
S_PER_PREFILL_TOKEN = 1e-4
#: Nobody is predicted to call tools for longer than this.
MOST_REQUESTS_BOUND = 16.0


@dataclass(frozen=True, slots=True)
class History:
    """What is known of the conversation that a request goes on with.

    Parameters
    ----------
    incumbent : str
        The candidate that answered last.
    is_pending : bool
        The incumbent is in the middle of something: it waits for the result of a tool, or is to go on from a thought.
        Nobody else is chosen then while it may answer.
    cached_tokens : Mapping of str to int
        Per candidate: how much of the conversation its provider still keeps, in its own tokens.
    n_requests_bound : float
        Requests that are predicted to go where this one goes, this one included; at least 1.
    is_marked : bool
        The caller says what shall be cached. Providers that charge for writing a cache write none without.
    s_per_prefill_token : float
        Seconds that a provider takes to read one token that it has not cached.
    """

    incumbent: str
    is_pending: bool = False
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    n_requests_bound: float = 1.0
    is_marked: bool = False
    s_per_prefill_token: float = S_PER_PREFILL_TOKEN


def n_requests_bound(n_requests: int, n_human_turns: int) -> float:
    """Predict how many requests a human turn takes: as many as those before it on average, from 1 to 16.

    Parameters
    ----------
    n_requests, n_human_turns : int
        Of the conversation so far, this request not included.
    """
    return max(1.0, min(n_requests / max(n_human_turns, 1), MOST_REQUESTS_BOUND))


def prefixes(
    history: History, names: Sequence[str], tokens_per_character: Sequence[float], input_tokens: Sequence[float]
) -> list[tuple[float, float]]:
    """Say how much each candidate has read of the conversation so far, and how much it would read anew.

    Parameters
    ----------
    history : History
    names : sequence of m str
    tokens_per_character : sequence of m float
        How finely each of them cuts text; what one has cached is converted into the tokens of the others by it.
    input_tokens : sequence of m float
        Of the whole request.

    Returns
    -------
    list of m (float, float)
        Tokens cached and tokens cold; together the prefix that is known to be cached somewhere, never more than the
        request. All zero where nobody has anything cached.
    """
    n_characters = max(
        (
            history.cached_tokens.get(name, 0) / rate
            for name, rate in zip(names, tokens_per_character, strict=True)
            if rate
        ),
        default=0.0,
    )
    found: list[tuple[float, float]] = []
    for name, rate, tokens in zip(names, tokens_per_character, input_tokens, strict=True):
        prefix = min(n_characters * rate, tokens)
        cached = min(float(history.cached_tokens.get(name, 0)), prefix)
        found.append((cached, prefix - cached))
    return found


def effective_costs_usd(
    history: History,
    prices: Sequence[Price | None],
    cost_usd: Sequence[float],
    prefix_tokens: Sequence[tuple[float, float]],
) -> list[float]:
    """Price this request as one of those that the choice binds.

    What is cached is read at the price of reading; what is not is written once (at the price of writing, or of input
    where there is none) and read from then on. What is new in this request costs everybody the same kind of price and
    stays out.

    Parameters
    ----------
    history : History
    prices : sequence of m (Price or None)
    cost_usd : sequence of m float
        Of the request alone, all input at the full price; NaN where unknown.
    prefix_tokens : sequence of m (float, float)
        See :func:`prefixes`.

    Returns
    -------
    list of m float
        USD per request, at least 0; NaN stays NaN. Above its ``cost_usd`` where writing a cache costs more than plain
        input and the choice binds too few requests to earn that back: so may the incumbent's be, once another has read
        more of the conversation.
    """
    n_bound = max(history.n_requests_bound, 1.0)
    effective: list[float] = []
    for price, alone, (cached, cold) in zip(prices, cost_usd, prefix_tokens, strict=True):
        if price is None:
            effective.append(alone)
            continue
        read, write = cache_prices(price, is_marked=history.is_marked)
        saved = cached * (price.input_usd_per_mtok - read)
        saved += cold * (price.input_usd_per_mtok - (write + (n_bound - 1) * read) / n_bound)
        effective.append(alone - saved / TOKENS_PER_PRICE_UNIT)
    return effective


def switch_cost_usd(history: History, price: Price | None, prefix_tokens: tuple[float, float]) -> float | None:
    """Return what reading the conversation anew costs once, over having it cached; None where the price is unknown."""
    if price is None:
        return None
    read, write = cache_prices(price, is_marked=history.is_marked)
    return prefix_tokens[1] * (write - read) / TOKENS_PER_PRICE_UNIT


def prefill_s(
    history: History, latency_s: Sequence[float], prefix_tokens: Sequence[tuple[float, float]]
) -> list[float]:
    """Add to each latency the time it takes to read anew, spread over the requests bound; NaN stays NaN."""
    per_token = history.s_per_prefill_token / max(history.n_requests_bound, 1.0)
    return [seconds + cold * per_token for seconds, (_, cold) in zip(latency_s, prefix_tokens, strict=True)]


def cache_prices(price: Price, *, is_marked: bool) -> tuple[float, float]:
    """Return what reading from a provider's cache and writing to it cost, in USD per million tokens.

    Without a price of reading there is no cache. With a price of writing, it is written where the caller asks for it.
    """
    full = price.input_usd_per_mtok
    if price.cache_read_usd_per_mtok is None:
        return full, full
    if price.cache_write_usd_per_mtok is not None and not is_marked:
        return full, full
    read = min(price.cache_read_usd_per_mtok, full)
    write = price.cache_write_usd_per_mtok
    return read, full if write is None else max(write, read)
