"""What the OpenAPI page says besides what FastAPI finds out: the inference routes, which are plain ASGI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_DIALS = {
    "type": "object",
    "description": "What this request asks of the routing; at most one of threshold, preset, willingness_to_pay_usd.",
    "additionalProperties": False,
    "properties": {
        "threshold": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Cheapest candidate predicted to reach this quality.",
        },
        "preset": {"type": "string", "description": "quality, balanced, price, latency, or a configured one."},
        "willingness_to_pay_usd": {
            "type": "number",
            "minimum": 0,
            "description": "USD that a whole unit of quality is worth.",
        },
        "max_cost_usd": {
            "type": "number",
            "minimum": 0,
            "description": "Upper bound on the expected cost of the call; candidates of unknown price fail it.",
        },
        "allow": {"type": "array", "items": {"type": "string"}, "description": "Globs; only these candidates."},
        "deny": {"type": "array", "items": {"type": "string"}, "description": "Globs; never these candidates."},
    },
}
_DIAL_HEADERS = ("threshold", "preset", "willingness-to-pay-usd", "max-cost-usd")
_ANSWER_HEADERS = {
    "x-turnout-candidate": "Who answered.",
    "x-turnout-decision-id": "Names the decision in the records.",
    "x-turnout-policy": "The policy that decided, or `designated`.",
    "x-turnout-bundle": "The bundle that predicted, name@version.",
    "x-turnout-expected-cost-usd": "Absent when unknown.",
    "x-turnout-cost-usd": "What it cost, on whole answers; absent when unknown.",
    "x-turnout-like": "The bundle candidate whose predictions were borrowed; absent when none were.",
    "x-turnout-emulated": "`true` when the built-in emulator answered.",
}
_CHAT = {
    "post": {
        "tags": ["inference"],
        "summary": "Chat completion",
        "description": "OpenAI Chat Completions. `model` is `auto`, `auto:PRESET` or a candidate's name; fields not "
        "listed here go to the provider unchanged.",
        "operationId": "chat_completions",
        "security": [{"HTTPBearer": []}],
        "parameters": [
            {"name": f"x-turnout-{name}", "in": "header", "required": False, "schema": {"type": "string"}}
            for name in _DIAL_HEADERS
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["model", "messages"],
                        "properties": {
                            "model": {"type": "string"},
                            "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
                            "stream": {"type": "boolean", "default": False},
                            "turnout": {"$ref": "#/components/schemas/Dials"},
                        },
                        "additionalProperties": True,
                    },
                    "example": {
                        "model": "auto",
                        "messages": [{"role": "user", "content": "What is 17 * 23?"}],
                    },
                }
            },
        },
        "responses": {
            "200": {
                "description": "The provider's answer, untouched: a JSON object, or server-sent events.",
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in _ANSWER_HEADERS.items()
                },
                "content": {"application/json": {}, "text/event-stream": {}},
            },
            "default": {
                "description": "An error in the OpenAI envelope; the provider's own where it may be shown.",
                "content": {"application/json": {}},
            },
        },
    }
}


def describe(api: FastAPI) -> None:
    """Let a FastAPI application's OpenAPI page show the inference routes too."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
            schema["paths"] = {"/v1/chat/completions": _CHAT, **schema["paths"]}
            schema.setdefault("components", {}).setdefault("schemas", {})["Dials"] = _DIALS
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
