"""From a provider's error answer to our error tree: one table by status, one exception for money. Pure.

The provider's own body is kept where the caller may read it: clients match on the wording. It is not kept where
it may quote our credential or account (401, 402, 403), nor when it is not a JSON object. Entry point:
:func:`error_of`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from serving.dialects.chat.dialect import CHAT
from serving.dialects.dialect import Dialect
from serving.dialects.gemini.answer import retry_delay_s
from serving.errors import (
    UpstreamBroken,
    UpstreamDenied,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
)

#: More than this is no advice but a mistake, or a ban that retrying will not lift.
MAX_RETRY_AFTER_S = 86_400.0
MAX_BODY_BYTES = 64 * 1024
_DENIED = frozenset({401, 402, 403})
_OVERLOADED = frozenset({429, 503, 529})
_RETRYABLE_4XX = frozenset({408, 409, 425})
#: 429s that mean "money ran out": waiting does not help, another deployment may.
_OUT_OF_MONEY = frozenset({"insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached"})
#: How providers say that a request is longer than the model reads, in code or words.
_TOO_LONG = re.compile(
    r"context_length_exceeded|prompt is too long|maximum context length|context window|input token count .* exceeds|"
    r"too many tokens|exceeds? the (?:model'?s )?(?:maximum )?(?:context|token limit)",
    re.IGNORECASE,
)
#: Codes and types of error events, lower case; the providers' own words for 401 to 403, for 429 and 529, and for 400.
_DENIED_CODES = frozenset(
    {"authentication_error", "permission_error", "billing_error", "invalid_api_key", "unauthenticated"}
)
_OVERLOADED_CODES = frozenset(
    {"rate_limit_error", "rate_limit_exceeded", "overloaded_error", "resource_exhausted", "unavailable", "slow_down"}
)
_REFUSED_CODES = frozenset(
    {"invalid_request_error", "invalid_prompt", "invalid_argument", "content_policy_violation", "content_filter"}
)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def error_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    provider: str = "",
    deployment: str = "",
    now: datetime | None = None,
    dialect: Dialect | None = None,
    is_translated: bool = False,
) -> UpstreamError:
    """Translate an answer with status 400 or more.

    Parameters
    ----------
    status : int
        What the provider answered, 400 to 599.
    headers : Mapping[str, str]
        Response headers, names in lower case.
    body : bytes
        As it came; kept for pass-through where it is a JSON object and may be shown.
    provider, deployment : str
        Where it came from.
    now : datetime or None
        Only for a ``Retry-After`` that is a date; None reads the clock.
    dialect : Dialect or None
        What the provider was spoken to in; None is Chat.
    is_translated : bool
        The client speaks another dialect: it gets its own envelope, with the provider's words in it.
    """
    where = provider or deployment or "the provider"
    answer = _object(body)
    words, code = _words(answer, dialect)
    shown = body if answer is not None and len(body) <= MAX_BODY_BYTES and not is_translated else None
    retry_after_s = retry_after_of(headers, now)
    if retry_after_s is None and answer is not None:
        retry_after_s = retry_delay_s(answer)
    if status in _DENIED or (status == 429 and code in _OUT_OF_MONEY):
        return UpstreamDenied(
            f"{where} refused the gateway's own credential or account (status {status}); "
            "the operator has to look at it",
            provider=provider,
            deployment=deployment,
            upstream_status=status,
        )
    if status in _OVERLOADED:
        return UpstreamOverloaded(
            f"{where} is overloaded or limits the rate (status {status})",
            provider=provider,
            deployment=deployment,
            status=status,
            upstream_status=status,
            retry_after_s=retry_after_s,
            body=shown,
        )
    if status >= 500:
        return UpstreamBroken(
            f"{where} failed (status {status})",
            provider=provider,
            deployment=deployment,
            status=status,
            upstream_status=status,
            retry_after_s=retry_after_s,
            body=shown,
        )
    return UpstreamRefused(
        words if is_translated and words else f"{where} refused the request (status {status})",
        provider=provider,
        deployment=deployment,
        status=400 if status == 404 and is_translated else status,
        code="context_length_exceeded" if _TOO_LONG.search(f"{code} {words}") else _plain(code),
        upstream_status=status,
        retry_after_s=retry_after_s,
        is_retryable=status in _RETRYABLE_4XX,
        body=shown,
    )


def failure_of(words: str, code: str | None, *, provider: str = "", deployment: str = "") -> UpstreamError:
    """Translate an error event that came in the place of an answer: it has a code, or a type, and no status.

    Parameters
    ----------
    words : str
        The provider's own; told only where the caller can do something about it.
    code : str or None
    provider, deployment : str
    """
    where = provider or deployment or "the provider"
    if _TOO_LONG.search(f"{code} {words}"):
        return UpstreamRefused(
            words or "the request is too long", code="context_length_exceeded", provider=provider, deployment=deployment
        )
    kind = (code or "").lower()
    if kind in _OUT_OF_MONEY or kind in _DENIED_CODES:
        return UpstreamDenied(
            f"{where} refused the gateway's own credential or account; the operator has to look at it",
            provider=provider,
            deployment=deployment,
        )
    if kind in _OVERLOADED_CODES:
        return UpstreamOverloaded(
            f"{where} is overloaded or limits the rate", status=429, provider=provider, deployment=deployment
        )
    if kind in _REFUSED_CODES:
        return UpstreamRefused(
            words or f"{where} refused the request", code=_plain(code), provider=provider, deployment=deployment
        )
    return UpstreamBroken(
        f"{where} answered with an error event", upstream_status=200, provider=provider, deployment=deployment
    )


def retry_after_of(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the wait a provider asks for, in seconds, within [0, one day]; None when it asks for none."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            wait_s = _until(value, now)
        if 0 <= wait_s <= MAX_RETRY_AFTER_S:
            return wait_s
    return None


def _until(date: str, now: datetime | None) -> float:
    """Return the seconds until an HTTP date, at least 0; NaN when it is none (NaN passes no range check)."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return float("nan")
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def _words(answer: Mapping[str, object] | None, dialect: Dialect | None) -> tuple[str, str | None]:
    """Return the words and the code of an error body."""
    found = (dialect or CHAT).read_error(answer) if answer is not None else None
    return found or ("", None)


def _plain(code: str | None) -> str | None:
    """Return a code that is one: a short word of the provider's, fit to be told."""
    return code if code is not None and _CODE.fullmatch(code) else None


def _object(body: bytes) -> dict[str, object] | None:
    """Return the JSON object of a body, also where it stands alone in an array (Gemini); None of anything else."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer if isinstance(answer, dict) else None
