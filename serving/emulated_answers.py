"""What an emulated provider says, and how long it would take: pure functions of a conversation.

No LLM is behind it, and every answer begins by saying so, but for what a script has it say. Length and speed are
made up, per candidate, but the same request always gets the same, in whatever dialect; token counts are honest counts
of the text read and written, at four characters a token. Entry points: :data:`CANDIDATES`, :func:`answer_of`,
:func:`n_input_tokens_of`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import orjson

from router.pricing import Usage
from serving.dialects.answer import Answer, Finished, Reason
from serving.dialects.conversation import (
    Conversation,
    File,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)
from serving.emulated_scripts import Step

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class EmulatedCandidate:
    """One row: how a candidate of this name is made to behave.

    ``style`` is how it starts after its label. Prices are list prices of 2024, in USD per million tokens.
    """

    name: str
    first_token_s: float
    tokens_per_s: float
    input_usd_per_mtok: float
    output_usd_per_mtok: float
    mean_output_tokens: int
    style: str


CANDIDATES = (
    EmulatedCandidate("gpt-4o-2024-05-13", 0.45, 85.0, 5.0, 15.0, 380, "Let me take this step by step."),
    EmulatedCandidate("gemini-1.5-pro", 0.70, 60.0, 1.25, 5.0, 140, "In short:"),
    EmulatedCandidate("llama-3.1-70b-instruct", 0.35, 70.0, 0.88, 0.88, 200, "Here is what I think."),
    EmulatedCandidate("gemini-1.5-flash", 0.30, 165.0, 0.075, 0.3, 155, "Quick answer:"),
    EmulatedCandidate("llama-3.1-8b-instruct", 0.20, 180.0, 0.18, 0.18, 310, "Sure!"),
    EmulatedCandidate("phi-3-mini", 0.15, 120.0, 0.1, 0.1, 180, "Answer:"),
)
_BY_NAME = {row.name: row for row in CANDIDATES}
_ARITHMETIC = re.compile(
    r"\s*(?:what(?: is|'s)|compute|calculate)?\s*(-?\d{1,9}(?:\.\d{1,6})?)\s*([-+*/x×÷])\s*"
    r"(-?\d{1,9}(?:\.\d{1,6})?)\s*=?\s*\??\s*",
    re.IGNORECASE,
)
_NO_MODEL_RAN = (
    "This is an emulated provider inside Turnout: no LLM ran and nobody read the question. "
    "The text exists so that routing, streaming and accounting can be tried without any account."
)
_FILLER = "These words are only filler, to reach the length such an answer would have. "


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """An answer, and how fast it comes."""

    answer: Answer
    first_token_s: float
    tokens_per_s: float

    @property
    def total_s(self) -> float:
        """How long all of it takes."""
        return self.first_token_s + (self.answer.usage.output_tokens or 0) / self.tokens_per_s


def answer_of(
    model: str, conversation: Conversation, step: Step | None = None, *, signs_calls: bool = False
) -> TimedAnswer:
    """Make the answer of a model.

    Parameters
    ----------
    model : str
        Any name; one without a row in :data:`CANDIDATES` gets middling numbers.
    conversation : Conversation
    step : Step or None
        What a script has it say; None makes an answer up.
    signs_calls : bool, default=False
        Whether a provider of this dialect puts its signature on the first call instead of on the reasoning.
    """
    row = _BY_NAME.get(model) or EmulatedCandidate(model, 0.3, 100.0, 0.0, 0.0, 200, "Hello.")
    read = _read_by(conversation)
    draw = hashlib.sha256(f"{model}\n{read}".encode()).digest()
    # Lengths spread from a third to thrice the mean, durations from three quarters to one and a half.
    length = row.mean_output_tokens * 3.0 ** (draw[0] / 127.5 - 1.0)
    slowness = 0.75 * 2.0 ** (draw[1] / 255)
    if step is None:
        parts, finished = _made_up(row, conversation, round(length), draw)
    else:
        parts, finished = _scripted(step, conversation, signs_calls, draw)
    usage = Usage(
        input_tokens=_n_tokens_read(read, conversation),
        output_tokens=max(1, n_tokens_of("".join(_words_of(part) for part in parts))),
        cache_read_tokens=0,
        cache_write_tokens=0,
        reasoning_tokens=sum(n_tokens_of(part.text) for part in parts if isinstance(part, Reasoning)),
    )
    if step is not None and step.usage is not None:
        usage = replace(usage, **step.usage)
    return TimedAnswer(
        Answer(parts, finished, usage),
        first_token_s=row.first_token_s * slowness,
        tokens_per_s=row.tokens_per_s / slowness,
    )


def n_input_tokens_of(conversation: Conversation) -> int:
    """Count the tokens of a request."""
    return _n_tokens_read(_read_by(conversation), conversation)


def n_tokens_of(text: str) -> int:
    """Count tokens the way this provider does: four characters each, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def pieces_of(text: str) -> list[str]:
    """Cut a text into its tokens."""
    return [text[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(text), CHARACTERS_PER_TOKEN)]


def _made_up(
    row: EmulatedCandidate, conversation: Conversation, n_tokens: int, draw: bytes
) -> tuple[tuple[Part, ...], Finished]:
    call = _demanded_call(conversation, draw)
    if call is not None:
        return (call,), Finished("tool_calls")
    text = _text(row, conversation, n_tokens)
    limit = conversation.settings.max_output_tokens
    if limit and n_tokens_of(text) > limit:
        return (Text(text[: limit * CHARACTERS_PER_TOKEN]),), Finished("length")
    return (Text(text),), Finished("stop")


def _scripted(
    step: Step, conversation: Conversation, signs_calls: bool, draw: bytes
) -> tuple[tuple[Part, ...], Finished]:
    tools = {tool.name: tool for tool in conversation.tools}
    signs_call = signs_calls and bool(step.calls)
    parts: list[Part] = []
    if step.reasoning or (step.state is not None and not signs_call):
        parts.append(Reasoning(step.reasoning, is_summary=True, state=None if signs_call else step.state))
    if step.text:
        parts.append(Text(step.text))
    for i, call in enumerate(step.calls):
        tool = tools[call.name]
        call_id, state = call.id or _call_id(draw, i), step.state if signs_call and i == 0 else None
        parts.append(ToolCall(call_id, tool.name, call.arguments, tool.is_custom, tool.namespace, state))
    reason: Reason = step.finish or ("tool_calls" if step.calls else "stop")
    stop = conversation.settings.stop
    return tuple(parts), Finished(reason, stop[0] if reason == "stop_sequence" and stop else None)


def _call_id(draw: bytes, i: int) -> str:
    return f"call_{draw[:12].hex()}{i or ''}"


def _demanded_call(conversation: Conversation, draw: bytes) -> ToolCall | None:
    """Return the call that the tool choice demands; "auto" never calls, so that plain tests stay plain."""
    choice = conversation.tool_choice
    if choice is None or choice.mode != "required" or _is_of_results(conversation.messages[-1]):
        return None
    tool = next((tool for tool in conversation.tools if not choice.names or tool.name in choice.names), None)
    if tool is None:
        return None
    return ToolCall(_call_id(draw, 0), tool.name, _example_arguments(tool), tool.is_custom, tool.namespace)


def _example_arguments(tool: Tool) -> str:
    if tool.is_custom:
        return "[emulated]"
    return orjson.dumps(_example(tool.schema, tool.schema, "[emulated]") if tool.schema else {}).decode()


def _text(row: EmulatedCandidate, conversation: Conversation, n_tokens: int) -> str:
    label = f"[emulated {row.name}]"
    if conversation.output is not None:
        return _json_text(row, conversation.output, label)
    question = _question_of(conversation)
    sum_ = _ARITHMETIC.fullmatch(question)
    if sum_ is not None:
        return f"{label} {question.strip().rstrip('?= ')} = {_value(*sum_.groups())}"
    text = f"{label} {row.style} {_NO_MODEL_RAN} "
    missing = n_tokens * CHARACTERS_PER_TOKEN - len(text)
    return (text + _FILLER * (-(-missing // len(_FILLER)))).rstrip() if missing > 0 else text.rstrip()


def _json_text(row: EmulatedCandidate, output: OutputFormat, label: str) -> str:
    if output.schema is None:
        return orjson.dumps({"emulated": row.name, "note": _NO_MODEL_RAN}).decode()
    return orjson.dumps(_example(output.schema, output.schema, label)).decode()


def _value(left: str, operator: str, right: str) -> str:
    is_whole = "." not in left + right
    a, b = (int(left), int(right)) if is_whole else (float(left), float(right))
    if operator in "/÷":
        if b == 0:
            return "undefined"
        return str(a // b) if is_whole and a % b == 0 else f"{a / b:.12g}"
    value = a + b if operator == "+" else a - b if operator == "-" else a * b
    return str(value) if is_whole else f"{value:.12g}"


def _example(schema: Mapping[str, object], root: Mapping[str, object], text: str, depth: int = 0) -> object:
    """Make a small value that satisfies the common part of JSON Schema; strings are ``text``."""
    if depth > 16:
        return None
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        target: object = root
        for key in reference[2:].split("/"):
            target = _dict(target).get(key)
        return _example(_dict(target), root, text, depth + 1)
    for key in ("enum", "anyOf", "oneOf", "allOf"):
        options = _list(schema.get(key))
        if options:
            return options[0] if key == "enum" else _example(_dict(options[0]), root, text, depth + 1)
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object" or "properties" in schema:
        properties = _dict(schema.get("properties"))
        return {name: _example(_dict(p), root, text, depth + 1) for name, p in properties.items()}
    if kind == "array":
        return [_example(_dict(schema.get("items")), root, text, depth + 1)]
    examples: dict[object, object] = {"integer": 1, "number": 1.5, "boolean": True, "null": None}
    return examples.get(kind, text)


def _read_by(conversation: Conversation) -> str:
    return "\n".join(_words_of(part) for message in conversation.messages for part in message.parts)


def _n_tokens_read(read: str, conversation: Conversation) -> int:
    tools = [{"name": t.name, "description": t.description, "schema": t.schema} for t in conversation.tools]
    return max(1, n_tokens_of(read + (orjson.dumps(tools).decode() if tools else "")))


def _question_of(conversation: Conversation) -> str:
    """Return what the user said last, which is not what a tool gave."""
    for message in reversed(conversation.messages):
        said = [part.text for part in message.parts if isinstance(part, Text)]
        if message.role == "user" and said:
            return "\n".join(said)
    return ""


def _is_of_results(message: Message) -> bool:
    return any(isinstance(part, ToolResult) for part in message.parts)


def _words_of(part: Part) -> str:
    match part:
        case Text() | Refusal() | Reasoning():
            return part.text
        case ToolCall():
            return part.name + part.arguments
        case ToolResult():
            return "\n".join(_words_of(inner) for inner in part.parts)
        case File():
            return part.text or ""
        case _:
            return ""


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
