r"""Responses streams. Writing one is :mod:`serving.dialects.responses.writer`.

Reading: items may overlap; one is live and given at once, the others wait in line as they come.

::

                     events of the live item: given      of others: in line
                                  ┌─────┐
    response.created ──▶ ( items: one live, n in line ) ──completed | incomplete──▶ ( over ) ──▶ UsageSeen, Finished
            Began            │          ▲      │        ──failed | error──────────▶ ( over ) ──▶ Failed
                             └──────────┘      └── an item that was never announced or ended: from the final response
                         live item done: the next

Entry point: :class:`ResponsesReader`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import orjson

from serving.dialects.answer import Began, Event, Failed, UsageSeen
from serving.dialects.responses.answer import began_of, finished_of, read_error, usage_of
from serving.dialects.responses.item import PLACES, REFUSAL, TEXT, ItemReader
from serving.dialects.responses.output import call_id_of
from serving.errors import UpstreamBroken
from serving.sse import data_of

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})


class ResponsesReader:
    """A provider's events in, neutral events out."""

    def __init__(self) -> None:
        self._began: Began | None = None
        self._items: dict[object, ItemReader] = {}
        self._line: deque[tuple[object, ItemReader]] = deque()
        self._n_items = 0
        self._ids: set[str] = set()
        self._has_calls = False
        self._is_over = False

    def read(self, event: bytes) -> Sequence[Event]:
        """Take one whole event of the stream.

        Raises
        ------
        UpstreamBroken
            Its data is neither a JSON object nor ``[DONE]``.
        """
        data = (data_of(event) or b"").strip()
        if self._is_over or not data or data == b"[DONE]":
            return ()
        try:
            read = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise UpstreamBroken("the provider sent an event that is not JSON") from None
        if not isinstance(read, dict):
            raise UpstreamBroken("the provider sent an event that is no object")
        kind = read.get("type")
        if kind == "error" or (kind is None and read.get("error")):
            return self._failed(read)
        if not isinstance(kind, str):
            return ()
        began = self._begin(read)
        if kind in _ENDS:
            return [*began, *self._ended(kind, _object(read, "response"))]
        self._take(kind, read)
        return [*began, *self._given()]

    def end(self) -> Sequence[Event]:
        """Take note that the stream ended: without its last event an answer is never whole."""
        return ()

    def _begin(self, read: Mapping[str, object]) -> list[Event]:
        if self._began is not None:
            return []
        self._began = began_of(_object(read, "response"))
        return [self._began]

    def _take(self, kind: str, read: Mapping[str, object]) -> None:
        """Give an event to the item it is of; one of an unknown type is none."""
        name, _, what = kind.rpartition(".")
        if name in PLACES:
            place, field = PLACES[name]
            words = read.get("delta" if what == "delta" else field)
            if isinstance(words, str):
                take = self._item(read).say if what == "delta" else self._item(read).fill
                take(place, _index(read, place.index), words)
        elif kind == "response.output_item.added":
            self._added(read)
        elif kind == "response.output_item.done":
            self._item(read).done(_object(read, "item"))
        elif kind == "response.content_part.added":
            self._part_added(read)
        elif kind == "response.content_part.done":
            self._item(read).part_done(_index(read, "content_index"), _object(read, "part"))
        elif kind == "response.output_text.annotation.added":
            self._item(read).cite(read.get("annotation"))

    def _added(self, read: Mapping[str, object]) -> ItemReader:
        item = _object(read, "item")
        assert self._began is not None, "an item comes after the beginning"
        reader = ItemReader(call_id_of(item, self._ids, self._began.id, self._n_items))
        reader.added(item)
        self._n_items += 1
        key = _key(read)
        if key in self._items:
            self._items[key].end()
        self._items[key] = reader
        self._line.append((key, reader))
        return reader

    def _item(self, read: Mapping[str, object]) -> ItemReader:
        return self._items.get(_key(read)) or self._added(read)

    def _part_added(self, read: Mapping[str, object]) -> None:
        part = _object(read, "part").get("type")
        place = {"output_text": TEXT, "refusal": REFUSAL}.get(str(part))
        if place is not None:
            self._item(read).enter(place, _index(read, "content_index"))

    def _given(self) -> list[Event]:
        """Take what can be given: of the first in line, and of the next where that is done."""
        events: list[Event] = []
        while self._line:
            _, item = self._line[0]
            events += item.events
            item.events.clear()
            self._has_calls = self._has_calls or item.is_call
            if not item.is_done:
                break
            self._line.popleft()
        return events

    def _ended(self, kind: str, response: Mapping[str, object]) -> list[Event]:
        output = response.get("output")
        items = [item if isinstance(item, dict) else {} for item in output] if isinstance(output, list) else []
        for key, reader in self._line:
            if isinstance(key, int) and 0 <= key < len(items):
                reader.done(items[key])
            reader.end()
        for i, item in enumerate(items[self._n_items :], self._n_items):
            self._added({"output_index": i, "item": item}).done(item)
        events = self._given()
        self._is_over = True
        if isinstance(response.get("usage"), dict):
            events.append(UsageSeen(usage_of(response)))
        if kind == "response.failed" or response.get("status") in ("failed", "cancelled"):
            return [*events, *self._failed(response)]
        if kind == "response.incomplete":
            response = {**response, "status": "incomplete"}
        return [*events, finished_of(response, has_calls=self._has_calls)]

    def _failed(self, read: Mapping[str, object]) -> list[Event]:
        self._is_over = True
        message, code = read_error(read) or ("", None)
        kind = _object(read, "error").get("type")
        return [Failed(message, code, kind if isinstance(kind, str) else None)]


def _object(read: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = read.get(key)
    return value if isinstance(value, dict) else {}


def _index(read: Mapping[str, object], key: str | None) -> int:
    value = read.get(key) if key is not None else None
    return value if isinstance(value, int) else 0


def _key(read: Mapping[str, object]) -> object:
    """Return what tells items apart: the place in the output; ids are not the same in every event everywhere."""
    index = read.get("output_index")
    return index if isinstance(index, int) else str(read.get("item_id") or _object(read, "item").get("id") or "")
