"""The anthropic package, any version of it: messages, token counts, models."""

from __future__ import annotations

import json
from functools import cache

import anthropic
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

TOOLS, OTHER_TOOLS = (
    [{"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}]
    for tool in (TOOL, OTHER_TOOL)
)
HAS_PARSE = hasattr(anthropic.resources.Messages, "parse")


class Person(BaseModel):
    name: str
    age: int


@cache
def client_of(gateway: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.origin, api_key=gateway.key, max_retries=0)


def asked_of(gateway: Gateway, content: str = QUESTION) -> dict[str, object]:
    return {
        "model": gateway.model,
        "max_tokens": 2000,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": content}],
    }


def sends(gateway: Gateway) -> object:
    headers = {name.lower(): value for name, value in client_of(gateway).default_headers.items()}
    key_in = sorted({"authorization", "x-api-key"} & set(headers))
    expected = ("2026-10-21", ["authorization"]) if HAS_PARSE else ("2023-06-01", ["x-api-key"])
    assert (headers["anthropic-version"], key_in) == expected
    return {"version": headers["anthropic-version"], "key_in": key_in}


@cache
def whole(gateway: Gateway) -> object:
    answer = client_of(gateway).messages.create(**asked_of(gateway))
    assert is_made_up(answer.content[0].text)
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer._request_id
    return {"text": answer.content[0].text, "usage": [answer.usage.input_tokens, answer.usage.output_tokens]}


def streamed(gateway: Gateway) -> object:
    with client_of(gateway).messages.stream(**asked_of(gateway)) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    expected = whole(gateway)
    assert text == last.content[0].text == expected["text"]
    assert last.stop_reason == "end_turn"
    assert [last.usage.input_tokens, last.usage.output_tokens] == expected["usage"]
    return expected["usage"]


def streamed_events(gateway: Gateway) -> object:
    kinds = [event.type for event in client_of(gateway).messages.create(**asked_of(gateway), stream=True)]
    kinds = [kind for kind in kinds if kind != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    return len(kinds)


def beta(gateway: Gateway) -> object:
    answer = client_of(gateway).beta.messages.create(**asked_of(gateway), betas=["interleaved-thinking-2025-05-14"])
    assert answer.content[0].text == whole(gateway)["text"]
    return answer.stop_reason


def tools(gateway: Gateway) -> object:
    def ask(messages: list[object]):
        return client_of(gateway).messages.create(**{**asked_of(gateway), "messages": messages}, tools=TOOLS)

    return until_text(ask)


def tools_streamed(gateway: Gateway) -> object:
    def ask(messages: list[object]):
        with client_of(gateway).messages.stream(**{**asked_of(gateway), "messages": messages}, tools=TOOLS) as stream:
            return stream.get_final_message()

    return until_text(ask)


def until_text(ask) -> object:
    messages = [{"role": "user", "content": TOOL_QUESTION}]
    n_calls = 0
    for _ in range(3):
        answer = ask(messages)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            break
        assert answer.stop_reason == "tool_use"
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": weather(**call.input)} for call in calls]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
        n_calls += len(calls)
    assert (n_calls, answer.content[-1].text) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": answer.content[-1].text}


def tool_runner(gateway: Gateway) -> object:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the temperature in a city.

        Args:
            city: Name of the city.
        """
        return weather(city)

    # Unless told otherwise it wants the provider to hold the conversation, which only Anthropic itself does.
    runner = client_of(gateway).beta.messages.tool_runner(
        **asked_of(gateway, TOOL_QUESTION), tools=[get_weather], thread=False
    )
    last = runner.until_done()
    assert last.content[-1].text == FINAL_TEXT
    return last.content[-1].text


def forced_tool(gateway: Gateway) -> object:
    answer = client_of(gateway).messages.create(
        **asked_of(gateway),
        tools=OTHER_TOOLS,
        tool_choice={"type": "tool", "name": OTHER_TOOL["name"], "disable_parallel_tool_use": True},
    )
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, answer.stop_reason) == (OTHER_TOOL["name"], "tool_use")
    return call.input["city"]


def structured(gateway: Gateway) -> object:
    asked = asked_of(gateway, STRUCTURED_QUESTION)
    return client_of(gateway).messages.parse(**asked, output_format=Person).parsed_output.model_dump()


def structured_streamed(gateway: Gateway) -> object:
    output = {"format": {"type": "json_schema", "schema": anthropic.transform_schema(Person)}}
    with client_of(gateway).messages.stream(**asked_of(gateway, STRUCTURED_QUESTION), output_config=output) as stream:
        text = "".join(stream.text_stream)
    return Person.model_validate(json.loads(text)).model_dump()


def count_tokens(gateway: Gateway) -> object:
    asked = asked_of(gateway)
    del asked["max_tokens"]
    n_tokens = client_of(gateway).messages.count_tokens(**asked).input_tokens
    assert n_tokens > 0
    return n_tokens


def models(gateway: Gateway) -> object:
    client = client_of(gateway)
    listed = list(client.models.list())
    assert {"auto", "large", "medium", "small"} <= {model.id for model in listed}
    assert all(model.type == "model" and model.display_name for model in listed)
    assert client.models.retrieve(gateway.model).id == gateway.model
    return len(listed)


def unknown_model(gateway: Gateway) -> object:
    return raises(anthropic.NotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(anthropic.AuthenticationError, lambda: whole(gateway.with_wrong_key()))


def bad_request(gateway: Gateway) -> object:
    asked = {**asked_of(gateway), "messages": []}
    return raises(anthropic.BadRequestError, lambda: client_of(gateway).messages.create(**asked))


NEWEST = (tool_runner, structured, structured_streamed) if HAS_PARSE else ()
run(
    "anthropic",
    sends,
    whole,
    streamed,
    streamed_events,
    beta,
    tools,
    tools_streamed,
    forced_tool,
    *NEWEST,
    count_tokens,
    models,
    unknown_model,
    wrong_key,
    bad_request,
)
