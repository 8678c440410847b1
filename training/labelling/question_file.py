"""Questions from a file of prompts: every row checked, every problem named by file, column and row.

Columns: ``prompt_id`` (without it a hash of the text), ``prompt`` or ``messages``, ``task``, ``group``, ``grader`` and
what it needs: ``reference``, ``pattern``, ``schema``, ``tests``, ``tolerance``; ``parameters`` are further fields of
the request. In CSV, lists and objects are written as JSON. Entry point: :func:`read_questions`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from routing_data import InvalidTable, Problem, UnreadableFile
from routing_data.errors import nearest
from routing_data.files import read_frame
from routing_data.frames import id_of_text
from training.labelling.graders.grader import Grader
from training.labelling.question import Question

JUDGE = "judge"
_TEXTS = ("prompt_id", "prompt", "task", "group", "grader", "pattern")
_COLUMNS = (*_TEXTS, "messages", "reference", "schema", "tests", "tolerance", "parameters")
_OURS = ("model", "messages", "stream", "n", "max_tokens", "max_completion_tokens", "turnout")


def read_questions(path: Path, graders: Mapping[str, Grader], default: str | None) -> tuple[Question, ...]:
    """Read a ``.jsonl``, ``.csv`` or ``.parquet`` file of prompts.

    Parameters
    ----------
    path : Path
    graders : Mapping of str to Grader
    default : str or None
        The grader of rows that name none.

    Returns
    -------
    tuple of Question
        In the order of the file.

    Raises
    ------
    UnreadableFile
        Nothing of it can be read.
    InvalidTable
        A row is not as it must be; carries every problem.
    """
    frame, broken = read_frame(path)
    problems = list(broken)
    for name in map(str, frame.columns):
        if name not in _COLUMNS:
            hint = f"a known column ({nearest(name, _COLUMNS)})"
            problems.append(Problem("unknown-column", path.name, f"unknown column {name!r}", hint))
    questions: dict[str, Question] = {}
    for number, row in zip(frame.index, frame.to_dict("records"), strict=True):
        try:
            question = _question(row, graders, default)
            if question.prompt_id in questions:
                raise _Wrong("prompt_id", "a second row of this prompt_id", "one row per prompt")
            questions[question.prompt_id] = question
        except _Wrong as wrong:
            problems.append(Problem("row", path.name, wrong.found, wrong.expected, wrong.column, int(number)))
    if problems:
        raise InvalidTable(problems)
    if not questions:
        raise UnreadableFile(path.name, "no rows", "at least one prompt")
    return tuple(questions.values())


class _Wrong(Exception):
    def __init__(self, column: str, found: str, expected: str) -> None:
        super().__init__(column)
        self.column, self.found, self.expected = column, found, expected


def _question(row: Mapping[Any, object], graders: Mapping[str, Grader], default: str | None) -> Question:
    texts = {name: _text(row, name) for name in _TEXTS}
    messages = _messages(row, texts["prompt"])
    grader = texts["grader"] or default
    known = (*graders, JUDGE)
    if grader not in known:
        found = "no grader" if grader is None else f"unknown grader {grader!r}"
        raise _Wrong("grader", found, f"one of {', '.join(known)}; --grader for rows that name none")
    question = Question(
        prompt_id=texts["prompt_id"] or id_of_text(json.dumps(messages)),
        messages=messages,
        grader=grader,
        task=texts["task"],
        group=texts["group"],
        reference=_reference(row),
        pattern=texts["pattern"],
        schema=_json(row, "schema", dict, "a JSON Schema, as an object"),
        tests=_tests(row),
        tolerance=_tolerance(row),
        parameters=_parameters(row),
    )
    if not any(message["role"] == "user" for message in messages) or not question.prompt.strip():
        raise _Wrong("messages", "no text that a user says", "a user message with text")
    for name, text in (("prompt_id", question.prompt_id), ("prompt", question.prompt), *texts.items()):
        try:
            (text or "").encode()
        except UnicodeEncodeError:  # the table could not hold it, when all is paid for
            raise _Wrong(name, "half a character (a lone surrogate)", "text in Unicode") from None
    if grader in graders and (expected := graders[grader].problem(question)) is not None:
        needs = graders[grader].needs
        raise _Wrong(needs, "no value" if _cell(row, needs) is None else "a value that cannot be graded by", expected)
    return question


def _cell(row: Mapping[Any, object], name: str) -> object:
    value = _plain(row.get(name))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return None if isinstance(value, str) and not value.strip() else value


def _plain(value: Any) -> Any:
    """Return lists for the arrays that Parquet gives, however deep, and no field that is null in an object."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        # Parquet gives every object the fields of all of them.
        return {name: _plain(one) for name, one in value.items() if one is not None}
    return value


def _text(row: Mapping[Any, object], name: str) -> str | None:
    value = _cell(row, name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _Wrong(name, f"a value of type {type(value).__name__}", "text")


def _messages(row: Mapping[Any, object], prompt: str | None) -> list[Mapping[str, object]]:
    messages = _json(row, "messages", list, "a list of messages, each with role and content")
    if (messages is None) == (prompt is None):
        found = "neither prompt nor messages" if prompt is None else "both prompt and messages"
        raise _Wrong("prompt", found, "one of them")
    if messages is None:
        return [{"role": "user", "content": prompt}]
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _Wrong("messages", "a message without a role", "messages as Chat Completions has them")
    return list(messages)


def _reference(row: Mapping[Any, object]) -> str | tuple[str, ...] | None:
    value = _cell(row, "reference")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, list) and all(_is_scalar(one) for one in value):
        return tuple(map(str, value))
    if value is None or _is_scalar(value):
        return None if value is None else str(value)
    raise _Wrong("reference", f"a value of type {type(value).__name__}", "text, a number, or a list of them")


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _tests(row: Mapping[Any, object]) -> tuple[str, ...]:
    value = _cell(row, "tests")
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError):  # Python source may begin with a list
            value = json.loads(value)
    if isinstance(value, list) and all(isinstance(test, str) for test in value):
        return tuple(value)
    if value is None or isinstance(value, str):
        return (value,) if value else ()
    raise _Wrong("tests", f"a value of type {type(value).__name__}", "Python source, or a list of such")


def _tolerance(row: Mapping[Any, object]) -> float | None:
    value = _cell(row, "tolerance")
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else -1.0
    except ValueError:
        number = -1.0
    if not (math.isfinite(number) and number >= 0):
        raise _Wrong("tolerance", "a value that is no tolerance", "a finite number >= 0")
    return number


def _parameters(row: Mapping[Any, object]) -> Mapping[str, object]:
    parameters = _json(row, "parameters", dict, "an object of further fields of the request") or {}
    ours = sorted(set(parameters) & set(_OURS))
    if ours:
        raise _Wrong("parameters", f"{', '.join(ours)}", "no field that turnout label sets itself")
    return dict(parameters)


def _json(row: Mapping[Any, object], name: str, kind: type, expected: str) -> Any:
    value = _cell(row, name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _Wrong(name, "text that is not JSON", expected) from error
    if value is not None and not isinstance(value, kind):
        raise _Wrong(name, f"a value of type {type(value).__name__}", expected)
    return value
