"""Measure a finished bundle on data: what ``turnout evaluate`` does.

Rows the bundle was trained on would flatter it. Where the data is recognised as the bundle's own, only the rows held
out from its training are used, unless asked otherwise. Operating points are the bundle's, if it was measured with the
same pool of candidates; otherwise half of the groups choose them and the other half is scored.
Entry point: :func:`measure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from router.bundle import Bundle
from router.domain import Price
from router.pricing import expected_cost_usd
from routing_data import OutcomeTable, split
from training.errors import NotEnoughData
from training.evaluate import Report, Rows, evaluate
from training.operating import OperatingPoints, choose_points

_BATCH = 256
_CHOOSING = {"choosing": 0.5, "scored": 0.5}
#: Of that split. With the seed of the bundle's own split all its test rows would fall into one half.
_CHOOSING_SEED = 2**31 - 1


def measure(bundle: Bundle, table: OutcomeTable, *, held_out: bool = True, n_resamples: int = 200) -> Report:
    """Measure.

    Parameters
    ----------
    bundle : Bundle
    table : OutcomeTable
    held_out : bool, default=True
        Where the table is one the bundle was trained on, use its test rows only.
    n_resamples : int, default=200

    Returns
    -------
    dict
        As :func:`training.evaluate.evaluate`, with ``rows`` (which were used), ``points_from`` and ``notes``.

    Raises
    ------
    NotEnoughData
        No candidate in common, no row left, or no row held out from a bundle that was refitted on all.
    """
    manifest = bundle.manifest
    table, used, notes = usable(bundle, table, held_out=held_out)
    rows = rows_of(bundle, table)
    safe = best_single(bundle, rows)
    points, source = _points(bundle, rows), "the bundle's validation rows"
    if points is None and len(rows.candidates) > 1 and rows.complete.any():
        half = split(rows.groups, _CHOOSING, _CHOOSING_SEED)
        chosen_on = rows.select((half == "choosing") & rows.complete)
        if len(chosen_on.tasks):
            points = choose_points(
                chosen_on.predicted, chosen_on.predicted_cost, chosen_on.quality, chosen_on.cost_usd, safe
            )
            rows, source = rows.select(half == "scored"), "the other half of these rows"
    report = evaluate(rows, points, manifest.presets, safe, n_resamples, 0)
    return {
        "bundle": manifest.id,
        "simulated": table.simulated,
        "rows": used,
        "points_from": source if points is not None else None,
        "notes": notes,
        **report,
    }


def usable(bundle: Bundle, table: OutcomeTable, *, held_out: bool = True) -> tuple[OutcomeTable, str, list[str]]:
    """Return the rows that say something of a bundle, which they are in words, and what must be said of them.

    Raises
    ------
    NotEnoughData
        As :func:`measure`.
    """
    manifest = bundle.manifest
    names = [column.name for column in manifest.candidates]
    common = [name for name in names if name in table.candidates]
    if not common:
        raise NotEnoughData(f"the data has no candidate of the bundle; the bundle knows {', '.join(names)}")
    table = table.select(candidates=common)
    table = table.select(np.flatnonzero(np.isfinite(table.quality).any(axis=1)))
    notes: list[str] = []
    used = "all"
    if trained_on(bundle, table):
        if held_out and cast(Mapping[str, Any], manifest.training.get("config", {})).get("refit"):
            raise NotEnoughData("the bundle was refitted on all of this data, so nothing is held out: use other data")
        if held_out:
            table, used = _test_rows(bundle, table), "held out from this bundle's training"
        else:
            notes.append("the bundle was trained on a part of these rows; they flatter it")
    notes += [
        f"{record['candidate']} was onboarded from {record['n_labels']} labels; those among these rows flatter it"
        for record in _records(manifest.training.get("onboarded"))
        if record["candidate"] in common
    ]
    if not table.prompt_ids:
        raise NotEnoughData("no row is left to measure on")
    return table, used, notes


def trained_on(bundle: Bundle, table: OutcomeTable) -> bool:
    """Tell whether any source of the table is one the bundle was trained on."""
    known = {source.get("sha256") for source in _records(bundle.manifest.training.get("data"))}
    return any(source.sha256 in known for source in table.sources)


def rows_of(bundle: Bundle, table: OutcomeTable, prices: Mapping[str, Price | None] | None = None) -> Rows:
    """Return the bundle's predictions for a table whose candidates it all knows, beside what happened.

    Predicted costs are those at ``prices``, by default the bundle's own.
    """
    column = {c.name: (j, c.reference_price) for j, c in enumerate(bundle.manifest.candidates)}
    pick = [column[name][0] for name in table.candidates]
    said: dict[str, list[Any]] = {
        name: [] for name in ("quality", "input_tokens", "output_tokens", "output_tokens_p90")
    }
    for start in range(0, len(table.prompts), _BATCH):
        predictions = bundle.predict(table.prompts[start : start + _BATCH])
        for name, parts in said.items():
            parts.append(getattr(predictions, name)[:, pick])
    whole = {name: np.concatenate(parts) for name, parts in said.items()}
    charged = [column[name][1] if prices is None else prices[name] for name in table.candidates]
    return Rows(
        candidates=table.candidates,
        predicted=whole["quality"].astype(np.float64),
        predicted_cost=expected_cost_usd(charged, whole["input_tokens"], whole["output_tokens"]),
        output_tokens=whole["output_tokens"].astype(np.float64),
        output_tokens_p90=whole["output_tokens_p90"].astype(np.float64),
        quality=table.quality.astype(np.float64),
        cost_usd=table.cost_usd,
        true_output_tokens=table.output_tokens,
        tasks=table.tasks,
        groups=table.groups,
    )


def _test_rows(bundle: Bundle, table: OutcomeTable) -> OutcomeTable:
    config = cast(Mapping[str, Any], bundle.manifest.training.get("config", {}))
    parts = split(table.groups, config["split"], int(config["seed"]))
    return table.select(parts == "test")


def best_single(bundle: Bundle, rows: Rows) -> int:
    """Best on the bundle's training rows; on these rows where the bundle does not say."""
    trained = bundle.manifest.metrics.get("training_mean_quality")
    order = _records([trained])[0] if isinstance(trained, Mapping) else {}
    observed = np.isfinite(rows.quality)
    complete = observed.all(axis=1)
    here = np.nanmean(rows.quality[complete] if complete.any() else rows.quality, axis=0)
    if set(rows.candidates) <= set(cast(list[str], bundle.manifest.metrics.get("points_of", []))):
        return int(np.argmax([cast(float, order[name]) for name in rows.candidates]))
    return int(np.argmax(here))


def _points(bundle: Bundle, rows: Rows) -> OperatingPoints | None:
    metrics = bundle.manifest.metrics
    stored = metrics.get("points")
    if not isinstance(stored, Mapping) or set(cast(list[str], metrics.get("points_of", []))) != set(rows.candidates):
        return None
    return OperatingPoints(
        float(stored["best"]),
        {float(level): float(stop) for level, stop in stored["saving"].items()},
        tuple(float(stop) for stop in stored["frontier"]),
    )


def _records(value: object) -> list[Mapping[str, object]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
