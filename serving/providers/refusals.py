"""From a provider's error answer to our error tree. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from serving.errors import UpstreamError


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, *, provider: str = "", deployment: str = ""
) -> UpstreamError:
    """Translate an answer with status >= 400 (headers lower case)."""
    raise NotImplementedError
