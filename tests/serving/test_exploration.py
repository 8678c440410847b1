"""Exploring: exact probabilities, a cap that holds, and nowhere where it must not be.

On the tiny bundle (``tests/conftest.py``) ``balanced`` sends "Say hello." to ``medium`` at 0.0008 USD; ``large`` would
cost 0.0232 USD more at its 90 % quantile, ``small`` nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import time

import numpy as np
import pytest
from click.testing import CliRunner

from router import Price
from router.pricing import Usage
from serving.asked import parse_chat
from serving.conversations import Conversations
from serving.deciding import Decided, decide, turn_in
from serving.emulated_faults import Fault
from serving.errors import SettingsError
from serving.explain_command import explain as explain_command
from serving.exploration import ExploreRate, chance, drawn, explorable, explored
from serving.exploration_budget import DAY_S, ExplorationBudget
from serving.exploring import explore, reserved
from serving.keys import ANONYMOUS
from serving.pool import Pool
from serving.state import State, build
from serving.storage import writer
from serving.storage.record_store import SqliteRecordStore

RATE = ExploreRate(0.1, 1.0)
NOON = 20_000 * DAY_S + DAY_S / 2
ROUTING = "[routing]\nexplore_share = {share}\nexplore_max_usd_per_day = {usd}\n"


@pytest.fixture
def state(configure, pool_toml) -> State:
    return build(configure(ROUTING.format(share=0.1, usd=1000) + pool_toml), is_offline=True)


def asked_of(content: str = "Say hello.", **more: object):
    return parse_chat({"model": "auto", "messages": [{"role": "user", "content": content}], **more})


def decided_by(state: State, pool: Pool | None = None, **more: object) -> Decided:
    return decide(state, pool or Pool(state.candidate_of()), ANONYMOUS, asked_of(**more))


def ids(n: int, seed: int = 0) -> list[str]:
    """Make ids as the gateway does."""
    random = np.random.default_rng(seed)
    return [f"req_{1_764_000_000_000 + i:011x}{int(bits):013x}" for i, bits in enumerate(random.integers(0, 2**52, n))]


def test_frequencies_are_the_propensities_and_weighting_by_them_is_unbiased(state: State) -> None:
    decision = decided_by(state).decision
    exploration = explorable(decision, replace(RATE, share=0.3), 1000.0, lambda name: True)
    assert exploration.candidates == ("medium", "large", "small")
    truth = {"large": 0.9, "medium": 0.7, "small": 0.2}
    outcomes = np.random.default_rng(1)
    counts: Counter[str] = Counter()
    weighted = dict.fromkeys(truth, 0.0)
    n = 20_000
    for request_id in ids(n):
        made = explored(decision, exploration, request_id)
        assert made.is_explored == (made.candidate != "medium")
        counts[made.candidate] += 1
        weighted[made.candidate] += (outcomes.random() < truth[made.candidate]) / made.propensity
    probability = {name: exploration.propensity(name) for name in truth}
    assert probability == pytest.approx({"medium": 0.8, "large": 0.1, "small": 0.1})
    assert sum(probability.values()) == pytest.approx(1.0, abs=1e-15)
    chi_square = sum((counts[name] - n * p) ** 2 / (n * p) for name, p in probability.items())
    assert chi_square < 13.8, counts  # 99.9 % at two degrees of freedom
    for name, quality in truth.items():
        standard_error = np.sqrt(quality / probability[name] / n)
        assert abs(weighted[name] / n - quality) < 4 * standard_error


def test_one_id_draws_the_same_for_ever() -> None:
    golden = ("req_19ab0123456000000000000a", "req_19ab01234560000000000125")
    assert [drawn(one, 1.0, ("a", "b", "c", "d")) for one in golden] == ["b", "d"]
    numbers = np.array([chance(one, b"explore") for one in ids(2_000)])
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    others = np.array([chance(one, b"shadow") for one in ids(2_000)])
    assert abs(np.corrcoef(numbers, others)[0, 1]) < 0.08, "one purpose says nothing of another"


def test_without_a_share_nothing_changes_at_all(configure, pool_toml) -> None:
    state = build(configure(pool_toml), is_offline=True)
    pool = Pool(state.candidate_of())
    decided = decided_by(state, pool)
    after = explore(decided, state, pool, ExplorationBudget(), asked_of().prompt, None, NOON, "req_1")
    assert after is decided
    assert (decided.decision.propensity, decided.decision.explorable, decided.exploration) == (1.0, (), None)


def test_the_cap_holds_over_many_requests_and_the_set_shrinks_before_the_draw(state: State) -> None:
    most_usd = 0.5
    state = replace(state, explores={"": ExploreRate(0.5, most_usd)})
    pool, budget, prompt = Pool(state.candidate_of()), ExplorationBudget(), asked_of().prompt
    plain = decided_by(state, pool)
    costs = np.random.default_rng(2)
    own_usd = plain.decision.cost_usd
    extra_usd, waiting, sets = 0.0, [], Counter()
    for n, request_id in enumerate(ids(20_000)):
        decided = explore(plain, state, pool, budget, prompt, None, NOON, request_id)
        sets[decided.decision.explorable] += 1
        if (reservation := reserved(decided, budget, NOON)) is not None:
            most = decided.decision.outlook.cost_usd_p90[decided.decision.outlook.candidates.index(decided.order[0])]
            waiting.append((reservation, most * costs.random()))
        account = budget.status("", NOON)
        assert account.spent_usd + account.reserved_usd <= most_usd + 1e-12
        if len(waiting) > 5 or n % 7 == 0:
            for reservation, cost_usd in waiting:
                reservation.settle(cost_usd)
                extra_usd += max(0.0, cost_usd - own_usd)
            waiting = []
    assert extra_usd <= most_usd
    assert budget.status("", NOON).spent_usd == pytest.approx(extra_usd)
    assert extra_usd > 0.9 * most_usd, "what may be spent is spent"
    assert sets[("medium", "large", "small")] and sets[("medium", "small")], "in the end only the cheap are explored"


def test_a_spent_cap_ends_it_until_the_next_day_in_utc() -> None:
    budget = ExplorationBudget()
    assert budget.left_usd("", 1.0, NOON) == 1.0
    budget.reserve("", 0.75, 0.0, NOON).settle(None)
    assert budget.left_usd("", 1.0, NOON) == 0.25, "what is unknown counts as it was thought"
    open_one = budget.reserve("", 0.5, 0.0, NOON)
    assert budget.left_usd("", 1.0, NOON) == 0.0
    assert budget.left_usd("other", 1.0, NOON) == 1.0, "each scenario has a purse of its own"
    assert budget.left_usd("", 1.0, NOON + DAY_S) == 1.0
    open_one.settle(0.1)
    assert budget.left_usd("", 1.0, NOON + DAY_S) == 1.0, "yesterday's is yesterday's"
    assert budget.left_usd("", 1.0, NOON) == 1.0, "a clock that is set back counts as today"
    budget.restore({"": 0.9}, NOON + DAY_S)
    assert budget.left_usd("", 1.0, NOON + DAY_S) == pytest.approx(0.1)


def test_a_spent_cap_makes_the_propensity_one(state: State) -> None:
    decision = decided_by(state).decision
    spent = explorable(decision, RATE, 0.0, lambda name: True)
    assert spent.why_not == "the day's money is spent"
    assert explored(decision, spent, "req_1") is decision
    assert spent.propensity("medium") == 1.0 and spent.propensity("large") == 0.0


def test_who_may_not_answer_is_not_explored(state: State) -> None:
    pool = Pool(state.candidate_of())
    for more, candidates in (
        ({}, ("medium", "large", "small")),
        ({"turnout": {"deny": ["large"]}}, ("medium", "small")),
        ({"turnout": {"max_cost_usd": 0.001}}, ("medium", "small")),
        ({"turnout": {"allow": ["medium"]}}, ("medium",)),
    ):
        decided = decided_by(state, pool, **more)
        seen = explore(decided, state, pool, ExplorationBudget(), asked_of().prompt, None, NOON).exploration
        assert seen is not None and seen.candidates == candidates
        assert (seen.why_not is None) == (len(candidates) > 1)


def test_whose_price_is_unknown_is_not_explored_and_an_unknown_own_price_ends_it(configure, pool_toml) -> None:
    unpriced = pool_toml.replace("input_usd_per_mtok = 10.0\noutput_usd_per_mtok = 40.0\n", "")
    state = build(configure(ROUTING.format(share=0.1, usd=1) + unpriced), is_offline=True)
    assert state.candidates["large"].price is None
    decided = decided_by(state)
    assert explorable(decided.decision, RATE, 1.0, lambda name: True).candidates == ("medium", "small")
    dear = decided_by(state, turnout={"threshold": 0.85})
    assert dear.decision.candidate == "large"
    assert explorable(dear.decision, RATE, 1.0, lambda name: True).why_not is not None


def test_who_cannot_be_called_now_is_not_explored(state: State) -> None:
    pool = Pool(state.candidate_of())
    large = next(name for name, candidate in state.candidate_of().items() if candidate == "large")
    pool.begin(large).finish("overloaded", wait_s=60.0)
    pool.begin(large).finish("overloaded", wait_s=60.0)
    decided = explore(decided_by(state, pool), state, pool, ExplorationBudget(), asked_of().prompt, None, NOON)
    assert decided.decision.explorable == ("medium", "small")


def test_a_certified_promise_is_never_put_at_risk(state: State) -> None:
    decision = decided_by(state).decision
    promised = replace(
        decision, promise="mean quality is at least 0.700, with confidence 95% from 900 labelled prompts"
    )
    assert promised.is_promised
    seen = explorable(promised, RATE, 1.0, lambda name: True)
    assert (seen.candidates, seen.why_not) == (("medium",), "what the policy promises would be void")
    void = replace(decision, promise="not certified here: the pool differs from the certified one in x")
    assert not void.is_promised and not decision.is_promised
    assert len(explorable(void, RATE, 1.0, lambda name: True).candidates) == 3


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CALLED = [
    {"role": "user", "content": "Say hello."},
    {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look"}}]},
    {"role": "tool", "tool_call_id": "c", "content": "seen"},
]
HUMAN = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello."}]
HUMAN = [*HUMAN, {"role": "user", "content": "Again."}]


@pytest.mark.parametrize(
    ("messages", "more", "n_tokens", "why_not"),
    [
        (HUMAN, {}, 100, None),
        (HUMAN, {}, 5000, "a provider has the conversation cached"),
        (HUMAN, {"tools": [TOOL]}, 100, "its tools would bind the requests that follow"),
        (CALLED, {"tools": [TOOL]}, 100, "a turn is pending"),
    ],
)
def test_a_choice_that_would_bind_others_is_the_policys(state: State, messages, more, n_tokens, why_not) -> None:
    conversations, pool = Conversations(), Pool(state.candidate_of())
    first = asked_of(**more)
    turn = turn_in(conversations, state, ANONYMOUS, first, (), b"")
    turn.answered("medium", Usage(input_tokens=n_tokens, output_tokens=1), Price(1.0, 4.0, cache_read_usd_per_mtok=0.1))
    asked = parse_chat({"model": "auto", "messages": messages, **more})
    turn = turn_in(conversations, state, ANONYMOUS, asked, (), b"")
    decided = decide(state, pool, ANONYMOUS, asked, turn=turn)
    decided = explore(decided, state, pool, ExplorationBudget(), asked.prompt, turn, NOON, "req_1")
    assert decided.exploration.why_not == why_not
    assert (decided.decision.propensity == 1.0) == (why_not is not None)


async def test_over_http_the_record_replays_what_was_drawn(start, pool_toml) -> None:
    async with start(ROUTING.format(share=0.9, usd=1000) + pool_toml) as gateway:
        seen: Counter[str] = Counter()
        for _ in range(60):
            said = await gateway.chat()
            record = gateway.records.kept[-1]
            among = tuple(record.explorable.split(","))
            assert among == ("medium", "large", "small")
            own = not record.is_explored
            share = (1 - record.propensity) / (1 - 1 / 3) if own else record.propensity * 3
            assert share == pytest.approx(0.9)
            assert record.candidate == drawn(record.id, share, among) == said.headers["x-turnout-candidate"]
            assert float(said.headers["x-turnout-propensity"]) == pytest.approx(record.propensity, rel=1e-5)
            assert ("x-turnout-explored" in said.headers) == record.is_explored == (record.binding == "explored")
            assert (record.explore_usd is None) == own
            seen[record.candidate] += 1
        assert set(seen) == {"large", "medium", "small"}
        extra_usd = sum(record.explore_usd or 0.0 for record in gateway.records.kept)
        account = gateway.gateway.exploration.status("", record.time_unix_s)
        assert account.spent_usd == pytest.approx(extra_usd) and account.reserved_usd == 0.0
        assert account.n_explored == seen["large"] + seen["small"]


async def test_a_named_candidate_is_never_explored_and_a_scenario_has_a_rate_of_its_own(start, pool_toml) -> None:
    scenario = "[scenarios.bold]\npreset = 'price'\nexplore_share = 1.0\nexplore_max_usd_per_day = 100\n"
    async with start(scenario + pool_toml) as gateway:
        for model in ("medium", "auto"):
            for _ in range(10):
                said = await gateway.chat(model=model)
                assert "x-turnout-propensity" not in said.headers
                assert (gateway.records.kept[-1].propensity, gateway.records.kept[-1].explorable) == (1.0, None)
        answered = {(await gateway.chat(model="scenario:bold")).headers["x-turnout-candidate"] for _ in range(30)}
        assert answered == {"large", "medium", "small"}


async def test_an_explored_candidate_that_fails_is_failed_over_to_the_policys_own(start, pool_toml) -> None:
    async with start(ROUTING.format(share=1.0, usd=1000) + pool_toml) as gateway:
        state = gateway.gateway.ready()
        server = replace(state.settings.server, max_attempts=3)
        gateway.gateway.swap(replace(state, settings=replace(state.settings, server=server)))
        gateway.provider.faults.put("large-at-provider", Fault(status=500))
        while not (gateway.records.kept and gateway.records.kept[-1].attempts):
            assert (await gateway.chat()).status_code == 200
        record = gateway.records.kept[-1]
        assert record.is_explored and record.propensity == pytest.approx(1 / 3)
        assert record.candidate == "medium", "the policy's own choice stands next"
        account = gateway.gateway.exploration.status("", record.time_unix_s)
        assert account.reserved_usd == 0.0


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[routing]\nexplore_share = 0.1\n", "routing.explore_share = 0.1: expected explore_max_usd_per_day"),
        ("[routing]\nexplore_share = 1.5\n", "routing.explore_share = 1.5: expected a number from 0 to 1"),
        ("[scenarios.a]\nexplore_share = 0.1\n", "scenarios.a.explore_share = 0.1: expected explore_max_usd_per_day"),
        (
            "[scenarios.a]\ncandidate = 'large'\nexplore_share = 0.1\nexplore_max_usd_per_day = 1\n",
            "scenarios.a.explore_share = 0.1: nothing is decided",
        ),
        ("[routing]\nexplore_max_usd_per_day = -1\n", "routing.explore_max_usd_per_day = -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(configure, pool_toml, written: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(written + pool_toml)
    assert expected in str(caught.value)


async def test_route_says_what_could_be_drawn_and_draws_nothing(start, pool_toml) -> None:
    async with start(ROUTING.format(share=0.3, usd=5) + pool_toml) as gateway:
        for _ in range(5):
            said = (await gateway.client.post("/v1/route", json={"prompt": "Say hello."})).json()
            assert (said["candidate"], said["is_explored"]) == ("medium", False)
            assert said["propensity"] == pytest.approx(0.8)
            assert said["explorable"] == said["exploration"]["candidates"] == ["medium", "large", "small"]
            assert said["exploration"]["left_usd"] == 5
        named = (await gateway.client.post("/v1/route", json={"prompt": "Hello.", "model": "large"})).json()
        assert (named["propensity"], named["exploration"]) == (1.0, None)


def test_explain_says_it_too(tmp_path: Path, configure, pool_toml) -> None:
    settings = configure(ROUTING.format(share=0.3, usd=5) + pool_toml)
    told = CliRunner().invoke(explain_command, ["Say hello.", "--config", str(settings.source)])
    assert told.exit_code == 0, told.output
    assert "explored in 0.3 of requests: medium 0.8, large 0.1, small 0.1" in " ".join(told.output.split())
    alone = CliRunner().invoke(
        explain_command, ["Say hello.", "--config", str(settings.source), "--model", "auto", "--json"]
    )
    assert json.loads(alone.output)["exploration"]["why_not"] is None


async def test_what_was_spent_today_is_known_after_a_restart(start, pool_toml, tmp_path) -> None:
    file = tmp_path / "kept.sqlite3"
    toml = ROUTING.format(share=1.0, usd=1000) + pool_toml
    async with start(toml, records=SqliteRecordStore(file)) as gateway:
        while gateway.gateway.exploration.status("", time()).spent_usd == 0.0:
            await gateway.chat()
        spent_usd = gateway.gateway.exploration.status("", time()).spent_usd
    async with start(toml, records=SqliteRecordStore(file)) as gateway:
        assert gateway.gateway.exploration.status("", time()).spent_usd == pytest.approx(spent_usd)
    yesterday = SqliteRecordStore(file)
    yesterday.open()
    assert yesterday.flush()
    assert await yesterday.explored_usd(time() + 1) == {}
    yesterday.close()


async def test_nothing_is_explored_while_nobody_knows_what_was_spent(
    start, pool_toml, tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(writer, "PATIENCE_S", 0.1)
    broken = SqliteRecordStore(tmp_path)  # a folder is no database
    with caplog.at_level("INFO", "turnout"):
        async with start(ROUTING.format(share=1.0, usd=1000) + pool_toml, records=broken) as gateway:
            for _ in range(5):
                said = await gateway.chat()
                assert (said.status_code, said.headers["x-turnout-candidate"]) == (200, "medium")
            budget = gateway.gateway.exploration
            assert budget.left_usd("", 1.0, time()) == 0.0
            assert budget.left_usd("", 1.0, time() + DAY_S) == 1.0
    assert "exploring_withheld" in caplog.messages
