"""How much a Gemini model thinks: levels from Gemini 3 on, budgets of tokens at Gemini 2.5, nothing before.

What a model cannot do becomes its nearest lower level, or its lowest. Entry points: :func:`thinking_of`,
:func:`write_thinking`, :func:`read_thinking`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from serving.dialects.conversation import Settings
from serving.dialects.effort import effort_of_budget, nearest
from serving.dialects.losses import Losses
from serving.fields import wrong

#: Levels are efforts in capital letters.
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
#: Of Gemini 2.5; anything above is as much as the model can.
_BUDGET_OF_EFFORT = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}

Config: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the models of one family can be told of thinking.

    Parameters
    ----------
    levels : tuple of str
        As efforts; empty where the family has budgets instead.
    budget_tokens : tuple of (int, int)
        Least and most, where it has budgets.
    can_be_off : bool
        Whether a budget of 0 is allowed.
    """

    levels: tuple[str, ...] = ()
    budget_tokens: tuple[int, int] = (0, 0)
    can_be_off: bool = True

    @property
    def is_signed(self) -> bool:
        """Whether each first call of the current turn must come back with a signature (Gemini 3 and later)."""
        return bool(self.levels)


#: The first pattern found in the name decides.
_FAMILIES: tuple[tuple[re.Pattern[str], Thinking], ...] = tuple(
    (re.compile(pattern), thinking)
    for pattern, thinking in (
        (r"gemini-2\.5-pro", Thinking(budget_tokens=(128, 32_768), can_be_off=False)),
        (r"gemini-2\.5-flash-lite", Thinking(budget_tokens=(512, 24_576))),
        (r"gemini-2\.5", Thinking(budget_tokens=(1, 24_576))),
        (r"gemini-3-pro", Thinking(("low", "high"))),
        (r"gemini-3\.[0-6]-pro", Thinking(("low", "medium", "high"))),
        (r"gemini-3(\.[0-6])?-flash|gemini-(3\.\d+-)?flash-lite", Thinking(_LEVELS[:-1])),
        (r"gemini-(pro|flash)-latest", Thinking(("low", "medium", "high"))),
        (r"gemini-([3-9]|\d\d)(?!\d)", Thinking(_LEVELS[1:])),
    )
)


def thinking_of(model: str) -> Thinking | None:
    """Return what a model can be told of thinking; None where it is nothing."""
    return next((thinking for pattern, thinking in _FAMILIES if pattern.search(model)), None)


def write_thinking(settings: Settings, thinking: Thinking | None, losses: Losses) -> Config:
    """Write ``thinkingConfig``, empty where there is nothing to say."""
    if thinking is None:
        if settings.effort not in (None, "none"):
            losses.dropped("reasoning_effort")
        if settings.thinking_budget_tokens:
            losses.dropped("thinking.budget_tokens")
        return {}
    config = _level(settings, thinking, losses) if thinking.levels else _budget(settings, thinking, losses)
    if settings.wants_reasoning is not None:
        config["includeThoughts"] = settings.wants_reasoning
    return config


def read_thinking(config: Mapping[str, object]) -> Settings:
    """Read ``thinkingConfig`` into settings that hold nothing else."""
    level, budget, includes = config.get("thinkingLevel"), config.get("thinkingBudget"), config.get("includeThoughts")
    effort = level.lower() if isinstance(level, str) and level.lower() in _LEVELS else None
    at = "generationConfig.thinkingConfig."
    if level is not None and effort is None:
        raise wrong(f"{at}thinkingLevel", level, "one of " + ", ".join(_LEVELS).upper())
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int)):
        raise wrong(f"{at}thinkingBudget", budget, "a whole number")
    if includes is not None and not isinstance(includes, bool):
        raise wrong(f"{at}includeThoughts", includes, "true or false")
    return Settings(effort=effort, thinking_budget_tokens=budget, wants_reasoning=includes)


def _level(settings: Settings, thinking: Thinking, losses: Losses) -> Config:
    effort, budget = settings.effort, settings.thinking_budget_tokens
    if budget is not None and effort is not None:
        losses.hint("thinking.budget_tokens")  # the effort says it in words
    elif budget is not None:
        effort = effort_of_budget(budget)
        if effort is not None:
            losses.changed("thinking.budget_tokens")
    level = None if effort is None else nearest(effort, thinking.levels)
    if level is None:
        return {}
    if level != effort and (effort, level) != ("max", "xhigh"):
        losses.changed("reasoning_effort")
    return {"thinkingLevel": level.upper()}


def _budget(settings: Settings, thinking: Thinking, losses: Losses) -> Config:
    least, most = thinking.budget_tokens
    wanted = settings.thinking_budget_tokens
    field = "thinking.budget_tokens"
    if wanted is None:
        if settings.effort is None:
            return {}
        wanted = min(_BUDGET_OF_EFFORT.get(settings.effort, most), most)
        field = "reasoning_effort"
    elif settings.effort is not None:
        losses.hint("reasoning_effort")  # the budget is more exact
    if wanted < 0 or (wanted == 0 and thinking.can_be_off):
        return {"thinkingBudget": max(wanted, -1)}
    budget = min(max(wanted, least), most)
    if budget != wanted:
        losses.changed(field)
    return {"thinkingBudget": budget}
