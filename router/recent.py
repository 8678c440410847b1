"""What was made of the texts that came last, since the same human request comes again and again.

An agent sends its whole conversation with every tool result; the human request in it, which is all that scoring reads,
stays the same for dozens of calls. What is kept is bounded, lives in memory only, and holds no text: the key is a
digest under a secret of this process, which is never written anywhere. Entry point: :class:`Recent`.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from hashlib import blake2b
from typing import Generic, TypeVar

from router.text import clip

N_KEPT = 256
_DIGEST_BYTES = 16
T = TypeVar("T")


class Recent(Generic[T]):
    """The values of the texts used last; threads may share it.

    Parameters
    ----------
    make : callable (text) -> value
        Depends on nothing but the part of a text that encoders read (:func:`router.text.clip`).
    n_kept : int, default=256
        The one used longest ago gives way.
    """

    def __init__(self, make: Callable[[str], T], n_kept: int = N_KEPT) -> None:
        self._make = make
        self._n_kept = n_kept
        self._secret = secrets.token_bytes(_DIGEST_BYTES)
        self._values: dict[bytes, T] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many are kept now."""
        return len(self._values)

    def of(self, text: str) -> T:
        """Return the value of a text, made now or kept."""
        data = clip(text).encode("utf-8", "surrogatepass")
        key = blake2b(data, digest_size=_DIGEST_BYTES, key=self._secret).digest()
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value
                return value
        # Outside the lock: two threads may make the same value, and neither waits for the other.
        value = self._make(text)
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._n_kept:
                del self._values[next(iter(self._values))]
        return value
