"""What an emulated provider says, and how long it would take: pure functions of the request.

No LLM is behind it, and every answer begins by saying so. Length and speed are made up, per candidate, but the
same request always gets the same; token counts are honest counts of the text read and written, at four
characters a token. Entry points: :data:`CANDIDATES`, :func:`answer_of`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

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
class ToolCall:
    """A call to one of the caller's functions."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, counted and timed. ``text`` is "" where a tool is called."""

    text: str
    tool_call: ToolCall | None
    finish_reason: str
    input_tokens: int
    output_tokens: int
    first_token_s: float
    tokens_per_s: float


def answer_of(model: str, body: Mapping[str, object]) -> Answer:
    """Make the answer of a model to a Chat Completions body.

    Parameters
    ----------
    model : str
        Any name; one without a row in :data:`CANDIDATES` gets middling numbers.
    body : Mapping[str, object]
        The request; fields of the wrong type are ignored, providers differ in what they refuse.
    """
    row = _BY_NAME.get(model) or EmulatedCandidate(model, 0.3, 100.0, 0.0, 0.0, 200, "Hello.")
    messages = [m for m in _list(body.get("messages")) if isinstance(m, dict)]
    read = "\n".join(_text_of(m) for m in messages)
    schemas = orjson.dumps(body["tools"]).decode() if body.get("tools") else ""
    draw = hashlib.sha256(f"{model}\n{read}".encode()).digest()
    # Lengths spread from a third to thrice the mean, durations from three quarters to one and a half.
    length = row.mean_output_tokens * 3.0 ** (draw[0] / 127.5 - 1.0)
    slowness = 0.75 * 2.0 ** (draw[1] / 255)
    text, tool_call, finish_reason = "", _tool_call(body, messages, draw), "tool_calls"
    if tool_call is None:
        text, finish_reason = _text(row, body, messages, round(length)), "stop"
        cap = body.get("max_completion_tokens", body.get("max_tokens"))
        if isinstance(cap, int) and n_tokens_of(text) > cap >= 1:
            text, finish_reason = text[: cap * CHARACTERS_PER_TOKEN], "length"
    return Answer(
        text,
        tool_call,
        finish_reason,
        input_tokens=max(1, n_tokens_of(read + schemas)),
        output_tokens=max(1, n_tokens_of(text or (tool_call.name + tool_call.arguments if tool_call else ""))),
        first_token_s=row.first_token_s * slowness,
        tokens_per_s=row.tokens_per_s / slowness,
    )


def n_tokens_of(text: str) -> int:
    """Count tokens the way this provider does: four characters each, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def pieces_of(text: str) -> list[str]:
    """Cut a text into its tokens."""
    return [text[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(text), CHARACTERS_PER_TOKEN)]


def _text(row: EmulatedCandidate, body: Mapping[str, object], messages: Sequence[object], n_tokens: int) -> str:
    label = f"[emulated {row.name}]"
    question = next((_text_of(m) for m in reversed(messages) if _role(m) == "user"), "")
    wanted = _dict(body.get("response_format"))
    if wanted.get("type") == "json_schema":
        schema = _dict(_dict(wanted.get("json_schema")).get("schema"))
        return orjson.dumps(_example(schema, schema, label)).decode()
    if wanted.get("type") == "json_object":
        return orjson.dumps({"emulated": row.name, "note": _NO_MODEL_RAN}).decode()
    sum_ = _ARITHMETIC.fullmatch(question)
    if sum_ is not None:
        return f"{label} {question.strip().rstrip('?= ')} = {_value(*sum_.groups())}"
    text = f"{label} {row.style} {_NO_MODEL_RAN} "
    missing = n_tokens * CHARACTERS_PER_TOKEN - len(text)
    return (text + _FILLER * (-(-missing // len(_FILLER)))).rstrip() if missing > 0 else text.rstrip()


def _value(left: str, operator: str, right: str) -> str:
    is_whole = "." not in left + right
    a, b = (int(left), int(right)) if is_whole else (float(left), float(right))
    if operator in "/÷":
        if b == 0:
            return "undefined"
        return str(a // b) if is_whole and a % b == 0 else f"{a / b:.12g}"
    value = a + b if operator == "+" else a - b if operator == "-" else a * b
    return str(value) if is_whole else f"{value:.12g}"


def _tool_call(body: Mapping[str, object], messages: Sequence[object], draw: bytes) -> ToolCall | None:
    """Return the call that ``tool_choice`` demands; "auto" never calls, so that plain tests stay plain."""
    functions = [_dict(tool.get("function")) for tool in _list(body.get("tools")) if isinstance(tool, dict)]
    choice = body.get("tool_choice")
    named = _dict(_dict(choice).get("function")).get("name")
    chosen = next((f for f in functions if choice == "required" or (named and f.get("name") == named)), None)
    if chosen is None or (messages and _role(messages[-1]) == "tool"):
        return None
    schema = _dict(chosen.get("parameters"))
    arguments = orjson.dumps(_example(schema, schema, "[emulated]") if schema else {}).decode()
    return ToolCall(f"call_{draw[:12].hex()}", str(chosen.get("name", "")), arguments)


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


def _text_of(message: object) -> str:
    """Return the text of a message, parts joined."""
    content = _dict(message).get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in _list(content) if isinstance(_dict(part).get("text"), str))


def _role(message: object) -> object:
    return _dict(message).get("role")


def _dict(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[dict[str, str]]:
    return value if isinstance(value, list) else []
