"""The questions of the suite: each numbered, so that its answer is known and nobody else's. Pure.

Entry points: :func:`asking`, :func:`is_right`, :func:`pieces`.
"""

from __future__ import annotations

from collections.abc import Sequence

from serving.chaos.api import CHAT, Api, Json, is_answer_to
from serving.chaos.client import Ask, Reply
from serving.chaos.load import Asking, Judging
from serving.chaos.scratch import MODELS

#: What every piece of a scripted answer begins with, as its event holds it.
PIECE_MARK = b'"~'


def asking(
    candidate: str = "pair",
    api: Api = CHAT,
    *,
    timeout_s: float = 30.0,
    is_stream: bool = False,
    more: Json | None = None,
) -> Asking:
    """Return what makes the request of a number."""

    def ask(number: int) -> Ask:
        body = api.body(candidate, f"{number} + 1", is_stream=is_stream, more=more)
        return Ask(body, api.path, timeout_s=timeout_s)

    return ask


def is_right(models: Sequence[str] = MODELS, api: Api = CHAT) -> Judging:
    """Return what judges a whole answer: the whole text of exactly one provider, to exactly this question."""

    def judge(reply: Reply, number: int) -> str:
        if reply.ending != "whole":
            return reply.ending
        if reply.status != 200:
            return f"status {reply.status}"
        return "" if is_answer_to(api.said(bytes(reply.body)), number, models) else "a wrong answer"

    return judge


def pieces(model: str, n: int) -> list[str]:
    """Return the pieces of a scripted answer, four characters each: one event of a stream for each, none the same."""
    return [f"~{i:02}{model[0]}" for i in range(n)]


def is_start_of_one(text: str, n_most: int, models: Sequence[str] = MODELS) -> bool:
    """Say whether a text is the beginning of what exactly one model was told to say."""
    return any("".join(pieces(model, n_most)).startswith(text) for model in models)
