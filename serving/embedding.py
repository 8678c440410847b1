"""Embeddings: ``POST /v1/embeddings``, passed through to providers of OpenAI's form, translated for Gemini.

Pure. Entry points: :func:`parse_embeddings`, :class:`EmbeddingRelay`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from router import Prompt
from router.domain import Shape
from router.pricing import Usage
from serving import dials, fields
from serving.asked import Asked, Headers, written
from serving.deployment import Deployment, Line
from serving.dialects.chat.answer import usage_of
from serving.dialects.losses import Loss
from serving.errand import object_of
from serving.errors import InvalidRequest, UpstreamBroken
from serving.inspection import Inspection

#: Of tokens that came as numbers, for what their cost is estimated by.
CHARACTERS_PER_TOKEN = 4


def parse_embeddings(body: Mapping[str, object], headers: Headers = ()) -> Asked:
    """Read what is needed of an embeddings body.

    Raises
    ------
    InvalidRequest
        A field is missing or cannot be; its ``param`` says which.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise fields.wrong("model", model, "the name of a candidate that embeds")
    said = body.get("input")
    if not isinstance(said, str | list) or not said:
        raise fields.wrong("input", said, "a string, a list of strings, or tokens")
    fields.positive(body, "dimensions")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise fields.wrong("encoding_format", body.get("encoding_format"), "float or base64")
    n_characters = sum(map(len, _texts(said))) if _is_text(said) else CHARACTERS_PER_TOKEN * _n_tokens(said)
    read = dials.read(body.get(dials.FIELD), headers)
    return Asked(body, model, False, read, Prompt("", Shape(n_characters=n_characters)))


class EmbeddingRelay:
    """A :class:`~serving.relay.Relay` for texts to be embedded.

    Raises
    ------
    InvalidRequest
        Tokens instead of text, for a provider that takes none.
    """

    def __init__(self, asked: Asked, deployment: Deployment) -> None:
        line = deployment.lines.get("chat") or deployment.lines.get("gemini")
        if line is None:
            raise InvalidRequest("model: its provider embeds neither by Chat's nor by Gemini's API", param="model")
        self.line: Line = line
        self.url = line.embeddings_url
        self.is_translated = line.dialect != "chat"
        self.losses: tuple[Loss, ...] = ()
        self.inspection: Inspection | None = None
        self._asked = asked
        self._model = deployment.model
        if self.is_translated:
            self._body, self.losses = _to_gemini(asked.body, deployment.model)
        else:
            self._body = {**asked.body, "model": deployment.model, **line.parameters}
            self._body.pop(dials.FIELD, None)

    def body(self) -> bytes:
        """Return the body to send."""
        return written(self._body)

    def whole(self, body: bytes) -> tuple[bytes, Usage]:
        """Turn the answer."""
        answer = object_of(body)
        if self.is_translated:
            turned = _from_gemini(answer, self._asked)
            return written(turned), Usage(output_tokens=0)
        if not isinstance(answer.get("data"), list):
            raise UpstreamBroken("answered 200 without embeddings")
        usage = usage_of(answer)
        return body, Usage(input_tokens=usage.input_tokens, output_tokens=0)

    def conveyor(self) -> NoReturn:
        """Fail: embeddings are never streamed."""
        raise AssertionError("embeddings are never streamed")


def _to_gemini(body: Mapping[str, object], model: str) -> tuple[dict[str, object], tuple[Loss, ...]]:
    said = body["input"]
    if not _is_text(said):
        raise InvalidRequest(
            "input: tokens cannot be embedded by this candidate: send text", param="input", code="unsupported_parameter"
        )
    dimensions = {} if body.get("dimensions") is None else {"outputDimensionality": body["dimensions"]}
    requests = [
        {"model": f"models/{model}", "content": {"parts": [{"text": text}]}, **dimensions} for text in _texts(said)
    ]
    known = {"model", "input", "dimensions", "encoding_format", "user", dials.FIELD}
    lost = tuple(Loss(name) for name, value in body.items() if name not in known and value is not None)
    return {"requests": requests}, lost


def _from_gemini(answer: Mapping[str, object], asked: Asked) -> dict[str, object]:
    found = answer.get("embeddings")
    if not isinstance(found, list):
        raise UpstreamBroken("answered 200 without embeddings")
    is_base64 = asked.body.get("encoding_format") == "base64"
    data = []
    for i, embedding in enumerate(found):
        values = embedding.get("values") if isinstance(embedding, dict) else None
        if not isinstance(values, list):
            raise UpstreamBroken("answered 200 with an embedding without values")
        data.append({"object": "embedding", "index": i, "embedding": _packed(values) if is_base64 else values})
    # Gemini counts no tokens here; unknown is not zero, so there is no usage.
    return {"object": "list", "data": data, "model": asked.model}


def _packed(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _is_text(said: object) -> bool:
    return isinstance(said, str) or (isinstance(said, list) and all(isinstance(text, str) for text in said))


def _n_tokens(said: object) -> int:
    """Count tokens that came as numbers, of one text or of several."""
    return sum(len(one) if isinstance(one, list) else 1 for one in said) if isinstance(said, list) else 0


def _texts(said: object) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, list):
        yield from (text for text in said if isinstance(text, str))
