"""What a grader says of one answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict.

    Parameters
    ----------
    quality : float or None
        In [0, 1]; None where the grader could not tell, which is not 0.
    raw : float or str or None
        Its own measure, such as a share of tests, a similarity or a pair of verdicts.
    why : str
        One phrase for people.
    method : str
        Who graded and how, such as ``numeric`` or ``similarity:chrf``.
    """

    quality: float | None
    raw: float | str | None
    why: str
    method: str
