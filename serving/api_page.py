"""The API's documentation: the OpenAPI document, and a page of it for people.

The inference routes are plain ASGI, so FastAPI does not know them: :func:`describe` adds them. The page holds no script
and fetches nothing: what a gateway shows its operator shall not depend on anybody's content network, nor tell it.

Entry points: :func:`describe`, :func:`page`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_DIALS: dict[str, Any] = {
    "type": "object",
    "description": "What this request asks of the routing; at most one of threshold, preset, willingness_to_pay_usd, "
    "and none beside a candidate's name. Limits here and in headers add up.",
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
        "allow": {
            "type": "array",
            "maxItems": 64,
            "items": {"type": "string"},
            "description": "Globs; only these candidates.",
        },
        "deny": {
            "type": "array",
            "maxItems": 64,
            "items": {"type": "string"},
            "description": "Globs; never these candidates.",
        },
        "max_latency_s": {
            "type": "number",
            "minimum": 0,
            "description": "Upper bound on the expected seconds until the answer is whole.",
        },
        "regions": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Only deployments known to be in one of these regions, failover included.",
        },
        "data_policies": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Only deployments known to keep all of these data policies, failover included.",
        },
        "priority": {"enum": ["high", "normal", "batch"], "description": "As far as the key allows."},
        "retention": {
            "enum": ["none", "features", "content"],
            "description": "What is kept of the prompt; less than the key's own, never more.",
        },
        "explain": {"type": "boolean", "description": "Explain the decision in x-turnout-explanation."},
        "losses": {
            "enum": ["strict", "warn", "silent"],
            "description": "What to do about fields that a translation cannot carry.",
        },
    },
}
_DIAL_HEADERS = tuple(name.replace("_", "-") for name in _DIALS["properties"])
_ANSWER_HEADERS = {
    "x-turnout-candidate": "Who answered.",
    "x-turnout-decision-id": "Names the decision in the records.",
    "x-turnout-policy": "The policy that decided, or `designated`.",
    "x-turnout-scenario": "The scenario that decided; absent when none did.",
    "x-turnout-rule": "The rule that led there; absent when none did.",
    "x-turnout-experiment": "`NAME/ARM` of the experiment that the request took part in; absent when in none.",
    "x-turnout-data-policy": "What deployments had to meet: `regions=eu; data_policies=zdr`; absent when nothing.",
    "x-turnout-explanation": "JSON, where `explain` asked for it: scenario, rule, reason, ranking.",
    "x-turnout-conversation": "`new`, `kept` (the candidate that answered before) or `switched`; absent where no "
    "conversation is recognised.",
    "x-turnout-bundle": "The bundle that predicted, name@version.",
    "x-turnout-expected-cost-usd": "Absent when unknown.",
    "x-turnout-cost-usd": "What it cost, on whole answers; absent when unknown.",
    "x-turnout-like": "The bundle candidate whose predictions were borrowed; absent when none were.",
    "x-turnout-lost": "Fields of the request that did not reach the provider as sent: dropped, `;changed` or "
    "`;emulated`; absent when none.",
    "x-turnout-translated": "`messages>chat` where the provider was spoken to in another dialect; absent otherwise.",
    "x-turnout-emulated": "`true` when the built-in emulator answered.",
}
#: Path -> summary, what to know, fields that must be there, an example.
_INFERENCE: Mapping[str, tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = {
    "/v1/chat/completions": (
        "Chat completion",
        "OpenAI Chat Completions.",
        {"messages": {"type": "array", "minItems": 1, "items": {"type": "object"}}},
        {"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 23?"}]},
    ),
    "/v1/responses": (
        "Response",
        "OpenAI Responses. `previous_response_id` needs `responses.keep_for_s`.",
        {"input": {"description": "A string, or a list of items."}},
        {"model": "auto", "input": "What is 17 * 23?"},
    ),
    "/v1/messages": (
        "Message",
        "Anthropic Messages, versions 2023-06-01 and 2026-10-21.",
        {"messages": {"type": "array", "minItems": 1, "items": {"type": "object"}}},
        {"model": "auto", "max_tokens": 1000, "messages": [{"role": "user", "content": "What is 17 * 23?"}]},
    ),
    "/v1/messages/count_tokens": (
        "Count tokens",
        "By the provider where it counts, else an estimate, marked by the header `x-turnout-estimated`.",
        {"messages": {"type": "array", "minItems": 1, "items": {"type": "object"}}},
        {"model": "auto", "messages": [{"role": "user", "content": "What is 17 * 23?"}]},
    ),
    "/v1/embeddings": (
        "Embeddings",
        "OpenAI's; `model` is a candidate with `embeddings = true`.",
        {"input": {"description": "A string, a list of strings, or tokens."}},
        {"model": "text-embedding-3-small", "input": "What is 17 * 23?"},
    ),
    "/v1/completions": (
        "Completion",
        "OpenAI's legacy completions: one prompt, answered by a chat model.",
        {"prompt": {"type": "string"}},
        {"model": "auto", "prompt": "What is 17 * 23?"},
    ),
}


def _operation(path: str) -> dict[str, Any]:
    """Describe one inference route."""
    summary, note, needed, example = _INFERENCE[path]
    return {
        "tags": ["inference"],
        "summary": summary,
        "description": f"{note} `model` is `auto`, `auto:PRESET`, `scenario:NAME` or a candidate's name; a "
        "provider of the same API gets every field as it came.",
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
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
                        "required": ["model", *needed],
                        "properties": {
                            "model": {"type": "string"},
                            **needed,
                            "stream": {"type": "boolean", "default": False},
                            "turnout": {"$ref": "#/components/schemas/Dials"},
                        },
                        "additionalProperties": True,
                    },
                    "example": dict(example),
                }
            },
        },
        "responses": {
            "200": {
                "description": "The answer in the same API: a JSON object, or server-sent events.",
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in _ANSWER_HEADERS.items()
                },
                "content": {"application/json": {}, "text/event-stream": {}},
            },
            "default": {
                "description": "An error in the envelope of the API; the provider's own where it may be shown.",
                "content": {"application/json": {}},
            },
        },
    }


#: For the browser: nothing but the styles of the page itself, in nobody's frame.
PAGE_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
section{border-top:1px solid #ccc;padding:.5rem 0}h2{font-size:1.05rem;margin:.5rem 0}code,pre{font-size:.9rem}
h2 b{display:inline-block;min-width:3.5rem}pre{background:#f3f3f3;padding:.75rem;overflow-x:auto}p{margin:.25rem 0}
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}pre{background:#262626}a{color:#8ab4f8}}
"""


def page(schema: Mapping[str, Any], base_url: str) -> str:
    """Write an OpenAPI document as one self-contained page: every route with an example to paste.

    Parameters
    ----------
    schema : Mapping
        The OpenAPI document.
    base_url : str
        Of this gateway as the reader reached it, for the examples.

    Returns
    -------
    str
        HTML without scripts or links to any other host.
    """
    title, summary = escape(schema["info"]["title"]), escape(schema["info"].get("summary", ""))
    routes = "".join(
        _section(method.upper(), path, operation, base_url.rstrip("/"))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><h1>{title} API</h1>'
        f'<p>{summary} The whole description, for programs: <a href="/openapi.json">/openapi.json</a>. Where keys are '
        f"configured, put yours into <code>$TURNOUT_KEY</code>.</p>{routes}</body></html>"
    )


def _section(method: str, path: str, operation: Mapping[str, Any], base_url: str) -> str:
    said = operation.get("description") or operation.get("summary", "")
    return (
        f"<section><h2><b>{escape(method)}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}</h2>"
        f"<p>{escape(said)}</p><pre>{escape(_curl(method, path, operation, base_url))}</pre></section>"
    )


def _curl(method: str, path: str, operation: Mapping[str, Any], base_url: str) -> str:
    """Write a call as a shell command: the key as a variable, the body as the document's own example."""
    words = [f"curl {shlex.quote(base_url + path.replace('{model}', 'auto'))}"]
    if method not in ("GET", "POST"):
        words.append(f"-X {method}")
    if operation.get("security"):
        words.append('-H "authorization: Bearer $TURNOUT_KEY"')
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if body is not None:
        words += ["-H 'content-type: application/json'", f"-d {shlex.quote(orjson.dumps(body).decode())}"]
    return " \\\n  ".join(words)


def describe(api: FastAPI) -> None:
    """Let a FastAPI application's OpenAPI document show the inference routes too."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, summary=api.summary, routes=api.routes)
            schema["paths"] = {**{path: {"post": _operation(path)} for path in _INFERENCE}, **schema["paths"]}
            schema.setdefault("components", {}).setdefault("schemas", {})["Dials"] = _DIALS
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
