"""LangGraph's tool loop: its prebuilt agent, LangChain's, and a graph drawn by hand, over each API."""

from __future__ import annotations

import warnings
from functools import cache

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_checks import Person, get_weather
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from trial import FINAL_TEXT, STRUCTURED_QUESTION, TOOL_QUESTION, Gateway, run, weather

ASKED = {"messages": [{"role": "user", "content": TOOL_QUESTION}]}


@cache
def model_of(gateway: Gateway) -> BaseChatModel:
    asked = {"api_key": gateway.key, "model": gateway.model, "max_retries": 0}
    if gateway.way == "messages":
        return ChatAnthropic(base_url=gateway.origin, max_tokens=2000, **asked)
    return ChatOpenAI(base_url=gateway.v1, use_responses_api=gateway.way == "responses", **asked)


def seen(messages: list[object]) -> object:
    assert [message.type for message in messages] == ["human", "ai", "tool", "tool", "ai"]
    assert [message.content for message in messages[2:4]] == [weather("Paris"), weather("Oslo")]
    assert messages[-1].text == FINAL_TEXT
    return len(messages)


def prebuilt_agent(gateway: Gateway) -> object:
    with warnings.catch_warnings(action="ignore"):
        agent = create_react_agent(model_of(gateway), [get_weather])
    return seen(agent.invoke(ASKED)["messages"])


def agent_of_langchain(gateway: Gateway) -> object:
    return seen(create_agent(model_of(gateway), [get_weather]).invoke(ASKED)["messages"])


def agent_streamed(gateway: Gateway) -> object:
    agent = create_agent(model_of(gateway), [get_weather])
    parts = [message for message, _ in agent.stream(ASKED, stream_mode="messages") if message.type == "AIMessageChunk"]
    text = "".join(part.text for part in parts)
    assert text == FINAL_TEXT
    return len(parts)


def structured(gateway: Gateway) -> object:
    agent = create_agent(model_of(gateway), [], response_format=Person)
    made = agent.invoke({"messages": [{"role": "user", "content": STRUCTURED_QUESTION}]})["structured_response"]
    assert type(made) is Person
    return made.model_dump()


def graph(gateway: Gateway) -> object:
    model = model_of(gateway).bind_tools([get_weather])
    drawn = StateGraph(MessagesState)
    drawn.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    drawn.add_node("tools", ToolNode([get_weather]))
    drawn.add_edge(START, "model")
    drawn.add_conditional_edges("model", tools_condition)
    drawn.add_edge("tools", "model")
    return seen(drawn.compile().invoke(ASKED)["messages"])


run(
    "langgraph",
    prebuilt_agent,
    agent_of_langchain,
    agent_streamed,
    structured,
    graph,
    ways=("chat", "responses", "messages"),
)
