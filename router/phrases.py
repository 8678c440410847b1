"""Count fixed phrases in a text, all at once.

Searching for fifty phrases one after another reads a text fifty times. Here every run of four bytes is hashed by two
array operations (:func:`router.pieces.windows_of`) and looked up in one small table; only where that says that a
phrase may begin is the phrase itself compared. The counts are those of ``bytes.count``. Entry point: :class:`Phrases`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.pieces import UInts, window_of, windows_of

GRAM = 4
_TABLE_BITS = 16
_SHIFT = np.uint32(32 - _TABLE_BITS)
#: Of a text that says one thing over and over again each phrase is counted on its own, which then costs less.
_MOST_HITS = 256


class Phrases:
    """Some phrases to be counted.

    Parameters
    ----------
    phrases : sequence of bytes
        In lower case, each of at least GRAM bytes, fewer than 256.
    """

    def __init__(self, phrases: Sequence[bytes]) -> None:
        self._phrases = tuple(phrases)
        self._table = np.zeros(1 << _TABLE_BITS, np.uint8)
        # Which phrases (place, phrase, how far into it the gram stands) a gram may belong to; 0 is none.
        self._groups: list[list[tuple[int, bytes, int]]] = [[]]
        for place, phrase in enumerate(self._phrases):
            # Many words end with a space: what follows one tells more.
            offset = 1 if phrase[:1] == b" " and len(phrase) > GRAM else 0
            bucket = window_of(phrase[offset : offset + GRAM]) >> int(_SHIFT)
            if not self._table[bucket]:
                self._table[bucket] = len(self._groups)
                self._groups.append([])
            self._groups[self._table[bucket]].append((place, phrase, offset))

    def counts(self, lower: bytes, sums: UInts, ends: Sequence[int]) -> list[int]:
        """Count.

        Parameters
        ----------
        lower : bytes
            A text in lower case.
        sums : ndarray
            Of the same text, :attr:`router.pieces.Pieces.sums`.
        ends : sequence of int
            Up to where in the text each phrase counts, one for each phrase.

        Returns
        -------
        list of int
            What ``lower[:end].count(phrase)`` gives, for each phrase.
        """
        counted = [0] * len(self._phrases)
        if len(lower) < GRAM:
            return counted
        found = self._table.take(windows_of(sums, GRAM) >> _SHIFT)
        hits = found.nonzero()[0]
        groups = found.take(hits).tolist()
        if len(groups) > _MOST_HITS:
            for group in set(groups):
                for place, phrase, _ in self._groups[group]:
                    counted[place] = lower.count(phrase, 0, ends[place])
            return counted
        free_from = [0] * len(self._phrases)
        for at, group in zip(hits.tolist(), groups, strict=True):
            for place, phrase, offset in self._groups[group]:
                start = at - offset
                # What overlaps with the one before is not counted; before the text's beginning there is nothing.
                if start >= free_from[place] and lower.startswith(phrase, start):
                    end = start + len(phrase)
                    if end <= ends[place]:
                        counted[place] += 1
                        free_from[place] = end
        return counted
