"""From questions to a table, through a real gateway."""

from __future__ import annotations

import asyncio
import json

import pytest

import routing_data
from serving.keys import new_key
from training.errors import AnswersInUse, GatewayFailed, InvalidSettings, NotEnoughData
from training.labelling.question import Question

BOTH = ("good", "bad")


async def test_a_table_that_training_reads(stand, questions, adding):
    stand.provider.say = adding
    summary = await stand.label(questions(12), candidates=BOTH)
    table = routing_data.read(stand.out)
    assert table.candidates == ("bad", "good")
    assert table.quality.mean(axis=0).tolist() == [0.0, 1.0]
    assert set(table.tasks) == {"arithmetic"}
    assert table.prompts[0] == "What is 0 + 7?"
    assert (table.output_tokens == 10).all() and (table.input_tokens == 20).all()
    assert table.cost_usd.sum() == pytest.approx(24 * 30e-6) == pytest.approx(summary.spent_usd)
    assert not table.simulated
    assert [(row.name, row.quality.value, row.quality.n) for row in summary.candidates] == [
        ("bad", 0.0, 12),
        ("good", 1.0, 12),
    ]
    assert stand.labels()["q3", "bad"]["why"].startswith("found 11, expected 10")
    import pandas as pd

    assert (pd.read_parquet(stand.out / "outcomes.parquet")["latency_s"] > 0).all()


async def test_a_second_run_pays_nothing_and_writes_the_same(stand, questions, adding):
    stand.provider.say = adding
    first = await stand.label(questions(5), candidates=BOTH)
    before = {path.name: path.read_bytes() for path in stand.out.iterdir() if path.suffix != ".json"}
    second = await stand.label(questions(5), candidates=BOTH)
    assert (second.n_asked, second.n_cached, second.spent_usd) == (0, 10, pytest.approx(first.spent_usd))
    assert {path.name: path.read_bytes() for path in stand.out.iterdir() if path.suffix != ".json"} == before
    assert len(stand.provider.asked) == 10
    hotter = await stand.label(questions(5), candidates=BOTH, temperature=0.5)
    assert hotter.n_asked == 10
    assert stand.provider.asked[-1]["temperature"] == 0.5


async def test_what_an_earlier_grader_said_is_graded_again_for_nothing(stand, questions, adding):
    stand.provider.say = adding
    await stand.label(questions(3), candidates=["good"])
    stricter = [Question(q.prompt_id, q.messages, "exact", reference=q.reference) for q in questions(3)]
    again = await stand.label(stricter, candidates=["good"], max_usd=0.0)
    assert (again.n_asked, again.candidates[0].quality.value) == (0, 0.0)


async def test_the_budget_is_never_crossed_and_the_table_is_of_whole_prompts(stand, questions, adding):
    stand.provider.say = adding
    stand.provider.delay_s = 0.005
    # A call reserves about 1.2 thousandths of a cent and costs 0.003: few fit at once, many in all.
    summary = await stand.label(questions(60), candidates=BOTH, max_usd=0.0025, max_output_tokens=900)
    assert summary.is_budget_reached
    assert 0 < summary.spent_usd <= 0.0025
    assert stand.provider.most_at_once <= 2
    assert summary.spent_usd == pytest.approx(len(stand.provider.asked) * 30e-6)
    # Worst case of the last call plus what was spent would have crossed it; nothing else stopped it early.
    assert summary.spent_usd > 0.0025 - 0.0012
    table = routing_data.read(stand.out)
    assert (~(table.quality >= 0)).sum() <= 1
    done = len(stand.provider.asked)
    more = await stand.label(questions(60), candidates=BOTH, max_usd=1.0, max_output_tokens=900)
    assert len(stand.provider.asked) == 120 and more.n_asked == 120 - done


async def test_no_call_fits_a_budget_of_nothing(stand, questions):
    with pytest.raises(NotEnoughData, match="the budget is reached"):
        await stand.label(questions(3), max_usd=0.0)
    assert stand.provider.asked == []


async def test_a_cost_that_the_provider_does_not_limit_is_told(stand, questions, adding):
    stand.provider.say = adding
    stand.provider.n_output_tokens = 5000
    summary = await stand.label(questions(1), candidates=["good"], max_output_tokens=10)
    assert summary.overrun_usd > 0.004


async def test_a_failure_for_a_while_is_tried_again(stand, questions, adding):
    left = [503, 429]
    stand.provider.say = lambda model, messages: left.pop() if left else adding(model, messages)
    summary = await stand.label(questions(1), candidates=["good"])
    assert (summary.n_asked, summary.candidates[0].quality.value) == (3, 1.0)
    assert summary.spent_usd == pytest.approx(30e-6)


async def test_a_failure_that_stays_is_unobserved_and_never_quality_0(stand, questions, adding):
    stand.provider.say = lambda model, messages: 500 if model == "bad" else adding(model, messages)
    summary = await stand.label(questions(8), candidates=BOTH, n_tries=1, n_at_once=1)
    table = routing_data.read(stand.out)
    assert table.candidates == ("good",)
    (bad, _) = summary.candidates
    assert bad.quality.n == 0 and bad.n_truncated == 0
    assert sum(n for _, n in bad.unobserved) == 8
    # After five in a row the candidate is left alone, and the next run tries again.
    assert stand.provider.n_asked("bad") == 5
    assert stand.labels()["q0", "bad"]["quality"] is None
    stand.provider.say = adding
    assert (await stand.label(questions(8), candidates=BOTH)).n_asked == 8


async def test_a_refusal_is_not_tried_again(stand, questions, adding):
    stand.provider.say = lambda model, messages: 422 if "3 +" in messages[-1]["content"] else adding(model, messages)
    summary = await stand.label(questions(5), candidates=["good"])
    assert summary.candidates[0].unobserved == (("status 422 (c)", 1),)
    assert len(stand.provider.asked) == 5


async def test_an_answer_by_somebody_else_is_no_label(start, questions, adding):
    async with start(bad='failover = ["good"]', max_attempts=2) as stand:
        stand.provider.say = lambda model, messages: 500 if model == "bad" else adding(model, messages)
        summary = await stand.label(questions(2), candidates=BOTH)
        assert [row.quality.n for row in summary.candidates] == [0, 2]
        assert summary.candidates[0].unobserved == (("good answered in its place", 2),)
        # What it cost is counted all the same.
        assert summary.spent_usd == pytest.approx(4 * 30e-6)


async def test_no_cap_can_be_kept_where_a_price_is_unknown(start, questions):
    unpriced = '[[candidates]]\nname = "unpriced"\ndeployments = [{ provider = "own", model = "unpriced" }]\n'
    async with start(more=unpriced) as stand:
        with pytest.raises(InvalidSettings, match="the price of unpriced is unknown"):
            await stand.label(questions(1))
        assert stand.provider.asked == []


async def test_one_run_a_folder(stand, questions, adding):
    stand.provider.say, stand.provider.delay_s = adding, 0.05
    first = asyncio.create_task(stand.label(questions(4), candidates=["good"]))
    while not stand.provider.asked:
        await asyncio.sleep(0.005)
    with pytest.raises(AnswersInUse, match="another turnout label"):
        await stand.label(questions(4), candidates=["good"])
    await first


async def test_a_gateway_with_keys_wants_one(start, questions):
    _, sha256 = new_key()
    async with start(more=f'[[keys]]\nname = "other"\nsha256 = "{sha256}"\n') as stand:
        with pytest.raises(GatewayFailed, match="--key-env"):
            await stand.label(questions(1))


async def test_a_gateway_that_is_none_or_not_there(stand, questions):
    stand.url = stand.url.rpartition(":")[0] + ":9"
    with pytest.raises(GatewayFailed, match="no gateway answers"):
        await stand.label(questions(1))


async def test_the_limit_goes_by_the_name_that_the_provider_knows(stand, questions, adding):
    def say(model, messages):
        return 400 if "max_tokens" in stand.provider.asked[-1] else adding(model, messages)

    stand.provider.say = say
    summary = await stand.label(questions(4), candidates=["good"], n_at_once=1, max_output_tokens=77)
    assert summary.candidates[0].quality.n == 4
    assert [("max_tokens" in body, body.get("max_completion_tokens")) for body in stand.provider.asked] == [
        (True, None),
        *[(False, 77)] * 4,
    ]


async def test_an_answer_that_was_cut_off_is_flagged(stand, questions, adding):
    stand.provider.say, stand.provider.finish = adding, "length"
    summary = await stand.label(questions(2), candidates=["good"])
    assert summary.candidates[0].n_truncated == 2
    assert stand.labels()["q0", "good"]["is_truncated"] is True


async def test_parameters_of_a_row_reach_the_provider(stand):
    format_ = {"type": "json_object"}
    question = Question(
        "q",
        [{"role": "system", "content": "JSON only."}, {"role": "user", "content": "A number?"}],
        "json_schema",
        schema={"type": "object", "required": ["n"]},
        parameters={"response_format": format_},
    )
    stand.provider.say = lambda model, messages: '{"n": 1}'
    summary = await stand.label([question], candidates=["good"])
    assert stand.provider.asked[0]["response_format"] == format_
    assert summary.candidates[0].quality.value == 1.0
    assert routing_data.read(stand.out).prompts == ("A number?",)


async def test_code_is_graded_by_its_tests(stand):
    answers = {"good": "```python\ndef f(x):\n    return x + 1\n```", "bad": "import os; os._exit(0)"}
    stand.provider.say = lambda model, messages: answers[model]
    question = Question("q", [{"role": "user", "content": "f adds 1"}], "code", tests=("assert f(1) == 2",))
    summary = await stand.label([question], candidates=BOTH)
    assert [row.quality.value for row in summary.candidates] == [0.0, 1.0]
    assert "no network" in summary.protections


async def test_an_interruption_loses_no_answer(stand, questions, adding):
    stand.provider.say, stand.provider.delay_s = adding, 0.02
    running = asyncio.create_task(stand.label(questions(40), candidates=["good"], n_at_once=2))
    while len(stand.provider.asked) < 10:
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    asked = len(stand.provider.asked)
    # Torn in the middle of a line, as by kill -9 or a full disk.
    with (stand.out / "answers.jsonl").open("ab") as stream:
        stream.write(b'{"line": "answered", "call": "0123')
    stand.provider.delay_s = 0.0
    summary = await stand.label(questions(40), candidates=["good"])
    assert summary.candidates[0].quality.n == 40
    # Only what was under way is asked a second time, and counted at its worst.
    assert len(stand.provider.asked) - 40 <= 2 and asked < 40
    assert summary.spent_usd >= 40 * 30e-6
    assert (await stand.label(questions(40), candidates=["good"])).n_asked == 0


async def test_prompts_come_in_the_order_of_no_file(stand, questions, adding):
    stand.provider.say = adding
    await stand.label(questions(20), candidates=["good"], n_at_once=1)
    first = [body["messages"][0]["content"] for body in stand.provider.asked]
    assert first != [q.prompt for q in questions(20)]
    assert json.loads((stand.out / "labels.jsonl").read_text().splitlines()[0])["prompt_id"] == "q0"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"candidates": ("goood",)}, "goood: no candidate of the gateway matches; it has bad, good, judge"),
        ({"judge": "nobody"}, "--judge nobody: no such candidate"),
        ({"judge_reference": "nobody"}, "--judge-reference nobody"),
    ],
)
async def test_a_name_that_is_none_is_told_before_anything_is_paid(stand, questions, settings, words):
    with pytest.raises(InvalidSettings, match=words):
        await stand.label(questions(1), **settings)
    assert stand.provider.asked == []


async def test_rows_for_a_judge_need_one(stand):
    with pytest.raises(InvalidSettings, match="--judge"):
        await stand.label([Question("q", [{"role": "user", "content": "?"}], "judge")])
