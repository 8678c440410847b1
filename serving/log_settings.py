"""The ``[log]`` table: what is kept of requests and their prompts, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving import tables
from serving.records import RETENTIONS
from serving.tables import about

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """``[log]``: what is kept of prompts, and for how long."""

    retention: str = field(
        default="none",
        metadata=about(
            tables.choice(*RETENTIONS),
            "What is kept of the prompts of keys that say nothing themselves: none; features, the numbers that were "
            "scored and the kind of task; content, the human text too. A request may ask for less.",
        ),
    )
    keep_retained_for_days: float = field(
        default=30.0,
        metadata=about(tables.number(0), "How long what was kept of prompts stays; 0 is for ever.", "days"),
    )
    keep_records_for_days: float = field(
        default=0.0,
        metadata=about(
            tables.number(0),
            "How long records stay, numbers and names only; those since a running experiment began stay until it ends; "
            "0 is for ever.",
            "days",
        ),
    )

    def before(self, now_unix_s: float) -> tuple[float, float]:
        """Return from before when records, and what was kept of prompts, go; minus infinity where they stay."""
        records, retained = (
            now_unix_s - days * DAY_S if days else float("-inf")
            for days in (self.keep_records_for_days, self.keep_retained_for_days)
        )
        return records, retained
