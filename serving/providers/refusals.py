"""From a provider's error answer to our error tree: one table by status, one exception for money. Pure.

The provider's own body is kept where the caller may read it: clients match on the wording. It is not kept where
it may quote our credential or account (401, 402, 403), nor when it is not a JSON object. Entry point:
:func:`error_of`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

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


def error_of(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    provider: str = "",
    deployment: str = "",
    now: datetime | None = None,
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
    """
    where = provider or deployment or "the provider"
    fault = _fault(body)
    shown = body if fault is not None and len(body) <= MAX_BODY_BYTES else None
    code = fault.get("code") if fault else None
    retry_after_s = retry_after_of(headers, now)
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
        f"{where} refused the request (status {status})",
        provider=provider,
        deployment=deployment,
        status=status,
        upstream_status=status,
        retry_after_s=retry_after_s,
        is_retryable=status in _RETRYABLE_4XX,
        body=shown,
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


def _fault(body: bytes) -> dict[str, object] | None:
    """Return the object under ``error``, {} for another JSON object, None when it is not JSON at all."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(answer, dict):
        return None
    fault = answer.get("error")
    return fault if isinstance(fault, dict) else {}
