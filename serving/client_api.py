"""The APIs that clients call, one frozen row each: path, dialect, how it is parsed, watched and kept apart.

Entry points: :data:`CLIENT_APIS` (by path), :class:`ClientApi`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from router.pricing import Usage
from serving.asked import Asked, Headers, parse_chat, parse_completions, parse_messages, parse_responses
from serving.dialects import passing_states
from serving.dialects.chat import answer as chat_answer
from serving.dialects.chat.dialect import CHAT
from serving.dialects.chat.watch import ChatStream
from serving.dialects.completions import COMPLETIONS
from serving.dialects.dialect import Dialect
from serving.dialects.messages import answer as messages_answer
from serving.dialects.messages.dialect import MESSAGES
from serving.dialects.messages.watch import MessagesStream
from serving.dialects.responses import answer as responses_answer
from serving.dialects.responses.dialect import RESPONSES
from serving.dialects.responses.watch import ResponsesStream
from serving.embedding import parse_embeddings

#: Words, a call or an end; what comes before only says that an answer begins.
_CHAT_CONTENT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|name|arguments|text|finish_reason)"\s*:\s*"[^"]'
)
_WORDS = re.compile(
    rb'"(?:content|text|delta|thinking|partial_json|arguments|reasoning_content|reasoning|refusal)"'
    rb'\s*:\s*"((?:[^"\\]|\\.)*)"'
)
_RESPONSES_BEGINNINGS = re.compile(
    rb'"type"\s*:\s*"(?:error|response\.(?:created|queued|in_progress|failed|[a-z_]+\.added))"'
)
_MESSAGES_BEGINNINGS = re.compile(rb'"type"\s*:\s*"(?:message_start|ping|content_block_start|error)"')


def _goes_on(event: bytes, beginnings: re.Pattern[bytes]) -> bool:
    return b"data:" in event and beginnings.search(event) is None


def _is_chat_content(event: bytes) -> bool:
    return _CHAT_CONTENT.search(event) is not None


def n_characters(event: bytes) -> int:
    """Count, roughly, what an event of any of the APIs says of the answer: words, thoughts, arguments."""
    # Responses repeat at each end what the deltas said.
    if b'"response.' in event and b'.delta"' not in event:
        return 0
    return sum(map(len, _WORDS.findall(event)))


class Watch(Protocol):
    """Notes how a stream that passes through goes on."""

    @property
    def usage(self) -> Usage:
        """The last usage seen."""

    @property
    def is_done(self) -> bool:
        """The event that ends the stream well has passed."""

    @property
    def is_failed(self) -> bool:
        """The event that ends it badly has passed."""

    @property
    def n_events(self) -> int:
        """Events seen."""

    @property
    def states(self) -> list[str]:
        """Opaque reasoning states seen."""

    def pass_on(self, event: bytes) -> bool:
        """Take note of one whole event; say whether the client shall have it."""

    def pass_on_rest(self, rest: bytes) -> bytes:
        """Take what came after the last whole event; return what the client shall have."""


#: (body, state -> the state that may pass or None) -> the paths of what was left out; changes the body.
StatesFilter = Callable[[dict[str, object], Callable[[str], str | None]], Iterable[str]]


@dataclass(frozen=True, slots=True)
class ClientApi:
    """One row.

    Parameters
    ----------
    path : str
    dialect : Dialect
        What it speaks, to be translated or passed through.
    parse : callable (body, headers) -> Asked
    watch : callable (asked) -> Watch
        For streams that pass through.
    is_answer : callable (body) -> bool
        Whether a whole answer that passes through is one.
    usage_of : callable (body) -> Usage
        Of a whole answer that passes through.
    carries_states : bool
        Whether it has a place for opaque reasoning state.
    states_of : callable (body) -> iterable of str
        The states in a whole answer that passes through.
    without_foreign_states : callable
        Takes out of a request what another provider thought.
    is_content : callable (event) -> bool
        Whether an event of a stream holds some of the answer, not only that one begins.
    ping : bytes
        An event that says nothing, for long silences.
    embeds : bool
        It embeds text instead of answering.
    """

    path: str
    dialect: Dialect
    parse: Callable[[Mapping[str, object], Headers], Asked]
    watch: Callable[[Asked], Watch]
    is_answer: Callable[[Mapping[str, object]], bool]
    usage_of: Callable[[Mapping[str, object]], Usage]
    carries_states: bool = False
    states_of: Callable[[Mapping[str, object]], Iterable[str]] = lambda body: ()
    without_foreign_states: StatesFilter = lambda body, passing: ()
    is_content: Callable[[bytes], bool] = _is_chat_content
    ping: bytes = b": still waiting for the provider\n\n"
    embeds: bool = False


def _has_choices(body: Mapping[str, object]) -> bool:
    return isinstance(body.get("choices"), list)


def _chat_watch(asked: Asked) -> Watch:
    return ChatStream(keeps_usage=asked.wants_usage, n_choices=asked.n_choices)


CHAT_PATH = "/v1/chat/completions"
MESSAGES_PATH = "/v1/messages"


def _rows() -> Iterator[ClientApi]:
    yield ClientApi(CHAT_PATH, CHAT, parse_chat, _chat_watch, _has_choices, chat_answer.usage_of)
    yield ClientApi(
        "/v1/responses",
        RESPONSES,
        parse_responses,
        lambda asked: ResponsesStream(),
        lambda body: isinstance(body.get("output"), list),
        responses_answer.usage_of,
        carries_states=True,
        states_of=passing_states.of_responses_answer,
        is_content=lambda event: _goes_on(event, _RESPONSES_BEGINNINGS),
        without_foreign_states=passing_states.filter_responses,
    )
    yield ClientApi(
        MESSAGES_PATH,
        MESSAGES,
        parse_messages,
        lambda asked: MessagesStream(),
        lambda body: isinstance(body.get("content"), list),
        lambda body: messages_answer.usage_of(body.get("usage")),
        carries_states=True,
        states_of=passing_states.of_messages_answer,
        is_content=lambda event: _goes_on(event, _MESSAGES_BEGINNINGS),
        without_foreign_states=passing_states.filter_messages,
        ping=b'event: ping\ndata: {"type":"ping"}\n\n',
    )
    yield ClientApi(
        "/v1/embeddings",
        CHAT,
        parse_embeddings,
        _chat_watch,
        lambda body: isinstance(body.get("data"), list),
        chat_answer.usage_of,
        embeds=True,
    )
    yield ClientApi("/v1/completions", COMPLETIONS, parse_completions, _chat_watch, _has_choices, chat_answer.usage_of)


#: By path, in the order of their importance.
CLIENT_APIS: Mapping[str, ClientApi] = {row.path: row for row in _rows()}
