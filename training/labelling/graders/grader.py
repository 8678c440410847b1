"""What every grader of answers can do."""

from __future__ import annotations

from typing import Protocol

from training.labelling.grade import Grade
from training.labelling.question import Question


class Grader(Protocol):
    """A row of the registry: grades an answer by what stands in its question, without asking anybody."""

    @property
    def name(self) -> str:
        """What the column ``grader`` says."""

    @property
    def needs(self) -> str:
        """The column that it cannot do without."""

    def problem(self, question: Question) -> str | None:
        """Say what is wrong with a question for this grader, as what was expected; None where nothing is."""

    def grade(self, text: str, question: Question) -> Grade:
        """Grade the text of an answer."""
