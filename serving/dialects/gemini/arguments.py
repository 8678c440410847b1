"""Arguments of a call that arrive piece by piece: ``partialArgs`` with paths, put together to one object.

Entry point: :class:`PartialArguments`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TypeAlias

from serving.errors import UpstreamBroken

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_KINDS = ("stringValue", "numberValue", "boolValue", "nullValue")
#: Deeper than any tool asks for, and no deeper than JSON can be written.
_MOST_STEPS = 100

Json: TypeAlias = dict[str, object]
Place: TypeAlias = str | int


class PartialArguments:
    """The arguments so far.

    Attributes
    ----------
    value : dict
    """

    __slots__ = ("_growing", "value")

    def __init__(self) -> None:
        self.value: Json = {}
        self._growing: str | None = None

    def add(self, pieces: object) -> None:
        """Take the ``partialArgs`` of one part; a text that goes on is added to.

        Raises
        ------
        UpstreamBroken
            A path cannot be followed.
        """
        for piece in pieces if isinstance(pieces, list) else ():
            path = piece.get("jsonPath") if isinstance(piece, dict) else None
            if not isinstance(path, str):
                continue
            kind = next((kind for kind in _KINDS if kind in piece), None)
            if kind is not None:
                value = None if kind == "nullValue" else piece[kind]
                if isinstance(value, str | int | float | None):
                    self._set(_places(path), value, grows=self._growing == path)
            self._growing = path if piece.get("willContinue") else None

    def _set(self, places: list[Place], value: object, *, grows: bool) -> None:
        holder: object = self.value
        for place, following in pairwise(places):
            empty: object = [] if isinstance(following, int) else {}
            holder = _entered(holder, place, empty)
        before = _entered(holder, places[-1], None)
        if grows and isinstance(before, str) and isinstance(value, str):
            value = before + value
        match holder, places[-1]:
            case dict(), name:
                holder[name] = value
            case list(), int(index):
                holder[index] = value


def _entered(holder: object, place: Place, empty: object) -> object:
    """Return what is in a place, having put ``empty`` there where there was nothing."""
    if isinstance(holder, dict) and isinstance(place, str):
        return holder.setdefault(place, empty)
    if isinstance(holder, list) and isinstance(place, int) and place <= len(holder):
        if place == len(holder):
            holder.append(empty)
        return holder[place]
    raise UpstreamBroken("the provider streams arguments with a path that leads nowhere")


def _places(path: str) -> list[Place]:
    places: list[Place] = []
    at = 1
    while path.startswith("$") and (step := _STEP.match(path, at)) is not None:
        named, index, single, double = step.groups()
        places.append(int(index) if index is not None else next(n for n in (named, single, double) if n is not None))
        at = step.end()
    if not places or at != len(path) or len(places) > _MOST_STEPS:
        raise UpstreamBroken("the provider streams arguments with a path that cannot be read")
    return places
