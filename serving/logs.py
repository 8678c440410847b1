"""JSON lines with allow-listed fields; no prompt, no header value, no foreign exception text."""

from __future__ import annotations

from collections.abc import Mapping


def configure(level: str = "info", format: str = "json") -> None:
    """Send every log of the process to standard error as JSON lines (or "text")."""


def event(name: str, fields: Mapping[str, str | int | float | bool | None] | None = None, *, level: str = "info") -> None:
    """Log one event; a field that is not allow-listed is left out and named."""
