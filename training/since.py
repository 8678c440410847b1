"""``--since``: a UTC date, or a duration back from now, as every command takes it. Entry point: :func:`read_since`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import click

from training.errors import InvalidSettings
from training.triggers import seconds_of


@dataclass(frozen=True, slots=True)
class Since:
    """From when on.

    Parameters
    ----------
    unix_s : float or None
        A moment; None where it is told by a duration.
    span_s : float
        Seconds back from whoever's now.
    """

    unix_s: float | None
    span_s: float = 0.0

    def at(self, now_unix_s: float) -> float:
        """Return the moment, in Unix seconds, as seen from another."""
        return now_unix_s - self.span_s if self.unix_s is None else self.unix_s


def read_since(context: click.Context, param: click.Parameter, text: str | None) -> Since | None:
    """Read what was typed: ``30d`` (also ``s``, ``m``, ``h``), ``2026-11-01`` or ``2026-11-01T12:00``."""
    if text is None:
        return None
    try:
        return Since(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError:
        pass
    try:
        return Since(None, seconds_of(text))
    except InvalidSettings as error:
        raise click.BadParameter(
            f"expected a duration as 30d or a UTC date as 2026-11-01, got {text!r}", context, param
        ) from error
