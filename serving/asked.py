"""What routing needs to know of a request, whichever API it came by; the body itself is kept whole.

A request is parsed only as far as routing reads it: the model, the dials, the human's words and the shape of the
rest. Whether it is translated at all is not known yet. Pure: no I/O, no clock. Entry points: :func:`parse_chat`,
:func:`parse_responses`, :func:`parse_messages`, :func:`parse_completions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from router import Prompt
from router.text import read
from serving import dials, fields
from serving.dialects.messages import request as messages_request
from serving.dialects.responses import request as responses_request
from serving.dialects.responses.tools import offered
from serving.dials import Dials
from serving.errors import InvalidRequest

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as far as routing reads it; ``body`` is the whole, for passing on.

    Parameters
    ----------
    body : Mapping
        The request's JSON object.
    model : str
        ``auto``, ``auto:PRESET``, ``scenario:NAME``, a candidate's name or what an alias makes one of these, as sent.
    is_stream : bool
    dials : Dials
    prompt : Prompt
    wants_usage : bool
        Whether a Chat client itself asked for the usage chunk of a stream; other APIs always have it.
    n_choices : int
        Answers asked for at once.
    """

    body: Mapping[str, object] = field(repr=False)
    model: str
    is_stream: bool
    dials: Dials
    prompt: Prompt = field(repr=False)
    wants_usage: bool = True
    n_choices: int = 1


def parse_chat(body: Mapping[str, object], headers: Headers = ()) -> Asked:
    """Read what routing needs of a Chat Completions body and the ``x-turnout-*`` headers.

    Parameters
    ----------
    body : Mapping
        The request's JSON object; kept, not copied.
    headers : iterable of (bytes, bytes)
        Raw, lower-case names.

    Raises
    ------
    InvalidRequest
        A field is missing or cannot be; its ``param`` says which.
    """
    options = fields.optional(body, "stream_options", dict, "an object") or {}
    response_format = fields.optional(body, "response_format", dict, "an object") or {}
    tools = fields.optional(body, "tools", list, "a list") or []
    functions = fields.optional(body, "functions", list, "a list") or []
    offered = tools + functions
    n_choices = fields.positive(body, "n") or 1
    return Asked(
        body=body,
        model=_model(body),
        is_stream=_is_stream(body),
        wants_usage=options.get("include_usage") is True,
        n_choices=n_choices,
        dials=dials.read(body.get(dials.FIELD), headers),
        prompt=read(
            _messages(body),
            n_extra_characters=n_characters(offered) + n_characters(response_format.get("json_schema")),
            n_tools=len(offered),
            needs_json_schema=response_format.get("type") == "json_schema",
            max_output_tokens=fields.positive(body, "max_completion_tokens") or fields.positive(body, "max_tokens"),
            n_choices=n_choices,
        ),
    )


def parse_responses(body: Mapping[str, object], headers: Headers = ()) -> Asked:
    """Read what routing needs of a Responses body; see :func:`parse_chat`."""
    text = fields.optional(body, "text", dict, "an object") or {}
    form = fields.optional(text, "format", dict, "an object", "text.") or {}
    said = body.get("input")
    if not isinstance(said, str | list) or not said:
        raise fields.wrong("input", said, "a string or a list of at least one item")
    return Asked(
        body=body,
        model=_model(body),
        is_stream=_is_stream(body),
        dials=dials.read(body.get(dials.FIELD), headers),
        prompt=read(
            responses_request.outline(body),
            n_extra_characters=responses_request.count_extra(body),
            n_tools=len(list(offered(body))),
            needs_json_schema=form.get("type") == "json_schema",
            max_output_tokens=fields.positive(body, "max_output_tokens"),
        ),
    )


def parse_messages(body: Mapping[str, object], headers: Headers = ()) -> Asked:
    """Read what routing needs of a Messages body; see :func:`parse_chat`."""
    output = fields.optional(body, "output_config", dict, "an object") or {}
    form = fields.optional(output, "format", dict, "an object", "output_config.") or {}
    tools = fields.optional(body, "tools", list, "a list") or []
    _messages(body)
    return Asked(
        body=body,
        model=_model(body),
        is_stream=_is_stream(body),
        dials=dials.read(body.get(dials.FIELD), headers),
        prompt=read(
            messages_request.outline(body),
            n_extra_characters=messages_request.count_extra(body),
            n_tools=len(tools),
            needs_json_schema=form.get("type") == "json_schema",
            # 0 only warms the provider's cache.
            max_output_tokens=fields.positive(body, "max_tokens") if body.get("max_tokens") != 0 else None,
        ),
    )


def parse_completions(body: Mapping[str, object], headers: Headers = ()) -> Asked:
    """Read what routing needs of a legacy completions body; see :func:`parse_chat`."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise fields.wrong("prompt", body.get("prompt"), "a string, or a list of exactly one")
    options = fields.optional(body, "stream_options", dict, "an object") or {}
    return Asked(
        body=body,
        model=_model(body),
        is_stream=_is_stream(body),
        wants_usage=options.get("include_usage") is True,
        dials=dials.read(body.get(dials.FIELD), headers),
        prompt=read(
            [{"role": "user", "content": prompt}],
            max_output_tokens=fields.positive(body, "max_tokens"),
        ),
    )


def n_characters(value: object) -> int:
    """Return how long a part of the body is that a provider reads as it stands; nothing is 0."""
    return len(written(value)) if value else 0


def written(value: object) -> bytes:
    """Write JSON.

    Raises
    ------
    InvalidRequest
        It is nested deeper than the writer goes; the reader goes deeper.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise InvalidRequest("the body nests objects or lists too deeply", code="invalid_json") from None


def _model(body: Mapping[str, object]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise fields.wrong("model", model, "the name of a candidate, or auto")
    return model


def _is_stream(body: Mapping[str, object]) -> bool:
    return fields.optional(body, "stream", bool, "true or false") or False


def _messages(body: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", messages, "a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"messages[{i}] must be an object with a role", param=f"messages[{i}]")
    return messages
