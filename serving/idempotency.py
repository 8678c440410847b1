"""Idempotency keys: a request that is sent again, because its client did not hear the answer, is answered once.

::

    claim ─┬─ nobody has this key ──────▶ Turn: make the answer; what is sent is recorded
           ├─ its answer is kept ───────▶ Replay: the same bytes again
           ├─ it is being made ─ wait ─┬▶ Replay when it is done, whatever it has become, an error too
           │                           ├▶ Turn when its client left before: the key is free again, and is called again
           │                           └▶ 409 after WAIT_S
           └─ another body ─────────────▶ 422

A request is answered, and charged, once, unless the client left: then the call was dropped, though the provider may
charge for it, and the same key calls again. Only good answers are kept: after an error the key is free, and the next
request calls again. A stream is followed to its end and then repeated whole. An answer too large to keep leaves its key
behind (409), so that it is not charged twice without a word. Answers live in memory, bounded in number, size and time;
bodies are known by a digest under a key of this process. One key of a client, one path, one idempotency key are one
thing.

Entry points: :meth:`IdempotencyStore.claim`, :class:`Turn`, :class:`Replay`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from serving.edge import Message, Send
from serving.errors import IdempotencyConflict, IdempotencyKeyReused, InvalidRequest

HEADER = b"idempotency-key"
REPLAYED = (b"x-turnout-idempotent-replay", b"true")
#: How long a second request waits for the first one's answer.
WAIT_S = 60.0
#: Of one answer, of all of them, and how many keys are remembered.
MAX_ANSWER_BYTES = 2**20
MAX_KEPT_BYTES = 64 * 2**20
MAX_KEYS = 10_000
_FORMAT = re.compile(rb"[\x21-\x7e]{1,255}")
#: (name of the client's key, path, idempotency key)
_Id = tuple[str, str, bytes]


@dataclass(frozen=True, slots=True)
class Replay:
    """An answer as it was sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def n_bytes(self) -> int:
        """Bytes of body and headers."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)

    async def send(self, send: Send) -> None:
        """Send it again, marked."""
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.headers, REPLAYED]})
        await send({"type": "http.response.body", "body": self.body})


class _Entry:
    """What is known of one key: it is being answered, or was; then ``replay`` is None where that was not kept."""

    __slots__ = ("digest", "done", "replay", "until")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        #: Set when the turn ends: to what all who wait get, or None where they shall look again.
        self.done: asyncio.Future[Replay | None] = asyncio.get_running_loop().create_future()
        self.replay: Replay | None = None
        self.until = 0.0


class Turn:
    """The right and the duty to answer one key; :meth:`end` in any case."""

    def __init__(self, store: IdempotencyStore, id: _Id, entry: _Entry) -> None:
        self._store = store
        self._id = id
        self._entry = entry
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []
        self._n_bytes = 0
        self._is_whole = False

    def recording(self, send: Send) -> Send:
        """Return a send that takes note of everything sent."""

        def noting(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._status, self._headers = message["status"], list(message["headers"])
            else:
                self._n_bytes += len(message["body"])
                if self._n_bytes <= MAX_ANSWER_BYTES:
                    self._parts.append(message["body"])
                self._is_whole = not message.get("more_body", False)
            return send(message)

        return noting

    def end(self, outcome: str) -> None:
        """End the turn: keep what was answered well, share what failed, free the key where the client left.

        Parameters
        ----------
        outcome : str
            Of the exchange.
        """
        is_kept = outcome == "ok"
        replay = None
        if (is_kept or self._is_whole) and self._n_bytes <= MAX_ANSWER_BYTES:
            replay = Replay(self._status, self._headers, b"".join(self._parts))
        self._store._end(self._id, self._entry, replay, is_kept=is_kept)


class IdempotencyStore:
    """The keys in use, and the answers kept.

    Parameters
    ----------
    keep_for_s : float
        0 keeps nothing and looks at no key.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, keep_for_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.keep_for_s = keep_for_s
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._running: dict[_Id, _Entry] = {}
        self._kept: OrderedDict[_Id, _Entry] = OrderedDict()
        #: Those of the kept whose answers are kept too, the oldest first, so that nobody has to look for one.
        self._answers: deque[_Entry] = deque()
        self._n_bytes = 0

    async def claim(self, name: str, path: str, key: bytes, body: bytes) -> Replay | Turn:
        """Return the answer to a key, or the turn to make it; waits while another has the turn.

        Parameters
        ----------
        name : str
            Of the client's key.
        path : str
        key : bytes
            The idempotency key.
        body : bytes

        Raises
        ------
        InvalidRequest
            The key is not 1 to 255 visible ASCII characters.
        IdempotencyKeyReused
            It came with another body before.
        IdempotencyConflict
            It is still being answered, or its answer was not kept.
        """
        if _FORMAT.fullmatch(key) is None:
            raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters", param="Idempotency-Key")
        id = (name, path, key)
        digest = hashlib.blake2b(body, key=self._secret, digest_size=16).digest()
        give_up_at = self._clock() + WAIT_S
        while True:
            self._forget_expired()
            entry = self._running.get(id) or self._kept.get(id)
            if entry is None:
                entry = self._running[id] = _Entry(digest)
                return Turn(self, id, entry)
            if not secrets.compare_digest(entry.digest, digest):
                raise IdempotencyKeyReused(
                    "this Idempotency-Key came with another body before: send a new key with a new request",
                    param="Idempotency-Key",
                )
            if id in self._kept:
                if entry.replay is None:
                    raise IdempotencyConflict(
                        "this Idempotency-Key was answered already, and its answer was not kept: it was larger than "
                        f"{MAX_ANSWER_BYTES} bytes, or memory was short",
                        param="Idempotency-Key",
                        code="idempotency_answer_not_kept",
                    )
                return entry.replay
            await asyncio.wait({entry.done}, timeout=give_up_at - self._clock())
            if not entry.done.done():
                raise IdempotencyConflict(
                    "a request with this Idempotency-Key is still being answered",
                    param="Idempotency-Key",
                    retry_after_s=1.0,
                )
            replay = entry.done.result()
            if replay is not None:
                return replay

    def _end(self, id: _Id, entry: _Entry, replay: Replay | None, *, is_kept: bool) -> None:
        if self._running.get(id) is not entry:
            return
        del self._running[id]
        if is_kept and self.keep_for_s > 0:
            entry.replay = replay
            entry.until = self._clock() + self.keep_for_s
            self._kept[id] = entry
            if replay is not None:
                self._n_bytes += replay.n_bytes
                self._answers.append(entry)
            self._make_room()
        entry.done.set_result(replay)

    def _make_room(self) -> None:
        """Let go of the oldest: of keys altogether, of answers so that their keys are still known."""
        while len(self._kept) > MAX_KEYS:
            self._let_go(self._kept.popitem(last=False)[1])
        while self._n_bytes > MAX_KEPT_BYTES:
            self._let_go(self._answers[0])

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._kept:
            id = next(iter(self._kept))
            if self._kept[id].until > now:
                return
            self._let_go(self._kept.pop(id))

    def _let_go(self, entry: _Entry) -> None:
        """Let go of an answer, if it is kept still: both orders are that of their ends, so it is the oldest one."""
        if entry.replay is not None:
            self._answers.popleft()
            self._n_bytes -= entry.replay.n_bytes
            entry.replay = None
