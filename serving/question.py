"""A question about routing: the body of a request in any client API, or just a prompt; told apart by its fields.

Entry point: :func:`read_question`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from serving import fields
from serving.asked import Asked, Headers, parse_chat, parse_completions, parse_messages, parse_responses

_PARSERS: Mapping[str, Callable[[Mapping[str, object], Headers], Asked]] = {
    "chat": parse_chat,
    "responses": parse_responses,
    "messages": parse_messages,
    "completions": parse_completions,
}
#: Fields that a Messages body has and a Chat body has not.
_OF_MESSAGES = frozenset({"system", "thinking", "output_config", "stop_sequences", "anthropic_version"})


def read_question(body: Mapping[str, object], headers: Headers = ()) -> tuple[Asked, str]:
    """Read a question.

    Parameters
    ----------
    body : Mapping
        A body of Chat, Responses or Messages, without a model if need be; or ``prompt``. ``api`` says whose it is; only
        by it is a ``prompt`` that of completions.
    headers : iterable of (bytes, bytes)
        Raw, lower-case names.

    Returns
    -------
    tuple of (Asked, str)
        As it would come by that API, and the API's name.

    Raises
    ------
    InvalidRequest
        A field is missing or cannot be; its ``param`` says which.
    """
    asked = {"model": "auto", **body}
    headers = list(headers)
    api = asked.pop("api", None)
    if api != "completions" and (prompt := fields.optional(asked, "prompt", str, "a string")) is not None:
        message = {"role": "user", "content": prompt}
        asked["input" if api == "responses" else "messages"] = [message]
    if api is None:
        api = _api_of(asked, headers)
    if not isinstance(api, str) or api not in _PARSERS:
        raise fields.wrong("api", api, f"one of {', '.join(_PARSERS)}")
    return _PARSERS[api](asked, headers), api


def _api_of(body: Mapping[str, object], headers: Headers) -> str:
    if "input" in body and "messages" not in body:
        return "responses"
    if _OF_MESSAGES & set(body) or any(name == b"anthropic-version" for name, _ in headers):
        return "messages"
    tools = body.get("tools")
    has_schemas = isinstance(tools, list) and any(isinstance(tool, dict) and "input_schema" in tool for tool in tools)
    return "messages" if has_schemas else "chat"
