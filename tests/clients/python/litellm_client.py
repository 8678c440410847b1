"""The litellm package as a client, by OpenAI's Chat Completions and by Anthropic's Messages, and its embeddings."""

from __future__ import annotations

import json
from functools import cache

import litellm
from pydantic import BaseModel
from trial import (
    FINAL_TEXT,
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

litellm.suppress_debug_info = True
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "function": TOOL}]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def ask(gateway: Gateway, messages: list[object], **more: object):
    provider, base = {"chat": ("openai", gateway.v1), "messages": ("anthropic", gateway.origin)}[gateway.way]
    return litellm.completion(
        model=f"{provider}/{gateway.model}",
        api_base=base,
        api_key=gateway.key,
        messages=messages,
        max_tokens=2000,
        num_retries=0,
        max_retries=0,
        **more,
    )


@cache
def whole(gateway: Gateway) -> object:
    answer = ask(gateway, ASKED)
    assert is_made_up(answer.choices[0].message.content)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    return {"text": answer.choices[0].message.content, "usage": answer.usage.total_tokens}


def streamed(gateway: Gateway) -> object:
    chunks = list(ask(gateway, ASKED, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks)
    expected = whole(gateway)
    assert built.choices[0].message.content == expected["text"]
    assert built.usage.total_tokens == expected["usage"]
    return {"chunks": len(chunks), "usage": expected["usage"]}


def tools(gateway: Gateway) -> object:
    return until_text(lambda messages: ask(gateway, messages, tools=TOOLS))


def tools_streamed(gateway: Gateway) -> object:
    return until_text(
        lambda messages: litellm.stream_chunk_builder(list(ask(gateway, messages, tools=TOOLS, stream=True)))
    )


def until_text(ask_again) -> object:
    messages: list[object] = [{"role": "user", "content": TOOL_QUESTION}]
    n_calls = 0
    for _ in range(3):
        message = ask_again(messages).choices[0].message
        if not message.tool_calls:
            break
        messages.append(message)
        for call in message.tool_calls:
            n_calls += 1
            result = weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert (n_calls, message.content) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": message.content}


def structured(gateway: Gateway) -> object:
    answer = ask(gateway, [{"role": "user", "content": STRUCTURED_QUESTION}], response_format=Person)
    return Person.model_validate_json(answer.choices[0].message.content).model_dump()


def embeddings(gateway: Gateway) -> object:
    asked = {"model": "openai/embedder", "input": ["one text", "another"], "encoding_format": "float"}
    rows = litellm.embedding(api_base=gateway.v1, api_key=gateway.key, **asked).data
    assert len(rows) == 2
    return len(rows[0]["embedding"])


def unknown_model(gateway: Gateway) -> object:
    return raises(litellm.NotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(litellm.AuthenticationError, lambda: whole(gateway.with_wrong_key()))


run(
    "litellm",
    whole,
    streamed,
    tools,
    tools_streamed,
    structured,
    embeddings,
    unknown_model,
    wrong_key,
    ways=("chat", "messages"),
)
