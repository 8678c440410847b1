"""Named candidates, and those that embed: limits hold for them and their stand-ins; a policy has nothing to decide."""

from __future__ import annotations

import json

import pytest

from router.domain import Speed
from serving.deciding import embedder
from serving.embedding import parse_embeddings
from serving.keys import ANONYMOUS

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
EMBEDDERS = """
[[candidates]]
name = "e1"
embeddings = true
input_usd_per_mtok = 1000
output_usd_per_mtok = 0
failover = ["e2", "e3"]
deployments = [{ provider = "emulator", model = "e1-at-provider" }]

[[candidates]]
name = "e2"
embeddings = true
deployments = [{ provider = "emulator", model = "e2-at-provider" }]

[[candidates]]
name = "e3"
embeddings = true
input_usd_per_mtok = 0
output_usd_per_mtok = 0
deployments = [{ provider = "emulator", model = "e3-at-provider" }]
"""
UNPRICED = """
[[candidates]]
name = "unpriced"
like = "small"
deployments = [{ provider = "emulator", model = "nobody-knows-this" }]

[[candidates]]
name = "stranger"
deployments = [{ provider = "emulator", model = "nor-this" }]
"""


async def test_a_limit_on_cost_holds_for_a_named_candidate_whatever_it_can_do(start, pool_toml) -> None:
    pool = pool_toml.replace('name = "large"', 'name = "large"\ntools = false') + UNPRICED
    async with start(pool) as gateway:
        for asked in ({}, {"tools": TOOLS}):
            for name in ("large", "unpriced", "stranger"):
                refused = await gateway.chat(model=name, turnout={"max_cost_usd": 1e-9}, **asked)
                assert refused.status_code == 400
                assert "max_cost_usd" in refused.json()["error"]["message"]
            assert (await gateway.chat(model="large", turnout={"max_cost_usd": 1}, **asked)).status_code == 200
        assert (await gateway.chat(model="stranger")).status_code == 200


async def test_a_limit_on_time_holds_for_a_named_candidate_and_its_stand_ins(start, pool_toml, monkeypatch) -> None:
    pool = pool_toml.replace('name = "large"', 'name = "large"\nfailover = ["medium", "small"]')
    async with start(pool) as gateway:
        speeds = {"large": Speed(0.5, 0.0), "medium": Speed(5.0, 0.0), "small": Speed(0.5, 0.0)}
        monkeypatch.setattr(gateway.gateway.pool, "speeds", lambda: speeds)
        refused = await gateway.chat(model="medium", turnout={"max_latency_s": 1})
        assert refused.status_code == 400
        assert "max_latency_s" in refused.json()["error"]["message"]
        told = (await gateway.client.post("/v1/route", json={"prompt": "hi", "model": "large"})).json()
        assert told["candidate"] == "large"
        explained = await gateway.chat(model="large", turnout={"max_latency_s": 1, "explain": True})
        assert explained.status_code == 200
        ranking = json.loads(explained.headers["x-turnout-explanation"])["ranking"]
        assert [row["candidate"] for row in ranking] == ["large", "small"]
        speeds.clear()  # what nobody has measured excludes nobody
        assert (await gateway.chat(model="medium", turnout={"max_latency_s": 1})).status_code == 200


async def embed(gateway, headers: dict[str, str] | None = None, **turnout: object):
    asked = {"model": "e1", "input": "x" * 400, **({"turnout": turnout} if turnout else {})}
    return await gateway.client.post("/v1/embeddings", json=asked, headers=headers)


async def test_embeddings_honour_what_a_request_allows_denies_and_pays(start, pool_toml) -> None:
    async with start(EMBEDDERS + pool_toml) as gateway:
        for refused, why in (
            (await embed(gateway, deny=["e1"]), "deny"),
            (await embed(gateway, {"x-turnout-deny": "e*"}), "deny"),
            (await embed(gateway, allow=["e2"]), "allow"),
            (await embed(gateway, {"x-turnout-allow": "e*"}, allow=["e2"]), "allow"),
            (await embed(gateway, max_cost_usd=0.05), "max_cost_usd"),  # 100 tokens cost .1 USD
        ):
            assert refused.status_code == 400
            assert why in refused.json()["error"]["message"]
        assert (await embed(gateway, max_cost_usd=0.2)).status_code == 200
        tokens = await gateway.client.post(
            "/v1/embeddings", json={"model": "e1", "input": [1] * 100, "turnout": {"max_cost_usd": 0.05}}
        )
        assert tokens.status_code == 400
        assert (await embed(gateway)).headers["x-turnout-candidate"] == "e1"


async def test_stand_ins_of_an_embedder_keep_the_limits_too(start, pool_toml) -> None:
    async with start(EMBEDDERS + pool_toml) as gateway:

        def order(**turnout: object) -> tuple[str, ...]:
            asked = parse_embeddings({"model": "e1", "input": "x", "turnout": turnout})
            return embedder(gateway.gateway.state, ANONYMOUS, asked).order

        assert order() == ("e1", "e2", "e3")
        assert order(deny=["e2"]) == ("e1", "e3")
        assert order(max_cost_usd=1) == ("e1", "e3")  # nobody knows what e2 costs


@pytest.mark.parametrize("model", ["large", "claude-opus"])
async def test_a_policy_beside_a_named_candidate_is_refused_in_the_body_and_unused_in_a_header(
    start, pool_toml, model
) -> None:
    async with start('[aliases]\n"claude-*" = "large"\n' + pool_toml) as gateway:
        for policy in ({"threshold": 0.5}, {"preset": "price"}, {"willingness_to_pay_usd": 1}):
            refused = await gateway.chat(model=model, turnout=policy)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == f"turnout.{next(iter(policy))}"
        unknown = await gateway.chat(model=model, headers={"x-turnout-preset": "nobody"})
        assert unknown.status_code == 400
        unused = await gateway.chat(model=model, headers={"x-turnout-threshold": "0.5"})
        assert (unused.status_code, unused.headers["x-turnout-policy"]) == (200, "designated")
