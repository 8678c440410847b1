"""The instructor package over the openai and the anthropic one."""

from __future__ import annotations

from functools import cache

import anthropic
import instructor
import openai
from instructor.core.exceptions import InstructorRetryException
from pydantic import BaseModel
from trial import STRUCTURED_QUESTION, Gateway, run


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@cache
def client_of(gateway: Gateway, openai_mode: instructor.Mode) -> instructor.Instructor:
    if gateway.way == "messages":
        package = anthropic.Anthropic(base_url=gateway.origin, api_key=gateway.key, max_retries=0)
        return instructor.from_anthropic(package)
    package = openai.OpenAI(base_url=gateway.v1, api_key=gateway.key, max_retries=0)
    return instructor.from_openai(package, mode=openai_mode)


def make(gateway: Gateway, openai_mode: instructor.Mode = instructor.Mode.TOOLS) -> Person:
    return client_of(gateway, openai_mode).create(
        model=gateway.model,
        messages=[{"role": "user", "content": STRUCTURED_QUESTION}],
        response_model=Person,
        max_tokens=2000,
        max_retries=0,
    )


def structured(gateway: Gateway) -> object:
    made = make(gateway)
    assert isinstance(made, Person)
    return made.model_dump()


def structured_by_schema(gateway: Gateway) -> object:
    return make(gateway, instructor.Mode.JSON_SCHEMA).model_dump()


def unknown_model(gateway: Gateway) -> object:
    return refused(gateway.with_unknown_model(), "NotFoundError")


def wrong_key(gateway: Gateway) -> object:
    return refused(gateway.with_wrong_key(), "AuthenticationError")


def refused(gateway: Gateway, name: str) -> object:
    try:
        made = make(gateway)
    except InstructorRetryException as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, openai.APIError | anthropic.APIError):
            cause = cause.__cause__ or (getattr(cause, "last_attempt", None) and cause.last_attempt.exception())
        assert type(cause).__name__ == name
        return {"class": name}
    raise AssertionError(f"no error but {made!r}")


run("instructor", structured, structured_by_schema, unknown_model, wrong_key, ways=("chat", "messages"))
