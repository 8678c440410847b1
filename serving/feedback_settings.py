"""The ``[feedback]`` table: for how long callers may say what they think of an answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from serving import tables
from serving.tables import about


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """``[feedback]``: what callers say of answers, and what their behaviour does."""

    window_days: float = field(
        default=30.0,
        metadata=about(tables.number(0, is_open=True), "For how long after a request feedback on it is taken.", "days"),
    )
    regenerated_within_s: float = field(
        default=300.0,
        metadata=about(
            tables.number(0),
            "Within which time after an answer the same conversation of the same key, sent again, is kept as a sign "
            "against that answer; 0 is never.",
            "s",
        ),
    )
