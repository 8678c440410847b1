"""Opaque reasoning state: back to its maker byte for byte, and to nobody else.

Providers sign or encrypt what their models thought, and want it back with the next turn. A state that crosses into
another dialect travels in an envelope: encrypted and authenticated with a key of the gateway's, bound to the maker and
to the client's key. What comes back is opened only for the maker it came from; whatever else is dropped.

Where the client's API has no place for a state (Chat; the signatures of Gemini's calls in any), it is kept here by the
id of the tool call, and what passed through untouched is remembered by its digest, so that it is not shown to
another provider either. Both memories are bounded, expire, are of this process only and never touch a disk.

Entry point: :class:`ReasoningStates`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from serving.dialects.conversation import Conversation, Message, Part, Reasoning, ToolCall

PREFIX = "turnout1."
EXPIRES_AFTER_S = 6 * 3600.0
_N_NONCE_BYTES = 12
#: What an entry takes besides its value, roughly.
_ENTRY_BYTES = 300
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What one tool call needs to go back: the thoughts before it, and its own state."""

    maker: str
    thoughts: tuple[Reasoning, ...]
    state: str | None


class ReasoningStates:
    """Seals, opens and remembers.

    Parameters
    ----------
    secret : bytes or None
        What the encryption key is derived from; the same for all replicas. None makes one for this process: states
        sealed before a restart are then dropped, and the model thinks anew.
    n_bytes : int, default=33554432
        Most that the memories may hold, each; the oldest go first.
    clock : callable, default=time.monotonic
        Seconds.
    """

    def __init__(
        self, secret: bytes | None = None, *, n_bytes: int = 32 * 2**20, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._secret = secret or os.urandom(32)
        self._cipher: object | None = None
        self._by_call: _Memory[_Kept] = _Memory(n_bytes, clock)
        self._makers: _Memory[str] = _Memory(n_bytes, clock)

    def seal(self, state: str, maker: str, key: str) -> str:
        """Put a state into an envelope.

        Parameters
        ----------
        state : str
            As its maker made it; may be empty.
        maker : str
            The provider.
        key : str
            Name of the client's key; nobody else can have it opened.
        """
        nonce = os.urandom(_N_NONCE_BYTES)
        text = f"{maker}\n{state}".encode("utf-8", "surrogatepass")
        sealed: bytes = self._aead().encrypt(nonce, text, key.encode())  # type: ignore[attr-defined]
        return PREFIX + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, envelope: str, maker: str, key: str) -> str | None:
        """Return the state of an envelope that this maker's answer to this key came in; None of anything else."""
        if not envelope.startswith(PREFIX):
            return None
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.urlsafe_b64decode(envelope[len(PREFIX) :])
            text: bytes = self._aead().decrypt(  # type: ignore[attr-defined]
                raw[:_N_NONCE_BYTES], raw[_N_NONCE_BYTES:], key.encode()
            )
        except (InvalidTag, ValueError):
            return None
        made_by, _, state = text.decode("utf-8", "surrogatepass").partition("\n")
        return state if made_by == maker else None

    def remember(self, states: Iterable[str], maker: str) -> None:
        """Note who made states that pass through untouched."""
        for state in states:
            self._makers.put(_digest(state), maker, 0)

    def passing(self, state: str, maker: str, key: str) -> str | None:
        """Return a state as it may pass through to a provider; None of one that is known to be another's."""
        if state.startswith(PREFIX):
            return self.open(state, maker, key)
        return state if self._makers.get(_digest(state)) in (None, maker) else None

    def keep(self, parts: Iterable[Part], maker: str, key: str, *, with_thoughts: bool) -> None:
        """Keep what the calls of an answer need to go back, where the client's API has no place for it.

        Parameters
        ----------
        parts : iterable of Part
            The answer's, with bare states.
        maker, key : str
        with_thoughts : bool
            Keep the thoughts before the calls too: the client's API carries none.
        """
        thoughts: tuple[Reasoning, ...] = ()
        for part in parts:
            if isinstance(part, Reasoning) and with_thoughts:
                thoughts = (*thoughts, part)
            elif isinstance(part, ToolCall):
                if thoughts or part.state is not None:
                    n_bytes = sum(len(t.text) + len(t.state or "") for t in thoughts) + len(part.state or "")
                    self._by_call.put(_call_key(key, part), _Kept(maker, thoughts, part.state), n_bytes)
                thoughts = ()  # they stand before the first of parallel calls

    def returned(self, conversation: Conversation, maker: str, key: str) -> tuple[Conversation, bool]:
        """Give a conversation its states back, for one maker.

        Returns
        -------
        conversation : Conversation
            Every state in it is bare and of this maker; reasoning of other makers is gone, words and calls stay.
        is_lossless : bool
            Whether nothing had to go.
        """
        lost = False

        def back(message: Message) -> Message:
            nonlocal lost
            if message.role != "assistant":
                return message
            parts: list[Part] = []
            for part in message.parts:
                if isinstance(part, ToolCall):
                    parts += self._call(part, maker, key, has_thoughts=any(isinstance(p, Reasoning) for p in parts))
                elif isinstance(part, Reasoning) and part.state is not None:
                    state = self._own(part.state, maker, key)
                    if state is None:
                        lost = True
                    else:
                        parts.append(replace(part, state=state or None))
                else:
                    parts.append(part)
            return Message(message.role, tuple(parts))

        return replace(conversation, messages=tuple(map(back, conversation.messages))), not lost

    def _call(self, call: ToolCall, maker: str, key: str, *, has_thoughts: bool) -> list[Part]:
        kept = self._by_call.get(_call_key(key, call))
        if kept is None or kept.maker != maker:
            state = self._own(call.state, maker, key) if call.state is not None else None
            return [replace(call, state=state)]
        return [*(() if has_thoughts else kept.thoughts), replace(call, state=kept.state)]

    def _own(self, state: str, maker: str, key: str) -> str | None:
        if state.startswith(PREFIX):
            return self.open(state, maker, key)
        return state if self._makers.get(_digest(state)) == maker else None

    def _aead(self) -> object:
        if self._cipher is None:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM(hashlib.sha256(b"turnout reasoning states\n" + self._secret).digest())
        return self._cipher


class _Memory(Generic[V]):
    """A map bounded in bytes, whose entries expire; the oldest go first."""

    def __init__(self, n_bytes: int, clock: Callable[[], float]) -> None:
        self._entries: OrderedDict[bytes, tuple[float, int, V]] = OrderedDict()
        self._n_free = n_bytes
        self._clock = clock

    def put(self, key: bytes, value: V, n_bytes: int) -> None:
        self._forget(key)
        size = n_bytes + _ENTRY_BYTES
        self._entries[key] = (self._clock() + EXPIRES_AFTER_S, size, value)
        self._n_free -= size
        while self._n_free < 0:
            self._forget(next(iter(self._entries)))

    def get(self, key: bytes) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] < self._clock():
            self._forget(key)
            return None
        return entry[2]

    def _forget(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._n_free += entry[1]


def _digest(state: str) -> bytes:
    return hashlib.blake2b(state.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _call_key(key: str, call: ToolCall) -> bytes:
    """Name a call of a client, by its tool too: ids such as ``call_0`` come again in every conversation.

    Ids come back with some characters replaced where an API is strict.
    """
    return _digest(f"{key}\n{call.name}\n{_NOT_OF_IDS.sub('_', call.id)}")
