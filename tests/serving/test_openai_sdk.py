"""The openai package, unchanged, against a real server."""

from __future__ import annotations

import asyncio

import openai
import pytest


def client_of(running) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{running.client.base_url}/v1", api_key="none-needed", max_retries=0)


async def test_it_gets_an_answer(online) -> None:
    async with client_of(online) as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="auto",
            messages=[{"role": "user", "content": "Say hello."}],
            extra_body={"turnout": {"threshold": 0.5}},
        )
    completion = answer.parse()
    assert answer.headers["x-turnout-candidate"] == "small"
    assert completion.choices[0].message.content.startswith("[emulated")
    assert completion.usage.completion_tokens > 0
    assert completion._request_id == online.records.kept[0].id


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_it_streams(online, asks_usage: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}
    async with client_of(online) as client:
        stream = await client.chat.completions.create(
            model="auto:price", messages=[{"role": "user", "content": "Say hello."}], stream=True, **options
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.startswith("[emulated")
    assert bool(chunks[-1].usage) is asks_usage
    assert online.records.kept[0].outcome == "ok"


def sync_texts(url: str) -> tuple[str, str]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none-needed", max_retries=0) as client:
        asked = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        parts = client.chat.completions.create(**asked, stream=True)
        return whole, "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


async def test_the_synchronous_client_gets_the_same_text_either_way(online) -> None:
    whole, streamed = await asyncio.to_thread(sync_texts, str(online.client.base_url))
    assert whole == streamed


async def test_it_raises_the_right_errors(online) -> None:
    asked = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}
    async with client_of(online) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(**asked, extra_body={"emulate": {"status": 429, "retry_after_s": 3}})
        assert limited.value.response.headers["retry-after"] == "3"
        assert limited.value.code == "rate_limit_exceeded"
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(**{**asked, "model": "absent"})
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(**asked, max_tokens=0)
        assert refused.value.param == "max_tokens"
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(**asked, extra_body={"emulate": {"hang": False, "status": 500}})


@pytest.mark.parametrize("fault", [{"cut_after_events": 3}, {"truncate": True}, {"error_after_events": 3}], ids=str)
async def test_a_stream_that_breaks_raises_after_what_came_before(online, fault) -> None:
    async with client_of(online) as client:
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Say hello."}],
            stream=True,
            extra_body={"emulate": fault},
        )
        seen = 0
        with pytest.raises(openai.APIError):
            async for _ in stream:
                seen += 1
    assert seen > 0


async def test_a_stream_closed_early_stops_the_provider(online) -> None:
    async with client_of(online) as client:
        stream = await client.chat.completions.create(
            model="auto",
            messages=[{"role": "user", "content": "Say hello."}],
            stream=True,
            extra_body={"emulate": {"hang_after_events": 2}},
        )
        await anext(aiter(stream))
        await stream.close()
    async with asyncio.timeout(10):
        while online.provider.counts()["n_cancelled"] != 1:
            await asyncio.sleep(0.005)


async def test_it_lists_models(online) -> None:
    async with client_of(online) as client:
        assert {model.id async for model in client.models.list()} >= {"auto", "auto:price", "large"}
        assert (await client.models.retrieve("auto:price")).id == "auto:price"
