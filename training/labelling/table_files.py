"""What a run leaves behind: the table that ``turnout train`` reads, and a line per label on how it came to be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from routing_data.writer import write_parquet
from training.labelling.call import Answer
from training.labelling.grade import Grade
from training.labelling.label import Label
from training.labelling.question import Question


def write_table(out: Path, name: str, questions: Sequence[Question], labels: Sequence[Label]) -> None:
    """Write ``prompts.parquet``, ``outcomes.parquet``, ``source.json`` and ``labels.jsonl``.

    Parameters
    ----------
    out : Path
        The folder, which exists.
    name : str
        Of the data.
    questions : sequence of Question
        Those without any observed label are left out of the table.
    labels : sequence of Label
        An unobserved one is no row of outcomes, and a line of labels.jsonl.
    """
    observed = [label for label in labels if label.quality is not None]
    asked = {label.question.prompt_id for label in observed}
    prompts = [
        {"prompt_id": one.prompt_id, "prompt": one.prompt, "task": one.task, "group": one.group}
        for one in questions
        if one.prompt_id in asked
    ]
    columns = ["prompt_id", "prompt", "task", "group"]
    write_parquet(pd.DataFrame(prompts, columns=columns, dtype=object), out / "prompts.parquet")
    write_parquet(pd.DataFrame(map(_outcome, observed)), out / "outcomes.parquet")
    methods = sorted({label.grade.method for label in observed if label.grade is not None})
    source = {
        "name": name,
        "attribution": f"made by turnout label; graded by {', '.join(methods)}",
        "simulated": any(isinstance(label.answer, Answer) and label.answer.is_emulated for label in observed),
    }
    _write(out / "source.json", json.dumps(source, indent=2, ensure_ascii=False) + "\n")
    _write(out / "labels.jsonl", "".join(json.dumps(_line(label), ensure_ascii=False) + "\n" for label in labels))


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``."""
    _write(out / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def _outcome(label: Label) -> dict[str, object]:
    answer = label.answer
    assert isinstance(answer, Answer)
    return {
        "prompt_id": label.question.prompt_id,
        "candidate": label.candidate,
        "quality": label.quality,
        "input_tokens": _float(answer.input_tokens),
        "output_tokens": _float(answer.output_tokens),
        "cost_usd": _float(answer.cost_usd),
        "latency_s": answer.latency_s,
    }


def _line(label: Label) -> dict[str, object]:
    line: dict[str, object] = {
        "prompt_id": label.question.prompt_id,
        "candidate": label.candidate,
        "quality": label.quality,
        "unobserved": label.unobserved,
        "grader": label.question.grader,
    }
    if isinstance(label.answer, Answer):
        line |= {"is_truncated": label.answer.is_truncated, "finish": label.answer.finish}
    for name, grade in (("", label.grade), ("judged_", label.judged)):
        if grade is not None:
            line |= _told(grade, name)
    return line


def _told(grade: Grade, name: str) -> dict[str, object]:
    told: dict[str, object] = {f"{name}raw": grade.raw, f"{name}why": grade.why, f"{name}method": grade.method}
    return told | ({f"{name}quality": grade.quality} if name else {})


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8", errors="surrogatepass")
    part.replace(path)
