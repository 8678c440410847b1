"""Chat Completions answers, usage and errors, both ways.

Entry points: :func:`read_answer`, :func:`write_answer`, :func:`usage_of`, :func:`write_usage`, :func:`read_error`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from router.pricing import Usage
from serving.dialects.answer import Answer, Began, Citation, Finished, Reason
from serving.dialects.arguments import arguments_text
from serving.dialects.conversation import Part, Reasoning, Refusal, Text, ToolCall
from serving.dialects.counts import tokens
from serving.dialects.dialect import Reply
from serving.errors import GatewayError, UpstreamBroken

_REASONS: Mapping[object, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "filtered",
}
_FINISH: Mapping[Reason, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "context_full": "length",
    "tool_calls": "tool_calls",
    "filtered": "content_filter",
    "paused": "stop",
}


def read_answer(body: Mapping[str, object]) -> Answer:
    """Read a whole answer: its first choice.

    Raises
    ------
    UpstreamBroken
        There is no choice with a message.
    """
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UpstreamBroken("the provider answered 200 without choices")
    began = began_of(body)
    parts = tuple(_parts(message, began.id))
    at = next((i for i, part in enumerate(parts) if isinstance(part, Text)), 0)
    return Answer(
        parts,
        Finished(reason_of(choice.get("finish_reason"), has_calls=any(isinstance(p, ToolCall) for p in parts))),
        usage_of(body),
        began,
        tuple((at, citation) for citation in citations_of(message.get("annotations"))),
    )


def write_answer(answer: Answer, reply: Reply) -> dict[str, object]:
    """Write a whole answer for a client."""
    texts = [part.text for part in answer.parts if isinstance(part, Text)]
    refusals = [part.text for part in answer.parts if isinstance(part, Refusal)]
    thoughts = [part.text for part in answer.parts if isinstance(part, Reasoning) and part.text]
    calls = [_written_call(part) for part in answer.parts if isinstance(part, ToolCall)]
    refusal = "".join(refusals) or answer.finished.explanation
    message: dict[str, object] = {"role": "assistant", "content": "".join(texts) if texts else None, "refusal": refusal}
    if thoughts:
        message["reasoning_content"] = "\n\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if answer.citations:
        message["annotations"] = [annotation_of(citation) for _, citation in answer.citations]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_of(answer.finished.reason, has_calls=bool(calls)),
    }
    written = {**envelope(reply, "chat.completion"), "choices": [choice]}
    usage = write_usage(answer.usage)
    return written if usage is None else {**written, "usage": usage}


def envelope(reply: Reply, kind: str) -> dict[str, object]:
    """Return the fields that every body or chunk of an answer begins with."""
    name = reply.id.partition("_")[2] or reply.id
    return {"id": f"chatcmpl-{name}", "object": kind, "created": reply.created_unix_s, "model": reply.model}


def began_of(body: Mapping[str, object]) -> Began:
    """Read what a body or chunk says of itself."""
    name, model, created = body.get("id"), body.get("model"), body.get("created")
    return Began(
        name if isinstance(name, str) else "",
        model if isinstance(model, str) else "",
        created if isinstance(created, int) else None,
    )


def reason_of(finish_reason: object, *, has_calls: bool) -> Reason:
    """Read why an answer ended; some providers say ``stop`` although they call tools."""
    reason = _REASONS.get(finish_reason, "stop")
    return "tool_calls" if has_calls and reason == "stop" else reason


def finish_of(reason: Reason, *, has_calls: bool) -> str:
    """Write why an answer ended; a natural end is ``tool_calls`` where there are some, and only there."""
    word = _FINISH[reason]
    return ("tool_calls" if has_calls else "stop") if word in ("stop", "tool_calls") else word


def citations_of(annotations: object) -> Iterator[Citation]:
    """Yield the URL citations among the annotations of a message."""
    for annotation in annotations if isinstance(annotations, list) else ():
        cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
        if isinstance(cited, dict) and isinstance(cited.get("url"), str):
            title, start, end = cited.get("title"), cited.get("start_index"), cited.get("end_index")
            yield Citation(
                cited["url"],
                title if isinstance(title, str) else None,
                start if isinstance(start, int) else None,
                end if isinstance(end, int) else None,
            )


def annotation_of(citation: Citation) -> dict[str, object]:
    """Write one citation."""
    cited = {
        "url": citation.url,
        "title": citation.title or citation.url,
        "start_index": citation.start or 0,
        "end_index": citation.end or 0,
    }
    return {"type": "url_citation", "url_citation": cited}


def usage_of(body: Mapping[str, object]) -> Usage:
    """Read the usage of an answer or chunk; what is absent or no count is None.

    Absorbed: Groq's second place for it (``x_groq.usage``), cached tokens at the top (Kimi) or as hits and misses
    (DeepSeek), and output without the reasoning in it (xAI), known by the total.
    """
    usage = body.get("usage")
    if not isinstance(usage, dict):
        groq = body.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) else None
        if not isinstance(usage, dict):
            return Usage()
    details, output = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    input_tokens, output_tokens = tokens(usage, "prompt_tokens"), tokens(usage, "completion_tokens")
    read = tokens(details, "cached_tokens")
    if read is None:
        read = tokens(usage, "cached_tokens")
    if read is None:
        read = tokens(usage, "prompt_cache_hit_tokens")
    reasoning = tokens(output, "reasoning_tokens")
    if input_tokens is not None and output_tokens is not None and reasoning:
        leaves_it_out = tokens(usage, "total_tokens") == input_tokens + output_tokens + reasoning
        output_tokens += reasoning if leaves_it_out else 0
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=tokens(details, "cache_write_tokens"),
        reasoning_tokens=reasoning,
    )


def write_usage(usage: Usage) -> dict[str, object] | None:
    """Write usage for a client; None where the totals are unknown, since the form cannot say so of one of them."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    prompt = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {name: n for name, n in prompt.items() if n is not None},
        "completion_tokens_details": (
            {} if usage.reasoning_tokens is None else {"reasoning_tokens": usage.reasoning_tokens}
        ),
    }


def write_error(error: GatewayError, request_id: str) -> dict[str, object]:
    """Write the error envelope; the id of the request stands in the headers."""
    return error.to_openai()


def error_event(error: GatewayError, request_id: str = "") -> bytes:
    """Write the event that ends a stream badly; no ``[DONE]`` may follow it."""
    return b"data: " + orjson.dumps(write_error(error, request_id)) + b"\n\n"


def read_error(body: Mapping[str, object]) -> tuple[str, str | None] | None:
    """Return the words and the code of an error body, or None when it is none."""
    error = body.get("error")
    if isinstance(error, str):
        return error, None
    if not isinstance(error, dict):
        message = body.get("message")  # Mistral and some others have it at the top
        return (message, None) if isinstance(message, str) else None
    message, code = error.get("message"), error.get("code") or error.get("type")
    return (message if isinstance(message, str) else "", str(code) if code is not None else None)


def text_of(content: object) -> str:
    """Return the words of a message's or delta's content: a string, or chunks of text."""
    if isinstance(content, str):
        return content
    chunks = content if isinstance(content, list) else []
    return "".join(c["text"] for c in chunks if isinstance(c, dict) and isinstance(c.get("text"), str))


def thought_of(message: Mapping[str, object]) -> str:
    """Return the thoughts of a message or delta, whatever the provider calls them."""
    for name in ("reasoning_content", "reasoning"):
        thought = message.get(name)
        if isinstance(thought, str) and thought:
            return thought
    content = message.get("content")  # Mistral puts chunks of thinking among those of text
    chunks = content if isinstance(content, list) else []
    return "".join(text_of(c.get("thinking")) for c in chunks if isinstance(c, dict) and c.get("type") == "thinking")


def _parts(message: Mapping[str, object], answer_id: str) -> Iterator[Part]:
    if thought := thought_of(message):
        yield Reasoning(thought)
    if text := text_of(message.get("content")):
        yield Text(text)
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        yield Refusal(refusal)
    calls = message.get("tool_calls")
    seen: set[str] = set()
    for i, call in enumerate(calls if isinstance(calls, list) else ()):
        if isinstance(call, dict):
            yield _read_call(call, unique_id(call.get("id"), seen, answer_id, i))
    legacy = message.get("function_call")
    if isinstance(legacy, dict):
        yield _read_call({"function": legacy}, unique_id(None, seen, answer_id, 0))


def unique_id(given: object, seen: set[str], answer_id: str, i: int) -> str:
    """Return a call's id: the provider's own, or one made up where it gave none or gave it twice."""
    call_id = given if isinstance(given, str) else ""
    while not call_id or call_id in seen:
        call_id, i = f"call_{answer_id}_{i}", i + 1
    seen.add(call_id)
    return call_id


def _read_call(call: Mapping[str, object], call_id: str) -> ToolCall:
    custom, function = call.get("custom"), call.get("function")
    if isinstance(custom, dict):
        return ToolCall(call_id, _name_of(custom), arguments_text(custom.get("input"), ""), is_custom=True)
    named = function if isinstance(function, dict) else {}
    return ToolCall(call_id, _name_of(named), arguments_text(named.get("arguments"), ""), state=state_of(call))


def _name_of(named: Mapping[str, object]) -> str:
    name = named.get("name")
    return name if isinstance(name, str) and name else "unnamed"


def state_of(call: Mapping[str, object]) -> str | None:
    """Return the thought signature that Google's own Chat layer puts beside a call."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    state = google.get("thought_signature") if isinstance(google, dict) else None
    return state if isinstance(state, str) else None


def _written_call(call: ToolCall) -> dict[str, object]:
    if call.is_custom:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": call.id, "type": "function", "function": function}
