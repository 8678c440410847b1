"""One problem of the sample: several wordings of the same question, and its answer.

Entry point: ``Instance``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Instance:
    """Hold one problem.

    Parameters
    ----------
    wordings : tuple of str
        Ways to ask it, all with the same answer; at least two.
    answer : str
        The one right answer, to be compared as text.
    """

    wordings: tuple[str, ...]
    answer: str


Kind: TypeAlias = Callable[[Random, int], Instance]
"""From a generator and a level in 1..5 to a problem of one kind."""
