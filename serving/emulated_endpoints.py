"""Which path of an emulated provider is what, in which dialect, and how its bodies are read. Pure.

Entry points: :func:`endpoint_of`, :func:`conversation_of`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import orjson

from serving.dialects.chat.dialect import CHAT
from serving.dialects.conversation import Conversation
from serving.dialects.dialect import Dialect
from serving.dialects.gemini.dialect import GEMINI
from serving.dialects.losses import Losses
from serving.dialects.messages.dialect import MESSAGES
from serving.dialects.responses.dialect import RESPONSES
from serving.errors import InvalidRequest
from serving.fields import wrong


class Service(Enum):
    """What an endpoint does."""

    ANSWER = "answer"
    COUNT = "count"
    EMBED = "embed"
    EMBED_MANY = "embed many"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path.

    Parameters
    ----------
    service : Service
    dialect : Dialect
    model : str or None
        Where the path names it; None where the body does.
    is_stream : bool or None
        Where the path says it; None where the body does.
    """

    service: Service
    dialect: Dialect
    model: str | None = None
    is_stream: bool | None = None


_BY_PATH = {
    "/v1/chat/completions": Endpoint(Service.ANSWER, CHAT),
    "/v1/responses": Endpoint(Service.ANSWER, RESPONSES),
    "/v1/responses/input_tokens": Endpoint(Service.COUNT, RESPONSES),
    "/v1/messages": Endpoint(Service.ANSWER, MESSAGES),
    "/v1/messages/count_tokens": Endpoint(Service.COUNT, MESSAGES),
    "/v1/embeddings": Endpoint(Service.EMBED, CHAT),
}
_GEMINI_PATH = re.compile(r"/v1(?:beta)?/models/(.+):([A-Za-z]+)")
_GEMINI_METHODS = {
    "generateContent": (Service.ANSWER, False),
    "streamGenerateContent": (Service.ANSWER, True),
    "countTokens": (Service.COUNT, None),
    "embedContent": (Service.EMBED, None),
    "batchEmbedContents": (Service.EMBED_MANY, None),
}
#: Fields by which a provider would know what was said before, and its code for not knowing it.
_STATEFUL = {"previous_response_id": "previous_response_not_found", "conversation": "conversation_not_found"}
_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")
_MOST_IGNORED = 32


def endpoint_of(path: str) -> Endpoint | None:
    """Return what is at a decoded path, None for nothing that takes a model."""
    endpoint = _BY_PATH.get(path)
    if endpoint is not None:
        return endpoint
    found = _GEMINI_PATH.fullmatch(path)
    method = _GEMINI_METHODS.get(found[2]) if found else None
    return None if found is None or method is None else Endpoint(method[0], GEMINI, found[1], method[1])


def conversation_of(endpoint: Endpoint, body: Mapping[str, object]) -> Conversation:
    """Read a request as tolerantly as providers do.

    What a provider may know but the neutral form does not is ignored; so is, in Chat, whatever cannot be, since
    providers of that dialect differ in what they refuse.

    Raises
    ------
    InvalidRequest
        Without what is wrong nothing is left to answer.
    """
    _check(endpoint, body)
    inner = body.get("generateContentRequest") if endpoint.service is Service.COUNT else None  # Gemini's second form
    left: dict[str, object] = dict(inner if isinstance(inner, dict) else body)
    first: InvalidRequest | None = None
    for _ in range(_MOST_IGNORED):
        try:
            return endpoint.dialect.read_request(left, Losses())
        except InvalidRequest as error:
            if first is None:
                first, left = error, orjson.loads(orjson.dumps(left))
            is_forgiven = endpoint.dialect is CHAT or error.code == "unsupported_parameter"
            if not is_forgiven or not _ignored(left, error.param or ""):
                raise first from None
    raise first or AssertionError("unreachable")


def _check(endpoint: Endpoint, body: Mapping[str, object]) -> None:
    """Refuse what the providers of a dialect refuse, although its reader does not."""
    if endpoint.dialect is MESSAGES and endpoint.service is Service.ANSWER and body.get("max_tokens") is None:
        raise wrong("max_tokens", None, "the most tokens to answer with")
    if endpoint.dialect is RESPONSES:
        for name, code in _STATEFUL.items():
            if body.get(name) is not None:
                raise InvalidRequest(f"{name}: an emulated provider stores nothing", param=name, code=code)


def _ignored(body: dict[str, object], path: str) -> bool:
    """Take out what a path names; where it is missing, the innermost element of a list around it, else its field.

    Returns
    -------
    bool
        Whether anything was there to take out.
    """
    steps = [int(index) if index else name for index, name in _STEP.findall(path)]
    holder: object = body
    element: tuple[list[object], int] | None = None
    for step in steps[:-1]:
        if isinstance(step, int) and isinstance(holder, list) and step < len(holder):
            element = (holder, step)
            holder = holder[step]
        elif isinstance(holder, dict):
            holder = holder.get(step)
    last = steps[-1] if steps else ""
    is_there = last in holder if isinstance(holder, dict) else isinstance(last, int) and last < _length(holder)
    if is_there:
        del holder[last]  # type: ignore[attr-defined]
    elif element is not None:
        del element[0][element[1]]
    else:
        return bool(steps) and body.pop(str(steps[0]), None) is not None
    return True


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0
