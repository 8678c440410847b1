"""Right where every unit test passes after the program in the answer has run, in a limited process."""

from __future__ import annotations

import re

from training.labelling.confinement import Confinement
from training.labelling.grade import Grade
from training.labelling.question import Question

_FENCED = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PYTHON = frozenset({"", "python", "python3", "py"})


class Code:
    """Python only; what it does and does not protect against: :mod:`training.labelling.confined`.

    Parameters
    ----------
    confinement : Confinement
    """

    name = "code"
    needs = "tests"

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        expected = "Python source, or a list of such"
        if not any(test.strip() for test in question.tests):
            return expected
        try:
            for test in question.tests:
                compile(test, "tests", "exec")
        except (SyntaxError, ValueError):
            return f"{expected}, that compiles"
        return None

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        ended = self._confinement.run(program_of(text), question.tests)
        share = ended.n_passed / len(question.tests)
        return Grade(float(share == 1.0), share, ended.why or "every test passed", self.name)


def program_of(text: str) -> str:
    """Return the program in an answer: its longest block of Python, else all of it."""
    blocks = [body for language, body in _FENCED.findall(text) if language.lower() in _PYTHON]
    return max(blocks, key=len, default=text)
