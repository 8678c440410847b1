"""Between a client's API and a provider's: pass through where both speak the same dialect, else translate.

::

                                  ┌─ PassThrough ───────────────────────────────────────────┐
                                  │  body: model, credentials, what the provider refuses    │
    client ── Asked ──▶ relay_of ─┤  answer: untouched, watched for usage and how it ends   │──▶ provider
                                  ├─ Translation ───────────────────────────────────────────┤
                                  │  read, written; what is lost on the way is reported     │
                                  └─────────────────────────────────────────────────────────┘

Entry point: :func:`relay_of`.
"""

from __future__ import annotations

import re

from router.pricing import Usage
from serving import dials
from serving.asked import Asked, written
from serving.client_api import ClientApi, Watch, n_characters
from serving.deployment import Deployment, Line
from serving.dialects.losses import Loss
from serving.embedding import EmbeddingRelay
from serving.errand import Conveyor, Errand, Relay, ask_usage, object_of, put
from serving.errors import GatewayError, UpstreamBroken
from serving.inspection import Inspection
from serving.reasoning_states import ReasoningStates
from serving.sse import data_of
from serving.translation import Translation

#: Inside JSON strings quotes are escaped, so a hit is a real key.
_NO_PREVIOUS = re.compile(rb'"previous_response_id"\s*:\s*null')


def relay_of(api: ClientApi, asked: Asked, deployment: Deployment, states: ReasoningStates, errand: Errand) -> Relay:
    """Choose how a request goes to a deployment.

    Raises
    ------
    InvalidRequest
        Something in the request cannot be translated; names the field.
    """
    if api.embeds:
        return EmbeddingRelay(asked, deployment)
    line = deployment.line_for(api.dialect.name)
    if line.dialect == api.dialect.name:
        return PassThrough(api, asked, deployment, line, states, errand)
    return Translation(api, asked, deployment, line, states, errand)


class PassThrough:
    """The provider speaks the client's dialect: nothing changes but what must."""

    is_translated = False

    def __init__(
        self,
        api: ClientApi,
        asked: Asked,
        deployment: Deployment,
        line: Line,
        states: ReasoningStates,
        errand: Errand,
    ) -> None:
        self.line = line
        self.url = line.stream_url if asked.is_stream else line.url
        self._api = api
        self._asked = asked
        self._states = states
        self._maker = deployment.maker(line.dialect)
        body = dict(asked.body)
        body["model"] = deployment.model
        body.pop(dials.FIELD, None)
        lost = list(api.without_foreign_states(body, lambda state: states.passing(state, self._maker, errand.key)))
        if line.dialect == "chat":
            lost += deployment.quirks.apply(body)
        put(body, line.parameters)
        if line.dialect == "chat" and asked.is_stream and not asked.wants_usage:
            ask_usage(body, deployment)
        self._body = body
        self._previous = errand.request.get("previous_response_id") if "previous_response_id" not in body else None
        self.losses = tuple(map(Loss, lost))
        self.inspection = Inspection.of(api.dialect, asked.body, asked.n_choices)

    def body(self) -> bytes:
        """Return the body to send."""
        return written(self._body)

    def whole(self, body: bytes) -> tuple[bytes, Usage]:
        """Let a whole answer pass."""
        answer = object_of(body)
        if not self._api.is_answer(answer):
            raise UpstreamBroken("answered 200 with something that is no answer of this API")
        self._states.remember(self._api.states_of(answer), self._maker)
        if self.inspection is not None:
            self.inspection.pass_whole(body, answer)
        return _naming(body, self._previous), self._api.usage_of(answer)

    def conveyor(self) -> Conveyor:
        """Return what lets a stream pass."""
        watch = self._api.watch(self._asked)
        return _PassingStream(self._api, watch, self._states, self._maker, self._previous, self.inspection)


class _PassingStream:
    """A watch, with the events it lets pass."""

    def __init__(
        self,
        api: ClientApi,
        watch: Watch,
        states: ReasoningStates,
        maker: str,
        previous: object,
        inspection: Inspection | None,
    ) -> None:
        self._api = api
        self._watch = watch
        self._states = states
        self._maker = maker
        self._previous = previous
        self._inspection = inspection
        self.has_content = False
        self.n_characters = 0
        self.failure: tuple[str, str | None] = ("", None)

    @property
    def usage(self) -> Usage:
        return self._watch.usage

    @property
    def is_done(self) -> bool:
        return self._watch.is_done

    @property
    def is_failed(self) -> bool:
        return self._watch.is_failed

    def pass_on(self, event: bytes) -> bytes:
        if not self._watch.pass_on(event):
            return b""
        if self._watch.is_failed:
            self.failure = _failure(self._api, event)
        else:
            self.has_content = self.has_content or self._api.is_content(event)
            self.n_characters += n_characters(event)
            if self._inspection is not None:
                self._inspection.pass_by(event)
        if self._watch.states:
            self._states.remember(self._watch.states, self._maker)
            self._watch.states.clear()
        return event if self._previous is None else _naming(event, self._previous)

    def pass_on_rest(self, rest: bytes) -> bytes:
        return self._watch.pass_on_rest(rest)

    def broken(self, error: GatewayError) -> bytes:
        return self._api.dialect.error_event(error, "")


def _failure(api: ClientApi, event: bytes) -> tuple[str, str | None]:
    """Read the words and the code of an error event."""
    try:
        said = object_of(data_of(event) or b"{}")
    except UpstreamBroken:
        return "", None
    response = said.get("response")
    return api.dialect.read_error(response if isinstance(response, dict) else said) or ("", None)


def _naming(body: bytes, previous: object) -> bytes:
    """Name the response that an answer follows, where its history came from our store and its provider knows none."""
    if previous is None:
        return body
    return _NO_PREVIOUS.sub(lambda found: found[0].removesuffix(b"null") + written(previous), body)
