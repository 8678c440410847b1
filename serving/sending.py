"""What leaves for a provider, and what of its answer's head comes back. Pure.

Entry points: :func:`to_send`, :func:`returned`, :func:`patience_s`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import inf

from serving.deployment import Deployment, Line
from serving.dialects.messages.request import VERSION
from serving.errors import InvalidRequest
from serving.exchange import Header
from serving.providers.upstream import UpstreamRequest, UpstreamResponse
from serving.server_settings import ServerSettings

#: Of the client's headers, what any provider may see; everything else stays here.
_FORWARDED = frozenset({b"user-agent", b"idempotency-key", b"x-client-request-id"})
#: What a provider of the client's own dialect may see besides: its versions and betas, whose fields stand in the body.
_FORWARDED_WITHIN = {
    "chat": (b"openai-beta",),
    "responses": (b"openai-beta", b"session-id", b"session_id", b"conversation_id", b"thread-id", b"originator",
                  b"x-codex-"),
    "messages": (b"anthropic-version", b"anthropic-beta", b"anthropic-"),
}  # fmt: skip
#: Only Anthropic itself is told what Claude Code says of itself.
_TO_ANTHROPIC = (b"x-claude-code-", b"x-app")
#: Of a provider's headers, what the client may see, and under which name.
_RETURNED = {
    "openai-processing-ms": b"openai-processing-ms",
    "openai-version": b"openai-version",
    "x-request-id": b"x-upstream-request-id",
    "request-id": b"x-upstream-request-id",
}
#: How long the caller waits for the whole of its answer.
_PATIENCE = b"x-request-timeout-ms"
#: What a last attempt gets at least.
LEAST_TIME_S = 0.05
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def to_send(
    server: ServerSettings,
    deployment: Deployment,
    line: Line,
    body: bytes,
    headers: Iterable[Header],
    *,
    url: str,
    is_translated: bool,
    query: bytes = b"",
    left_s: float = inf,
    first_byte_s: float = inf,
) -> UpstreamRequest:
    """Make the call to a provider.

    Parameters
    ----------
    server : ServerSettings
        Its time-outs.
    deployment : Deployment
    line : Line
    body : bytes
    headers : iterable of (bytes, bytes)
        The client's, raw; its credentials never go on.
    url : str
        One of the line's.
    is_translated : bool
        Whether the client speaks another dialect: its versions and betas then mean nothing there.
    query : bytes
        The client's query, which goes on only within Messages (``beta=true``).
    left_s : float
        Of the caller's patience.
    first_byte_s : float
        How long this deployment is waited for, where that is less than what the settings allow.
    """
    sent = dict(line.headers)
    if line.dialect == "messages":
        sent["anthropic-version"] = VERSION
    within: tuple[bytes, ...] = () if is_translated else _FORWARDED_WITHIN.get(line.dialect, ())
    if within and deployment.kind == "anthropic":
        within += _TO_ANTHROPIC
    betas = []
    for name, value in headers:
        if name == b"anthropic-beta" and within:
            betas.append(value.decode("latin-1"))
        elif name in _FORWARDED or (within and name.startswith(within)):
            sent[name.decode("latin-1")] = value.decode("latin-1")
    if betas:
        sent["anthropic-beta"] = ",".join(betas)
    if query and line.dialect == "messages" and not is_translated:
        url = f"{url}?{query.decode('latin-1')}"
    return UpstreamRequest(
        url=url,
        headers=sent,
        body=body,
        connect_timeout_s=server.connect_timeout_s,
        first_byte_timeout_s=max(LEAST_TIME_S, min(server.first_byte_timeout_s, first_byte_s)),
        idle_timeout_s=server.idle_timeout_s,
        total_timeout_s=max(LEAST_TIME_S, min(server.total_timeout_s, left_s)),
        provider=deployment.provider,
        deployment=deployment.name,
    )


def patience_s(headers: Iterable[Header], most_s: float) -> float:
    """Return how long the caller waits, by ``x-request-timeout-ms``, and at most so long.

    Raises
    ------
    InvalidRequest
        The header is no positive number.
    """
    for name, value in headers:
        if name != _PATIENCE:
            continue
        try:
            wait_s = float(value) / 1e3
        except ValueError:
            wait_s = 0.0
        if not 0 < wait_s < inf:
            raise InvalidRequest(
                f"{_PATIENCE.decode()} must be a number of milliseconds above 0", param=_PATIENCE.decode()
            )
        return min(wait_s, most_s)
    return most_s


def returned(response: UpstreamResponse) -> list[Header]:
    """Pick the provider's headers that the client may see, made fit for the wire: they are foreign words."""
    theirs = response.headers
    found = {ours: theirs[name] for name, ours in _RETURNED.items() if name in theirs}
    return [(ours, _CONTROL.sub("", words).encode("latin-1", "replace")) for ours, words in found.items()]
