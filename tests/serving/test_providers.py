"""Every row of the directory of providers, by the requests it makes.

What every row makes of every API stands in ``golden_providers.json``, so that a changed row shows as a difference.
After a change that is meant: ``.venv/bin/python tests/serving/test_providers.py`` writes it anew. What anchors it is
:data:`TYPED`, written by hand from the providers' documentation.
"""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving import settings
from serving.commands import providers
from serving.dialects.losses import Losses
from serving.errors import SettingsError
from serving.provider_settings import ProviderSettings
from serving.providers.chat_quirks import fit
from serving.providers.directory import PROVIDERS
from serving.providers.provider import APIS, placeholders_of
from serving.providers.quirks import NO_QUIRKS, Quirks
from serving.state import build

GOLDEN = Path(__file__).with_name("golden_providers.json")
KEY = "K"
MODEL = "org/best-1"
FILLED = {"resource": "acme", "location": "europe-west4", "project": "acme", "region": "eu-west-1"}
FILLED |= {"account": "acme", "host": "acme.example"}
#: A client's own request of Chat, and one as the gateway writes it.
ASKED = {
    "model": MODEL,
    "messages": [
        {"role": "user", "name": "ann", "content": "Say hello."},
        {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "strict": True}}],
    "max_completion_tokens": 9,
    "temperature": 0.5,
    "presence_penalty": 1,
    "seed": 1,
    "store": False,
    "logit_bias": {"1": 2},
    "parallel_tool_calls": False,
    "reasoning_effort": "medium",
    "new_field_of_tomorrow": {"a": [1, 2]},
}
WRITTEN = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say hello."}],
    "max_completion_tokens": 9,
    "reasoning_effort": "medium",
    "seed": 1,
}
#: By hand, from the documentation: row, API, where whole answers are asked for, the header of the key.
TYPED = [
    ("openai", "chat", "https://api.openai.com/v1/chat/completions", {"authorization": "Bearer K"}),
    ("openai", "responses", "https://api.openai.com/v1/responses", {"authorization": "Bearer K"}),
    ("azure", "responses", "https://acme.openai.azure.com/openai/v1/responses", {"api-key": "K"}),
    ("azure", "messages", "https://acme.services.ai.azure.com/anthropic/v1/messages", {"x-api-key": "K"}),
    ("anthropic", "messages", "https://api.anthropic.com/v1/messages", {"x-api-key": "K"}),
    (
        "gemini",
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/models/org%2Fbest-1:generateContent",
        {"x-goog-api-key": "K"},
    ),
    (
        "vertex",
        "gemini",
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west4/publishers/google"
        "/models/org%2Fbest-1:generateContent",
        {"authorization": "Bearer K"},
    ),
    (
        "bedrock",
        "messages",
        "https://bedrock-mantle.eu-west-1.api.aws/anthropic/v1/messages",
        {"authorization": "Bearer K"},
    ),
    ("deepseek", "chat", "https://api.deepseek.com/chat/completions", {"authorization": "Bearer K"}),
    ("deepseek", "messages", "https://api.deepseek.com/anthropic/v1/messages", {"x-api-key": "K"}),
    ("qwen", "messages", "https://dashscope-intl.aliyuncs.com/apps/anthropic/v1/messages", {"x-api-key": "K"}),
    ("openrouter", "messages", "https://openrouter.ai/api/v1/messages", {"authorization": "Bearer K"}),
    ("fireworks", "messages", "https://api.fireworks.ai/inference/v1/messages", {"authorization": "Bearer K"}),
    ("ollama", "messages", "http://localhost:11434/v1/messages", {}),
]
#: By hand: what becomes of "at most 9 tokens, medium effort, seed 1" in a request that the gateway writes.
TYPED_WRITTEN = {
    "openai": {"max_completion_tokens": 9, "reasoning_effort": "medium", "seed": 1},
    "together": {"max_tokens": 9, "reasoning_effort": "medium", "seed": 1},
    "mistral": {"max_tokens": 9, "reasoning_effort": "high", "random_seed": 1},
    "deepseek": {"max_tokens": 9, "thinking": {"type": "enabled"}, "reasoning_effort": "medium", "seed": 1},
    "moonshot": {"max_completion_tokens": 9, "thinking": {"type": "enabled"}, "reasoning_effort": "high", "seed": 1},
    "qwen": {"max_tokens": 9, "enable_thinking": True, "seed": 1},
}


def config_of_every_row() -> str:
    """One provider per row and API, all behind one candidate."""
    tables, ways = ['[server]\ndatabase = ""\n'], []
    for name, row in PROVIDERS.items():
        for api, root in row.roots.items():
            own = f"base_url = {root.format(**FILLED)!r}" if placeholders_of(root) else ""
            tables.append(f'[[providers]]\nname = "{name}-{api}"\nkind = "{name}"\napis = ["{api}"]\n{own}\n')
            ways.append(f'{{ provider = "{name}-{api}", model = "{MODEL}" }}')
    return "\n".join([*tables, f'[[candidates]]\nname = "best"\ndeployments = [{", ".join(ways)}]\n'])


def changes(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    return {
        "gone": sorted(before.keys() - after.keys()),
        "new": {name: value for name, value in after.items() if before.get(name) != value},
    }


def golden(folder: Path) -> dict[str, dict[str, object]]:
    """What every row makes of every API; the variables of the keys are set."""
    file = folder / "turnout.toml"
    file.write_text(config_of_every_row(), "utf-8")
    made: dict[str, dict[str, object]] = {name: {} for name in PROVIDERS}
    for deployment in build(settings.load(file)).deployments.values():
        name, _, api = deployment.provider.partition("-")
        (line,) = deployment.lines.values()
        headers = {key: value for key, value in line.headers.items() if key != "content-type"}
        made[name][api] = {"url": line.url, "stream_url": line.stream_url, "headers": headers}
        if api == "chat":
            asked, written, losses = copy.deepcopy(ASKED), copy.deepcopy(WRITTEN), Losses()
            lost = deployment.quirks.apply(asked)
            fit(deployment.quirks, written, losses)
            made[name]["passed on"] = {"lost": list(lost), **changes(ASKED, asked)}
            made[name]["written"] = {"lost": [loss.field for loss in losses], **changes(WRITTEN, written)}
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        for row in PROVIDERS.values():
            if row.key_env:
                patch.setenv(row.key_env, KEY)
        return golden(tmp_path_factory.mktemp("providers"))


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_row_makes_its_golden_requests(name: str, made) -> None:
    assert made[name] == json.loads(GOLDEN.read_text("utf-8"))[name]


def test_there_is_no_golden_request_without_a_row() -> None:
    assert list(json.loads(GOLDEN.read_text("utf-8"))) == list(PROVIDERS)
    assert len(PROVIDERS) >= 40


@pytest.mark.parametrize(("name", "api", "url", "headers"), TYPED)
def test_a_request_is_as_documented(name: str, api: str, url: str, headers: dict[str, str], made) -> None:
    assert (made[name][api]["url"], made[name][api]["headers"]) == (url, headers)


@pytest.mark.parametrize("name", TYPED_WRITTEN)
def test_limit_thinking_and_seed_are_said_in_the_providers_words(name: str) -> None:
    body = copy.deepcopy(WRITTEN)
    fit(PROVIDERS[name].quirks, body, Losses())
    assert {key: value for key, value in body.items() if key not in ("model", "messages")} == TYPED_WRITTEN[name]


def test_no_thought_is_said_to_whoever_switches_it() -> None:
    for name, expected in {"deepseek": {"thinking": {"type": "disabled"}}, "qwen": {"enable_thinking": False}}.items():
        body: dict[str, object] = {"reasoning_effort": "none"}
        fit(PROVIDERS[name].quirks, body, Losses())
        assert body == expected


def table(**keys: object) -> ProviderSettings:
    return ProviderSettings("it", **keys)  # type: ignore[arg-type]


def roots(way_by_api) -> dict[str, str]:
    return {api: way.root for api, way in way_by_api.items()}


def test_only_what_a_provider_serves_well_is_used_unless_another_api_is_named() -> None:
    assert list(PROVIDERS["anthropic"].ways()) == ["messages"]
    assert list(PROVIDERS["gemini"].ways()) == ["gemini"]
    assert roots(PROVIDERS["anthropic"].ways(apis=("chat",))) == {"chat": "https://api.anthropic.com/v1"}
    assert list(PROVIDERS["deepseek"].ways(apis=("messages", "chat"))) == ["messages", "chat"]


def test_a_root_that_is_not_filled_in_is_no_way() -> None:
    assert PROVIDERS["azure"].ways() == {}


def test_at_another_url_a_known_provider_has_what_shares_a_root() -> None:
    at = "http://10.0.0.7:9/v1"
    assert roots(table(kind="vllm", base_url=at).ways()) == {"chat": at, "responses": at, "messages": at[:-3]}
    assert roots(table(kind="deepseek", base_url=at).ways()) == {"chat": at, "responses": at}
    assert roots(table(kind="anthropic", base_url=at).ways()) == {"messages": at[:-3]}
    assert roots(table(kind="deepseek", base_url=at, apis=("messages",)).ways()) == {"messages": at[:-3]}


def test_at_an_unknown_url_there_is_chat_unless_something_else_is_named() -> None:
    at = "https://llm.example/v1"
    (way,) = table(base_url=at).ways().values()
    assert (way.dialect, way.root, way.credential("K")) == ("chat", at, {"authorization": "Bearer K"})
    ways = table(base_url=at, apis=("gemini", "messages")).ways()
    assert roots(ways) == {"gemini": at, "messages": "https://llm.example"}
    assert [way.credential("K") for way in ways.values()] == [{"x-goog-api-key": "K"}, {"x-api-key": "K"}]


def test_an_emulated_provider_speaks_all_apis_or_those_named() -> None:
    at = "http://127.0.0.1:81/v1"
    expected = {"chat": at, "responses": at, "messages": at[:-3], "gemini": "http://127.0.0.1:81/v1beta"}
    assert roots(table(emulated=True).ways(at)) == expected
    assert list(table(emulated=True).ways(at)) == list(APIS)
    assert roots(table(emulated=True, apis=("gemini",)).ways(at)) == {"gemini": expected["gemini"]}
    assert table(emulated=True).ways() == {}


def loaded(folder: Path, lines: str, name: str = "it") -> settings.Settings:
    file = folder / "turnout.toml"
    pool = f'[[candidates]]\nname = "best"\ndeployments = [{{ provider = "{name}", model = "best-1" }}]\n'
    file.write_text(f'[server]\ndatabase = ""\n[[providers]]\nname = "{name}"\n{lines}\n{pool}', "utf-8")
    return settings.load(file)


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.placeholders])
def test_what_only_the_operator_knows_is_asked_for(name: str, tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"providers\.0\.base_url: missing; .* of the form https://"):
        loaded(tmp_path, f'kind = "{name}"')


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('kind = "mistrall"', r"kind = 'mistrall': expected .* the nearest is 'mistral'"),
        ('kind = "azure"', r'azure\.com/openai/v1 or https://\S+/anthropic with apis = \["messages"\] \(beside'),
        (
            'kind = "azure"\napis = ["messages"]',
            r"of the form https://\{resource\}\.services\.ai\.azure\.com/anthropic",
        ),
        ('kind = "azure"\nbase_url = "https://{resource}.openai.azure.com/openai/v1"', r"in the place of \{resource\}"),
        (
            'kind = "groq"\napis = ["gemini"]',
            r"providers\.0\.apis: Groq is not known to serve gemini; expected of chat",
        ),
        ('kind = "groq"\napis = ["telepathy"]', r"providers\.0\.apis = \['telepathy'\]: expected a list of \"chat\""),
        ('kind = "groq"\napis = ["chat", "chat"]', r"providers\.0\.apis .* each once at most"),
        ('kind = "groq"\napis = []', r"providers\.0\.apis = \[\]"),
        ('kind = "groq"\napis = "chat"', r"providers\.0\.apis = 'chat'"),
        ('kind = "groq"\napis = [["chat"]]', r"providers\.0\.apis = \[\['chat'\]\]"),
        ("", r"providers\.0\.base_url: missing; only an emulated provider"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_the_name_of_the_key(lines: str, said: str, tmp_path) -> None:
    with pytest.raises(SettingsError, match=said):
        loaded(tmp_path, lines)


def test_a_proxy_that_only_bears_the_name_has_no_quirks_and_no_key(tmp_path) -> None:
    (deployment,) = build(loaded(tmp_path, 'base_url = "http://127.0.0.1:9/v1"', "mistral")).deployments.values()
    assert deployment.quirks == Quirks() and "authorization" not in deployment.lines["chat"].headers


def test_the_usual_variable_of_a_key_is_named_where_it_is_not_set(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="GROQ_API_KEY is not set"):
        build(loaded(tmp_path, 'kind = "groq"'))


def test_what_is_withheld_leaves_the_clients_own_values_alone() -> None:
    quirks = Quirks(withheld_of_messages=frozenset({"name"}), withheld_of_tools=frozenset({"strict"}))
    body = copy.deepcopy(ASKED)
    assert quirks.apply(body) == ("messages[].name", "tools[].function.strict")
    assert body["messages"][0] == {"role": "user", "content": "Say hello."}
    assert body["tools"] == [{"type": "function", "function": {"name": "f"}}]
    odd = {"messages": ["hello", {"name": 1}], "tools": [{"type": "custom"}, {"function": 3}, None]}
    messages, tools = odd["messages"], odd["tools"]
    assert quirks.apply(odd) == ("messages[].name",)
    assert odd == {"messages": ["hello", {}], "tools": tools} and messages == ["hello", {"name": 1}]
    assert NO_QUIRKS.apply(body) == ()


def test_rows_are_plausible() -> None:
    for row in PROVIDERS.values():
        assert re.fullmatch(r"[a-z]+", row.name)
        assert row.dialects and set(row.unfaithful) <= set(row.roots)
        assert row.quirks.limit_field in ("max_tokens", "max_completion_tokens")
        for root in row.roots.values():
            assert root.startswith("https://" if row.key_env else "http://localhost:") and not root.endswith("/")
        assert not row.messages.endswith("/v1")


def test_they_are_listed_with_their_apis() -> None:
    plain, markdown = (CliRunner().invoke(providers, options) for options in ([], ["--markdown"]))
    for name, row in PROVIDERS.items():
        root = re.escape(row.roots[row.dialects[0]])
        assert re.search(rf"^{name} .*{' '.join(row.dialects)} .*{root}$", plain.output, re.MULTILINE)
        assert f"| `{name}` | {row.title} |" in markdown.output
    assert re.search(r"^anthropic .* messages \[chat\] ", plain.output, re.MULTILINE)


if __name__ == "__main__":
    os.environ.update({row.key_env: KEY for row in PROVIDERS.values() if row.key_env})
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(json.dumps(golden(Path(scratch)), indent=1) + "\n", "utf-8")
    sys.stdout.write(f"wrote {GOLDEN}\n")
