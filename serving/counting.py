"""``POST /v1/messages/count_tokens``: by the provider that counts for the candidate, else an estimate that says so.

Counting is free, so it is neither decided nor recorded. Entry point: :func:`count_tokens`.
"""

from __future__ import annotations

import orjson

from serving.asked import Asked, parse_messages, written
from serving.course import Course, course_of
from serving.deciding import meets
from serving.dialects.passing_states import filter_messages
from serving.errors import UpstreamError
from serving.exchange import CHARACTERS_PER_TOKEN, Exchange, Header
from serving.fields import request_of
from serving.gateway import Answer, Gateway
from serving.keys import Principal
from serving.sending import to_send
from serving.state import State

#: What a message costs besides its words, in tokens.
TOKENS_PER_MESSAGE = 4
#: Longer than this an estimate is better than to wait.
PATIENCE_S = 10.0
_MAX_BYTES = 4_096


async def count_tokens(
    gateway: Gateway, exchange: Exchange, headers: list[Header], body: bytes, query: bytes = b""
) -> Answer:
    """Count the input tokens of a Messages request.

    Parameters
    ----------
    gateway : Gateway
    exchange : Exchange
        Its principal is known.
    headers : list of (bytes, bytes)
    body : bytes
    query : bytes

    Raises
    ------
    GatewayError
        The request cannot be read, or names what ``POST /v1/messages`` would not know either.
    """
    state = gateway.ready()
    assert exchange.principal is not None
    asked = parse_messages(request_of(body), headers)
    course = course_of(state, exchange.principal, asked, "messages")
    counted = await _counted(gateway, state, course, asked, exchange.principal, headers, query)
    n_tokens = _estimate(asked) if counted is None else counted
    said = written({"input_tokens": n_tokens})
    marks = [(b"x-turnout-estimated", b"true")] if counted is None else []
    return Answer(
        [*exchange.headers(), *marks, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(said))],
        said,
    )


async def _counted(
    gateway: Gateway, state: State, course: Course, asked: Asked, principal: Principal, headers: list[Header],
    query: bytes,
) -> int | None:  # fmt: skip
    """Ask the provider of a designated candidate that speaks Messages; None where nobody can be asked."""
    scenario = course.scenario
    candidate = course.candidate or (scenario.candidate if scenario else None)
    allowed = meets(state, principal, asked, scenario)
    ways = [
        d
        for d in state.deployments.values()
        if d.candidate == candidate and principal.may_use(d.candidate) and "messages" in d.lines and d.name in allowed
    ]
    if not ways:
        return None
    line = ways[0].lines["messages"]
    sent = {**asked.body, "model": ways[0].model}
    sent.pop("turnout", None)
    maker = ways[0].maker("messages")
    filter_messages(sent, lambda opaque: gateway.states.passing(opaque, maker, principal.name))
    request = to_send(
        state.settings.server, ways[0], line, written(sent), headers, url=line.count_url, is_translated=False,
        query=query, left_s=PATIENCE_S,
    )  # fmt: skip
    try:
        response = await gateway.upstream.send(request)
        try:
            said = await response.read()
        finally:
            await response.close()
        answer = orjson.loads(said) if response.status == 200 and len(said) <= _MAX_BYTES else None
    except (UpstreamError, orjson.JSONDecodeError):
        return None
    n_tokens = answer.get("input_tokens") if isinstance(answer, dict) else None
    return n_tokens if isinstance(n_tokens, int) else None


def _estimate(asked: Asked) -> int:
    shape = asked.prompt.shape
    return max(1, -(-shape.n_characters // CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE * shape.n_messages)
