"""An emulated answer as the bytes of OpenAI Chat Completions. Pure.

Entry points: :func:`completion_of` (whole), :func:`events_of` (streamed).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from serving.emulated_answers import Answer, pieces_of

#: Type and code that OpenAI's own errors carry, by status.
_REFUSALS = {
    401: ("authentication_error", "invalid_api_key"),
    404: ("not_found_error", "model_not_found"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
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
    message: dict[str, object] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    call = answer.tool_call
    if call is not None:
        function = {"name": call.name, "arguments": call.arguments}
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    envelope = stamp.envelope("chat.completion")
    return orjson.dumps({**envelope, "choices": [choice], "usage": _usage_of(answer)})


def events_of(stamp: Stamp, answer: Answer, *, has_usage: bool) -> list[bytes]:
    """Return the data of each event of a streamed answer, ``[DONE]`` included."""
    return list(_events(stamp.envelope("chat.completion.chunk"), answer, has_usage))


def refusal_of(status: int, code: str | None) -> bytes:
    """Return the error body of a status; ``code`` replaces the usual one."""
    kind, usual = _REFUSALS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))
    error = {"message": f"emulated status {status}", "type": kind, "param": None, "code": code or usual}
    return orjson.dumps({"error": error})


def models_of(names: Sequence[str]) -> dict[str, object]:
    """Return the list of models."""
    rows = [{"id": name, "object": "model", "created": 0, "owned_by": "emulated"} for name in names]
    return {"object": "list", "data": rows}


def _events(envelope: dict[str, object], answer: Answer, has_usage: bool) -> Iterator[bytes]:
    early: dict[str, object] = {"usage": None} if has_usage else {}

    def chunk(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return orjson.dumps({**envelope, "choices": [choice], **early})

    yield chunk({"role": "assistant", "content": None if answer.tool_call else ""})
    call = answer.tool_call
    if call is not None:
        function = {"name": call.name, "arguments": ""}
        yield chunk({"tool_calls": [{"index": 0, "id": call.id, "type": "function", "function": function}]})
        for piece in pieces_of(call.arguments):
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    for piece in pieces_of(answer.text):
        yield chunk({"content": piece})
    yield chunk({}, answer.finish_reason)
    if has_usage:
        yield orjson.dumps({**envelope, "choices": [], "usage": _usage_of(answer)})
    yield b"[DONE]"


def _usage_of(answer: Answer) -> dict[str, object]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
