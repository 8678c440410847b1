"""Right where the number that the answer ends on is the reference, within a tolerance."""

from __future__ import annotations

import math
import re

from training.labelling.grade import Grade
from training.labelling.graders.final_answer import MAX_CHARACTERS, final_answer
from training.labelling.question import Question

_NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:e[-+]?\d{1,3})?(?:\s*/\s*\d+(?:\.\d+)?)?",
    re.IGNORECASE,
)
#: Relative error that rounding in print explains, where a row says nothing of its own.
DEFAULT_RELATIVE = 1e-6


class Numeric:
    """Reads the first number of what is marked as the result, after a ``=`` in it; else the last of all the answer."""

    name = "numeric"
    needs = "reference"

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        numbers = [last_number(reference) for reference in question.references]
        return None if numbers and None not in numbers else "a number"

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        marked = final_answer(text)
        # "7 (not 8)" is 7, and "3 + 4 = 7" is too.
        found = None if marked is None else first_number(marked.rpartition("=")[2])
        if found is None:
            found = last_number(text)
        if found is None:
            return Grade(0.0, None, "no number in the answer", self.name)
        wanted = [number for reference in question.references if (number := last_number(reference)) is not None]
        nearest = min(wanted, key=lambda number: abs(number - found))
        allowed = question.tolerance
        if allowed is None:
            allowed = DEFAULT_RELATIVE * max(1.0, abs(nearest))
        is_right = abs(found - nearest) <= allowed
        return Grade(float(is_right), found, f"found {found:g}, expected {nearest:g} ± {allowed:g}", self.name)


def last_number(text: str) -> float | None:
    """Return the last number of a text: digits with or without thousands' commas, a fraction, an exponent.

    Parameters
    ----------
    text : str
        Of a long one the end is read. Minus may be U+2212. A per cent sign changes nothing.

    Returns
    -------
    float or None
        Finite; None where there is no number.
    """
    return next(reversed(_numbers(text)), None)


def first_number(text: str) -> float | None:
    """Return the first number of a text; see :func:`last_number`."""
    return next(iter(_numbers(text)), None)


def _numbers(text: str) -> list[float]:
    written = (match[0] for match in _NUMBER.finditer(text[-MAX_CHARACTERS:].replace("\u2212", "-")))
    return [value for value in map(_value, written) if value is not None and math.isfinite(value)]


def _value(written: str) -> float | None:
    above, _, below = written.replace(",", "").partition("/")
    try:
        return float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError):
        return None
