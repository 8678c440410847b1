"""A whole ``GenerateContentResponse`` ⇄ an answer; usage, sources and errors, for streams as well.

Entry points: :func:`read_answer`, :func:`write_answer`, :func:`usage_of`, :func:`read_error`, :func:`write_error`,
:func:`retry_delay_s`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import orjson

from router.pricing import Usage
from serving.dialects.answer import Answer, Began, Citation, Finished, Reason
from serving.dialects.arguments import arguments_object
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall
from serving.dialects.counts import tokens
from serving.dialects.dialect import Reply
from serving.dialects.gemini.contents import signed
from serving.dialects.gemini.sources import in_bytes, in_characters, read_sources, write_sources
from serving.errors import GatewayError, UpstreamBroken

#: Of an answer that is none: the provider failed, and says in what.
_BROKEN = frozenset(
    {
        *("OTHER", "MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"),
        *("MISSING_THOUGHT_SIGNATURE", "NO_IMAGE", "IMAGE_OTHER"),
    }
)
_FILTERED = frozenset(
    {
        *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "PUP_LIMITED_DISABLED"),
    }
)
_REASONS: Mapping[str, Reason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "paused",
    **dict.fromkeys(_FILTERED, "filtered"),
}
_FINISH_REASONS: Mapping[Reason, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "tool_calls": "STOP",
    "length": "MAX_TOKENS",
    "context_full": "MAX_TOKENS",
    "filtered": "SAFETY",
    "paused": "CONTINUATION",
}
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}
_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_REQUEST_INFO = "type.googleapis.com/google.rpc.RequestInfo"
_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")
_NOT_OF_IDS = re.compile(r"[^A-Za-z0-9_-]")

Json: TypeAlias = dict[str, object]


def read_answer(body: Mapping[str, object]) -> Answer:
    """Read the body of a whole answer.

    Parameters
    ----------
    body : Mapping

    Returns
    -------
    Answer

    Raises
    ------
    UpstreamBroken
        It is no answer, or says that the model failed.
    """
    began = began_of(body)
    usage = usage_of(body.get("usageMetadata")) or Usage()
    candidate = candidate_of(body)
    if candidate is None:
        if (blocked := blocked_by(body)) is None:
            raise UpstreamBroken("the provider answered 200 without candidates")
        return Answer((), blocked, usage, began)
    if (reason := broken_by(candidate)) is not None:
        raise UpstreamBroken(f"the model ended its answer with {reason}")
    parts: list[Part] = []
    # Where each part of the provider's is in ours; -1 where it is no text.
    places: list[int] = []
    ids: set[str] = set()
    for part in parts_of(candidate):
        read = _read_part(part, ids, began.id)
        parts += read
        places.append(len(parts) - 1 if read and isinstance(read[-1], Text) else -1)
    finished = finished_of(candidate, has_calls=bool(ids))
    if finished is None:
        if not parts:
            raise UpstreamBroken("the provider answered 200 with nothing, and does not say why")
        finished = Finished("tool_calls" if ids else "stop")
    texts = {i: part.text for i, part in enumerate(parts) if isinstance(part, Text)}
    sources = [
        (place, citation)
        for i, citation in read_sources(candidate)
        if (place := _place_of(i, places, texts)) is not None
    ]
    cited = tuple((place, in_characters(citation, texts[place])) for place, citation in sources)
    return Answer(tuple(parts), finished, usage, began, cited)


def write_answer(answer: Answer, reply: Reply) -> Json:
    """Write the body of a whole answer."""
    parts: list[Json] = []
    places: dict[int, int] = {}
    state: str | None = None
    for i, part in enumerate(answer.parts):
        if isinstance(part, Text | Refusal):
            places[i] = len(parts)
            parts.append(signed({"text": part.text}, state))
            state = None
            continue
        if state is not None:
            parts.append(signed({"text": ""}, state))
            state = None
        if isinstance(part, ToolCall):
            parts.append(call_part(part.id, part.name, part.arguments, part.state))
        elif isinstance(part, Reasoning) and part.text:
            parts.append(signed({"text": part.text, "thought": True}, part.state))
        elif isinstance(part, Reasoning):
            state = part.state
    if state is not None:
        parts.append(signed({"text": ""}, state))
    sources = [
        (places[i], in_bytes(citation, part.text))
        for i, citation in answer.citations
        if isinstance(part := answer.parts[i], Text)
    ]
    return response(parts, reply, answer.finished, answer.usage, sources)


def response(
    parts: Sequence[Json],
    reply: Reply,
    finished: Finished | None = None,
    usage: Usage | None = None,
    sources: Sequence[tuple[int, Citation]] = (),
) -> Json:
    """Write a whole answer, or one increment of a stream.

    Parameters
    ----------
    parts : sequence of dict
    reply : Reply
    finished : Finished or None
        None while the stream goes on.
    usage : Usage or None
    sources : sequence of (int, Citation)
        Index into ``parts``, and a source of that text, its offsets in bytes.

    Returns
    -------
    dict
    """
    candidate: Json = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finished is not None:
        candidate["finishReason"] = _FINISH_REASONS[finished.reason]
        if finished.explanation is not None:
            candidate["finishMessage"] = finished.explanation
    if sources:
        candidate["groundingMetadata"] = write_sources(sources)
    written: Json = {"candidates": [candidate]}
    if usage is not None and (counted := _usage_metadata(usage)):
        written["usageMetadata"] = counted
    return {**written, "modelVersion": reply.model, "responseId": reply.id.rpartition("_")[2]}


def call_part(call_id: str, name: str, arguments: str, state: str | None) -> Json:
    """Write a call; arguments that are no JSON object are kept as text."""
    value = arguments_object(arguments)
    args = {"_raw": arguments} if value is None else value
    return signed({"functionCall": {"id": call_id, "name": name, "args": args}}, state)


def call_id_of(call: Mapping[str, object], seen: set[str], response_id: str) -> str:
    """Return the id of the next call of an answer, made up from the answer's own where there is none or it was seen."""
    given = call.get("id")
    ours = _NOT_OF_IDS.sub("", response_id)[:40]
    n = len(seen)
    while not isinstance(given, str) or not given or given in seen:
        given, n = (f"call_{ours}_{n}" if ours else f"call_{n}"), n + 1
    seen.add(given)
    return given


def arguments_of(call: Mapping[str, object]) -> str:
    """Return the arguments of a call as JSON text."""
    args = call.get("args")
    return json_text(args if isinstance(args, dict) else {})


def json_text(value: Json) -> str:
    """Write an object that a provider sent."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise UpstreamBroken("the provider's answer nests objects or lists too deeply") from None


def began_of(body: Mapping[str, object]) -> Began:
    """Read who answers."""
    response_id, model = body.get("responseId"), body.get("modelVersion")
    return Began(response_id if isinstance(response_id, str) else "", model if isinstance(model, str) else "")


def candidate_of(body: Mapping[str, object]) -> Json | None:
    """Return the first candidate, of which alone notice is taken."""
    candidates = body.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        if isinstance(candidate, dict) and candidate.get("index", 0) == 0:
            return candidate
    return None


def parts_of(candidate: Mapping[str, object]) -> list[Json]:
    """Return the parts of a candidate; empty where it has none."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def blocked_by(body: Mapping[str, object]) -> Finished | None:
    """Return the end of an answer whose prompt was blocked; None where it was not."""
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    if not isinstance(feedback, dict) or not isinstance(reason, str):
        return None
    message = feedback.get("blockReasonMessage")
    return Finished("filtered", explanation=message if isinstance(message, str) else None)


def broken_by(candidate: Mapping[str, object]) -> str | None:
    """Return the provider's word for how the model failed; None where it did not."""
    reason = candidate.get("finishReason")
    return reason if isinstance(reason, str) and reason in _BROKEN else None


def finished_of(candidate: Mapping[str, object], *, has_calls: bool) -> Finished | None:
    """Return why a candidate ended; None where it does not say so."""
    reason = candidate.get("finishReason")
    if not isinstance(reason, str) or reason == "FINISH_REASON_UNSPECIFIED":
        return None
    ours = _REASONS.get(reason, "stop")
    if ours == "stop" and has_calls:
        return Finished("tool_calls")
    message = candidate.get("finishMessage")
    return Finished(ours, explanation=message if ours == "filtered" and isinstance(message, str) else None)


def usage_of(metadata: object) -> Usage | None:
    """Read ``usageMetadata``; None where there is none.

    Zero counts are left out by the provider: what the total says of the output is counted where nothing else is.
    """
    if not isinstance(metadata, dict):
        return None
    prompt = tokens(metadata, "promptTokenCount")
    tools = tokens(metadata, "toolUsePromptTokenCount")
    candidates, thoughts = tokens(metadata, "candidatesTokenCount"), tokens(metadata, "thoughtsTokenCount")
    total = tokens(metadata, "totalTokenCount")
    read = None if prompt is None else prompt + (tools or 0)
    output = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
    if output is None and total is not None and read is not None:
        output = max(total - read, 0)
    return Usage(
        input_tokens=read,
        output_tokens=output,
        cache_read_tokens=tokens(metadata, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )


def write_error(error: GatewayError, request_id: str) -> Json:
    """Write the error envelope."""
    details: list[Json] = [{"@type": _REQUEST_INFO, "requestId": request_id}]
    if error.retry_after_s is not None:
        details.append({"@type": _RETRY_INFO, "retryDelay": f"{error.retry_after_s:g}s"})
    default = "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL"
    status = _STATUSES.get(error.status, default)
    return {"error": {"code": error.status, "message": error.message, "status": status, "details": details}}


def read_error(body: object) -> tuple[str, str | None] | None:
    """Read the words and the status name of an error, also where it is the only element of a list."""
    error = _error(body)
    if error is None:
        return None
    message, status, code = error.get("message"), error.get("status"), error.get("code")
    name = status if isinstance(status, str) else _STATUSES.get(code) if isinstance(code, int) else None
    return (message if isinstance(message, str) else "", name)


def retry_delay_s(body: object) -> float | None:
    """Return how long the provider asks to wait, which it says in the error's body only."""
    details = (_error(body) or {}).get("details")
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (found := _SECONDS.fullmatch(delay)):
            return float(found[1])
    return None


def _error(body: object) -> Json | None:
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    error = body.get("error") if isinstance(body, Mapping) else None
    return error if isinstance(error, dict) else None


def _read_part(part: Json, ids: set[str], response_id: str) -> list[Part]:
    state = state_of(part)
    if isinstance(call := part.get("functionCall"), dict):
        name = call.get("name")
        if not isinstance(name, str) or not name:
            return []
        return [ToolCall(call_id_of(call, ids, response_id), name, arguments_of(call), state=state)]
    text = part.get("text")
    if not isinstance(text, str):
        return []
    if part.get("thought") is True:
        return [Reasoning(text, is_summary=bool(text), state=state)] if text or state else []
    signature: list[Part] = [] if state is None else [Reasoning(state=state)]
    return [*signature, Text(text)] if text else signature


def state_of(part: Mapping[str, object]) -> str | None:
    """Return the signature that stands on a part."""
    state = part.get("thoughtSignature")
    return state if isinstance(state, str) and state else None


def _place_of(index: int | None, places: Sequence[int], texts: Mapping[int, str]) -> int | None:
    """Return which of our texts a source is of: the last one where the provider does not say."""
    if index is None:
        return max(texts, default=None)
    place = places[index] if index < len(places) else -1
    return place if place in texts else None


def _usage_metadata(usage: Usage) -> Json:
    output, thoughts = usage.output_tokens, usage.reasoning_tokens
    known = usage.input_tokens is not None and output is not None
    counted = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cache_read_tokens,
        "candidatesTokenCount": None if output is None else max(output - (thoughts or 0), 0),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": (usage.input_tokens or 0) + (output or 0) if known else None,
    }
    return {name: count for name, count in counted.items() if count is not None}
