"""Opaque reasoning states in bodies that are passed through: where they stand, and without those of others.

A body stays as it came but for what is taken out; nothing is copied where nothing is. Entry points:
:func:`filter_messages`, :func:`filter_responses`, :func:`of_messages_answer`, :func:`of_responses_answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

Passing = Callable[[str], str | None]
#: Block type of Messages -> where its state stands.
_BLOCKS = {"thinking": "signature", "redacted_thinking": "data"}
#: Item type of Responses -> where its state stands.
_ITEMS = {"reasoning": "encrypted_content", "compaction": "encrypted_content"}


def filter_messages(body: dict[str, object], passing: Passing) -> list[str]:
    """Take thoughts of other makers out of a Messages body; return their paths."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return []
    lost: list[str] = []
    changed: list[object] | None = None
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) and message.get("role") == "assistant" else None
        if not isinstance(content, list):
            continue
        kept = _filtered(content, _BLOCKS, passing, f"messages[{i}].content", lost)
        if kept is not None:
            changed = list(messages) if changed is None else changed
            # A turn of nothing but thoughts is no turn; None marks it.
            changed[i] = {**message, "content": kept} if kept else None
    if changed is not None:
        body["messages"] = [message for message in changed if message is not None]
    if lost and isinstance(body.get("thinking"), dict):
        # Where thinking is on, the turn of a pending tool call must begin with its thoughts.
        body["thinking"] = {"type": "disabled"}
        lost.append("thinking")
    return lost


def filter_responses(body: dict[str, object], passing: Passing) -> list[str]:
    """Take thoughts of other makers out of a Responses body; return their paths."""
    items = body.get("input")
    lost: list[str] = []
    kept = _filtered(items, _ITEMS, passing, "input", lost) if isinstance(items, list) else None
    if kept is not None:
        body["input"] = kept
    return lost


def of_messages_answer(body: Mapping[str, object]) -> Iterator[str]:
    """Yield the states of a whole Messages answer."""
    return _states(body.get("content"), _BLOCKS)


def of_responses_answer(body: Mapping[str, object]) -> Iterator[str]:
    """Yield the states of a whole Responses answer."""
    return _states(body.get("output"), _ITEMS)


def _states(entries: object, places: Mapping[str, str]) -> Iterator[str]:
    for entry in entries if isinstance(entries, list) else ():
        place = places.get(entry.get("type", "")) if isinstance(entry, dict) else None
        state = entry.get(place) if place else None
        if isinstance(state, str) and state:
            yield state


def _filtered(
    entries: list[object], places: Mapping[str, str], passing: Passing, at: str, lost: list[str]
) -> list[object] | None:
    """Return the entries that may pass, states opened; None where all pass as they are."""
    changed: list[object] | None = None
    for j, entry in enumerate(entries):
        kind = entry.get("type") if isinstance(entry, dict) else None
        place = places.get(kind) if isinstance(kind, str) else None
        state = entry.get(place) if isinstance(entry, dict) and place else None
        bare = passing(state) if isinstance(state, str) and state else state
        if bare == state:
            if changed is not None:
                changed.append(entry)
            continue
        changed = list(entries[:j]) if changed is None else changed
        if bare and isinstance(entry, dict) and place:
            changed.append({**entry, place: bare})
        else:
            lost.append(f"{at}[{j}]")
    return changed
