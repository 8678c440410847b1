"""Between two frames (prompts, outcomes) and one ``OutcomeTable``, both ways.

It trusts its input: frames have been through ``checks``, or are made by this package.

Entry point: ``to_table`` and ``to_frames``.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from routing_data.table import Amounts, OutcomeTable, Source

_AMOUNTS = ("input_tokens", "output_tokens", "cost_usd")


def to_table(prompts: pd.DataFrame, outcomes: pd.DataFrame, source: Source) -> OutcomeTable:
    """Spread outcomes over prompts x candidates.

    Parameters
    ----------
    prompts : DataFrame
        ``prompt_id``, ``prompt``, and ``task`` and ``group`` where known.
    outcomes : DataFrame
        ``prompt_id``, ``candidate``, ``quality``, and tokens and cost where known.
    source : Source
        Where they came from.

    Returns
    -------
    OutcomeTable
        Prompts in the order of `prompts`, candidates sorted.
    """
    ids = prompts["prompt_id"]
    names, columns = np.unique(outcomes["candidate"].to_numpy(dtype=str), return_inverse=True)
    rows = pd.Index(ids).get_indexer(pd.Index(outcomes["prompt_id"]))

    def spread(name: str) -> Amounts:
        values: NDArray[np.float64] = np.full((len(ids), len(names)), np.nan)
        if name in outcomes:
            values[rows, columns] = outcomes[name].to_numpy(dtype=np.float64)
        return values

    return OutcomeTable(
        prompt_ids=tuple(ids),
        prompts=tuple(prompts["prompt"]),
        tasks=_filled(prompts, "task", pd.Series("unknown", index=prompts.index)),
        groups=_filled(prompts, "group", ids),
        candidates=tuple(str(name) for name in names),
        quality=spread("quality").astype(np.float32),
        input_tokens=spread("input_tokens"),
        output_tokens=spread("output_tokens"),
        cost_usd=spread("cost_usd"),
        sources=(source,),
    )


def to_frames(table: OutcomeTable) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a table out as rows.

    Parameters
    ----------
    table : OutcomeTable
        The table.

    Returns
    -------
    prompts : DataFrame
        One row per prompt: ``prompt_id``, ``prompt``, ``task``, ``group``.
    outcomes : DataFrame
        One row per observed quality, candidate by candidate; tokens and cost of cells without a
        quality are left out, as is a candidate that was never observed.
    """
    prompts = pd.DataFrame(
        {
            "prompt_id": list(table.prompt_ids),
            "prompt": list(table.prompts),
            "task": list(table.tasks),
            "group": list(table.groups),
        }
    )
    columns, rows = np.nonzero(~np.isnan(table.quality.T))
    outcomes = pd.DataFrame(
        {
            "prompt_id": [table.prompt_ids[row] for row in rows],
            "candidate": [table.candidates[column] for column in columns],
            "quality": table.quality[rows, columns].astype(np.float64),
        }
    )
    for name in _AMOUNTS:
        outcomes[name] = getattr(table, name)[rows, columns]
    return prompts, outcomes


def id_of_text(text: str) -> str:
    """Return a stable id for a prompt that has none.

    Parameters
    ----------
    text : str
        The prompt.

    Returns
    -------
    str
        16 hexadecimal digits of its SHA-256.
    """
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _filled(prompts: pd.DataFrame, name: str, default: pd.Series) -> tuple[str, ...]:
    if name not in prompts:
        return tuple(default)
    return tuple(prompts[name].where(prompts[name].notna(), default))
