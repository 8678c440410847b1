"""What a request holds besides text, read from the types of its parts in any of the client APIs. Pure.

Entry point: :func:`modalities_of`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_MODALITY: Mapping[str, str] = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "file": "file",
    "input_file": "file",
    "document": "file",
}
#: Where conversations stand in a body, and parts in a message or in the result of a tool.
_CONVERSATIONS = ("messages", "input")
_HOLDERS = ("content", "output")
#: A message holds parts, a result of a tool among them holds parts.
_DEPTH = 3


def modalities_of(body: Mapping[str, object]) -> tuple[str, ...]:
    """Return which of image, audio and file a body holds, sorted; empty where it is text alone."""
    return tuple(sorted({found for key in _CONVERSATIONS for found in _within(body.get(key), _DEPTH)}))


def _within(parts: object, depth: int) -> Iterator[str]:
    if not isinstance(parts, list) or not depth:
        return
    for part in parts:
        if not isinstance(part, Mapping):
            continue
        kind = part.get("type")
        if isinstance(kind, str) and kind in _MODALITY:
            yield _MODALITY[kind]
        for holder in _HOLDERS:
            yield from _within(part.get(holder), depth - 1)
