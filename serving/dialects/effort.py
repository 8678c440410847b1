"""How much to think: the words of one dialect in another's. Pure; the buckets are those of providers' documentation.

Entry points: :func:`effort_of_budget`, :func:`budget_of_effort`, :func:`nearest`.
"""

from __future__ import annotations

from collections.abc import Collection

from serving.dialects.conversation import EFFORTS

#: Tokens of thought up to which an effort is meant, from least to most.
_UP_TO_TOKENS = ((0, "none"), (512, "minimal"), (2_048, "low"), (12_288, "medium"), (32_768, "high"))
_BUDGETS_TOKENS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 32_768}


def effort_of_budget(tokens: int) -> str | None:
    """Return the effort nearest to a budget of thought; None for -1, as much as the model likes."""
    if tokens < 0:
        return None
    return next((effort for limit, effort in _UP_TO_TOKENS if tokens <= limit), "xhigh")


def budget_of_effort(effort: str) -> int:
    """Return the tokens of thought that an effort stands for."""
    return _BUDGETS_TOKENS.get(effort, 65_536)


def nearest(effort: str, offered: Collection[str]) -> str | None:
    """Return the highest offered effort that is not above the one asked for, else the lowest offered; None of none."""
    rank = EFFORTS.index(effort) if effort in EFFORTS else len(EFFORTS)
    known = sorted((EFFORTS.index(name) for name in offered if name in EFFORTS), reverse=True)
    if not known:
        return None
    return EFFORTS[next((i for i in known if i <= rank), known[-1])]
