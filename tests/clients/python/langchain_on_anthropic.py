"""The langchain-anthropic package."""

from __future__ import annotations

from functools import cache

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_checks import ASKED, checks_of
from trial import Gateway, raises, run


@cache
def model_of(gateway: Gateway) -> ChatAnthropic:
    return ChatAnthropic(
        base_url=gateway.origin, api_key=gateway.key, model=gateway.model, max_tokens=2000, max_retries=0
    )


def unknown_model(gateway: Gateway) -> object:
    return raises(anthropic.NotFoundError, lambda: model_of(gateway.with_unknown_model()).invoke(ASKED))


def wrong_key(gateway: Gateway) -> object:
    return raises(anthropic.AuthenticationError, lambda: model_of(gateway.with_wrong_key()).invoke(ASKED))


run("langchain-anthropic", *checks_of(model_of), unknown_model, wrong_key)
