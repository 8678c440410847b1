"""Rules: which matches first, what stands against one, and which can never match first."""

from __future__ import annotations

import hashlib
import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import Prompt
from router.bundle import Bundle
from router.domain import Shape
from router.foresight import Foresight
from serving.errors import SettingsError
from serving.keys import Principal
from serving.modalities import modalities_of
from serving.rules import Facts, Rule, compiled, first_match, is_within, minutes_of, shadowed, verdicts
from serving.scenario_settings import RuleSettings
from serving.settings import load
from serving.state import build
from serving.tables import read

SECRET = "sk-turnout-alice-0000000000000000"
SHA256 = hashlib.sha256(SECRET.encode()).hexdigest()
AUTH = {"authorization": f"Bearer {SECRET}"}
THURSDAY_23 = datetime(2026, 11, 26, 23, 0, tzinfo=UTC).timestamp()


def rule(**conditions: object) -> Rule:
    """Make a rule as the settings do."""
    problems: list[str] = []
    made = read(RuleSettings, {"name": "it", "scenario": "there", **conditions}, "rules.0", problems)
    assert made is not None and not problems, problems
    assert not made.contradictions()
    return compiled([made])[0]


def facts(
    *,
    key: str = "alice",
    project: str = "",
    team: str = "",
    models: tuple[str, ...] = ("auto",),
    api: str = "chat",
    body: dict[str, Any] | None = None,
    shape: Shape | None = None,
    at: float = THURSDAY_23,
    task: str | None = None,
    probability: float = 0.0,
    language: str | None = None,
) -> Facts:
    return Facts(
        Principal(key, project=project, team=team),
        models,
        api,
        body or {},
        Prompt("hello", shape or Shape(5)),
        at,
        lambda: Foresight({}, task, probability),
        lambda text: language,
    )


IMAGE = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}

#: Condition, what matches, what does not, and the words against it.
CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ({"keys": ["a*"]}, {"key": "alice"}, {"key": "bob"}, "keys: it is for others"),
    ({"projects": ["web"]}, {"project": "web"}, {}, "projects: it is for others"),
    ({"teams": ["web"]}, {"team": "web"}, {"project": "web"}, "teams: it is for others"),
    ({"models": ["gpt-*"]}, {"models": ("gpt-9", "auto")}, {}, "models: expected one of gpt-*, got auto"),
    ({}, {"models": ("gpt-9", "auto")}, {"models": ("gpt-9",)}, "models: expected one of auto, got gpt-9"),
    ({"apis": ["messages"]}, {"api": "messages"}, {}, "apis: expected one of messages, got chat"),
    ({"has_tools": True}, {"shape": Shape(5, n_tools=2)}, {}, "has_tools: expected some, got 0"),
    ({"has_tools": False}, {}, {"shape": Shape(5, n_tools=2)}, "has_tools: expected none, got 2"),
    ({"min_input_tokens": 100}, {"shape": Shape(400)}, {}, "input_tokens: expected at least 100, got 1.25"),
    ({"max_input_tokens": 100}, {}, {"shape": Shape(440)}, "input_tokens: expected at most 100, got 110"),
    (
        {"metadata": {"tier": ["gold", "silv*"], "app": "x"}},
        {"body": {"metadata": {"tier": "silver", "app": "x"}}},
        {"body": {"metadata": {"tier": "gold", "app": 7}}},
        "metadata.app: expected one of x, got nothing",
    ),
    ({"modalities": ["image"]}, {"body": IMAGE}, {}, "modalities: expected one of image, got text"),
    ({"modalities": ["text"]}, {}, {"body": IMAGE}, "modalities: expected one of text, got image"),
    ({"tasks": ["math*"]}, {"task": "math-l5", "probability": 0.4}, {}, "tasks: expected one of math*, got unknown"),
    (
        {"tasks": ["gsm"], "min_task_probability": 0.5},
        {"task": "gsm", "probability": 0.5},
        {"task": "gsm", "probability": 0.4},
        "min_task_probability: expected at least 0.5, got 0.4",
    ),
    ({"languages": ["de"]}, {"language": "de"}, {"language": "fr"}, "languages: expected one of de, got fr"),
    ({"languages": ["de"]}, {"language": "de"}, {}, "languages: expected one of de, got unknown"),
    (
        {"hours": "22:00-06:00"},
        {},
        {"at": THURSDAY_23 + 7 * 3600},
        "hours: it is fri 06:00 UTC, which is outside",
    ),
    ({"days": ["thu"]}, {}, {"at": THURSDAY_23 + 3600}, "days: it is fri 00:00 UTC, which is outside"),
    (
        {"days": ["thu"], "hours": ["08:00-09:00", "22:00-06:00"]},
        {"at": THURSDAY_23 + 6 * 3600},
        {"at": THURSDAY_23 + 24 * 3600},
        "hours and days: it is fri 23:00 UTC, which is outside",
    ),
    (
        {"days": ["fri"], "time_zone": "Europe/Berlin"},
        {},
        {"at": THURSDAY_23 - 61 * 60},
        "days: it is thu 22:59 Europe/Berlin, which is outside",
    ),
]


@pytest.mark.parametrize(("conditions", "matching", "other", "because"), CASES, ids=[c[3].split(":")[0] for c in CASES])
def test_every_condition_holds_or_says_why_not(
    conditions: dict[str, Any], matching: dict[str, Any], other: dict[str, Any], because: str
) -> None:
    (yes,) = verdicts([rule(**conditions)], facts(**matching))
    assert (yes.is_match, yes.because) == (True, None)
    (no,) = verdicts([rule(**conditions)], facts(**other))
    assert (no.is_match, no.because) == (False, because)


def test_the_first_rule_of_which_all_holds_decides() -> None:
    rules = [rule(name="a", keys=["bob"]), rule(name="b", has_tools=False, apis=["chat"]), rule(name="c")]
    chosen = first_match(rules, facts())
    assert chosen is not None and chosen.name == "b"
    assert first_match(rules[:1], facts()) is None


def test_what_no_rule_asks_for_is_never_found_out() -> None:
    def never(*_: object) -> Any:
        raise AssertionError("nobody asked")

    asked = Facts(Principal("alice"), ("auto",), "chat", {}, Prompt("hello", Shape(5)), 0.0, never, never)
    # The dear conditions stand last, whatever the order of the file.
    assert first_match([rule(tasks=["x"], languages=["de"], keys=["bob"]), rule()], asked) is not None
    assert asked.seen is None


def test_a_window_past_midnight_belongs_to_the_day_it_began_on() -> None:
    sunday_night = minutes_of([(22 * 60, 8 * 60)], ["sun"])
    assert sunday_night.bit_count() == 480
    assert sunday_night & 1, "Monday 00:00 is the end of Sunday's night"
    assert not sunday_night >> 6 * 60 & 1
    assert minutes_of(None, None).bit_count() == 7 * 1440
    assert minutes_of([(0, 1440)], ["mon", "tue"]).bit_count() == 2 * 1440


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"messages": [{"content": "text"}]}, ()),
        (IMAGE, ("image",)),
        ({"messages": [{"content": [{"type": "input_audio"}, {"type": "file"}]}]}, ("audio", "file")),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}, {"type": "input_file"}]}]},
            ("file", "image"),
        ),
        ({"messages": [{"content": [{"type": "tool_result", "content": [{"type": "document"}]}]}]}, ("file",)),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]}, ("image",)),
        ({"input": "text", "messages": None}, ()),
        ({"messages": [[], None, {"type": ["image"], "content": 3}]}, ()),
    ],
)
def test_modalities_of_every_api(body: dict[str, Any], found: tuple[str, ...]) -> None:
    assert modalities_of(body) == found


# Few words and few numbers, so that random facts meet random rules.
WORDS = ("a", "ab", "abc", "b", "auto")
GLOBS = ("a", "ab", "a*", "ab*", "*", "?", "a?", "[ab]*", "b", "auto", "*b")
globs = st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2)
CONDITIONS = {
    "keys": globs,
    "projects": globs,
    "models": globs,
    "tasks": globs,
    "metadata": st.dictionaries(st.sampled_from(("x", "y")), globs, min_size=1),
    "apis": st.lists(st.sampled_from(("chat", "messages")), min_size=1, max_size=2),
    "has_tools": st.booleans(),
    "min_input_tokens": st.integers(0, 2),
    "max_input_tokens": st.integers(2, 4),
    "languages": st.lists(st.sampled_from(("de", "fr", "en")), min_size=1, max_size=3),
    "modalities": st.lists(st.sampled_from(("text", "image")), min_size=1, max_size=2),
    "hours": st.sampled_from(("22:00-06:00", "00:00-24:00", "23:00-24:00", "05:00-12:00")),
    "days": st.lists(st.sampled_from(("mon", "thu", "fri", "sun")), min_size=1, max_size=3),
    "time_zone": st.sampled_from(("UTC", "Europe/Berlin")),
}
tables = st.fixed_dictionaries({}, optional=CONDITIONS)
#: Rules that differ in one condition: there a wrong word about what implies what shows soonest.
alike = st.sampled_from(sorted(CONDITIONS)).flatmap(
    lambda key: st.lists(st.fixed_dictionaries({key: CONDITIONS[key]}), min_size=2, max_size=4)
)
some_facts = st.builds(
    facts,
    key=st.sampled_from(WORDS),
    project=st.sampled_from(("", *WORDS)),
    models=st.sampled_from((("auto",), ("a", "auto"), ("ab",), ("b",))),
    api=st.sampled_from(("chat", "messages")),
    body=st.sampled_from(({}, IMAGE, {"metadata": {"x": "a", "y": "ab"}}, {"metadata": {"x": "abc"}})),
    shape=st.builds(Shape, st.integers(0, 20), n_tools=st.integers(0, 1)),
    at=st.integers(0, 7 * 24).map(lambda hours: THURSDAY_23 + 3600 * hours),
    task=st.sampled_from((None, *WORDS)),
    language=st.sampled_from((None, "de", "fr", "en")),
)


def compile_tables(rows: list[dict[str, Any]]) -> tuple[Rule, ...]:
    problems: list[str] = []
    made = [read(RuleSettings, {"name": f"r{i}", "scenario": "x", **row}, "", problems) for i, row in enumerate(rows)]
    assert not problems
    return compiled(row for row in made if row is not None)


@settings(max_examples=400, deadline=None)
@given(st.lists(tables, min_size=2, max_size=3) | alike, st.lists(some_facts, min_size=12, max_size=12))
def test_what_is_called_unreachable_never_matches_first(rows: list[dict[str, Any]], many: list[Facts]) -> None:
    rules = compile_tables(rows)
    unreachable = {rules[later].name for later, _ in shadowed(rules)}
    for one in many:
        chosen = first_match(rules, one)
        assert chosen is None or chosen.name not in unreachable


@settings(max_examples=300, deadline=None)
@given(tables, st.data())
def test_fewer_conditions_before_more_leave_the_later_rule_unreachable(
    row: dict[str, Any], data: st.DataObject
) -> None:
    # A night of Thursday's is not within Thursday, and of two time zones nothing is known.
    row = {key: value for key, value in row.items() if key not in ("days", "time_zone")}
    kept = {key: value for key, value in row.items() if data.draw(st.booleans())}
    if "models" in row:  # absent is ["auto"], not everything
        kept["models"] = row["models"]
    assert shadowed(compile_tables([kept, row])) == [(1, 0)]


@given(st.sampled_from(GLOBS), st.sampled_from(GLOBS), st.text("ab", max_size=4))
def test_a_glob_within_another_matches_nothing_else(inner: str, outer: str, word: str) -> None:
    matches = rule(keys=[inner]).first_failed(facts(key=word)) is None
    if is_within(inner, outer) and matches:
        assert rule(keys=[outer]).first_failed(facts(key=word)) is None


RULES = """
[scenarios.cheap]
preset = "price"

[[rules]]
name = "tools"
scenario = "large"
has_tools = true

[[rules]]
name = "claude"
scenario = "auto:quality"
models = ["claude-*"]

[[rules]]
name = "tagged"
scenario = "cheap"
metadata = { tier = "bulk" }

[[rules]]
name = "unknown-gpt"
scenario = "scenario:cheap"
models = ["gpt-*"]

[aliases]
"claude-*" = "auto"
"""
CHAT = {"messages": [{"role": "user", "content": "Say hello."}]}
BODIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", CHAT, {"type": "function", "function": {"name": "f"}}),
    "responses": ("/v1/responses", {"input": "Say hello."}, {"type": "function", "name": "f"}),
    "messages": ("/v1/messages", {"max_tokens": 9, **CHAT}, {"name": "f", "input_schema": {"type": "object"}}),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("api", BODIES)
async def test_rules_decide_on_every_api(start, pool_toml, api, is_stream) -> None:
    path, body, tool = BODIES[api]
    async with start(RULES + pool_toml) as gateway:
        for asked, candidate, by in (
            ({"model": "auto"}, "medium", None),
            ({"model": "auto", "tools": [tool]}, "large", "tools"),
            ({"model": "claude-x"}, "large", "claude"),
            ({"model": "auto", "metadata": {"tier": "bulk"}}, "small", "tagged"),
            ({"model": "auto", "metadata": {"tier": "bulk"}, "tools": [tool]}, "large", "tools"),
            ({"model": "auto:quality", "metadata": {"tier": "bulk"}}, "large", None),
            ({"model": "medium", "tools": [tool]}, "medium", None),
            ({"model": "gpt-unheard-of"}, "small", "unknown-gpt"),
            ({"model": "auto", "metadata": {"tier": "bulk"}, "turnout": {"threshold": 0.85}}, "large", "tagged"),
            ({"model": "auto", "tools": [tool], "turnout": {"threshold": 0.5}}, "small", "tools"),
        ):
            said = await gateway.client.post(path, json={**body, **asked, "stream": is_stream})
            assert said.status_code == 200, (asked, said.text)
            assert said.headers["x-turnout-candidate"] == candidate, asked
            assert said.headers.get("x-turnout-rule") == by
            assert gateway.records.kept[-1].rule == by
        absent = await gateway.client.post(path, json={**body, "model": "llama-unheard-of"})
        assert absent.status_code == 404
        assert all("unheard" not in str(record) for record in gateway.records.kept), "a stranger's word is not kept"


async def test_rules_read_whose_key_it_is_and_never_lift_its_limits(start, pool_toml) -> None:
    rules = (
        '[[rules]]\nname = "web"\nscenario = "large"\nprojects = ["web-*"]\n'
        '[[rules]]\nname = "rest"\nscenario = "auto:price"\n'
    )
    web = f'[[keys]]\nname = "web"\nsha256 = "{"0" * 64}"\nproject = "web-site"\n'
    key = web + f'[[keys]]\nname = "alice"\nsha256 = "{SHA256}"\n'
    path, body, _ = BODIES["chat"]
    for more, candidate, by in (
        ('project = "web-shop"\n', "large", "web"),
        ('project = "shop"\n', "small", "rest"),
        ('models = ["medium"]\n', "medium", "rest"),
    ):
        async with start(rules + pool_toml + key + more) as gateway:
            said = await gateway.client.post(path, json={"model": "auto", **body}, headers=AUTH)
            assert (said.headers["x-turnout-candidate"], said.headers["x-turnout-rule"]) == (candidate, by)
    async with start(rules + pool_toml + key + 'project = "web-shop"\nmodels = ["medium"]\n') as gateway:
        said = await gateway.client.post(path, json={"model": "auto", **body}, headers=AUTH)
        assert (said.status_code, said.json()["error"]["code"]) == (400, "no_eligible_candidate")
        assert "large" not in said.text, "what a key may not use does not exist for it"


async def test_route_says_of_every_rule_what_stands_against_it(start, pool_toml) -> None:
    async with start(RULES + pool_toml) as gateway:
        for api, (_, body, tool) in BODIES.items():
            asked = {**body, "metadata": {"tier": "bulk"}}
            said = (await gateway.client.post("/v1/route", json=asked)).json()
            assert (said["candidate"], said["scenario"], said["rule"]) == ("small", "cheap", "tagged")
            assert [row["is_match"] for row in said["rules"]] == [False, False, True, False]
            assert said["rules"][0]["because"] == "has_tools: expected some, got 0"
            tooled = (await gateway.client.post("/v1/route", json={**asked, "tools": [tool], "api": api})).json()
            assert (tooled["candidate"], tooled["rule"]) == ("large", "tools")
        named = (await gateway.client.post("/v1/route", json={"prompt": "x", "model": "medium"})).json()
        assert named["rule"] is None
        assert "medium means something else already" in named["rules"][0]["because"]
        wrong = await gateway.client.post("/v1/route", json={"prompt": "x", "api": "soap"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "api")


DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "default"
LIKE = "".join(
    f'[[candidates]]\nname = "{name}"\ndeployments = [{{ provider = "emulator", model = "m" }}]\n'
    for name in ("gpt-4o-2024-05-13", "phi-3-mini")
)


async def test_a_rule_on_tasks_predicts_once_and_costs_nothing_elsewhere(start, monkeypatch) -> None:
    rules = '[[rules]]\nname = "sums"\nscenario = "phi-3-mini"\ntasks = ["gsm"]\nmin_task_probability = 0.3\n'
    seen: list[int] = []
    outputs = Bundle.outputs

    def counted(self: Bundle, texts: Any) -> Any:
        seen.append(len(texts))
        return outputs(self, texts)

    sums = "Natalia sold clips to 48 of her friends in April, and half as many in May. How many clips did she sell?"
    law = "Under the common law, is a contract signed by a minor void or voidable? Choose A, B, C or D."
    for toml, n_predictions in ((rules + LIKE, 1), (LIKE, 1)):
        async with start(toml, bundle=DEFAULT_BUNDLE) as gateway:
            monkeypatch.setattr(Bundle, "outputs", counted)
            for text, by in ((sums, "sums"), (law, None)):
                seen.clear()
                said = await gateway.chat(text)
                assert said.status_code == 200
                assert said.headers.get("x-turnout-rule") == (by if toml.startswith("[[rules]]") else None)
                assert len(seen) == n_predictions
            monkeypatch.setattr(Bundle, "outputs", outputs)


BASE = """[[providers]]
name = "local"
base_url = "http://127.0.0.1:1/v1"

[[candidates]]
name = "big"
deployments = [{ provider = "local", model = "b" }]

[scenarios.s]
threshold = 0.5

[[rules]]
name = "first"
scenario = "s"
keys = ["web-*"]
max_input_tokens = 1000

[[rules]]
name = "second"
"""
AT = BASE.count("\n") - 1


@pytest.mark.parametrize(
    ("added", "line", "told"),
    [
        (
            'scenario = "s"\nkeys = ["web-1"]\nmax_input_tokens = 10',
            0,
            "'second' never decides: whatever it matches, 'fir",
        ),
        ('scenario = "nothing"', 2, "rules.1.scenario = 'nothing': expected a scenario (s), auto:PRESET or the name"),
        ('scenario = "scenario:big"', 2, "rules.1.scenario = 'scenario:big': expected a scenario (s)"),
        ('scenario = "s"\nmodels = ["big"]', 3, "rules.1.models: 'big' means something already"),
        ('scenario = "s"\nmodels = ["auto:price"]', 3, "means something already"),
        ('scenario = "s"\nkeys = []', 3, "a list of at least one name or glob"),
        ('scenario = "s"\nkey = ["x"]', 3, "rules.1.key: unknown key; the nearest known one is 'keys'"),
        ('scenario = "s"\ntime_zone = "Mars/Olympus"\nhours = "22:00-06:00"', 3, "an IANA time zone"),
        ('scenario = "s"\ntime_zone = "Europe/Berlin"', 3, "says nothing without hours or days"),
        ('scenario = "s"\nhours = "22-6"', 3, 'hours such as "22:00-06:00"'),
        ('scenario = "s"\nhours = ["22:00-22:00"]', 3, "begin and end at different times"),
        ('scenario = "s"\ndays = ["monday"]', 3, "at least one of mon, tue"),
        ('scenario = "s"\nmin_task_probability = 0.5', 3, "says nothing without tasks"),
        ('scenario = "s"\nmin_input_tokens = 9\nmax_input_tokens = 3', 4, "expected at least min_input_tokens, 9"),
        ('scenario = "s"\nlanguages = ["german"]', 3, "ISO 639-1"),
        ('scenario = "s"\nmodalities = ["video"]', 3, "at least one of text, image, audio, file"),
        ('scenario = "s"\nmetadata = { x = 3 }', 3, "a list of at least one name or glob"),
        ("", 0, "rules.1.scenario: missing"),
    ],
)
def test_rules_are_judged_at_load_with_the_line(tmp_path: Path, added: str, line: int, told: str) -> None:
    file = tmp_path / "turnout.toml"
    file.write_text(f"{BASE}{added}\n", "utf-8")
    with pytest.raises(SettingsError) as caught:
        load(file)
    (problem,) = [row.strip() for row in str(caught.value).splitlines()[1:]]
    assert told in problem
    assert problem.startswith(f"line {AT + line}: "), problem


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('[[rules]]\nname = "x"\nscenario = "auto:nothing"', "rules.0.scenario = 'auto:nothing': expected a preset of"),
        ('[[rules]]\nname = "x"\nscenario = "auto"\ntasks = ["sums"]', "rules.0.tasks: 'sums' matches no kind of task"),
        ('[scenarios.x]\npreset = "nothing"', "scenarios.x.preset = 'nothing': expected a preset of"),
    ],
)
async def test_what_only_the_bundle_knows_is_judged_with_it(start, pool_toml, table, told) -> None:
    with pytest.raises(SettingsError) as caught:
        async with start(f"{pool_toml}\n{table}\n"):
            pass
    assert told in str(caught.value)
    assert "\n  line " in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("py3langid") is None, reason="py3langid is not installed")
class TestLanguages:
    def test_sentences_have_a_language_and_scraps_have_none(self) -> None:
        from serving.languages import detector, unknown_among

        language_of = detector(["de", "fr"])
        for text, language in (
            ("Schreibe ein Gedicht über den Herbst.", "de"),
            ("Quelle est la capitale de la France ?", "fr"),
            ("Write a Python function that sorts a list.", "en"),
            ("Skriv et digt om efteråret", "da"),
            ("hi", None),
            ("", None),
            ("42 + 17 = ?", None),
            ("\ud800", None),
        ):
            assert language_of(text) == language, text
        assert unknown_among(["de", "xq"]) == ["xq"]

    async def test_a_rule_on_languages(self, start, pool_toml) -> None:
        rules = '[[rules]]\nname = "german"\nscenario = "large"\nlanguages = ["de"]\n'
        async with start(rules + pool_toml) as gateway:
            german = await gateway.chat("Was ist die Hauptstadt von Frankreich?")
            assert german.headers["x-turnout-candidate"] == "large"
            for text in ("What is the capital of France?", "Danke!"):
                assert "x-turnout-rule" not in (await gateway.chat(text)).headers
        with pytest.raises(SettingsError, match=r"line \d+: rules\.0\.languages: 'xq' cannot be told"):
            async with start(rules.replace('"de"', '"xq"') + pool_toml):
                pass


async def test_a_name_that_looks_like_a_scenario_or_a_preset_is_never_something_else(start, pool_toml) -> None:
    scenario = '[scenarios.private]\ncandidates = ["small"]\n'
    by_alias = '[aliases]\n"*" = "auto"\n'
    by_rule = '[[rules]]\nname = "rest"\nmodels = ["*"]\nscenario = "auto:quality"\n'
    for caught in (by_alias, by_rule):
        async with start(caught + scenario + pool_toml) as gateway:
            for model, status in (("scenario:privat", 404), ("auto:prcie", 404), ("gpt-9", 200), ("auto:price", 200)):
                assert (await gateway.chat(model=model)).status_code == status
            assert (await gateway.chat(model="scenario:private")).headers["x-turnout-scenario"] == "private"


async def test_count_tokens_takes_the_names_that_rules_catch(start, pool_toml) -> None:
    rules = """
[[rules]]
name = "claude"
models = ["claude-*"]
scenario = "small"
"""
    async with start(rules + pool_toml) as gateway:
        for model, status in (("claude-x", 200), ("auto", 200), ("gpt-9", 404), ("scenario:x", 404)):
            asked = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            counted = await gateway.client.post("/v1/messages/count_tokens", json=asked)
            assert counted.status_code == status
            assert (await gateway.client.post("/v1/messages", json=asked)).status_code == status


async def test_route_tells_a_restricted_key_nothing_of_other_candidates(start, pool_toml) -> None:
    rules = """
[[rules]]
name = "r1"
scenario = "large"
metadata = { a = "b-secret-*" }

[[rules]]
name = "r2"
scenario = "auto:price"
models = ["lar*"]
"""
    for models, is_told in (('["small"]', False), ('["*"]', True)):
        key = f'[[keys]]\nname = "alice"\nsha256 = "{SHA256}"\nmodels = {models}\n'
        async with start(key + rules + pool_toml) as gateway:
            for model in ("auto", "auto:price"):
                asked = {"prompt": "hello", "model": model}
                told = (await gateway.client.post("/v1/route", json=asked, headers=AUTH)).text
                assert ("large" in told) is is_told
                assert ("b-secret" in told or model != "auto") is (is_told or model != "auto")
                assert ("lar*" in told or model != "auto") is (is_told or model != "auto")


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ('[[keys]]\nname = "bob"\nsha256 = "{same}"\n', "keys.1.sha256"),
        ('[[keys]]\nname = "bob"\nsha256 = "{other}"\nmodels = ["gtp-*"]\n', "keys.1.models"),
        ('[[rules]]\nname = "r"\nscenario = "auto:price"\nkeys = ["alcie"]\n', "rules.0.keys"),
        ('[[rules]]\nname = "r"\nscenario = "auto:price"\nprojects = ["x"]\n', "rules.0.projects"),
        ('[[rules]]\nname = "r"\nscenario = "auto:price"\nteams = ["x"]\n', "rules.0.teams"),
        (
            '[[keys]]\nname = "bob"\nsha256 = "{other}"\nteam = "x"\n'
            '[[rules]]\nname = "r"\nscenario = "auto:price"\nkeys = ["alice"]\nteams = ["x"]\n',
            "keys and teams match none of",
        ),
        ('[scenarios."a b"]\nthreshold = 0.5\n', "a name of letters"),
        ('[routing.presets."é"]\nkind = "threshold"\nvalue = 0.5\n', "a name of letters"),
    ],
)
def test_keys_and_names_are_judged_as_a_whole(configure, pool_toml, added: str, told: str) -> None:
    key = f'[[keys]]\nname = "alice"\nsha256 = "{SHA256}"\n'
    with pytest.raises(SettingsError) as caught:
        configure(key + added.format(same=SHA256, other="0" * 64) + pool_toml)
    assert told in str(caught.value)
    assert SHA256 not in str(caught.value)


def test_a_pool_of_which_nothing_is_predicted_is_refused(configure, pool_toml) -> None:
    stranger = '[[candidates]]\nname = "new"\n{like}deployments = [{{ provider = "emulator", model = "n" }}]\n'
    scenario = '[scenarios.s]\ncandidates = ["new"]\n{policy}\n'

    def made(policy: str = "threshold = 0.5", like: str = "") -> None:
        build(configure(scenario.format(policy=policy) + stranger.format(like=like) + pool_toml), is_offline=True)

    with pytest.raises(SettingsError, match=r"scenarios\.s: its pool is empty"):
        made()
    made(like='like = "small"\n')
    made(policy='candidate = "new"')
