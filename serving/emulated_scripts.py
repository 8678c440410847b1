"""What an emulated provider is told to answer, step by step: written in advance, by model. Pure state, no I/O.

A script is a list of steps; step k answers a conversation in which the model has called tools k times already, and
the last step whatever comes after. It is said word for word, unlabelled: only the header still tells that it is
emulated. Entry points: :class:`Scripts`, :func:`steps_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar, get_args

import orjson

from router.pricing import Usage
from serving.dialects.answer import Reason
from serving.dialects.conversation import Conversation, ToolCall
from serving.errors import InvalidRequest

T = TypeVar("T")

_REASONS: tuple[Reason, ...] = get_args(Reason)
_STEP_FIELDS = ("text", "reasoning", "state", "calls", "finish", "usage")
_CALL_FIELDS = ("name", "arguments", "id")
_USAGE_FIELDS = tuple(field.name for field in fields(Usage))


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A call to make. ``arguments`` are text, sent as they are, JSON or not; ``id`` is made up where it is None."""

    name: str
    arguments: str = ""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One answer.

    Parameters
    ----------
    text, reasoning : str
        "" is none.
    state : str or None
        Opaque: stands where a provider of the dialect puts its signature, on the reasoning or on the first call.
    calls : tuple of ScriptedCall
    finish : str or None
        A :data:`~serving.dialects.answer.Reason`; None is the natural one.
    usage : Mapping of str to (int or None)
        In the place of the counts made up; None is a count the provider does not tell.
    """

    text: str = ""
    reasoning: str = ""
    state: str | None = None
    calls: tuple[ScriptedCall, ...] = ()
    finish: Reason | None = None
    usage: Mapping[str, int | None] | None = None


class Scripts:
    """The scripts set, by model; "*" is every model without one of its own."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[Step, ...]] = {}

    def put(self, model: str, steps: object) -> None:
        """Set the script of a model, as JSON has it, or take it away with None.

        Raises
        ------
        InvalidRequest
            Names the field that is not a script's.
        """
        if steps is None:
            self._steps.pop(model, None)
        else:
            self._steps[model] = steps_of(steps)

    def step_for(self, model: str, conversation: Conversation) -> Step | None:
        """Return what a model has to say now; None where no script is set, or its calls are of tools not offered."""
        steps = self._steps.get(model) or self._steps.get("*")
        if steps is None:
            return None
        step = steps[min(_n_turns_with_calls(conversation), len(steps) - 1)]
        offered = {tool.name for tool in conversation.tools}
        return step if all(call.name in offered for call in step.calls) else None


def steps_of(asked: object, param: str = "steps") -> tuple[Step, ...]:
    """Read a script from JSON.

    Raises
    ------
    InvalidRequest
        Names the field at fault.
    """
    steps = _checked(asked, list, param, "a list of at least one step")
    if not steps:
        raise InvalidRequest(f"{param} must be a list of at least one step", param=param)
    return tuple(_step_of(step, f"{param}[{i}]") for i, step in enumerate(steps))


def _step_of(asked: object, at: str) -> Step:
    step = _object(asked, _STEP_FIELDS, at)
    finish = step.get("finish")
    if finish is not None and finish not in _REASONS:
        raise InvalidRequest(f"{at}.finish must be one of {', '.join(_REASONS)}", param=f"{at}.finish")
    calls = [] if step.get("calls") is None else _checked(step["calls"], list, f"{at}.calls", "a list of calls")
    return Step(
        text=_text(step, "text", at) or "",
        reasoning=_text(step, "reasoning", at) or "",
        state=_text(step, "state", at),
        calls=tuple(_call_of(call, f"{at}.calls[{i}]") for i, call in enumerate(calls)),
        finish=finish,
        usage=None if step.get("usage") is None else _usage_of(step["usage"], f"{at}.usage"),
    )


def _call_of(asked: object, at: str) -> ScriptedCall:
    call = _object(asked, _CALL_FIELDS, at)
    name, arguments = _text(call, "name", at), call.get("arguments", {})
    if not name:
        raise InvalidRequest(f"{at}.name is missing: expected the name of a tool", param=f"{at}.name")
    if not isinstance(arguments, dict | str):
        raise InvalidRequest(f"{at}.arguments must be an object or a string", param=f"{at}.arguments")
    written = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return ScriptedCall(name, written, _text(call, "id", at))


def _usage_of(asked: object, at: str) -> dict[str, int | None]:
    counts: dict[str, int | None] = {}
    for name, n in _object(asked, _USAGE_FIELDS, at).items():
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 0):
            raise InvalidRequest(f"{at}.{name} must be a whole number of at least 0, or null", param=f"{at}.{name}")
        counts[name] = n
    return counts


def _object(asked: object, known: Sequence[str], at: str) -> dict[str, object]:
    value = _checked(asked, dict, at, "an object")
    for name in value:
        if name not in known:
            raise InvalidRequest(f"{at} may hold {', '.join(known)}, and nothing else", param=f"{at}.{name}")
    return value


def _text(holder: Mapping[str, object], name: str, at: str) -> str | None:
    value = holder.get(name)
    return None if value is None else _checked(value, str, f"{at}.{name}", "a string")


def _checked(value: object, kind: type[T], at: str, expected: str) -> T:
    if not isinstance(value, kind):
        raise InvalidRequest(f"{at} must be {expected}", param=at)
    return value


def _n_turns_with_calls(conversation: Conversation) -> int:
    """Count the turns of the model that call tools; messages of its own next to each other are one turn."""
    n_turns, is_counted = 0, False
    for message in conversation.messages:
        if message.role != "assistant":
            is_counted = False
        elif not is_counted and any(isinstance(part, ToolCall) for part in message.parts):
            n_turns, is_counted = n_turns + 1, True
    return n_turns
