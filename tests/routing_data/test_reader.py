from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing_data import DataError, InvalidTable, UnreadableFile, read, validate, write


def only(problems):
    assert len(problems) == 1, [str(p) for p in problems]
    return str(problems[0])


# ---- what is read -------------------------------------------------------------------------------


def test_a_folder_is_spread_over_prompts_and_candidates(folder):
    table = read(folder())
    assert table.candidates == ("large", "small")
    assert table.prompt_ids == ("p1", "p2") and table.prompts == ("one?", "two?")
    assert table.tasks == ("a", "b") and table.groups == ("p1", "p2")
    np.testing.assert_array_equal(table.quality, np.array([[1.0, 0.5], [0.0, np.nan]], np.float32))
    np.testing.assert_array_equal(table.cost_usd, [[0.1, 0.01], [0.2, np.nan]])
    assert table.quality.dtype == np.float32 and table.cost_usd.dtype == np.float64


def test_a_source_tells_its_name_but_never_a_whole_path(folder):
    place = folder()
    source = read(place).sources[0]
    assert (source.name, source.path, source.licence, source.simulated) == (place.name, place.name, None, False)
    assert len(source.sha256) == 64 and source.n_prompts == 2


def test_source_json_states_name_licence_and_simulation(folder):
    place = folder()
    stated = {"name": "mine", "licence": "CC0", "attribution": "me", "simulated": True}
    (place / "source.json").write_text(json.dumps(stated))
    source = read(place).sources[0]
    assert (source.name, source.licence, source.attribution, source.simulated) == ("mine", "CC0", "me", True)


def test_the_fingerprint_follows_the_content(folder):
    first = read(folder()).sources[0].sha256
    assert read(folder()).sources[0].sha256 == first
    assert read(folder(outcomes={"quality": [1.0, 0.5, 1.0]})).sources[0].sha256 != first


LONG = [
    {"prompt": "one?", "candidate": "large", "quality": 1, "cost_usd": 0.1, "task": "a", "group": "g"},
    {"prompt": "one?", "candidate": "small", "quality": 0.5, "cost_usd": None, "task": "a", "group": "g"},
    {"prompt": "two,\n\"2\"?", "candidate": "large", "quality": 0, "cost_usd": 0.2, "task": None, "group": None},
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_long_file_reads_the_same_in_every_format(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    frame = pd.DataFrame(LONG)
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in LONG))
    else:
        frame.to_parquet(path, index=False)
    table = read(path)
    assert table.prompts == ("one?", 'two,\n"2"?')
    assert table.tasks == ("a", "unknown") and table.groups == ("g", table.prompt_ids[1])
    np.testing.assert_array_equal(table.quality, np.array([[1, 0.5], [0, np.nan]], np.float32))
    np.testing.assert_array_equal(table.cost_usd, [[0.1, np.nan], [0.2, np.nan]])
    assert np.isnan(table.input_tokens).all()


def test_without_prompt_id_the_id_is_a_hash_of_the_text(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("prompt,candidate,quality\nhello,x,1\n")
    ids = read(tmp_path / "a.csv").prompt_ids
    assert ids == read(tmp_path / "b.csv").prompt_ids and ids == ("2cf24dba5fb0a30e",)  # sha256("hello")


def test_a_byte_order_mark_and_integer_ids_are_fine(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt_id,prompt,model,quality\r\n7,hi,x,1\r\n")
    assert read(path).prompt_ids == ("7",)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt_id": 7, "prompt": "hi", "candidate": "x", "quality": true}')
    assert read(path).prompt_ids == ("7",) and read(path).quality[0, 0] == 1.0


def test_written_tables_read_back_the_same(tmp_path, folder):
    table = read(folder())
    again = read(write(table, tmp_path / "out"))
    assert (again.prompt_ids, again.prompts, again.tasks, again.groups, again.candidates) == (
        table.prompt_ids, table.prompts, table.tasks, table.groups, table.candidates
    )  # fmt: skip
    for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "outcomes.parquet",
        "prompts.parquet",
        "source.json",
    ]


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"quality": [1.0, 1.5, 0.0]},
            "outcomes.parquet, column 'quality', row 2, prompt_id 'p1': 1.5; expected a number in [0, 1]",
        ),
        (
            {"quality": [1.0, 0.5, -0.1]},
            "outcomes.parquet, column 'quality', row 3, prompt_id 'p2': -0.1; expected a number in [0, 1]",
        ),
        (
            {"quality": [1.0, math.nan, 0.0]},
            "outcomes.parquet, column 'quality', row 2, prompt_id 'p1': no value (NaN); expected a number in [0, 1]",
        ),
        (
            {"quality": [math.inf, 0.5, 0.0]},
            "outcomes.parquet, column 'quality', row 1, prompt_id 'p1': inf; expected a number in [0, 1]",
        ),
        (
            {"quality": ["1", "good", "0"]},
            "outcomes.parquet, column 'quality', row 2, prompt_id 'p1': 'good'; expected a number in [0, 1]",
        ),
        (
            {"cost_usd": [0.1, -2.0, 0.2]},
            "outcomes.parquet, column 'cost_usd', row 2, prompt_id 'p1': -2.0; expected a finite number >= 0",
        ),
        (
            {"output_tokens": [5.0, 6.0, -math.inf]},
            "outcomes.parquet, column 'output_tokens', row 3, prompt_id 'p2': -inf; expected a finite number >= 0",
        ),
        (
            {"model": ["large", "large", "large"]},
            "outcomes.parquet, row 2, prompt_id 'p1': a second row for candidate 'large'; "
            "expected one row per prompt_id and candidate",
        ),
        (
            {"prompt_id": ["p1", "p1", "p9"]},
            "outcomes.parquet, column 'prompt_id', row 3, prompt_id 'p9': an outcome without a prompt; "
            "expected a prompt_id that is in the prompts",
        ),
        (
            {"model": ["large", None, "large"]},
            "outcomes.parquet, column 'model', row 2, prompt_id 'p1': no value; expected text",
        ),
        (
            {"model": ["large", " ", "large"]},
            "outcomes.parquet, column 'model', row 2, prompt_id 'p1': empty or only white space; expected text",
        ),
        (
            {"cost": [1.0, 1.0, 1.0]},
            "outcomes.parquet: unknown column 'cost'; expected a known column (did you mean 'cost_usd'? "
            "known: candidate, cost_usd, input_tokens, latency_s, output_tokens, prompt_id, quality)",
        ),
        (
            {"candidate": ["large", "small", "large"]},
            "outcomes.parquet: columns 'model' and 'candidate'; expected one column 'candidate'",
        ),
    ],
)
def test_a_broken_outcome_is_named(folder, change, message):
    assert only(validate(folder(outcomes=change))) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prompt": ["one?", " \n"]},
            "prompts.parquet, column 'prompt', row 2, prompt_id 'p2': empty or only white space; expected text",
        ),
        (
            {"prompt": ["one?", None]},
            "prompts.parquet, column 'prompt', row 2, prompt_id 'p2': no value; expected text",
        ),
        (
            {"prompt": [1.5, 2.5]},
            "prompts.parquet, column 'prompt', row 1, prompt_id 'p1': a value that is not text; expected text",
        ),
        (
            {"prompts": ["x", "y"]},
            "prompts.parquet: unknown column 'prompts'; expected a known column (did you mean 'prompt'? "
            "known: benchmark, functions, group, prompt, prompt_id, task)",
        ),
    ],
)
def test_a_broken_prompt_is_named(folder, change, message):
    assert str(validate(folder(prompts=change))[0]) == message


def test_a_prompt_id_used_twice_is_named(folder):
    problems = [str(p) for p in validate(folder(prompts={"prompt_id": ["p1", "p1"]}))]
    assert problems[0] == (
        "prompts.parquet, column 'prompt_id', row 2, prompt_id 'p1': a second row for this prompt_id; "
        "expected one row per prompt"
    )


def test_missing_columns_are_named_with_their_other_name(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,quality\nhi,1\n")
    expected = "'candidate' (or 'model'): the candidate that answered"
    assert only(validate(path)) == f"rows.csv: no column 'candidate'; expected {expected}"


def test_missing_tokens_and_costs_are_allowed(folder):
    table = read(folder(outcomes={"cost_usd": [None, None, 0.2], "input_tokens": [math.nan] * 3}))
    np.testing.assert_array_equal(table.cost_usd, [[np.nan, np.nan], [0.2, np.nan]])


def test_many_problems_of_one_kind_are_counted_not_listed(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,candidate,quality\n" + "".join(f"p{i},x,7\n" for i in range(30)))
    problems = validate(path)
    assert len(problems) == 10 and problems[-1].n_more == 20
    assert str(problems[-1]).endswith("(and 20 more like it)")
    with pytest.raises(InvalidTable) as caught:
        read(path)
    assert caught.value.problems == problems
    assert str(caught.value).count("\n") == 5 and str(caught.value).endswith("... and 5 more problems")


def test_problems_of_different_kinds_are_all_found(folder):
    place = folder(
        prompts={"prompt": ["one?", ""], "extra": [1, 2]},
        outcomes={"quality": [2.0, 0.5, 0.0], "cost_usd": [-1.0, 0.0, 0.0], "prompt_id": ["p1", "p1", "p3"]},
    )
    assert {p.kind for p in validate(place)} == {"empty-text", "unknown-column", "out-of-range", "no-such-prompt"}


def test_messages_never_quote_a_prompt(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt_id": "1", "prompt": "SECRET one", "candidate": "x", "quality": 1},
        {"prompt_id": "1", "prompt": "SECRET two", "candidate": "y", "quality": 9},
        {"prompt_id": "2", "prompt": ["SECRET"], "candidate": "y", "quality": None},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"prompt": "SECRET')
    problems = validate(path)
    assert {p.kind for p in problems} == {
        "malformed-line", "wrong-type", "inconsistent", "out-of-range", "missing-value"
    }  # fmt: skip
    assert "SECRET" not in " ".join(map(str, problems))


def test_rows_of_one_prompt_must_agree(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt_id,prompt,candidate,quality,task\n1,hi,x,1,a\n1,hi,y,1,b\n")
    assert only(validate(path)) == (
        "rows.csv, column 'task', row 2, prompt_id '1': another task than in the first row of this prompt; "
        "expected one task per prompt_id"
    )


# ---- files that cannot be read ------------------------------------------------------------------


def test_a_malformed_jsonl_line_is_named_and_the_rest_still_checked(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = '{"prompt": "b", "candidate": "x", "quality": 3}'
    path.write_text('{"prompt": "a", "candidate": "x", "quality": 1}\n{"prompt": }\n\n[1]\n' + good + "\n")
    assert [str(p) for p in validate(path)] == [
        "rows.jsonl, row 2: malformed JSON at character 12; expected one JSON object",
        "rows.jsonl, row 3: an empty line; expected one JSON object",
        "rows.jsonl, row 4: a JSON list; expected one JSON object",
        "rows.jsonl, column 'quality', row 5: 3; expected a number in [0, 1]",
    ]


def test_deeply_nested_json_and_huge_numbers_are_problems_not_crashes(tmp_path):
    path = tmp_path / "rows.jsonl"
    huge = "1" + "0" * 400
    path.write_text("[" * 200_000 + '\n{"prompt": "a", "candidate": "x", "quality": ' + huge + "}\n")
    assert [p.kind for p in validate(path)] == ["malformed-line", "infinite"]


def test_an_unpaired_surrogate_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a\\ud800", "candidate": "x", "quality": 1}')
    assert only(validate(path)) == ("rows.jsonl, column 'prompt', row 1: an unpaired surrogate; expected valid Unicode")


def test_a_ragged_csv_row_is_named_and_later_rows_keep_their_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('prompt,candidate,quality\n"a\nb",x,1\nc,x\nd,x,1,1\ne,x,5\n')
    assert [str(p) for p in validate(path)] == [
        "rows.csv, row 2: 2 fields; expected 3 fields",
        "rows.csv, row 3: 4 fields; expected 3 fields",
        "rows.csv, column 'quality', row 4: '5'; expected a number in [0, 1]",
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_that_is_not_utf8_says_where(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(b"prompt,candidate,quality\ncaf\xe9,x,1\n")
    message = f"rows.{suffix}: byte 0xe9 at offset 28 (line 2); expected UTF-8 text"
    assert only(validate(path)) == message
    with pytest.raises(UnreadableFile, match="offset 28"):
        read(path)


def test_text_in_a_parquet_file_that_is_not_utf8_is_refused(tmp_path):
    raw = pa.array([b"caf\xe9"], pa.binary())
    text = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
    rows = pa.table({"prompt": text, "candidate": ["x"], "quality": [1.0]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    assert only(validate(tmp_path / "rows.parquet")) == "rows.parquet: text that is not UTF-8; expected UTF-8 text"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.parquet", b"PAR1 this is not", "rows.parquet: not Parquet, or damaged; expected a Parquet file"),
        ("rows.csv", b"", "rows.csv: an empty file; expected at least one row"),
        ("rows.csv", b"prompt,candidate,quality\n", "rows.csv: no rows; expected at least one"),
        ("rows.xls", b"x", "rows.xls: a file ending in '.xls'; expected one of .parquet, .csv, .jsonl, or a folder"),
        ("rows", b"x", "rows: a file without an ending; expected one of .parquet, .csv, .jsonl, or a folder"),
    ],
)
def test_an_unreadable_file_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert only(validate(tmp_path / name)) == message


def test_missing_files_and_folders_say_so(tmp_path):
    assert only(validate(tmp_path / "no.csv")) == "no.csv: no such file or folder; expected one that exists"
    assert only(validate(tmp_path / "nowhere")) == "nowhere: no such file or folder; expected one that exists"
    wanted = "a folder without prompts.parquet; expected one with prompts.parquet and outcomes.parquet"
    assert only(validate(tmp_path)) == f"{tmp_path.name}: {wanted}"


def test_a_truncated_parquet_file_is_refused(folder):
    place = folder()
    data = (place / "outcomes.parquet").read_bytes()
    (place / "outcomes.parquet").write_bytes(data[:-20])
    with pytest.raises(UnreadableFile, match=r"outcomes\.parquet: not Parquet, or damaged"):
        read(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "source.json: a JSON list; expected one JSON object"),
        ("{", "source.json: malformed JSON at line 1; expected one JSON object"),
        (
            '{"license": "MIT"}',
            "source.json: unknown key 'license'; expected a known key (did you mean 'licence'? "
            "known: attribution, licence, name, simulated)",
        ),
        ('{"simulated": "no"}', "source.json: 'simulated' is 'no'; expected true or false"),
    ],
)
def test_a_broken_source_json_is_named(folder, text, message):
    place = folder()
    (place / "source.json").write_text(text)
    assert only(validate(place)) == message


# ---- anything at all ----------------------------------------------------------------------------

cells = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
columns = ("prompt_id", "prompt", "candidate", "model", "quality", "cost_usd", "task", "group", "odd")
records = st.lists(st.dictionaries(st.sampled_from(columns), cells, max_size=9), max_size=6)


def judged(path):
    """Validate, and check that `read` agrees."""
    problems = validate(path)
    if problems:
        with pytest.raises(DataError):
            read(path)
    else:
        table = read(path)
        seen = table.quality[~np.isnan(table.quality)]
        assert ((seen >= 0) & (seen <= 1)).all() and all(text.strip() for text in table.prompts)
    return problems


@settings(max_examples=150, deadline=None)
@given(records)
def test_any_json_rows_are_read_or_refused(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    judged(path)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='ab,"\n\r\\\x00é', max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    for name in ("any.csv", "any.jsonl", "any.parquet"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(data)
        assert judged(path)
        path.write_bytes(b"prompt,candidate,quality\n" + data)
        judged(path)


def test_a_header_longer_than_any_field_may_be_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("x" * 200_000 + "\n1\n")
    assert validate(path)


def test_long_prompts_are_read_from_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,candidate,quality\n" + "x" * 3_000_000 + ",x,1\n")
    assert len(read(path).prompts[0]) == 3_000_000
