"""What a run found out about one prompt and one candidate."""

from __future__ import annotations

from dataclasses import dataclass

from training.labelling.call import Answer, Unanswered
from training.labelling.grade import Grade
from training.labelling.question import Question


@dataclass(frozen=True, slots=True)
class Label:
    """One cell of the table.

    Parameters
    ----------
    question : Question
    candidate : str
    answer : Answer or Unanswered
    grade : Grade or None
        None without an answer.
    judged : Grade or None
        What the judge says besides, where another grader decided.
    """

    question: Question
    candidate: str
    answer: Answer | Unanswered
    grade: Grade | None = None
    judged: Grade | None = None

    @property
    def quality(self) -> float | None:
        """In [0, 1]; None where nothing was observed."""
        return None if self.grade is None else self.grade.quality

    @property
    def unobserved(self) -> str | None:
        """Why there is no quality; None where there is one."""
        if isinstance(self.answer, Unanswered):
            return self.answer.why
        return self.grade.why if self.grade is not None and self.grade.quality is None else None
