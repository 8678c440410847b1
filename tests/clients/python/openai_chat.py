"""The openai package: chat completions and models."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise

import openai
from pydantic import BaseModel
from trial import (
    FINAL_TEXT,
    OTHER_TOOL,
    QUESTION,
    STRUCTURED_QUESTION,
    TOOL,
    TOOL_QUESTION,
    Gateway,
    is_made_up,
    raises,
    run,
    weather,
)

ASKED = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
TOOLS, OTHER_TOOLS = ([{"type": "function", "function": {**tool, "strict": True}}] for tool in (TOOL, OTHER_TOOL))


class Person(BaseModel):
    name: str
    age: int


@cache
def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.v1, api_key=gateway.key, max_retries=0)


@cache
def whole(gateway: Gateway) -> object:
    answer = client_of(gateway).chat.completions.create(model=gateway.model, messages=ASKED)
    assert is_made_up(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer._request_id
    return {"text": answer.choices[0].message.content, "usage": answer.usage.total_tokens}


def streamed(gateway: Gateway) -> object:
    stream = client_of(gateway).chat.completions.create(
        model=gateway.model, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole(gateway)["text"]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(before.id == after.id for before, after in pairwise(chunks))
    return {"chunks": len(chunks), "usage": chunks[-1].usage.total_tokens}


def streamed_without_usage(gateway: Gateway) -> object:
    chunks = list(client_of(gateway).chat.completions.create(model=gateway.model, messages=ASKED, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    return len(chunks)


def tools(gateway: Gateway) -> object:
    def ask(messages: list[object]):
        return client_of(gateway).chat.completions.create(model=gateway.model, messages=messages, tools=TOOLS)

    return until_text(ask)


def tools_streamed(gateway: Gateway) -> object:
    def ask(messages: list[object]):
        asked = {"model": gateway.model, "messages": messages, "tools": TOOLS}
        with client_of(gateway).chat.completions.stream(**asked) as stream:
            return stream.get_final_completion()

    return until_text(ask)


def until_text(ask) -> object:
    messages = [{"role": "user", "content": TOOL_QUESTION}]
    n_calls = 0
    for _ in range(3):
        choice = ask(messages).choices[0]
        if not choice.message.tool_calls:
            break
        assert choice.finish_reason == "tool_calls"
        messages.append(choice.message)
        for call in choice.message.tool_calls:
            n_calls += 1
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert (n_calls, choice.message.content) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": choice.message.content}


def forced_tool(gateway: Gateway) -> object:
    answer = client_of(gateway).chat.completions.create(
        model=gateway.model,
        messages=ASKED,
        tools=OTHER_TOOLS,
        tool_choice={"type": "function", "function": {"name": OTHER_TOOL["name"]}},
        parallel_tool_calls=False,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == OTHER_TOOL["name"]
    return json.loads(call.function.arguments)["city"]


def structured(gateway: Gateway) -> object:
    answer = client_of(gateway).chat.completions.parse(
        model=gateway.model, messages=[{"role": "user", "content": STRUCTURED_QUESTION}], response_format=Person
    )
    return answer.choices[0].message.parsed.model_dump()


def structured_streamed(gateway: Gateway) -> object:
    with client_of(gateway).chat.completions.stream(
        model=gateway.model, messages=[{"role": "user", "content": STRUCTURED_QUESTION}], response_format=Person
    ) as stream:
        return stream.get_final_completion().choices[0].message.parsed.model_dump()


def models(gateway: Gateway) -> object:
    client = client_of(gateway)
    names = {model.id for model in client.models.list()}
    assert {"auto", "large", "medium", "small"} <= names
    assert client.models.retrieve(gateway.model).id == gateway.model
    return len(names)


def unknown_model(gateway: Gateway) -> object:
    return raises(openai.NotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(openai.AuthenticationError, lambda: whole(gateway.with_wrong_key()))


def bad_request(gateway: Gateway) -> object:
    client = client_of(gateway)
    asked = {"model": gateway.model, "messages": ASKED, "max_completion_tokens": 0}
    return raises(openai.BadRequestError, lambda: client.chat.completions.create(**asked))


run(
    "openai",
    whole,
    streamed,
    streamed_without_usage,
    tools,
    tools_streamed,
    forced_tool,
    structured,
    structured_streamed,
    models,
    unknown_model,
    wrong_key,
    bad_request,
)
