"""Emulated embeddings: a unit vector made of a text's hash, in the bodies of OpenAI and of Gemini. Pure.

Near texts are not near. Entry points: :func:`openai_embeddings`, :func:`gemini_embedding`,
:func:`gemini_embeddings`.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Mapping

from serving import fields
from serving.emulated_answers import n_tokens_of
from serving.errors import InvalidRequest

N_DIMENSIONS = 16
_MOST_DIMENSIONS = 4096
_EXPECTED_INPUT = "a string, a list of strings, a list of tokens, or a list of lists of tokens"


def vector_of(text: str, n_dimensions: int = N_DIMENSIONS) -> list[float]:
    """Return the unit vector of a text; the same text always has the same one."""
    draw = hashlib.shake_256(text.encode()).digest(2 * n_dimensions)
    values = [value - 32767.5 for value in struct.unpack(f"<{n_dimensions}H", draw)]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]


def openai_embeddings(model: str, body: Mapping[str, object]) -> dict[str, object]:
    """Return the answer to ``POST /v1/embeddings``.

    Raises
    ------
    InvalidRequest
        Names the field at fault.
    """
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise InvalidRequest("encoding_format must be float or base64", param="encoding_format")
    n_dimensions = _n_dimensions(body, "dimensions")
    inputs = _inputs(body.get("input"))
    vectors = [vector_of(text, n_dimensions) for text, _ in inputs]
    rows = [
        {"object": "embedding", "index": i, "embedding": _base64(vector) if encoding == "base64" else vector}
        for i, vector in enumerate(vectors)
    ]
    n_tokens = sum(n for _, n in inputs)
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "data": rows, "model": model, "usage": usage}


def gemini_embedding(body: Mapping[str, object]) -> dict[str, object]:
    """Return the answer to ``:embedContent``; raises InvalidRequest naming the field at fault."""
    return {"embedding": _gemini_values(body, "")}


def gemini_embeddings(body: Mapping[str, object]) -> dict[str, object]:
    """Return the answer to ``:batchEmbedContents``; raises InvalidRequest naming the field at fault."""
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise fields.wrong("requests", requests, "a list of at least one request")
    return {"embeddings": [_gemini_values(request, f"requests[{i}].") for i, request in enumerate(requests)]}


def _gemini_values(request: object, at: str) -> dict[str, object]:
    content = request.get("content") if isinstance(request, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if not isinstance(request, dict) or not texts or not all(isinstance(text, str) for text in texts):
        raise fields.wrong(f"{at}content", content, "a content with text parts")
    return {"values": vector_of("\n".join(map(str, texts)), _n_dimensions(request, "outputDimensionality"))}


def _n_dimensions(body: Mapping[str, object], key: str) -> int:
    n_dimensions = fields.positive(body, key) or N_DIMENSIONS
    if n_dimensions > _MOST_DIMENSIONS:
        raise InvalidRequest(f"{key} must be at most {_MOST_DIMENSIONS}", param=key)
    return n_dimensions


def _inputs(asked: object) -> list[tuple[str, int]]:
    """Return the text and the number of tokens of each input; tokens are taken for the text of their numbers."""
    if isinstance(asked, str):
        return [(asked, n_tokens_of(asked))]
    if not isinstance(asked, list) or not asked:
        raise fields.wrong("input", asked, _EXPECTED_INPUT)
    if all(isinstance(one, str) for one in asked):
        return [(one, n_tokens_of(one)) for one in asked]
    many = asked if all(isinstance(one, list) for one in asked) else [asked]
    if not all(type(token) is int for one in many for token in one):
        raise fields.wrong("input", asked, _EXPECTED_INPUT)
    return [(" ".join(map(str, one)), len(one)) for one in many]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
