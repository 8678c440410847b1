"""Cut a text into pieces and hash them, all at once.

A piece is a run of letters, a run of digits, a run of line ends, or one other mark. There is no Python per piece:
classes of bytes, boundaries between classes, and a polynomial hash of every run by differences of one running sum.
Case is ignored (of ASCII letters), and so is which digits a number has: its length generalises, its value does not.
Entry point: :func:`pieces_of`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from router.canonical import canonical
from router.text import HEAD_CHARACTERS, TAIL_CHARACTERS, clip

SPACE, LETTERS, DIGITS, LINES, MARK = range(5)

UInts = NDArray[np.uint32]
_MULTIPLIER = 0x01000193  # odd, so that it has an inverse modulo 2^32: a run hashes alike wherever it stands
# A clipped text's characters, the mark's among them, of at most four bytes each.
_LONGEST_BYTES = 4 * (HEAD_CHARACTERS + TAIL_CHARACTERS + 8)


def _table() -> tuple[NDArray[np.uint8], UInts]:
    """Class of each byte, and the number it is hashed as: letters without case, every digit as one."""
    classes = np.full(256, MARK, np.uint8)
    classes[[9, 11, 12, 13, 32]] = SPACE
    classes[10] = LINES
    classes[48:58] = DIGITS
    classes[65:91] = classes[97:123] = classes[128:] = LETTERS
    numbers = np.arange(1, 257, dtype=np.uint32) * np.uint32(0x9E3779B1)
    numbers[48:58] = numbers[48]
    numbers[65:91] = numbers[97:123]
    return classes, numbers


def _powers(multiplier: int) -> UInts:
    """Return multiplier ** 0, 1, 2 … modulo 2^32."""
    powers = np.full(_LONGEST_BYTES, multiplier, np.uint32)
    powers[0] = 1
    return np.multiply.accumulate(powers, dtype=np.uint32)


_CLASS_OF, _NUMBER_OF = _table()
_POWERS = _powers(_MULTIPLIER)
_INVERSES = _powers(pow(_MULTIPLIER, -1, 1 << 32))


class Pieces(NamedTuple):
    """The pieces of one text, in order, beside the text itself.

    Parameters
    ----------
    data : bytes
        The clipped, canonical text in UTF-8.
    hashes : ndarray of shape (n,), uint32
        The same on every machine and in every Python; alike for pieces that differ in case or in digits only.
    kinds : ndarray of shape (n,), uint8
        LETTERS, DIGITS, LINES or MARK.
    lengths : ndarray of shape (n,), int64
        Bytes.
    """

    data: bytes
    hashes: UInts
    kinds: NDArray[np.uint8]
    lengths: NDArray[np.int64]


def pieces_of(text: str) -> Pieces:
    """Clip a text, bring it to its canonical form and cut it into pieces.

    The hash of a run is ``sum(number[byte] * multiplier ** position) / multiplier ** start`` modulo 2^32: a difference
    of two running sums, times an inverse.
    """
    data = canonical(clip(text)).encode("utf-8", "replace")
    codes = np.frombuffer(data, np.uint8)
    n = len(codes)
    classes = _CLASS_OF[codes]
    is_start = np.empty(n + 1, np.bool_)
    is_start[0] = is_start[n] = True
    np.not_equal(classes[1:], classes[:-1], out=is_start[1:n])
    is_start[:n] |= classes == MARK
    bounds = is_start.nonzero()[0]
    starts, ends = bounds[:-1], bounds[1:]
    kept = (classes[starts] != SPACE).nonzero()[0]
    starts, ends = starts[kept], ends[kept]
    sums = np.zeros(n + 1, np.uint32)
    np.cumsum(_NUMBER_OF[codes] * _POWERS[:n], dtype=np.uint32, out=sums[1:])
    hashes = (sums[ends] - sums[starts]) * _INVERSES[starts]
    hashes ^= hashes >> np.uint32(16)
    return Pieces(data, hashes, classes[starts], ends - starts)
