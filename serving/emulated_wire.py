"""An emulated answer as the bytes of OpenAI Chat Completions. Pure.

Written here and not by the dialect, so that the wire of the commonest provider does not come from the code that reads
it. Entry points: :func:`completion_of` (whole), :func:`chunks_of` (streamed), :func:`models_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from router.pricing import Usage
from serving.dialects.answer import Answer, Reason
from serving.dialects.conversation import Reasoning, Text, ToolCall
from serving.emulated_answers import pieces_of

_FINISH: Mapping[Reason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "filtered": "content_filter",
    "paused": "stop",
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every chunk of one answer repeats."""

    id: str
    created_unix_s: int
    model: str

    def envelope(self, kind: str) -> dict[str, object]:
        """Return the common fields."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created_unix_s,
            "model": self.model,
            "system_fingerprint": "emulated",
        }


def completion_of(stamp: Stamp, answer: Answer) -> bytes:
    """Return the body of an unstreamed answer."""
    text = "".join(part.text for part in answer.parts if isinstance(part, Text))
    message: dict[str, object] = {"role": "assistant", "content": text or None, "refusal": None}
    thought = "".join(part.text for part in answer.parts if isinstance(part, Reasoning))
    if thought:
        message["reasoning_content"] = thought
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    if calls:
        message["tool_calls"] = [_call(call, call.arguments) for call in calls]
    finish_reason = _FINISH[answer.finished.reason]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    usage = _usage_of(answer.usage)
    counted = {} if usage is None else {"usage": usage}
    return orjson.dumps({**stamp.envelope("chat.completion"), "choices": [choice], **counted})


def chunks_of(stamp: Stamp, answer: Answer, *, has_usage: bool) -> list[bytes]:
    """Return the events of a streamed answer, ``[DONE]`` included."""
    chunks = _chunks(stamp.envelope("chat.completion.chunk"), answer, has_usage)
    return [b"data: " + chunk + b"\n\n" for chunk in chunks]


def models_of(names: Sequence[str]) -> dict[str, object]:
    """Return the list of models."""
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "emulated"} for name in names]
    return {"object": "list", "data": rows}


def _chunks(envelope: dict[str, object], answer: Answer, has_usage: bool) -> Iterator[bytes]:
    early: dict[str, object] = {"usage": None} if has_usage else {}

    def chunk(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps({**envelope, "choices": [choice], **early})

    has_text = any(isinstance(part, Text) for part in answer.parts)
    yield chunk({"role": "assistant", "content": "" if has_text else None})
    n_calls = 0
    for part in answer.parts:
        if isinstance(part, ToolCall):
            yield chunk({"tool_calls": [{"index": n_calls, **_call(part, "")}]})
            kind, words = _inner_names(part)
            for piece in pieces_of(part.arguments):
                yield chunk({"tool_calls": [{"index": n_calls, kind: {words: piece}}]})
            n_calls += 1
        elif isinstance(part, Text | Reasoning):
            name = "content" if isinstance(part, Text) else "reasoning_content"
            for piece in pieces_of(part.text):
                yield chunk({name: piece})
    yield chunk({}, _FINISH[answer.finished.reason])
    if has_usage and (usage := _usage_of(answer.usage)) is not None:
        yield orjson.dumps({**envelope, "choices": [], "usage": usage})
    yield b"[DONE]"


def _call(call: ToolCall, arguments: str) -> dict[str, object]:
    kind, words = _inner_names(call)
    written: dict[str, object] = {"id": call.id, "type": kind, kind: {"name": call.name, words: arguments}}
    if call.state is not None:  # as Google's own Chat layer has it
        written["extra_content"] = {"google": {"thought_signature": call.state}}
    return written


def _inner_names(call: ToolCall) -> tuple[str, str]:
    return ("custom", "input") if call.is_custom else ("function", "arguments")


def _usage_of(usage: Usage) -> dict[str, object] | None:
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    # Few providers of this dialect ever tell what they wrote into a cache.
    prompt = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens or None}
    completion = {"reasoning_tokens": usage.reasoning_tokens}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {name: n for name, n in prompt.items() if n is not None},
        "completion_tokens_details": {name: n for name, n in completion.items() if n is not None},
    }
