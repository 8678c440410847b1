"""What one provider's Chat Completions cannot take as OpenAI's does: data, and how a client's own body is cut to it.

What is withheld is what documentation or users' reports say is answered with an error; a field that is merely ignored
passes. Bodies that the gateway writes itself are fitted in :mod:`serving.providers.chat_quirks`. Entry points:
:class:`Quirks`, :meth:`Quirks.apply`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: How a provider is told how much to think; see :class:`Quirks`.
Thinking: TypeAlias = Literal["effort", "type", "enable"]


@dataclass(frozen=True, slots=True)
class Quirks:
    """What a provider's Chat Completions cannot take as OpenAI's does.

    The first four hold for every request, the client's own too. The last three are about requests that the gateway
    writes itself: a client of the Chat dialect has chosen its own words.

    Parameters
    ----------
    withheld : frozenset of str
        Top-level fields that would be refused.
    withheld_of_messages : frozenset of str
        Fields of each message that would be refused.
    withheld_of_tools : frozenset of str
        Fields of each tool's ``function`` that would be refused.
    renamed : tuple of (str, str)
        OpenAI's field and the provider's own name of it.
    limit_field : {'max_tokens', 'max_completion_tokens'}
        What the limit of output, thoughts included, is called.
    thinking : {'effort', 'type', 'enable'}
        What becomes of an effort. ``effort``: it is said in ``reasoning_effort``. ``type``: "none" is
        ``thinking: {"type": "disabled"}`` and no ``reasoning_effort``; any other is
        ``thinking: {"type": "enabled"}`` beside ``reasoning_effort``. ``enable``: "none" is ``enable_thinking: false``,
        any other ``enable_thinking: true``; there is no ``reasoning_effort``, and how much is lost.
    efforts : tuple of (str, str)
        Efforts that the provider lacks, and which of its own stands for each in ``reasoning_effort``.
    """

    withheld: frozenset[str] = frozenset()
    withheld_of_messages: frozenset[str] = frozenset()
    withheld_of_tools: frozenset[str] = frozenset()
    renamed: tuple[tuple[str, str], ...] = ()
    limit_field: str = "max_tokens"
    thinking: Thinking = "effort"
    efforts: tuple[tuple[str, str], ...] = ()

    def apply(self, body: dict[str, object]) -> tuple[str, ...]:
        """Take out of a request body what would be refused, and rename what is called otherwise.

        Parameters
        ----------
        body : dict
            Changed in place; its values are left alone: they may belong to the client's request.

        Returns
        -------
        tuple of str
            The fields that were taken out, as ``field``, ``messages[].field`` or ``tools[].function.field``, in a
            fixed order.
        """
        lost = sorted(self.withheld & body.keys())
        for name in lost:
            del body[name]
        for usual, own in self.renamed:
            if usual in body:
                value = body.pop(usual)
                body.setdefault(own, value)
        lost += _cut(body, "messages", "messages[].", self.withheld_of_messages, lambda message, cut: cut(message))
        lost += _cut(
            body,
            "tools",
            "tools[].function.",
            self.withheld_of_tools,
            lambda tool, cut: {**tool, "function": cut(tool["function"])} if "function" in tool else tool,
        )
        return tuple(lost)


NO_QUIRKS = Quirks()

_Cut: TypeAlias = Callable[[object], object]


def _cut(
    body: dict[str, object],
    field: str,
    path: str,
    withheld: frozenset[str],
    within: Callable[[dict[str, object], _Cut], object],
) -> list[str]:
    """Take fields out of every item of a list; return their paths. ``within`` says which part of an item they are of.

    The list is replaced by a new one only where something was found in it.
    """
    items = body.get(field)
    if not withheld or not isinstance(items, list):
        return []
    found: set[str] = set()

    def cut(part: object) -> object:
        if not isinstance(part, dict) or not withheld & part.keys():
            return part
        found.update(withheld & part.keys())
        return {name: value for name, value in part.items() if name not in withheld}

    rest = [within(item, cut) if isinstance(item, dict) else item for item in items]
    if found:
        body[field] = rest
    return [path + name for name in sorted(found)]
