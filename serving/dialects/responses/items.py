"""Input items of Responses, both ways: what was said so far.

Items are flat; messages of the neutral form are turns. Consecutive items of the assistant (words, thoughts, calls)
are one turn of it, consecutive outputs of tools are one message of the user. Entry points: :func:`read_input`,
:func:`write_items`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from serving import fields
from serving.dialects.conversation import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from serving.dialects.losses import Losses
from serving.dialects.responses.marks import unmarked
from serving.dialects.responses.parts import read_content, write_part

_Side: TypeAlias = Literal["system", "user", "assistant", "tool"]
_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
#: Calls that the provider itself made and answered: without them the rest still reads.
_HOSTED = frozenset({"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"})
#: Named in the refusal; any other type is somebody's words.
_KNOWN = frozenset(
    {"item_reference", "compaction", "compaction_trigger", "configuration_update",
     "tool_search_call", "tool_search_output", "local_shell_call", "local_shell_call_output", "shell_call",
     "shell_call_output",
     "apply_patch_call", "apply_patch_call_output", "computer_call", "computer_call_output", "mcp_list_tools",
     "mcp_approval_request", "mcp_approval_response", "mcp_call", "program", "program_output"}
)  # fmt: skip


def read_input(given: object, losses: Losses) -> list[Message]:
    """Read the ``input`` of a request: a string, or items.

    Raises
    ------
    InvalidRequest
        An item cannot be, or has no counterpart in other dialects; names it.
    """
    if isinstance(given, str):
        return [Message("user", (Text(given),))]
    if not isinstance(given, list):
        raise fields.wrong("input", given, "a string or a list of items")
    turns: list[tuple[_Side, list[Part]]] = []
    for i, item in enumerate(given):
        at = f"input[{i}]"
        if not isinstance(item, dict):
            raise fields.wrong(at, item, "an object")
        kind = "message" if item.get("type") is None else item["type"]
        if not isinstance(kind, str):
            raise fields.wrong(f"{at}.type", kind, "a string")
        if kind == "additional_tools":  # read with the tools
            continue
        if kind in _HOSTED:
            losses.dropped(at)
            continue
        if kind == "reasoning" and (owned := _state_of_call(item)) is not None:
            if turns:
                _give_back(turns[-1][1], *owned)
            continue
        side, parts = _reader_of(kind, at, losses)(item, at, losses)
        if turns and turns[-1][0] == side and side in ("assistant", "tool"):
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((side, parts))
    return [Message("user" if side == "tool" else side, tuple(parts)) for side, parts in turns]


def write_items(messages: Sequence[Message], losses: Losses, n_before: int = 0) -> list[dict[str, object]]:
    """Write the items that messages become; as many messages as said stand before them."""
    items: list[dict[str, object]] = []
    for i, message in enumerate(messages, n_before):
        items.extend(_items_of(message, f"messages[{i}]", losses))
    return items


def read_reasoning(item: Mapping[str, object]) -> list[Reasoning]:
    """Read the summary, the thoughts themselves and the state of a reasoning item; tolerant, since it is a provider's.

    Where both texts are there, the state goes with the second.
    """
    encrypted = item.get("encrypted_content")
    state, is_redacted, _ = unmarked(encrypted) if isinstance(encrypted, str) and encrypted else (None, False, None)
    texts = ((_joined(item.get("summary")), True), (_joined(item.get("content")), False))
    found = [Reasoning(text, is_summary) for text, is_summary in texts if text]
    if state is None:
        return found
    last = found.pop() if found else Reasoning()
    return [*found, replace(last, state=state, is_redacted=is_redacted)]


def _reader_of(kind: str, at: str, losses: Losses) -> _Reader:
    if kind in _READERS:
        return _READERS[kind]
    if kind == "item_reference":
        raise losses.refuse(
            at,
            "the item it names is not kept here: let the client send whole items (store: false), or the gateway keep "
            "responses (responses.keep_for_s)",
        )
    named = kind if kind in _KNOWN else "items of this type"
    raise losses.refuse(at, f"{named} cannot be translated for this candidate")


def _message(item: Mapping[str, object], at: str, losses: Losses) -> tuple[_Side, list[Part]]:
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise fields.wrong(f"{at}.role", item.get("role"), "user, assistant, system or developer")
    if item.get("phase") is not None:
        losses.hint(f"{at}.phase")
    parts: list[Part] = list(read_content(item.get("content"), f"{at}.content", losses))
    if role == "system" and not all(isinstance(part, Text) for part in parts):
        raise losses.refuse(f"{at}.content", "only text may stand in a system message")
    return role, parts


def _reasoning(item: Mapping[str, object], at: str, losses: Losses) -> tuple[_Side, list[Part]]:
    return "assistant", list(read_reasoning(item))


def _call(item: Mapping[str, object], at: str, losses: Losses) -> tuple[_Side, list[Part]]:
    is_custom = item.get("type") == "custom_tool_call"
    call = ToolCall(
        fields.string(item, "call_id", at),
        fields.string(item, "name", at),
        fields.string(item, "input" if is_custom else "arguments", at),
        is_custom,
        fields.optional(item, "namespace", str, "a string", f"{at}."),
    )
    return "assistant", [call]


def _output(item: Mapping[str, object], at: str, losses: Losses) -> tuple[_Side, list[Part]]:
    parts = tuple(read_content(item.get("output"), f"{at}.output", losses))
    allowed = tuple(part for part in parts if isinstance(part, Text | Image | File))
    if len(allowed) != len(parts):
        raise losses.refuse(f"{at}.output", "only text, images and documents may stand in what a tool gave")
    is_custom = item.get("type") == "custom_tool_call_output"
    return "tool", [ToolResult(fields.string(item, "call_id", at), allowed, is_custom=is_custom)]


_Reader: TypeAlias = Callable[[Mapping[str, object], str, Losses], tuple[_Side, list[Part]]]
_READERS: Mapping[str, _Reader] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "custom_tool_call": _call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
}


def _state_of_call(item: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the id of the call whose state a reasoning item holds, and the state."""
    encrypted = item.get("encrypted_content")
    state, _, call_id = unmarked(encrypted) if isinstance(encrypted, str) else ("", False, None)
    return None if call_id is None else (call_id, state)


def _give_back(turn: list[Part], call_id: str, state: str) -> None:
    """Give a call of this turn its state."""
    for i, part in enumerate(turn):
        if isinstance(part, ToolCall) and part.id == call_id:
            turn[i] = replace(part, state=state)


def _joined(texts: object) -> str:
    listed = texts if isinstance(texts, list) else []
    found = [t["text"] for t in listed if isinstance(t, dict) and isinstance(t.get("text"), str)]
    return "\n\n".join(text for text in found if text)


def _items_of(message: Message, at: str, losses: Losses) -> Iterator[dict[str, object]]:
    is_assistant = message.role == "assistant"
    content: list[dict[str, object]] = []
    for j, part in enumerate(message.parts):
        here = f"{at}.content[{j}]"
        if is_assistant and isinstance(part, Image | File | Audio):
            losses.dropped(here)  # an assistant's message holds words only
        elif isinstance(part, Text | Image | File | Audio | Refusal):
            content.append(write_part(part, here, losses, is_assistant=is_assistant))
        else:
            if content:
                yield _message_item(message.role, content)
                content = []
            if (item := _item_of(part, here, losses)) is not None:
                yield item
    if content:
        yield _message_item(message.role, content)


def _message_item(role: Role, content: list[dict[str, object]]) -> dict[str, object]:
    return {"type": "message", "role": "developer" if role == "system" else role, "content": content}


def _item_of(part: Reasoning | ToolCall | ToolResult, at: str, losses: Losses) -> dict[str, object] | None:
    match part:
        case Reasoning(state=None):
            losses.dropped(f"{at}.reasoning")
            return None
        case Reasoning():
            # Whatever the text is, a summary is the only kind that may be sent back.
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": part.state}
        case ToolCall():
            return _call_item(part, at, losses)
        case ToolResult():
            return _output_item(part, at, losses)


def _call_item(call: ToolCall, at: str, losses: Losses) -> dict[str, object]:
    if call.state is not None:
        losses.hint(f"{at}.state")  # another provider's
    item: dict[str, object] = {"type": "custom_tool_call" if call.is_custom else "function_call", "call_id": call.id}
    if call.namespace is not None:
        item["namespace"] = call.namespace
    given = {"input": call.arguments} if call.is_custom else {"arguments": call.arguments or "{}"}
    return {**item, "name": call.name, **given}


def _output_item(result: ToolResult, at: str, losses: Losses) -> dict[str, object]:
    if result.is_error:
        losses.hint(f"{at}.is_error")
    if result.cache_ttl is not None:
        losses.dropped("cache_control")
    written = [write_part(part, f"{at}.content[{i}]", losses) for i, part in enumerate(result.parts)]
    output: object = written
    if not written or (len(written) == 1 and written[0]["type"] == "input_text" and written[0]["text"]):
        output = written[0]["text"] if written else ""
    kind = "custom_tool_call_output" if result.is_custom else "function_call_output"
    return {"type": kind, "call_id": result.call_id, "output": output}
