"""Scenarios: named pools, policies and limits, on every client API; regions and data policies through failover."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from serving import dials
from serving.emulated_faults import Fault
from serving.errors import InvalidRequest, SettingsError
from serving.settings import load

SECRET = "sk-turnout-alice-0000000000000000"
KEY = f'[[keys]]\nname = "alice"\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\n'
AUTH = {"authorization": f"Bearer {SECRET}"}
SCENARIOS = """
[scenarios.cheap]
preset = "price"
description = "What nobody looks at."

[scenarios.good]
candidates = ["large", "medium"]
threshold = 0.85

[scenarios.worth]
willingness_to_pay_usd = 1000

[scenarios.fixed]
candidate = "small"

[scenarios.narrow]
candidates = ["small", "medium"]
max_cost_usd = 0.002

[aliases]
"claude-*" = "scenario:good"
"""
ASKED = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Say hello."}]}),
    "responses": ("/v1/responses", {"input": "Say hello."}),
    "messages": ("/v1/messages", {"max_tokens": 99, "messages": [{"role": "user", "content": "Say hello."}]}),
    "completions": ("/v1/completions", {"prompt": "Say hello."}),
}


async def ask(gateway, api: str = "chat", model: str = "auto", headers: dict[str, str] | None = None, **body: object):
    path, asked = ASKED[api]
    return await gateway.client.post(path, json={"model": model, **asked, **body}, headers=headers)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("api", ASKED)
async def test_a_scenario_is_a_model_name_on_every_api(start, pool_toml, api, is_stream) -> None:
    async with start(SCENARIOS + pool_toml) as gateway:
        for model, candidate, scenario in (
            ("auto", "medium", None),
            ("scenario:cheap", "small", "cheap"),
            ("scenario:good", "large", "good"),
            ("claude-anything", "large", "good"),
            ("scenario:worth", "large", "worth"),
            ("scenario:fixed", "small", "fixed"),
            ("scenario:narrow", "medium", "narrow"),
        ):
            said = await ask(gateway, api, model, stream=is_stream)
            assert said.status_code == 200
            assert said.headers["x-turnout-candidate"] == candidate, model
            assert said.headers.get("x-turnout-scenario") == scenario
            record = gateway.records.kept[-1]
            assert (record.scenario, record.rule, record.candidate) == (scenario, None, candidate)
        assert gateway.records.kept[-1].requested_model == "scenario:narrow"


async def test_the_callers_dials_go_before_the_policy_and_only_tighten_the_limits(start, pool_toml) -> None:
    async with start(SCENARIOS + pool_toml) as gateway:
        dialled = await ask(gateway, model="scenario:cheap", headers={"x-turnout-threshold": "0.85"})
        assert dialled.headers["x-turnout-candidate"] == "large"
        pooled = await ask(gateway, model="scenario:narrow", turnout={"threshold": 0.85})
        assert pooled.headers["x-turnout-candidate"] == "medium", "the pool holds whatever the policy"
        looser = await ask(gateway, model="scenario:narrow", turnout={"max_cost_usd": 1, "threshold": 0.85})
        assert looser.headers["x-turnout-candidate"] == "medium"
        tighter = await ask(gateway, model="scenario:narrow", turnout={"max_cost_usd": 0.0005})
        assert tighter.headers["x-turnout-candidate"] == "small"
        refused = await ask(gateway, model="scenario:fixed", turnout={"deny": ["small"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_eligible_candidate")
        freed = await ask(gateway, model="scenario:fixed", turnout={"threshold": 0.85})
        assert freed.headers["x-turnout-candidate"] == "large", "a policy of the caller's stands for the designation"


async def test_keys_hold_in_scenarios_and_models_lists_them(start, pool_toml) -> None:
    async with start(SCENARIOS + pool_toml + KEY + 'models = ["small", "medium"]\n') as gateway:
        good = await ask(gateway, model="scenario:good", headers=AUTH)
        assert good.headers["x-turnout-candidate"] == "medium"
        listed = (await gateway.client.get("/v1/models", headers=AUTH)).json()["data"]
        by_id = {row["id"]: row for row in listed}
        assert by_id["scenario:good"]["policy"]["value"] == 0.85
        assert by_id["scenario:cheap"]["policy"]["name"] == "price"
        assert by_id["scenario:fixed"]["policy"] is None
        one = await gateway.client.get("/v1/models/scenario:good", headers={**AUTH, "anthropic-version": "2023-06-01"})
        assert one.json()["id"] == "scenario:good"
        absent = await ask(gateway, model="scenario:absent", headers=AUTH)
        assert absent.status_code == 404


REGIONS = """
[server]
port = 0
bundle = "{bundle}"
database = ""
max_attempts = 9
watch_bundle_s = {watch_bundle_s}
{settings}

[[providers]]
name = "europe"
emulated = true
region = "eu"
data_policies = ["zdr", "no_training"]

[[providers]]
name = "america"
emulated = true
region = "us"
data_policies = ["no_training"]

[[providers]]
name = "unknown"
emulated = true
"""


def placed(name: str, usd: float, *ways: str, more: str = "") -> str:
    deployments = ", ".join(f'{{ provider = "{way}", model = "{name}-{way}" }}' for way in ways)
    return (
        f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = {usd}\noutput_usd_per_mtok = {4 * usd}\n'
        f"deployments = [{deployments}]\n{more}\n"
    )


PLACED = (
    placed("large", 10.0, "unknown", "europe", "america", more='failover = ["medium", "small"]')
    + placed("medium", 1.0, "america", "europe")
    + placed("small", 0.1, "unknown", "america")
)
IN_EUROPE = {"large-europe", "medium-europe"}


@pytest.mark.parametrize("model", ["auto", "large"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_failover_never_leaves_what_is_demanded(start, model, is_stream) -> None:
    async with start(PLACED, server=REGIONS) as gateway:
        for name in IN_EUROPE:
            gateway.provider.faults.put(name, Fault(status=500))
        for demand in ({"regions": ["eu"]}, {"data_policies": ["zdr"]}, {"regions": ["eu", "mars"]}) * 3:
            said = await ask(gateway, model=model, stream=is_stream, turnout=demand)
            assert said.status_code >= 500, "whoever could answer may not"
        assert set(gateway.provider.seen) <= IN_EUROPE
        assert set(gateway.provider.seen) == IN_EUROPE
        anywhere = await ask(gateway, model=model, stream=is_stream)
        assert anywhere.status_code == 200


async def test_the_first_choice_conforms_and_the_header_says_what_was_demanded(start) -> None:
    async with start(PLACED, server=REGIONS) as gateway:
        for _ in range(8):
            said = await ask(
                gateway, headers={"x-turnout-regions": "eu", "x-turnout-data-policies": "no_training, zdr"}
            )
            assert said.headers["x-turnout-candidate"] == "medium"
            assert said.headers["x-turnout-data-policy"] == "regions=eu; data_policies=no_training,zdr"
        assert set(gateway.provider.seen) == {"medium-europe"}
        assert "x-turnout-data-policy" not in (await ask(gateway)).headers
        route = {"prompt": "Say hello.", "turnout": {"data_policies": ["zdr"]}}
        explained = (await gateway.client.post("/v1/route", json=route)).json()
        excluded = {row["candidate"]: row["excluded_by"] for row in explained["forecasts"]}
        assert excluded == {"large": None, "medium": None, "small": "data_policy"}
        assert explained["demand"] == "data_policies=zdr"


@pytest.mark.parametrize("model", ["auto", "small", "large"])
async def test_a_demand_that_nobody_is_known_to_meet_is_refused(start, model) -> None:
    async with start(PLACED, server=REGIONS) as gateway:
        said = await ask(gateway, model=model, turnout={"regions": ["mars"]})
        assert (said.status_code, said.json()["error"]["code"]) == (400, "no_eligible_candidate")
        assert "region" in said.json()["error"]["message"]
        assert not gateway.provider.seen


async def test_a_key_and_a_scenario_demand_too_and_a_request_cannot_loosen(start) -> None:
    scenario = '[scenarios.private]\ndata_policies = ["zdr"]\n'
    async with start(PLACED + scenario + KEY + 'regions = ["eu", "us"]\n', server=REGIONS) as gateway:
        private = await ask(gateway, model="scenario:private", headers=AUTH, turnout={"data_policies": []})
        assert private.headers["x-turnout-data-policy"] == "regions=eu,us; data_policies=zdr"
        none = await ask(gateway, headers=AUTH, turnout={"regions": ["mars"]})
        assert none.status_code == 400
        for _ in range(12):
            await ask(gateway, model="small", headers=AUTH)
        assert "small-unknown" not in gateway.provider.seen


async def test_embeddings_and_counting_meet_the_demands_of_a_key(start) -> None:
    embeds = placed("vectors", 1.0, "unknown", more="embeddings = true")
    async with start(PLACED + embeds + KEY + 'regions = ["eu"]\n', server=REGIONS) as gateway:
        body = {"model": "vectors", "input": "hello"}
        refused = await gateway.client.post("/v1/embeddings", json=body, headers=AUTH)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_eligible_candidate")
        counted = await gateway.client.post(
            "/v1/messages/count_tokens", json={"model": "small", **ASKED["messages"][1]}, headers=AUTH
        )
        assert counted.headers["x-turnout-estimated"] == "true", "small's providers may not see it"
        assert not gateway.provider.seen


async def test_a_key_may_ask_for_its_own_priority_at_most(start, pool_toml) -> None:
    preset = '[routing.presets.fast]\nkind = "latency"\nvalue = 0.5\n'
    async with start(preset + pool_toml + KEY) as gateway:
        for word, status in (("high", 400), ("normal", 200), ("batch", 200), ("urgent", 400)):
            said = await ask(gateway, headers={**AUTH, "x-turnout-priority": word})
            assert said.status_code == status, word
        # Who is in no hurry gets the cheapest that is good enough, not the fastest.
        for priority, policy in (("normal", "latency=0.5; preset=fast"), ("batch", "threshold=0.5; preset=fast")):
            said = await ask(gateway, model="auto:fast", headers=AUTH, turnout={"priority": priority})
            assert said.headers["x-turnout-policy"] == policy
    async with start(pool_toml + KEY + 'priority = "high"\n') as gateway:
        assert (await ask(gateway, headers={**AUTH, "x-turnout-priority": "high"})).status_code == 200
    async with start(pool_toml) as gateway:
        assert (await ask(gateway, headers={"x-turnout-priority": "high"})).status_code == 200, "one's own machine"


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("api", ASKED)
async def test_an_explanation_in_a_header(start, pool_toml, api, is_stream) -> None:
    async with start(SCENARIOS + pool_toml) as gateway:
        said = await ask(gateway, api, "scenario:good", {"x-turnout-explain": "true"}, stream=is_stream)
        raw = said.headers["x-turnout-explanation"]
        assert raw.isascii() and len(raw) <= 2048
        told = json.loads(raw)
        assert (told["scenario"], told["rule"], told["binding"]) == ("good", None, "threshold")
        assert [row["candidate"] for row in told["ranking"]] == ["large", "medium"]
        assert told["ranking"][0]["quality"] == pytest.approx(0.9)
        assert told["ranking"][0]["cost_usd"] > told["ranking"][1]["cost_usd"] > 0
        assert "x-turnout-explanation" not in (await ask(gateway, api, "scenario:good")).headers
        assert "turnout" not in json.dumps(said.text)


async def test_an_explanation_fits_into_a_header(start) -> None:
    long = "".join(placed(f"{i}{'n' * 120}", 1.0, "europe", more='like = "large"') for i in range(9))
    reason = f'[routing.presets.{"p" * 120}]\nkind = "willingness_to_pay_usd"\nvalue = 1\n'
    async with start(reason + long, server=REGIONS) as gateway:
        said = await ask(gateway, turnout={"explain": True, "preset": "p" * 120})
        raw = said.headers["x-turnout-explanation"]
        assert len(raw) <= 2048 and raw.isascii() and "\\u00b7" in raw
        assert len(json.loads(raw)["ranking"]) == 5


def test_dials_come_by_header_as_by_body() -> None:
    by_header = dials.read(
        None,
        [
            (b"x-turnout-max-latency-s", b"2.5"),
            (b"x-turnout-allow", b"a*, b"),
            (b"x-turnout-deny", b"c"),
            (b"x-turnout-regions", b"eu,us"),
            (b"x-turnout-data-policies", b"zdr"),
            (b"x-turnout-priority", b"batch"),
            (b"x-turnout-explain", b"True"),
        ],
    )
    by_body = dials.read(
        {
            "max_latency_s": 2.5,
            "allow": ["a*", "b"],
            "deny": ["c"],
            "regions": ["us", "eu"],
            "data_policies": ["zdr"],
            "priority": "batch",
            "explain": True,
        }
    )
    assert by_header == by_body
    assert by_body.constraints.max_latency_s == 2.5


@pytest.mark.parametrize(
    "asked",
    [
        {"regions": "eu"},
        {"regions": ["EU"]},
        {"data_policies": [1]},
        {"priority": "urgent"},
        {"explain": "yes"},
        {"max_latency_s": -1},
    ],
)
def test_a_dial_that_cannot_be_names_itself(asked) -> None:
    with pytest.raises(InvalidRequest) as caught:
        dials.read(asked)
    assert caught.value.param == f"turnout.{next(iter(asked))}"
    assert "EU" not in caught.value.message


BASE = """[[providers]]
name = "local"
base_url = "http://127.0.0.1:1/v1"
region = "eu"

[[candidates]]
name = "big"
deployments = [{ provider = "local", model = "b" }]

[[candidates]]
name = "little"
deployments = [{ provider = "local", model = "l", region = "us" }]

"""
AT = BASE.count("\n") + 1


@pytest.mark.parametrize(
    ("added", "line", "told"),
    [
        ('[scenarios.x]\ncandidates = ["nobody-*"]', 1, "scenarios.x.candidates: 'nobody-*' matches no candidate"),
        (
            '[scenarios.x]\ncandidate = "nobody"',
            1,
            "scenarios.x.candidate = 'nobody': expected a candidate that answers",
        ),
        ('[scenarios.x]\ncandidates = ["big"]\ncandidate = "little"', 2, "expected one of its own candidates"),
        ('[scenarios.x]\npreset = "price"\nthreshold = 0.5', 2, "scenarios.x.threshold: preset and threshold exclude"),
        ('[scenarios.x]\nregions = ["mars"]', 0, "scenarios.x: its pool is empty"),
        ('[scenarios.x]\ncandidates = ["little"]\nregions = ["eu"]', 0, "scenarios.x: its pool is empty"),
        ('[scenarios.x]\ndata_policies = ["zdr"]', 0, "scenarios.x: its pool is empty"),
        ('[scenarios.x]\nregions = ["EU"]', 1, "a list of lower-case words"),
        ("[scenarios.x]\nthreshold = 1.5", 1, "at most 1"),
        ("[scenarios.big]", 0, "neither auto nor a candidate's"),
        ("[aliases]\nx = 'scenario:y'", 1, "aliases.'x' = 'scenario:y': expected a scenario (there is none)"),
        ('[[keys]]\nname = "k"\nsha256 = "' + "ab" * 32 + '"\nregions = ["mars"]', 0, "keys.0: no deployment of any"),
        ('[[keys]]\nname = "k"\nsha256 = "' + "ab" * 32 + '"\npriority = "top"', 3, "keys.0.priority = "),
    ],
)
def test_scenarios_are_judged_as_a_whole_with_the_line(tmp_path: Path, added: str, line: int, told: str) -> None:
    file = tmp_path / "turnout.toml"
    file.write_text(BASE + added + "\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(file)
    (problem,) = [row.strip() for row in str(caught.value).splitlines()[1:]]
    assert told in problem
    assert problem.startswith(f"line {AT + line}: ")


def test_lists_of_stand_ins_lead_in_no_circle(tmp_path: Path) -> None:
    names = {"a": ["b"], "b": ["c", "d"], "c": ["a"], "d": [], "e": ["f"], "f": ["e"]}
    text = BASE.split("[[candidates]]")[0] + "".join(
        f'[[candidates]]\nname = "{name}"\nfailover = {json.dumps(to)}\n'
        'deployments = [{ provider = "local", model = "m" }]\n'
        for name, to in names.items()
    )
    file = tmp_path / "turnout.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(file)
    told = str(caught.value).splitlines()[1:]
    assert [row.strip() for row in told] == [
        "line 8: candidates.0.failover: it leads in a circle, a → b → c → a",
        "line 24: candidates.4.failover: it leads in a circle, e → f → e",
    ]
