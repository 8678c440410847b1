"""The learning loop at its smallest, through real processes, HTTP and files: nothing in it is made up but the LLMs.

A gateway serves the first champion; users ask and vote; the log is exported, reported and learned from; the challenger
passes its gates, is promoted, and serves; an experiment compares it with its predecessor; a rollback brings that back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path

import httpx
import pandas as pd
import pytest
from click.testing import CliRunner

from router.cli import main
from serving.chaos.process import started

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "datasets" / "samples" / "checkable"
SECRETS = {name: f"sk-turnout-{name}-{'0' * 32}" for name in ("team-0", "team-1", "team-2", "boss")}
PRICES = {"sample-nano": 0.1, "sample-small": 0.5, "sample-medium": 3.0, "sample-large": 10.0}
N_REQUESTS = 150

#: As small as a training can be and still tell candidates apart.
TRAINING = """
[heads]
n_nets = 1
hidden = 16
min_steps = 120
epochs = 4
[forest]
n_trees = 10
[lexical]
n_columns = 24
word_vectors = false
[evaluation]
n_resamples = 50
"""
#: Who explores is left to chance and other tests run beside this one: what is near a bound says nothing here.
GATES = """[gates]
latency = 1000.0
loss = 0.05
slice_loss = 0.1
candidate_loss = 0.1
utility = 0.5
slice_utility = 1.0
ece = 0.2
certificates = false
"""
GATEWAY = """
[server]
bundle = "{folder}/bundles/champion"
database = "{folder}/records.sqlite"
watch_bundle_s = 0.1

[routing]
reference = "sample-large"
explore_share = 0.2
explore_max_usd_per_day = 100.0

[shadow]
bundle = "{folder}/bundles/challenger"

[[providers]]
name = "world"
base_url = "http://127.0.0.1:{port}/v1"
"""
CANDIDATE = """
[[candidates]]
name = "{name}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = {usd}
deployments = [{{ provider = "world", model = "{name}" }}]
"""
KEY = """
[[keys]]
name = "{name}"
sha256 = "{sha256}"
{more}
"""


def turnout(*arguments: object, exit_code: int = 0) -> str:
    """Give a command as an operator would, and return what it prints."""
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == exit_code, f"turnout {' '.join(map(str, arguments))}\n{done.output}"
    return done.output


def write_config(folder: Path, port: int) -> Path:
    parts = [GATEWAY.format(folder=folder, port=port)]
    parts += [CANDIDATE.format(name=name, usd=usd) for name, usd in PRICES.items()]
    for name, secret in SECRETS.items():
        more = "admin = true" if name == "boss" else 'retention = "content"'
        parts.append(KEY.format(name=name, sha256=hashlib.sha256(secret.encode()).hexdigest(), more=more))
    (folder / "turnout.toml").write_text("".join(parts))
    return folder / "turnout.toml"


class Users:
    """Who asks the gateway, and knows what is right."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        outcomes = pd.read_parquet(SAMPLE / "outcomes.parquet").set_index(["prompt_id", "candidate"])["quality"]
        prompts = pd.read_parquet(SAMPLE / "prompts.parquet").sample(frac=1, random_state=0)
        n_known = outcomes.groupby("prompt_id").count()
        prompts = prompts[prompts["prompt_id"].map(n_known) == len(PRICES)]
        self._client, self._quality = client, outcomes
        self._prompts = prompts[["prompt_id", "prompt"]].to_numpy().tolist()
        self._at_once = asyncio.Semaphore(8)

    async def ask(self, n: int) -> list[tuple[str, httpx.Headers]]:
        """Ask n prompts that nobody has asked before; return their ids and what was said of each answer."""
        asked, self._prompts = self._prompts[:n], self._prompts[n:]
        return await asyncio.gather(*(self._ask(i, *row) for i, row in enumerate(asked)))

    async def _ask(self, i: int, prompt_id: str, prompt: str) -> tuple[str, httpx.Headers]:
        body = {"model": "auto", "user": f"user-{i}", "messages": [{"role": "user", "content": prompt}]}
        async with self._at_once:
            answer = await self._client.post("/v1/chat/completions", json=body, headers=bearer(f"team-{i % 3}"))
        assert answer.status_code == 200, answer.text
        return prompt_id, answer.headers

    async def vote(self, answers: list[tuple[str, httpx.Headers]]) -> None:
        """Say of every answer whether it was right."""
        for team in range(3):
            votes = [
                {"request_id": said["x-request-id"], "correct": bool(self._quality[prompt_id, said[WHO]] > 0.5)}
                for prompt_id, said in answers[team::3]
            ]
            answer = await self._client.post("/v1/feedback", json={"votes": votes}, headers=bearer(f"team-{team}"))
            assert answer.status_code == 200 and answer.json()["counts"] == {"kept": len(votes)}, answer.text


WHO, BUNDLE = "x-turnout-candidate", "x-turnout-bundle"


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[name]}"}


async def until(client: httpx.AsyncClient, holds) -> dict:
    """Look at the pool until something holds of it."""
    give_up_at = time.monotonic() + 30
    while True:
        pool = (await client.get("/v1/pool", headers=bearer("boss"))).json()
        if holds(pool):
            return pool
        assert time.monotonic() < give_up_at, pool
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_from_votes_to_a_better_bundle_that_serves_and_back(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="the training extra is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "datasets"))))
    monkeypatch.setenv("BOSS_KEY", SECRETS["boss"])
    Path("train.toml").write_text(TRAINING)
    Path("retrain.toml").write_text(TRAINING + GATES)
    store = ("--directory", "bundles", "--by", "test")

    turnout("train", "--data", SAMPLE, "--out", "models/loop/1", "--config", "train.toml", "--no-tracking")
    turnout("promote", "--bundle", "models/loop/1", "--yes", *store, "--force", "the first")

    async with started(["emulate", "--port", "0", "--speed", "0"], tmp_path / "emulator.log") as emulator:
        config = write_config(tmp_path, emulator.port)
        async with started(["serve", "--config", str(config), "--port", "0"], tmp_path / "gateway.log") as gateway:
            url = f"http://127.0.0.1:{gateway.port}"
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
                await loop(client, url, config, store)


async def loop(client: httpx.AsyncClient, url: str, config: Path, store: tuple[str, ...]) -> None:
    await until(client, lambda pool: pool.get("bundle") == "loop@1")
    users = Users(client)
    answers = await users.ask(N_REQUESTS)
    assert {said[BUNDLE] for _, said in answers} == {"loop@1"} and len({said[WHO] for _, said in answers}) > 1
    await users.vote(answers)

    await asyncio.to_thread(turnout, "log", "export", "--config", config, "--out", "log")
    told = json.loads(turnout("report", "--log", "log", "--json"))["whole"]
    assert (told["n"], told["n_routed"], told["n_failed"], told["n_voted"]) == (N_REQUESTS, N_REQUESTS, 0, N_REQUESTS)
    assert told["spend_usd"] > 0 and told["n_explored"] > 0 and told["saving"]["value"] > 0

    retrain = (
        "retrain",
        "--champion",
        "bundles/champion",
        "--log",
        "log",
        "--data",
        SAMPLE,
        "--config",
        "retrain.toml",
    )
    said = await asyncio.to_thread(turnout, *retrain, "--out", "models/loop/2", "--directory", "bundles")
    assert "gates passed" in said and f"{N_REQUESTS} of {N_REQUESTS} votes" in said
    await until(client, lambda pool: (pool.get("shadow") or {}).get("bundle") == "loop@2")

    turnout("promote", "--auto", *store[:2])
    assert Path("bundles/champion").resolve().name == "loop@2" and not Path("bundles/challenger").exists()
    await until(client, lambda pool: pool["bundle"] == "loop@2")
    assert {said[BUNDLE] for _, said in await users.ask(8)} == {"loop@2"}

    at = ("--url", url, "--key-env", "BOSS_KEY")
    arms = ("--arm", "now:0.5", "--arm", f"before:0.5:bundle={Path('bundles/versions/loop@1').resolve()}")
    await asyncio.to_thread(
        turnout, "experiment", "create", "--name", "was-it-better", "--on", "auto", "--unit", "user", *arms, *at
    )
    answers = await users.ask(40)
    assert {said[BUNDLE] for _, said in answers} == {"loop@1", "loop@2"}
    arm_of = {said["x-turnout-experiment"]: said[BUNDLE] for _, said in answers}
    assert arm_of == {"was-it-better/now": "loop@2", "was-it-better/before": "loop@1"}
    await asyncio.to_thread(turnout, "experiment", "stop", "was-it-better", *at)
    assert {said[BUNDLE] for _, said in await users.ask(8)} == {"loop@2"}

    turnout("rollback", *store, "--reason", "complaints")
    await until(client, lambda pool: pool["bundle"] == "loop@1")
    assert {said[BUNDLE] for _, said in await users.ask(8)} == {"loop@1"}
