"""Opaque reasoning state goes back to its maker byte for byte, and to nobody else."""

from __future__ import annotations

import orjson
import pytest

from serving.dialects.conversation import Conversation, Message, Reasoning, Text, ToolCall
from serving.reasoning_states import EXPIRES_AFTER_S, PREFIX, ReasoningStates

STATE = "EqoBCkgIARABGAIiQL/signature+of=a/model\n\u00e9"


def conversation_of(*parts) -> Conversation:
    return Conversation((Message("user", (Text("Go on."),)), Message("assistant", parts)))


def returned(states: ReasoningStates, maker: str, *parts, key: str = "alice"):
    back, is_lossless = states.returned(conversation_of(*parts), maker, key)
    return back.messages[1].parts, is_lossless


def test_an_envelope_opens_for_its_maker_and_its_key_alone() -> None:
    states = ReasoningStates(b"the same secret everywhere")
    sealed = states.seal(STATE, "anthropic", "alice")
    assert sealed.startswith(PREFIX) and "signature" not in sealed
    assert states.open(sealed, "anthropic", "alice") == STATE
    assert states.open(sealed, "openai", "alice") is None
    assert states.open(sealed, "anthropic", "bob") is None
    assert ReasoningStates(b"the same secret everywhere").open(sealed, "anthropic", "alice") == STATE
    assert ReasoningStates().open(sealed, "anthropic", "alice") is None


@pytest.mark.parametrize(
    "damage", [lambda e: e[:-2] + "AA", lambda e: e[:20], lambda e: PREFIX + "é", lambda e: PREFIX]
)
def test_a_damaged_envelope_is_nothing(damage) -> None:
    states = ReasoningStates(b"the same secret everywhere")
    assert states.open(damage(states.seal(STATE, "anthropic", "alice")), "anthropic", "alice") is None


def test_sealing_twice_looks_different() -> None:
    states = ReasoningStates()
    assert states.seal(STATE, "a", "k") != states.seal(STATE, "a", "k")


def test_thoughts_of_another_maker_go_words_and_calls_stay() -> None:
    states = ReasoningStates()
    thought = Reasoning("hm", state=states.seal(STATE, "anthropic", "alice"))
    rest = (Text("Well."), ToolCall("call_1", "look"))
    assert returned(states, "anthropic", thought, *rest) == ((Reasoning("hm", state=STATE), *rest), True)
    assert returned(states, "gemini", thought, *rest) == (rest, False)
    assert returned(states, "anthropic", thought, *rest, key="bob") == (rest, False)


def test_a_bare_state_is_known_only_after_it_passed_through() -> None:
    states = ReasoningStates()
    thought = Reasoning("hm", state=STATE)
    assert returned(states, "anthropic", thought) == ((), False)
    states.remember([STATE], "anthropic")
    assert returned(states, "anthropic", thought) == ((thought,), True)
    assert returned(states, "deepseek", thought) == ((), False)
    assert states.passing(STATE, "anthropic", "alice") == STATE
    assert states.passing(STATE, "deepseek", "alice") is None
    assert states.passing("never seen", "deepseek", "alice") == "never seen"
    assert states.passing(states.seal(STATE, "anthropic", "alice"), "deepseek", "alice") is None


def test_what_an_api_cannot_carry_is_kept_by_the_id_of_the_call() -> None:
    states = ReasoningStates()
    thought, call = Reasoning("hm", state=STATE), ToolCall("functions.look:0", "look", "{}", state="call-state")
    states.keep((thought, Text("Well."), call, ToolCall("call_2", "look")), "gemini", "alice", with_thoughts=True)
    # An id comes back with some characters replaced where a client's API is strict.
    bare = ToolCall("functions_look_0", "look", "{}")
    assert returned(states, "gemini", bare)[0] == (
        thought,
        ToolCall("functions_look_0", "look", "{}", state="call-state"),
    )
    assert returned(states, "gemini", bare, key="bob")[0] == (bare,)
    assert returned(states, "anthropic", bare)[0] == (bare,)
    assert returned(states, "gemini", ToolCall("call_2", "look"))[0] == (ToolCall("call_2", "look"),)


def test_memory_expires_and_is_bounded() -> None:
    now = [0.0]
    states = ReasoningStates(n_bytes=3_000, clock=lambda: now[0])
    for n in range(10):
        states.keep((ToolCall(f"call_{n}", "look", state="x" * 500),), "gemini", "k", with_thoughts=False)
    kept = [returned(states, "gemini", ToolCall(f"call_{n}", "look"), key="k")[0][0].state for n in range(10)]
    assert kept == [None] * 7 + ["x" * 500] * 3
    now[0] = EXPIRES_AFTER_S + 1
    assert returned(states, "gemini", ToolCall("call_9", "look"), key="k")[0][0].state is None


THINKING = [
    {"reasoning": "Let me see.", "state": STATE, "calls": [{"name": "look", "arguments": {}}]},
    {"text": "Done."},
]
TOOL = {"type": "object", "properties": {}}


def over(apis: list[str]) -> str:
    return (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        + "".join(f'[[providers]]\nname = "{api}-house"\nemulated = true\napis = ["{api}"]\n' for api in apis)
    )


def pool_of(*houses: str) -> str:
    return "".join(
        f'[[candidates]]\nname = "{name}"\ninput_usd_per_mtok = 1.0\noutput_usd_per_mtok = 1.0\n'
        f'deployments = [{{ provider = "{house}-house", model = "{name}-there" }}]\n'
        for name, house in zip(("large", "medium", "small"), houses, strict=False)
    )


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
async def test_a_messages_client_carries_the_state_of_each_maker_back_to_it_only(start, is_stream: bool) -> None:
    """Signed by a Responses provider, sealed for the client, opened for it again, and never shown to another."""
    async with start(
        pool_of("responses", "chat", "messages"), server=over(["responses", "chat", "messages"])
    ) as gateway:
        gateway.provider.scripts.put("*", THINKING)
        body = {
            "model": "large",
            "max_tokens": 500,
            "stream": is_stream,
            "tools": [{"name": "look", "input_schema": TOOL}],
            "messages": [{"role": "user", "content": "Look."}],
        }
        response = await gateway.client.post("/v1/messages", json=body)
        assert response.status_code == 200 and STATE not in response.text
        content = assembled(response.text) if is_stream else response.json()["content"]
        assert [block["type"] for block in content] == ["thinking", "tool_use"]
        assert content[0]["signature"].startswith(PREFIX)
        result = {"type": "tool_result", "tool_use_id": content[1]["id"], "content": "found"}
        body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        for model in ("large", "medium", "small"):
            again = await gateway.client.post("/v1/messages", json={**body, "stream": False, "model": model})
            assert again.status_code == 200, again.text
            sent = orjson.loads(gateway.provider.received[-1].body)
            if model == "large":
                (thought,) = [item for item in sent["input"] if item.get("type") == "reasoning"]
                assert thought["encrypted_content"] == STATE
            else:
                assert STATE.encode() not in gateway.provider.received[-1].body
                assert PREFIX.encode() not in gateway.provider.received[-1].body
                assert "x-turnout-lost" in again.headers


async def test_a_chat_client_gets_the_state_of_its_calls_kept_for_it(start) -> None:
    async with start(pool_of("messages"), server=over(["messages"])) as gateway:
        gateway.provider.scripts.put("*", THINKING)
        turns: list[dict[str, object]] = [{"role": "user", "content": "Look."}]
        tools = [{"type": "function", "function": {"name": "look", "parameters": TOOL}}]
        asked = {"model": "large", "messages": turns, "tools": tools}
        message = (await gateway.client.post("/v1/chat/completions", json=asked)).json()["choices"][0]["message"]
        call = message["tool_calls"][0]
        turns += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "found"},
        ]
        await gateway.client.post("/v1/chat/completions", json=asked)
        blocks = orjson.loads(gateway.provider.received[-1].body)["messages"][1]["content"]
        assert [block["type"] for block in blocks] == ["thinking", "tool_use"]
        assert (blocks[0]["thinking"], blocks[0]["signature"]) == ("Let me see.", STATE)


async def test_what_one_provider_signed_does_not_pass_through_to_another(start) -> None:
    """Both speak Messages: nothing is translated, and yet the thought of the one is kept from the other."""
    server = over(["messages"]) + '[[providers]]\nname = "other"\nemulated = true\napis = ["messages"]\n'
    pool = pool_of("messages") + pool_of("messages").replace("large", "medium").replace("messages-house", "other")
    async with start(pool, server=server) as gateway:
        gateway.provider.scripts.put("*", THINKING)
        body = {
            "model": "large",
            "max_tokens": 500,
            "tools": [{"name": "look", "input_schema": TOOL}],
            "messages": [{"role": "user", "content": "Look."}],
        }
        content = (await gateway.client.post("/v1/messages", json=body)).json()["content"]
        assert content[0]["signature"] == STATE  # passed through, untouched
        result = {"type": "tool_result", "tool_use_id": content[1]["id"], "content": "found"}
        body["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        again = await gateway.client.post("/v1/messages", json=body)
        assert orjson.loads(gateway.provider.received[-1].body)["messages"] == body["messages"]
        assert "x-turnout-lost" not in again.headers
        elsewhere = await gateway.client.post("/v1/messages", json={**body, "model": "medium"})
        sent = orjson.loads(gateway.provider.received[-1].body)["messages"]
        assert [block["type"] for block in sent[1]["content"]] == ["tool_use"]
        assert elsewhere.headers["x-turnout-lost"] == "messages[1].content[0]"
        # Where thinking is on, the turn of a pending call must begin with its thoughts: without them it goes off.
        thinking = {**body, "model": "medium", "thinking": {"type": "enabled", "budget_tokens": 1024}}
        off = await gateway.client.post("/v1/messages", json=thinking)
        assert orjson.loads(gateway.provider.received[-1].body)["thinking"] == {"type": "disabled"}
        assert off.headers["x-turnout-lost"] == "messages[1].content[0], thinking"


def assembled(raw: str) -> list[dict]:
    blocks: list[dict] = []
    for line in raw.split("\n"):
        event = orjson.loads(line[6:]) if line.startswith("data: ") else {}
        if event.get("type") == "content_block_start":
            blocks.append({**event["content_block"]})
            if blocks[-1]["type"] == "tool_use":
                blocks[-1]["input"] = {}
        elif event.get("type") == "content_block_delta":
            delta = event["delta"]
            for name in ("thinking", "text", "signature"):
                if name in delta:
                    blocks[-1][name] = blocks[-1].get(name, "") + delta[name]
    return blocks
