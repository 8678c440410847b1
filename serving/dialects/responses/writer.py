r"""Responses streams, written. Reading one is :mod:`serving.dialects.responses.stream`.

One block at a time; words that follow words are parts of the same message item.

::

            Began                Opened text | refusal               Opened text | refusal
    (new) ────────▶ ( between ) ──────────────────────▶ ( in a part ) ◀───────────────────┐
          created,       ▲  │                             │  delta*                      │
          in_progress    │  │                      Closed └────────▶ ( message open ) ────┘
                         │  │ Opened reasoning | call        part done      │
                  Closed │  ▼                                               │ Opened reasoning | call, Finished
                item done└── ( in an item ) ◀── message item done ──────────┘
                                 delta*
    Finished, from anywhere but inside a block: completed | incomplete, [DONE]
    Failed, from anywhere: error, and failed if created was written

Entry point: :class:`ResponsesWriter`.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from router.pricing import Usage
from serving.dialects.answer import Began, Closed, Delta, Event, Failed, Finished, Opened, UsageSeen
from serving.dialects.dialect import Reply
from serving.dialects.responses.answer import write_error_event, write_usage
from serving.dialects.responses.envelope import envelope, status_of
from serving.dialects.responses.marks import marked
from serving.dialects.responses.output import (
    Ids,
    annotation_of,
    call_item,
    message_item,
    reasoning_item,
    refusal_part,
    text_part,
)

DONE = b"data: [DONE]\n\n"


class ResponsesWriter:
    """Neutral events in, bytes for a client out."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._ids = Ids(reply.id)
        self._n_events = 0
        self._output: list[dict[str, object]] = []
        self._content: list[dict[str, object]] | None = None
        self._opened = Opened("text")
        self._name = ""
        self._place: dict[str, object] = {}
        self._words: list[str] = []
        self._usage = Usage()
        self._is_over = False

    def write(self, event: Event) -> bytes:
        """Return the bytes of zero or more whole events."""
        if self._is_over:
            return b""
        match event:
            case Delta():
                return self._delta(event.text)
            case Opened():
                return self._open(event)
            case Closed():
                return self._close(event)
            case UsageSeen():
                self._usage = event.usage
                return b""
            case Began():
                response = envelope(self._reply, "in_progress")
                return self._event("response.created", response=response) + self._event(
                    "response.in_progress", response=response
                )
            case Finished():
                return self._finish(event)
            case Failed():
                return self._fail(event)

    def _event(self, kind: str, **fields: object) -> bytes:
        data = {"type": kind, "sequence_number": self._n_events, **fields}
        self._n_events += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))

    def _open(self, opened: Opened) -> bytes:
        self._opened = opened
        self._words = []
        if opened.kind in ("text", "refusal"):
            return self._open_part(opened)
        written = self._close_message("completed")
        i = len(self._output)
        if opened.kind == "call":
            self._name = "response.custom_tool_call_input" if opened.is_custom else "response.function_call_arguments"
            self._place = {"item_id": self._ids.call(i, is_custom=opened.is_custom), "output_index": i}
            return written + self._item_added(self._call("", "in_progress"))
        self._name = "response.reasoning_summary_text" if opened.is_summary else "response.reasoning_text"
        index = "summary_index" if opened.is_summary else "content_index"
        self._place = {"item_id": self._ids.reasoning(i), "output_index": i, index: 0}
        return written + self._item_added(self._thoughts("", None))

    def _open_part(self, opened: Opened) -> bytes:
        written = b""
        i = len(self._output)
        item_id = self._ids.message(i)
        if self._content is None:
            self._content = []
            written = self._event(
                "response.output_item.added", output_index=i, item=message_item(item_id, [], "in_progress")
            )
        self._name = f"response.{'output_text' if opened.kind == 'text' else 'refusal'}"
        self._place = {"item_id": item_id, "output_index": i, "content_index": len(self._content)}
        return written + self._event("response.content_part.added", **self._place, part=self._part(""))

    def _delta(self, text: str) -> bytes:
        written = b""
        if self._opened.kind == "reasoning" and self._opened.is_summary and not self._words:
            written = self._event("response.reasoning_summary_part.added", **self._place, part=_summary(""))
        self._words.append(text)
        logprobs: dict[str, object] = {"logprobs": []} if self._opened.kind == "text" else {}
        return written + self._event(f"{self._name}.delta", **self._place, delta=text, **logprobs)

    def _close(self, closed: Closed) -> bytes:
        kind = self._opened.kind
        if kind == "call":
            return self._close_call(closed)
        text = "".join(self._words)
        if kind == "reasoning":
            state = None if closed.state is None else marked(closed.state, is_redacted=closed.is_redacted)
            return self._close_thoughts(text) + self._item_done(self._thoughts(text, state))
        assert self._content is not None, "a part is of an open message"
        part = self._part(text, closed)
        self._content.append(part)
        cited = b"".join(
            self._event(
                "response.output_text.annotation.added",
                **self._place,
                annotation_index=i,
                annotation=annotation_of(citation),
            )
            for i, citation in enumerate(closed.citations if kind == "text" else ())
        )
        done = {"text": text, "logprobs": []} if kind == "text" else {"refusal": text}
        return (
            cited
            + self._event(f"{self._name}.done", **self._place, **done)
            + self._event("response.content_part.done", **self._place, part=part)
        )

    def _close_call(self, closed: Closed) -> bytes:
        # The client parses what it gets: no arguments are an empty object.
        written = b"" if self._words or self._opened.is_custom else self._delta("{}")
        text = "".join(self._words)
        whole = {"input" if self._opened.is_custom else "arguments": text}
        written += self._event(f"{self._name}.done", **self._place, **whole)
        written += self._item_done(self._call(text, "completed"))
        if closed.state is None:
            return written
        state = marked(closed.state, call_id=self._opened.id)
        self._place = {"item_id": self._ids.reasoning(len(self._output)), "output_index": len(self._output)}
        item = reasoning_item(str(self._place["item_id"]), "", is_summary=False, state=state)
        bare = {name: value for name, value in item.items() if name != "encrypted_content"}
        return written + self._item_added(bare) + self._item_done(item)

    def _close_thoughts(self, text: str) -> bytes:
        if not text:
            return b""
        written = self._event(f"{self._name}.done", **self._place, text=text)
        if self._opened.is_summary:
            written += self._event("response.reasoning_summary_part.done", **self._place, part=_summary(text))
        return written

    def _close_message(self, status: str) -> bytes:
        content, self._content = self._content, None
        if content is None:
            return b""
        self._place = {"output_index": len(self._output)}
        return self._item_done(message_item(self._ids.message(len(self._output)), content, status))

    def _item_added(self, item: Mapping[str, object]) -> bytes:
        return self._event("response.output_item.added", output_index=self._place["output_index"], item=item)

    def _item_done(self, item: dict[str, object]) -> bytes:
        self._output.append(item)
        return self._event("response.output_item.done", output_index=self._place["output_index"], item=item)

    def _part(self, text: str, closed: Closed | None = None) -> dict[str, object]:
        if self._opened.kind == "refusal":
            return refusal_part(text)
        return text_part(text, closed.citations if closed is not None else ())

    def _thoughts(self, text: str, state: str | None) -> dict[str, object]:
        return reasoning_item(str(self._place["item_id"]), text, is_summary=self._opened.is_summary, state=state)

    def _call(self, arguments: str, status: str) -> dict[str, object]:
        opened = self._opened
        return call_item(
            str(self._place["item_id"]),
            opened.id,
            opened.name,
            arguments,
            is_custom=opened.is_custom,
            namespace=opened.namespace,
            status=status,
        )

    def _finish(self, finished: Finished) -> bytes:
        written = b""
        if finished.reason == "filtered" and finished.explanation:
            written = self._open(Opened("refusal")) + self._delta(finished.explanation) + self._close(Closed())
        status = status_of(finished)
        written += self._close_message(status)
        self._is_over = True
        response = envelope(self._reply, status, self._output, usage=write_usage(self._usage), finished=finished)
        return written + self._event(f"response.{status}", response=response) + DONE

    def _fail(self, failed: Failed) -> bytes:
        self._is_over = True
        kind, code = failed.kind or "server_error", failed.code or "server_error"
        number, self._n_events = self._n_events, self._n_events + 1
        written = write_error_event(number, failed.message, kind, code)
        if number == 0:
            return written
        error = {"code": code, "message": failed.message}
        response = envelope(self._reply, "failed", self._output, usage=write_usage(self._usage), error=error)
        return written + self._event("response.failed", response=response)


def _summary(text: str) -> dict[str, object]:
    return {"type": "summary_text", "text": text}
