"""The langchain-openai package, by Chat Completions and by Responses, and its embeddings."""

from __future__ import annotations

from functools import cache

import openai
from langchain_checks import ASKED, checks_of
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from trial import Gateway, raises, run


@cache
def model_of(gateway: Gateway) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=gateway.v1,
        api_key=gateway.key,
        model=gateway.model,
        use_responses_api=gateway.way == "responses",
        stream_usage=True,
        max_retries=0,
    )


def embeddings(gateway: Gateway) -> object:
    # Otherwise it sends tokens in the place of text, cut by a vocabulary that it would fetch from OpenAI.
    embedder = OpenAIEmbeddings(
        base_url=gateway.v1, api_key=gateway.key, model="embedder", check_embedding_ctx_length=False
    )
    rows = embedder.embed_documents(["one text", "another"])
    assert len(rows) == 2
    return len(rows[0])


def unknown_model(gateway: Gateway) -> object:
    return raises(openai.NotFoundError, lambda: model_of(gateway.with_unknown_model()).invoke(ASKED))


def wrong_key(gateway: Gateway) -> object:
    return raises(openai.AuthenticationError, lambda: model_of(gateway.with_wrong_key()).invoke(ASKED))


run("langchain-openai", *checks_of(model_of), embeddings, unknown_model, wrong_key, ways=("chat", "responses"))
