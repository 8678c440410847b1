"""The words of the router as frozen values: what goes in, what comes out.

Nothing here computes; nothing here knows a network, a database or a clock. Start at :class:`Prompt`
(what is asked) and :class:`Candidate` (who may answer); who shall answer, and why, is :mod:`router.decision`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Price:
    """What a candidate charges, in USD per million tokens.

    Parameters
    ----------
    input_usd_per_mtok, output_usd_per_mtok : float
        At least 0. A price that is not known is no ``Price`` at all, never 0.
    cache_read_usd_per_mtok, cache_write_usd_per_mtok, cache_write_1h_usd_per_mtok : float or None
        None where the provider publishes none; the last is of what shall be kept for an hour.
    tiers : tuple of PriceTier
        What long requests cost instead, from the lowest threshold to the highest.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cache_read_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    cache_write_1h_usd_per_mtok: float | None = None
    tiers: tuple[PriceTier, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class PriceTier:
    """What requests with more than so many input tokens cost, every token of them; ``price`` has no tiers itself."""

    above_input_tokens: int
    price: Price


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a candidate can do. Unknown limits are None and exclude nobody."""

    tools: bool = True
    vision: bool = False
    json_schema: bool = True
    context_window_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LLM the router may choose.

    Parameters
    ----------
    name : str
        Unique in its pool.
    price : Price or None
        None is unknown; it never reads as free.
    like : str or None
        The bundle candidate whose predictions it borrows, when the bundle does not know ``name``.
    parameters : Mapping[str, object]
        Part of its identity: the same LLM at two reasoning efforts is two candidates.
    """

    name: str
    price: Price | None = None
    capabilities: Capabilities = Capabilities()
    like: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a request matters besides its text: a summary, no content.

    Parameters
    ----------
    n_characters : int
        Of everything the provider will read: system text, history, tool schemas, the prompt.
    n_messages, n_tools : int
        Counts, at least 0.
    has_images, needs_json_schema : bool
        Capabilities the request asks for.
    max_output_tokens : int or None
        The caller's own limit.
    n_choices : int
        Answers asked for at once, at least 1; each is paid for.
    """

    n_characters: int
    n_messages: int = 1
    n_tools: int = 0
    has_images: bool = False
    needs_json_schema: bool = False
    max_output_tokens: int | None = None
    n_choices: int = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """The human request (the text that is scored) and the shape of the rest."""

    text: str
    shape: Shape

    @classmethod
    def of(cls, text: str) -> Prompt:
        """Make the prompt of a single bare message."""
        return cls(text, Shape(n_characters=len(text)))


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a candidate answers, as observed: seconds to its first content, and for each output token after it."""

    first_content_s: float
    s_per_output_token: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the bundle says of n prompts and its m candidates, before any price.

    Parameters
    ----------
    candidates : tuple of str
        The m names, in column order.
    quality, quality_low, quality_high : ndarray of shape (n, m), float32, in [0, 1]
        Calibrated quality, and the bounds of a 90 % interval for the mean quality of prompts scored alike.
    input_tokens, output_tokens, output_tokens_p90 : ndarray of shape (n, m), float32
        Expected input tokens, expected output tokens and their 90 % quantile; NaN where unknown.
    """

    candidates: tuple[str, ...]
    quality: Floats
    quality_low: Floats
    quality_high: Floats
    input_tokens: Floats
    output_tokens: Floats
    output_tokens_p90: Floats


@dataclass(frozen=True, slots=True)
class Policy:
    """The rule from predictions to a ranking.

    Parameters
    ----------
    kind : {'threshold', 'willingness_to_pay_usd', 'quality_per_usd', 'latency', 'fall_below_usd'}
        See :mod:`router.policy`, where each kind is one row of a table.
    value : float
        Threshold or floor in [0, 1]; for ``willingness_to_pay_usd`` USD per unit of quality, at least 0.
    name : str
        The preset it came from, or "".
    anchor : str or None
        The safe candidate, by name.
    margin : float or None
        Leave the anchor only for candidates predicted better by at least this much; in [-1, 1].
    """

    kind: str
    value: float
    name: str = ""
    anchor: str | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the caller demands on top of capabilities.

    Parameters
    ----------
    allow, deny : tuple of str
        Globs on candidate names; an empty ``allow`` allows all; ``deny`` wins.
    max_cost_usd : float or None
        Upper bound on the expected cost of the call; a candidate of unknown price fails it.
    max_latency_s : float or None
        Upper bound on the expected seconds until the answer is whole. A candidate of unknown speed fails it where
        another is known to keep it, and passes where none is: what nobody has measured yet excludes nobody.
    ruled_out : Mapping of str to str
        Candidates that may not answer for reasons of the caller's own, and the name of that filter.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    max_cost_usd: float | None = None
    max_latency_s: float | None = None
    ruled_out: Mapping[str, str] = field(default_factory=dict)


NO_CONSTRAINTS = Constraints()
