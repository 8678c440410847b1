"""The cap, and the file that knows what was spent."""

from __future__ import annotations

import asyncio
import json
import random
import stat

from router.domain import Price, PriceTier
from training.labelling.answer_file import AnswerFile
from training.labelling.budget import Budget
from training.labelling.call import Answer, Call, Target

ANSWER = Answer("text\u2028\ud800", "stop", 1, 2, 0.25, 0.5, False)


async def test_spent_and_reserved_never_cross_the_cap():
    rng, budget = random.Random(3), Budget(1.0)
    n_done = 0

    async def call() -> None:
        nonlocal n_done
        worst = rng.uniform(0.01, 0.2)
        if await budget.reserve(worst):
            assert budget.spent_usd + budget.reserved_usd <= 1.0 + 1e-9
            await asyncio.sleep(rng.random() / 1000)
            await budget.settle(worst, worst * rng.random())
            n_done += 1

    await asyncio.gather(*(call() for _ in range(100)))
    assert budget.is_reached and budget.spent_usd <= 1.0 and budget.overrun_usd == 0.0
    # What was given back was used: with worst costs alone no more than about ten would have fitted.
    assert n_done > 12 and budget.spent_usd > 0.75


async def test_one_that_can_never_fit_ends_it_for_all():
    budget = Budget(1.0, spent_usd=0.5)
    assert not await budget.reserve(0.6)
    assert not await budget.reserve(0.0)
    assert await Budget(0.0).reserve(0.0)


def test_the_worst_cost_counts_bytes_the_dearest_tier_and_attachments():
    dear = PriceTier(1000, Price(4.0, 8.0, cache_write_usd_per_mtok=5.0))
    target = Target("t", Price(1.0, 2.0, tiers=(dear,)))
    messages = [{"role": "user", "content": "é" * 100}]
    n_bytes = len(json.dumps([messages, {}], ensure_ascii=False).encode())
    assert n_bytes > 200
    worst = Call(target, messages, 1000, {}).worst_cost_usd
    assert worst == ((n_bytes + 32 + 64) * 5.0 + 1000 * 8.0) / 1e6
    image = [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {}}]}]
    assert Call(target, image, 1, {}).worst_cost_usd > 16_000 * 5.0 / 1e6
    assert Call(Target("t", None), messages, 1, {}).worst_cost_usd is None


def test_a_call_is_another_where_anything_of_it_is():
    target, messages = Target("t", None, "a"), [{"role": "user", "content": "?"}]
    call = Call(target, messages, 10, {})
    others = [
        Call(Target("u", None, "a"), messages, 10, {}),
        Call(Target("t", None, "b"), messages, 10, {}),
        Call(target, [{"role": "user", "content": "!"}], 10, {}),
        Call(target, messages, 11, {}),
        Call(target, messages, 10, {"temperature": 0}),
    ]
    assert len({call.digest, *(other.digest for other in others)}) == 6
    assert call.digest == Call(Target("t", Price(1.0, 1.0), "a"), messages, 10, {}).digest


def test_the_file_outlives_its_process_and_counts_what_never_ended(tmp_path):
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path) as answers:
        answers.begin("a", 1.0)
        answers.answered("a", "t", ANSWER, 0.25)
        answers.begin("b", 1.0)
        answers.failed("b", "t", "status 500", 1.0)
        answers.begin("c", 0.5)  # and then kill -9
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    whole = path.read_bytes()
    with AnswerFile(path) as answers:
        assert answers.get("a") == ANSWER and answers.get("b") is None
        assert answers.spent_usd == 0.25 + 1.0 + 0.5
    # Wherever the last line was cut off, what stands before it counts, and what comes after it is a line again.
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with AnswerFile(path) as answers:
            before = answers.spent_usd
            answers.begin("d", 1.0)
            answers.answered("d", "t", ANSWER, 0.125)
        with AnswerFile(path) as answers:
            assert answers.get("d") == ANSWER and answers.spent_usd == before + 0.125
            assert answers.n_broken <= 1
