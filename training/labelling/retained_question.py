"""Questions from the prompts that a gateway was allowed to keep: an exported decision log, content retention only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from routing_data.frames import id_of_text
from training.decision_log import DecisionLog
from training.errors import NotEnoughData
from training.labelling.graders.grader import Grader
from training.labelling.question import Question

_CONTENT = "content"


def retained_questions(path: Path, graders: Mapping[str, Grader], grader: str) -> tuple[Question, ...]:
    """Read the prompts of a log, each text once.

    Parameters
    ----------
    path : Path
        A folder of ``turnout log export``.
    graders : Mapping of str to Grader
        Those that need something of each row, which a log has not got.
    grader : str
        Of every question: ``judge``.

    Returns
    -------
    tuple of Question
        Oldest first; texts that differ in case or white space only are one.

    Raises
    ------
    NotEnoughData
        Nothing was retained, or the grader cannot grade without references.
    TrainingError
        The log cannot be read.
    """
    if grader in graders:
        raise NotEnoughData(f"--grader {grader} needs {graders[grader].needs}, which a log has not got: expected judge")
    with DecisionLog(path) as log:
        rows = log.retained(["level", "prompt", "task"])
    questions: dict[str, Question] = {}
    for level, prompt, task in zip(rows["level"], rows["prompt"], rows["task"], strict=True):
        if level != _CONTENT or not isinstance(prompt, str) or not prompt.strip():
            continue
        same = " ".join(prompt.casefold().split())
        if same not in questions:
            known_task = task if isinstance(task, str) and task else None
            messages = [{"role": "user", "content": prompt}]
            questions[same] = Question(id_of_text(prompt), messages, grader, task=known_task)
    if not questions:
        raise NotEnoughData(f"{path}: no prompt is in it; it takes keys with retention = {_CONTENT!r}")
    return tuple(questions.values())
