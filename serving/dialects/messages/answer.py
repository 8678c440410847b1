"""Messages answers and usage, both ways.

Entry points: :func:`read_answer`, :func:`write_answer`, :func:`usage_of`, :func:`write_usage`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from router.pricing import Usage
from serving.dialects.answer import Answer, Began, Citation, Finished, Reason
from serving.dialects.arguments import arguments_object, arguments_text
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall
from serving.dialects.counts import tokens
from serving.dialects.dialect import Reply
from serving.errors import UpstreamBroken

#: Both ways; where two words mean one reason, the first is written.
_STOP_REASONS: tuple[tuple[str, Reason], ...] = (
    ("end_turn", "stop"),
    ("stop_sequence", "stop_sequence"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "context_full"),
    ("tool_use", "tool_calls"),
    ("refusal", "filtered"),
    ("pause_turn", "paused"),
    ("compaction", "paused"),
)
_REASONS: Mapping[str, Reason] = dict(_STOP_REASONS)
_WORDS: Mapping[Reason, str] = {reason: word for word, reason in reversed(_STOP_REASONS)}
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9_-]")


def read_answer(body: Mapping[str, object]) -> Answer:
    """Read a whole answer; blocks of the provider's own tools are skipped.

    Raises
    ------
    UpstreamBroken
        There is no content.
    """
    content = body.get("content")
    if not isinstance(content, list):
        raise UpstreamBroken("the provider answered 200 without content")
    began = began_of(body)
    parts: list[Part] = []
    citations: list[tuple[int, Citation]] = []
    seen: set[str] = set()
    for block in content:
        if not isinstance(block, dict):
            continue
        for part in _parts(block, began.id, seen):
            citations.extend((len(parts), citation) for citation in citations_of(block.get("citations")))
            parts.append(part)
    has_calls = any(isinstance(part, ToolCall) for part in parts)
    return Answer(
        tuple(parts),
        finished_of(body, has_calls=has_calls),
        usage_of(body.get("usage")),
        began,
        tuple(citations),
    )


def write_answer(answer: Answer, reply: Reply) -> dict[str, object]:
    """Write a whole answer for a client."""
    blocks = (
        block
        for i, part in enumerate(answer.parts)
        for block in _blocks(part, [citation for at, citation in answer.citations if at == i])
    )
    has_calls = any(isinstance(part, ToolCall) for part in answer.parts)
    refusal = "".join(part.text for part in answer.parts if isinstance(part, Refusal))
    return {
        **envelope(reply),
        "content": list(blocks),
        **ending(answer.finished, refusal=refusal, has_calls=has_calls),
        "usage": write_usage(answer.usage),
    }


def envelope(reply: Reply) -> dict[str, object]:
    """Return the fields that every message begins with."""
    name = reply.id.partition("_")[2] or reply.id
    return {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": reply.model}


def began_of(message: Mapping[str, object]) -> Began:
    """Read what a message says of itself."""
    name, model = message.get("id"), message.get("model")
    return Began(name if isinstance(name, str) else "", model if isinstance(model, str) else "")


def finished_of(ending: Mapping[str, object], *, has_calls: bool) -> Finished:
    """Read why an answer ended; with calls, a natural end is always for their sake."""
    reason = _REASONS.get(str(ending.get("stop_reason")), "stop")
    if has_calls and reason == "stop":
        reason = "tool_calls"
    sequence, details = ending.get("stop_sequence"), ending.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return Finished(
        reason,
        sequence if isinstance(sequence, str) else None,
        explanation if isinstance(explanation, str) else None,
    )


def ending(finished: Finished, *, refusal: str = "", has_calls: bool = False) -> dict[str, object]:
    """Write why an answer ended; ``refusal`` are words by which the model itself refused."""
    natural = finished.reason in ("stop", "tool_calls")
    word = _WORDS[finished.reason]
    if natural:
        # A provider may say that it calls tools, and call none.
        word = "refusal" if refusal else "tool_use" if has_calls else "end_turn"
    written: dict[str, object] = {"stop_reason": word, "stop_sequence": finished.stop_sequence}
    if word == "refusal":
        explanation = finished.explanation or refusal or None
        written["stop_details"] = {"type": "refusal", "category": None, "explanation": explanation}
    return written


def usage_of(usage: object) -> Usage:
    """Read a ``usage`` object: its input leaves the cache out, ours has it in; what is absent or no count is None."""
    if not isinstance(usage, dict):
        return Usage()
    fresh = tokens(usage, "input_tokens")
    read, written = tokens(usage, "cache_read_input_tokens"), tokens(usage, "cache_creation_input_tokens")
    split = usage.get("cache_creation")
    if written is None:
        parts = [n for n in (tokens(split, f"ephemeral_{ttl}_input_tokens") for ttl in ("5m", "1h")) if n is not None]
        written = sum(parts) if parts else None
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=tokens(usage, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=tokens(usage.get("output_tokens_details"), "thinking_tokens"),
        # Kept for an hour is dearer than for five minutes.
        cache_write_1h_tokens=tokens(split, "ephemeral_1h_input_tokens"),
    )


def write_usage(usage: Usage) -> dict[str, object]:
    """Write usage for a client.

    Every message must have whole numbers for input and output (clients read them as such), so an unknown total is
    written as 0 here, and only here; parts that are unknown are null.
    """
    cached = (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0)
    written: dict[str, object] = {
        "input_tokens": max((usage.input_tokens or 0) - cached, 0),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": usage.output_tokens or 0,
    }
    if usage.cache_write_1h_tokens is not None:
        short = max((usage.cache_write_tokens or 0) - usage.cache_write_1h_tokens, 0)
        split = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens}
        written["cache_creation"] = split
    if usage.reasoning_tokens is not None:
        written["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return written


def add_usage(known: dict[str, object], seen: object) -> None:
    """Bring the usage known of a stream up to date: counts are cumulative, the last one that is not null holds."""
    if isinstance(seen, dict):
        known.update({name: value for name, value in seen.items() if value is not None})


def citations_of(citations: object) -> Iterator[Citation]:
    """Yield the citations of web pages among those of a text; places in documents have no URL."""
    for citation in citations if isinstance(citations, list) else ():
        if isinstance(citation, dict) and isinstance(citation.get("url"), str):
            title = citation.get("title")
            yield Citation(citation["url"], title if isinstance(title, str) else None)


def citation_block(citation: Citation, text: str = "") -> dict[str, object]:
    """Write one citation; ``text`` is what it is of, where known."""
    known = citation.start is not None and citation.end is not None
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": text[citation.start : citation.end] if known else "",
        "encrypted_index": "",
    }


def unique_id(given: object, seen: set[str], answer_id: str) -> str:
    """Return a call's id: the provider's own, or one made up where it gave none or gave it twice."""
    call_id, n = given if isinstance(given, str) else "", len(seen)
    while not call_id or call_id in seen:
        call_id, n = f"toolu_{answer_id}_{n}", n + 1
    seen.add(call_id)
    return call_id


def safe_id(call_id: str) -> str:
    """Return a call's id in the characters that Anthropic allows; a client may go on with it there."""
    return _NOT_OF_AN_ID.sub("_", call_id)


def _parts(block: Mapping[str, object], answer_id: str, seen: set[str]) -> Iterator[Part]:
    """Yield the part that a block is, or none."""
    kind = block.get("type")
    if kind == "text":
        if text := _string(block, "text"):
            yield Text(text)
    elif kind == "thinking":
        thought, state = _string(block, "thinking"), _string(block, "signature") or None
        if thought or state:
            yield Reasoning(thought, state=state)
    elif kind == "redacted_thinking":
        yield Reasoning(state=_string(block, "data"), is_redacted=True)
    elif kind == "tool_use":
        name = _string(block, "name") or "unnamed"
        yield ToolCall(unique_id(block.get("id"), seen, answer_id), name, arguments_text(block.get("input")))


def _blocks(part: Part, citations: Iterable[Citation]) -> Iterator[dict[str, object]]:
    """Yield the block that a part becomes, or none where it says nothing."""
    match part:
        case Text() | Refusal() if part.text:
            cited = [citation_block(citation, part.text) for citation in citations]
            yield {"type": "text", "text": part.text, **({"citations": cited} if cited else {})}
        case Reasoning(is_redacted=True):
            yield {"type": "redacted_thinking", "data": part.state or ""}
        case Reasoning() if part.text or part.state:
            yield {"type": "thinking", "thinking": part.text, "signature": part.state or ""}
        case ToolCall():
            yield {"type": "tool_use", "id": safe_id(part.id), "name": part.name, "input": object_of(part.arguments)}


def object_of(arguments: str) -> dict[str, object]:
    """Return the object that arguments stand for; what is none is wrapped, so that nothing is lost."""
    found = arguments_object(arguments)
    return {"_raw": arguments} if found is None else found


def _string(block: Mapping[str, object], key: str) -> str:
    value = block.get(key)
    return value if isinstance(value, str) else ""
