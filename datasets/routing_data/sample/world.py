"""The invented candidates of the sample, and the known law their outcomes are drawn from.

    P(right) = floor + (ceiling - floor) * logistic(ability + affinity - difficulty)

with an ability per candidate, an affinity per candidate and task, and a difficulty per problem
that its text shows only in part. Output lengths are lognormal; costs are tokens times the prices.

Entry point: ``CANDIDATES``, ``probability_right`` and ``output_tokens_law``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

FLOOR, CEILING = 0.02, 0.985
SPREAD = 0.35
"""Standard deviation of the logarithm of output tokens."""

_PIECE = re.compile(r"\w{1,6}|[^\w\s]")
_TASK_DIFFICULTY: dict[str, float] = {
    "arithmetic": 0.2, "unit_conversion": -0.1, "date_arithmetic": 0.5, "geometry": 0.0, "probability": 0.3,
    "string_manipulation": 0.4, "number_words": -1.0, "sorting": -0.7, "letter_counting": 0.2,
    "logic_puzzle": 0.1, "table_lookup": -0.4, "code_tracing": 0.0,
}  # fmt: skip
_TASK_TOKENS: dict[str, float] = {
    "arithmetic": 60, "unit_conversion": 80, "date_arithmetic": 110, "geometry": 120, "probability": 150,
    "string_manipulation": 70, "number_words": 20, "sorting": 45, "letter_counting": 60,
    "logic_puzzle": 140, "table_lookup": 70, "code_tracing": 160,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleCandidate:
    """Describe one invented candidate.

    Parameters
    ----------
    name : str
        Starts with ``sample-``: no LLM of that name exists.
    input_price, output_price : float
        USD per million tokens.
    ability : float
        On the logistic scale.
    verbosity : float
        Factor on the length of its answers.
    affinity : mapping of str to float
        What it is better (> 0) or worse (< 0) at than its ability says.
    """

    name: str
    input_price: float
    output_price: float
    ability: float
    verbosity: float
    affinity: Mapping[str, float] = field(default_factory=dict)


CANDIDATES: tuple[SampleCandidate, ...] = (
    SampleCandidate(
        "sample-large", 5.0, 20.0, 2.8, 1.5,
        {"string_manipulation": -2.2, "letter_counting": -2.0, "probability": 0.6, "sorting": -1.0},
    ),
    SampleCandidate(
        "sample-medium", 1.5, 6.0, 2.0, 1.2,
        {"code_tracing": 2.0, "date_arithmetic": 1.3, "logic_puzzle": -1.5, "geometry": -0.8},
    ),
    SampleCandidate(
        "sample-nano", 0.05, 0.2, -0.4, 0.7,
        {"number_words": 2.2, "sorting": 2.0, "probability": -1.0},
    ),
    SampleCandidate(
        "sample-small", 0.25, 1.0, 0.8, 0.9,
        {"table_lookup": 2.2, "string_manipulation": 1.6, "letter_counting": 1.0, "arithmetic": -0.5},
    ),
)  # fmt: skip
"""In the order of a table: sorted by name. The dearest costs 100 times the cheapest per token."""


def difficulty(task: str, level: int, distracted: bool, hidden: float) -> float:
    """Return how hard a prompt is, on the logistic scale.

    Parameters
    ----------
    task : str
        Kind of problem.
    level : int
        1 to 5.
    distracted : bool
        Whether the prompt holds an irrelevant sentence.
    hidden : float
        What the text does not show.

    Returns
    -------
    float
        0 is what an ability of 0 gets right half of the time.
    """
    return _TASK_DIFFICULTY[task] + 1.1 * (level - 3) + 0.4 * distracted + hidden


def probability_right(candidate: SampleCandidate, task: str, hardness: float) -> float:
    """Return the true probability that a candidate answers right.

    Parameters
    ----------
    candidate : SampleCandidate
        Who answers.
    task : str
        Kind of problem.
    hardness : float
        From ``difficulty``.

    Returns
    -------
    float
        In [0.02, 0.985].
    """
    score = candidate.ability + candidate.affinity.get(task, 0.0) - hardness
    return FLOOR + (CEILING - FLOOR) / (1.0 + math.exp(-score))


def output_tokens_law(candidate: SampleCandidate, task: str, level: int) -> tuple[float, float]:
    """Return the lognormal law of a candidate's output tokens.

    Parameters
    ----------
    candidate : SampleCandidate
        Who answers.
    task : str
        Kind of problem.
    level : int
        1 to 5.

    Returns
    -------
    mu, sigma : float
        Mean and standard deviation of the logarithm of the token count.
    """
    return math.log(_TASK_TOKENS[task] * candidate.verbosity) + 0.25 * (level - 1), SPREAD


def count_tokens(text: str) -> int:
    """Count the pieces of a text, about as a tokenizer would.

    Parameters
    ----------
    text : str
        The prompt.

    Returns
    -------
    int
        Runs of up to six word characters, and single signs.
    """
    return len(_PIECE.findall(text))
