"""The openai package: embeddings and legacy completions."""

from __future__ import annotations

from functools import cache

import openai
from trial import QUESTION, Gateway, is_made_up, raises, run


@cache
def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=gateway.v1, api_key=gateway.key, max_retries=0)


@cache
def completion(gateway: Gateway) -> object:
    answer = client_of(gateway).completions.create(model=gateway.model, prompt=QUESTION, max_tokens=1000)
    assert is_made_up(answer.choices[0].text)
    assert answer.object == "text_completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    return {"text": answer.choices[0].text, "usage": answer.usage.total_tokens}


def completion_streamed(gateway: Gateway) -> object:
    stream = client_of(gateway).completions.create(model=gateway.model, prompt=QUESTION, max_tokens=1000, stream=True)
    text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text == completion(gateway)["text"]
    return len(text)


def embeddings(gateway: Gateway) -> object:
    client = client_of(gateway)
    # Unless told otherwise it asks for base64, and decodes it.
    in_base64, in_floats = (
        client.embeddings.create(model="embedder", input=["one text", "another"], **form)
        for form in ({}, {"encoding_format": "float"})
    )
    assert [row.index for row in in_floats.data] == [0, 1]
    for one, other in zip(in_base64.data, in_floats.data, strict=True):
        assert len(one.embedding) == len(other.embedding) > 1
        assert all(abs(a - b) < 1e-6 for a, b in zip(one.embedding, other.embedding, strict=True))
    assert in_floats.data[0].embedding != in_floats.data[1].embedding
    # Gemini counts nothing, and then nothing is said.
    assert in_floats.usage is None or in_floats.usage.prompt_tokens > 0
    return {"numbers": len(in_floats.data[0].embedding), "usage": in_floats.usage and in_floats.usage.prompt_tokens}


def unknown_model(gateway: Gateway) -> object:
    return raises(openai.NotFoundError, lambda: completion(gateway.with_unknown_model()))


def wrong_key(gateway: Gateway) -> object:
    return raises(openai.AuthenticationError, lambda: completion(gateway.with_wrong_key()))


run("openai", completion, completion_streamed, embeddings, unknown_model, wrong_key)
