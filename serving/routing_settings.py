"""The ``[routing]`` table: what ``auto`` means, and the presets of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving import tables
from serving.dialects.losses import MODES
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
    presets: Mapping[str, PresetSettings] = field(
        default_factory=dict,
        metadata={"by_name": PresetSettings, "help": "Overrides and additions to the bundle's presets."},
    )
