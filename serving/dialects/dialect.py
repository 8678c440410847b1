"""What every dialect can do, as one frozen row of functions: variation is data.

A dialect is a folder of three modules: ``request`` (body ⇄ :class:`Conversation`), ``answer`` (body ⇄ :class:`Answer`,
usage, errors) and ``stream`` (events ⇄ :class:`Event`, one drawn state machine each way). Every one of them goes both
ways, so that each dialect is its own counterpart in tests and in the emulator. Entry point: :class:`Dialect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.dialects.answer import Answer, Event
from serving.dialects.conversation import Conversation
from serving.dialects.losses import Losses
from serving.errors import GatewayError


class StreamReader(Protocol):
    """Provider's events in, neutral events out; a state machine for one stream."""

    def read(self, event: bytes) -> Sequence[Event]:
        """Take one whole event of the stream, terminator included; raises UpstreamBroken when it is unreadable."""

    def end(self) -> Sequence[Event]:
        """Take note that the stream ended; may yet give the events of an answer that is whole (see each dialect)."""


class StreamWriter(Protocol):
    """Neutral events in, bytes for the client out; a state machine for one stream."""

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more whole events; after ``Finished`` or ``Failed`` nothing more is written."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a written answer says of itself and of the request it answers.

    Parameters
    ----------
    id : str
        Of the gateway, such as ``req_0123…``; each dialect puts its own prefix before the part after ``_``.
    model : str
        The candidate, as clients call it.
    created_unix_s : int
    request : Mapping
        The client's body, of which Responses repeats fields.
    """

    id: str
    model: str
    created_unix_s: int
    request: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API of LLM providers.

    Parameters
    ----------
    name : {'chat', 'responses', 'messages', 'gemini'}
    read_request : callable (body, losses) -> Conversation
        Fields without a place in the neutral form go to the report, or raise InvalidRequest by the policy.
    write_request : callable (conversation, model, losses) -> dict
        The body for a provider; ``model`` is its own name for the candidate.
    read_answer : callable (body) -> Answer
        Of a body with status 200; raises UpstreamBroken when it is none.
    write_answer : callable (answer, reply) -> dict
    reader : callable () -> StreamReader
    writer : callable (reply) -> StreamWriter
    write_error : callable (error, request_id) -> dict
        The error envelope.
    error_event : callable (error, request_id) -> bytes
        The event that ends a stream badly.
    read_error : callable (body) -> (message, code) or None
        The words and the machine-readable code of a provider's error body.
    overloaded_status : int, default=503
        By which its clients know that they shall come back later.
    """

    name: str
    read_request: Callable[[Mapping[str, object], Losses], Conversation]
    write_request: Callable[[Conversation, str, Losses], dict[str, object]]
    read_answer: Callable[[Mapping[str, object]], Answer]
    write_answer: Callable[[Answer, Reply], dict[str, object]]
    reader: Callable[[], StreamReader]
    writer: Callable[[Reply], StreamWriter]
    write_error: Callable[[GatewayError, str], dict[str, object]]
    error_event: Callable[[GatewayError, str], bytes]
    read_error: Callable[[Mapping[str, object]], tuple[str, str | None] | None]
    overloaded_status: int = 503
