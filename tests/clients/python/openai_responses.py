"""The openai package: responses."""

from __future__ import annotations

import json
from functools import cache

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

TOOLS, OTHER_TOOLS = ([{"type": "function", **tool, "strict": True}] for tool in (TOOL, OTHER_TOOL))


class Person(BaseModel):
    name: str
    age: int


@cache
def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.v1, api_key=gateway.key, max_retries=0)


@cache
def whole(gateway: Gateway) -> object:
    answer = client_of(gateway).responses.create(
        model=gateway.model, instructions="Be brief.", input=QUESTION, store=False
    )
    assert is_made_up(answer.output_text)
    assert answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert answer._request_id
    return {"text": answer.output_text, "usage": answer.usage.total_tokens}


def streamed(gateway: Gateway) -> object:
    stream = client_of(gateway).responses.create(
        model=gateway.model, instructions="Be brief.", input=QUESTION, store=False, stream=True
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1].response
    assert text == last.output_text == whole(gateway)["text"]
    assert last.id == events[0].response.id
    (done,) = [event.item for event in events if event.type == "response.output_item.done"]
    assert done == last.output[0]
    return {"events": len(events), "usage": last.usage.total_tokens}


def tools(gateway: Gateway) -> object:
    def ask(items: list[object]):
        return client_of(gateway).responses.create(model=gateway.model, input=items, tools=TOOLS, store=False)

    return until_text(ask)


def tools_streamed(gateway: Gateway) -> object:
    def ask(items: list[object]):
        asked = {"model": gateway.model, "input": items, "tools": TOOLS, "store": False}
        with client_of(gateway).responses.stream(**asked) as stream:
            return stream.get_final_response()

    return until_text(ask)


def until_text(ask) -> object:
    items: list[object] = [{"role": "user", "content": TOOL_QUESTION}]
    n_calls = 0
    for _ in range(3):
        answer = ask(items)
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            break
        items += answer.output
        items += results_of(calls)
        n_calls += len(calls)
    assert (n_calls, answer.output_text) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": answer.output_text}


def results_of(calls: list[object]) -> list[object]:
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": weather(**json.loads(call.arguments))}
        for call in calls
    ]


def stored(gateway: Gateway) -> object:
    client = client_of(gateway)
    first = client.responses.create(model=gateway.model, input=TOOL_QUESTION, tools=TOOLS, store=True)
    results = results_of([item for item in first.output if item.type == "function_call"])
    asked = {"model": gateway.model, "tools": TOOLS, "previous_response_id": first.id}
    second = client.responses.create(**asked, input=results)
    assert second.output_text == FINAL_TEXT
    assert second.previous_response_id == first.id
    unknown = {**asked, "previous_response_id": "resp_0123456789abcdef0123456789abcdef"}
    refused = raises(openai.APIStatusError, lambda: client.responses.create(**unknown, input=results))
    return {"text": second.output_text, "unknown": refused}


def forced_tool(gateway: Gateway) -> object:
    answer = client_of(gateway).responses.create(
        model=gateway.model,
        input=QUESTION,
        tools=OTHER_TOOLS,
        tool_choice={"type": "function", "name": OTHER_TOOL["name"]},
        parallel_tool_calls=False,
        store=False,
    )
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == OTHER_TOOL["name"]
    return json.loads(call.arguments)["city"]


def structured(gateway: Gateway) -> object:
    answer = client_of(gateway).responses.parse(
        model=gateway.model, input=STRUCTURED_QUESTION, text_format=Person, store=False
    )
    return answer.output_parsed.model_dump()


def structured_streamed(gateway: Gateway) -> object:
    with client_of(gateway).responses.stream(
        model=gateway.model, input=STRUCTURED_QUESTION, text_format=Person, store=False
    ) as stream:
        return stream.get_final_response().output_parsed.model_dump()


def unknown_model(gateway: Gateway) -> object:
    return raises(openai.NotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(openai.AuthenticationError, lambda: whole(gateway.with_wrong_key()))


run(
    "openai",
    whole,
    streamed,
    tools,
    tools_streamed,
    stored,
    forced_tool,
    structured,
    structured_streamed,
    unknown_model,
    wrong_key,
)
