"""What any chat model of LangChain is to do; each client's script says how one is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from trial import FINAL_TEXT, QUESTION, STRUCTURED_QUESTION, TOOL_QUESTION, Gateway, is_made_up, weather

ASKED = [SystemMessage("Be brief."), HumanMessage(QUESTION)]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Get the temperature in a city."""
    return weather(city)


def checks_of(model_of: Callable[[Gateway], BaseChatModel]) -> tuple[Callable[[Gateway], object], ...]:
    """Return the checks."""

    @cache
    def whole(gateway: Gateway) -> object:
        answer = model_of(gateway).invoke(ASKED)
        usage = answer.usage_metadata
        assert is_made_up(answer.text)
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
        return {"text": answer.text, "usage": usage["total_tokens"]}

    def streamed(gateway: Gateway) -> object:
        chunks = list(model_of(gateway).stream(ASKED))
        all_of_it = sum(chunks[1:], chunks[0])
        expected = whole(gateway)
        assert all_of_it.text == expected["text"]
        assert all_of_it.usage_metadata["total_tokens"] == expected["usage"]
        return {"chunks": len(chunks), "usage": expected["usage"]}

    def tools(gateway: Gateway) -> object:
        return until_text(model_of(gateway).bind_tools([get_weather]).invoke)

    def tools_streamed(gateway: Gateway) -> object:
        model = model_of(gateway).bind_tools([get_weather])

        def ask(messages: list[object]):
            chunks = list(model.stream(messages))
            return sum(chunks[1:], chunks[0])

        return until_text(ask)

    def structured(gateway: Gateway) -> object:
        made = model_of(gateway).with_structured_output(Person, method="json_schema").invoke(STRUCTURED_QUESTION)
        assert type(made) is Person
        return made.model_dump()

    def structured_by_tool(gateway: Gateway) -> object:
        made = model_of(gateway).with_structured_output(Person, method="function_calling").invoke(STRUCTURED_QUESTION)
        assert type(made) is Person
        return made.model_dump()

    return whole, streamed, tools, tools_streamed, structured, structured_by_tool


def until_text(ask) -> object:
    messages = [HumanMessage(TOOL_QUESTION)]
    n_calls = 0
    for _ in range(3):
        answer = ask(messages)
        if not answer.tool_calls:
            break
        messages.append(answer)
        for call in answer.tool_calls:
            n_calls += 1
            messages.append(ToolMessage(weather(**call["args"]), tool_call_id=call["id"]))
    assert (n_calls, answer.text) == (2, FINAL_TEXT)
    return {"calls": n_calls, "text": answer.text}
