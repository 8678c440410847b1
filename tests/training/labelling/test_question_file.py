"""Prompts from files, and what is said of a file that is not right."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from routing_data import InvalidTable
from routing_data.frames import id_of_text
from training.errors import NotEnoughData
from training.labelling.confinement import Confinement, Limits
from training.labelling.graders.registry import graders_of
from training.labelling.question_file import read_questions
from training.labelling.retained_question import retained_questions

GRADERS = graders_of("chrf", Confinement(Limits()))
ROWS = [
    {"prompt_id": "a", "prompt": "2 + 2?", "task": "sums", "grader": "numeric", "reference": 4, "tolerance": 0.1},
    {
        "prompt_id": "b",
        "messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Capital of France?"}],
        "group": "g",
        "grader": "exact",
        "reference": ["Paris", "paris, france"],
        "parameters": {"top_p": 0.5},
    },
    {"prompt_id": "c", "prompt": "f", "grader": "code", "tests": ["assert f(1)", "assert f(2)"]},
    {"prompt_id": "d", "prompt": "A date.", "grader": "regex", "pattern": r"\d{4}"},
    {"prompt_id": "e", "prompt": "JSON.", "grader": "json_schema", "schema": {"type": "object", "required": ["n"]}},
    {"prompt_id": "f", "prompt": "Explain.", "grader": "judge"},
]


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        told = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
        pd.DataFrame(told).to_csv(path, index=False)
    else:
        frame = pd.DataFrame(rows)
        frame["reference"] = [json.dumps(v) if isinstance(v, list) else v for v in frame["reference"]]
        frame["reference"] = frame["reference"].map(lambda v: v if v is None or v != v else str(v))
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_kind_of_file_says_the_same(tmp_path, ending):
    a, b, c, d, e, f = read_questions(write(tmp_path / f"prompts{ending}", ROWS), GRADERS, None)
    assert (a.prompt_id, a.prompt, a.task, a.references, a.tolerance) == ("a", "2 + 2?", "sums", ("4",), 0.1)
    assert (b.prompt, b.group, b.references) == ("Capital of France?", "g", ("Paris", "paris, france"))
    assert b.messages == ROWS[1]["messages"] and b.parameters == {"top_p": 0.5}
    assert c.tests == ("assert f(1)", "assert f(2)")
    assert d.pattern == r"\d{4}"
    assert e.schema == {"type": "object", "required": ["n"]}
    assert (f.grader, f.references, f.parameters) == ("judge", (), {})


def test_a_default_grader_and_ids_of_texts(tmp_path):
    path = write(tmp_path / "p.jsonl", [{"prompt": "1 + 1?", "reference": "2"}, {"prompt": "1 + 2?", "reference": "3"}])
    one, two = read_questions(path, GRADERS, "numeric")
    assert one.grader == "numeric" and one.prompt_id != two.prompt_id and len(one.prompt_id) == 16


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "x"}, "column 'grader', row 2: no grader; expected one of exact,"),
        ({"prompt": "x", "grader": "exakt"}, "unknown grader 'exakt'"),
        ({"prompt": "x", "grader": "exact"}, "column 'reference', row 2: no value"),
        ({"prompt": "x", "grader": "numeric", "reference": "many"}, "expected a number"),
        (
            {"prompt": "x", "messages": [{"role": "user", "content": "y"}], "grader": "judge"},
            "both prompt and messages",
        ),
        ({"grader": "judge"}, "neither prompt nor messages"),
        ({"messages": [{"content": "y"}], "grader": "judge"}, "a message without a role"),
        ({"messages": "[", "grader": "judge"}, "text that is not JSON"),
        ({"messages": [{"role": "assistant", "content": "y"}], "grader": "judge"}, "no text that a user says"),
        ({"prompt": "x", "grader": "judge", "parameters": {"model": "m"}}, "model; expected no field that turnout"),
        ({"prompt": "x", "grader": "numeric", "reference": "1", "tolerance": -1}, "finite number >= 0"),
        ({"prompt": "x", "grader": "judge", "prompt_id": "a"}, "a second row of this prompt_id"),
        ({"prompt": "x \ud800", "grader": "judge"}, "column 'prompt', row 2: half a character"),
        ({"prompt": "x", "grader": "judge", "task": "\udfff"}, "column 'task', row 2: half a character"),
        ({"prompt": "x", "grader": "judge", "refrence": "1"}, "did you mean 'reference'"),
    ],
)
def test_what_is_wrong_is_told_by_column_and_row(tmp_path, row, words):
    path = write(tmp_path / "prompts.jsonl", [ROWS[0], row])
    with pytest.raises(InvalidTable) as raised:
        read_questions(path, GRADERS, None)
    assert words in str(raised.value)


def test_retained_prompts_of_a_log_are_asked_once(tmp_path, write_log):
    log = write_log(tmp_path / "LOG", n_requests=300)
    questions = retained_questions(log.path, GRADERS, "judge")
    texts = {" ".join(text.casefold().split()) for text in log.retained["prompt"]}
    assert {" ".join(q.prompt.casefold().split()) for q in questions} == texts
    assert len(questions) == len(texts) < 300
    assert questions[0].prompt_id == id_of_text(questions[0].messages[0]["content"])
    assert questions[0].task == log.retained["task"][0]


def test_a_log_without_prompts_or_with_a_grader_that_needs_more(tmp_path, write_log):
    log = write_log(tmp_path / "LOG", n_requests=20, level="features")
    with pytest.raises(NotEnoughData, match="no prompt is in it"):
        retained_questions(log.path, GRADERS, "judge")
    with pytest.raises(NotEnoughData, match="--grader exact needs reference"):
        retained_questions(log.path, GRADERS, "exact")
