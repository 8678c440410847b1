"""Errors in the envelope of Anthropic Messages, both ways.

Entry points: :func:`write_error`, :func:`error_event`, :func:`read_error`.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from serving.errors import GatewayError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_KNOWN_TYPES = frozenset({*_TYPES.values(), "api_error"})
#: The words by which clients know that they must shorten the conversation.
_TOO_LONG = "prompt is too long"


def write_error(error: GatewayError, request_id: str) -> dict[str, object]:
    """Write the error envelope; its type follows from the status."""
    message = error.message
    if error.code == "context_length_exceeded" and _TOO_LONG not in message:
        message = f"{_TOO_LONG}: {message}"
    other = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    return _envelope(_TYPES.get(error.status, other), message, error.code, request_id)


def error_event(error: GatewayError, request_id: str = "") -> bytes:
    """Write the event that ends a stream badly; nothing may follow it."""
    return _event(write_error(error, request_id))


def failure_event(message: str, code: str | None, kind: str | None, request_id: str) -> bytes:
    """Write the same event for a failure that a provider told of in its own stream."""
    known = kind if kind in _KNOWN_TYPES else "api_error"
    return _event(_envelope(known, message, code, request_id))


def read_error(body: Mapping[str, object]) -> tuple[str, str | None] | None:
    """Return the words and the code of an error body, or None when it is none."""
    error = body.get("error")
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        return None
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else None
    if not isinstance(code, str):
        code = error.get("type")
    message = error.get("message")
    return (message if isinstance(message, str) else "", code if isinstance(code, str) else None)


def _envelope(kind: str, message: str, code: str | None, request_id: str) -> dict[str, object]:
    error: dict[str, object] = {"type": kind, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": request_id or None}


def _event(envelope: Mapping[str, object]) -> bytes:
    return b"event: error\ndata: " + orjson.dumps(envelope) + b"\n\n"
