"""Results of tools whose call is not there. Entry point: :func:`orphans_told`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from serving.dialects.conversation import Part, ToolCall, ToolResult
from serving.dialects.losses import Losses

Turn = tuple[Literal["user", "model"], list[Part]]


def orphans_told(turns: Sequence[Turn], losses: Losses) -> list[Turn]:
    """Say a result as the user's words where no call before it waits for one: trimmed histories begin so."""
    waiting: list[str] = []
    told: list[Turn] = []
    for role, parts in turns:
        kept: list[Part] = []
        for part in parts:
            if isinstance(part, ToolCall):
                waiting.append(part.id)
            if not isinstance(part, ToolResult):
                kept.append(part)
            elif part.call_id in waiting:
                waiting.remove(part.call_id)
                kept.append(part)
            else:
                losses.changed("messages[].content")
                if part.cache_ttl is not None:
                    losses.dropped("cache_control")
                kept += part.parts
        told.append((role, kept))
    return told
