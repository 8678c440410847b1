"""What clients find besides answers: counting, models, embeddings, loss reports, headers, refusals."""

from __future__ import annotations

import base64
import struct

import httpx
import orjson
import pytest

from serving.emulated_faults import Fault

HELLO = [{"role": "user", "content": "Say hello."}]
EMBEDDER = """
[[candidates]]
name = "embed-small"
embeddings = true
input_usd_per_mtok = 0.02
output_usd_per_mtok = 0.0
deployments = [{ provider = "emulator", model = "embed-small-there" }]
"""


def server_of(*apis: str, more: str = "") -> str:
    listed = ", ".join(f'"{api}"' for api in apis)
    return (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        f'{more}\n[[providers]]\nname = "emulator"\nemulated = true\napis = [{listed}]\n'
    )


async def test_the_legacy_api_answers_with_text(running) -> None:
    asked = {"model": "auto", "prompt": "What is 17 * 23?"}
    whole = (await running.client.post("/v1/completions", json=asked)).json()
    assert whole["object"] == "text_completion"
    assert whole["choices"][0]["text"].endswith("= 391")
    assert whole["usage"]["prompt_tokens"] == 4
    streamed = await running.client.post("/v1/completions", json={**asked, "stream": True})
    chunks = [orjson.loads(line[6:]) for line in streamed.text.split("\n") if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert streamed.text.endswith("data: [DONE]\n\n")
    refused = await running.client.post("/v1/completions", json={**asked, "suffix": "end"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "suffix")
    several = await running.client.post("/v1/completions", json={**asked, "prompt": ["a", "b"]})
    assert (several.status_code, several.json()["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize("api", ["chat", "gemini"])
async def test_text_is_embedded(start, pool_toml, api: str) -> None:
    async with start(pool_toml + EMBEDDER, server=server_of(api)) as gateway:
        asked = {"model": "embed-small", "input": ["one", "two"], "dimensions": 8}
        floats = (await gateway.client.post("/v1/embeddings", json=asked)).json()
        assert [row["index"] for row in floats["data"]] == [0, 1]
        assert len(floats["data"][0]["embedding"]) == 8
        packed = (await gateway.client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"})).json()
        first = struct.unpack("<8f", base64.b64decode(packed["data"][0]["embedding"]))
        assert first == pytest.approx(floats["data"][0]["embedding"], abs=1e-6)
        record = gateway.records.kept[0]
        assert (record.candidate, record.outcome, record.api) == ("embed-small", "ok", "chat")
        if api == "chat":
            assert record.cost_usd == pytest.approx(record.input_tokens * 0.02 / 1e6)
        else:
            assert record.input_tokens is None and record.cost_usd is None  # Gemini does not count here


async def test_what_embeds_never_answers_and_what_answers_never_embeds(start, pool_toml) -> None:
    async with start(pool_toml + EMBEDDER) as gateway:
        post = gateway.client.post
        wrong = await post("/v1/embeddings", json={"model": "large", "input": "x"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (404, "model")
        assert (await post("/v1/embeddings", json={"model": "auto", "input": "x"})).status_code == 404
        answer = await post("/v1/chat/completions", json={"model": "embed-small", "messages": HELLO})
        assert answer.status_code == 404
        for n in range(5):
            chosen = await post("/v1/chat/completions", json={"model": "auto:price", "messages": HELLO, "seed": n})
            assert chosen.headers["x-turnout-candidate"] != "embed-small"
        assert "embed-small" in {row["id"] for row in (await gateway.client.get("/v1/models")).json()["data"]}


async def test_tokens_cannot_be_embedded_where_only_text_can(start, pool_toml) -> None:
    async with start(pool_toml + EMBEDDER, server=server_of("gemini")) as gateway:
        refused = await gateway.client.post("/v1/embeddings", json={"model": "embed-small", "input": [1, 2]})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")


async def test_tokens_are_counted_by_the_provider_or_estimated_and_marked(start, pool_toml) -> None:
    asked = {"model": "large", "messages": [{"role": "user", "content": "x" * 400}], "system": "y" * 400}
    async with start(pool_toml, server=server_of("messages")) as gateway:
        counted = await gateway.client.post("/v1/messages/count_tokens", json=asked)
        assert counted.status_code == 200 and counted.json()["input_tokens"] > 0
        assert "x-turnout-estimated" not in counted.headers
        gateway.provider.faults.put("*", Fault(status=500))
        failing = await gateway.client.post("/v1/messages/count_tokens", json=asked)
        assert failing.headers["x-turnout-estimated"] == "true"
    async with start(pool_toml, server=server_of("chat")) as gateway:
        for model in ("auto", "large"):
            estimate = await gateway.client.post("/v1/messages/count_tokens", json={**asked, "model": model})
            assert estimate.headers["x-turnout-estimated"] == "true"
            assert 200 <= estimate.json()["input_tokens"] <= 220
        absent = await gateway.client.post("/v1/messages/count_tokens", json={**asked, "model": "absent"})
        assert (absent.status_code, absent.json()["type"]) == (404, "error")


async def test_models_are_listed_in_both_shapes(running) -> None:
    version = {"anthropic-version": "2023-06-01"}
    ours = (await running.client.get("/v1/models")).json()
    theirs = (await running.client.get("/v1/models?limit=1000", headers=version)).json()
    assert ours["object"] == "list" and ours["data"][0]["object"] == "model"
    assert [row["id"] for row in ours["data"]] == [row["id"] for row in theirs["data"]]
    assert theirs["data"][0]["type"] == "model" and theirs["data"][0]["created_at"].endswith("Z")
    assert theirs["has_more"] is False and theirs["first_id"] == theirs["data"][0]["id"]
    page = (await running.client.get("/v1/models?limit=2&after_id=auto", headers=version)).json()
    assert page["has_more"] and [row["id"] for row in page["data"]] == [row["id"] for row in theirs["data"]][1:3]
    before = (await running.client.get(f"/v1/models?limit=1&before_id={page['last_id']}", headers=version)).json()
    assert [row["id"] for row in before["data"]] == [page["data"][0]["id"]]
    one = (await running.client.get("/v1/models/large", headers=version)).json()
    assert (one["id"], one["type"]) == ("large", "model")
    assert (await running.client.get("/v1/models?limit=0", headers=version)).status_code == 400
    assert (await running.client.get("/v1/models?after_id=absent", headers=version)).status_code == 400


async def test_losses_are_told_recorded_silenced_or_refused(start, pool_toml) -> None:
    asked = {"model": "large", "messages": HELLO, "logit_bias": {"1": 2}, "metadata": {"a": "b"}}
    async with start(pool_toml, server=server_of("messages")) as gateway:
        post = gateway.client.post

        async def ask(mode: str | None, **more: object) -> httpx.Response:
            headers = {} if mode is None else {"x-turnout-losses": mode}
            return await post("/v1/chat/completions", json={**asked, **more}, headers=headers)

        assert (await ask(None)).headers["x-turnout-lost"] == "logit_bias"
        # The record has the hints too, of which nobody needs to be told.
        assert gateway.records.kept[-1].losses == "logit_bias, metadata"
        silent = await ask("silent")
        assert "x-turnout-lost" not in silent.headers
        assert gateway.records.kept[-1].losses == "logit_bias, metadata"
        strict = await ask("strict")
        assert strict.status_code == 400
        assert (strict.json()["error"]["param"], strict.json()["error"]["code"]) == (
            "logit_bias",
            "unsupported_parameter",
        )
        assert (await ask(None, turnout={"losses": "strict"})).status_code == 400
        wrong = await ask("loud")
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-turnout-losses")
        meaning = await ask("silent", n=2)
        assert (meaning.status_code, meaning.json()["error"]["param"]) == (400, "n")
        custom = {"type": "custom", "custom": {"name": "apply_patch"}}
        assert (await ask(None, logit_bias=None, tools=[custom])).headers["x-turnout-lost"] == "tools[0];emulated"
        named = await ask(None, logit_bias=None, **{"a secret: x\r\n": 1})
        assert named.headers["x-turnout-lost"] == "(unknown)"


async def test_strict_can_be_the_rule_for_all(start, pool_toml) -> None:
    server = server_of("messages", more='[routing]\nlosses = "strict"\n')
    async with start(pool_toml, server=server) as gateway:
        asked = {"model": "large", "messages": HELLO, "logit_bias": {"1": 2}}
        assert (await gateway.client.post("/v1/chat/completions", json=asked)).status_code == 400
        eased = await gateway.client.post("/v1/chat/completions", json=asked, headers={"x-turnout-losses": "warn"})
        assert eased.status_code == 200


async def test_versions_and_betas_go_on_within_a_dialect_and_credentials_never(start, pool_toml) -> None:
    sent = {
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "one-2026,two-2026",
        "anthropic-dangerous-direct-browser-access": "true",
        "x-claude-code-session-id": "s",
        "x-api-key": "sk-mine",
        "authorization": "Bearer sk-mine",
        "cookie": "c=1",
        "openai-organization": "org",
    }
    asked = {"model": "large", "max_tokens": 10, "messages": HELLO, "something_new": {"kept": True}}
    async with start(pool_toml, server=server_of("messages")) as gateway:
        response = await gateway.client.post("/v1/messages?beta=true", json=asked, headers=sent)
        assert response.status_code == 200
        received = gateway.provider.received[-1]
        headers = {name.decode(): value.decode() for name, value in received.headers}
        assert headers["anthropic-version"] == "2026-10-21"
        assert headers["anthropic-beta"] == "one-2026,two-2026"
        assert "anthropic-dangerous-direct-browser-access" in headers
        assert not {"x-api-key", "authorization", "cookie", "openai-organization", "x-claude-code-session-id"} & set(
            headers
        )
        assert orjson.loads(received.body) == {**asked, "model": "large-at-provider"}
        chat = {"model": "large", "messages": HELLO}
        await gateway.client.post("/v1/chat/completions", json=chat, headers=sent)
        headers = {name.decode(): value.decode() for name, value in gateway.provider.received[-1].headers}
        assert headers["anthropic-version"] == "2023-06-01" and "anthropic-beta" not in headers


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/messages"])
async def test_a_websocket_is_refused_at_once(running, path: str) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket"}
    refused = await running.client.get(path, headers=upgrade)
    assert refused.status_code == 426
    plain = await running.client.get(path)
    assert (plain.status_code, plain.headers["allow"]) == (405, "POST")


async def test_a_providers_own_words_reach_a_client_of_another_dialect(start, pool_toml) -> None:
    said = {
        "error": {
            "code": 400,
            "message": "The input token count (9) exceeds the maximum (8).",
            "status": "INVALID_ARGUMENT",
        }
    }
    async with start(pool_toml, server=server_of("gemini")) as gateway:
        replay = gateway.provider.replays.put
        asked = {"model": "large", "messages": HELLO, "max_tokens": 5}
        replay("*", 400, {"content-type": "application/json"}, [orjson.dumps(said)])
        chat = await gateway.client.post("/v1/chat/completions", json=asked)
        assert (chat.status_code, chat.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert chat.json()["error"]["message"] == said["error"]["message"]
        replay("*", 400, {"content-type": "application/json"}, [orjson.dumps(said)])
        messages = await gateway.client.post("/v1/messages", json=asked)
        assert messages.json()["error"]["type"] == "invalid_request_error"
        assert "prompt is too long" in messages.json()["error"]["message"]
        wait = {"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED", "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]}}  # fmt: skip
        replay("*", 429, {"content-type": "application/json"}, [orjson.dumps([wait])])
        limited = await gateway.client.post("/v1/messages", json=asked)
        assert (limited.status_code, limited.headers["retry-after"], limited.headers["retry-after-ms"]) == (
            429,
            "35",
            "34400",
        )


async def test_an_error_of_the_same_dialect_is_not_touched(start, pool_toml) -> None:
    said = b'{"type":"error","error":{"type":"invalid_request_error","message":"thinking blocks cannot be modified"}}'
    async with start(pool_toml, server=server_of("messages")) as gateway:
        gateway.provider.replays.put("*", 400, {"content-type": "application/json"}, [said])
        response = await gateway.client.post(
            "/v1/messages", json={"model": "large", "max_tokens": 5, "messages": HELLO}
        )
        assert (response.status_code, response.content) == (400, said)


async def test_parameters_of_a_candidate_mean_the_same_in_every_dialect(start) -> None:
    pool = (
        '[[candidates]]\nname = "large"\ndeployments = [{ provider = "emulator", model = "claude-sonnet-4-6" }]\n'
        'parameters = { reasoning_effort = "low", inference_geo = "eu" }\n'
    )
    asked = {"model": "large", "messages": HELLO, "max_tokens": 9000}
    async with start(pool, server=server_of("messages")) as gateway:
        for path in ("/v1/messages", "/v1/chat/completions"):
            await gateway.client.post(path, json=asked)
            sent = orjson.loads(gateway.provider.received[-1].body)
            assert sent["output_config"]["effort"] == "low" and sent["inference_geo"] == "eu"
            assert sent["max_tokens"] == 9000
            assert "reasoning_effort" not in sent


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"x-long": "x" * 20_000}], ids=["encoding", "long"])
async def test_what_never_arrives_is_refused_in_the_envelope_of_the_path(running, headers: dict[str, str]) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"):
        refused = await running.client.post(path, content=b"{}", headers=headers)
        assert refused.status_code in (415, 431)
        assert (refused.json().get("type") == "error") is ("messages" in path)
        assert refused.json()["error"]["type"] == "invalid_request_error"


async def test_a_wrong_key_is_401_in_the_envelope_of_the_caller(start, pool_toml) -> None:
    key = f'[[keys]]\nname = "k"\nsha256 = "{"0" * 64}"\n'
    async with start(pool_toml, server=server_of("chat", more=key)) as gateway:
        wrong = {"x-api-key": "sk-turnout-" + "x" * 43}
        for path in ("/v1/messages", "/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions"):
            refused = await gateway.client.post(path, json={"model": "auto"}, headers=wrong)
            assert refused.status_code == 401
            error = refused.json()["error"]
            assert error["type"] == "authentication_error"
            assert path == "/v1/messages" or error["code"] == "invalid_api_key"
        listed = await gateway.client.get("/v1/models", headers={**wrong, "anthropic-version": "2026-10-21"})
        assert (listed.status_code, listed.json()["type"]) == (401, "error")


@pytest.mark.parametrize(("path", "ping"), [("/v1/messages", "event: ping"), ("/v1/chat/completions", ": still")])
async def test_a_silent_stream_says_that_it_lives(running, monkeypatch, path: str, ping: str) -> None:
    monkeypatch.setattr("serving.endpoints.PING_AFTER_S", 0.02)
    running.provider.faults.put("*", Fault(event_delay_s=0.1))
    asked = {
        "model": "large",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "What is 1 + 1?"}],
        "stream": True,
    }
    response = await running.client.post(path, json=asked)
    assert response.text.count(ping) >= 5
    # A ping falls between whole events, never inside one.
    for event in response.text.split("\n\n")[:-1]:
        assert event.startswith(("event: ", "data: ", ": "))
    assert "message_stop" in response.text or "[DONE]" in response.text


async def test_what_an_embedding_cannot_carry_is_told_in_no_words_of_the_callers(start, pool_toml) -> None:
    async with start(pool_toml + EMBEDDER, server=server_of("gemini")) as gateway:
        asked = {"model": "embed-small", "input": "x", "MY SECRET": 1, "\u20ac\r\nset-cookie: a=b": 2}
        response = await gateway.client.post("/v1/embeddings", json=asked)
        assert response.status_code == 200
        assert set(response.headers["x-turnout-lost"].split(", ")) == {"(unknown)"}
        assert "SECRET" not in str(gateway.records.kept[0])


async def test_no_envelope_is_sent_to_be_counted(start, pool_toml) -> None:
    async with start(pool_toml, server=server_of("messages")) as gateway:
        sealed = gateway.gateway.states.seal("state", "somebody", "anonymous")
        thought = {"type": "thinking", "thinking": "Hm.", "signature": sealed}
        turns = [*HELLO, {"role": "assistant", "content": [thought]}, *HELLO]
        await gateway.client.post("/v1/messages/count_tokens", json={"model": "large", "messages": turns})
        sent = orjson.loads(gateway.provider.received[-1].body)
        assert sent["messages"] == [*HELLO, *HELLO]
