"""How often each byte that matters occurs in a text, and each class of bytes: one count for all that asks for them.

Classes have no byte in common. Some bytes are counted alone as well, since what is looked for in a text is one of them
or cannot be there without it. Entry point: :func:`tally_of`.
"""

from __future__ import annotations

from itertools import accumulate, chain, pairwise

import numpy as np

CLASSES: tuple[tuple[str, bytes], ...] = (
    ("digits", b"0123456789"),
    ("capitals", bytes(range(65, 91))),
    ("letters", bytes(range(97, 123))),
    ("newlines", b"\n"),
    ("spaces", b" \t\r"),
    ("stops", b".,;:"),
    ("questions", b"?"),
    ("operators", b"+-*/=<>^%|&"),
    ("brackets", b"()[]{}"),
    ("latex", b"$\\"),
    ("quotes", b"`'\"_"),
    ("others", bytes(range(128, 256))),
)
_ALONE = b',:=^%()[]{}$\\`"_'
# Places of a tally: class by class, the bytes that are counted alone first, then the rest of their class.
_PLACES = [[*(bytes([byte]) for byte in members if byte in _ALONE), b""] for _, members in CLASSES]
#: Where a byte stands that is counted alone.
PLACE_OF = {byte: place for place, byte in enumerate(chain.from_iterable(_PLACES)) if byte}
_BOUNDS = [0, *accumulate(map(len, _PLACES))]
_SLICES = [slice(begin, end) for begin, end in pairwise(_BOUNDS)]
_N_PLACES = _BOUNDS[-1]


def _table() -> bytes:
    table = bytearray([_N_PLACES]) * 256
    for (_, members), end in zip(CLASSES, _BOUNDS[1:], strict=True):
        for byte in members:
            table[byte] = PLACE_OF.get(bytes([byte]), end - 1)
    return bytes(table)


_PLACE_OF_BYTE = _table()


def tally_of(data: bytes) -> list[int]:
    """Count; the places of single bytes are in :data:`PLACE_OF`."""
    counted: list[int] = np.bincount(
        np.frombuffer(data.translate(_PLACE_OF_BYTE), np.uint8), minlength=_N_PLACES + 1
    ).tolist()
    return counted


def by_class(tally: list[int]) -> list[int]:
    """Return how many bytes of each class there are, in the order of :data:`CLASSES`."""
    return [sum(tally[of_class]) for of_class in _SLICES]
