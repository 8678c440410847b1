"""Conversations: which requests belong together, who answered last, and what is cached of them where.

Clients send a conversation whole with every request. It is recognised by how it opens (the beginning of the system's
text, the first words of a human), by who asks for which model, and by the ids that clients send of their own accord; a
conversation whose opening changed is another one, as it is for the caches of the providers. That finds the incumbent of
a pending tool call too: the ids of calls pass through in streams that nobody reads here, and those who open alike and
have no id of their own are decided alike, unless their dials differ. What is kept is a keyed digest, names of
candidates and rules, counters and times: the key is drawn for each process, so that nobody can test a guess, and
nothing reaches a disk.
The memory is bounded, and what is not continued is forgotten.

Entry points: :meth:`Conversations.turn_of` gives a request its place, :meth:`Turn.history` says what a decision has to
know, :meth:`Turn.answered` remembers who answered.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from router.domain import Price
from router.history import History, n_requests_bound
from router.pricing import Usage
from router.text import human_of

N_CONVERSATIONS = 50_000
#: How long providers keep what they read: the least that any of them promises, and what a caller may ask for.
CACHE_LIFE_S, LONG_CACHE_LIFE_S = 300.0, 3600.0
#: Nobody caches less than this.
LEAST_CACHED_TOKENS = 1_024
#: Of one conversation, candidates whose cache is remembered.
MOST_CACHES = 4
#: Of each block of an opening, what is looked at.
OPENING_CHARACTERS = 8_000
#: Of the system's text, what is looked at. Harnesses begin it with what they are, and go on with what changes: the day,
#: the folder, the state of its repository. Digits are left out, for those who begin it with the time.
SYSTEM_CHARACTERS = 500
#: How blocks begin that differ in every request (Claude Code, November 2026).
_BILLING = "x-anthropic-billing-header:"
_WITHOUT_DIGITS = dict.fromkeys(map(ord, "0123456789"))
_SYSTEM_ROLES = frozenset({"system", "developer"})
#: What clients call their conversations: our own header, Claude Code, Codex (now and before), opencode.
ID_HEADERS = frozenset(
    {
        b"x-turnout-conversation",
        b"x-claude-code-session-id",
        b"session-id",
        b"thread-id",
        b"session_id",
        b"conversation_id",
        b"x-session-id",
    }
)
#: Fields that tell conversations, or at least people, apart; ``metadata.user_id`` and ``conversation`` do too.
_ID_FIELDS = ("prompt_cache_key", "user", "safety_identifier")
#: What marks the end of what a provider shall cache.
_MARK = b'"cache_control"'
#: An assistant's turn that ends with one of these is not over: it is to be gone on with.
_UNFINISHED = frozenset({"server_tool_use", "thinking", "redacted_thinking"})
#: Items of Responses that stand for an assistant which is not done.
_CALLS = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "reasoning",
        "local_shell_call",
        "computer_call",
        "mcp_approval_request",
        "mcp_approval_response",
    }
)


@dataclass(slots=True)
class _Kept:
    """What is remembered of one conversation; caches are (candidate, its own tokens, until when).

    ``rule`` led to the incumbent in the human's turn; "" where none did.
    """

    incumbent: str
    n_messages: int
    n_requests: int
    n_human_turns: int
    forget_at: float
    caches: tuple[tuple[str, int, float], ...]
    rule: str = ""


@dataclass(slots=True)
class Turn:
    """One request in its conversation; frozen but for the rule that it goes by.

    Parameters
    ----------
    is_pending : bool
        Somebody is in the middle of something, and this request goes on with it.
    is_marked : bool
        The caller says what shall be cached.
    told : bytes
        What tells its conversation from others, the same in every process; it may hold anybody's words.
    """

    is_pending: bool
    is_marked: bool
    told: bytes = field(repr=False)
    _digest: bytes = field(repr=False)
    _n_messages: int
    _known: _Kept | None
    _conversations: Conversations = field(repr=False)
    _keep_for_s: float
    _rule: str = ""

    def kept_rule(self) -> str | None:
        """Return the rule that the human's turn goes on by, "" for none; None where every rule is free to match."""
        return self._known.rule if self._known is not None and self.is_pending else None

    def goes_by(self, rule: str | None) -> None:
        """Note which rule led this request, to be remembered with its answer."""
        self._rule = rule or ""

    def history(self) -> History | None:
        """Return what a decision has to know; None where the conversation opens here, or was forgotten."""
        known = self._known
        if known is None:
            return None
        now = self._conversations.now()
        return History(
            known.incumbent,
            self.is_pending,
            {name: n_tokens for name, n_tokens, until in known.caches if until >= now},
            n_requests_bound(known.n_requests, known.n_human_turns),
            self.is_marked,
        )

    def became(self, candidate: str) -> bytes:
        """Say what an answer by this candidate makes of the conversation: ``new``, ``kept`` or ``switched``."""
        if self._known is None:
            return b"new"
        return b"kept" if candidate == self._known.incumbent else b"switched"

    def answered(self, candidate: str, usage: Usage, price: Price | None) -> None:
        """Remember who answered, and what its provider has read of the conversation."""
        now = self._conversations.now()
        before = None if self._known is None else self._conversations.get(self._digest)
        n_tokens, life_s = cached_tokens(usage, price)
        caches = () if before is None else tuple(c for c in before.caches if c[0] != candidate and c[2] >= now)
        if n_tokens:
            caches = (*caches[1 - MOST_CACHES :], (candidate, n_tokens, now + life_s))
        self._conversations.put(
            self._digest,
            _Kept(
                candidate,
                self._n_messages,
                1 if before is None else before.n_requests + 1,
                1 if before is None else before.n_human_turns + (not self.is_pending),
                now + self._keep_for_s,
                caches,
                self._rule,
            ),
        )


class Conversations:
    """The memory; of this process only.

    Parameters
    ----------
    n_most : int, default=50000
        Conversations it holds; those that were not continued for longest go first.
    clock : callable, default=time.monotonic
        Seconds.
    """

    def __init__(self, *, n_most: int = N_CONVERSATIONS, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._n_most = n_most
        self._clock = clock
        self._secret = os.urandom(32)

    def __len__(self) -> int:
        return len(self._kept)

    def now(self) -> float:
        """Return the time it goes by, in monotonic seconds."""
        return self._clock()

    def turn_of(
        self,
        who: Sequence[str],
        body: Mapping[str, object],
        headers: Iterable[tuple[bytes, bytes]],
        *,
        n_messages: int,
        raw: bytes = b"",
        keep_for_s: float = LONG_CACHE_LIFE_S,
    ) -> Turn | None:
        """Give a request its place.

        Parameters
        ----------
        who : sequence of str
            What tells callers apart: the name of the key, and of the model asked for.
        body : Mapping
            Of any of the APIs, with its whole history.
        headers : iterable of (bytes, bytes)
            Raw, lower-case names.
        n_messages : int
            Of the body, as routing counts them.
        raw : bytes
            The body as it came.
        keep_for_s : float
            How long a conversation is remembered after its last answer; 0 recognises none.

        Returns
        -------
        Turn or None
            None where nothing tells this conversation from others.
        """
        items = items_in(body)
        if not keep_for_s or not items:
            return None
        named: list[object] = [value for name, value in headers if name in ID_HEADERS]
        named += named_in(body)
        opening = opening_of(items)
        if not opening and not named:
            return None
        # No two tuples are written alike, whatever they hold; the opening is long, and stands last as it is.
        told = repr((*who, bool(body.get("tools")), named, _system_of(body, items))).encode("utf-8", "surrogatepass")
        told += opening.encode("utf-8", "surrogatepass")
        name = blake2b(told, digest_size=16, key=self._secret).digest()
        known = self.get(name)
        if known is not None and (n_messages < known.n_messages or not _has_answer(items)):
            known = None  # it was cut short, or opens once more: what was cached is of another one
        is_pending = known is not None and pending(items)
        return Turn(is_pending, _MARK in raw, told, name, n_messages, known, self, keep_for_s)

    def get(self, digest: bytes) -> _Kept | None:
        """Return what is kept under a digest, unless it is to be forgotten."""
        known = self._kept.get(digest)
        if known is not None and known.forget_at < self._clock():
            del self._kept[digest]
            return None
        return known

    def put(self, digest: bytes, kept: _Kept) -> None:
        """Keep, and forget what is too old or too much."""
        self._kept[digest] = kept
        self._kept.move_to_end(digest)
        now = self._clock()
        # Two at most for each that comes: the memory shrinks again after a rush, and no request pays for it.
        for _ in range(2):
            oldest = next(iter(self._kept))
            if len(self._kept) <= self._n_most and self._kept[oldest].forget_at >= now:
                break
            del self._kept[oldest]


def cached_tokens(usage: Usage, price: Price | None) -> tuple[int, float]:
    """Return how much of a request its provider has cached now, in tokens, and for how many seconds at least.

    Who charges for writing a cache says how much it wrote and read. Who does not caches of its own accord.
    """
    if price is None or price.cache_read_usd_per_mtok is None:
        return 0, 0.0
    if price.cache_write_usd_per_mtok is not None:
        n_tokens = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    else:
        n_tokens = usage.input_tokens or 0
    if n_tokens < LEAST_CACHED_TOKENS:
        return 0, 0.0
    return n_tokens, LONG_CACHE_LIFE_S if usage.cache_write_1h_tokens else CACHE_LIFE_S


def opening_of(items: Sequence[object]) -> str:
    """Return the first words of a human in a conversation, without what harnesses added; "" where there are none."""
    for item in items:
        if isinstance(item, dict) and item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                content = content[:OPENING_CHARACTERS]
            elif isinstance(content, list):
                content = [_begun(part) for part in content]
            words, _ = human_of(content)
            if words:
                return words
    return ""


def pending(items: Sequence[object]) -> bool:
    """Say whether a request goes on with what an assistant has begun: it has called tools, or has not finished.

    What only harnesses say after a tool's result changes nothing; what a human says there does, except within the same
    message, which providers require to hold the result.
    """
    for item in reversed(items):
        if not isinstance(item, dict):
            continue
        kind, role, content = item.get("type"), item.get("role"), item.get("content")
        if role in ("tool", "function"):
            return True
        if role == "user":
            parts = content if isinstance(content, list) else ()
            if any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts):
                return True
            words, has_more = human_of(content)
            if words or has_more:
                return False
        elif role == "assistant":
            parts = content if isinstance(content, list) else ()
            kinds = [part.get("type") for part in parts if isinstance(part, dict)]
            return bool(item.get("tool_calls")) or "tool_use" in kinds or bool(kinds and _is_unfinished(kinds[-1]))
        elif isinstance(kind, str) and (kind.endswith("_output") or kind in _CALLS):
            return True
    return False


def _is_unfinished(kind: object) -> bool:
    """Say whether an assistant's turn that ends with such a part is to be gone on with."""
    return isinstance(kind, str) and (kind in _UNFINISHED or kind.endswith("_tool_result"))


def _has_answer(items: Sequence[object]) -> bool:
    """Say whether somebody has answered already; else the conversation opens, perhaps once more."""
    for item in items:
        if isinstance(item, dict):
            kind, role = item.get("type"), item.get("role")
            if role in ("assistant", "tool", "function"):
                return True
            if role is None and isinstance(kind, str) and (kind in _CALLS or kind.endswith(("_output", "_call"))):
                return True
    return False


def _system_of(body: Mapping[str, object], items: Sequence[object]) -> str:
    """Return the beginning of what the system says: a field of its own, or what stands before a human's turn."""
    found: list[str] = []
    n_wanted = SYSTEM_CHARACTERS
    for content in (body.get("system"), body.get("instructions"), *_before_humans(items)):
        for part in content if isinstance(content, list) else (content,):
            words = part.get("text") if isinstance(part, dict) else part
            if isinstance(words, str) and not words.startswith(_BILLING):
                found.append(words[:n_wanted])
                n_wanted -= len(found[-1])
        if n_wanted <= 0:
            break
    return "\n".join(found).translate(_WITHOUT_DIGITS)


def _before_humans(items: Sequence[object]) -> Iterator[object]:
    for item in items:
        if not isinstance(item, dict) or item.get("role") not in _SYSTEM_ROLES:
            return
        yield item.get("content")


def items_in(body: Mapping[str, object]) -> Sequence[object]:
    """Return what was said so far: messages, or the items of Responses; nothing of the APIs without conversations."""
    said = body.get("messages") or body.get("input")
    if isinstance(said, str):
        return ({"role": "user", "content": said},)
    return said if isinstance(said, list) else ()


def named_in(body: Mapping[str, object]) -> list[object]:
    """Return the ids that stand in a body."""
    metadata, conversation = body.get("metadata"), body.get("conversation")
    found = [body.get(name) for name in _ID_FIELDS]
    found.append(conversation.get("id") if isinstance(conversation, dict) else conversation)
    found.append(metadata.get("user_id") if isinstance(metadata, dict) else None)
    return [value for value in found if isinstance(value, str)]


def _begun(part: object) -> object:
    if isinstance(part, dict) and isinstance(part.get("text"), str) and len(part["text"]) > OPENING_CHARACTERS:
        return {**part, "text": part["text"][:OPENING_CHARACTERS]}
    return part
