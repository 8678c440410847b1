"""As good as the answer is like a reference, by a measure that is named in every grade."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router.minilm import FILES, MiniLMEncoder
from training.errors import InvalidSettings
from training.labelling.grade import Grade
from training.labelling.question import Question

#: (answer, reference) -> likeness in [0, 1]
Measure = Callable[[str, str], float]
_ORDERS = range(1, 7)
_BETA_SQUARED = 4.0


class Similarity:
    """The likeness to the nearest reference.

    Parameters
    ----------
    method : str
        ``chrf``; ``encoder:FOLDER`` of `turnout encoder export`; or ``sentence-transformers:MODEL``.
    measure : callable
        See :func:`measure_of`.
    """

    name = "similarity"
    needs = "reference"

    def __init__(self, method: str, measure: Measure) -> None:
        self._method = f"{self.name}:{method.partition(':')[0]}"
        self._measure = measure

    def problem(self, question: Question) -> str | None:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        return None if any(reference.strip() for reference in question.references) else "a text that is not empty"

    def grade(self, text: str, question: Question) -> Grade:
        """See :class:`~training.labelling.graders.grader.Grader`."""
        likeness = max(self._measure(text, reference) for reference in question.references)
        likeness = min(1.0, max(0.0, likeness))
        return Grade(likeness, likeness, f"likeness {likeness:.3f} to the reference", self._method)


def measure_of(method: str) -> Measure:
    """Return a measure by its name.

    Parameters
    ----------
    method : str
        As for :class:`Similarity`.

    Returns
    -------
    callable (answer, reference) -> float

    Raises
    ------
    InvalidSettings
        No such method, or the folder holds no encoder.
    ExtraMissing, TrainingError
        As :func:`training.encoder.load_model` raises them.
    """
    kind, _, where = method.partition(":")
    if method == "chrf":
        return chrf
    if kind == "encoder" and where:
        folder = Path(where)
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise InvalidSettings(f"--similarity {method}: the folder lacks {', '.join(missing)}")
        encoder = MiniLMEncoder.from_files({name: (folder / name).read_bytes() for name in FILES})
        return _cosine_of(lambda texts: encoder.encode(texts)[:, : encoder.width])
    if kind == "sentence-transformers" and where:
        from training.encoder import load_model

        model = load_model(where)
        return _cosine_of(lambda texts: np.asarray(model.encode(list(texts), show_progress_bar=False)))
    raise InvalidSettings(f"--similarity {method}: expected chrf, encoder:FOLDER or sentence-transformers:MODEL")


def chrf(answer: str, reference: str) -> float:
    """Return chrF2, the F-score of character n-grams, n from 1 to 6, recall counting twice (Popović 2015).

    Parameters
    ----------
    answer, reference : str
        White space does not count.

    Returns
    -------
    float
        In [0, 1]; precision and recall are means over the lengths that both texts have.
    """
    answer, reference = "".join(answer.split()), "".join(reference.split())
    precisions, recalls = [], []
    for n in _ORDERS:
        said, wanted = _grams(answer, n), _grams(reference, n)
        if said and wanted:
            n_shared = (said & wanted).total()
            precisions.append(n_shared / said.total())
            recalls.append(n_shared / wanted.total())
    if not precisions:
        return 0.0
    precision, recall = float(np.mean(precisions)), float(np.mean(recalls))
    below = _BETA_SQUARED * precision + recall
    return (1 + _BETA_SQUARED) * precision * recall / below if below else 0.0


def _grams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _cosine_of(embed: Callable[[Sequence[str]], Any]) -> Measure:
    def cosine(answer: str, reference: str) -> float:
        a, b = np.asarray(embed([answer, reference]), np.float64)
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / length if length else 0.0

    return cosine
