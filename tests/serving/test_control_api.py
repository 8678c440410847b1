from __future__ import annotations

import hashlib

import pytest

from serving.storage.record_store import SqliteRecordStore

SECRET = "sk-turnout-alice-0000000000000000"
KEY = f'[[keys]]\nname = "alice"\nsha256 = "{hashlib.sha256(SECRET.encode()).hexdigest()}"\n'

POOL_EMBEDDER = '[[candidates]]\nname = "embed"\nembeddings = true\n'


async def test_route_explains_a_decision_and_calls_nobody(running) -> None:
    response = await running.client.post("/v1/route", json={"prompt": "Say hello."})
    assert response.status_code == 200
    decision = response.json()
    assert (decision["candidate"], decision["ranking"]) == ("medium", ["medium", "large", "small"])
    assert decision["policy"] == {
        "kind": "threshold",
        "value": 0.75,
        "name": "balanced",
        "anchor": None,
        "margin": None,
    }
    assert (decision["binding"], decision["propensity"], decision["bundle"]) == ("threshold", 1.0, "tiny@1")
    medium = next(row for row in decision["forecasts"] if row["candidate"] == "medium")
    assert medium["quality"] == pytest.approx(0.8)
    assert (medium["quality_low"], medium["quality_high"]) == (pytest.approx(0.75), pytest.approx(0.85))
    assert medium["cost_usd"] == pytest.approx(0.0008025)
    assert medium["cost_usd_p90"] == pytest.approx(0.0016025)
    assert medium["quality_per_usd"] == pytest.approx(0.8 / 0.0008025, rel=1e-4)
    # small (.7) costs a twentieth: 100 output tokens at .4 and 2.5 input tokens at .1.
    small = next(row for row in decision["counterfactuals"] if row["candidate"] == "small")
    assert small["cost_change"] == pytest.approx(0.00004025 / 0.0008025 - 1)
    assert running.provider.counts()["n_requests"] == 0
    assert running.records.kept == []


async def test_every_answer_asked_for_is_expected_to_cost(running) -> None:
    costs = []
    for n in (1, 2):
        said = (await running.client.post("/v1/route", json={"prompt": "Say hello.", "model": "medium", "n": n})).json()
        costs.append(next(row["cost_usd"] for row in said["forecasts"] if row["candidate"] == "medium"))
    # 2.5 input tokens at 1 USD/M, read once; 200 output tokens at 4 USD/M, written n times.
    assert costs == [pytest.approx(0.0000025 + 0.0008), pytest.approx(0.0000025 + 2 * 0.0008)]


async def test_route_takes_the_body_of_a_chat_completion_and_its_dials(running) -> None:
    chat = {"model": "auto:price", "messages": [{"role": "user", "content": "Add 1 and 2."}], "stream": True}
    assert (await running.client.post("/v1/route", json=chat)).json()["candidate"] == "small"
    dialled = await running.client.post("/v1/route", json={"prompt": "x"}, headers={"x-turnout-threshold": "0.85"})
    assert dialled.json()["candidate"] == "large"
    named = await running.client.post("/v1/route", json={"prompt": "x", "model": "small"})
    assert (named.json()["candidate"], named.json()["binding"]) == ("small", "designated")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x", "model": "nonsense"}, "model"),
        ({"prompt": "x", "turnout": {"threshold": 2}}, "turnout.threshold"),
    ],
)
async def test_route_names_the_field_at_fault(running, body, param) -> None:
    response = await running.client.post("/v1/route", json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize("field", ["tools", "metadata"])
async def test_a_body_nested_too_deeply_is_the_callers_fault(running, field) -> None:
    deep: list[object] = []
    for _ in range(300):
        deep = [deep]
    response = await running.chat(**{field: deep})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")


async def test_what_an_unknown_price_or_like_looks_like(start, pool_toml) -> None:
    more = (
        '[[candidates]]\nname = "newcomer"\nlike = "large"\n'
        'deployments = [{ provider = "emulator", model = "newcomer" }]\n'
    )
    async with start(pool_toml + more) as gateway:
        decision = (
            await gateway.client.post("/v1/route", json={"prompt": "hi", "turnout": {"threshold": 0.85}})
        ).json()
        newcomer = next(row for row in decision["forecasts"] if row["candidate"] == "newcomer")
        assert newcomer["like"] == "large"
        assert newcomer["quality"] == pytest.approx(0.9)
        assert newcomer["cost_usd"] is None
        assert decision["candidate"] == "large", "an unknown price never wins on price"
        pool = (await gateway.client.get("/v1/pool")).json()
        row = next(row for row in pool["candidates"] if row["name"] == "newcomer")
        assert (row["price"], row["like"], row["is_in_bundle"]) == (None, "large", False)


async def test_models_lists_aliases_and_candidates_in_the_openai_shape(running) -> None:
    listed = (await running.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    models = {row["id"]: row for row in listed["data"]}
    assert set(models) == {
        *("auto", "auto:quality", "auto:balanced", "auto:price", "auto:latency", "large", "medium", "small")
    }
    assert all(row["object"] == "model" and isinstance(row["created"], int) for row in models.values())
    assert models["auto"]["policy"] == {
        "kind": "threshold",
        "value": 0.75,
        "name": "balanced",
        "anchor": None,
        "margin": None,
    }
    assert models["large"]["price"]["output_usd_per_mtok"] == 40.0
    assert (models["large"]["owned_by"], models["large"]["is_emulated"]) == ("emulator", True)
    one = await running.client.get("/v1/models/auto:price")
    assert one.json() == models["auto:price"]
    absent = await running.client.get("/v1/models/absent")
    assert (absent.status_code, absent.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_candidate_with_a_slash_has_a_page_too(start) -> None:
    slashed = '[[candidates]]\nname = "meta/llama"\ndeployments = [{ provider = "emulator", model = "meta/llama" }]\n'
    async with start(slashed) as gateway:
        assert (await gateway.client.get("/v1/models/meta/llama")).json()["id"] == "meta/llama"


async def test_pool_shows_prices_capabilities_and_live_status(running) -> None:
    await running.chat("Say hello.")
    await running.chat("Say hello.", emulate={"status": 500})
    pool = (await running.client.get("/v1/pool")).json()
    assert (pool["bundle"], pool["default_preset"]) == ("tiny@1", "balanced")
    assert pool["presets"]["price"] == {
        "kind": "threshold",
        "value": 0.5,
        "name": "price",
        "anchor": None,
        "margin": None,
    }
    medium = next(row for row in pool["candidates"] if row["name"] == "medium")
    assert medium["price"]["input_usd_per_mtok"] == 1.0
    assert medium["capabilities"]["tools"] is True
    (deployment,) = medium["deployments"]
    assert (deployment["provider"], deployment["model"], deployment["is_emulated"]) == (
        "emulator",
        "medium-at-provider",
        True,
    )
    assert (deployment["status"]["n_requests"], deployment["status"]["n_errors"]) == (2, 1)
    assert deployment["status"]["cost_usd"] > 0


async def test_pool_shows_who_embeds(start, pool_toml) -> None:
    embedder = POOL_EMBEDDER + 'deployments = [{ provider = "emulator", model = "embed-there" }]\n'
    async with start(pool_toml + embedder) as gateway:
        asked = {"model": "embed", "input": "one"}
        assert (await gateway.client.post("/v1/embeddings", json=asked)).status_code == 200
        rows = (await gateway.client.get("/v1/pool")).json()["candidates"]
        assert [row["name"] for row in rows if row["is_embedder"]] == ["embed"]
        (embeds,) = (row for row in rows if row["is_embedder"])
        assert embeds["is_in_bundle"] is False
        assert embeds["deployments"][0]["status"]["n_requests"] == 1
        text = (await gateway.client.get("/metrics")).text
        assert (
            'turnout_requests_total{deployment="embed@emulator/embed-there",candidate="embed",outcome="ok"} 1' in text
        )


async def test_pool_shows_that_records_are_being_lost(start, pool_toml, tmp_path) -> None:
    records = SqliteRecordStore(tmp_path / "no such folder" / "turnout.sqlite", n_queue=1)
    async with start(pool_toml, records=records) as gateway:
        assert (await gateway.client.get("/v1/pool")).json()["records"] == {
            "n_written": 0,
            "n_dropped": 0,
            "is_failing": False,
            "n_waiting": 0,
        }
        for _ in range(3):
            assert (await gateway.chat()).status_code == 200, "traffic goes on"
        assert records.flush()
        shown = (await gateway.client.get("/v1/pool")).json()["records"]
        # The queue of one keeps a record waiting for the disk (two, when it was just being tried).
        assert (shown["n_written"], shown["is_failing"]) == (0, True)
        assert shown["n_dropped"] >= 1


async def test_presets_of_the_file_stand_over_those_of_the_bundle(start, pool_toml) -> None:
    presets = '\n[routing]\ndefault = "strict"\n[routing.presets.strict]\nkind = "threshold"\nvalue = 0.9\n'
    async with start(presets + pool_toml) as gateway:
        assert (await gateway.chat()).headers["x-turnout-policy"] == "threshold=0.9; preset=strict"
        assert "auto:strict" in (await gateway.client.get("/v1/models")).text


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/route"), ("GET", "/v1/models"), ("GET", "/v1/models/auto"), ("GET", "/v1/pool")],
)
async def test_every_v1_route_asks_for_a_key_when_there_are_keys(start, pool_toml, method, path) -> None:
    async with start(pool_toml + KEY) as gateway:
        body = {"json": {"prompt": "hi"}} if method == "POST" else {}
        refused = await gateway.client.request(method, path, **body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        allowed = await gateway.client.request(method, path, **body, headers={"authorization": f"Bearer {SECRET}"})
        assert allowed.status_code == 200
        assert (await gateway.client.get("/readyz")).status_code == 200
        assert (await gateway.client.get("/healthz")).status_code == 200
