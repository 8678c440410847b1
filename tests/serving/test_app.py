from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from html import unescape

import httpx
import pytest

from router.errors import BundleMissing
from serving.api_page import page
from serving.app import create_app
from serving.client_api import CHAT_PATH as CHAT
from serving.client_api import CLIENT_APIS
from serving.errors import SettingsError


async def test_ready_is_503_until_the_bundle_is_loaded_and_alive_is_not(configure) -> None:
    app = create_app(configure())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for method, path in (("GET", "/readyz"), ("POST", CHAT), ("GET", "/v1/models")):
            response = await client.request(method, path)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
        assert (await client.get("/healthz")).json()["status"] == "ok"
        async with app.lifespan():
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()) == (200, {"status": "ready", "bundle": "tiny@1"})
        assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("GET", "/v1/route", 405, "method_not_allowed"),
        ("GET", "/absent", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 404, "not_found"),
    ],
)
async def test_wrong_paths_and_methods_get_the_envelope(running, method, path, status, code) -> None:
    response = await running.client.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", [CHAT, "/v1/route"])
async def test_a_body_over_the_cap_is_413_on_every_route(start, pool_toml, path) -> None:
    async with start(pool_toml, settings="max_body_bytes = 1024") as gateway:
        response = await gateway.client.post(path, content=b"x" * 1025)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("header", [{"origin": "https://evil.example"}, {"host": "evil.example"}], ids=str)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", CHAT), ("POST", "/v1/route"), ("GET", "/v1/models"), ("GET", "/v1/pool")]
)
async def test_without_keys_no_web_page_gets_in(running, caplog, method, path, header) -> None:
    # What a page may send without asking first: a simple request, its JSON called plain text.
    simple = {"content-type": "text/plain", **header}
    body = b'{"model":"auto","prompt":"hi","messages":[{"role":"user","content":"hi"}]}'
    with caplog.at_level("INFO", "turnout"):
        response = await running.client.request(method, path, content=body, headers=simple)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "not_local")
    assert "127.0.0.1" in response.json()["error"]["message"]
    assert running.provider.counts()["n_requests"] == 0
    assert (running.records.kept, caplog.messages) == ([], ["refused"])


async def test_the_openapi_page_documents_the_inference_endpoints_too(running) -> None:
    schema = (await running.client.get("/openapi.json")).json()
    control = {"/v1/route", "/v1/models", "/v1/models/{model}", "/v1/pool", "/metrics", "/healthz", "/readyz"}
    control = {
        "/v1/route",
        "/v1/feedback",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/pool",
        "/metrics",
        "/healthz",
        "/readyz",
    }
    control |= {f"/v1/experiments{rest}" for rest in ("", "/{name}", "/{name}/stop", "/{name}/promote")}
    assert {*CLIENT_APIS, "/v1/messages/count_tokens", "/v1/responses/{response}", *control} == set(schema["paths"])
    assert "Dials" in schema["components"]["schemas"]
    assert schema["paths"][CHAT]["post"]["security"] == [{"HTTPBearer": []}]
    assert "HTTPBearer" in schema["components"]["securitySchemes"]


async def test_the_docs_page_lists_every_route_and_names_no_other_host(running) -> None:
    response = await running.client.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    html = response.text
    schema = (await running.client.get("/openapi.json")).json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert f"<b>{method.upper()}</b> <code>{path}</code> {operation['summary']}" in html
    assert 'href="/openapi.json"' in html
    assert "curl http://127.0.0.1/v1/chat/completions" in html
    assert set(re.findall(r"(?:[a-z]+:)?//([^/\s&\"'<]*)", html)) == {"127.0.0.1"}
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|\son[a-z]+=|\ssrc=", html)


def test_the_docs_page_escapes_what_it_shows() -> None:
    example = {"prompt": "it's </pre><script>"}
    route = {
        "summary": "<script>1</script>",
        "description": "a & b",
        "security": [{"HTTPBearer": []}],
        "requestBody": {"content": {"application/json": {"example": example}}},
    }
    html = page({"info": {"title": "<b>"}, "paths": {"/<i>": {"delete": route}}}, "http://x/?a='b;<u>")
    assert "<script" not in html and "<i>" not in html and "<u>" not in html and "<h1>&lt;b&gt; API" in html
    (shell,) = re.findall("<pre>(.*)</pre>", html, re.DOTALL)
    words = shlex.split(unescape(shell).replace("\\\n", ""))
    assert words[:6] == ["curl", "http://x/?a='b;<u>/<i>", "-X", "DELETE", "-H", "authorization: Bearer $TURNOUT_KEY"]
    assert json.loads(words[-1]) == example


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", BundleMissing),
        ('like = "nobody"', SettingsError),
        ('[routing]\ndefault = "nonsense"', SettingsError),
    ],
)
async def test_it_does_not_start_on_what_cannot_be_served(configure, pool_toml, tmp_path, more, expected) -> None:
    if expected is BundleMissing:
        settings = configure(pool_toml, bundle=tmp_path / "absent")
    elif more.startswith("like"):
        settings = configure(pool_toml.replace('name = "large"', f'name = "newcomer"\n{more}'))
    else:
        settings = configure(f"{more}\n{pool_toml}")
    app = create_app(settings)
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: dict[str, str]) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": ""}]
    assert isinstance(app.failure, expected)


async def test_two_versions_in_a_folder_need_a_choice(configure, pool_toml, write_tiny_bundle, tmp_path) -> None:
    write_tiny_bundle(tmp_path / "many" / "1")
    async with create_app(configure(pool_toml, bundle=tmp_path / "many")).lifespan():
        pass
    write_tiny_bundle(tmp_path / "many" / "2", "2")
    with pytest.raises(BundleMissing, match=r"name one of 1, 2 in server\.bundle"):
        async with create_app(configure(pool_toml, bundle=tmp_path / "many")).lifespan():
            pass


async def test_prices_come_from_the_catalogue_where_the_file_has_none(start) -> None:
    pool = """
[[providers]]
name = "mine"
base_url = "https://api.openai.com/v1"

[[providers]]
name = "openai"
base_url = "http://127.0.0.1:9/v1"

[[candidates]]
name = "large"
deployments = [{ provider = "mine", model = "gpt-4o" }]

[[candidates]]
name = "small"
deployments = [{ provider = "openai", model = "gpt-4o" }]

[[candidates]]
name = "medium"
deployments = [{ provider = "openai", model = "nobody-knows-this-one" }]
"""
    async with start(pool) as gateway:
        candidates = gateway.gateway.ready().candidates
        assert candidates["large"].price is not None
        assert candidates["large"].price.output_usd_per_mtok > candidates["large"].price.input_usd_per_mtok > 0
        assert candidates["medium"].price is None
        # Where it is called decides what it costs, not what the file calls it.
        assert candidates["small"].price is None


async def test_http_errors_of_a_real_server_say_nothing_of_the_software(online) -> None:
    response = await online.client.get("/healthz")
    assert "server" not in response.headers


def test_serving_loads_nothing_heavy_and_no_prices_before_they_are_needed() -> None:
    code = (
        "import sys, serving.app, serving.commands; "
        "print(sorted({'genai_prices', 'rich', 'pandas', 'sklearn', 'openai', 'httpx'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
