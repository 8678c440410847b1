"""A request whose provider speaks another dialect: translated there, its answer translated back.

::

    body ──read──▶ Conversation ──states returned──▶ ──tools emulated──▶ ──write──▶ body for the provider
    body ◀─write── events ◀──states sealed or kept── ◀──tools restored── ◀──read─── answer, or stream

Pure but for the memory of reasoning states. Entry point: :class:`Translation`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from router.pricing import Usage
from serving.asked import Asked, written
from serving.client_api import ClientApi
from serving.deployment import Deployment, Line
from serving.dialects.answer import Closed, Collector, Delta, Event, Failed, Finished, Opened, UsageSeen, events_of
from serving.dialects.conversation import Conversation, Part, Settings
from serving.dialects.dialect import Dialect, Reply
from serving.dialects.emulation import Emulation
from serving.dialects.losses import Losses
from serving.dialects.registry import DIALECTS
from serving.errand import Conveyor, Errand, ask_usage, object_of, put
from serving.errors import GatewayError, InvalidRequest
from serving.inspection import Inspection
from serving.providers.chat_quirks import fit
from serving.reasoning_states import ReasoningStates


class Translation:
    """The provider speaks another dialect."""

    is_translated = True

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
        self._upstream = DIALECTS[line.dialect]
        self._states = states
        self._maker = deployment.maker(line.dialect)
        self._errand = errand
        self._reply = Reply(errand.id, errand.candidate, errand.created_unix_s, errand.request)
        losses = Losses()
        conversation, is_lossless = states.returned(
            api.dialect.read_request(asked.body, losses), self._maker, errand.key
        )
        if not is_lossless:
            losses.dropped("reasoning")
        self._emulation: Emulation | None = None
        if self._upstream.name != "responses":  # which alone has custom tools and namespaces
            emulation, conversation = Emulation.of(conversation, losses)
            self._emulation = None if emulation.is_idle else emulation
        conversation = _limited(conversation, self._upstream, errand.max_output_tokens)
        body = self._upstream.write_request(conversation, deployment.model, losses)
        if self._upstream.name == "chat":
            fit(deployment.quirks, body, losses)
        put(body, line.parameters)
        if self._upstream.name == "chat" and conversation.is_stream:
            ask_usage(body, deployment)
        self._body = body
        self.losses = tuple(losses)
        self.inspection = Inspection.of(api.dialect, asked.body, asked.n_choices)
        refused = [loss.field for loss in losses.told() if loss.what != "emulated"]
        if errand.mode == "strict" and refused:
            raise InvalidRequest(
                f"losses are strict, and {', '.join(refused)} would not reach this candidate as sent",
                param=refused[0],
                code="unsupported_parameter",
            )

    def body(self) -> bytes:
        """Return the body to send."""
        return written(self._body)

    def whole(self, body: bytes) -> tuple[bytes, Usage]:
        """Translate a whole answer."""
        answer = self._upstream.read_answer(object_of(body))
        collector, back = Collector(), self._back()
        for event in events_of(answer):
            for turned in back.turn(event):
                collector.add(turned)
        turned_back = collector.answer()
        if self.inspection is not None:
            self.inspection.see_whole(turned_back)
        return written(self._api.dialect.write_answer(turned_back, self._reply)), answer.usage

    def conveyor(self) -> Conveyor:
        """Return what translates a stream."""
        return _TranslatedStream(self._api, self._upstream, self._reply, self._back(), self.inspection)

    def _back(self) -> _WayBack:
        return _WayBack(self._emulation, self._states, self._maker, self._errand.key, self._api.carries_states)


class _WayBack:
    """From the provider's neutral events to the client's: tools restored, states sealed or kept."""

    def __init__(
        self, emulation: Emulation | None, states: ReasoningStates, maker: str, key: str, carries_states: bool
    ) -> None:
        self._emulation = emulation
        self._states = states
        self._maker = maker
        self._key = key
        self._carries_states = carries_states
        self._kind = "text"
        self._kept = Collector()

    def turn(self, event: Event) -> Iterable[Event]:
        """Return what the client's writer shall get for one event."""
        if self._emulation is None:
            return (self._sealed(event),)
        return map(self._sealed, self._emulation.restore(event))

    def _sealed(self, event: Event) -> Event:
        if isinstance(event, Opened):
            self._kind = event.kind
        if isinstance(event, Finished):
            self._states.keep(self._kept_parts(event), self._maker, self._key, with_thoughts=not self._carries_states)
        elif self._kind in ("reasoning", "call") and not isinstance(event, UsageSeen | Failed):
            self._kept.add(event)
            if isinstance(event, Closed):
                return self._closed(event)
        return event

    def _closed(self, event: Closed) -> Closed:
        """Seal the state of thoughts; that of a call is kept here, by the call's id."""
        kind, self._kind = self._kind, "text"
        if kind == "reasoning" and self._carries_states:
            return replace(event, state=self._states.seal(event.state or "", self._maker, self._key))
        return replace(event, state=None)

    def _kept_parts(self, finished: Finished) -> tuple[Part, ...]:
        self._kept.add(finished)
        return self._kept.answer().parts


class _TranslatedStream:
    """A reader of the provider's dialect, a writer of the client's, and what lies between."""

    def __init__(
        self, api: ClientApi, upstream: Dialect, reply: Reply, back: _WayBack, inspection: Inspection | None
    ) -> None:
        self.usage = Usage()
        self.is_done = False
        self.is_failed = False
        self.has_content = False
        self.n_characters = 0
        self.failure: tuple[str, str | None] = ("", None)
        self._reader = upstream.reader()
        self._writer = api.dialect.writer(reply)
        self._back = back
        self._inspection = inspection

    def pass_on(self, event: bytes) -> bytes:
        return self._written(self._reader.read(event))

    def pass_on_rest(self, rest: bytes) -> bytes:
        told = self.pass_on(rest.rstrip(b"\r\n") + b"\n\n") if rest.strip() else b""
        return told + self._written(self._reader.end())

    def broken(self, error: GatewayError) -> bytes:
        self.is_failed = True
        return self._writer.write(Failed(error.message, error.code, error.type))

    def _written(self, events: Iterable[Event]) -> bytes:
        told = []
        for event in events:
            if self.is_done or self.is_failed:
                break
            if isinstance(event, Delta):
                self.has_content = True
                self.n_characters += len(event.text)
            elif isinstance(event, UsageSeen):
                self.usage = event.usage
            elif isinstance(event, Finished):
                self.is_done = True
            elif isinstance(event, Failed):
                self.is_failed = True
                self.failure = (event.message, event.code or event.kind)
            for turned in self._back.turn(event):
                told.append(self._writer.write(turned))
                if self._inspection is not None:
                    self._inspection.see(turned)
        return b"".join(told)


def _limited(conversation: Conversation, upstream: Dialect, max_output_tokens: int | None) -> Conversation:
    """Name the candidate's own limit where the dialect demands one and the client named none."""
    settings: Settings = conversation.settings
    if upstream.name != "messages" or settings.max_output_tokens is not None or max_output_tokens is None:
        return conversation
    return replace(conversation, settings=replace(settings, max_output_tokens=max_output_tokens))
