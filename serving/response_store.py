"""Responses kept for ``previous_response_id``: opt-in, per client key, in memory, expiring.

Off by default: what a caller said is then kept nowhere, and a request that refers to an earlier response is refused
rather than answered without its history. Entry point: :class:`ResponseStore`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from serving.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """One response: what it answered (input items, history included), and the object itself, as JSON."""

    history: bytes
    response: bytes

    def items(self) -> list[object]:
        """Return the whole conversation so far: input items, then output items."""
        items: list[object] = orjson.loads(self.history)
        output = orjson.loads(self.response).get("output")
        return [*items, *(output if isinstance(output, list) else [])]


class ResponseStore:
    """The store; of this process only.

    Parameters
    ----------
    n_bytes : int, default=67108864
        Most it holds; the oldest go first.
    clock : callable, default=time.monotonic
        Seconds.
    """

    def __init__(self, *, n_bytes: int = 64 * 2**20, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[float, KeptResponse]] = OrderedDict()
        #: (client key, id of an output item) -> id of its response.
        self._response_of: dict[tuple[str, str], str] = {}
        self._n_bytes = n_bytes
        self._n_free = n_bytes
        self._clock = clock

    def put(self, key: str, items: Sequence[object], response: Mapping[str, object], expires_after_s: float) -> None:
        """Keep a response for a client key; one that has no id, or is larger than the store, is not kept."""
        name = response.get("id")
        kept = KeptResponse(orjson.dumps(items), orjson.dumps(response))
        if not isinstance(name, str) or _size(kept) > self._n_bytes:
            return
        self.delete(key, name)
        self._kept[key, name] = (self._clock() + expires_after_s, kept)
        self._n_free -= _size(kept)
        self._response_of |= {(key, item): name for item in _ids_of(kept)}
        while self._n_free < 0:
            self.delete(*next(iter(self._kept)))

    def get(self, key: str, name: str) -> KeptResponse | None:
        """Return a response of this client key, or None: expired, never kept, or another's."""
        found = self._kept.get((key, name))
        if found is not None and found[0] < self._clock():
            self.delete(key, name)
            return None
        return None if found is None else found[1]

    def delete(self, key: str, name: str) -> bool:
        """Forget a response; say whether there was one."""
        found = self._kept.pop((key, name), None)
        if found is not None:
            self._n_free += _size(found[1])
            for item in _ids_of(found[1]):
                self._response_of.pop((key, item), None)
        return found is not None

    def expanded(self, key: str, body: dict[str, object], *, is_on: bool) -> dict[str, object]:
        """Return a request with what it refers to in its place: the history of a response, and single items.

        An item that is not kept here stays a reference: a provider may keep it.

        Raises
        ------
        InvalidRequest
            It refers to a response that is not kept here.
        """
        items = body.get("input")
        if is_on and isinstance(items, list) and any(map(_is_reference, items)):
            named = self._named(key, items)
            body = {**body, "input": [named.get(item["id"], item) if _is_reference(item) else item for item in items]}
        name = body.get("previous_response_id")
        if name is None:
            return body
        kept = self.get(key, name) if isinstance(name, str) and is_on else None
        if kept is None:
            why = (
                "no such response of this key, or it has expired"
                if is_on
                else "this gateway keeps no responses (responses.keep_for_s = 0)"
            )
            raise InvalidRequest(
                f"previous_response_id: {why}; send the whole conversation as input instead",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        expanded = {**body, "input": [*kept.items(), *items_of(body)]}
        del expanded["previous_response_id"]
        return expanded

    def _named(self, key: str, items: Sequence[object]) -> dict[object, object]:
        """Return the output items of the responses that references name, by id; each response is read once."""
        ids = {item["id"] for item in items if isinstance(item, dict) and _is_reference(item)}
        names = {self._response_of.get((key, name), "") for name in ids}
        found = [kept for kept in (self.get(key, name) for name in names) if kept is not None]
        output = [item for kept in found for item in orjson.loads(kept.response)["output"]]
        return {item.get("id"): item for item in output if isinstance(item, dict)}


def items_of(body: Mapping[str, object]) -> list[object]:
    """Return the input of a request as items."""
    said = body.get("input")
    if isinstance(said, str):
        return [{"type": "message", "role": "user", "content": said}]
    return list(said) if isinstance(said, list) else []


def _is_reference(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "item_reference" and isinstance(item.get("id"), str)


def _ids_of(kept: KeptResponse) -> list[str]:
    output = orjson.loads(kept.response).get("output")
    found = [item.get("id") for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    return [name for name in found if isinstance(name, str)]


def _size(kept: KeptResponse) -> int:
    return len(kept.history) + len(kept.response)
