"""Answers an emulated provider gives byte for byte: what a real one was seen to send. Pure state, no I/O.

Entry points: :class:`Replays`, :class:`Replay`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replay:
    """One answer; every chunk arrives by itself. ``is_cut`` drops the connection after the last one."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    chunks: tuple[bytes, ...]
    is_cut: bool = False


class Replays:
    """Answers waiting for requests, by model ("*" is every model without one of its own), each given once."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[Replay]] = defaultdict(deque)

    def put(
        self, model: str, status: int, headers: Mapping[str, str], chunks: Sequence[bytes], *, is_cut: bool = False
    ) -> None:
        """Answer the next request to a model that has none waiting with these bytes; more queue up behind.

        Parameters
        ----------
        model : str
        status : int
        headers : Mapping
        chunks : sequence of bytes
            The body, as it shall arrive.
        is_cut : bool, default=False
            Drop the connection instead of ending the body.
        """
        raw = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
        self._waiting[model].append(Replay(status, raw, tuple(chunks), is_cut))

    def take(self, model: str) -> Replay | None:
        """Return the answer to the next request to a model, which is then gone."""
        waiting = self._waiting.get(model) or self._waiting.get("*")
        return waiting.popleft() if waiting else None
