from __future__ import annotations

import hashlib
import json

import httpx
import pytest

KEYED = """
[[keys]]
name = "alice"
sha256 = "{all}"

[[keys]]
name = "bob"
sha256 = "{some}"
models = ["small", "med*"]
"""
ALICE, BOB = "sk-turnout-alice-0000000000000000", "sk-turnout-bob-00000000000000000000"


def keyed(pool: str) -> str:
    digests = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in (("all", ALICE), ("some", BOB))}
    return pool + KEYED.format(**digests)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def events_of(response: httpx.Response) -> list[str]:
    return [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]


async def test_auto_goes_to_the_cheapest_predicted_to_clear_the_default_threshold(running) -> None:
    plain, digits = await running.chat("Say hello."), await running.chat("Add 1 and 2.")
    assert plain.status_code == digits.status_code == 200
    # .8 at 1/4 USD clears .75 cheapest; with digits medium has .6 only.
    assert plain.headers["x-turnout-candidate"] == "medium"
    assert digits.headers["x-turnout-candidate"] == "large"
    assert plain.json()["choices"][0]["message"]["content"].startswith("[emulated")


@pytest.mark.parametrize(
    ("asked", "headers", "candidate", "policy"),
    [
        ({"model": "auto:price"}, {}, "small", "threshold=0.5; preset=price"),
        ({"model": "auto:quality"}, {}, "large", "threshold=0.85; preset=quality"),
        ({"model": "large"}, {}, "large", "designated"),
        ({"turnout": {"threshold": 0.85}}, {}, "large", "threshold=0.85"),
        ({"turnout": {"preset": "price"}}, {}, "small", "threshold=0.5; preset=price"),
        ({"turnout": {"willingness_to_pay_usd": 0}}, {}, "small", "willingness_to_pay_usd=0"),
        ({"turnout": {"deny": ["med*"]}}, {}, "large", "threshold=0.75; preset=balanced"),
        ({"turnout": {"allow": ["small"]}}, {}, "small", "threshold=0.75; preset=balanced"),
        ({"turnout": {"max_cost_usd": 0.0005}}, {}, "small", "threshold=0.75; preset=balanced"),
        ({}, {"x-turnout-threshold": "0.9"}, "large", "threshold=0.9"),
        ({}, {"x-turnout-preset": "price"}, "small", "threshold=0.5; preset=price"),
        ({}, {"x-turnout-willingness-to-pay-usd": "1000"}, "large", "willingness_to_pay_usd=1000"),
        ({}, {"x-turnout-max-cost-usd": "0.0005"}, "small", "threshold=0.75; preset=balanced"),
    ],
)
async def test_every_way_to_ask_reaches_the_policy(running, asked, headers, candidate, policy) -> None:
    response = await running.chat("Say hello.", headers=headers, **asked)
    assert response.headers["x-turnout-candidate"] == candidate
    assert response.headers["x-turnout-policy"] == policy


async def test_answers_say_who_why_and_at_what_cost(running) -> None:
    response = await running.chat("Say hello.")
    (record,) = running.records.kept
    assert response.headers["x-request-id"] == response.headers["request-id"] == record.id
    assert response.headers["x-turnout-decision-id"] == record.id
    assert response.headers["x-turnout-bundle"] == "tiny@1"
    assert response.headers["x-turnout-emulated"] == "true"
    assert response.headers["x-upstream-request-id"] == "req-emulated"
    assert "x-turnout-like" not in response.headers
    # medium: 10 characters x .25 = 2.5 input tokens at 1 USD/M, 200 output tokens at 4: 802.5 millionths.
    assert response.headers["x-turnout-expected-cost-usd"] == "0.000802500"
    usage = response.json()["usage"]
    cost = (usage["prompt_tokens"] * 1.0 + usage["completion_tokens"] * 4.0) / 1e6
    assert float(response.headers["x-turnout-cost-usd"]) == pytest.approx(cost, abs=1e-9)
    assert record.cost_usd == pytest.approx(cost)
    assert (record.input_tokens, record.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert record.expected_cost_usd == pytest.approx(0.0008025)
    assert record.predicted_quality == pytest.approx(0.8)
    assert (record.key, record.requested_model, record.outcome, record.status) == ("anonymous", "auto", "ok", 200)
    assert (record.candidate, record.deployment) == ("medium", "medium@emulator/medium-at-provider")
    assert (record.policy_kind, record.policy_value, record.policy_name) == ("threshold", 0.75, "balanced")
    assert (record.binding, record.propensity, record.bundle) == ("threshold", 1.0, "tiny@1")
    assert record.first_byte_s is not None and record.total_s is not None and not record.is_stream


async def test_the_request_reaches_the_provider_as_it_was_sent_but_for_the_model(running) -> None:
    body = (
        b'{"zeta":{"b":1,"a":[3,2,1]},"model":"auto",'
        b'"messages":[{"role":"user","content":"Say h\\u00e9llo \xf0\x9f\x9a\x82",'
        b'"cache_control":{"type":"ephemeral"}}],"turnout":{"threshold":0.1},"top_k":4,"store":null}'
    )
    headers = {
        "content-type": "application/json",
        "authorization": "Bearer sk-client",
        "x-api-key": "sk-client",
        "cookie": "a=b",
        "openai-organization": "org-client",
        "openai-beta": "assistants=v2",
        "user-agent": "Client/1",
        "x-turnout-max-cost-usd": "1",
    }
    await running.client.post("/v1/chat/completions", content=body, headers=headers)
    (received,) = running.provider.received
    assert json.loads(received.body) == {
        **{key: value for key, value in json.loads(body).items() if key != "turnout"},
        "model": "small-at-provider",
    }
    assert list(json.loads(received.body)) == ["zeta", "model", "messages", "top_k", "store"]
    sent = dict(received.headers)
    assert sent[b"openai-beta"] == b"assistants=v2"
    assert sent[b"user-agent"] == b"Client/1"
    for name in (b"authorization", b"x-api-key", b"cookie", b"openai-organization", b"x-turnout-max-cost-usd"):
        assert name not in sent


async def test_credential_and_parameters_of_the_candidate_are_sent(start, running, monkeypatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", "sk-provider")
    pool = f"""
[[providers]]
name = "real"
base_url = "{running.app.emulator.base_url}"
api_key_env = "UPSTREAM_KEY"

[[candidates]]
name = "large-low"
like = "large"
parameters = {{ reasoning_effort = "low" }}
deployments = [{{ provider = "real", model = "large-at-provider" }}]
"""
    async with start(pool, server=SERVER_WITHOUT_EMULATOR) as gateway:
        response = await gateway.chat(reasoning_effort="high")
    received = running.provider.received[-1]
    assert dict(received.headers)[b"authorization"] == b"Bearer sk-provider"
    assert json.loads(received.body)["reasoning_effort"] == "low"
    assert response.headers["x-turnout-candidate"] == "large-low"
    assert response.headers["x-turnout-like"] == "large"
    assert "x-turnout-emulated" not in response.headers
    assert not gateway.app.emulator.base_url, "the emulator starts only for those who need it"
    # No price in the file, none in the catalogue: unknown, not zero.
    assert "x-turnout-expected-cost-usd" not in response.headers
    assert "x-turnout-cost-usd" not in response.headers
    (record,) = gateway.records.kept
    assert record.cost_usd is None and record.expected_cost_usd is None
    assert record.output_tokens is not None


SERVER_WITHOUT_EMULATOR = """
[server]
bundle = "{bundle}"
database = ""
"""


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_a_stream_passes_untouched_and_ends_with_done(running, asks_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    response = await running.chat("Say hello.", stream=True, max_tokens=5, **options)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-turnout-candidate"] == "medium"
    events = events_of(response)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert [chunk for chunk in chunks if chunk.get("usage")] == (chunks[-1:] if asks_usage else [])
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    (record,) = running.records.kept
    assert (record.outcome, record.is_stream, record.output_tokens) == ("ok", True, 5)
    # 3 input tokens (10 characters / 4) at 1 USD/M and 5 output tokens at 4 USD/M.
    assert record.cost_usd == pytest.approx((3 * 1 + 5 * 4) / 1e6)
    status = next(row for row in running.gateway.pool.snapshot() if row.candidate == "medium")
    assert (status.n_requests, status.n_in_flight, status.n_errors) == (1, 0, 0)


async def test_a_designated_candidate_the_bundle_does_not_know_is_called_without_forecast(start) -> None:
    pool = (
        '[[candidates]]\nname = "unheard-of"\ntools = false\n'
        'deployments = [{ provider = "emulator", model = "unheard-of" }]\n'
    )
    async with start(pool) as gateway:
        named = await gateway.chat(model="unheard-of", tools=[{"type": "function", "function": {"name": "f"}}])
        assert named.status_code == 200
        assert named.headers["x-turnout-policy"] == "designated"
        assert "x-turnout-expected-cost-usd" not in named.headers
        auto = await gateway.chat()
        assert auto.status_code == 400
        assert auto.json()["error"]["code"] == "no_eligible_candidate"
        assert "not_in_bundle" in auto.json()["error"]["message"]


async def test_a_designated_candidate_still_obeys_the_callers_own_limits(running) -> None:
    response = await running.chat(model="large", turnout={"max_cost_usd": 0.001})
    assert response.json()["error"]["code"] == "no_eligible_candidate"
    assert (await running.chat(model="large", turnout={"deny": ["l*"]})).status_code == 400
    assert (await running.chat(model="large", turnout={"max_cost_usd": 1})).status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "code", "param"),
    [
        ({"model": "gpt-nonsense"}, 404, "model_not_found", "model"),
        ({"model": "auto:nonsense"}, 404, "model_not_found", "model"),
        ({"turnout": {"preset": "nonsense"}}, 400, "invalid_value", "turnout.preset"),
        ({"model": "auto:price", "turnout": {"threshold": 0.5}}, 400, "invalid_value", "model"),
        ({"turnout": {"deny": ["*"]}}, 400, "no_eligible_candidate", "model"),
        ({"messages": []}, 400, "invalid_value", "messages"),
        ({"messages": None}, 400, "missing_required_parameter", "messages"),
    ],
)
async def test_the_callers_faults_are_named_in_the_openai_envelope(running, asked, status, code, param) -> None:
    response = await running.chat(**asked)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert response.headers["x-request-id"]
    assert running.provider.counts()["n_requests"] == 0
    (record,) = running.records.kept
    assert (record.status, record.outcome) == (status, "caller_error")
    assert "nonsense" not in repr(record)


async def test_a_header_that_asks_for_the_impossible_is_named(running) -> None:
    response = await running.chat(headers={"x-turnout-preset": "nonsense"})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "x-turnout-preset")
    assert error["message"].startswith("x-turnout-preset: ")


async def test_a_refused_stranger_is_logged_once_and_leaves_no_record(start, pool_toml, caplog) -> None:
    async with start(keyed(pool_toml)) as gateway:
        with caplog.at_level("INFO", "turnout"):
            response = await gateway.chat(headers=bearer("sk-turnout-nobody-000000000000000"))
            await gateway.client.get("/v1/models")
        first, second = (record for record in caplog.records if record.message == "refused")
        assert first.fields["status"] == 401 and first.fields["id"] == response.headers["x-request-id"]
        assert second.fields["status"] == 401
        assert "nobody" not in repr(first.fields)
        assert gateway.records.kept == []


@pytest.mark.parametrize(
    "headers", [{}, bearer("sk-turnout-nobody-000000000000000"), {"authorization": f"Basic {ALICE}"}]
)
async def test_no_key_or_a_wrong_one_is_401(start, pool_toml, headers) -> None:
    async with start(keyed(pool_toml)) as gateway:
        response = await gateway.chat(headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert gateway.records.kept == []
        assert gateway.provider.counts()["n_requests"] == 0


@pytest.mark.parametrize("headers", [bearer(ALICE), {"x-api-key": ALICE}, {"api-key": ALICE}])
async def test_a_right_key_is_taken_wherever_clients_put_it(start, pool_toml, headers) -> None:
    async with start(keyed(pool_toml)) as gateway:
        assert (await gateway.chat(headers=headers)).status_code == 200
        assert gateway.records.kept[0].key == "alice"


async def test_what_a_key_may_not_use_does_not_exist_and_is_never_chosen(start, pool_toml) -> None:
    async with start(keyed(pool_toml)) as gateway:
        assert (await gateway.chat(model="large", headers=bearer(BOB))).status_code == 404
        assert (await gateway.chat(model="medium", headers=bearer(BOB))).status_code == 200
        # .9 is cleared by none bob may use: the best of the rest.
        chosen = await gateway.chat(turnout={"threshold": 0.9}, headers=bearer(BOB))
        assert chosen.headers["x-turnout-candidate"] == "medium"
        listed = await gateway.client.get("/v1/models", headers=bearer(BOB))
        assert "large" not in listed.text


async def test_latency_is_taken_from_live_calls(start) -> None:
    async with start() as gateway:
        pool = gateway.gateway.pool
        clock = [0.0]
        pool._clock = lambda: clock[0]
        for name, seconds in (("large", 1.0), ("medium", 9.0)):
            call = pool.begin(f"{name}@emulator/{name}-at-provider")
            clock[0] += seconds
            call.finish("ok", 10, 0.0)
        response = await gateway.chat(model="auto:latency")
        assert response.headers["x-turnout-candidate"] == "large"
        assert response.headers["x-turnout-policy"] == "latency=0.75; preset=latency"


ALIASES = '[aliases]\n"claude-haiku-9" = "auto:price"\n"claude-*" = "large"\n"gpt-*" = "auto"\n\n'


async def test_names_that_tools_insist_on_stand_for_something_here(start, pool_toml) -> None:
    async with start(ALIASES + pool_toml) as gateway:
        for model, candidate in (("claude-haiku-9", "small"), ("claude-opus-9", "large"), ("gpt-9", "medium")):
            response = await gateway.chat(model=model)
            assert response.headers["x-turnout-candidate"] == candidate
        # A stranger's word is not kept: the record has what it stood for.
        assert [record.requested_model for record in gateway.records.kept] == ["auto:price", "large", "auto"]
        assert (await gateway.chat(model="gemini-9")).status_code == 404
        listed = [row["id"] for row in (await gateway.client.get("/v1/models")).json()["data"]]
        assert "claude-haiku-9" in listed and "claude-*" not in listed
        assert (await gateway.client.get("/v1/models/claude-haiku-9")).status_code == 200
        routed = await gateway.client.post("/v1/route", json={"model": "claude-opus-9", "prompt": "Say hello."})
        assert routed.json()["candidate"] == "large"
