from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from router.domain import Capabilities, Policy, Price
from serving import settings
from serving.errors import KeysRequired, SettingsError

GOOD = """
[server]
port = 9000
bundle = "bundles/mine"

[routing.presets.frugal]
kind = "threshold"
value = 0.6

[[providers]]
name = "local"
base_url = "http://127.0.0.1:1234/v1/"

[[candidates]]
name = "big"
like = "gpt-4o-2024-05-13"
vision = true
context_window_tokens = 1000
input_usd_per_mtok = 5
output_usd_per_mtok = 15.0
parameters = { reasoning_effort = "low" }
deployments = [{ provider = "local", model = "big-2026" }]

[[keys]]
name = "alice"
sha256 = "SHA"
models = ["gpt-*", "big"]
""".replace("SHA", "ab" * 32)


def load(tmp_path: Path, text: str, **overrides: object) -> settings.Settings:
    file = tmp_path / "turnout.toml"
    file.write_text(text, "utf-8")
    return settings.load(file, **overrides)  # type: ignore[arg-type]


def test_a_good_file_becomes_one_frozen_object(tmp_path: Path) -> None:
    read = load(tmp_path, GOOD)
    assert read.server.port == 9000
    assert read.server.host == "127.0.0.1"
    assert read.bundle_directory() == tmp_path / "bundles/mine"
    assert read.database_path() == tmp_path / "turnout.sqlite"
    assert read.policies() == {"frugal": Policy("threshold", 0.6, "frugal")}
    assert read.providers[0].base_url == "http://127.0.0.1:1234/v1"
    big = read.candidates[0]
    assert big.price() == Price(5.0, 15.0)
    assert big.capabilities() == Capabilities(vision=True, context_window_tokens=1000)
    assert dict(big.parameters) == {"reasoning_effort": "low"}
    assert read.keys[0].models == ("gpt-*", "big")
    with pytest.raises(FrozenInstanceError):
        read.server.port = 1  # type: ignore[misc]


def test_arguments_stand_in_the_place_of_the_file(tmp_path: Path) -> None:
    read = load(tmp_path, GOOD, host="0.0.0.0", port=0)
    assert (read.server.host, read.server.port) == ("0.0.0.0", 0)


def test_the_demo_config_loads_with_the_six_candidates_of_mix() -> None:
    demo = settings.load(None)
    assert [candidate.name for candidate in demo.candidates] == [
        "gpt-4o-2024-05-13",
        "gemini-1.5-pro",
        "llama-3.1-70b-instruct",
        "gemini-1.5-flash",
        "llama-3.1-8b-instruct",
        "phi-3-mini",
    ]
    assert all(provider.emulated for provider in demo.providers)
    assert demo.candidates[0].price() == Price(5.0, 15.0)
    assert settings.credentials(demo) == {}
    assert demo.database_path() == Path.cwd() / "turnout.sqlite"


#: What is done to GOOD, and the whole line it must give.
WRONG = [
    (
        'base_url = "http://127.0.0.1:1234/v1/"',
        'base_uri = "http://x/v1"',
        "providers.0.base_uri: unknown key; the nearest known one is 'base_url'",
    ),
    ("[server]", "[sever]", "sever: unknown key; the nearest known one is 'server'"),
    ("port = 9000", "port = 70000", "server.port = 70000: expected a whole number from 0 to 65535"),
    ("port = 9000", "port = true", "server.port = True: expected a whole number from 0 to 65535"),
    ("port = 9000", "idle_timeout_s = 0", "server.idle_timeout_s = 0: expected a number above 0"),
    ("port = 9000", "idle_timeout_s = nan", "server.idle_timeout_s = nan: expected a number above 0"),
    ("vision = true", 'vision = "yes"', "candidates.0.vision = 'yes': expected true or false"),
    (
        'provider = "local", model',
        'provider = "lokal", model',
        "candidates.0.deployments.0.provider = 'lokal': expected the name of a provider (local)",
    ),
    (
        'deployments = [{ provider = "local", model = "big-2026" }]',
        "deployments = []",
        "candidates.0.deployments = []: expected at least one {provider, model}",
    ),
    (
        'deployments = [{ provider = "local", model = "big-2026" }]',
        "",
        "candidates.0.deployments: missing; Ways to reach it; at least one.",
    ),
    (
        'model = "big-2026" }',
        'model = "" }',
        "candidates.0.deployments.0.model = '': expected a non-empty string",
    ),
    (
        'name = "big"',
        'name = "auto:big"',
        "candidates.0.name = 'auto:big': expected a name other than auto, auto:… and scenario:…",
    ),
    (
        "output_usd_per_mtok = 15.0",
        "",
        "candidates.0: input_usd_per_mtok and output_usd_per_mtok are given together or not at all",
    ),
    (
        "input_usd_per_mtok = 5",
        "input_usd_per_mtok = -1",
        "candidates.0.input_usd_per_mtok = -1: expected a number of at least 0",
    ),
    (
        'reasoning_effort = "low"',
        'model = "x"',
        "candidates.0.parameters = {'model': 'x'}: expected request fields other than model, messages, "
        "stream and turnout",
    ),
    (
        'kind = "threshold"',
        'kind = "treshold"',
        "routing.presets.frugal: policy kind 'treshold' is unknown; expected one of threshold, "
        "willingness_to_pay_usd, quality_per_usd, latency, fall_below_usd",
    ),
    (
        "value = 0.6",
        "value = 1.5",
        "routing.presets.frugal: threshold must be a number of at least 0 and at most 1, got 1.5",
    ),
    (
        'base_url = "http://127.0.0.1:1234/v1/"',
        "",
        "providers.0.base_url: missing; only an emulated provider and those that `turnout providers` lists need none",
    ),
    (
        'base_url = "http://127.0.0.1:1234/v1/"',
        'base_url = "http://x/v1"\nemulated = true',
        "providers.0: an emulated provider takes neither base_url nor api_key_env nor kind",
    ),
    (
        'models = ["gpt-*", "big"]',
        'models = "auto"',
        "keys.0.models = 'auto': expected a list of candidate names or globs, such as [\"gpt-*\"]",
    ),
]


@pytest.mark.parametrize(("old", "new", "line"), WRONG, ids=[line.split(" ")[0] for _, _, line in WRONG])
def test_every_problem_names_key_value_and_expectation(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in GOOD
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    places, problems = zip(*(told.strip().split(": ", 1) for told in str(caught.value).splitlines()[1:]), strict=True)
    assert line in problems
    assert re.fullmatch(r"line \d+", places[problems.index(line)])


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD.replace("port = 9000", "prot = 1").replace("vision = true", "vision = 1"))
    assert "server.prot" in str(caught.value)
    assert "candidates.0.vision" in str(caught.value)


@pytest.mark.parametrize("table", ["providers", "candidates", "keys"])
def test_a_name_used_twice_is_refused(tmp_path: Path, table: str) -> None:
    blocks = GOOD.split("\n\n")
    twice = next(block for block in blocks if f"[[{table}]]" in block)
    with pytest.raises(SettingsError, match=rf"{table}\.1\.name = '\w+': expected a name not used before"):
        load(tmp_path, f"{GOOD}\n{twice}")


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-canary-1234"',
        'secret = "sk-canary-1234"',
        'api_key_env = "sk-canary-1234"',
        'base_url = "http://user:sk-canary-1234@host/v1"',
    ],
)
def test_a_literal_secret_is_refused_and_never_repeated(tmp_path: Path, line: str) -> None:
    base = GOOD.replace('base_url = "http://127.0.0.1:1234/v1/"', line)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, base)
    assert "canary" not in str(caught.value)
    assert "environment variable" in str(caught.value) or "without user" in str(caught.value)


def test_a_client_key_in_the_place_of_its_hash_is_refused_and_never_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="turnout key new") as caught:
        load(tmp_path, GOOD.replace("ab" * 32, "canary"))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_beyond_loopback_it_refuses_without_keys(tmp_path: Path, host: str) -> None:
    keyless = GOOD.split("[[keys]]")[0]
    with pytest.raises(KeysRequired, match="turnout key new"):
        load(tmp_path, keyless, host=host)
    assert load(tmp_path, GOOD, host=host).server.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_no_key_is_needed(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, GOOD.split("[[keys]]")[0], host=host).keys == ()


def test_a_missing_environment_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = load(tmp_path, GOOD.replace("[[candidates]]", 'api_key_env = "LOCAL_API_KEY"\n\n[[candidates]]'))
    monkeypatch.delenv("LOCAL_API_KEY", raising=False)
    with pytest.raises(SettingsError, match=r"providers\.0\.api_key_env: the environment variable LOCAL_API_KEY"):
        settings.credentials(read)
    monkeypatch.setenv("LOCAL_API_KEY", "sk-1")
    assert settings.credentials(read) == {"local": "sk-1"}
    assert "sk-1" not in repr(read)


@pytest.mark.parametrize("text", ["[server", "\xff"])
def test_an_unreadable_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "turnout.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"turnout\.toml"):
        settings.load(file)
    with pytest.raises(SettingsError, match=r"absent\.toml"):
        settings.load(tmp_path / "absent.toml")


def test_the_reference_lists_every_key_with_default_and_help() -> None:
    rows = {row.key: row for row in settings.reference()}
    assert rows["server.port"].default == "8080"
    assert rows["server.idle_timeout_s"].unit == "s"
    assert rows["providers[].name"].default is None
    assert rows["candidates[].deployments[].model"].help
    assert rows["routing.presets.NAME.kind"].help
    assert rows["keys[].models"].default == '["*"]'
    assert all(row.help.endswith(".") for row in rows.values())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('"big" = "auto"', "aliases.'big' = 'auto': this name means something already"),
        ('"auto:x" = "big"', "this name means something already"),
        ('"claude-*" = "absent"', "expected auto, auto:PRESET, scenario:NAME or the name of a candidate"),
        ('"claude-*" = 7', "a table of names"),
    ],
)
def test_an_alias_means_something_that_is_there(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, GOOD + f"\n[aliases]\n{line}\n")
    assert told in str(refused.value)
    assert load(tmp_path, GOOD + '\n[aliases]\n"claude-*" = "big"\n').aliases == {"claude-*": "big"}


@pytest.mark.parametrize("stand_in", ['["big"]', '["absent"]', '"big"'])
def test_a_stand_in_is_another_candidate(tmp_path: Path, stand_in: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, GOOD.replace("vision = true", f"vision = true\nfailover = {stand_in}"))
    assert "candidates.0.failover" in str(refused.value)
