"""The pydantic-ai package: its OpenAI chat and responses models, and its Anthropic one."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelAuthenticationError, ModelNotFoundError
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from trial import FINAL_TEXT, QUESTION, STRUCTURED_QUESTION, TOOL_QUESTION, Gateway, is_made_up, raises, run, weather


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@cache
def model_of(gateway: Gateway) -> Model:
    if gateway.way == "messages":
        # Of Anthropic's models it lets only those of a known name have a schema for their output.
        return AnthropicModel(
            gateway.model,
            provider=AnthropicProvider(base_url=gateway.origin, api_key=gateway.key),
            profile={"supports_json_schema_output": True},
        )
    model = OpenAIResponsesModel if gateway.way == "responses" else OpenAIChatModel
    return model(gateway.model, provider=OpenAIProvider(base_url=gateway.v1, api_key=gateway.key))


@cache
def whole(gateway: Gateway) -> object:
    answer = Agent(model_of(gateway), instructions="Be brief.").run_sync(QUESTION)
    usage = answer.usage
    assert is_made_up(answer.output)
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    return {"text": answer.output, "usage": [usage.input_tokens, usage.output_tokens]}


def streamed(gateway: Gateway) -> object:
    answer = Agent(model_of(gateway), instructions="Be brief.").run_stream_sync(QUESTION)
    text = "".join(answer.stream_text(delta=True))
    expected = whole(gateway)
    assert text == expected["text"]
    assert [answer.usage.input_tokens, answer.usage.output_tokens] == expected["usage"]
    return expected["usage"]


def tools(gateway: Gateway) -> object:
    agent = Agent(model_of(gateway))
    agent.tool_plain(weather, name="get_weather")
    answer = agent.run_sync(TOOL_QUESTION)
    assert answer.output == FINAL_TEXT
    assert answer.usage.tool_calls == 2
    return {"text": answer.output, "calls": answer.usage.tool_calls}


def tools_streamed(gateway: Gateway) -> object:
    agent = Agent(model_of(gateway))
    agent.tool_plain(weather, name="get_weather")
    answer = agent.run_stream_sync(TOOL_QUESTION)
    assert answer.get_output() == FINAL_TEXT
    return answer.usage.tool_calls


def structured(gateway: Gateway) -> object:
    made = Agent(model_of(gateway), output_type=NativeOutput(Person)).run_sync(STRUCTURED_QUESTION).output
    assert type(made) is Person
    return made.model_dump()


def structured_by_tool(gateway: Gateway) -> object:
    made = Agent(model_of(gateway), output_type=ToolOutput(Person)).run_sync(STRUCTURED_QUESTION).output
    assert type(made) is Person
    return made.model_dump()


def unknown_model(gateway: Gateway) -> object:
    return raises(ModelNotFoundError, lambda: whole(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(ModelAuthenticationError, lambda: whole(gateway.with_wrong_key()))


run(
    "pydantic-ai-slim",
    whole,
    streamed,
    tools,
    tools_streamed,
    structured,
    structured_by_tool,
    unknown_model,
    wrong_key,
    ways=("chat", "responses", "messages"),
)
