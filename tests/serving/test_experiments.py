"""Experiments over real gateways: sticky on every replica, guarded, in force exactly as long as the database says."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import random
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from router import Policy
from router.bundle import load as load_bundle
from router.bundle import write
from serving import experiments
from serving.app import create_app
from serving.emulated_faults import Fault
from serving.emulator import EmulatorServer
from serving.experiment_command import experiment as command
from serving.experiment_status import NOT_SHOWN
from serving.explain_command import explain
from serving.records import RequestRecord
from serving.settings import Settings, load

ARMS = [{"name": "control", "share": 0.5}, {"name": "cheap", "share": 0.5, "threshold": 0.5}]
CHEAPER = {"name": "cheaper", "on": "auto", "unit": "user", "arms": ARMS}
#: What a text without digits goes to: at .75 (the preset of auto) and at .5.
ANSWERS = {"control": "medium", "cheap": "small"}
SECRETS = {"boss": "sk-turnout-boss-00000000000000000", "alice": "sk-turnout-alice-0000000000000000"}
KEYS = "".join(
    f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
    + ("admin = true\n" if name == "boss" else "")
    for name, secret in SECRETS.items()
)


@dataclasses.dataclass
class Served:
    """A gateway with a database."""

    app: object
    client: httpx.AsyncClient
    settings: Settings

    @property
    def experiments(self):
        return self.app.experiments

    async def ask(self, user: str = "ann", model: str = "auto", content: str = "Say hello.", **more: object):
        body = {"model": model, "user": user, "messages": [{"role": "user", "content": content}], **more}
        return await self.client.post("/v1/chat/completions", json=body)

    async def arm_of(self, user: str, **more: object) -> str | None:
        said = (await self.ask(user, **more)).headers.get("x-turnout-experiment")
        return said and said.partition("/")[2]

    async def post(self, path: str, body: object = None, **more):
        return await self.client.post(f"/v1/experiments{path}", json=body, **more)

    async def get(self, path: str = "", **more):
        return await self.client.get(f"/v1/experiments{path}", **more)

    def rows(self, columns: str) -> list[tuple[object, ...]]:
        assert self.app.gateway.records.flush()
        with closing(sqlite3.connect(self.settings.database_path())) as database:
            return database.execute(f"SELECT {columns} FROM request ORDER BY rowid").fetchall()


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(configure, listen, pool_toml, server_toml) -> Serve:
    """Return a context manager that runs a gateway with a database, over real HTTP where that is asked for."""

    @asynccontextmanager
    async def served(
        more: str = "", *, database: str = "turnout.sqlite", is_online: bool = False, **written: object
    ) -> AsyncIterator[Served]:
        server = server_toml.replace('database = ""', f'database = "{database}"')
        settings = configure(pool_toml + more, server=server, **written)
        app = create_app(settings, reread=lambda: load(settings.source), emulator=EmulatorServer(speed=0))
        if is_online:
            async with listen(app, settings) as url, httpx.AsyncClient(base_url=url) as client:
                yield Served(app, client, settings)
            return
        transport = httpx.ASGITransport(app)
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield Served(app, client, settings)

    return served


async def test_an_arm_decides_and_everything_says_so(serve) -> None:
    async with serve() as gateway:
        made = await gateway.post("", CHEAPER)
        assert made.status_code == 201
        assert made.json()["state"] == "running"
        seen = set()
        for i in range(12):
            user = f"user-{i}"
            said = await gateway.ask(user)
            arm = said.headers["x-turnout-experiment"].partition("/")[2]
            seen.add(arm)
            assert said.headers["x-turnout-candidate"] == ANSWERS[arm]
            assert said.headers["x-turnout-policy"].startswith("threshold=0.5" if arm == "cheap" else "threshold=0.75")
            asked = {"prompt": "Say hello.", "user": user}
            told = (await gateway.client.post("/v1/route", json=asked)).json()
            assert (told["experiment"], told["arm"], told["arm_share"]) == ("cheaper", arm, 0.5)
            assert told["candidate"] == ANSWERS[arm]
        assert seen == set(ANSWERS)
        rows = gateway.rows("experiment, arm, arm_share, unit, candidate, propensity")
        assert len(rows) == 12
        for experiment, arm, share, unit, candidate, propensity in rows:
            assert (experiment, share, propensity) == ("cheaper", 0.5, 1.0)
            assert candidate == ANSWERS[arm]
            assert len(unit) == 32
        assert len({row[3] for row in rows}) == 12
        database = gateway.settings.database_path()
    for path in (database, database.with_name(f"{database.name}-wal")):
        if path.exists():
            assert b"user-" not in path.read_bytes(), "whom it was for is nowhere on the disk"


async def test_who_asks_for_something_of_its_own_takes_no_part(serve) -> None:
    more = '[scenarios.web]\nthreshold = 0.8\n[scenarios.fixed]\ncandidate = "large"\n'
    async with serve(more) as gateway:
        await gateway.post("", CHEAPER)
        for extra in (
            {"turnout": {"threshold": 0.9}},
            {"turnout": {"preset": "price"}},
            {"model": "auto:price"},
            {"model": "small"},
            {"model": "scenario:web"},
        ):
            said = await gateway.ask(**extra)
            assert said.status_code == 200
            assert "x-turnout-experiment" not in said.headers, extra
        # What only limits leaves the policy to us.
        limited = await gateway.ask(turnout={"deny": ["small", "medium"]})
        assert "x-turnout-experiment" in limited.headers
        assert limited.headers["x-turnout-candidate"] == "large"
        by_scenario = {
            **CHEAPER,
            "name": "web",
            "on": "scenario:web",
            "arms": [{"name": "a", "share": 0.5, "preset": "price"}, {"name": "b", "share": 0.5, "candidate": "large"}],
        }
        fixed = {**by_scenario, "name": "fixed", "on": "scenario:fixed"}
        for definition in (by_scenario, fixed):
            assert (await gateway.post("", definition)).status_code == 201
            found = {}
            for i in range(12):
                said = await gateway.ask(f"u{i}", model=definition["on"])
                found[said.headers["x-turnout-experiment"]] = said.headers["x-turnout-candidate"]
            assert found == {f"{definition['name']}/a": "small", f"{definition['name']}/b": "large"}
        # Where the arm's candidate may not answer the policy goes on with the others.
        denied = {
            (await gateway.ask(f"u{i}", model="scenario:web", turnout={"deny": ["large"]})).status_code
            for i in range(8)
        }
        assert denied == {200}


@pytest.mark.parametrize("unit", ["key", "user", "conversation"])
async def test_arms_are_sticky_on_two_gateways_with_two_databases(serve, unit) -> None:
    definition, salt = {**CHEAPER, "unit": unit}, bytes(range(32))
    arms: list[list[str]] = []
    for database in ("one.sqlite", "two.sqlite", "two.sqlite"):
        async with serve(KEYS, database=database) as gateway:
            gateway.client.headers["authorization"] = f"Bearer {SECRETS['boss']}"
            if not await gateway.experiments.all():
                assert (await gateway.post("", {**definition, "salt": salt.hex()})).status_code == 201
            found = []
            for key in SECRETS.values():
                gateway.client.headers["authorization"] = f"Bearer {key}"
                for i in range(10):
                    found.append(await gateway.arm_of(f"u{i % 5}", content=f"Say {'x' * (i % 5)} hello."))
            arms.append(found)
    assert arms[0] == arms[1] == arms[2], "on the other replica, and after a restart"
    first, second = arms[0][:10], arms[0][10:]
    assert first[:5] == first[5:] and second[:5] == second[5:], "the same unit, the same arm"
    n_arms = len(set(first) | set(second))
    if unit == "key":
        assert len(set(first)) == len(set(second)) == 1
    else:
        assert n_arms == 2
        assert first != second, "a user of another key is another user"


async def test_a_turn_that_is_pending_stays_with_its_incumbent(serve) -> None:
    async with serve() as gateway:
        tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
        opening = [{"role": "user", "content": "Say hello."}]
        first = await gateway.client.post(
            "/v1/chat/completions", json={"model": "auto", "user": "u", "messages": opening, "tools": tools}
        )
        assert first.headers["x-turnout-candidate"] == "medium"
        everything = [{"name": "control", "share": 0.001}, {"name": "big", "share": 0.999, "candidate": "large"}]
        assert (await gateway.post("", {**CHEAPER, "unit": "conversation", "arms": everything})).status_code == 201
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages = [
            *opening,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
        ]
        body = {"model": "auto", "user": "u", "messages": messages, "tools": tools}
        pending = await gateway.client.post("/v1/chat/completions", json=body)
        assert pending.headers["x-turnout-experiment"] == "cheaper/big"
        assert pending.headers["x-turnout-candidate"] == "medium"
        fresh = await gateway.ask("u", content="Say something else.")
        assert fresh.headers["x-turnout-candidate"] == "large"
        assert fresh.headers["x-turnout-experiment"] == "cheaper/big"


async def test_whoever_took_part_is_counted_though_nobody_may_answer(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        for user in ("u1", "u2", "u3"):
            assert (await gateway.ask(user, turnout={"max_cost_usd": 0})).status_code == 400
        assert {row[0] for row in gateway.rows("experiment")} == {"cheaper"}
        readout = (await gateway.get("/cheaper")).json()["readout"]
        assert sum(arm["metrics"]["failures"]["n_requests"] for arm in readout["arms"]) == 3
        assert {arm["metrics"]["failures"]["value"] for arm in readout["arms"]} <= {1.0, None}


async def test_stop_promote_restart_and_what_others_see(serve) -> None:
    async with serve() as gateway, serve() as other:
        await gateway.post("", CHEAPER)
        assert await other.arm_of("ann") is None
        await other.experiments.follow()
        assert await other.arm_of("ann") == await gateway.arm_of("ann")
        refused = await other.post("", {**CHEAPER, "name": "another"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "on")
        again = await other.post("", {**CHEAPER, "on": "auto:price"})
        assert (again.status_code, again.json()["error"]["param"]) == (400, "name")
        promoted = (await gateway.post("/cheaper/promote", {"arm": "cheap"})).json()
        assert (promoted["state"], promoted["promoted"]) == ("promoted", "cheap")
        assert 'default = "cheaper-cheap"' in promoted["permanent"]
        assert "value = 0.5" in promoted["permanent"]
        twice = await gateway.post("/cheaper/promote", {"arm": "control"})
        assert (twice.status_code, twice.json()["error"]["param"]) == (400, "name")
        taken = await gateway.post("", {**CHEAPER, "name": "next"})
        assert (taken.status_code, taken.json()["error"]["param"]) == (400, "on"), "a promoted arm is in force"
    async with serve() as gateway:
        for i in range(6):
            said = await gateway.ask(f"u{i}")
            assert said.headers["x-turnout-candidate"] == "small"
            assert said.headers["x-turnout-experiment"] == "cheaper/cheap"
        assert set(gateway.rows("arm, arm_share, unit")[-6:]) == {("cheap", 1.0, None)}
        await gateway.app.reloader.reload()
        assert (await gateway.ask()).headers["x-turnout-candidate"] == "small", "a reload changes nothing"
        config = gateway.settings.source
        told = await asyncio.to_thread(CliRunner().invoke, explain, ["Say hello.", "--config", str(config)])
        assert "experiment cheaper: arm cheap (share 1)" in told.output
        stopped = (await gateway.post("/cheaper/stop", {"why": "done"})).json()
        assert (stopped["state"], stopped["why"]) == ("stopped", "done")
        assert (await gateway.ask()).headers["x-turnout-candidate"] == "medium"
        assert (await gateway.post("/cheaper/stop")).json()["error"]["param"] == "name"
        listed = (await gateway.get()).json()["data"]
        assert [(row["name"], row["state"]) for row in listed] == [("cheaper", "stopped")]
        with closing(sqlite3.connect(gateway.settings.database_path())) as database:
            assert database.execute("SELECT salt FROM experiment").fetchall() == [(None,)], "forgotten with its end"
        assert (await gateway.post("", {**CHEAPER, "name": "next"})).status_code == 201


async def test_a_reload_keeps_experiments_in_force(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        before = [await gateway.arm_of(f"u{i}") for i in range(10)]
        assert await gateway.app.reloader.reload()
        assert [await gateway.arm_of(f"u{i}") for i in range(10)] == before


async def test_a_guard_stops_an_arm_whose_provider_fails(serve, monkeypatch) -> None:
    monkeypatch.setattr(experiments, "LOOK_EVERY_S", 1e9)  # the guard acts when it is called here, and not before
    arms = [
        {"name": "control", "share": 0.4},
        {"name": "bad", "share": 0.4, "candidate": "small"},
        {"name": "other", "share": 0.2, "candidate": "large"},
    ]
    guards = [{"metric": "failures", "worse_by": 0.02}, {"metric": "quality", "worse_by": 0.1}]
    async with serve() as gateway:
        definition = {**CHEAPER, "arms": arms, "guards": guards, "metric": "failures", "salt": "5" * 64}
        assert (await gateway.post("", definition)).status_code == 201
        users, n_bad = {}, 0
        for i in range(560):
            # Two in five, never two in a row: a provider that is no worse is not left alone.
            fault = Fault(status=500) if n_bad % 5 in (0, 2) else None
            gateway.app.emulator.app.faults.put("small-at-provider", fault)
            user = f"u{i % 280}"
            said = await gateway.ask(user)
            users[user] = said.headers["x-turnout-experiment"].partition("/")[2]
            n_bad += users[user] == "bad"
        gateway.app.emulator.app.faults.put("small-at-provider", None)
        assert gateway.app.gateway.records.flush()
        await gateway.experiments.guard()
        said = (await gateway.get("/cheaper")).json()
        view, readout = said["experiment"], said["readout"]
        stopped = {arm["name"]: arm["why"] for arm in view["arms"] if arm["is_stopped"]}
        assert set(stopped) == {"bad"}
        assert "failures against the control" in stopped["bad"] and "allows +0.02" in stopped["bad"]
        assert view["state"] == "running", "the other arm goes on"
        by_arm = {arm["arm"]: arm for arm in readout["arms"]}
        assert by_arm["bad"]["metrics"]["failures"]["value"] > 0.3
        assert by_arm["control"]["metrics"]["failures"]["value"] == 0
        (worse,) = (row for row in readout["differences"] if (row["arm"], row["metric"]) == ("bad", "failures"))
        assert worse["says"] == "worse" and worse["low"] > 0.02
        n_units = {arm: figures["n_units"] for arm, figures in by_arm.items()}
        assert n_units == {arm: list(users.values()).count(arm) for arm in n_units}
        # Its units are the control's from now on, in deeds and not in the figures.
        (bad, *_) = (user for user, arm in users.items() if arm == "bad")
        again = await gateway.ask(bad)
        assert again.headers["x-turnout-experiment"] == "cheaper/control"
        assert again.headers["x-turnout-candidate"] == "medium"
        assert gateway.rows("arm_share")[-1][0] == pytest.approx(0.8)
        after = (await gateway.get("/cheaper")).json()["readout"]
        assert {arm["arm"]: arm["n_requests"] for arm in after["arms"]} == {
            arm["arm"]: arm["n_requests"] for arm in readout["arms"]
        }
        assert not after["sample_ratio"]["is_alarming"]
        refused = await gateway.post("/cheaper/promote", {"arm": "bad"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "arm")
        await gateway.post("/cheaper/stop", {"arm": "other"})
        ended = (await gateway.get("/cheaper")).json()["experiment"]
        assert ended["state"] == "stopped", "with its last arm but the control"


def put_records(path: Path, records: list[RequestRecord]) -> None:
    columns = ", ".join(RequestRecord._fields)
    marks = ", ".join("?" * len(RequestRecord._fields))
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(f"INSERT INTO request ({columns}) VALUES ({marks})", records)


def record(i: int, arm: str, unit: str, **more: object) -> RequestRecord:
    values = {"cost_usd": 0.01, "total_s": 1.0, "candidate": "medium", **more}
    return RequestRecord(
        f"r{i}", time.time(), "k", "auto", 200, values.pop("outcome", "ok"), False, experiment="cheaper", arm=arm,
        arm_share=0.5, unit=unit, **values,
    )  # fmt: skip


async def test_a_sample_ratio_that_cannot_be_chance_is_shown_and_bars_promotion(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        path = gateway.settings.database_path()
        put_records(path, [record(i, "control" if i % 10 < 6 else "cheap", f"u{i}") for i in range(1_500)])
        said = (await gateway.get("/cheaper")).json()
        ratio = said["readout"]["sample_ratio"]
        assert ratio["is_alarming"] and ratio["p_value"] < 1e-6 and ratio["shares"] == [0.6, 0.4]
        refused = await gateway.post("/cheaper/promote", {"arm": "cheap"})
        assert refused.status_code == 400 and "shares they were meant to" in refused.json()["error"]["message"]
        forced = await gateway.post("/cheaper/promote", {"arm": "cheap", "force": True})
        assert forced.json()["state"] == "promoted"


async def test_figures_are_those_of_the_records_whenever_they_are_read(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        path, draw = gateway.settings.database_path(), random.Random(7)
        records = []
        for i in range(3_000):
            unit = draw.randrange(400)
            arm = "cheap" if unit % 2 else "control"
            outcome = draw.choice(["ok"] * 8 + ["timeout", "caller_error", "client_disconnected"])
            cost = draw.choice([None, draw.lognormvariate(-5, 1) * (0.3 if arm == "cheap" else 1)])
            records.append(record(i, arm, f"u{unit}", outcome=outcome, cost_usd=cost, total_s=draw.random()))
        for start in range(0, 3_000, 700):
            put_records(path, records[start : start + 700])
            readout = (await gateway.get("/cheaper")).json()["readout"]
            seen = records[: start + 700]
            for arm in readout["arms"]:
                own = [one for one in seen if one.arm == arm["arm"]]
                known = [one.cost_usd for one in own if one.cost_usd is not None]
                answered = [one.total_s for one in own if one.outcome == "ok"]
                failed = [one.outcome == "timeout" for one in own]
                for metric, values in (("cost_usd", known), ("latency_s", answered), ("failures", failed)):
                    figure = arm["metrics"][metric]
                    assert figure["value"] == pytest.approx(sum(values) / len(values))
                    assert figure["n_requests"] == len(values)
                assert arm["n_units"] == len({one.unit for one in own})
        says = {row["metric"]: row["says"] for row in readout["differences"]}
        assert says == {
            "cost_usd": "better",
            "latency_s": NOT_SHOWN,
            "failures": NOT_SHOWN,
            "quality": "too early to say",
        }
        # What came after its end is no part of it, and a fresh look at all of it says the same.
        stopped = (await gateway.post("/cheaper/stop")).json()
        late = record(9_999, "cheap", "u1")._replace(time_unix_s=stopped["ended_unix_s"] + 1)
        put_records(path, [late])
        assert (await gateway.get("/cheaper")).json()["readout"] == readout


async def test_votes_count_once_each_and_as_they_are_now(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        path = gateway.settings.database_path()
        put_records(path, [record(i, "cheap" if i % 2 else "control", f"u{i % 200}") for i in range(400)])
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS feedback (request_id TEXT NOT NULL, key TEXT NOT NULL, "
                "source TEXT NOT NULL, kind TEXT NOT NULL, score REAL, grader TEXT, tags TEXT, "
                "time_unix_s REAL NOT NULL, "
                "PRIMARY KEY (request_id, key, source))"
            )

        def vote(i: int, key: str, score: float, source: str = "vote") -> None:
            with closing(sqlite3.connect(path)) as database, database:
                values = (f"r{i}", key, source, "rating", score, time.time())
                database.execute(
                    "INSERT OR REPLACE INTO feedback (request_id, key, source, kind, score, time_unix_s) VALUES "
                    "(?, ?, ?, ?, ?, ?)",
                    values,
                )

        async def quality() -> dict[str, tuple[float | None, int]]:
            readout = (await gateway.get("/cheaper")).json()["readout"]
            figures = {arm["arm"]: arm["metrics"]["quality"] for arm in readout["arms"]}
            return {arm: (figure["value"], figure["n_requests"]) for arm, figure in figures.items()}

        assert await quality() == {"control": (None, 0), "cheap": (None, 0)}
        vote(0, "k", 1.0)
        vote(2, "k", 0.5)
        vote(1, "k", 0.0)
        vote(3, "k", 0.9, source="signal")
        assert await quality() == {"control": (0.75, 2), "cheap": (0.0, 1)}
        vote(0, "k", 0.0)  # changed
        vote(0, "other", 1.0)  # of one request the mean counts
        vote(9_000, "k", 1.0)  # of a request that is none of this
        assert await quality() == {"control": (0.5, 2), "cheap": (0.0, 1)}


async def test_who_may_not_see_them_finds_nothing(serve) -> None:
    async with serve(KEYS) as gateway:
        boss, alice = ({"authorization": f"Bearer {secret}"} for secret in SECRETS.values())
        assert (await gateway.post("", CHEAPER, headers=boss)).status_code == 201
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {**CHEAPER, "name": "mine"}),
            ("GET", "/cheaper", None),
            ("GET", "/absent", None),
            ("POST", "/cheaper/stop", {}),
            ("POST", "/cheaper/promote", {"arm": "cheap"}),
        ):
            path = f"/v1/experiments{path}"
            hidden = await gateway.client.request(method, path, json=body, headers=alice)
            nowhere = await gateway.client.request(method, f"{path}/nowhere/at/all", json=body, headers=alice)
            assert hidden.status_code == nowhere.status_code == 404
            assert hidden.json() == nowhere.json()
            assert (await gateway.client.request(method, path, json=body)).status_code == 401
        assert (await gateway.get("/absent", headers=boss)).json()["error"]["code"] == "not_found"
        assert (await gateway.get("/cheaper", headers=boss)).json()["experiment"]["state"] == "running"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"on": "auto:absent"}, "on"),
        ({"on": "scenario:absent"}, "on"),
        ({"arms": [ARMS[0], {"name": "b", "share": 0.5, "preset": "absent"}]}, "arms.1.preset"),
        ({"arms": [ARMS[0], {"name": "b", "share": 0.5, "candidate": "absent"}]}, "arms.1.candidate"),
        ({"arms": [ARMS[0], {"name": "b", "share": 0.5, "bundle": "absent"}]}, "arms.1.bundle"),
        ({"arms": ARMS[:1]}, "arms"),
        ({"ends_at": "2020-01-01"}, "ends_at"),
        ({"salt": "short"}, "salt"),
    ],
)
async def test_what_does_not_exist_here_is_named(serve, changes, param) -> None:
    async with serve() as gateway:
        said = await gateway.post("", {**CHEAPER, **changes})
        assert (said.status_code, said.json()["error"]["param"]) == (400, param)
        assert (await gateway.get()).json()["data"] == []


async def test_another_bundle_decides_in_its_arm_and_is_what_it_was(serve, write_tiny_bundle, tmp_path) -> None:
    link = tmp_path / "challenger"
    link.symlink_to(write_tiny_bundle(tmp_path / "versions" / "tiny@2", "2"))
    arms = [ARMS[0], {"name": "next", "share": 0.5, "bundle": "challenger", "threshold": 0.5}]
    async with serve() as gateway:
        made = (await gateway.post("", {**CHEAPER, "arms": arms})).json()
        assert made["definition"]["arms"][1]["bundle"] == "versions/tiny@2", "the link is followed once"
        assert made["definition"]["arms"][1]["bundle_id"] == "tiny@2"
        found = {}
        for i in range(12):
            said = await gateway.ask(f"u{i}")
            arm = said.headers["x-turnout-experiment"].partition("/")[2]
            found[arm] = (said.headers["x-turnout-bundle"], said.headers["x-turnout-candidate"])
        assert found == {"control": ("tiny@1", "medium"), "next": ("tiny@2", "small")}
        assert set(gateway.rows("arm, bundle")) == {("control", "tiny@1"), ("next", "tiny@2")}
    (tmp_path / "versions" / "tiny@2" / "CARD.md").write_text("changed by somebody")
    async with serve() as gateway:
        assert await gateway.arm_of("u0") is None, "left out whole"
        view = (await gateway.get("/cheaper")).json()["experiment"]
        assert view["state"] == "running" and "CARD.md" in view["problem"]
        assert (await gateway.ask()).status_code == 200


@pytest.mark.parametrize(
    ("on", "more"),
    [("auto:thrifty", ""), ("scenario:web", '[scenarios.web]\npreset = "thrifty"\n')],
)
async def test_a_bundle_that_lacks_the_preset_in_question_is_refused(
    serve, on, more, write_tiny_bundle, tiny_bundle_files, tmp_path
) -> None:
    manifest = load_bundle(write_tiny_bundle(tmp_path / "next", "2")).manifest
    presets = {**manifest.presets, "thrifty": Policy("threshold", 0.5, "thrifty")}
    write(tmp_path / "champion", dataclasses.replace(manifest, version="1", presets=presets), tiny_bundle_files)
    arms = [ARMS[0], {"name": "next", "share": 0.5, "bundle": "next"}]
    async with serve(more, bundle=tmp_path / "champion") as gateway:
        said = await gateway.post("", {**CHEAPER, "on": on, "arms": arms})
        assert {(await gateway.ask(f"u{i}", model=on)).status_code for i in range(8)} == {200}
        assert (said.status_code, said.json()["error"]["param"]) == (400, "arms.1")
        arms[1]["threshold"] = 0.6
        assert (await gateway.post("", {**CHEAPER, "on": on, "arms": arms})).status_code == 201
        assert {(await gateway.ask(f"u{i}", model=on)).status_code for i in range(8)} == {200}


@pytest.mark.parametrize("change", ["promote", "stop"])
async def test_an_arm_that_nobody_comes_to_any_more_holds_nothing_up(
    serve, change, write_tiny_bundle, tmp_path
) -> None:
    write_tiny_bundle(tmp_path / "next", "2")
    arms = [*({**arm, "share": 0.4} for arm in ARMS), {"name": "next", "share": 0.2, "bundle": "next"}]
    async with serve() as gateway:
        assert (await gateway.post("", {**CHEAPER, "arms": arms})).status_code == 201
        arm = {"promote": "cheap", "stop": "next"}[change]
        assert (await gateway.post(f"/cheaper/{change}", {"arm": arm})).status_code == 200
    shutil.rmtree(tmp_path / "next")
    async with serve() as gateway:
        assert (await gateway.get("/cheaper")).json()["experiment"]["problem"] is None
        came_to = {await gateway.arm_of(f"u{i}") for i in range(20)}
        assert came_to == {"promote": {"cheap"}, "stop": {"control", "cheap"}}[change]


async def test_who_may_not_use_a_losing_arms_candidate_gets_what_was_promoted(serve) -> None:
    keys = KEYS.replace('name = "alice"', 'name = "alice"\nmodels = ["small", "medium"]')
    arms = [{"name": "control", "share": 0.5, "candidate": "large"}, ARMS[1]]
    async with serve(keys) as gateway:
        boss, alice = ({"authorization": f"Bearer {secret}"} for secret in SECRETS.values())
        await gateway.post("", {**CHEAPER, "arms": arms}, headers=boss)
        body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}

        async def by_alice() -> str | None:
            said = await gateway.client.post("/v1/chat/completions", json=body, headers=alice)
            return said.headers.get("x-turnout-experiment")

        assert await by_alice() is None
        await gateway.post("/cheaper/promote", {"arm": "cheap"}, headers=boss)
        assert await by_alice() == "cheaper/cheap"


async def test_without_a_database_there_are_none(serve) -> None:
    async with serve(database="") as gateway:
        said = await gateway.post("", CHEAPER)
        assert said.status_code == 400 and "server.database" in said.json()["error"]["message"]
        assert (await gateway.get()).json()["data"] == []
        assert (await gateway.get("/cheaper")).status_code == 404


async def test_a_database_that_cannot_be_read_leaves_what_was_known(serve) -> None:
    async with serve() as gateway:
        await gateway.post("", CHEAPER)
        before = await gateway.arm_of("ann")
        path = gateway.settings.database_path()
        path.rename(path.with_suffix(".away"))
        path.mkdir()
        await gateway.experiments.follow()
        assert await gateway.arm_of("ann") == before
        assert (await gateway.get("/cheaper")).status_code == 503
        path.rmdir()
        path.with_suffix(".away").rename(path)
        await gateway.experiments.follow()
        assert (await gateway.get("/cheaper")).status_code == 200


async def test_an_end_that_was_set_is_kept(serve) -> None:
    async with serve() as gateway:
        # One that a newer program made holds up no other's end.
        await gateway.post("", {**CHEAPER, "name": "newer", "on": "auto:price"})
        with closing(sqlite3.connect(gateway.settings.database_path())) as database, database:
            database.execute("UPDATE experiment SET definition = '{}', created_unix_s = 0")
        await gateway.experiments.follow()
        soon = time.time() + 1.0
        definition = {**CHEAPER, "ends_at": datetime.fromtimestamp(soon, UTC).isoformat()}
        assert (await gateway.post("", definition)).status_code == 201
        assert await gateway.arm_of("ann") is not None
        await asyncio.sleep(max(0.0, soon - time.time()) + 0.02)
        await gateway.experiments.guard()
        assert await gateway.arm_of("ann") is None
        view = (await gateway.get("/cheaper")).json()["experiment"]
        assert view["state"] == "stopped" and view["why"].startswith("it was to end at")


async def test_the_command_does_all_of_it(serve, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "cheaper.toml"
    file.write_text(
        'name = "cheaper"\non = "auto"\nunit = "user"\nends_at = 2099-01-01T00:00:00Z\n'
        '[[arms]]\nname = "control"\nshare = 0.5\n[[arms]]\nname = "cheap"\nshare = 0.5\nthreshold = 0.6\n'
    )
    async with serve(is_online=True) as gateway:
        url = str(gateway.client.base_url)

        async def run(*arguments: str, is_ok: bool = True) -> str:
            done = await asyncio.to_thread(CliRunner().invoke, command, [*arguments, "--url", url])
            assert (done.exit_code == 0) is is_ok, done.output
            return done.output

        assert "there is no experiment" in await run("list")
        assert "cheaper runs on auto, by user" in await run("create", str(file), "--guard", "cost_usd:20%")
        assert "arms.1.threshold" in await run(
            "create", "--name", "x", "--on", "auto", "--arm", "a:0.5", "--arm", "b:0.5:threshold=7", is_ok=False
        )
        assert "expected NAME:SHARE" in await run("create", "--name", "x", "--arm", "a:0.5:cheap", is_ok=False)
        path = gateway.settings.database_path()
        put_records(path, [record(i, "cheap" if i % 2 else "control", f"u{i}", total_s=1 + i % 7) for i in range(200)])
        said = await run("status", "cheaper")
        assert "200 units, 200 requests" in said and "threshold=0.6" in said
        assert NOT_SHOWN in said and "too early to say" in said and "MISMATCH" not in said
        assert json.loads(await run("status", "cheaper", "--json"))["readout"]["n_units"] == 200
        assert "no experiment is named 'absent'" in await run("status", "absent", is_ok=False)
        assert "running" in await run("list")
        promoted = await run("promote", "cheaper", "--arm", "cheap")
        assert "value = 0.6" in promoted and "turnout experiment stop cheaper" in promoted
        assert "auto goes by the settings" in await run("stop", "cheaper")
    assert "no gateway answers" in CliRunner().invoke(command, ["list", "--url", "http://127.0.0.1:1"]).output
