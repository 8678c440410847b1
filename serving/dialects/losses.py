"""What a translation lost: a machine-readable report, and the policy of who may lose what.

Fields are in three classes. *Hints* change nothing a caller could see; they are dropped without a word (the record
keeps them). What *affects* cost or quality is dropped and told. What *means* something else without it is refused,
in whatever mode. Emulated fields work, by other means, and are told. Entry points: :class:`Losses`, :class:`Loss`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from serving.errors import InvalidRequest

#: ``strict`` refuses what ``warn`` tells in a header and ``silent`` only writes into the record.
MODES = ("strict", "warn", "silent")
_PATH = re.compile(r"[A-Za-z0-9_.\[\]-]{1,120}")


@dataclass(frozen=True, slots=True)
class Loss:
    """One field that did not arrive as it was sent.

    Parameters
    ----------
    field : str
        Path in the client's own body, such as ``messages[2].content[0].cache_control`` or ``tools[1]``; a name that is
        not a plain path is told as ``(unknown)``, since it may be anybody's words.
    what : {'dropped', 'emulated', 'changed'}
        Left out; done by other means; sent with another value.
    is_hint : bool
        Told to nobody but the record.
    """

    field: str
    what: Literal["dropped", "emulated", "changed"] = "dropped"
    is_hint: bool = False

    def __post_init__(self) -> None:
        """Keep anybody's words out of headers and records."""
        if not _PATH.fullmatch(self.field):
            object.__setattr__(self, "field", "(unknown)")


class Losses:
    """The report of one translation: written by the dialects as they read and write.

    Iterating gives the losses in the order they happened, each field once.
    """

    __slots__ = ("_by_field",)

    def __init__(self) -> None:
        self._by_field: dict[str, Loss] = {}

    def __iter__(self) -> Iterator[Loss]:
        return iter(self._by_field.values())

    def __len__(self) -> int:
        return len(self._by_field)

    def hint(self, field: str) -> None:
        """Note a dropped field that changes nothing a caller could see."""
        self._add(Loss(field, "dropped", is_hint=True))

    def dropped(self, field: str) -> None:
        """Note a dropped field that may change cost or quality."""
        self._add(Loss(field, "dropped"))

    def changed(self, field: str) -> None:
        """Note a field sent with another value than the client's."""
        self._add(Loss(field, "changed"))

    def emulated(self, field: str) -> None:
        """Note a field whose meaning is kept by other means."""
        self._add(Loss(field, "emulated"))

    def refuse(self, field: str, why: str, code: str = "unsupported_parameter") -> InvalidRequest:
        """Make the error for a field without which the request would mean something else; the caller raises it."""
        return InvalidRequest(f"{field}: {why}", param=field, code=code)

    def told(self) -> tuple[Loss, ...]:
        """Return what the client is told of."""
        return tuple(loss for loss in self if not loss.is_hint)

    def _add(self, loss: Loss) -> None:
        self._by_field.setdefault(loss.field, loss)
