"""Retention: what of a prompt is kept, at which level, where, and for how long. Anything unclear is not kept."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from router.lexical import LexicalEncoder
from serving import dials, logs
from serving.app import create_app
from serving.emulated_faults import Fault
from serving.errors import InvalidRequest, SettingsError
from serving.expiry import Expiry
from serving.log_settings import DAY_S, LogSettings
from serving.recording import MAX_PROMPT_BYTES
from serving.records import RETENTIONS, RequestRecord, Retained
from serving.storage.record_store import SqliteRecordStore
from serving.storage.storage import NullStorage, SqliteStorage

DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "default"
SHIPPED = "".join(
    f'[[candidates]]\nname = "{name}"\ndeployments = [{{ provider = "emulator", model = "m" }}]\n'
    for name in ("gpt-4o-2024-05-13", "phi-3-mini")
)
SECRETS = {level: f"sk-turnout-{level}-0000000000000000" for level in (*RETENTIONS, "unsaid")}
KEYS = "".join(
    f'\n[[keys]]\nname = "{level}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\n'
    + ("" if level == "unsaid" else f'retention = "{level}"\n')
    for level, secret in SECRETS.items()
)
CANARY = "ZQXCANARY"


def as_key(level: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRETS[level]}", **{f"x-turnout-{name}": said for name, said in more.items()}}


@pytest.mark.parametrize("level", RETENTIONS)
async def test_what_is_kept_is_what_the_key_has_chosen(start, level) -> None:
    async with start(SHIPPED + KEYS, bundle=DEFAULT_BUNDLE) as gateway:
        assert (await gateway.chat("What is 17 * 23?", headers=as_key(level))).status_code == 200
        (record,), kept = gateway.records.kept, gateway.records.retained
        bundle = gateway.gateway.state.router.bundle
    assert record.retention == level
    if level == "none":
        assert not kept and record.task is None
        return
    (row,) = kept
    assert record.task in bundle.manifest.tasks and 0 < row.task_probability <= 1
    assert (row.request_id, row.time_unix_s, row.level) == (record.id, record.time_unix_s, level)
    assert row.prompt == (None if level == "features" else "What is 17 * 23?")
    features = np.frombuffer(row.features, "<f2").astype(np.float32)
    assert np.allclose(features, bundle.encoder.encode(["What is 17 * 23?"])[0], rtol=1e-3, atol=1e-4)
    assert row.encoder == bundle.manifest.encoder_id
    assert row.encoder.startswith("lexical-") and len(row.encoder) == len("lexical-") + 12


async def test_features_are_computed_once(start, monkeypatch) -> None:
    async with start(SHIPPED + KEYS, bundle=DEFAULT_BUNDLE) as gateway:
        n_computed, encode = [], LexicalEncoder.encode
        monkeypatch.setattr(LexicalEncoder, "encode", lambda self, texts: n_computed.append(1) or encode(self, texts))
        for _ in range(3):
            await gateway.chat("What is 17 * 23?", headers=as_key("features"))
        assert len(gateway.records.retained) == 3 and len(n_computed) == 1


async def test_a_key_that_says_nothing_follows_the_log_table(start, pool_toml) -> None:
    for table, expected in (("", "none"), ('[log]\nretention = "content"\n', "content")):
        async with start(table + pool_toml + KEYS) as gateway:
            await gateway.chat(headers=as_key("unsaid"))
            assert [record.retention for record in gateway.records.kept] == [expected]
        async with start(table + pool_toml) as gateway:  # and so does who needs no key
            await gateway.chat()
            assert [record.retention for record in gateway.records.kept] == [expected]


@pytest.mark.parametrize("most", RETENTIONS)
@pytest.mark.parametrize("asked", RETENTIONS)
async def test_a_request_may_only_tighten(start, pool_toml, most, asked) -> None:
    async with start(pool_toml + KEYS) as gateway:
        by_header = await gateway.chat(headers=as_key(most, retention=asked))
        by_body = await gateway.chat(headers=as_key(most), turnout={"retention": asked})
        records, kept = gateway.records.kept, gateway.records.retained
    if RETENTIONS.index(asked) > RETENTIONS.index(most):
        for answer in (by_header, by_body):
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "retention")
            assert f"this key has {most} kept" in answer.json()["error"]["message"]
        assert [record.retention for record in records] == ["none"] * 2 and not kept
        return
    assert (by_header.status_code, by_body.status_code) == (200, 200)
    assert [record.retention for record in records] == [asked] * 2
    assert [row.level for row in kept] == ([] if asked == "none" else [asked] * 2)


def test_of_header_and_body_the_lesser_counts_and_nonsense_is_refused() -> None:
    header = [(b"x-turnout-retention", b"features")]
    assert dials.read({"retention": "content"}, header).retention == "features"
    assert dials.read({"retention": "none"}, header).retention == "none"
    assert dials.read(None).retention is None
    for extension, headers in ((None, [(b"x-turnout-retention", b"all")]), ({"retention": True}, [])):
        with pytest.raises(InvalidRequest, match="must be one of none, features, content"):
            dials.read(extension, headers)


def test_a_level_that_is_none_is_refused_in_the_settings(configure, pool_toml) -> None:
    with pytest.raises(SettingsError, match=r"log\.retention = 'all': expected one of"):
        configure('[log]\nretention = "all"\n' + pool_toml)
    with pytest.raises(SettingsError, match=r"log\.keep_retained_for_days = -1: expected a number of at least 0"):
        configure("[log]\nkeep_retained_for_days = -1\n" + pool_toml)


@pytest.mark.parametrize("text", ["word " * 10_000, "ü" * 20_000, "a\x00b", "half \ud83d of a pair"], ids=len)
async def test_of_a_prompt_is_kept_what_a_database_can_hold(start, pool_toml, tmp_path, text) -> None:
    store = SqliteRecordStore(tmp_path / "turnout.sqlite")
    async with start(pool_toml + KEYS, records=store) as gateway:
        # Half a pair is no JSON text; what reads it otherwise is not to stop the store either.
        exchange_text = text.encode("utf-8", "replace").decode()
        assert (await gateway.chat(exchange_text, headers=as_key("content"))).status_code == 200
        assert store.flush()
        with closing(sqlite3.connect(tmp_path / "turnout.sqlite")) as database:
            ((prompt,),) = database.execute("SELECT prompt FROM retained").fetchall()
        assert store.status().n_dropped == 0
    assert len(prompt.encode()) <= MAX_PROMPT_BYTES
    read = exchange_text.strip()
    assert prompt == read if len(read.encode()) <= MAX_PROMPT_BYTES else prompt.startswith(read[:6_000])
    assert prompt.endswith(read[-1_000:])


async def test_nothing_is_kept_of_embeddings_and_of_what_was_not_decided(start, pool_toml) -> None:
    embedder = (
        '\n[[candidates]]\nname = "embed"\nembeddings = true\n'
        'deployments = [{ provider = "emulator", model = "embed-there" }]\n'
    )
    async with start(pool_toml + embedder + KEYS) as gateway:
        asked = {"model": "embed", "input": CANARY}
        assert (await gateway.client.post("/v1/embeddings", json=asked, headers=as_key("content"))).status_code == 200
        more = await gateway.client.post("/v1/embeddings", json=asked, headers=as_key("none", retention="content"))
        assert more.status_code == 400
        assert (await gateway.chat(CANARY, model="nobody", headers=as_key("content"))).status_code == 404
        assert [record.retention for record in gateway.records.kept] == ["none"] * 3
        assert not gateway.records.retained


async def test_a_decided_request_that_failed_keeps_what_its_level_says(start, pool_toml) -> None:
    async with start(pool_toml + KEYS) as gateway:
        gateway.provider.faults.put("*", Fault(status=500))
        assert (await gateway.chat("Say hello.", headers=as_key("content"))).status_code >= 500
        (row,) = gateway.records.retained
        assert row.prompt == "Say hello."


def canaries(api: str, stream: bool) -> tuple[str, dict, list[str]]:
    """Return a path, a body with a canary in every part of it, and the canaries."""
    n = iter(range(100))
    made: list[str] = []

    def canary(said: str = "") -> str:
        made.append(f"{CANARY}{next(n):02d}")
        return f"{said}{made[-1]}"

    tool = {"type": "object", "properties": {canary(): {"type": "string", "description": canary()}}}
    common = {"stream": stream, "metadata": {"tag": canary()}}
    if api == "messages":
        return "/v1/messages", {
            "model": "auto", "max_tokens": 100, "system": canary(), "stream": stream,
            "metadata": {"user_id": canary()},
            "tools": [{"name": canary(), "description": canary(), "input_schema": tool}],
            "messages": [
                {"role": "user", "content": canary()},
                {"role": "assistant", "content": [{"type": "text", "text": canary()}]},
                {"role": "user", "content": [{"type": "text", "text": canary("PROMPT")}]},
            ],
        }, made  # fmt: skip
    if api == "responses":
        return "/v1/responses", {
            "model": "auto", "instructions": canary(), **common,
            "tools": [{"type": "function", "name": canary(), "description": canary(), "parameters": tool}],
            "input": [{"role": "user", "content": canary()}, {"role": "user", "content": canary("PROMPT")}],
        }, made  # fmt: skip
    return "/v1/chat/completions", {
        "model": "auto", "user": canary(), **common, "store": False,
        "tools": [{"type": "function", "function": {"name": canary(), "description": canary(), "parameters": tool}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": canary(), "schema": tool}},
        "messages": [
            {"role": "system", "content": canary()},
            {"role": "user", "content": canary(), "name": canary()},
            {"role": "assistant", "content": canary(), "tool_calls": [
                {"id": canary(), "type": "function", "function": {"name": canary(), "arguments": canary()}}
            ]},
            {"role": "tool", "tool_call_id": made[-3], "content": canary()},
            {"role": "user", "content": [{"type": "text", "text": canary("PROMPT")}]},
        ],
    }, made  # fmt: skip


@contextmanager
def logging_everything() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    logs.configure("debug")
    try:
        yield
    finally:
        root.handlers, root.level = before[0], before[1]


FAULTS = {
    "answered": None,
    "refused": Fault(status=400),
    "broken": Fault(status=500),
    "cut": Fault(cut_after_events=2),
    "garbage": Fault(garbage=True),
}


@pytest.mark.parametrize("level", ["none", "content"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_part_of_a_request_is_anywhere_but_in_what_is_retained(
    start, pool_toml, tmp_path, capsys, level, fault
) -> None:
    path = tmp_path / "turnout.sqlite"
    store = SqliteRecordStore(path)
    seen: list[str] = []
    with logging_everything():
        async with start(pool_toml + KEYS, records=store) as gateway:
            if FAULTS[fault] is not None:
                gateway.provider.faults.put("*", FAULTS[fault])
            for api in ("chat", "messages", "responses"):
                for stream in (False, True):
                    url, body, made = canaries(api, stream)
                    headers = as_key(level, conversation=f"{CANARY}conversation")
                    headers |= dict.fromkeys(("x-canary", "user-agent", "idempotency-key"), f"{CANARY}{api}{stream}")
                    answer = await gateway.client.post(f"{url}?q={CANARY}query", json=body, headers=headers)
                    assert answer.status_code < 600
                    seen += made
            refused = await gateway.chat(CANARY, headers=as_key(level), turnout={CANARY: 1})
            assert refused.status_code == 400
            assert store.flush() and store.status().n_dropped == 0
            metrics = (await gateway.client.get("/metrics", headers=as_key(level))).text
            pool = (await gateway.client.get("/v1/pool", headers=as_key(level))).text
            files = b"".join(file.read_bytes() for file in tmp_path.glob("turnout.sqlite*"))
            with closing(sqlite3.connect(path)) as database:
                records = database.execute("SELECT * FROM request").fetchall()
                prompts = [prompt for (prompt,) in database.execute("SELECT prompt FROM retained")]
    assert len(records) == 7 and len(seen) > 50
    logged = capsys.readouterr().err
    assert '"event":"request"' in logged
    for said in (logged, metrics, pool, repr(records)):
        assert CANARY not in said
    if level == "none":
        assert CANARY.encode() not in files and not prompts
    else:
        assert len(prompts) == 6
        assert all(prompt.startswith(f"PROMPT{CANARY}") and len(prompt) == 17 for prompt in prompts)
        assert files.count(CANARY.encode()) >= 6


def records_of(store: SqliteStorage, days: int, now: float) -> None:
    """Keep a record and a prompt of each of the last days."""
    for day in range(days):
        record = RequestRecord(f"r{day:03d}", now - day * DAY_S, "k", "auto", 200, "ok", False, retention="content")
        prompt = f"{CANARY}-{day:03d} " * 200
        store.records.add(record, Retained(record.id, record.time_unix_s, "content", prompt, b"\x01" * 600))
    assert store.writer.flush()


def files_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


async def test_what_has_expired_leaves_the_files_and_the_rest_stays(tmp_path) -> None:
    path, now = tmp_path / "turnout.sqlite", time.time()
    store = SqliteStorage(path)
    store.open()
    records_of(store, 100, now)
    assert f"{CANARY}-099".encode() in files_of(path)
    settings = LogSettings(keep_retained_for_days=29.5)
    assert await Expiry(store, lambda: settings).expire(now) == 70
    left = files_of(path)
    for day in range(100):
        assert (f"{CANARY}-{day:03d}".encode() in left) == (day < 30)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM request").fetchone() == (100,)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    # A prompt never outlives its record.
    settings = LogSettings(keep_retained_for_days=0, keep_records_for_days=9.5)
    assert await Expiry(store, lambda: settings).expire(now) == 90 + 20
    left = files_of(path)
    assert f"{CANARY}-009".encode() in left and f"{CANARY}-010".encode() not in left and b"r010" not in left
    assert await Expiry(store, LogSettings).expire(now) == 0
    store.close()


async def test_an_experiment_that_runs_keeps_its_records(tmp_path) -> None:
    storage = SqliteStorage(tmp_path / "kept.sqlite")
    storage.open()
    for i in range(4):
        storage.records.add(RequestRecord(f"req_{i}", float(i), "k", "auto", 200, "ok", False))
    columns = "name, acts_on, definition, state, halted, why, created_unix_s, changed_unix_s"
    row = f"INSERT INTO experiment ({columns}) VALUES ('a', 'auto', '{{}}', 'running', '{{}}', '', 2.0, 2.0)"
    await storage.writer.change(lambda d: d.execute(row) and None)

    def left(database: sqlite3.Connection) -> list[str]:
        return [name for (name,) in database.execute("SELECT id FROM request ORDER BY id")]

    await storage.expire(records_before_unix_s=9.0, retained_before_unix_s=9.0)
    assert await storage.writer.read(left) == ["req_2", "req_3"]
    await storage.writer.change(lambda d: d.execute("UPDATE experiment SET state = 'stopped'") and None)
    await storage.expire(records_before_unix_s=9.0, retained_before_unix_s=9.0)
    assert await storage.writer.read(left) == []
    storage.close()


async def test_a_reader_delays_what_leaves_the_log_and_the_next_round_finishes(tmp_path) -> None:
    path, now = tmp_path / "turnout.sqlite", time.time()
    store = SqliteStorage(path)
    store.open()
    records_of(store, 50, now)
    expiry = Expiry(store, lambda: LogSettings(keep_retained_for_days=0.5))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM retained").fetchone() == (50,)
        assert await expiry.expire(now) == 49
        assert f"{CANARY}-049".encode() in files_of(path)
    assert await expiry.expire(now) == 0
    assert f"{CANARY}-049".encode() not in files_of(path)
    store.close()


async def test_the_gateway_forgets_by_itself(configure, pool_toml, tmp_path) -> None:
    path, now = tmp_path / "turnout.sqlite", time.time()
    store = SqliteStorage(path)
    store.open()
    records_of(store, 40, now)
    store.close()
    settings = configure(pool_toml, server=SERVER.replace("DATABASE", str(path)))
    app = create_app(settings)
    async with app.lifespan():
        for _ in range(100):
            if f"{CANARY}-035".encode() not in files_of(path):
                break
            await asyncio.sleep(0.02)
    assert f"{CANARY}-035".encode() not in files_of(path) and f"{CANARY}-005".encode() in files_of(path)


async def test_a_disk_that_fails_is_said_and_tried_again(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("serving.storage.writer.PATIENCE_S", 0.2)
    store = SqliteStorage(tmp_path / "missing" / "turnout.sqlite")
    store.open()
    expiry = Expiry(store, lambda: LogSettings(keep_retained_for_days=0.5))
    with caplog.at_level(logging.WARNING, "turnout"):
        assert await expiry.expire(time.time()) == 0
    assert any(record.msg == "expiry_failing" for record in caplog.records)
    (tmp_path / "missing").mkdir()
    assert store.writer.flush()
    records_of(store, 2, time.time())
    assert await expiry.expire(time.time()) == 1
    store.close()


async def test_nothing_kept_is_nothing_to_forget() -> None:
    storage = NullStorage()
    storage.open()
    assert await Expiry(storage, LogSettings).expire(time.time()) == 0
    storage.close()


SERVER = """
[server]
port = 0
bundle = "{bundle}"
database = "DATABASE"
watch_bundle_s = {watch_bundle_s}
{settings}

[[providers]]
name = "emulator"
emulated = true
"""
