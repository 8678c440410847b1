"""Right where the answer, or what it marks as its result, reads like a reference."""

from __future__ import annotations

import re
import unicodedata

from training.labelling.grade import Grade
from training.labelling.graders.final_answer import final_answer
from training.labelling.question import Question

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_SPACE = re.compile(r"\s+")
_AT_ENDS = " .,;:!?\"'`*_()[]"


class Exact:
    """Equal after normalisation: NFKC, case, white space, English articles and punctuation at the ends do not count."""

    name = "exact"
    needs = "reference"

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        return None if any(map(normalised, question.references)) else "a text, or a list of texts, that is not empty"

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        wanted = {normalised(reference) for reference in question.references}
        for what, said in (("the answer", text), ("its result", final_answer(text))):
            if said is not None and normalised(said) in wanted:
                return Grade(1.0, 1.0, f"{what} equals the reference", self.name)
        return Grade(0.0, 0.0, "differs from the reference", self.name)


def normalised(text: str) -> str:
    """Return the form in which texts are compared."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = _SPACE.sub(" ", _ARTICLE.sub(" ", folded)).strip(_AT_ENDS)
    # "A" is a choice and no article, and "." may be the answer.
    return bare or _SPACE.sub(" ", folded).strip(_AT_ENDS) or folded.strip()
