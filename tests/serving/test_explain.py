"""``turnout explain``: the same decision as the gateway's, from the file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router import Decision, Policy
from serving.deciding import Decided
from serving.explain_command import explain
from serving.explanation import MAX_HEADER_BYTES, headers_of
from serving.question import read_question

CONFIG = """
[server]
bundle = "{bundle}"

[scenarios.private]
regions = ["eu"]

[[rules]]
name = "night"
scenario = "auto:price"
hours = "22:00-06:00"

[[rules]]
name = "pictures"
scenario = "large"
modalities = ["image"]

[[rules]]
name = "tagged"
scenario = "private"
metadata = {{ tier = "gold" }}
apis = ["messages"]

[[rules]]
name = "web"
scenario = "auto:quality"
projects = ["web"]

[[rules]]
name = "tools"
scenario = "large"
has_tools = true

[[providers]]
name = "openai"

[[providers]]
name = "local"
emulated = true
region = "eu"

[[candidates]]
name = "large"
vision = true
input_usd_per_mtok = 10.0
output_usd_per_mtok = 40.0
failover = ["medium"]
deployments = [{{ provider = "openai", model = "gpt-5" }}]

[[candidates]]
name = "medium"
input_usd_per_mtok = 1.0
output_usd_per_mtok = 4.0
deployments = [{{ provider = "local", model = "m" }}]

[[candidates]]
name = "small"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.4
deployments = [{{ provider = "openai", model = "gpt-5-nano" }}]

[[keys]]
name = "alice"
sha256 = "{sha256}"
models = ["small"]
project = "web"
"""
NOON = "2026-11-26T12:00"


@pytest.fixture
def config(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    file = tmp_path / "turnout.toml"
    file.write_text(CONFIG.format(bundle=tiny_bundle, sha256="ab" * 32), "utf-8")
    return file


def run(config: Path, *arguments: str, text: str = "Say hello.", at: str = NOON, given: str | None = None) -> Result:
    prompt = [] if "--body" in arguments else [text]
    return CliRunner().invoke(explain, [*prompt, "--config", str(config), "--at", at, *arguments], input=given)


@pytest.mark.parametrize(
    ("arguments", "at", "rule", "candidate"),
    [
        ((), NOON, None, "medium"),
        ((), "2026-11-26T23:00", "night", "small"),
        ((), "2026-11-26T23:00+08:00", None, "medium"),
        (("--image",), NOON, "pictures", "large"),
        (("--image", "--api", "messages"), NOON, "pictures", "large"),
        (("--image", "--api", "responses"), NOON, "pictures", "large"),
        (("--metadata", "tier=gold"), NOON, None, "medium"),
        (("--metadata", "tier=gold", "--api", "messages"), NOON, "tagged", "medium"),
        (("--project", "web"), NOON, "web", "large"),
        (("--key", "alice"), NOON, "web", "small"),
        (("--tools", "2"), NOON, "tools", "large"),
        (("--tools", "2", "--api", "messages"), NOON, "tools", "large"),
        (("--tools", "2", "--api", "responses"), NOON, "tools", "large"),
        (("--model", "scenario:private"), NOON, None, "medium"),
        (("--model", "small"), "2026-11-26T23:00", None, "small"),
    ],
)
def test_the_same_facts_give_the_same_rule(config, arguments, at, rule, candidate) -> None:
    result = run(config, *arguments, "--json", at=at)
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert (said["rule"], said["candidate"]) == (rule, candidate)
    assert len(said["rules"]) == 5


def test_tables_for_people(config) -> None:
    result = run(config, at="2026-11-26T23:00")
    assert result.exit_code == 0, result.output
    for words in ("night", "matches", "has_tools: expected some, got 0", "by rule night", "small", "bundle tiny@1"):
        assert words in result.output
    named = run(config, "--model", "large")
    assert "after it: medium" in named.output


def test_a_body_and_standard_input(config, tmp_path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"system": "Be brief.", "metadata": {"tier": "gold"}, "max_tokens": 9,
                                "messages": [{"role": "user", "content": "hello"}]}))  # fmt: skip
    said = json.loads(run(config, "--body", str(body), "--json").output)
    assert (said["rule"], said["demand"]) == ("tagged", "regions=eu")
    assert json.loads(run(config, "--json", text="-", given="Say hello.").output)["candidate"] == "medium"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--key", "bob"), "expected the name of a key (alice)"),
        (("--metadata", "x"), "expected NAME=VALUE"),
        (("--model", "nobody"), "no such model"),
        (("--body", "{file}"), "expected a JSON file"),
    ],
)
def test_errors_say_what_was_expected(config, arguments, told) -> None:
    result = run(config, *(word.replace("{file}", str(config)) for word in arguments))
    assert result.exit_code != 0
    assert told in result.output
    assert "Traceback" not in result.output


def test_one_prompt_a_time_that_is_one_and_a_good_file(config) -> None:
    assert "give PROMPT or --body" in CliRunner().invoke(explain, ["--config", str(config)]).output
    assert "expected such as" in run(config, at="noon").output
    config.write_text(config.read_text().replace('scenario = "private"', 'scenario = "pirate"'))
    assert "line 20: rules.2.scenario = 'pirate'" in run(config).output


def test_the_demo_config_needs_nothing() -> None:
    result = CliRunner().invoke(explain, ["What is 17 * 23?"])
    assert result.exit_code == 0, result.output
    assert "chosen" in result.output


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"prompt": "hello"}', "utf-8")
    for arguments, told in (
        (["--image", "--body", str(body)], "--image goes with PROMPT"),
        (["hello", "--api", "completions", "--image"], "neither pictures nor tools"),
        (["hello", "--api", "completions", "--tools", "1"], "neither pictures nor tools"),
    ):
        said = CliRunner().invoke(explain, arguments)
        assert said.exit_code == 2
        assert told in said.output


def test_completions_are_an_api_like_the_others() -> None:
    asked, api = read_question({"api": "completions", "prompt": "hello"})
    assert (api, asked.prompt.text, "messages" in asked.body) == ("completions", "hello", False)
    assert read_question({"prompt": "hello"})[1] == "chat"


def test_an_explanation_fits_its_header_whatever_names_are_in_it() -> None:
    decision = Decision("c", ("c",), Policy("designated", 0.0), "r" * 4_000, "b", 1.0, "bundle@1", task="t" * 4_000)
    for name in ("é" * 4_000, "short"):
        decided = Decided(decision, ("c" * 3_000, "d"), (), "auto", name, name, is_explained=True)
        headers = dict(headers_of(decided))
        assert len(headers[b"x-turnout-explanation"]) <= MAX_HEADER_BYTES
        assert json.loads(headers[b"x-turnout-explanation"])["reason"] == ""
