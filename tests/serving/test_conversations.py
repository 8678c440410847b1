"""Conversations are recognised by what real clients send, are kept whole, bounded, forgotten, and told of in a header.

The tiny bundle (``tests/conftest.py``): at the threshold .75 a text without digits goes to ``medium``, one with digits
to ``large``; at .85 only ``large`` clears, at .5 ``small`` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
import pytest

from router.domain import Price
from router.pricing import Usage
from serving.conversations import (
    CACHE_LIFE_S,
    LONG_CACHE_LIFE_S,
    MOST_CACHES,
    Conversations,
    Turn,
    cached_tokens,
    opening_of,
    pending,
)
from serving.emulated_faults import Fault

CACHED = Price(10.0, 40.0, 1.0)
WRITTEN = Price(10.0, 40.0, 1.0, 12.5)
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def reminder(n: int) -> dict[str, object]:
    return {"type": "text", "text": f"<system-reminder>\nAs you answer, you may use context {n}.\n</system-reminder>\n"}


def user(*blocks: object) -> dict[str, object]:
    return {"role": "user", "content": list(blocks)}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


def item(role: str, words: str) -> dict[str, object]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": words}]}


CLAUDE_CODE = user(*map(reminder, range(8)), text("Fix the bug in parse()."))
CLAUDE_HEADERS = [
    (b"anthropic-version", b"2023-06-01"),
    (b"x-app", b"cli"),
    (b"x-claude-code-session-id", b"0b54f6d1-7a8f-4d0b-8d9c-5d0d6f6f0001"),
]
THOUGHT = {"type": "thinking", "thinking": "Look first.", "signature": "EqQB=="}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"file_path": "a.py"}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "def parse(): 1"}
SLASH_COMMAND = user(text("<command-name>/review</command-name><command-args>3</command-args>"))
CODEX = [
    item("developer", "<permissions instructions>sandboxed</permissions instructions>"),
    item("user", "# AGENTS.md instructions for /repo\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>"),
    item("user", "<environment_context>\n  <cwd>/repo</cwd>\n</environment_context>"),
    item("user", "List the files."),
]
CODEX_CALL = [
    {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "OPAQUE=="},
    {"type": "function_call", "name": "exec_command", "arguments": '{"cmd":"ls"}', "call_id": "call_a"},
]
CODEX_RESULT = {"type": "function_call_output", "call_id": "call_a", "output": "a.py 1"}
CLINE = [
    {"role": "system", "content": "You are Cline."},
    user(
        text('<user_input mode="act"><mode_notice>act mode</mode_notice>Write a test.</user_input>'),
        text("<environment_details>\n# Current Time\n01:02\n</environment_details>"),
    ),
]
CHAT_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}],
}
CHAT_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "a.py 1"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def place(
    memory: Conversations, body: Mapping[str, object], headers=(), *, key: str = "me", model: str = "auto", **more
) -> Turn:
    said = body.get("messages") or body.get("input")
    raw = orjson.dumps(body)
    n_messages = 1 if isinstance(said, str) else len(said)
    turn = memory.turn_of((key, model), body, headers, n_messages=n_messages, raw=raw, **more)
    assert turn is not None
    return turn


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([CLAUDE_CODE], "Fix the bug in parse()."),
        (CODEX, "List the files."),
        (CLINE, "Write a test."),
        ([{"role": "user", "content": "<task>Say hi</task>"}], "Say hi"),
        ([user(text("<local-command-caveat>…</local-command-caveat>")), user(text("Now this"))], "Now this"),
        ([{"role": "system", "content": "x"}], ""),
        ([user({"type": "image_url", "image_url": {"url": "https://x"}}, text("What is it?"))], "What is it?"),
    ],
)
def test_a_conversation_opens_with_the_first_words_of_a_human(items: list[dict[str, object]], words: str) -> None:
    assert opening_of(items) == words


@pytest.mark.parametrize(
    ("items", "is_pending"),
    [
        ([CLAUDE_CODE], False),
        ([CLAUDE_CODE, {"role": "assistant", "content": [THOUGHT, TOOL_USE]}, user(TOOL_RESULT)], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [TOOL_USE]}, user(TOOL_RESULT, reminder(1))], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [TOOL_USE]}, user(TOOL_RESULT), user(reminder(1))], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [TOOL_USE]}, user(TOOL_RESULT, text("No, stop."))], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [text("Done.")]}, user(text("And now?"))], False),
        ([CLAUDE_CODE, {"role": "assistant", "content": [text("{")]}], False),  # an answer begun for it
        ([CLAUDE_CODE, {"role": "assistant", "content": [{"type": "server_tool_use"}]}], True),  # pause_turn
        ([*CODEX, *CODEX_CALL, CODEX_RESULT], True),
        ([*CODEX, *CODEX_CALL, CODEX_RESULT, item("developer", "<token_budget>1</token_budget>")], True),
        ([*CODEX, {"type": "custom_tool_call"}, {"type": "custom_tool_call_output", "output": "done"}], True),
        ([*CODEX, *CODEX_CALL, CODEX_RESULT, item("assistant", "a.py"), item("user", "Thanks. Next?")], False),
        ([*CODEX, {"type": "mcp_approval_request", "id": "1"}, {"type": "mcp_approval_response"}], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [THOUGHT, text("Done.")]}, SLASH_COMMAND], False),
        ([CLAUDE_CODE, {"role": "assistant", "content": [THOUGHT]}, user(reminder(1))], True),
        ([CLAUDE_CODE, {"role": "assistant", "content": [TOOL_USE, text("…")]}, user(reminder(1))], True),
        ([*CLINE, CHAT_CALL, CHAT_RESULT], True),
        ([*CLINE, CHAT_CALL, CHAT_RESULT, user(text("<environment_details>x</environment_details>"))], True),
        ([*CLINE, CHAT_CALL, CHAT_RESULT, user(text("Not that one."))], False),
        ([*CLINE, CHAT_CALL, CHAT_RESULT, user({"type": "image_url", "image_url": {"url": "https://x"}})], False),
        ([7, None, {"role": 3, "content": {"type": []}}, {"type": []}], False),
        ([], False),
    ],
)
def test_a_turn_is_pending_until_the_assistant_is_done_or_a_human_speaks(items: list[object], is_pending: bool) -> None:
    assert pending(items) is is_pending


def test_each_client_is_recognised_at_its_next_request() -> None:
    answer = {"role": "assistant", "content": "Yes."}
    clients: list[tuple[dict[str, object], dict[str, object], list[tuple[bytes, bytes]]]] = [
        (
            {"messages": [CLAUDE_CODE], "metadata": {"user_id": '{"session_id":"s1"}'}},
            # Reminders come and go, also in what was said before.
            {"messages": [user(reminder(9), text("Fix the bug in parse().")), answer, user(text("Go on."))],
             "metadata": {"user_id": '{"session_id":"s1"}'}},
            CLAUDE_HEADERS,
        ),
        (
            {"input": CODEX, "prompt_cache_key": "thread-1"},
            {"input": [*CODEX, *CODEX_CALL, CODEX_RESULT], "prompt_cache_key": "thread-1"},
            [(b"session-id", b"s"), (b"thread-id", b"t"), (b"originator", b"codex_exec")],
        ),
        ({"messages": CLINE}, {"messages": [*CLINE, CHAT_CALL, CHAT_RESULT]}, []),
        (
            {"messages": [{"role": "user", "content": "hello"}]},
            {"messages": [{"role": "user", "content": "hello"}, answer, {"role": "user", "content": "more"}]},
            [(b"x-session-id", b"ses_1"), (b"x-session-affinity", b"ses_1")],
        ),
        (
            {"input": "hello"},
            {"input": [{"role": "user", "content": "hello"}, item("assistant", "Yes."), item("user", "more")]},
            [],
        ),
    ]  # fmt: skip
    for first, second, headers in clients:
        memory = Conversations()
        opened = place(memory, first, headers)
        assert (opened.history(), opened.became("medium")) == (None, b"new")
        opened.answered("medium", Usage(10, 5), None)
        known = place(memory, second, headers)
        history = known.history()
        assert history is not None and history.incumbent == "medium"
        assert (known.became("medium"), known.became("large")) == (b"kept", b"switched")


def test_what_differs_is_another_conversation() -> None:
    memory = Conversations()
    body = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a"}]}
    headers = [(b"x-session-id", b"ses_1")]
    place(memory, body, headers).answered("medium", Usage(10, 5), None)
    assert place(memory, body, headers).history() is not None
    others: list[tuple[dict[str, object], list[tuple[bytes, bytes]], dict[str, str]]] = [
        (body, headers, {"key": "you"}),
        (body, headers, {"model": "auto:price"}),
        (body, [(b"x-session-id", b"ses_2")], {}),
        (body, [], {}),
        ({**body, "tools": [{}]}, headers, {}),  # opencode asks for a title beside the first answer
        ({**body, "prompt_cache_key": "k"}, headers, {}),
        ({**body, "conversation": {"id": "conv_1"}}, headers, {}),
        ({**body, "metadata": {"user_id": '{"session_id":"s1"}'}}, headers, {}),
        ({"messages": [{"role": "user", "content": "hello!"}, body["messages"][1]]}, headers, {}),
    ]
    for other, sent, who in others:
        assert place(memory, other, sent, **who).history() is None


def test_one_cut_short_or_opened_once_more_is_another_and_one_asked_again_is_not() -> None:
    memory = Conversations()
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a"}] * 3
    place(memory, {"messages": said}).answered("medium", Usage(10, 5), None)
    assert place(memory, {"messages": said[:3]}).history() is None
    assert place(memory, {"messages": said[:1]}).history() is None
    assert place(memory, {"messages": said}).history() is not None
    place(memory, {"messages": said[:1]}).answered("large", Usage(10, 5), None)
    assert place(memory, {"messages": said[:1]}).history() is None


def test_ids_that_are_no_strings_are_passed_over() -> None:
    nested: object = "x"
    for _ in range(5_000):
        nested = [nested]
    body = {"messages": [{"role": "user", "content": "hello"}], "conversation": {"id": nested}, "user": nested}
    assert Conversations().turn_of(("me", "auto"), body, (), n_messages=1) is not None


def test_nothing_to_go_by_is_no_conversation() -> None:
    memory = Conversations()
    for body in ({}, {"messages": []}, {"messages": [{"role": "system", "content": "x"}]}, {"prompt": "hello"}):
        assert memory.turn_of(("me", "auto"), body, (), n_messages=1) is None
    assert memory.turn_of(("me", "auto"), {"input": "hello"}, (), n_messages=1, keep_for_s=0) is None


def test_it_is_forgotten_in_time() -> None:
    clock = Clock()
    memory = Conversations(clock=clock)
    body = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a"}]}
    place(memory, body, keep_for_s=60.0).answered("medium", Usage(10, 5), None)
    clock.now += 59
    assert place(memory, body).history() is not None
    clock.now += 2
    assert place(memory, body).history() is None
    assert len(memory) == 0


def test_its_size_is_bounded_and_shrinks_again() -> None:
    clock = Clock()
    memory = Conversations(n_most=10, clock=clock)
    for i in range(50):
        place(memory, {"input": f"hello {i}"}, keep_for_s=60.0).answered("medium", Usage(10, 5), None)
        assert len(memory) <= 10
    clock.now += 61
    for i in range(10):
        place(memory, {"input": f"later {i}"}, keep_for_s=60.0).answered("medium", Usage(10, 5), None)
    assert len(memory) == 10  # the old ones went two by two, the ten later ones are left
    clock.now += 61
    place(memory, {"input": "last"}, keep_for_s=60.0).answered("medium", Usage(10, 5), None)
    assert len(memory) == 9


def test_what_is_kept_is_a_digest_that_nobody_can_guess() -> None:
    body = {"input": "canary"}
    turns = [place(Conversations(), body) for _ in range(2)]
    assert turns[0]._digest != turns[1]._digest  # the key is of the process
    for turn in turns:
        turn.answered("medium", Usage(10, 5), None)
        assert "canary" not in repr(turn) and "canary" not in repr(turn._conversations._kept)


def test_what_is_cached_where_is_known_and_expires_as_providers_promise() -> None:
    clock = Clock()
    memory = Conversations(clock=clock)
    said = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a"}]
    place(memory, {"messages": said}).answered("large", Usage(5_000, 5), CACHED)
    clock.now += 200
    place(memory, {"messages": said * 2}).answered("medium", Usage(6_000, 5), CACHED)
    history = place(memory, {"messages": said * 3}).history()
    assert history is not None
    assert (history.incumbent, dict(history.cached_tokens)) == ("medium", {"large": 5_000, "medium": 6_000})
    clock.now += CACHE_LIFE_S - 100
    later = place(memory, {"messages": said * 3}).history()
    assert later is not None and dict(later.cached_tokens) == {"medium": 6_000}
    for i in range(10):
        place(memory, {"messages": said * 3}).answered(f"other {i}", Usage(6_000, 5), CACHED)
    many = place(memory, {"messages": said * 3}).history()
    assert many is not None and len(many.cached_tokens) == MOST_CACHES and "other 9" in many.cached_tokens


@pytest.mark.parametrize(
    ("usage", "price", "expected"),
    [
        (Usage(5_000, 5), None, (0, 0.0)),
        (Usage(5_000, 5), Price(1.0, 4.0), (0, 0.0)),
        (Usage(None, None), CACHED, (0, 0.0)),
        (Usage(1_000, 5), CACHED, (0, 0.0)),  # too short for anybody
        (Usage(5_000, 5), CACHED, (5_000, CACHE_LIFE_S)),
        (Usage(5_000, 5), WRITTEN, (0, 0.0)),  # nobody asked for it
        (Usage(5_000, 5, 1_000, 3_000), WRITTEN, (4_000, CACHE_LIFE_S)),
        (Usage(5_000, 5, 1_000, 3_000, None, 3_000), WRITTEN, (4_000, LONG_CACHE_LIFE_S)),
    ],
)
def test_who_charges_for_writing_says_what_it_wrote(usage: Usage, price: Price | None, expected) -> None:
    assert cached_tokens(usage, price) == expected


def test_requests_are_counted_by_human_turns() -> None:
    memory = Conversations()
    said: list[dict[str, object]] = [*CLINE]
    for _ in range(2):  # two human turns of three requests
        for _ in range(3):
            place(memory, {"messages": said}).answered("medium", Usage(10, 5), None)
            said += [CHAT_CALL, CHAT_RESULT]
        said += [{"role": "assistant", "content": "Done."}, {"role": "user", "content": "Next."}]
    history = place(memory, {"messages": said}).history()
    assert history is not None and history.n_requests_bound == 3


def test_marks_of_the_caller_are_seen() -> None:
    marked = {"messages": [user({**text("hello"), "cache_control": {"type": "ephemeral"}})]}
    assert place(Conversations(), marked).is_marked
    assert not place(Conversations(), {"messages": [user(text("hello"))]}).is_marked


def begun(api: str) -> dict[str, object]:
    """Make the first request of a conversation."""
    if api == "responses":
        return {"model": "auto", "input": [*CODEX]}
    if api == "messages":
        return {"model": "auto", "max_tokens": 100, "messages": [CLAUDE_CODE]}
    return {"model": "auto", "messages": [*CLINE]}


def with_result(api: str) -> dict[str, object]:
    """Make the request after it, that brings the result of a tool."""
    body = begun(api)
    if api == "responses":
        return {**body, "input": [*CODEX, CODEX_CALL[1], CODEX_RESULT]}
    if api == "messages":
        called = {"role": "assistant", "content": [TOOL_USE]}
        return {**body, "messages": [CLAUDE_CODE, called, user(TOOL_RESULT, reminder(1))]}
    return {**body, "messages": [*CLINE, CHAT_CALL, CHAT_RESULT]}


def with_question(api: str) -> dict[str, object]:
    """Make the one after that: the human asks something new."""
    body = with_result(api)
    name = "input" if api == "responses" else "messages"
    said = body[name]
    assert isinstance(said, list)
    answer = item("assistant", "Done.") if api == "responses" else {"role": "assistant", "content": [text("Done.")]}
    asks = item("user", "Next.") if api == "responses" else {"role": "user", "content": "Next."}
    return {**body, name: [*said, answer, asks]}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("api", PATHS)
async def test_a_turn_is_kept_whole_and_a_new_question_is_free_to_go(running, api: str, is_stream: bool) -> None:
    async def ask(body: Mapping[str, object], threshold: float):
        response = await running.client.post(
            PATHS[api],
            json={**body, "stream": is_stream},
            headers={"x-turnout-threshold": str(threshold), "session-id": "s"},
        )
        assert response.status_code == 200, response.text
        return response.headers["x-turnout-candidate"], response.headers["x-turnout-conversation"]

    assert await ask(begun(api), 0.75) == ("medium", "new")
    # Alone it would be large at this threshold.
    assert await ask(with_result(api), 0.85) == ("medium", "kept")
    assert [record.binding for record in running.records.kept] == ["threshold", "conversation"]
    assert await ask(with_question(api), 0.85) == ("large", "switched")
    assert await ask(with_question(api), 0.85) == ("large", "kept")


async def test_who_stood_in_goes_on(start, pool_toml) -> None:
    server = (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\nmax_attempts = 3\n'
        '{settings}\n[[providers]]\nname = "emulator"\nemulated = true\n'
    )
    async with start(pool_toml, server=server) as gateway:
        gateway.provider.faults.put("medium-at-provider", Fault(status=500))
        first = await gateway.client.post(PATHS["chat"], json=begun("chat"))
        assert (first.headers["x-turnout-candidate"], first.headers["x-turnout-conversation"]) == ("large", "new")
        gateway.provider.faults.put("medium-at-provider", None)
        then = await gateway.client.post(PATHS["chat"], json=with_result("chat"))
        assert (then.headers["x-turnout-candidate"], then.headers["x-turnout-conversation"]) == ("large", "kept")
        # And where that one fails in the middle of a turn, somebody goes on all the same.
        gateway.provider.faults.put("large-at-provider", Fault(status=500))
        last = await gateway.client.post(PATHS["chat"], json=with_result("chat"))
        assert last.headers["x-turnout-conversation"] == "switched"


PRICED_POOL = "".join(
    f"""
[[candidates]]
name = "{name}"
input_usd_per_mtok = {usd}
output_usd_per_mtok = {4 * usd}
cache_read_usd_per_mtok = {usd / 10}
deployments = [{{ provider = "emulator", model = "{name}-at-provider" }}]
"""
    for name, usd in (("large", 10.0), ("medium", 1.0), ("small", 0.1))
)


async def test_a_switch_is_priced_by_what_was_read_and_route_says_so(start) -> None:
    async with start(PRICED_POOL) as gateway:
        system = {"role": "system", "content": "word " * 9_600}  # 12,000 tokens
        said = [system, {"role": "user", "content": "Say hello."}]
        worth = {"willingness_to_pay_usd": 0.5}
        alone = await gateway.client.post(PATHS["chat"], json={"model": "auto", "messages": said, "turnout": worth})
        assert alone.headers["x-turnout-candidate"] == "medium"
        said[1] = {"role": "user", "content": "Say goodbye."}
        first = await gateway.chat(messages=said, turnout={"threshold": 0.85})
        assert first.headers["x-turnout-candidate"] == "large"
        said += [{"role": "assistant", "content": "Goodbye."}, {"role": "user", "content": "Once more."}]
        explained = (await gateway.client.post("/v1/route", json={"messages": said, "turnout": worth})).json()
        assert (explained["candidate"], explained["binding"], explained["incumbent"]) == (
            "large", "conversation", "large",
        )  # fmt: skip
        assert explained["switch_cost_usd"] == pytest.approx(12_000 * 0.9e-6, rel=0.1)
        assert "alone it would be medium" in explained["reason"]
        second = await gateway.chat(messages=said, turnout=worth)
        assert (second.headers["x-turnout-candidate"], second.headers["x-turnout-conversation"]) == ("large", "kept")


async def test_a_candidate_asked_for_by_name_has_no_conversation(running) -> None:
    response = await running.client.post(PATHS["chat"], json={**begun("chat"), "model": "small"})
    assert "x-turnout-conversation" not in response.headers
    assert len(running.gateway.conversations) == 0


async def test_it_can_be_turned_off(start, pool_toml) -> None:
    async with start(pool_toml + "\n[routing]\nconversations_keep_for_s = 0\n") as gateway:
        await gateway.client.post(PATHS["chat"], json=begun("chat"))
        response = await gateway.client.post(
            PATHS["chat"], json=with_result("chat"), headers={"x-turnout-threshold": "0.85"}
        )
        assert response.headers["x-turnout-candidate"] == "large"
        assert "x-turnout-conversation" not in response.headers
        assert len(gateway.gateway.conversations) == 0


async def test_what_failed_is_not_remembered(running) -> None:
    running.provider.faults.put("medium-at-provider", Fault(status=500))
    assert (await running.client.post(PATHS["chat"], json=begun("chat"))).status_code == 500
    assert len(running.gateway.conversations) == 0


async def test_many_conversations_at_once_do_not_mix(running) -> None:
    async def converse(i: int) -> None:
        threshold = {"x-turnout-threshold": "0.85" if i % 2 else "0.75"}
        said = [{"role": "user", "content": f"Say {'a' * (i + 1)}."}]
        first = await running.client.post(PATHS["chat"], json={"model": "auto", "messages": said}, headers=threshold)
        called = [*said, CHAT_CALL, CHAT_RESULT]
        then = await running.client.post(
            PATHS["chat"], json={"model": "auto", "messages": called}, headers={"x-turnout-threshold": "0.5"}
        )
        expected = "large" if i % 2 else "medium"
        assert [r.headers["x-turnout-candidate"] for r in (first, then)] == [expected, expected]

    await asyncio.gather(*(converse(i) for i in range(20)))


BILLING = {"type": "text", "text": "x-anthropic-billing-header: cch=1"}


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ({"system": "You plan."}, {"system": "You write."}, False),
        ({"instructions": "You plan."}, {"instructions": "You write."}, False),
        ({}, {"system": "You write."}, False),
        ({"system": [text("You plan.")]}, {"system": "You plan."}, True),
        (
            {"system": [{**BILLING, "text": BILLING["text"] + "2"}, text("You plan.")]},
            {"system": [BILLING, text("You plan.")]},
            True,
        ),
        ({"system": "At 09:15 you plan."}, {"system": "At 10:16 you plan."}, True),
        ({"system": "p" * 500 + "Thursday"}, {"system": "p" * 500 + "Friday"}, True),
        ({"system": [text("p" * 300), text("p" * 200 + "Thursday")]}, {"system": "p" * 300 + "x"}, False),
    ],
)
def test_the_beginning_of_the_systems_text_tells_conversations_apart(first, second, is_same) -> None:
    memory = Conversations()
    hello = {"role": "user", "content": "hello"}
    place(memory, {"messages": [hello], **first}).answered("medium", Usage(10, 5), None)
    answered = [hello, {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]
    assert (place(memory, {"messages": answered, **second}).history() is not None) is is_same


@pytest.mark.parametrize("system", ["system", "developer"])
def test_a_chat_that_opens_once_more_is_new_with_a_system_message_too(system: str) -> None:
    for opening in (
        [{"role": "user", "content": "hi"}],
        [{"role": system, "content": "s"}, {"role": "user", "content": "hi"}],
    ):
        memory = Conversations()
        for _ in range(2):
            turn = place(memory, {"messages": opening})
            assert turn.became("medium") == b"new"
            turn.answered("medium", Usage(10, 5), None)
        other = [{"role": system, "content": "other"}, *opening[-1:], {"role": "assistant", "content": "a"}]
        assert place(memory, {"messages": other}).history() is None


async def test_a_rule_that_begins_to_match_does_not_break_a_turn(start, pool_toml) -> None:
    rules = """
[[rules]]
name = "long"
scenario = "large"
min_input_tokens = 300

[[rules]]
name = "fixed"
scenario = "small"
metadata = { to = "small" }
"""
    tools = [{"type": "function", "function": {"name": "ls", "parameters": {}}}]
    long_result = {"role": "tool", "tool_call_id": "call_1", "content": "z" * 2_000}
    async with start(rules + pool_toml) as gateway:

        async def ask(*said: object, **more: object):
            body = {"model": "auto", "messages": list(said), "tools": tools, **more}
            return await gateway.client.post("/v1/chat/completions", json=body)

        hello = {"role": "user", "content": "Say hello."}
        assert (await ask(hello)).headers["x-turnout-candidate"] == "medium"
        gone_on = await ask(hello, CHAT_CALL, long_result)
        assert gone_on.headers["x-turnout-candidate"] == "medium"
        assert "x-turnout-rule" not in gone_on.headers
        done = (hello, CHAT_CALL, long_result, {"role": "assistant", "content": "a.py"})
        asked_anew = await ask(*done, {"role": "user", "content": "And now?"})
        assert (asked_anew.headers["x-turnout-candidate"], asked_anew.headers["x-turnout-rule"]) == ("large", "long")
        # The other way round: a rule that no longer matches goes on to lead the turn it began.
        opening = {"role": "user", "content": "Another matter."}
        led = await ask(opening, metadata={"to": "small"})
        assert (led.headers["x-turnout-candidate"], led.headers["x-turnout-rule"]) == ("small", "fixed")
        led = await ask(opening, CHAT_CALL, long_result)
        assert (led.headers["x-turnout-candidate"], led.headers["x-turnout-rule"]) == ("small", "fixed")
        refused = await ask(opening, CHAT_CALL, long_result, turnout={"deny": ["small"]})
        assert refused.status_code == 400
