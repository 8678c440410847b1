"""The wire of OpenAI Chat Completions: ``POST /v1/chat/completions``.

What comes in is parsed only as far as routing needs; what goes on is the same body with ``model`` and the candidate's
own parameters in place, unknown fields and their order kept, less what the provider is known to refuse. Answers pass
untouched. The one exception: usage is always asked of the provider, and the chunk that carries it is taken out again
where the client did not ask.

Pure: no I/O, no clock. Entry points: :func:`parse`, :func:`to_upstream`, :func:`usage_of`, :class:`ChatStream`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from router import Prompt
from router.pricing import Usage
from router.text import read
from serving import dials, fields
from serving.dials import Dials
from serving.errors import GatewayError, InvalidRequest
from serving.providers.directory import NO_QUIRKS, Quirks
from serving.sse import data_of

# Escaped quotes inside JSON strings cannot match these, so a hit is a real key; it is parsed to be sure.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_ERROR = re.compile(rb'"error"\s*:\s*[{"]')


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A chat request as far as routing reads it; ``body`` is the whole, for passing on.

    Parameters
    ----------
    model : str
        ``auto``, ``auto:PRESET`` or a candidate's name, as sent.
    wants_usage : bool
        Whether the client itself asked for the usage chunk of a stream.
    """

    body: Mapping[str, object] = field(repr=False)
    model: str
    is_stream: bool
    wants_usage: bool
    n_choices: int
    dials: Dials
    prompt: Prompt = field(repr=False)


def parse(body: Mapping[str, object], headers: Iterable[tuple[bytes, bytes]] = ()) -> ChatRequest:
    """Read what routing needs of a request body and its headers.

    Parameters
    ----------
    body : Mapping
        The request's JSON object; kept, not copied.
    headers : iterable of (bytes, bytes)
        Raw, lower-case names; only the dials ``x-turnout-*`` are read.

    Returns
    -------
    ChatRequest

    Raises
    ------
    InvalidRequest
        A field is missing or cannot be; its ``param`` says which.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise fields.wrong("model", model, "the name of a candidate, or auto")
    stream = fields.optional(body, "stream", bool, "true or false") or False
    options = fields.optional(body, "stream_options", dict, "an object") or {}
    response_format = fields.optional(body, "response_format", dict, "an object") or {}
    tools = fields.optional(body, "tools", list, "a list") or []
    functions = fields.optional(body, "functions", list, "a list") or []
    offered = tools + functions
    json_schema = response_format.get("json_schema")
    n_choices = fields.positive(body, "n") or 1
    limit = fields.positive(body, "max_completion_tokens") or fields.positive(body, "max_tokens")
    return ChatRequest(
        body=body,
        model=model,
        is_stream=stream,
        wants_usage=options.get("include_usage") is True,
        n_choices=n_choices,
        dials=dials.read(body.get(dials.FIELD), headers),
        prompt=read(
            _messages(body),
            n_extra_characters=_n_characters(offered) + _n_characters(json_schema),
            n_tools=len(offered),
            needs_json_schema=response_format.get("type") == "json_schema",
            max_output_tokens=limit,
            n_choices=n_choices,
        ),
    )


def to_upstream(
    request: ChatRequest, model: str, parameters: Mapping[str, object], quirks: Quirks = NO_QUIRKS
) -> tuple[bytes, tuple[str, ...]]:
    """Write the body for a provider.

    Parameters
    ----------
    request : ChatRequest
    model : str
        The provider's name for the candidate.
    parameters : Mapping
        Fields of the candidate; they stand in the place of the client's, and are sent whatever the quirks.
    quirks : Quirks
        What the provider cannot take.

    Returns
    -------
    tuple of (bytes, tuple of str)
        The body, and the client's fields that were left out of it.
    """
    body = dict(request.body)
    body["model"] = model
    body.pop(dials.FIELD, None)
    lost = quirks.apply(body)
    body.update(parameters)
    if request.is_stream and not request.wants_usage and "stream_options" not in quirks.withheld:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return _json(body), lost


def usage_of(answer: Mapping[str, object]) -> Usage:
    """Read the usage of an answer or chunk; what is absent or no count is None."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    return Usage(
        input_tokens=_tokens(usage, "prompt_tokens"),
        output_tokens=_tokens(usage, "completion_tokens"),
        cache_read_tokens=_tokens(prompt, "cached_tokens"),
        cache_write_tokens=_tokens(prompt, "cache_write_tokens"),
        reasoning_tokens=_tokens(completion, "reasoning_tokens"),
    )


def error_event(error: GatewayError) -> bytes:
    """Write the event that ends a stream badly; no ``[DONE]`` may follow it."""
    return b"data: " + orjson.dumps(error.to_openai()) + b"\n\n"


class ChatStream:
    """Watch the events of one answer go by.

    Attributes
    ----------
    usage : Usage
        The last one seen.
    is_done : bool
        The provider sent ``[DONE]``.
    is_failed : bool
        The provider sent an error event, which ends the stream as well.
    n_events : int
        Seen so far.
    """

    DONE = b"data: [DONE]\n\n"

    def __init__(self, *, keeps_usage: bool, n_choices: int = 1) -> None:
        self.usage = Usage()
        self.is_done = False
        self.is_failed = False
        self.n_events = 0
        self._keeps_usage = keeps_usage
        self._n_unfinished = n_choices

    @property
    def is_finished(self) -> bool:
        """Whether every choice has said why it ended."""
        return self._n_unfinished <= 0

    def pass_on(self, event: bytes) -> bool:
        """Take note of one whole event; say whether the client shall have it."""
        if self.is_done or self.is_failed:
            return False
        self.n_events += 1
        if _FINISHED.search(event):
            self._n_unfinished -= len(_FINISHED.findall(event))
        if _USAGE.search(event) or _ERROR.search(event):
            return self._note(_chunk(event))
        if b"[DONE]" in event:
            self.is_done = (data_of(event) or b"").strip() == b"[DONE]"
        return True

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event of a stream that ended; return what the client shall have.

        Some providers leave out the blank line after ``[DONE]``, or ``[DONE]`` itself: an answer whose every
        choice has finished is whole without it, and gets it. Half an event is never passed on.
        """
        told = b""
        whole = rest.rstrip(b"\r\n")
        if whole and (_chunk(whole) is not None or data_of(whole) == b"[DONE]") and self.pass_on(whole):
            told = whole + b"\n\n"
        if self.is_finished and not self.is_done and not self.is_failed:
            self.is_done = True
            told += self.DONE
        return told

    def _note(self, chunk: Mapping[str, object] | None) -> bool:
        """Take note of usage and error, which may come together; say whether the client shall have the chunk."""
        if chunk is None:
            return True
        has_usage = isinstance(chunk.get("usage"), dict)
        if has_usage:
            self.usage = usage_of(chunk)
        self.is_failed = bool(chunk.get("error"))
        # Some providers put usage on the last content chunk: only a chunk of nothing else is taken out.
        return self.is_failed or not has_usage or self._keeps_usage or chunk.get("choices") != []


def _chunk(event: bytes) -> dict[str, object] | None:
    try:
        chunk = orjson.loads(data_of(event) or b"null")
    except orjson.JSONDecodeError:
        return None
    return chunk if isinstance(chunk, dict) else None


def _n_characters(value: object) -> int:
    """Return how long a part of the body is that a provider reads as it stands; nothing is 0."""
    return len(_json(value)) if value else 0


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # What was read as JSON can be written again, unless it is deeper than the writer goes (it reads deeper).
        raise InvalidRequest("the body nests objects or lists too deeply", code="invalid_json") from None


def _tokens(usage: object, key: str) -> int | None:
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _messages(body: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", messages, "a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"messages[{i}] must be an object with a role", param=f"messages[{i}]")
    return messages
