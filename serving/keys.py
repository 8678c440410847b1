"""Client keys: who is calling. Only digests are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """A configured key: its name, the hex sha256 of its secret, globs of candidates it may use (empty: all)."""

    name: str
    sha256: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling."""

    name: str
    models: tuple[str, ...] = ()

    def may_use(self, candidate: str) -> bool:
        """Tell whether this key may use a candidate."""
        raise NotImplementedError


def new_key() -> tuple[str, str]:
    """Return a fresh secret ("sk-turnout-...") and its hex sha256."""
    raise NotImplementedError


class KeyRing:
    """All keys; with none of them and ``allow_anonymous`` everyone is the principal "anonymous"."""

    def __init__(self, keys: Sequence[Key], *, allow_anonymous: bool = False) -> None: ...

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Find the caller in raw ASGI headers; raise Unauthenticated."""
        raise NotImplementedError
