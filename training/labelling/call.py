"""One call of one candidate as a value: what is asked, what it can cost at worst, what came back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from router.domain import Price
from router.pricing import TOKENS_PER_PRICE_UNIT

#: A token is at least one byte of UTF-8, so bytes bound tokens; templates add some for each message, and for all.
_TOKENS_PER_MESSAGE, _TOKENS_PER_REQUEST = 32, 64
#: What is not text is not bounded by its bytes: more than any provider reads of one image today.
_TOKENS_PER_ATTACHMENT = 16_000
#: The two names that providers have for one limit.
OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class Target:
    """A candidate as the gateway describes it.

    Parameters
    ----------
    name : str
    price : Price or None
        None is unknown.
    identity : str
        What else it is: its parameters and the models behind it. Where that changes, cached answers do not count.
    is_emulated : bool
        Every deployment of it is.
    """

    name: str
    price: Price | None
    identity: str = ""
    is_emulated: bool = False

    def worst_cost_usd(
        self, messages: list[Mapping[str, object]], extra: object, max_output_tokens: int
    ) -> float | None:
        """Return what a call costs at most, whatever is cached and however long it is.

        Parameters
        ----------
        messages : list of mapping
        extra : object
            Further fields of the request; the provider may read them.
        max_output_tokens : int

        Returns
        -------
        float or None
            USD; None where the price is unknown.
        """
        if self.price is None:
            return None
        n_bytes = len(json.dumps([messages, extra], ensure_ascii=False).encode("utf-8", "surrogatepass"))
        n_read = n_bytes + _TOKENS_PER_MESSAGE * len(messages) + _TOKENS_PER_REQUEST
        n_read += _TOKENS_PER_ATTACHMENT * sum(map(_n_attachments, messages))
        prices = (self.price, *(tier.price for tier in self.price.tiers))
        dearest_read = max(_dearest_input(price) for price in prices)
        dearest_written = max(price.output_usd_per_mtok for price in prices)
        return (n_read * dearest_read + max_output_tokens * dearest_written) / TOKENS_PER_PRICE_UNIT


@dataclass(frozen=True)
class Call:
    """What is asked of whom.

    Parameters
    ----------
    target : Target
    messages : list of mapping
    max_output_tokens : int
    parameters : Mapping of str to object
        Further fields of the request.
    """

    target: Target
    messages: list[Mapping[str, object]]
    max_output_tokens: int
    parameters: Mapping[str, object]

    @cached_property
    def digest(self) -> str:
        """Name it: the same for the same candidate, conversation, limit and parameters; 32 hexadecimal digits."""
        parts = [self.target.name, self.target.identity, self.messages, self.max_output_tokens, self.parameters]
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    @property
    def worst_cost_usd(self) -> float | None:
        """See :meth:`Target.worst_cost_usd`."""
        return self.target.worst_cost_usd(self.messages, dict(self.parameters), self.max_output_tokens)

    def body(self, limit_field: str) -> dict[str, object]:
        """Write the request, its limit under the name that the provider knows."""
        return {
            **self.parameters,
            "model": self.target.name,
            "messages": self.messages,
            limit_field: self.max_output_tokens,
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a candidate said.

    Parameters
    ----------
    text : str
        Tool calls, where there is no text, as JSON.
    finish : str
        The provider's reason to end.
    input_tokens, output_tokens : int or None
        As the provider counted; None where it did not.
    cost_usd : float or None
        As the gateway reckoned; None where it could not.
    latency_s : float
        From the question to the whole answer, through the gateway.
    is_emulated : bool
    """

    text: str
    finish: str
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    latency_s: float
    is_emulated: bool

    @property
    def is_truncated(self) -> bool:
        """Whether the limit cut it off."""
        return self.finish == "length"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Why there is no answer: no observation, which is not quality 0."""

    why: str


def _n_attachments(message: Mapping[str, object]) -> int:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return sum(1 for part in parts if not (isinstance(part, dict) and part.get("type") == "text"))


def _dearest_input(price: Price) -> float:
    others = (price.cache_read_usd_per_mtok, price.cache_write_usd_per_mtok, price.cache_write_1h_usd_per_mtok)
    return max(price.input_usd_per_mtok, *(other or 0.0 for other in others))
