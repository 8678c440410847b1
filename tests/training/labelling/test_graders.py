"""Each grader on answers as LLMs write them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from training.errors import InvalidSettings
from training.labelling.confinement import Confinement, Limits
from training.labelling.graders.code import program_of
from training.labelling.graders.registry import graders_of
from training.labelling.graders.similarity import chrf, measure_of
from training.labelling.question import Question

GRADERS = graders_of("chrf", Confinement(Limits(time_s=5.0)))


def question(grader: str, **spec: object) -> Question:
    return Question("q", [{"role": "user", "content": "?"}], grader, **spec)


@pytest.mark.parametrize(
    ("text", "reference", "quality"),
    [
        ("Paris", "paris", 1),
        ("**The  Paris.**", "Paris", 1),
        ("I think so.\nAnswer: Paris", "paris", 1),
        ("so it is \\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1),
        ("\\boxed{7} and \\boxed{\\boxed{8} is not closed", "8", 1),
        ("Paris or London", "Paris", 0),
        ("Answer: Paris. On second thought, the answer is London", "Paris", 0),
        ("ﬁve", "five", 1),
        ("B", ("A", "B"), 1),
        ("", "Paris", 0),
        ("Answer: **A**", "A", 1),
        ("B", "A", 0),
        (".", ".", 1),
    ],
)
def test_exact(text, reference, quality):
    assert GRADERS["exact"].grade(text, question("exact", reference=reference)).quality == quality


@pytest.mark.parametrize(
    ("text", "reference", "quality"),
    [
        ("[emulated gpt] What is 17 * 23 = 391", "391", 1),
        ("17 * 23 = 401", "391", 0),
        ("It costs $1,234.50.", "1234.5", 1),
        ("Answer: 7 (not 8)", "7", 1),
        ("The answer is 3 + 4 = 7", "7", 1),
        ("#### 12 apples of 15", "12", 1),
        ("minus: \u22123", "-3", 1),
        ("about 3/4 of it", "0.75", 1),
        ("0.3333333", "1/3", 1),
        ("0.33", "1/3", 0),
        ("1e400", "1", 0),
        ("nobody knows", "1", 0),
        ("10-4", "4", 1),
    ],
)
def test_numeric(text, reference, quality):
    assert GRADERS["numeric"].grade(text, question("numeric", reference=reference)).quality == quality


def test_numeric_keeps_the_tolerance_of_its_row():
    grade = GRADERS["numeric"].grade("3.1", question("numeric", reference="3.14", tolerance=0.05))
    assert (grade.quality, grade.raw) == (1.0, 3.1)
    assert GRADERS["numeric"].grade("3.0", question("numeric", reference="3.14", tolerance=0.05)).quality == 0.0


def test_regex_finds_or_not_and_a_pattern_that_never_ends_is_no_verdict(monkeypatch):
    grader = GRADERS["regex"]
    assert grader.grade("on 2024-05-13", question("regex", pattern=r"\d{4}-\d\d-\d\d")).quality == 1.0
    assert grader.grade("on Monday", question("regex", pattern=r"\d{4}-\d\d-\d\d")).quality == 0.0
    monkeypatch.setattr("training.labelling.graders.regex._SEARCH_WITHIN_S", 0.5)
    assert grader.grade("a" * 50 + "!", question("regex", pattern=r"^(a+)+$")).quality is None


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "quality"),
    [
        ('{"n": 1}', 1.0),
        ('Sure!\n```json\n{"n": 1}\n```', 1.0),
        ('{"n": "1"}', 0.0),
        ("n = 1", 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_json_schema(text, quality):
    assert GRADERS["json_schema"].grade(text, question("json_schema", schema=SCHEMA)).quality == quality


def test_json_schema_says_where_but_not_what_and_fetches_nothing():
    grade = GRADERS["json_schema"].grade('{"n": "secret"}', question("json_schema", schema=SCHEMA))
    assert grade.why == "1 errors; first at n: type"
    elsewhere = question("json_schema", schema={"$ref": "http://127.0.0.1:9/schema.json"})
    assert GRADERS["json_schema"].grade("{}", elsewhere).quality is None


def test_code_passes_all_tests_or_is_wrong():
    grader, tests = GRADERS["code"], ("assert f(1) == 2", "assert f(5) == 6")
    good = grader.grade("Here:\n```python\ndef f(x):\n    return x + 1\n```\nas asked.", question("code", tests=tests))
    assert (good.quality, good.raw) == (1.0, 1.0)
    half = grader.grade("def f(x): return 2", question("code", tests=tests))
    assert (half.quality, half.raw, half.why) == (0.0, 0.5, "test 2 of 2: AssertionError")


def test_the_program_is_the_longest_block_of_python():
    text = "```python\nx = 1\n```\n```bash\nrm -rf everything that is here\n```\n```py\ndef f():\n    pass\n```"
    assert program_of(text) == "def f():\n    pass\n"
    assert program_of("x = 1") == "x = 1"


def test_similarity_names_its_method():
    grade = GRADERS["similarity"].grade("the cat sat", question("similarity", reference=("a dog", "the cat sat")))
    assert (grade.quality, grade.method) == (1.0, "similarity:chrf")
    assert chrf("abcdef", "uvwxyz") == 0.0 == chrf("", "x")
    # "ab" against "a" has one length in common: precision 1/2, recall 1.
    assert chrf("ab", "a") == pytest.approx(5 * 0.5 * 1 / (4 * 0.5 + 1))


def test_similarity_by_an_exported_encoder(tmp_path):
    # One number per text up to scale: the mean of (is it "a", is it "b") over its tokens.
    words = Tokenizer(WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    table = np.array([[0, 0], [0, 0], [0, 0], [1, 0], [0, 1]], np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["masked"]),
        helper.make_node("ReduceMean", ["masked"], ["embedding"], axes=[1], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "T"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 2])]
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2]), "axes")]
    graph = helper.make_graph(nodes, "means", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    method = f"encoder:{tmp_path}"
    assert measure_of(method)("a a", "a") == pytest.approx(1.0)
    assert measure_of(method)("a b", "a") == pytest.approx(0.5**0.5, abs=1e-6)
    assert measure_of(method)("", "a") == 0.0
    grader = graders_of(method, Confinement(Limits()))["similarity"]
    assert grader.grade("b", question("similarity", reference="a")).method == "similarity:encoder"


@pytest.mark.parametrize("method", ["bleu", "encoder:/nowhere", "encoder:"])
def test_a_method_of_similarity_that_cannot_be_had(method):
    with pytest.raises(InvalidSettings, match="--similarity"):
        measure_of(method)


@pytest.mark.parametrize(
    ("grader", "spec"),
    [
        ("exact", {}),
        ("exact", {"reference": " "}),
        ("numeric", {"reference": "many"}),
        ("regex", {"pattern": "("}),
        ("regex", {}),
        ("json_schema", {"schema": {"type": "nothing"}}),
        ("code", {"tests": ("assert (",)}),
        ("code", {}),
        ("similarity", {"reference": " "}),
    ],
)
def test_a_row_without_what_its_grader_needs_is_told(grader, spec):
    assert GRADERS[grader].problem(question(grader, **spec))
