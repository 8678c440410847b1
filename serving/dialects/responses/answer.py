"""Responses answers, usage and errors, both ways.

Entry points: :func:`read_answer`, :func:`write_answer`, :func:`usage_of`, :func:`write_usage`, :func:`finished_of`,
:func:`read_error`.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from router.pricing import Usage
from serving.dialects.answer import Answer, Began, Finished, Reason
from serving.dialects.conversation import ToolCall
from serving.dialects.counts import tokens
from serving.dialects.dialect import Reply
from serving.dialects.responses.envelope import envelope, status_of
from serving.dialects.responses.output import Ids, items_of, read_output
from serving.errors import GatewayError, UpstreamBroken

_INCOMPLETE: Mapping[object, Reason] = {
    "max_output_tokens": "length",
    "content_filter": "filtered",
    "max_messages": "paused",
    "steered": "paused",
    None: "paused",
}
#: A whole answer has come to one of these ends; ``failed`` and ``cancelled`` are none.
_ENDED = ("completed", "incomplete", None)


def read_answer(body: Mapping[str, object]) -> Answer:
    """Read a whole answer.

    Raises
    ------
    UpstreamBroken
        There is no output, or the provider says itself that it failed or has not ended.
    """
    output = body.get("output")
    if body.get("status") not in _ENDED:
        _, code = read_error(body) or ("", None)
        raise UpstreamBroken("the provider answered 200 with a response that failed or has not ended", code=code)
    if not isinstance(output, list):
        raise UpstreamBroken("the provider answered 200 without output")
    began = began_of(body)
    found = read_output(output, began.id)
    parts = tuple(part for part, _ in found)
    return Answer(
        parts,
        finished_of(body, has_calls=any(isinstance(part, ToolCall) for part in parts)),
        usage_of(body),
        began,
        tuple((i, citation) for i, (_, citations) in enumerate(found) for citation in citations),
    )


def write_answer(answer: Answer, reply: Reply) -> dict[str, object]:
    """Write a whole answer for a client."""
    status = status_of(answer.finished)
    output = items_of(answer, Ids(reply.id), status)
    return envelope(reply, status, output, usage=write_usage(answer.usage), finished=answer.finished)


def began_of(response: Mapping[str, object]) -> Began:
    """Read what a response says of itself."""
    name, model, created = response.get("id"), response.get("model"), response.get("created_at")
    return Began(
        name if isinstance(name, str) else "",
        model if isinstance(model, str) else "",
        int(created) if isinstance(created, int | float) else None,
    )


def finished_of(response: Mapping[str, object], *, has_calls: bool) -> Finished:
    """Read why an answer ended; that tools are called, this dialect does not say."""
    if response.get("status") != "incomplete":
        return Finished("tool_calls" if has_calls else "stop")
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return Finished(_INCOMPLETE.get(reason if isinstance(reason, str) else None, "paused"))


def usage_of(response: Mapping[str, object]) -> Usage:
    """Read the usage of a response; what is absent or no count is None.

    Output without the reasoning in it, known by the total, is counted with it.
    """
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    read, output = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    input_tokens, output_tokens = tokens(usage, "input_tokens"), tokens(usage, "output_tokens")
    reasoning = tokens(output, "reasoning_tokens")
    total = tokens(usage, "total_tokens")
    if input_tokens is not None and output_tokens is not None and reasoning:
        output_tokens += reasoning if total == input_tokens + output_tokens + reasoning else 0
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=tokens(read, "cached_tokens"),
        cache_write_tokens=tokens(read, "cache_write_tokens"),
        reasoning_tokens=reasoning,
    )


def write_usage(usage: Usage) -> dict[str, object] | None:
    """Write usage for a client; None where a total is unknown.

    The details must be whole numbers: there, and only there, what is unknown is written as 0.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def write_error(error: GatewayError, request_id: str) -> dict[str, object]:
    """Write the error envelope; the id of the request stands in the headers."""
    return error.to_openai()


def error_event(error: GatewayError, request_id: str = "") -> bytes:
    """Write the event that ends badly a stream that was passed through; its place in the numbering is not known."""
    return write_error_event(0, error.message, error.type, error.code)


def write_error_event(number: int, message: str, kind: str, code: str | None) -> bytes:
    """Write an ``error`` event in both its forms at once: flat, as the SDK's types have it, and nested."""
    inner = {"type": kind, "code": code, "message": message, "param": None}
    data = {**inner, "type": "error", "sequence_number": number, "error": inner}
    return b"event: error\ndata: " + orjson.dumps(data) + b"\n\n"


def read_error(body: Mapping[str, object]) -> tuple[str, str | None] | None:
    """Return the words and the code of an error body, a failed response or an error event; None when it is none."""
    error = body.get("error")
    if isinstance(error, str):
        return error, None
    found = error if isinstance(error, dict) else body
    message = found.get("message")
    if found is body and not isinstance(message, str):
        return None
    code = found.get("code") or (found.get("type") if found is error else None)
    return message if isinstance(message, str) else "", code if isinstance(code, str) else None
