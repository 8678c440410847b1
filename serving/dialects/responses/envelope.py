"""The Response object: everything that stands around the output of an answer.

Every key is there, whatever the request said. What the request said is repeated; what it left open has the value
that this API gives it. Entry points: :func:`envelope`, :func:`status_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.dialects.answer import Finished, Reason
from serving.dialects.dialect import Reply
from serving.dialects.responses.output import Ids

#: Fields that the answer repeats: the kind that may stand there, and what stands there otherwise.
_REPEATED: Mapping[str, tuple[type | tuple[type, ...], object]] = {
    "background": (bool, False),
    "frequency_penalty": ((int, float), 0.0),
    "instructions": ((str, list), None),
    "max_output_tokens": (int, None),
    "max_tool_calls": (int, None),
    "metadata": (dict, {}),
    "parallel_tool_calls": (bool, True),
    "presence_penalty": ((int, float), 0.0),
    "previous_response_id": (str, None),
    "prompt_cache_key": (str, None),
    "safety_identifier": (str, None),
    "store": (bool, False),
    "temperature": ((int, float), 1.0),
    "tool_choice": ((str, dict), "auto"),
    "top_logprobs": (int, 0),
    "top_p": ((int, float), 1.0),
    "truncation": (str, "disabled"),
    "user": (str, None),
}
_INCOMPLETE: Mapping[Reason, str | None] = {
    "length": "max_output_tokens",
    "context_full": "max_output_tokens",
    "filtered": "content_filter",
    "paused": None,
}


def envelope(
    reply: Reply,
    status: str,
    output: Sequence[Mapping[str, object]] = (),
    *,
    usage: Mapping[str, object] | None = None,
    finished: Finished | None = None,
    error: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Write the object of an answer in any status."""
    request = reply.request
    is_incomplete = finished is not None and finished.reason in _INCOMPLETE
    return {
        "id": Ids(reply.id).response,
        "object": "response",
        "created_at": reply.created_unix_s,
        "completed_at": None,
        "status": status,
        "error": error,
        "incomplete_details": {"reason": _INCOMPLETE[finished.reason]} if finished and is_incomplete else None,
        "model": reply.model,
        "output": output,
        "usage": usage,
        "reasoning": _reasoning(request.get("reasoning")),
        "service_tier": "default",
        "text": _text(request.get("text")),
        "tools": _tools(request.get("tools")),
        **{name: _repeated(request, name) for name in _REPEATED},
    }


def status_of(finished: Finished) -> str:
    """Return ``completed`` or ``incomplete``."""
    return "incomplete" if finished.reason in _INCOMPLETE else "completed"


def _repeated(request: Mapping[str, object], name: str) -> object:
    kinds, otherwise = _REPEATED[name]
    value = request.get(name)
    return value if isinstance(value, kinds) else otherwise


def _reasoning(given: object) -> dict[str, object]:
    unsaid: dict[str, object] = {"effort": None, "summary": None}
    return {**unsaid, **given} if isinstance(given, dict) else unsaid


def _text(given: object) -> dict[str, object]:
    said = {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else {}
    return {"format": {"type": "text"}, **said}


def _tools(given: object) -> list[dict[str, object]]:
    """Repeat the tools; of a function every key is demanded."""
    listed = [tool for tool in given if isinstance(tool, dict)] if isinstance(given, list) else []
    unsaid: dict[str, object] = {"description": None, "parameters": None, "strict": None}
    return [{**unsaid, **tool} if tool.get("type") == "function" else tool for tool in listed]
