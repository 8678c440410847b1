from __future__ import annotations

import inspect
import re

import orjson
import pytest

from serving import errors
from serving.errors import GatewayError, UpstreamError

CLASSES = [item for item in vars(errors).values() if inspect.isclass(item) and issubclass(item, GatewayError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree(kind: type[GatewayError]) -> None:
    assert re.search(rf"^.*\b{kind.__name__}\b", inspect.getdoc(errors) or "", re.MULTILINE)


DRAWN = re.findall(r"[x+] (\w+) +(\d{3}) +(\w+)", errors.__doc__ or "")


def test_the_tree_draws_status_and_code() -> None:
    assert len(DRAWN) >= 15


@pytest.mark.parametrize(("name", "status", "code"), DRAWN)
def test_status_and_code_are_as_drawn(name: str, status: str, code: str) -> None:
    kind = getattr(errors, name)
    assert (str(kind.status), kind.code) == (status, code)


def test_the_envelope_is_that_of_openai() -> None:
    error = errors.InvalidRequest("temperature must be a number", param="temperature")
    assert error.to_openai() == {
        "error": {
            "message": "temperature must be a number",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "invalid_value",
        }
    }
    body, content_type = error.to_wire()
    assert (orjson.loads(body), content_type) == (error.to_openai(), "application/json")


def test_a_code_given_is_this_errors_only() -> None:
    assert errors.NotFound("x", code="path").code == "path"
    assert errors.NotFound("x").code == "model_not_found"


def test_retry_after_is_rounded_up_to_whole_seconds_and_exact_in_milliseconds() -> None:
    error = errors.UpstreamOverloaded("slow down", retry_after_s=1.2)
    assert error.headers() == [(b"retry-after", b"2"), (b"retry-after-ms", b"1200")]
    assert errors.UpstreamOverloaded("slow down", retry_after_s=7).headers()[0] == (b"retry-after", b"7")
    assert errors.UpstreamOverloaded("slow down").headers() == []


def test_a_providers_own_body_replaces_the_envelope() -> None:
    error = errors.UpstreamRefused("refused", status=422, body=b'{"error":{}}', content_type="application/json")
    assert (error.status, error.to_wire()) == (422, (b'{"error":{}}', "application/json"))


def test_only_attempts_that_another_could_better_are_retryable() -> None:
    assert UpstreamError("x").is_retryable
    assert not errors.UpstreamRefused("x").is_retryable
    assert errors.UpstreamRefused("x", is_retryable=True).is_retryable


def test_what_a_caller_did_has_an_outcome_of_its_own() -> None:
    assert errors.InvalidRequest("x").outcome == errors.UpstreamRefused("x").outcome == "caller_error"
    assert errors.ClientDisconnected("x").outcome == "client_disconnected"
    assert errors.UpstreamTimeout("x", phase="idle").outcome == "timeout"
