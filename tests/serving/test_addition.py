"""`turnout models` and `turnout add`: from the catalogue into a config that serves."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from serving.addition import find
from serving.commands import add, models
from serving.errors import SettingsError
from serving.providers.catalogue import entries
from serving.providers.directory import PROVIDERS
from serving.settings import load


def run(command, *arguments: str):
    return CliRunner().invoke(command, arguments)


def test_well_over_two_hundred_models_are_listed_with_prices() -> None:
    lines = [json.loads(line) for line in run(models, "--json").output.splitlines()]
    assert len(lines) > 1_000
    assert all(line["input_usd_per_mtok"] >= 0 and line["output_usd_per_mtok"] >= 0 for line in lines)
    ours = {line["provider"] for line in lines} & set(PROVIDERS)
    assert {"openai", "anthropic", "gemini", "xai", "moonshot", "bedrock", "mistral", "groq"} <= ours


def test_a_search_finds_by_part_of_the_name_and_by_provider() -> None:
    found = run(models, "--search", "GPT-4o-mini", "--provider", "openai").output.splitlines()
    assert " ".join(found[0].split()) == "provider model input cached written output context known besides"
    assert ["openai", "gpt-4o-mini", "0.15", "0.075", "–", "0.6", "128000"] in [line.split()[:7] for line in found]
    assert all(line.startswith("openai") and "gpt-4o-mini" in line for line in found[1:])
    assert "no model of which the name holds" in run(models, "--search", "no-such-thing").output
    assert "turnout providers" in run(models, "--provider", "opena").output


def test_a_model_is_added_to_a_new_file_then_another_to_the_same(tmp_path) -> None:
    config = tmp_path / "turnout.toml"
    first = run(add, "gpt-4o-mini", "--provider", "openai", "--like", "large", "--config", str(config))
    assert first.exit_code == 0 and "OPENAI_API_KEY" in first.output
    config.write_text("# mine\n" + config.read_text("utf-8"), "utf-8")
    config.chmod(0o600)
    assert run(add, "o3", "--provider", "openai", "--name", "thinker", "--config", str(config)).exit_code == 0
    read = load(config)
    assert [provider.name for provider in read.providers] == ["openai"]
    assert [(c.name, c.like, c.deployments[0].model) for c in read.candidates] == [
        ("gpt-4o-mini", "large", "gpt-4o-mini"),
        ("thinker", None, "o3"),
    ]
    assert config.read_text("utf-8").startswith("# mine\n")
    assert config.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [config]


def test_nothing_is_written_where_the_file_would_be_wrong(tmp_path) -> None:
    config = tmp_path / "turnout.toml"
    run(add, "gpt-4o-mini", "--provider", "openai", "--config", str(config))
    before = config.read_bytes()
    again = run(add, "gpt-4o-mini", "--provider", "openai", "--config", str(config))
    assert again.exit_code == 1
    assert f"{config} cannot be used" in again.output and "expected a name not used before" in again.output
    assert config.read_bytes() == before and list(tmp_path.iterdir()) == [config]


def test_a_provider_that_needs_an_address_is_told_so_and_takes_one(tmp_path) -> None:
    config = tmp_path / "turnout.toml"
    model = find_any("azure")
    refused = run(add, model, "--provider", "azure", "--config", str(config))
    assert "https://{resource}.openai.azure.com/openai/v1" in refused.output and not config.exists()
    url = "https://acme.openai.azure.com/openai/v1"
    assert run(add, model, "--provider", "azure", "--base-url", url, "--config", str(config)).exit_code == 0
    assert load(config).providers[0].known() is PROVIDERS["azure"]
    assert load(config).providers[0].url() == url


def test_what_the_catalogue_knows_besides_prices_is_told_and_what_it_does_not_know_is_said() -> None:
    (line,) = run(models, "--search", "claude-sonnet-4-5", "--provider", "anthropic").output.splitlines()[1:]
    assert line.endswith("  dearer above 200,000 tokens; paid apart: web searches")
    told = json.loads(run(models, "--search", "claude-sonnet-4-5", "--provider", "anthropic", "--json").output)
    assert told["cache_write_1h_usd_per_mtok"] == 6.0 and told["tiers"][0]["price"]["output_usd_per_mtok"] == 22.5
    assert "does not know whether an LLM takes tools" in " ".join(run(models, "--help").output.split())


@pytest.mark.parametrize(
    ("model", "provider", "api"),
    [("claude-sonnet-4-5", "anthropic", "messages"), ("gemini-2.5-flash", "gemini", "gemini")],
)
def test_a_model_is_added_by_the_api_its_provider_serves_best(model: str, provider: str, api: str, tmp_path) -> None:
    config = tmp_path / "turnout.toml"
    added = run(add, model, "--provider", provider, "--config", str(config))
    assert added.exit_code == 0 and PROVIDERS[provider].key_env in added.output
    (table,) = load(config).providers
    assert list(table.ways()) == [api]


def test_an_api_is_written_where_it_is_named(tmp_path) -> None:
    config, url = tmp_path / "turnout.toml", "https://acme.services.ai.azure.com/anthropic"
    asked = (find_any("azure"), "--provider", "azure", "--config", str(config))
    refused = run(add, *asked, "--base-url", url, "--api", "telepathy")
    assert "providers.0.apis" in refused.output and not config.exists()
    assert run(add, *asked, "--base-url", url, "--api", "messages").exit_code == 0
    (way,) = load(config).providers[0].ways().values()
    assert (way.dialect, way.root, way.key_header) == ("messages", url, "x-api-key")


def find_any(provider: str) -> str:
    lines = [json.loads(line) for line in run(models, "--json", "--provider", provider).output.splitlines()]
    return lines[0]["model"]


def test_who_serves_it_must_be_clear() -> None:
    assert find("gpt-4o-mini", "openai")[0].name == "openai"
    served = Counter(
        entry.model
        for entry in entries()
        for row in PROVIDERS.values()
        if entry.provider == (row.catalogue or row.name)
    )
    shared = served.most_common(1)[0][0]
    with pytest.raises(SettingsError, match=r"is served by \w+, \w+.*: name one with --provider"):
        find(shared, None)
    with pytest.raises(SettingsError, match=r"`turnout models --search` finds names; .*claude-3-haiku"):
        find("claude-3-haik", "anthropic")
    with pytest.raises(SettingsError, match="`turnout providers` lists"):
        find("gpt-4o-mini", "opena")


def test_every_row_of_the_catalogue_that_a_provider_names_exists() -> None:
    known = {entry.provider for entry in entries()}
    assert {row.catalogue for row in PROVIDERS.values() if row.catalogue} <= known
