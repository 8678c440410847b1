"""The only module that talks to a provider: one request out, its answer in, byte for byte.

It does not retry, follow redirects, decompress, keep cookies or read proxies from the environment, and it does
not know what the bytes mean. Foreign errors become ours in one table (:data:`_TRANSLATIONS`). Closing an answer
that was not read to its end drops the connection at once, so that the provider stops working for nobody.

Entry points: :class:`Upstream` (the interface), :class:`AiohttpUpstream` (the real one).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import aiohttp
from yarl import URL

from serving.errors import UpstreamBroken, UpstreamError, UpstreamTimeout, UpstreamUnreachable

MAX_RESPONSE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One call to a provider.

    Parameters
    ----------
    url : str
        Absolute, http or https; sent as it stands.
    headers : Mapping[str, str]
        Everything to send, credential included; ``Accept-Encoding`` is always ``identity``.
    body : bytes
        Sent as it stands.
    connect_timeout_s, first_byte_timeout_s, idle_timeout_s, total_timeout_s : float
        Positive: for the connection; from sending to the first byte of the answer's body; between two reads;
        for everything.
    provider, deployment : str
        Only for the words of errors.
    method : str
        HTTP method.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    connect_timeout_s: float = 3.0
    first_byte_timeout_s: float = 120.0
    idle_timeout_s: float = 30.0
    total_timeout_s: float = 600.0
    provider: str = ""
    deployment: str = ""
    method: str = "POST"


class UpstreamResponse(Protocol):
    """An answer whose head has arrived. Whoever got one must close it."""

    @property
    def status(self) -> int:
        """HTTP status, never a redirect."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers, names in lower case."""

    async def read(self) -> bytes:
        """Return the whole body; raises UpstreamError when it does not arrive whole."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives; raises UpstreamError when it breaks off."""

    async def close(self) -> None:
        """Let go of the answer; if it was not read to its end, drop the connection now. Idempotent."""


class Upstream(Protocol):
    """Whatever can carry a request to a provider."""

    async def open(self) -> None:
        """Acquire what is needed, on the running loop."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send and wait for the head of the answer; raises UpstreamError. Statuses >= 400 are answers."""

    async def close(self) -> None:
        """Drop every connection. Idempotent."""


class AiohttpUpstream:
    """The real one: one aiohttp session for all providers.

    It opens as many connections as there are calls: how many that may be is for :mod:`serving.admission` and
    :mod:`serving.pool`. A call that waited here would look like a provider that cannot be reached.

    Parameters
    ----------
    max_response_bytes : int, default=67108864
        Most that :meth:`UpstreamResponse.read` accepts.
    """

    def __init__(self, *, max_response_bytes: int = MAX_RESPONSE_BYTES) -> None:
        self._max_response_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session; a second call does nothing."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=0),
                headers={"Accept-Encoding": "identity"},
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the head of the answer.

        Raises
        ------
        UpstreamError
            For every failure of the connection, a time-out, a redirect, or a compressed answer.
        """
        if self._session is None:
            raise RuntimeError("the upstream is not open: await open() first")
        now = asyncio.get_running_loop().time()
        deadline = now + request.total_timeout_s
        first_byte_by = min(deadline, now + request.first_byte_timeout_s)
        phase = "first_byte" if first_byte_by < deadline else "total"
        try:
            async with asyncio.timeout_at(first_byte_by):
                response = await self._session.request(
                    request.method,
                    _url_of(request.url),
                    data=request.body,
                    headers=request.headers,
                    allow_redirects=False,
                    timeout=_connect_within(request.connect_timeout_s),
                )
        except _FOREIGN as error:
            raise _ours(error, request, phase) from error
        refusal = _unacceptable(response, request)
        if refusal is not None:
            response.close()
            raise refusal
        return _Answer(response, request, first_byte_by, deadline, self._max_response_bytes)

    async def close(self) -> None:
        """Close the session and every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Answer:
    """One aiohttp response behind our interface."""

    __slots__ = ("_deadline", "_first_byte_by", "_max_bytes", "_request", "_response", "headers", "status")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        request: UpstreamRequest,
        first_byte_by: float,
        deadline: float,
        max_bytes: int,
    ) -> None:
        self._response = response
        self._request = request
        self._first_byte_by = first_byte_by
        self._deadline = deadline
        self._max_bytes = max_bytes
        self.status: int = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def read(self) -> bytes:
        parts: list[bytes] = []
        n_bytes = 0
        async for chunk in self.chunks():
            parts.append(chunk)
            n_bytes += len(chunk)
            if n_bytes > self._max_bytes:
                await self.close()
                raise self._broken(f"answered with more than {self._max_bytes} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        content = self._response.content
        clock = asyncio.get_running_loop().time
        until, phase = self._first_byte_by, "first_byte"
        while not content.at_eof():
            if until >= self._deadline:
                until, phase = self._deadline, "total"
            try:
                # What has arrived already needs no timer.
                chunk = content.read_nowait()
                if not chunk:
                    async with asyncio.timeout_at(until):
                        chunk = await content.readany()
            except _FOREIGN as error:
                self._response.close()
                raise _ours(error, self._request, phase) from error
            if chunk:
                yield chunk
            until, phase = clock() + self._request.idle_timeout_s, "idle"

    async def close(self) -> None:
        # Does nothing to a connection that went back to the pool when the body ended.
        self._response.close()

    def _broken(self, what: str) -> UpstreamBroken:
        return UpstreamBroken(
            f"{_where(self._request)} {what}",
            provider=self._request.provider,
            deployment=self._request.deployment,
            upstream_status=self.status,
        )


def _unacceptable(response: aiohttp.ClientResponse, request: UpstreamRequest) -> UpstreamBroken | None:
    """Return what is wrong with the head of an answer, or None."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if 300 <= response.status < 400:
        # Following it would show the credential to whoever the redirect names.
        what = f"answered with a redirect (status {response.status}); correct its base_url"
    elif encoding not in ("identity", ""):
        what = "answered with a compressed body although asked for none"
    else:
        return None
    return UpstreamBroken(
        f"{_where(request)} {what}",
        provider=request.provider,
        deployment=request.deployment,
        upstream_status=response.status,
    )


#: aiohttp's and the system's errors, most specific first: class -> (ours, what happened).
_TRANSLATIONS: tuple[tuple[type[Exception], type[UpstreamError], str], ...] = (
    (aiohttp.ClientConnectorCertificateError, UpstreamUnreachable, "shows a certificate that does not hold"),
    (aiohttp.ClientSSLError, UpstreamUnreachable, "could not be reached over TLS"),
    (aiohttp.ClientConnectorDNSError, UpstreamUnreachable, "has a host name that does not resolve"),
    (aiohttp.ClientConnectorError, UpstreamUnreachable, "refused the connection"),
    (aiohttp.ServerDisconnectedError, UpstreamUnreachable, "closed the connection before it answered"),
    (aiohttp.ClientPayloadError, UpstreamBroken, "broke off in the middle of its answer"),
    (aiohttp.ClientOSError, UpstreamUnreachable, "dropped the connection"),
    (aiohttp.ClientResponseError, UpstreamBroken, "answered with something that is not HTTP"),
    (aiohttp.InvalidURL, UpstreamUnreachable, "has a base_url that is not a URL"),
    (aiohttp.ClientError, UpstreamBroken, "failed"),
    (OSError, UpstreamUnreachable, "could not be reached"),
)
_FOREIGN = (aiohttp.ClientError, OSError)  # TimeoutError, asyncio's too, is an OSError


def _ours(error: Exception, request: UpstreamRequest, phase: str) -> UpstreamError:
    """Translate a foreign error; its text, which may quote URLs and headers, stays behind in ``__cause__``."""
    where = _where(request)
    if isinstance(error, TimeoutError):
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            phase = "connect"
        limit_s: float = getattr(request, f"{phase}_timeout_s")
        return UpstreamTimeout(
            f"{where} exceeded the {phase.replace('_', '-')} time-out of {limit_s:g} s",
            phase=phase,
            provider=request.provider,
            deployment=request.deployment,
        )
    ours, what = next((ours, what) for kind, ours, what in _TRANSLATIONS if isinstance(error, kind))
    return ours(f"{where} {what}", provider=request.provider, deployment=request.deployment)


def _where(request: UpstreamRequest) -> str:
    return request.provider or request.deployment or "the provider"


@lru_cache(maxsize=256)
def _url_of(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    """Only connecting is aiohttp's to time: its read time-out cannot tell a first byte from a pause."""
    return aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=None, sock_read=None)
