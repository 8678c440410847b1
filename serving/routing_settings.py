"""The ``[routing]`` table: what ``auto`` means, and the presets of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving import tables
from serving.dialects.losses import MODES
from serving.scenario_settings import uncapped
from serving.tables import about


@dataclass(frozen=True, slots=True)
class PresetSettings:
    """``[routing.presets.NAME]``: a policy under a name."""

    kind: str = field(metadata=about(tables.text, "threshold, willingness_to_pay_usd, quality_per_usd or latency."))
    value: float = field(
        metadata=about(
            tables.number(0),
            "Threshold or floor in [0, 1]; USD per unit of quality for willingness_to_pay_usd.",
        )
    )


@dataclass(frozen=True, slots=True)
class RoutingSettings:
    """``[routing]``: what ``auto`` means."""

    default: str = field(default="balanced", metadata=about(tables.name, 'The preset behind `model: "auto"`.'))
    losses: str = field(
        default="warn",
        metadata=about(
            tables.choice(*MODES),
            "What to do about request fields that a translation cannot carry: strict refuses, warn tells in "
            "x-turnout-lost, silent only records.",
        ),
    )
    conversations_keep_for_s: float = field(
        default=3600.0,
        metadata=about(
            tables.number(0),
            "How long it is remembered, as digests in memory, who answered in a conversation: a turn is not broken, "
            "and a switch is priced by what is cached; 0 decides every request by itself.",
            "s",
        ),
    )
    explore_share: float = field(
        default=0.0,
        metadata=about(
            tables.share(),
            "Probability with which a request is answered by a candidate drawn among all that may be explored, "
            "of requests without a scenario; 0 is never.",
        ),
    )
    explore_max_usd_per_day: float = field(
        default=0.0,
        metadata=about(
            tables.number(0),
            "What that may cost a day (UTC, each process) more than the policy's own choices were expected to.",
            "USD",
        ),
    )
    reference: str | None = field(
        default=None,
        metadata=about(
            tables.name,
            "The candidate that savings are measured against, by what it would have cost. Absent: the anchor of the "
            "bundle's preset quality, its best single candidate, or the dearest one, the first of them in the pool.",
        ),
    )
    presets: Mapping[str, PresetSettings] = field(
        default_factory=dict,
        metadata={"by_name": PresetSettings, "help": "Overrides and additions to the bundle's presets."},
    )

    def contradictions(self) -> list[str]:
        """Say what single keys cannot, each as the rest of a line that begins with the table's path."""
        return uncapped(self.explore_share, self.explore_max_usd_per_day)
