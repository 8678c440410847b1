"""Asks candidates: from the file of answers where it can, else through the gateway, within the budget.

::

    call ─┬─ answered before ────────────────────────────────▶ Answer, for nothing
          └─ reserve its worst cost ─┬─ no room ─────────────▶ Unanswered
                                     └─ begun ─ ask ─┬─ ok ──▶ Answer, kept
                                           ▲         ├─ for a while ─ wait, at most n_tries
                                           └─────────┘
                                                     └─ else ▶ Unanswered
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Mapping

from training.labelling.answer_file import AnswerFile
from training.labelling.budget import Budget
from training.labelling.call import NEW_LIMIT, OLD_LIMIT, Answer, Call, Unanswered
from training.labelling.gateway import Gateway, Reply

#: Of calls in a row after all their tries: then a candidate is left alone for the rest of the run.
MAX_FAILURES_IN_A_ROW = 5
_MAX_WAIT_S = 60.0
_FOR_A_WHILE = frozenset({0, 408, 409, 425, 429})
_NOBODY_THERE = ("upstream_unreachable", "upstream_credential_refused")


class Asker:
    """Asks, each call once however often it is wanted.

    Parameters
    ----------
    gateway : Gateway
    answers : AnswerFile
    budget : Budget
    n_at_once : int
    n_tries : int
    retry_wait_s : float

    Attributes
    ----------
    n_asked, n_cached : int
        Calls made, each try one, and calls that cost nothing since their answer was there.
    """

    def __init__(
        self, gateway: Gateway, answers: AnswerFile, budget: Budget, n_at_once: int, n_tries: int, retry_wait_s: float
    ) -> None:
        self.n_asked = 0
        self.n_cached = 0
        self._gateway = gateway
        self._answers = answers
        self._budget = budget
        self._slots = asyncio.Semaphore(n_at_once)
        self._n_tries = n_tries
        self._retry_wait_s = retry_wait_s
        self._under_way: dict[str, asyncio.Future[Answer | Unanswered]] = {}
        self._limit_fields: dict[str, str] = {}
        self._n_failed: Counter[str] = Counter()

    async def ask(self, call: Call) -> Answer | Unanswered:
        """Return the answer to a call, or why there is none."""
        kept = self._answers.get(call.digest)
        if kept is not None:
            self.n_cached += 1
            return kept
        under_way = self._under_way.get(call.digest)
        if under_way is None:
            under_way = asyncio.ensure_future(self._tried(call))
            self._under_way[call.digest] = under_way
        return await under_way

    async def _tried(self, call: Call) -> Answer | Unanswered:
        name, worst_usd = call.target.name, call.worst_cost_usd
        if worst_usd is None:
            return Unanswered("its price is unknown, so no cap could be kept")
        reply = Reply(0, {}, None, 0.0)
        for i in range(self._n_tries):
            async with self._slots:
                if self._n_failed[name] >= MAX_FAILURES_IN_A_ROW:
                    return Unanswered("left alone after failing again and again")
                if not await self._budget.reserve(worst_usd):
                    return Unanswered("the budget is reached")
                reply, result = await self._paid(call, worst_usd)
            if isinstance(result, Answer):
                self._n_failed[name] = 0
                return result
            if reply.status == 400 and self._takes_other_limit(name, reply):
                continue
            if reply.status not in _FOR_A_WHILE and reply.status < 500:
                break
            if i + 1 < self._n_tries:
                await asyncio.sleep(_wait_s(reply, self._retry_wait_s * 2**i))
        # A refusal is of this one prompt; what fails for a while may fail for all.
        if reply.status in _FOR_A_WHILE or reply.status >= 500:
            self._n_failed[name] += 1
        return result

    async def _paid(self, call: Call, worst_usd: float) -> tuple[Reply, Answer | Unanswered]:
        name = call.target.name
        limit_field = self._limit_fields.get(name, OLD_LIMIT)
        self._answers.begin(call.digest, worst_usd)
        self.n_asked += 1
        counted_usd = worst_usd
        try:
            reply = await self._gateway.ask(call.body(limit_field), f"label-{call.digest}-{limit_field}")
            result = _read(reply, name)
            cost_usd = _cost_usd(reply)
            # Of a call that broke off nobody knows what it cost: it counts at its worst.
            counted_usd = cost_usd if cost_usd is not None else 0.0 if _was_turned_away(reply) else worst_usd
            if isinstance(result, Answer):
                self._answers.answered(call.digest, name, result, counted_usd)
            else:
                self._answers.failed(call.digest, name, result.why, counted_usd)
        finally:
            await asyncio.shield(self._budget.settle(worst_usd, counted_usd))
        return reply, result

    def _takes_other_limit(self, name: str, reply: Reply) -> bool:
        """Turn to the newer name of the limit where a provider refuses the older one and says so."""
        if self._limit_fields.get(name) == NEW_LIMIT or NEW_LIMIT not in json.dumps(reply.body):
            return False
        self._limit_fields[name] = NEW_LIMIT
        return True


def _was_turned_away(reply: Reply) -> bool:
    """Say whether no candidate began to answer: refused, overloaded, or nobody there."""
    return 400 <= reply.status < 500 or reply.status in (503, 529) or _code(reply) in _NOBODY_THERE


def _code(reply: Reply) -> object:
    return _mapping((reply.body or {}).get("error")).get("code")


def _read(reply: Reply, name: str) -> Answer | Unanswered:
    """Make an answer of a reply, or say why it is none."""
    if reply.status == 0:
        return Unanswered(f"no reply ({reply.headers.get('x-reason', 'unknown')})")
    if reply.status != 200:
        code = _code(reply)
        return Unanswered(f"status {reply.status}" + (f" ({code})" if isinstance(code, str) else ""))
    by = reply.headers.get("x-turnout-candidate")
    if by != name:
        return Unanswered(f"{by or 'nobody known'} answered in its place")
    choices = (reply.body or {}).get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    if "message" not in choice:
        return Unanswered("a reply without an answer in it")
    message, usage = _mapping(choice["message"]), _mapping((reply.body or {}).get("usage"))
    content = message.get("content")
    text = content if isinstance(content, str) else ""
    if not text and message.get("tool_calls"):
        text = json.dumps(message["tool_calls"], ensure_ascii=False)
    return Answer(
        text=text,
        finish=str(choice.get("finish_reason") or ""),
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cost_usd=_cost_usd(reply),
        latency_s=round(reply.latency_s, 6),
        is_emulated=reply.headers.get("x-turnout-emulated") == "true",
    )


def _cost_usd(reply: Reply) -> float | None:
    try:
        cost_usd = float(reply.headers.get("x-turnout-cost-usd", ""))
    except ValueError:
        return None
    return cost_usd if math.isfinite(cost_usd) and cost_usd >= 0 else None


def _wait_s(reply: Reply, otherwise: float) -> float:
    try:
        told = float(reply.headers.get("retry-after", ""))
    except ValueError:
        told = otherwise
    return min(max(told, 0.0), _MAX_WAIT_S)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
