"""Right where a regular expression is found in the answer."""

from __future__ import annotations

import re

from training.labelling.confinement import Confinement
from training.labelling.grade import Grade
from training.labelling.question import Question

_SEARCH_WITHIN_S = 5.0


class Regex:
    """Python's ``re.search``, flags as ``(?i)`` in the pattern.

    It runs in a limited process, because some patterns take for ever on some texts: that is no verdict.

    Parameters
    ----------
    confinement : Confinement
    """

    name = "regex"
    needs = "pattern"

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        try:
            return None if question.pattern and re.compile(question.pattern) else "a regular expression"
        except (re.error, RecursionError, OverflowError):
            return "a regular expression that Python's re accepts"

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        search = f"import re\nassert re.search({question.pattern!r}, {text!r})"
        ended = self._confinement.run("", (search,), within_s=_SEARCH_WITHIN_S)
        if ended.n_passed:
            return Grade(1.0, 1.0, "found", self.name)
        if ended.why.endswith("AssertionError"):
            return Grade(0.0, 0.0, "not found", self.name)
        return Grade(None, None, f"the search did not end well: {ended.why}", self.name)
