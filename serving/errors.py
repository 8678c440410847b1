"""The errors of the gateway, one tree, each knowing how it reads on the wire.

::

    GatewayError                      status  code
      x SettingsError                    -    the TOML cannot be used; never reaches the wire
        + KeysRequired                   -    listening beyond loopback without a single key
      x ClientDisconnected              499   client_disconnected      (nobody is listening: nothing is sent)
      x NotReady                        503   not_ready
      x StorageUnavailable              503   storage_unavailable      (what was to be kept could not be)
      x Overloaded                    503/529 overloaded               (too much at once: shed before it cost anything)
      x ShuttingDown                    503   shutting_down
      x RequestError                          the caller's fault; never retried, never counted against a provider
        + InvalidRequest                400   invalid_value            (names ``param``)
        + NoEligible                    400   no_eligible_candidate
        + Unauthenticated               401   invalid_api_key
        + NotLocal                      403   not_local                (no keys: only this machine's own programs)
        + NotFound                      404   model_not_found
        + MethodNotAllowed              405   method_not_allowed
        + ReceiveTimeout                408   receive_timeout
        + IdempotencyConflict           409   idempotency_in_progress  (its answer is being made, or was not kept)
        + BodyTooLarge                  413   body_too_large
        + UnsupportedEncoding           415   unsupported_encoding
        + IdempotencyKeyReused          422   idempotency_key_reused
        + UpgradeRequired               426   upgrade_required         (a WebSocket where there is none)
        + HeadersTooLarge               431   headers_too_large
      x UpstreamError                         one attempt failed; carries provider, deployment, status, is_retryable
        + UpstreamTimeout               504   upstream_timeout         (phase: connect, first_byte, idle, total)
        + UpstreamUnreachable           502   upstream_unreachable
        + UpstreamOverloaded        429/503/529  its own code          (retry_after_s)
        + UpstreamRefused               4xx   its own body, passed through; translated, its own words in our envelope
        + UpstreamDenied                502   upstream_credential_refused (OUR credential or account: no body)
        + UpstreamBroken                502   upstream_broken          (redirect, cut, unreadable; or its own 5xx)

No message made here holds a credential, a header value, prompt text or the words of a foreign exception. One is not
made here: an :class:`UpstreamRefused` that is translated for its client says in its message what the provider said of
the request, which may quote it. So messages go to the caller, and never to a log or a record.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson


class GatewayError(Exception):
    """Anything the gateway refuses or fails to do.

    Parameters
    ----------
    message : str
        Shown to the caller; names the offending field and what was expected.
    param : str or None
        The request field at fault.
    code : str or None
        Replaces the code of the class.
    retry_after_s : float or None
        The least time the caller should wait, at least 0.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    outcome: str = "gateway_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code

    def to_openai(self) -> dict[str, object]:
        """Return the error envelope of the OpenAI protocols."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_wire(self, envelope: Mapping[str, object] | None = None) -> tuple[bytes, str]:
        """Return the body to send and its content type; in OpenAI's envelope unless another is given."""
        return orjson.dumps(self.to_openai() if envelope is None else envelope), "application/json"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the extra response headers this error asks for, lower case."""
        if self.retry_after_s is None:
            return []
        return [
            # Whole seconds rounded up for everyone, milliseconds for the SDKs that read them first.
            (b"retry-after", b"%d" % -(-self.retry_after_s // 1)),
            (b"retry-after-ms", b"%d" % round(self.retry_after_s * 1000)),
        ]


class SettingsError(GatewayError):
    """The settings file cannot be used; names the key, the value and what was expected."""

    code = "settings_invalid"


class KeysRequired(SettingsError):
    """The gateway would listen beyond loopback without a single client key."""

    code = "keys_required"


class ClientDisconnected(GatewayError):
    """The client went away before it was answered."""

    status = 499
    code = "client_disconnected"
    outcome = "client_disconnected"


class NotReady(GatewayError):
    """The gateway is starting, stopping or has no bundle."""

    status = 503
    code = "not_ready"


class StorageUnavailable(GatewayError):
    """The database cannot be written to or read, and whoever waits for it must know."""

    status = 503
    code = "storage_unavailable"


class Overloaded(GatewayError):
    """The gateway has as much to do as it can; the request was turned away before it cost anything."""

    status = 503
    code = "overloaded"
    outcome = "shed"


class ShuttingDown(GatewayError):
    """The gateway ends, and could not wait for this request any longer."""

    status = 503
    code = "shutting_down"
    outcome = "shutting_down"


class RequestError(GatewayError):
    """The caller's own fault."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    outcome = "caller_error"


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type or out of range."""

    code = "invalid_value"


class NoEligible(RequestError):
    """No candidate can or may serve this request."""

    code = "no_eligible_candidate"


class Unauthenticated(RequestError):
    """No key, or one that is not ours."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotLocal(RequestError):
    """Without keys: a web page, or a name that only pretends to be this machine."""

    status = 403
    type = "permission_error"
    code = "not_local"


class NotFound(RequestError):
    """A candidate, alias or path nobody configured."""

    status = 404
    type = "not_found_error"
    code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class ReceiveTimeout(RequestError):
    """The request did not finish arriving in time."""

    status = 408
    code = "receive_timeout"


class IdempotencyConflict(RequestError):
    """The answer to this idempotency key cannot be repeated: it is still being made, or was not kept."""

    status = 409
    code = "idempotency_in_progress"


class IdempotencyKeyReused(RequestError):
    """The same idempotency key came with another body."""

    status = 422
    code = "idempotency_key_reused"


class BodyTooLarge(RequestError):
    """The request body exceeds the cap."""

    status = 413
    code = "body_too_large"


class UnsupportedEncoding(RequestError):
    """The request body is compressed; it could unpack to anything."""

    status = 415
    code = "unsupported_encoding"


class UpgradeRequired(RequestError):
    """A WebSocket was asked for where only plain HTTP is served."""

    status = 426
    code = "upgrade_required"


class HeadersTooLarge(RequestError):
    """Too many request headers, or too many bytes of them."""

    status = 431
    code = "headers_too_large"


class UpstreamError(GatewayError):
    """One attempt at a deployment failed.

    Parameters
    ----------
    provider, deployment : str
        Where; "" when not known.
    status : int or None
        Replaces the status of the class (what the caller is told).
    upstream_status : int or None
        What the provider answered; None when it did not.
    retry_after_s : float or None
        The provider's own demand.
    is_retryable : bool or None
        Whether another attempt elsewhere makes sense; None keeps the default of the class.
    body, content_type : bytes or None, str
        The provider's own error, to be passed through unchanged; None sends our envelope.
    """

    status = 502
    type = "api_error"
    code = "upstream_error"
    is_retryable: bool = True
    outcome = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        deployment: str = "",
        status: int | None = None,
        upstream_status: int | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
        is_retryable: bool | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
        self.provider = provider
        self.deployment = deployment
        self.upstream_status = upstream_status
        self.body = body
        self.content_type = content_type
        if status is not None:
            self.status = status
        if is_retryable is not None:
            self.is_retryable = is_retryable

    def to_wire(self, envelope: Mapping[str, object] | None = None) -> tuple[bytes, str]:
        """Return the provider's own body where it may be shown, else our envelope."""
        return super().to_wire(envelope) if self.body is None else (self.body, self.content_type)


class UpstreamTimeout(UpstreamError):
    """The provider took too long; ``phase`` says in what."""

    status = 504
    type = "timeout_error"
    code = "upstream_timeout"
    outcome = "timeout"

    def __init__(self, message: str, *, phase: str, provider: str = "", deployment: str = "") -> None:
        super().__init__(message, provider=provider, deployment=deployment)
        self.phase = phase


class UpstreamUnreachable(UpstreamError):
    """No connection, or it was lost before any answer."""

    code = "upstream_unreachable"
    outcome = "unreachable"


class UpstreamOverloaded(UpstreamError):
    """The provider asks to slow down (429, 503, 529)."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    outcome = "overloaded"


class UpstreamRefused(UpstreamError):
    """The provider finds fault with the request itself; its words go to the caller unchanged."""

    status = 400
    type = "invalid_request_error"
    code = "upstream_refused"
    is_retryable = False
    outcome = "caller_error"


class UpstreamDenied(UpstreamError):
    """The provider refuses our credential or our account; its words may quote them, so they stay here."""

    code = "upstream_credential_refused"
    outcome = "denied"


class UpstreamBroken(UpstreamError):
    """The answer is no answer: a redirect, a cut body, an unreadable one, a 5xx."""

    code = "upstream_broken"
    outcome = "broken"
