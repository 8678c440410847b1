"""The llama-index-llms-openai-like package."""

from __future__ import annotations

from functools import cache

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from trial import FINAL_TEXT, QUESTION, STRUCTURED_QUESTION, TOOL_QUESTION, Gateway, is_made_up, raises, run, weather

ASKED = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)]
TOOL = FunctionTool.from_defaults(weather, name="get_weather")


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@cache
def model_of(gateway: Gateway, **more: object) -> OpenAILike:
    return OpenAILike(
        api_base=gateway.v1,
        api_key=gateway.key,
        model=gateway.model,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
        **more,
    )


@cache
def whole(gateway: Gateway) -> object:
    answer = model_of(gateway).chat(ASKED)
    assert is_made_up(answer.message.content)
    assert answer.raw.usage.total_tokens > 0
    return {"text": answer.message.content, "usage": answer.raw.usage.total_tokens}


def streamed(gateway: Gateway) -> object:
    parts = list(model_of(gateway).stream_chat(ASKED))
    text = "".join(part.delta for part in parts)
    assert text == whole(gateway)["text"]
    return len(parts)


def completed(gateway: Gateway) -> object:
    text = model_of(gateway).complete(QUESTION).text
    assert is_made_up(text)
    return text


def tools(gateway: Gateway) -> object:
    return until_text(
        gateway,
        lambda model, history: model.chat_with_tools([TOOL], chat_history=history, allow_parallel_tool_calls=True),
    )


def tools_streamed(gateway: Gateway) -> object:
    return until_text(
        gateway,
        lambda model, history: list(
            model.stream_chat_with_tools([TOOL], chat_history=history, allow_parallel_tool_calls=True)
        )[-1],
    )


def until_text(gateway: Gateway, ask) -> object:
    model = model_of(gateway)
    history = [ChatMessage(role="user", content=TOOL_QUESTION)]
    n_calls = 0
    for _ in range(3):
        answer = ask(model, history)
        calls = model.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
        if not calls:
            break
        history.append(answer.message)
        for call in calls:
            n_calls += 1
            result = TOOL(**call.tool_kwargs).content
            history.append(ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": call.tool_id}))
    assert (n_calls, answer.message.content) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": answer.message.content}


def structured(gateway: Gateway) -> object:
    made = model_of(gateway, should_use_structured_outputs=True).as_structured_llm(Person).complete(STRUCTURED_QUESTION)
    assert type(made.raw) is Person
    return made.raw.model_dump()


def structured_by_tool(gateway: Gateway) -> object:
    made = model_of(gateway).as_structured_llm(Person).complete(STRUCTURED_QUESTION)
    assert type(made.raw) is Person
    return made.raw.model_dump()


def unknown_model(gateway: Gateway) -> object:
    return raises(openai.NotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(openai.AuthenticationError, lambda: whole(gateway.with_wrong_key()))


run(
    "llama-index-llms-openai-like",
    whole,
    streamed,
    completed,
    tools,
    tools_streamed,
    structured,
    structured_by_tool,
    unknown_model,
    wrong_key,
)
