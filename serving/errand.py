"""What a relay is: one request's way to one deployment, and its answer's way back.

The two kinds are :class:`serving.relay.PassThrough` and :class:`serving.translation.Translation`. Entry points:
:class:`Relay`, :class:`Conveyor`, :class:`Errand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from router.pricing import Usage
from serving.deployment import Deployment, Line
from serving.dialects.losses import Loss
from serving.errors import GatewayError, UpstreamBroken
from serving.inspection import Inspection


class Conveyor(Protocol):
    """A stream on its way to the client."""

    @property
    def usage(self) -> Usage:
        """The last usage seen."""

    @property
    def is_done(self) -> bool:
        """The answer has ended well."""

    @property
    def is_failed(self) -> bool:
        """The provider said that it failed."""

    @property
    def failure(self) -> tuple[str, str | None]:
        """The provider's words and code, where :attr:`is_failed`."""

    @property
    def has_content(self) -> bool:
        """Some of the answer itself has come: from here on there is no other attempt."""

    @property
    def n_characters(self) -> int:
        """Of words, thoughts and arguments passed on so far: what a cut-off answer is estimated by."""

    def pass_on(self, event: bytes) -> bytes:
        """Take one whole event of the provider; return what the client gets for it, perhaps nothing."""

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event of a stream that ended."""

    def broken(self, error: GatewayError) -> bytes:
        """Return the event that ends the stream badly."""


class Relay(Protocol):
    """One request's way to one deployment, and its answer's way back; ``inspection`` looks at the answer's form."""

    line: Line
    url: str
    is_translated: bool
    losses: tuple[Loss, ...]
    inspection: Inspection | None

    def body(self) -> bytes:
        """Return the body to send."""

    def whole(self, body: bytes) -> tuple[bytes, Usage]:
        """Turn a whole answer into what the client gets, and its usage; raises UpstreamBroken when it is none."""

    def conveyor(self) -> Conveyor:
        """Return what turns a stream."""
        raise AssertionError("it answers whole only")


@dataclass(frozen=True, slots=True)
class Errand:
    """What a relay needs to know besides the request: who asks, under which id, and how strictly.

    Parameters
    ----------
    id : str
        Of the request; answers are named after it.
    key : str
        Name of the client's key.
    candidate : str
        As clients call it.
    created_unix_s : int
    request : Mapping
        The client's body as it came, of which answers repeat fields.
    mode : str
        One of :data:`~serving.dialects.losses.MODES`.
    max_output_tokens : int or None
        Of the candidate, where the provider must be told a limit and the client named none.
    """

    id: str
    key: str
    candidate: str
    created_unix_s: int
    request: Mapping[str, object]
    mode: str = "warn"
    max_output_tokens: int | None = None


def put(body: dict[str, object], parameters: Mapping[str, object]) -> None:
    """Put a candidate's own fields in the place of the client's; of an object, only the fields named."""
    for name, value in parameters.items():
        theirs = body.get(name)
        if isinstance(value, Mapping) and isinstance(theirs, Mapping):
            inner = dict(theirs)
            put(inner, value)
            body[name] = inner
        else:
            body[name] = value


def ask_usage(body: dict[str, object], deployment: Deployment) -> None:
    """Ask for the chunk that carries usage; without it nobody would know what a stream cost."""
    if "stream_options" not in deployment.quirks.withheld:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}


def object_of(body: bytes) -> Mapping[str, object]:
    """Read a whole answer as a JSON object; raises UpstreamBroken when it is none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamBroken("answered 200 with something that is not JSON") from None
    if not isinstance(answer, dict):
        raise UpstreamBroken("answered 200 with something that is no object")
    return answer
