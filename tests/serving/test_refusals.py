from __future__ import annotations

from datetime import UTC, datetime

import pytest

from serving.errors import (
    UpstreamBroken,
    UpstreamDenied,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
)
from serving.providers.refusals import MAX_BODY_BYTES, error_of, retry_after_of

BODY = b'{"error":{"message":"maximum context length is 8192","type":"invalid_request_error","code":"x"}}'
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "kind", "told", "is_retryable"),
    [
        (400, UpstreamRefused, 400, False),
        (404, UpstreamRefused, 404, False),
        (408, UpstreamRefused, 408, True),
        (409, UpstreamRefused, 409, True),
        (413, UpstreamRefused, 413, False),
        (422, UpstreamRefused, 422, False),
        (401, UpstreamDenied, 502, True),
        (402, UpstreamDenied, 502, True),
        (403, UpstreamDenied, 502, True),
        (429, UpstreamOverloaded, 429, True),
        (503, UpstreamOverloaded, 503, True),
        (529, UpstreamOverloaded, 529, True),
        (500, UpstreamBroken, 500, True),
        (502, UpstreamBroken, 502, True),
        (504, UpstreamBroken, 504, True),
    ],
)
def test_the_status_decides(status: int, kind: type[UpstreamError], told: int, is_retryable: bool) -> None:
    error = error_of(status, {}, BODY, provider="acme", deployment="acme/x")
    assert type(error) is kind
    assert (error.status, error.upstream_status, error.is_retryable) == (told, status, is_retryable)
    assert (error.provider, error.deployment) == ("acme", "acme/x")
    assert "context length" not in str(error)


def test_a_providers_words_pass_through_unchanged() -> None:
    assert error_of(400, {}, BODY).to_wire() == (BODY, "application/json")
    assert error_of(429, {}, BODY).to_wire()[0] == BODY


@pytest.mark.parametrize("status", [401, 402, 403])
def test_words_about_our_credential_stay_here(status: int) -> None:
    body = b'{"error":{"message":"Incorrect API key provided: sk-ours"}}'
    assert b"sk-ours" not in error_of(status, {}, body).to_wire()[0]


def test_a_429_for_want_of_money_is_no_overload() -> None:
    error = error_of(429, {"retry-after": "1"}, b'{"error":{"code":"insufficient_quota"}}')
    assert type(error) is UpstreamDenied
    assert error.retry_after_s is None


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b"[1]", b'"no"', BODY + b" " * MAX_BODY_BYTES])
def test_what_is_no_error_object_becomes_our_envelope(body: bytes) -> None:
    wire, content_type = error_of(500, {"content-type": "text/html"}, body).to_wire()
    assert wire.startswith(b'{"error":{"message":"the provider failed (status 500)"')
    assert content_type == "application/json"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"x-ms-retry-after-ms": "2000"}, 2.0),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "999999999"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_of(headers, NOON) == seconds
    assert error_of(429, headers, b"", now=NOON).retry_after_s == seconds
