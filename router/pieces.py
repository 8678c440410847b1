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


def _tables() -> tuple[bytes, bytes]:
    """Class of each byte, and the number it is hashed as: letters without case, every digit as one."""
    classes = np.full(256, MARK, np.uint8)
    classes[[9, 11, 12, 13, 32]] = SPACE
    classes[10] = LINES
    classes[48:58] = DIGITS
    classes[65:91] = classes[97:123] = classes[128:] = LETTERS
    # From 1, so that a byte 0 counts too. UTF-8 has no byte 255, whose number would not fit.
    numbers = np.arange(1, 257).clip(max=255).astype(np.uint8)
    numbers[48:58] = numbers[48]
    numbers[65:91] = numbers[97:123]
    return classes.tobytes(), numbers.tobytes()


def _powers(multiplier: int) -> UInts:
    """Return multiplier ** 0, 1, 2 … modulo 2^32."""
    powers = np.full(_LONGEST_BYTES, multiplier, np.uint32)
    powers[0] = 1
    return np.multiply.accumulate(powers, dtype=np.uint32)


_CLASS_OF, _NUMBER_OF = _tables()
_WEIGHTS = _powers(_MULTIPLIER) * np.uint32(0x9E3779B1)
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
    words : ndarray of shape (w,), int64
        Which of the pieces are LETTERS.
    word_lengths : ndarray of shape (w,), int64
        Their bytes.
    sums : ndarray of shape (bytes + 1,), uint32
        The running sum that runs are hashed by; see :func:`windows_of`.
    """

    data: bytes
    hashes: UInts
    kinds: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    words: NDArray[np.int64]
    word_lengths: NDArray[np.int64]
    sums: UInts


def pieces_of(text: str) -> Pieces:
    """Clip a text, bring it to its canonical form and cut it into pieces.

    The hash of a run is ``sum(number[byte] * multiplier ** position) / multiplier ** start`` modulo 2^32: a difference
    of two running sums, times an inverse.
    """
    data = canonical(clip(text)).encode("utf-8", "replace")
    n = len(data)
    # Bytes are translated by C code, which takes a fraction of what an array's own look-up does.
    classes = np.frombuffer(data.translate(_CLASS_OF), np.uint8)
    is_start = np.empty(n + 1, np.bool_)
    is_start[0] = is_start[n] = True
    np.not_equal(classes[1:], classes[:-1], out=is_start[1:n])
    is_start[:n] |= classes == MARK
    bounds = is_start.nonzero()[0]
    kinds = classes.take(bounds[:-1])
    kept = kinds.nonzero()[0]  # SPACE is 0
    kinds = kinds.take(kept)
    starts, ends = bounds.take(kept), bounds[1:].take(kept)
    lengths = ends - starts
    sums = _sums_of(data)
    hashes = (sums.take(ends) - sums.take(starts)) * _INVERSES.take(starts)
    hashes ^= hashes >> np.uint32(16)
    words = (kinds == LETTERS).nonzero()[0]
    return Pieces(data, hashes, kinds, lengths, words, lengths.take(words), sums)


def windows_of(sums: UInts, width: int) -> UInts:
    """Return the hash of every run of ``width`` bytes, whatever they are, shape (bytes + 1 - width,).

    Alike for runs that differ in case or in digits only. ``sums`` are those of :class:`Pieces`, of at least
    ``width`` bytes.
    """
    windows: UInts = sums[width:] - sums[:-width]
    windows *= _INVERSES[: len(windows)]
    return windows


def window_of(data: bytes) -> int:
    """Return the hash that :func:`windows_of` gives a run."""
    return int(windows_of(_sums_of(data), len(data))[0])


def _sums_of(data: bytes) -> UInts:
    """Return the running sum of the numbers of bytes, each times a power of the multiplier."""
    sums = np.empty(len(data) + 1, np.uint32)
    sums[0] = 0
    numbers = np.frombuffer(data.translate(_NUMBER_OF), np.uint8)
    np.add.accumulate(numbers * _WEIGHTS[: len(data)], dtype=np.uint32, out=sums[1:])
    return sums
