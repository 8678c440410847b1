"""The columns of a routing table, as data.

It says what each file may hold and which values are allowed; ``checks`` applies it. It reads
nothing.

Entry point: ``PROMPTS``, ``OUTCOMES`` and ``LONG``, one tuple of ``Column`` per kind of file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Column:
    """Describe one column.

    Parameters
    ----------
    name : str
        Name in the file.
    kind : {'id', 'text', 'number'}
        An id may be stored as an integer and is read as text.
    required : bool
        The column must be there.
    nullable : bool
        Single values may be missing.
    help : str
        What it holds, for the data card.
    maximum : float
        Largest number allowed; the smallest is always 0.
    alias : str or None
        Another accepted name for the same column.
    """

    name: str
    kind: Literal["id", "text", "number"]
    required: bool
    nullable: bool
    help: str
    maximum: float = math.inf
    alias: str | None = None

    @property
    def expected(self) -> str:
        """Say in words which values are allowed."""
        if self.kind != "number":
            return "text"
        return f"a number in [0, {self.maximum:g}]" if math.isfinite(self.maximum) else "a finite number >= 0"


_PROMPT_ID = Column("prompt_id", "id", True, False, "unique name of the prompt")
_PROMPT = Column("prompt", "text", True, False, "the text sent to the candidate")
_TASK = Column("task", "id", False, True, "kind of task; 'unknown' where not given")
_GROUP = Column("group", "id", False, True, "prompts of one group share a side of every split")
_CANDIDATE = Column("candidate", "id", True, False, "the candidate that answered", alias="model")
_QUALITY = Column("quality", "number", True, False, "how good the answer was, in [0, 1]", maximum=1.0)
_AMOUNTS = (
    Column("input_tokens", "number", False, True, "tokens read"),
    Column("output_tokens", "number", False, True, "tokens written"),
    Column("cost_usd", "number", False, True, "USD for the call"),
    Column("latency_s", "number", False, True, "seconds taken; kept in the file, not read"),
)

PROMPTS: tuple[Column, ...] = (
    _PROMPT_ID,
    _PROMPT,
    _TASK,
    Column("benchmark", "text", False, True, "where the prompt is from; kept in the file, not read"),
    _GROUP,
    Column("functions", "text", False, True, "tool schemas as JSON; kept in the file, not read"),
)
"""Columns of ``prompts.parquet``."""

OUTCOMES: tuple[Column, ...] = (_PROMPT_ID, _CANDIDATE, _QUALITY, *_AMOUNTS)
"""Columns of ``outcomes.parquet``."""

LONG: tuple[Column, ...] = (
    replace(_PROMPT_ID, required=False, help="unique name of the prompt; without it, a hash of the text"),
    _PROMPT,
    _CANDIDATE,
    _QUALITY,
    *_AMOUNTS,
    _TASK,
    _GROUP,
)
"""Columns of one long file: one row per prompt and candidate."""

SOURCE_KEYS: dict[str, type] = {"name": str, "licence": str, "attribution": str, "simulated": bool}
"""Keys of ``source.json``."""
