from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest

from routing_data import implied_prices, merge, read
from routing_data.sample import KINDS, generate, write_sample
from routing_data.sample.words import in_words

COMMITTED = Path(__file__).parents[2] / "datasets" / "samples" / "checkable"


@pytest.fixture(scope="module")
def sample():
    return generate()


def test_the_committed_sample_is_what_the_generator_makes(sample):
    table = read(COMMITTED)
    made = sample.table
    assert (table.prompt_ids, table.prompts, table.tasks, table.groups, table.candidates) == (
        made.prompt_ids, made.prompts, made.tasks, made.groups, made.candidates
    )  # fmt: skip
    for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
        np.testing.assert_allclose(getattr(table, name), getattr(made, name), rtol=1e-12, err_msg=name)
    pd.testing.assert_frame_equal(pd.read_parquet(COMMITTED / "truth.parquet"), sample.truth, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(COMMITTED / "answers.parquet"), sample.answers, check_dtype=False)


def test_the_sample_says_that_it_is_simulated(sample):
    assert sample.table.simulated and read(COMMITTED).simulated
    card = (COMMITTED / "CARD.md").read_text(encoding="utf-8")
    assert "SIMULATED" in card.split("\n\n")[1]
    assert all(name.startswith("sample-") for name in sample.table.candidates)


def test_the_sample_is_large_varied_and_small_on_disk(sample):
    table = sample.table
    assert len(table.prompts) == len(set(table.prompts)) >= 1_800 and len(table.candidates) == 4
    assert len(set(table.tasks)) >= 8 and set(sample.answers["level"]) == {1, 2, 3, 4, 5}
    assert sum(file.stat().st_size for file in COMMITTED.iterdir()) < 1_000_000
    counts = Counter(zip(table.tasks, sample.answers["level"], strict=True))
    assert len(counts) == 60 and min(counts.values()) > 15
    assert 0.04 < np.isnan(table.quality).mean() < 0.06


def test_prices_span_a_factor_of_a_hundred(sample):
    prices = implied_prices(sample.table)
    assert prices["sample-nano"] == pytest.approx((0.05, 0.2))
    assert prices["sample-large"] == pytest.approx((5.0, 20.0))


def test_wordings_of_one_problem_share_task_answer_and_group(sample):
    rows = pd.DataFrame({"group": sample.table.groups, "task": sample.table.tasks, "answer": sample.answers["answer"]})
    assert rows.groupby("group")[["task", "answer"]].nunique().to_numpy().max() == 1
    sizes = rows.groupby("group").size()
    assert sizes.max() == 2 and (sizes == 2).mean() > 0.3
    assert merge([sample.table]).groups == sample.table.groups


def test_outcomes_follow_the_stated_truth(sample):
    truth = sample.truth.pivot(index="prompt_id", columns="candidate", values="probability")
    probability = truth.loc[list(sample.table.prompt_ids), list(sample.table.candidates)].to_numpy()
    observed = ~np.isnan(sample.table.quality)
    quality, probability = sample.table.quality[observed], probability[observed]
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        error = quality[inside].mean() - probability[inside].mean()
        spread = np.sqrt((probability[inside] * (1 - probability[inside])).sum()) / inside.sum()
        assert abs(error) < 4 * spread
    expected = sample.truth.groupby("candidate")["expected_cost_usd"].mean()
    for i, name in enumerate(sample.table.candidates):
        assert np.nanmean(sample.table.cost_usd[:, i]) == pytest.approx(expected[name], rel=0.05)


def test_harder_levels_are_harder_and_routing_can_gain(sample):
    truth = sample.truth.merge(sample.answers, on="prompt_id")
    by_level = truth.groupby(["candidate", "level"])["probability"].mean().unstack()
    assert (by_level.diff(axis=1).iloc[:, 1:] < 0).to_numpy().all()
    best = truth.groupby("prompt_id")["probability"].max().mean()
    assert best > truth.groupby("candidate")["probability"].mean().max() + 0.03


def test_another_seed_is_another_sample_and_equal_seeds_are_equal():
    assert generate(1, 60).table.prompts == generate(1, 120).table.prompts[:60]
    assert generate(1, 60).table.prompts != generate(2, 60).table.prompts


def test_write_sample_writes_the_folder_form_and_the_truth(tmp_path):
    write_sample(tmp_path, 3, 40)
    assert len(read(tmp_path).prompts) == 40
    assert {p.name for p in tmp_path.iterdir()} == {
        "prompts.parquet", "outcomes.parquet", "source.json", "truth.parquet", "answers.parquet"
    }  # fmt: skip


# ---- the answers, worked out a second way -------------------------------------------------------


def instances(kind: str, level: int):
    return [KINDS[kind](Random(seed), level) for seed in range(25)]


@pytest.mark.parametrize("level", range(1, 6))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_problem_has_an_answer_and_distinct_wordings(kind, level):
    for instance in instances(kind, level):
        assert instance.answer and len(set(instance.wordings)) == len(instance.wordings) >= 2


@pytest.mark.parametrize("level", range(1, 6))
def test_programs_print_the_stated_answer(level):
    for instance in instances("code_tracing", level):
        program = instance.wordings[1].partition("\n\n")[2]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, {})
        assert printed.getvalue().strip() == instance.answer


@pytest.mark.parametrize("level", range(1, 6))
def test_expressions_evaluate_to_the_stated_answer(level):
    for instance in instances("arithmetic", level):
        assert str(eval(instance.wordings[2].partition(": ")[2])) == instance.answer


@pytest.mark.parametrize("level", range(1, 6))
def test_riddles_have_one_solution(level):
    for instance in instances("logic_puzzle", level):
        shorter = {}
        for one, how, two in re.findall(r"(\w+) is (taller|shorter) than (\w+)", instance.wordings[0]):
            high, low = (one, two) if how == "taller" else (two, one)
            shorter[high] = low
        (name,) = set(shorter) - set(shorter.values())
        order = [name]
        while order[-1] in shorter:
            order.append(shorter[order[-1]])
        asked = re.search(r"the (\w+ )?(tallest|shortest)\?", instance.wordings[0])
        nth = ["", "second ", "third ", "fourth ", "fifth ", "sixth "].index(asked[1] or "")
        assert instance.answer == order[-1 if asked[2] == "shortest" else nth]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (7, "seven"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (512, "five hundred twelve"),
        (12_005, "twelve thousand five"),
        (987_654_321, "nine hundred eighty-seven million six hundred fifty-four thousand three hundred twenty-one"),
    ],
)
def test_numbers_in_words(number, words):
    assert in_words(number) == words


@pytest.mark.parametrize(
    ("kind", "level", "question", "answer"),
    [
        # 103 h = 6,180; 41 d = 59,040; 19 h = 1,140
        ("unit_conversion", 3, "How many minutes are 103 hours plus 41 days plus 19 hours?", "66360"),
        # 28 days to 31 August, 30, 31, 30, 31, 31 to 31 January are 181; 205 - 181 = 24
        ("date_arithmetic", 4, "311 days later, then 106 days earlier than 3 August 2010", "2011-02-24"),
        # 1243 - 423 = 820 = 117 weeks and a day
        ("date_arithmetic", 5, "3 August 2010 is a Tuesday", "Wednesday"),
        # 205^2 + 828^2 = 42,025 + 685,584 = 727,609 = 853^2
        ("geometry", 3, "legs are 205 mm and 828 mm", "853"),
        # 39 * 47 - 33 * 41 - 9 = 1,833 - 1,353 - 9
        ("geometry", 5, "a path 3 m wide runs all around the outside of a pool of 33 m by 41 m", "471"),
        # (30 + 12 + 12 + 2 + 182) / (30 * 29) = 238 / 870
        ("probability", 4, "6 blue, 4 green, 4 red, 2 black, 14 white", "119/435"),
        # 1 - (24 * 23 * 22) / (30 * 29 * 28) = 12,216 / 24,360
        ("probability", 5, "at least one of three balls", "509/1015"),
        # PENCILTEMPLE, NCILTEMPLEPE, NCILTEMPLEPEE, every second letter
        ("string_manipulation", 4, '"penciltemple"', "NITMLPE"),
        # 112 + 150 + 84 + 205 + 66
        ("table_lookup", 4, "whose price is at least 10", "617"),
        # bolts 276 * 27 = 7,452; hats 194 * 27 = 5,238; gloves 2,840; envelopes 2,706
        ("table_lookup", 5, "bolts | 276 | 27", "bolts"),
    ],
)
def test_hand_worked_problems(kind, level, question, answer):
    instance = KINDS[kind](Random(4), level)
    assert question in instance.wordings[0] and instance.answer == answer


@pytest.mark.parametrize("level", range(1, 6))
def test_lists_are_sorted_and_letters_counted(level):
    for instance in instances("sorting", level):
        how, _, listed = instance.wordings[2].removeprefix("Arrange these ").partition(", with commas between them: ")
        entries = listed.split(", ")
        key = int if entries[0].isdigit() else str
        down = how in ("from largest to smallest", "in reverse alphabetical order")
        assert instance.answer.split(", ") == sorted(entries, key=key, reverse=down)
    for instance in instances("letter_counting", level):
        letter, text = re.findall(r'"([^"]*)"', instance.wordings[1])
        assert instance.answer == str(sum(1 for c in text if c == letter))
