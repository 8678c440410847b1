"""How much to think, and what a model lets one set beside it: a row for every generation of Claude.

Facts of Anthropic's documentation, November 2026; what is not Claude but speaks Messages (DeepSeek, Kimi, GLM,
MiniMax, Qwen) takes the oldest form, a switch with a budget. Entry points: :func:`model_of`, :func:`write_thinking`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from serving.dialects.conversation import Settings
from serving.dialects.effort import budget_of_effort, effort_of_budget, nearest
from serving.dialects.losses import Losses

#: Less than this is refused as a budget.
MIN_BUDGET_TOKENS = 1_024
#: What may be written where nobody says: room for an answer, within what every model allows.
DEFAULT_MAX_TOKENS = 8_192
#: The most to write, thoughts included, where nobody says.
_MOST_TOKENS = 32_768
#: The effort of whoever only asks for thoughts, or for as many as the model likes.
_USUAL_EFFORT = "medium"

_ALL = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Model:
    """What one generation of models accepts.

    Parameters
    ----------
    thinks : {'adaptive', 'budget', None}
        ``thinking`` of that type turns thinking on; None never thinks.
    efforts : tuple of str
        Of ``output_config.effort``; empty where the field is unknown.
    off : str or None
        The type that turns thinking off, or down as far as it goes; None where it is always on.
    can_be_forced : bool
        Whether a tool can be demanded while thinking is not asked for.
    takes_sampling : bool
        ``temperature``, ``top_p`` and ``top_k``.
    is_claude : bool
        It checks signatures, and what goes with what.
    """

    thinks: Literal["adaptive", "budget"] | None
    efforts: tuple[str, ...] = ()
    off: Literal["disabled", "between_tools"] | None = "disabled"
    can_be_forced: bool = True
    takes_sampling: bool = True
    is_claude: bool = True


_NEWEST = Model("adaptive", _ALL, off=None, can_be_forced=False, takes_sampling=False)
#: The first that is found in a model's name describes it.
_MODELS: tuple[tuple[re.Pattern[str], Model], ...] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"claude-(fable|mythos)", _NEWEST),
        (r"claude-opus-5[-.]5(?!\d)", _NEWEST),
        (
            r"claude-sonnet-5[-.]5(?!\d)",
            Model("adaptive", _ALL, off="between_tools", can_be_forced=False, takes_sampling=False),
        ),
        (r"claude-(opus|sonnet)-4[-.]6(?!\d)", Model("adaptive", ("low", "medium", "high", "max"))),
        (r"claude-opus-4[-.]5(?!\d)", Model("budget", ("low", "medium", "high"))),
        (r"claude-opus-4[-.][78](?!\d)", Model("adaptive", _ALL, takes_sampling=False)),
        (r"claude-(3[-.]7|4|(opus|sonnet|haiku)-4)", Model("budget")),
        (r"claude-(v?[123]|instant)", Model(None, off=None)),
        (r"claude", Model("adaptive", _ALL, takes_sampling=False)),
    )
)
_OTHER = Model("budget", is_claude=False)


def model_of(name: str) -> Model:
    """Return what a model accepts, by a provider's name for it."""
    return next((model for pattern, model in _MODELS if pattern.search(name)), _OTHER)


def write_thinking(settings: Settings, model: Model, losses: Losses, *, may_think: bool = True) -> dict[str, object]:
    """Write how much to think: ``max_tokens``, ``thinking`` and ``output_config``, and nothing else of a body.

    Parameters
    ----------
    settings : Settings
    model : Model
    losses : Losses
    may_think : bool, default=True
        False where the conversation lacks the thoughts that thinking would have to go on from.
    """
    limit = settings.max_output_tokens or DEFAULT_MAX_TOKENS
    effort, budget = settings.effort, settings.thinking_budget_tokens
    if effort == "none" or (effort is None and budget == 0):
        return {"max_tokens": limit, **_off(model, losses)}
    if effort is None and budget is None and not settings.wants_reasoning:
        return {"max_tokens": limit}
    if model.thinks is None:
        losses.dropped("reasoning_effort")
        return {"max_tokens": limit}
    if model.thinks == "adaptive":
        return {"max_tokens": limit, **_adaptive(settings, model, losses)}
    if not may_think:
        losses.changed("reasoning_effort")
        return {"max_tokens": limit, "thinking": {"type": "disabled"}}
    if budget is None or budget < 0:
        budget = budget_of_effort(effort or _USUAL_EFFORT)
    limit, budget = _fitted(settings.max_output_tokens, max(budget, MIN_BUDGET_TOKENS), losses)
    written: dict[str, object] = {"max_tokens": limit, "thinking": {"type": "enabled", "budget_tokens": budget}}
    return written | _effort(effort, model, losses) if model.efforts else written


def _off(model: Model, losses: Losses) -> dict[str, object]:
    if model.off is not None:
        return {"thinking": {"type": model.off}}
    if model.thinks is None:
        return {}
    losses.changed("reasoning_effort")
    return {"output_config": {"effort": model.efforts[0]}}


def _adaptive(settings: Settings, model: Model, losses: Losses) -> dict[str, object]:
    effort, budget = settings.effort, settings.thinking_budget_tokens
    if effort is None and budget is not None:
        effort = effort_of_budget(budget)
        losses.changed("thinking")
    thinking: dict[str, object] = {"type": "adaptive"}
    if settings.wants_reasoning is not None:
        thinking["display"] = "summarized" if settings.wants_reasoning else "omitted"
    return {"thinking": thinking, **_effort(effort, model, losses)}


def _effort(effort: str | None, model: Model, losses: Losses) -> dict[str, object]:
    if effort is None:
        return {}
    offered = nearest(effort, model.efforts)
    if offered != effort:
        losses.changed("reasoning_effort")
    return {"output_config": {"effort": offered}}


def _fitted(limit: int | None, budget: int, losses: Losses) -> tuple[int, int]:
    """Return a limit and a budget below it: without a limit it makes room, else the budget leaves a quarter of it.

    A limit that has no room even for the least budget is raised by that.
    """
    if limit is None:
        limit = min(DEFAULT_MAX_TOKENS + budget, _MOST_TOKENS)
    if budget < limit:
        return limit, budget
    losses.changed("thinking")
    if (fitting := limit - limit // 4) >= MIN_BUDGET_TOKENS and fitting < limit:
        return limit, fitting
    losses.changed("max_tokens")
    return limit + MIN_BUDGET_TOKENS, MIN_BUDGET_TOKENS
