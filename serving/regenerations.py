"""Regenerations: the same key asks the same conversation again, so the answer it had was not what was wanted.

That is a sign, no proof, and easily mistaken. It counts only where the earlier answer was whole, had ended a while ago
(:data:`LEAST_S`: who asks again sooner has not read it), but not too long ago; once for a conversation, so that a
program which asks the same over and over leaves one sign and not a thousand; and not

- after an error or an answer that was broken off, and for a retry that the client's library calls one;
- for an Idempotency-Key that comes again, which never gets here;
- at temperature 0 and for the priority ``batch``: those are programs, and the same answer is what they expect;
- in the middle of a tool loop;
- for a conversation longer than :data:`MOST_BYTES`: looking at it would cost too much.

Two people behind one key who ask the same first question are told apart by the ids that their client sends of its own
accord (:data:`serving.conversations.ID_HEADERS` and the fields), and are mistaken for one where it sends none. What is
kept is a keyed digest, the id of a request, a name and times; the key is drawn for each process, and nothing reaches a
disk. Entry point: :meth:`Regenerations.note`.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

import orjson

from serving.conversations import ID_HEADERS, items_in, named_in
from serving.feedback import FeedbackStore
from serving.pool import Pool

#: How it is called among the signs.
REGENERATED = "regenerated"
#: Answers remembered; how long after one nobody asks again for having read it; how long a request may be.
N_ANSWERS, LEAST_S, MOST_BYTES = 20_000, 1.0, 256 * 1024
_RETRY_HEADER, _FIRST = b"x-stainless-retry-count", b"0"


class Answered(NamedTuple):
    """An earlier answer: the id of its request, and who made it."""

    request_id: str
    deployment: str


@dataclass(slots=True)
class _Kept:
    """What is remembered of an answer; ``is_spent`` once it, or one before it, was asked for again."""

    answered: Answered
    ended_at: float
    forget_at: float
    is_spent: bool = False


@dataclass(frozen=True, slots=True)
class Saying:
    """What one request asks, without a word of it."""

    _digest: bytes = field(repr=False)
    _memory: Regenerations = field(repr=False)
    _within_s: float

    def answered(self, request_id: str, deployment: str) -> None:
        """Remember that it was answered, whole."""
        self._memory.put(self._digest, Answered(request_id, deployment), self._within_s)


class Regenerations:
    """The memory; of this process only.

    Parameters
    ----------
    feedback : FeedbackStore
        Keeps the signs.
    pool : Pool
        Counts them.
    n_most : int, default=20000
        Answers it holds; the oldest go first.
    clock : callable, default=time.monotonic
        Seconds.
    """

    def __init__(
        self,
        feedback: FeedbackStore,
        pool: Pool,
        *,
        n_most: int = N_ANSWERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._feedback = feedback
        self._pool = pool
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._n_most = n_most
        self._clock = clock
        self._secret = os.urandom(32)

    def __len__(self) -> int:
        return len(self._kept)

    def note(
        self,
        key: str,
        body: Mapping[str, object],
        headers: Iterable[tuple[bytes, bytes]],
        *,
        n_bytes: int,
        priority: str,
        within_s: float,
    ) -> Saying | None:
        """Take note of what a request asks; where it was answered before, keep a sign against that answer.

        Parameters
        ----------
        key : str
            Name of the key.
        body : Mapping
            Of any of the APIs, with its whole history.
        headers : iterable of (bytes, bytes)
            Raw, lower-case names.
        n_bytes : int
            Of the body as it came.
        priority : str
        within_s : float
            How long after an answer asking again is a sign; 0 never.

        Returns
        -------
        Saying or None
            None where asking it again would be no sign.
        """
        items = items_in(body)
        if not within_s or not items or n_bytes > MOST_BYTES or priority == "batch" or body.get("temperature") == 0:
            return None
        named: list[object] = []
        for name, value in headers:
            if name == _RETRY_HEADER and value != _FIRST:
                return None
            if name in ID_HEADERS:
                named.append(value.decode("latin-1"))
        if _holds_result(items[-1]):
            return None
        told = (key, named + named_in(body), body.get("system"), body.get("instructions"), items)
        written = orjson.dumps((*told, body.get("previous_response_id")))
        # The library's own blake2b takes longer, and a digest that nobody sees needs no more than a secret before it.
        digest = sha256(self._secret + written).digest()
        earlier = self.take(digest)
        if earlier is not None:
            self._feedback.signal(earlier.request_id, key, REGENERATED, time.time())
            self._pool.signal(earlier.deployment, (REGENERATED,))
        return Saying(digest, self, within_s)

    def take(self, digest: bytes) -> Answered | None:
        """Return the answer that is asked for again, once."""
        known, now = self._kept.get(digest), self._clock()
        if known is None or known.is_spent or now - known.ended_at < LEAST_S or known.forget_at < now:
            return None
        known.is_spent = True
        return known.answered

    def put(self, digest: bytes, answered: Answered, within_s: float) -> None:
        """Remember an answer, and forget what is too old or too much."""
        now = self._clock()
        known = self._kept.get(digest)
        is_spent = known is not None and known.is_spent and known.forget_at >= now
        self._kept[digest] = _Kept(answered, now, now + within_s, is_spent)
        self._kept.move_to_end(digest)
        for _ in range(2):  # as serving.conversations forgets
            oldest = next(iter(self._kept))
            if len(self._kept) <= self._n_most and self._kept[oldest].forget_at >= now:
                break
            del self._kept[oldest]


def _holds_result(item: object) -> bool:
    """Tell whether what was said last is what a tool gave."""
    if not isinstance(item, dict):
        return False
    kind, content = item.get("type"), item.get("content")
    if item.get("role") in ("tool", "function") or (isinstance(kind, str) and kind.endswith("_output")):
        return True
    parts = content if isinstance(content, list) else ()
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
