"""A real gateway before a provider whose words a test decides, all in the test's own loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from serving.app import create_app
from serving.commands import server_of
from serving.records import NullRecordStore
from serving.settings import load
from training.labelling.confinement import Confinement, Limits
from training.labelling.graders.registry import graders_of
from training.labelling.pipeline import label
from training.labelling.question import Question
from training.labelling.settings import LabelSettings
from training.labelling.summary import Summary

CONFIG = """
[server]
port = 0
bundle = "{bundle}"
database = ""
max_attempts = {max_attempts}
watch_bundle_s = 0

[[providers]]
name = "own"
base_url = "{url}/v1"
apis = ["chat"]
"""
CANDIDATE = """
[[candidates]]
name = "{name}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = {usd}
deployments = [{{ provider = "own", model = "{name}" }}]
{more}
"""


@dataclass
class Provider:
    """Speaks Chat Completions; ``say`` makes the words, or an HTTP status, of a model and a conversation."""

    say: Callable[[str, list[dict]], str | int] = lambda model, messages: "hello"
    n_output_tokens: int = 10
    finish: str = "stop"
    asked: list[dict] = field(default_factory=list)
    most_at_once: int = 0
    delay_s: float = 0.0
    _n_at_once: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        self._n_at_once += 1
        self.most_at_once = max(self.most_at_once, self._n_at_once)
        try:
            await asyncio.sleep(self.delay_s)
            said = self.say(body["model"], body["messages"])
        finally:
            self._n_at_once -= 1
        if isinstance(said, int):
            message = "use max_completion_tokens instead" if said == 400 else "no"
            return web.json_response({"error": {"message": message, "type": "t", "code": "c"}}, status=said)
        usage = {"prompt_tokens": 20, "completion_tokens": self.n_output_tokens}
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": self.finish}
        told = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return web.json_response({**told, "usage": usage})

    def n_asked(self, model: str) -> int:
        return sum(body["model"] == model for body in self.asked)


@dataclass
class Stand:
    """What a test needs to label."""

    provider: Provider
    url: str
    out: Path

    async def label(self, questions: Sequence[Question], **settings: object) -> Summary:
        told = {"out": self.out, "max_usd": 1.0, "n_judge_checks": 0, "retry_wait_s": 0.01, **settings}
        confinement = Confinement(Limits())
        graders = graders_of("chrf", confinement)
        return await label(questions, LabelSettings(**told), graders, confinement, self.url, None)

    def labels(self) -> dict[tuple[str, str], dict]:
        lines = [json.loads(line) for line in (self.out / "labels.jsonl").read_text().splitlines()]
        return {(line["prompt_id"], line["candidate"]): line for line in lines}


@asynccontextmanager
async def provided(provider: Provider) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def served(config: Path) -> AsyncIterator[str]:
    settings = load(config)
    is_ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = server_of(create_app(settings, records=NullRecordStore()), settings, ready=is_ready.set_result)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, is_ready}, return_when=asyncio.FIRST_COMPLETED)
    assert is_ready.done(), "the server did not start"
    try:
        yield f"http://127.0.0.1:{is_ready.result()}"
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path) -> Callable[..., AbstractAsyncContextManager[Stand]]:
    """Return a context manager: candidates ``good``, ``bad`` and ``judge``, at 1, 1 and 10 USD per million tokens."""

    @asynccontextmanager
    async def standing(bad: str = "", more: str = "", max_attempts: int = 1) -> AsyncIterator[Stand]:
        provider = Provider()
        async with provided(provider) as url:
            config = tmp_path / "turnout.toml"
            rows = (("good", 1.0, ""), ("bad", 1.0, bad), ("judge", 10.0, ""))
            pool = "".join(CANDIDATE.format(name=name, usd=usd, more=besides) for name, usd, besides in rows)
            config.write_text(CONFIG.format(bundle=tiny_bundle, url=url, max_attempts=max_attempts) + pool + more)
            async with served(config) as root:
                yield Stand(provider, root, tmp_path / "table")

    return standing


@pytest.fixture
async def stand(start: Callable[..., AbstractAsyncContextManager[Stand]]) -> AsyncIterator[Stand]:
    async with start() as standing:
        yield standing


def sums(n: int) -> list[Question]:
    """Make n questions of arithmetic, each with its answer."""
    rows = [(f"q{i}", f"What is {i} + 7?", str(i + 7)) for i in range(n)]
    return [
        Question(name, [{"role": "user", "content": text}], "numeric", task="arithmetic", reference=right)
        for name, text, right in rows
    ]


def adds(model: str, messages: list[dict]) -> str:
    """Say the sum, or one too many where the model is bad."""
    left, right = (int(word) for word in messages[-1]["content"].rstrip("?").split()[2::2])
    return f"It is {left + right + (model == 'bad')}."


@pytest.fixture
def questions() -> Callable[[int], list[Question]]:
    return sums


@pytest.fixture
def adding() -> Callable[[str, list[dict]], str]:
    return adds
