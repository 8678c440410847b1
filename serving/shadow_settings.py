"""The ``[shadow]`` table: a challenger that decides beside the champion, and answers nobody."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving import tables
from serving.tables import about


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """``[shadow]``: which bundle decides in the shadow, and how often."""

    bundle: str = field(
        default="",
        metadata=about(
            tables.path,
            "Directory of the challenger's bundle, watched like the champion's; empty is none. One that is not good is "
            "logged and left alone.",
        ),
    )
    share: float = field(
        default=1.0, metadata=about(tables.share(), "Share of decisions that the challenger is asked for too.")
    )
    max_in_flight: int = field(
        default=64,
        metadata=about(tables.count(1), "Most decisions that wait for the challenger; more are left out and counted."),
    )
