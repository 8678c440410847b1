"""Request bodies in three dialects, deterministic and no two alike: a plain question, and an agent's long session.

Every word is made up here. Entry points: :data:`BODIES` (by shape), :func:`made`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import lru_cache

import orjson
from decision import prompt

#: Of an agent's request, in bytes of JSON; what is missing is filled with tool results.
AGENT_BYTES = 88_000
_TOOLS = (
    ("Shell", ("command", "purpose", "timeout_ms", "in_background")),
    ("ReadFile", ("path", "first_line", "n_lines")),
    ("WriteFile", ("path", "content")),
    ("EditFile", ("path", "old_text", "new_text", "is_everywhere")),
    ("FindFiles", ("pattern", "folder")),
    ("Search", ("expression", "folder", "glob", "n_context_lines", "is_multiline", "limit")),
    ("ListFolder", ("folder", "ignored")),
    ("FetchPage", ("url", "question")),
    ("Plan", ("steps", "current")),
    ("Delegate", ("task", "instructions", "kind", "model")),
    ("Notebook", ("path", "cell", "source", "mode")),
    ("Ask", ("question", "choices", "is_multiple")),
)
#: Steps the agent took already, and the bytes of one besides what its tools found.
_N_TURNS, _TURN_BYTES = 8, 1_020
_CACHED: Mapping[str, object] = {"cache_control": {"type": "ephemeral"}}


def _chat(text: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0}


def _messages(text: str) -> dict[str, object]:
    return {"max_tokens": 4096, "messages": [{"role": "user", "content": text}], "temperature": 0}


def _responses(text: str) -> dict[str, object]:
    return {"input": text, "temperature": 0, "store": False}


def _schema(names: tuple[str, ...], rng: random.Random) -> dict[str, object]:
    """Make the schema of a tool: nested, with enumerations, defaults and long descriptions."""
    properties: dict[str, object] = {}
    for name in names:
        said = {"description": prompt(28, rng)}
        if name.startswith(("n_", "first", "limit", "timeout", "cell")):
            properties[name] = {"type": "integer", "minimum": 0, **said}
        elif name.startswith(("is_", "in_")):
            properties[name] = {"type": "boolean", "default": False, **said}
        elif name in ("steps", "choices", "ignored"):
            inner = {"title": {"type": "string"}, "state": {"type": "string", "enum": ["open", "begun", "done"]}}
            item = {"type": "object", "properties": inner, "required": ["title"], "additionalProperties": False}
            properties[name] = {"type": "array", "items": item, **said}
        else:
            properties[name] = {"type": "string", **said}
    return {"type": "object", "properties": properties, "required": [*names[:2]], "additionalProperties": False}


def _turn(n: int, n_bytes: int, rng: random.Random) -> list[dict[str, object]]:
    """Make one step of an agent: a word, two calls side by side, and what came of them."""
    calls = [(f"toolu_{n:02}{i}{rng.getrandbits(48):012x}", *_TOOLS[(2 * n + i) % len(_TOOLS)]) for i in range(2)]
    said = [
        {"type": "text", "text": prompt(30, rng)},
        *(
            {"type": "tool_use", "id": name, "name": tool, "input": {field: prompt(12, rng) for field in fields[:2]}}
            for name, tool, fields in calls
        ),
    ]
    found = [
        {"type": "tool_result", "tool_use_id": name, "content": [{"type": "text", "text": prompt(n_bytes // 8, rng)}]}
        for name, *_ in calls
    ]
    return [{"role": "assistant", "content": said}, {"role": "user", "content": found}]


def _agent(text: str) -> dict[str, object]:
    """Make a Messages request as a coding agent sends it after some turns, ending with a human's words."""
    body, messages, reminders = _session()
    asked = {"type": "text", "text": text, **_CACHED}
    return {**body, "messages": [*messages, {"role": "user", "content": [*reminders, asked]}]}


@lru_cache(maxsize=1)
def _session() -> tuple[dict[str, object], list[dict[str, object]], list[dict[str, object]]]:
    """Make what all requests of a session share: the body, its messages so far, the reminders to come."""
    rng = random.Random(0)
    reminders: list[dict[str, object]] = [
        {"type": "text", "text": f"<system-reminder>\n{prompt(220, rng)}\n</system-reminder>\n"} for _ in range(8)
    ]
    body: dict[str, object] = {
        "max_tokens": 32_000,
        "system": [
            {"type": "text", "text": prompt(20, rng)},
            {"type": "text", "text": prompt(40, rng), **_CACHED},
            {"type": "text", "text": prompt(3_000, rng), **_CACHED},
        ],
        "tools": [
            {"name": name, "description": prompt(330, rng), "input_schema": _schema(fields, rng)}
            for name, fields in _TOOLS
        ],
        "metadata": {"user_id": f"user_{rng.getrandbits(128):032x}"},
    }
    task = {"type": "text", "text": prompt(60, rng)}
    messages: list[dict[str, object]] = [{"role": "user", "content": [*reminders[:5], task]}]
    missing = AGENT_BYTES - len(orjson.dumps([body, messages, reminders[5:]]))
    for n in range(_N_TURNS):
        messages += _turn(n, missing // _N_TURNS - _TURN_BYTES, rng)
    messages.append({"role": "assistant", "content": [{"type": "text", "text": prompt(80, rng)}]})
    return body, messages, reminders[5:]


#: What a text is wrapped in, by name: one for each API of clients, and the agent's.
BODIES: Mapping[str, Callable[[str], dict[str, object]]] = {
    "chat": _chat,
    "messages": _messages,
    "responses": _responses,
    "agent": _agent,
}
PATHS = {
    "chat": "/v1/chat/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
    "agent": "/v1/messages",
}


def made(shape: str, model: str, n_tokens: int, n: int, seed: int, *, is_stream: bool) -> list[bytes]:
    """Make n different bodies of one shape, each asking about ``n_tokens`` tokens of its own."""
    rng = random.Random(seed)
    extra = {"stream": True} if is_stream else {}
    return [orjson.dumps({"model": model, **BODIES[shape](prompt(n_tokens, rng)), **extra}) for _ in range(n)]
