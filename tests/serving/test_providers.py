"""Every row of the directory of providers, by the request it makes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving import settings
from serving.commands import providers
from serving.errors import SettingsError
from serving.providers.directory import PROVIDERS, Quirks
from serving.providers.upstream import UpstreamRequest
from serving.state import build

KEY = "key-of-the-operator"
ASKED = {
    "model": "best",
    "messages": [{"role": "user", "name": "ann", "content": "Say hello."}],
    "max_completion_tokens": 9,
    "seed": 1,
    "store": False,
    "logit_bias": {"1": 2},
    "parallel_tool_calls": False,
    "new_field_of_tomorrow": {"a": [1, 2]},
}
SERVER = """
[server]
bundle = "{bundle}"
database = ""
"""
POOL = """
[[providers]]
name = "it"
{}

[[candidates]]
name = "best"
like = "large"
deployments = [{{ provider = "it", model = "org/best-1" }}]
"""
#: Row by row: where the request goes, and in which header the key. Typed from the providers' documentation.
GOLDEN = {
    "openai": ("https://api.openai.com/v1", "authorization"),
    "azure": ("https://acme.openai.azure.com/openai/v1", "api-key"),
    "anthropic": ("https://api.anthropic.com/v1", "authorization"),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "authorization"),
    "vertex": (
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/acme/locations/europe-west4/endpoints/openapi",
        "authorization",
    ),
    "bedrock": ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "authorization"),
    "xai": ("https://api.x.ai/v1", "authorization"),
    "deepseek": ("https://api.deepseek.com", "authorization"),
    "moonshot": ("https://api.moonshot.ai/v1", "authorization"),
    "zai": ("https://api.z.ai/api/paas/v4", "authorization"),
    "qwen": ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "authorization"),
    "minimax": ("https://api.minimax.io/v1", "authorization"),
    "mistral": ("https://api.mistral.ai/v1", "authorization"),
    "groq": ("https://api.groq.com/openai/v1", "authorization"),
    "together": ("https://api.together.ai/v1", "authorization"),
    "fireworks": ("https://api.fireworks.ai/inference/v1", "authorization"),
    "openrouter": ("https://openrouter.ai/api/v1", "authorization"),
    "cerebras": ("https://api.cerebras.ai/v1", "authorization"),
    "cohere": ("https://api.cohere.ai/compatibility/v1", "authorization"),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", "authorization"),
    "nvidia": ("https://integrate.api.nvidia.com/v1", "authorization"),
    "huggingface": ("https://router.huggingface.co/v1", "authorization"),
    "perplexity": ("https://api.perplexity.ai", "authorization"),
    "sambanova": ("https://api.sambanova.ai/v1", "authorization"),
    "xiaomi": ("https://api.xiaomimimo.com/v1", "authorization"),
    "nebius": ("https://api.tokenfactory.nebius.com/v1", "authorization"),
    "novita": ("https://api.novita.ai/openai", "authorization"),
    "siliconflow": ("https://api.siliconflow.com/v1", "authorization"),
    "hyperbolic": ("https://api.hyperbolic.xyz/v1", "authorization"),
    "baseten": ("https://inference.baseten.co/v1", "authorization"),
    "volcengine": ("https://ark.cn-beijing.volces.com/api/v3", "authorization"),
    "stepfun": ("https://api.stepfun.com/v1", "authorization"),
    "meta": ("https://api.meta.ai/v1", "authorization"),
    "cloudflare": ("https://api.cloudflare.com/client/v4/accounts/acme/ai/v1", "authorization"),
    "databricks": ("https://acme.example/ai-gateway/mlflow/v1", "authorization"),
    "vercel": ("https://ai-gateway.vercel.sh/v1", "authorization"),
    "vllm": ("http://localhost:8000/v1", None),
    "ollama": ("http://localhost:11434/v1", None),
    "llamacpp": ("http://localhost:8080/v1", None),
    "lmstudio": ("http://localhost:1234/v1", None),
}
#: What a row takes out of ASKED, and what it adds under other names.
CHANGED = {
    "mistral": ({"logit_bias", "store", "seed", "max_completion_tokens"}, {"random_seed": 1, "max_tokens": 9}),
    "groq": ({"logit_bias"}, {"messages": [{"role": "user", "content": "Say hello."}]}),
    "cerebras": ({"logit_bias", "parallel_tool_calls"}, {}),
}
LOST = {
    "mistral": "logit_bias, store",
    "groq": "logit_bias, messages[].name",
    "cerebras": "logit_bias, parallel_tool_calls",
}


class Recorder:
    """An upstream that keeps the request and answers the least there is."""

    def __init__(self) -> None:
        self.sent: list[UpstreamRequest] = []
        self.status = 200
        self.headers = {"content-type": "application/json"}

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: UpstreamRequest):
        self.sent.append(request)
        return self

    async def read(self) -> bytes:
        return b'{"choices": []}'


def written(tmp_path: Path, bundle: Path, lines: str) -> settings.Settings:
    file = tmp_path / "turnout.toml"
    file.write_text(SERVER.format(bundle=bundle) + POOL.format(lines), "utf-8")
    return settings.load(file)


def test_every_row_has_a_golden_request() -> None:
    assert list(GOLDEN) == list(PROVIDERS)
    assert len(PROVIDERS) >= 30


@pytest.mark.parametrize("name", GOLDEN)
async def test_a_row_makes_its_golden_request(name: str, start, monkeypatch) -> None:
    row, (root, header) = PROVIDERS[name], GOLDEN[name]
    if row.key_env:
        monkeypatch.setenv(row.key_env, KEY)
    own = f'base_url = "{root}"' if row.placeholders else ""
    upstream = Recorder()
    async with start(POOL.format(f'kind = "{name}"\n{own}'), server=SERVER, upstream=upstream) as gateway:
        response = await gateway.client.post("/v1/chat/completions", json=ASKED)
    assert response.status_code == 200, response.text
    (sent,) = upstream.sent
    assert sent.url == f"{root}/chat/completions"
    told = {key: value for key, value in sent.headers.items() if KEY in value}
    assert told == ({} if header is None else {header: f"Bearer {KEY}" if header == "authorization" else KEY})
    gone, added = CHANGED.get(name, (set(), {}))
    expected = {k: v for k, v in ASKED.items() if k not in gone} | {"model": "org/best-1"} | added
    assert json.loads(sent.body) == expected
    assert response.headers.get("x-turnout-lost") == LOST.get(name)


@pytest.mark.parametrize("name", [name for name, row in PROVIDERS.items() if row.placeholders])
def test_what_only_the_operator_knows_is_asked_for(name: str, tmp_path, tiny_bundle) -> None:
    with pytest.raises(SettingsError, match=r"providers\.0\.base_url: missing; .* of the form https://"):
        written(tmp_path, tiny_bundle, f'kind = "{name}"')


def test_an_unknown_kind_names_the_nearest(tmp_path, tiny_bundle) -> None:
    with pytest.raises(SettingsError, match=r"kind = 'mistrall': expected .* the nearest is 'mistral'"):
        written(tmp_path, tiny_bundle, 'kind = "mistrall"')


def test_a_proxy_that_only_bears_the_name_has_no_quirks_and_no_key(tmp_path, tiny_bundle) -> None:
    text = written(tmp_path, tiny_bundle, 'base_url = "http://127.0.0.1:9/v1"').source.read_text("utf-8")
    (tmp_path / "turnout.toml").write_text(text.replace('"it"', '"mistral"'), "utf-8")
    (deployment,) = build(settings.load(tmp_path / "turnout.toml")).deployments.values()
    assert deployment.quirks == Quirks() and "authorization" not in deployment.headers


def test_the_usual_variable_of_a_key_is_named_where_it_is_not_set(tmp_path, tiny_bundle, monkeypatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="GROQ_API_KEY is not set"):
        build(written(tmp_path, tiny_bundle, 'kind = "groq"'))


def test_a_stream_asks_no_usage_of_who_refuses_the_question(tmp_path, tiny_bundle, monkeypatch) -> None:
    body: dict[str, object] = {"stream_options": {"include_usage": True}, "stream": True}
    assert PROVIDERS["mistral"].quirks.apply(body) == ("stream_options",)
    assert body == {"stream": True}


def test_rows_are_plausible() -> None:
    for row in PROVIDERS.values():
        assert re.fullmatch(r"[a-z]+", row.name)
        assert not row.chat.endswith("/") and not row.messages.endswith(("/", "/v1"))
        assert row.chat.startswith("https://" if row.key_env else "http://localhost:")
        assert "chat" in row.dialects


def test_they_are_listed() -> None:
    plain, markdown = (CliRunner().invoke(providers, options) for options in ([], ["--markdown"]))
    for name, row in PROVIDERS.items():
        assert re.search(rf"^{name} .*{re.escape(row.chat)}$", plain.output, re.MULTILINE)
        assert f"| `{name}` | {row.title} |" in markdown.output
