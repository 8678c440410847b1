"""Predictions for a file of prompts, as a table: what ``turnout predict`` does.

Entry points: :func:`read_prompts`, :func:`read_prices`, :func:`price_of` and :func:`predict`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from router.bundle import Bundle
from router.domain import Price
from router.pricing import expected_cost_usd
from training.errors import InvalidSettings, NotEnoughData
from training.toml_file import read_toml

_BATCH = 256
COLUMNS = (
    "prompt_id",
    "candidate",
    "quality",
    "quality_low",
    "quality_high",
    "output_tokens",
    "output_tokens_p90",
    "cost_usd",
)


def read_prompts(path: Path) -> pd.DataFrame:
    """Read a Parquet, CSV or JSON-lines file with the columns ``prompt_id`` and ``prompt``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    pandas.DataFrame
        Both columns as text.

    Raises
    ------
    NotEnoughData
        Unreadable, another format, a column or every row missing, an empty prompt, a prompt_id twice.
    """
    readers: Mapping[str, Callable[[Path], pd.DataFrame]] = {
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".jsonl": _read_jsonl,
    }
    if path.suffix not in readers:
        raise NotEnoughData(f"{path}: the name must end in {', '.join(readers)}, got {path.suffix!r}")
    try:
        frame = readers[path.suffix](path)
    except (OSError, ValueError) as exc:  # pandas' and pyarrow's parse errors are ValueErrors
        raise NotEnoughData(f"{path}: cannot be read: {type(exc).__name__}: {exc}") from exc
    missing = {"prompt_id", "prompt"} - set(frame.columns)
    if missing:
        raise NotEnoughData(f"{path}: column {', '.join(sorted(missing))} is missing; found {', '.join(frame.columns)}")
    frame = frame[["prompt_id", "prompt"]]
    if frame.empty:
        raise NotEnoughData(f"{path}: there is no row")
    blank = frame["prompt"].isna() | frame["prompt_id"].isna() | (frame["prompt"].astype(str).str.strip() == "")
    if blank.any():
        raise NotEnoughData(f"{path}: row {int(np.flatnonzero(blank)[0])}: prompt_id or prompt is empty")
    frame = frame.astype(str)
    twice = frame["prompt_id"].duplicated()
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise NotEnoughData(f"{path}: row {row}: prompt_id {frame['prompt_id'].iloc[row]!r} is there twice")
    return frame


def read_prices(path: Path, candidates: Sequence[str]) -> dict[str, Price]:
    """Read prices, one table per candidate with ``input_usd_per_mtok`` and ``output_usd_per_mtok``.

    Parameters
    ----------
    path : Path
        TOML.
    candidates : sequence of str
        Of the bundle.

    Returns
    -------
    dict of str to Price

    Raises
    ------
    InvalidSettings
        Names the candidate or the key, and what was expected.
    """
    document = read_toml(path)
    keys = ("input_usd_per_mtok", "output_usd_per_mtok")
    prices = {}
    for name, table in document.items():
        if name not in candidates:
            near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.0)[0]
            raise InvalidSettings(f"{path}: the bundle has no candidate {name!r}; the nearest is {near!r}")
        if not isinstance(table, Mapping) or set(table) != set(keys):
            raise InvalidSettings(f"{path}: {name} must have exactly the keys {', '.join(keys)}, got {table!r}")
        amounts = [table[key] for key in keys]
        if not all(type(a) in (int, float) and math.isfinite(a) and a >= 0 for a in amounts):
            raise InvalidSettings(f"{path}: {name}: prices must be numbers of at least 0, got {amounts!r}")
        prices[name] = Price(*map(float, amounts))
    return prices


def price_of(text: str) -> Price:
    """Read ``IN/OUT``, USD per million tokens; raises InvalidSettings."""
    try:
        amounts = [float(part) for part in text.split("/")]
    except ValueError:
        amounts = []
    if len(amounts) != 2 or not all(math.isfinite(amount) and amount >= 0 for amount in amounts):
        raise InvalidSettings(f"prices must be two numbers of at least 0 as in 2.5/10, got {text!r}")
    return Price(*amounts)


def predict(bundle: Bundle, prompts: pd.DataFrame, prices: Mapping[str, Price] | None = None) -> pd.DataFrame:
    """Predict quality, output tokens and cost of every prompt for every candidate.

    Parameters
    ----------
    bundle : Bundle
    prompts : pandas.DataFrame
        As of :func:`read_prompts`.
    prices : mapping of str to Price, optional
        Default: the bundle's reference prices. A candidate without a price has no cost.

    Returns
    -------
    pandas.DataFrame
        The columns of :data:`COLUMNS`, n · m rows; NaN where unknown.
    """
    columns = bundle.manifest.candidates
    charged = [column.reference_price if prices is None else prices.get(column.name) for column in columns]
    names = [column.name for column in columns]
    parts = []
    for start in range(0, len(prompts), _BATCH):
        batch = prompts.iloc[start : start + _BATCH]
        said = bundle.predict(batch["prompt"].tolist())
        cost = expected_cost_usd(charged, said.input_tokens, said.output_tokens)
        parts.append(
            pd.DataFrame(
                {
                    "prompt_id": np.repeat(batch["prompt_id"].to_numpy(), len(names)),
                    "candidate": np.tile(names, len(batch)),
                    "quality": said.quality.ravel(),
                    "quality_low": said.quality_low.ravel(),
                    "quality_high": said.quality_high.ravel(),
                    "output_tokens": said.output_tokens.ravel(),
                    "output_tokens_p90": said.output_tokens_p90.ravel(),
                    "cost_usd": cost.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read_jsonl(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False)
