"""The turns of a Messages request: neutral messages into messages that Anthropic takes.

It takes users and assistants in turn, no empty text, no system in between, the results of one turn's calls first in
the message after it, one for each call, and thoughts before what was said. Entry point: :func:`turns_of`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence

from serving.dialects.conversation import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from serving.dialects.losses import Losses
from serving.dialects.messages.answer import object_of, safe_id

_LOST_RESULT = "The result of this call is missing from the conversation."
_THOUGHTS = ("thinking", "redacted_thinking")

_Placed = tuple[str, Part]


def turns_of(
    messages: Sequence[Message], n_leading: int, losses: Losses, *, is_claude: bool
) -> list[dict[str, object]]:
    """Write every message after the system prompt.

    Parameters
    ----------
    messages : sequence of Message
    n_leading : int
        How many of them are the system prompt.
    losses : Losses
    is_claude : bool
        Thoughts without their signature are refused; others want their thoughts back as they are.

    Raises
    ------
    InvalidRequest
        The user does not speak first, or something said cannot be said there.
    """
    written: list[dict[str, object]] = []
    ids = _Ids()
    for role, parts in _merged(messages, n_leading, losses, is_claude=is_claude):
        if role == "assistant":
            if not written:
                raise losses.refuse(f"messages[{n_leading}]", "this candidate needs the user to speak first")
            blocks = _assistant(parts, ids, losses)
        else:
            blocks = _user(parts, ids, losses)
        if blocks:
            written.append({"role": role, "content": blocks})
    if missing := ids.unanswered():
        losses.changed(f"messages[{len(messages) - 1}].tool_calls")
        written.append({"role": "user", "content": [_lost(call_id) for call_id in missing]})
    if not written:
        raise losses.refuse("messages", "this candidate needs something that the user says")
    return written


def lacks_thoughts(turns: Sequence[Mapping[str, object]]) -> bool:
    """Return whether the turn that goes on after tools gave results did not begin with thoughts."""
    if len(turns) < 2:
        return False
    said, given = turns[-2]["content"], turns[-1]["content"]
    if not isinstance(said, list) or not isinstance(given, list):
        return False
    return given[0]["type"] == "tool_result" and said[0]["type"] not in _THOUGHTS


def cache_mark(ttl: str | None) -> dict[str, object]:
    """Return the field that asks for caching up to here, or none."""
    if ttl is None:
        return {}
    return {"cache_control": {"type": "ephemeral", **({"ttl": ttl} if ttl else {})}}


def is_blank(part: Part) -> bool:
    """Return whether a part is text without a word in it, which is refused."""
    return isinstance(part, Text | Refusal) and not part.text.strip()


class _Ids:
    """The ids of calls as Anthropic takes them: in its characters, each but once, and answered in the turn after.

    Some providers give the first call of every turn, or all calls of one, the same id.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._waiting: dict[str, list[str]] = {}

    def call(self, call_id: str) -> str:
        """Return the id of a new call."""
        safe = base = safe_id(call_id) or "call"
        n = 2
        while safe in self._used:
            safe, n = f"{base}_{n}", n + 1
        self._used.add(safe)
        self._waiting.setdefault(call_id, []).append(safe)
        return safe

    def result(self, call_id: str) -> str | None:
        """Return the id of the call that a result is of, each once; None where no call of the turn waits for it."""
        waiting = self._waiting.get(call_id)
        return waiting.pop(0) if waiting else None

    def unanswered(self) -> list[str]:
        """Return the calls that still wait, and forget them."""
        waiting, self._waiting = self._waiting, {}
        return [safe for ids in waiting.values() for safe in ids]


def _merged(
    messages: Sequence[Message], n_leading: int, losses: Losses, *, is_claude: bool
) -> Iterator[tuple[str, list[_Placed]]]:
    """Yield turns: what one side said until the other did, without what cannot be sent."""
    held: tuple[str, list[_Placed]] | None = None
    for i, message in enumerate(messages):
        if i < n_leading:
            continue
        parts = list(_placed(message, i, losses, is_claude=is_claude))
        if not parts:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if held is not None and held[0] == role:
            held[1].extend(parts)
            continue
        if held is not None:
            yield held
        held = (role, parts)
    if held is not None:
        yield held


def _placed(message: Message, i: int, losses: Losses, *, is_claude: bool) -> Iterator[_Placed]:
    """Yield the parts of a message that can be sent, with their paths."""
    if message.role == "system":
        losses.changed(f"messages[{i}].role")
        texts = [part for part in message.parts if isinstance(part, Text) and not is_blank(part)]
        if texts:
            words = "\n".join(part.text for part in texts)
            yield f"messages[{i}]", Text(f"<system>\n{words}\n</system>", texts[-1].cache_ttl)
        return
    for j, part in enumerate(message.parts):
        if isinstance(part, Reasoning):
            if part.state is None and (is_claude or not part.text):
                losses.dropped(f"messages[{i}].reasoning")
                continue
        elif is_blank(part):
            continue
        yield f"messages[{i}].content[{j}]", part


def _assistant(parts: Sequence[_Placed], ids: _Ids, losses: Losses) -> list[dict[str, object]]:
    blocks = [_said(part, at, ids, losses) for at, part in parts]
    if blocks[0]["type"] in _THOUGHTS:
        return blocks  # a model that thinks between its words wants them back between its words
    return sorted(blocks, key=lambda block: block["type"] not in _THOUGHTS)


def _said(part: Part, at: str, ids: _Ids, losses: Losses) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "text", "text": part.text, **cache_mark(part.cache_ttl)}
        case Refusal():
            return {"type": "text", "text": part.text}
        case Reasoning(is_redacted=True):
            return {"type": "redacted_thinking", "data": part.state}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.state or ""}
        case ToolCall():
            assert not part.is_custom and part.namespace is None, "custom and namespaced calls are emulated before"
            return {"type": "tool_use", "id": ids.call(part.id), "name": part.name, "input": object_of(part.arguments)}
        case _:
            raise losses.refuse(at, "an assistant can only have said text here")


def _user(parts: Sequence[_Placed], ids: _Ids, losses: Losses) -> list[dict[str, object]]:
    """Write results, then those that are missing, then everything else."""
    results: list[dict[str, object]] = []
    others: list[dict[str, object]] = []
    for at, part in parts:
        if not isinstance(part, ToolResult):
            others.append(_given(part, at, losses))
        elif (call_id := ids.result(part.call_id)) is not None:
            results.append(_result(part, call_id, at, losses))
        else:
            # Of a call that is not there, or was answered already: as a result it would be refused.
            losses.changed(at)
            others.extend(_given(inner, at, losses) for inner in part.parts if not is_blank(inner))
    for call_id in ids.unanswered():
        losses.changed(parts[0][0])
        results.append(_lost(call_id))
    return [*results, *others]


def _result(result: ToolResult, call_id: str, at: str, losses: Losses) -> dict[str, object]:
    parts = [part for part in result.parts if not is_blank(part)]
    content: object = [_given(part, at, losses) for part in parts]
    if not parts:
        content = ""
    elif len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache_ttl is None:
        content = parts[0].text
    written: dict[str, object] = {"type": "tool_result", "tool_use_id": call_id, "content": content}
    if result.is_error:
        written["is_error"] = True
    return {**written, **cache_mark(result.cache_ttl)}


def _lost(call_id: str) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": _LOST_RESULT, "is_error": True}


def _given(part: Part, at: str, losses: Losses) -> dict[str, object]:
    match part:
        case Text():
            return {"type": "text", "text": part.text, **cache_mark(part.cache_ttl)}
        case Image():
            if part.detail is not None:
                losses.hint(f"{at}.detail")
            source = {"type": "url", "url": part.url}
            if part.data is not None:
                source = {"type": "base64", "media_type": part.media_type or "image/png", "data": part.data}
            return {"type": "image", "source": source, **cache_mark(part.cache_ttl)}
        case File():
            named = {} if part.name is None else {"title": part.name}
            return {"type": "document", "source": _source(part, at, losses), **named, **cache_mark(part.cache_ttl)}
        case Audio():
            raise losses.refuse(at, "sound cannot be sent to this candidate")
        case _:
            raise losses.refuse(at, "only text, images, documents and results may stand here")


def _source(file: File, at: str, losses: Losses) -> dict[str, object]:
    if file.url is not None:
        return {"type": "url", "url": file.url}
    media_type = file.media_type or "application/pdf"
    text = file.text
    if text is None and media_type.startswith("text/"):
        text = _decoded(file.data or "", at, losses)
    if text is not None:
        return {"type": "text", "media_type": "text/plain", "data": text}
    if media_type != "application/pdf":
        raise losses.refuse(at, "of documents, only PDF and plain text can be sent to this candidate")
    return {"type": "base64", "media_type": media_type, "data": file.data or ""}


def _decoded(data: str, at: str, losses: Losses) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise losses.refuse(at, "this text is not UTF-8 in base64") from None
