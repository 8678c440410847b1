"""The three APIs as their callers see them: what is asked, what was said, how a stream ended. Pure.

Written here once more, and not taken from the gateway, so that it is judged by other eyes than its own. Entry points:
:data:`APIS`, :class:`Api`, :func:`is_answer_to`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Told:
    """What a stream told: its text, and its ending: "done", "error", "none", or "both" (which must never be)."""

    text: str
    ending: str


@dataclass(frozen=True, slots=True)
class Api:
    """One row.

    Parameters
    ----------
    name, path : str
    body_of : callable (model, text, is_stream) -> body
    text_of : callable (answer) -> str
        Of a whole answer.
    piece_of : callable (event) -> str
        Of one event of a stream; "" where it holds no text.
    ends : callable (event) -> str
        "done", "error" or "".
    """

    name: str
    path: str
    body_of: Callable[[str, str, bool], Json]
    text_of: Callable[[Json], str]
    piece_of: Callable[[Json], str]
    ends: Callable[[Json], str]

    def body(self, model: str, text: str, *, is_stream: bool = False, more: Json | None = None) -> bytes:
        """Write a request, with more fields where there are any."""
        return orjson.dumps({**self.body_of(model, text, is_stream), **(more or {})})

    def said(self, body: bytes) -> str:
        """Return the text of a whole answer; "" where there is none to be found."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return ""
        return self.text_of(answer) if isinstance(answer, dict) else ""

    def told(self, body: bytes) -> Told:
        """Return what a stream told."""
        pieces: list[str] = []
        endings: list[str] = []
        for event in _events(body):
            ending = self.ends(event)
            if ending:
                endings.append(ending)
            else:
                pieces.append(self.piece_of(event))
        distinct = set(endings)
        return Told("".join(pieces), "none" if not distinct else "both" if len(distinct) > 1 else endings[0])


def is_answer_to(text: str, number: int, models: Sequence[str]) -> bool:
    """Say whether a text is what exactly one of these emulated models answers to ``number + 1``."""
    return any(text == f"[emulated {model}] {number} + 1 = {number + 1}" for model in models)


def _events(body: bytes) -> Iterator[Json]:
    for event in body.split(b"\n\n"):
        for line in event.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            try:
                value = {"done": True} if data == b"[DONE]" else orjson.loads(data)
            except orjson.JSONDecodeError:
                value = {"error": "no JSON"}
            if isinstance(value, dict):
                yield value


def _at(value: object, *path: str | int) -> object:
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and len(value) > step:
            value = value[step]
        else:
            return None
    return value


def _text(value: object, *path: str | int) -> str:
    found = _at(value, *path)
    return found if isinstance(found, str) else ""


def _chat_body(model: str, text: str, is_stream: bool) -> Json:
    return {"model": model, "messages": [{"role": "user", "content": text}], **({"stream": True} if is_stream else {})}


def _responses_body(model: str, text: str, is_stream: bool) -> Json:
    return {"model": model, "input": text, "store": False, **({"stream": True} if is_stream else {})}


def _messages_body(model: str, text: str, is_stream: bool) -> Json:
    return {**_chat_body(model, text, is_stream), "max_tokens": 1_000}


def _ends_chat(event: Json) -> str:
    return "done" if "done" in event else "error" if event.get("error") is not None else ""


def _ends_responses(event: Json) -> str:
    kinds = {"response.completed": "done", "response.incomplete": "done", "response.failed": "error", "error": "error"}
    return kinds.get(_text(event, "type"), "")


def _ends_messages(event: Json) -> str:
    return {"message_stop": "done", "error": "error"}.get(_text(event, "type"), "")


def _responses_piece(event: Json) -> str:
    return _text(event, "delta") if event.get("type") == "response.output_text.delta" else ""


CHAT = Api(
    "chat",
    "/v1/chat/completions",
    _chat_body,
    lambda answer: _text(answer, "choices", 0, "message", "content"),
    lambda event: _text(event, "choices", 0, "delta", "content"),
    _ends_chat,
)
RESPONSES = Api(
    "responses",
    "/v1/responses",
    _responses_body,
    lambda answer: _text(answer, "output", 0, "content", 0, "text"),
    _responses_piece,
    _ends_responses,
)
MESSAGES = Api(
    "messages",
    "/v1/messages",
    _messages_body,
    lambda answer: _text(answer, "content", 0, "text"),
    lambda event: _text(event, "delta", "text"),
    _ends_messages,
)
APIS = (CHAT, RESPONSES, MESSAGES)
