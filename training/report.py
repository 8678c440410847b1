"""What the decision log says of spending, savings, quality and time: what ``turnout report`` prints.

One pass over few columns of the exported log, in DuckDB. Money that nobody knows is counted, never taken for zero; an
interval treats requests as independent, so that few users with habits of their own make it too narrow.

Requests that named their candidate (a caller's choice, the calls of ``turnout label``) are in spending and times, and
in no share, quality or saving: no policy decided them. *Failed* is what a provider or the gateway failed at, whatever
``outcome`` that has, shed and broken off by a shutdown too; what the caller did (an invalid request, a deadline of its
own, gone before the end: :data:`OF_CALLER`) is counted apart, and a replay for an Idempotency-Key is neither.
Entry point: :func:`report`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from training.decision_log import DecisionLog

#: What the rows are grouped by, and how the groups are ordered.
GROUPINGS: Mapping[str, str] = {"candidate": "n DESC", "scenario": "n DESC", "key": "n DESC", "day": "label"}
#: Outcomes that are the caller's doing.
OF_CALLER = ("caller_error", "caller_deadline", "client_disconnected")
_REPLAYED = "replayed"
_NO_FAILURES = ", ".join(f"'{outcome}'" for outcome in ("ok", _REPLAYED, *OF_CALLER))
_Z = 1.96
#: Fewer observations than this have no interval worth printing.
_LEAST_N = 20

# Of votes, the mean of a request counts, once. A request is routed when a policy decided, and not the caller's word;
# its saving is against what the reference candidate would have cost for it, by the decision's own prediction.
_ROWS = f"""
WITH vote AS (
    SELECT request_id, avg(score) AS score FROM feedback WHERE source IS DISTINCT FROM 'signal' GROUP BY request_id
), row AS (
    SELECT
        coalesce(candidate, '(nobody)') AS candidate, coalesce(scenario, '(none)') AS scenario, key, day,
        outcome = 'ok' AS is_ok, outcome NOT IN ({_NO_FAILURES}) AS is_failed, outcome = '{_REPLAYED}' AS is_replayed,
        outcome IN ({", ".join(f"'{outcome}'" for outcome in OF_CALLER)}) AS is_of_caller,
        coalesce(binding = 'designated', false) AS is_designated, cost_usd, total_s, first_byte_s,
        CASE WHEN binding IS DISTINCT FROM 'designated' THEN predicted_quality END AS predicted_quality,
        CASE WHEN binding IS DISTINCT FROM 'designated' THEN score END AS score,
        coalesce(is_explored, false) AS is_explored, coalesce(is_emulated, false) AS is_emulated,
        outcome = 'ok' AND binding IS DISTINCT FROM 'designated' AND candidate IS NOT NULL AS is_routed,
        CASE WHEN outcome = 'ok' AND binding IS DISTINCT FROM 'designated' AND cost_usd IS NOT NULL
            THEN reference_cost_usd END AS reference_usd,
        candidate = reference AS is_reference
    FROM requests LEFT JOIN vote ON vote.request_id = requests.id
    {{where}}
)
"""
_MEASURES = """
    count(*) AS n, count(*) FILTER (is_routed) AS n_routed, count(*) FILTER (is_failed) AS n_failed,
    count(*) FILTER (is_of_caller) AS n_of_caller, count(*) FILTER (is_replayed) AS n_replayed,
    count(*) FILTER (is_designated) AS n_designated,
    count(*) FILTER (is_explored) AS n_explored, count(*) FILTER (is_emulated) AS n_emulated,
    count(*) FILTER (is_ok AND cost_usd IS NULL) AS n_unknown_cost, coalesce(sum(cost_usd), 0) AS spend_usd,
    count(reference_usd) AS n_compared, sum(reference_usd) AS reference_usd,
    sum(cost_usd) FILTER (reference_usd IS NOT NULL) AS compared_usd,
    sum(cost_usd * cost_usd) FILTER (reference_usd IS NOT NULL) AS cost_cost,
    sum(reference_usd * reference_usd) AS reference_reference,
    sum(cost_usd * reference_usd) AS cost_reference,
    count(*) FILTER (is_reference AND reference_usd IS NOT NULL) AS n_reference,
    sum(cost_usd) FILTER (is_reference AND reference_usd IS NOT NULL) AS own_usd,
    sum(reference_usd) FILTER (is_reference) AS own_predicted_usd,
    count(score) AS n_voted, avg(score) AS voted_quality, stddev_samp(score) AS vote_deviation,
    avg(predicted_quality) FILTER (score IS NOT NULL) AS predicted_of_voted,
    avg(predicted_quality) AS predicted_quality,
    approx_quantile(total_s, 0.5) FILTER (is_ok) AS p50_s, approx_quantile(total_s, 0.95) FILTER (is_ok) AS p95_s,
    approx_quantile(first_byte_s, 0.5) FILTER (is_ok) AS first_byte_p50_s
"""
_SHADOW = """
SELECT shadow_bundle AS bundle, count(*) AS n, avg((shadow_candidate = chosen)::INT) AS agreement,
    sum(expected_cost_usd) AS expected_usd, sum(shadow_cost_usd) AS shadow_usd,
    avg(predicted_quality) AS predicted_quality, avg(shadow_quality) AS shadow_quality,
    sum(expected_cost_usd * expected_cost_usd) AS cost_cost, sum(shadow_cost_usd * shadow_cost_usd) AS shadow_shadow,
    sum(expected_cost_usd * shadow_cost_usd) AS cost_shadow
FROM requests {where} shadow_candidate IS NOT NULL AND expected_cost_usd IS NOT NULL AND shadow_cost_usd IS NOT NULL
    AND NOT coalesce(is_explored, false)
GROUP BY shadow_bundle ORDER BY n DESC
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; both None where too little is known."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The requests of one label.

    Parameters
    ----------
    label : str
        A candidate, scenario, key or day; "" for all requests.
    n, n_routed, n_failed, n_of_caller, n_replayed, n_designated : int
        Requests; of those that a policy decided and that were answered; that a provider or the gateway failed at; that
        their caller ended (:data:`OF_CALLER`); replays; that named their candidate.
    n_explored, n_emulated, n_unknown_cost, n_compared, n_voted : int
        That explored; that an emulator answered; answered at a cost nobody knows; compared with the reference; voted
        on, among those that did not name their candidate.
    share : float or None
        Of all routed requests; None where there is none.
    spend_usd : float
        What is known to have been spent.
    reference_usd : float or None
        What the compared requests would have cost at the reference candidate, as predicted.
    saving : Estimate
        ``1 − cost / reference cost`` over the compared requests; interval by the delta method for a ratio of sums.
    prediction_ratio : float or None
        Actual over predicted cost where the reference itself answered: what the saving's other side is worth.
    voted_quality : Estimate
        Mean of the votes, each request once, in [0, 1].
    predicted_of_voted, predicted_quality : float or None
        Mean prediction for the requests voted on, and for all.
    p50_s, p95_s, first_byte_p50_s : float or None
        Seconds of answered requests, approximately.
    """

    label: str
    n: int
    n_routed: int
    n_failed: int
    n_of_caller: int
    n_replayed: int
    n_designated: int
    n_explored: int
    n_emulated: int
    n_unknown_cost: int
    n_compared: int
    n_voted: int
    share: float | None
    spend_usd: float
    reference_usd: float | None
    saving: Estimate
    prediction_ratio: float | None
    voted_quality: Estimate
    predicted_of_voted: float | None
    predicted_quality: float | None
    p50_s: float | None
    p95_s: float | None
    first_byte_p50_s: float | None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a challenger would have done beside the champion: how often the same, and at what expected saving."""

    bundle: str
    n: int
    agreement: Estimate
    saving: Estimate
    predicted_quality: float | None
    shadow_quality: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything: the whole, and by each of :data:`GROUPINGS`."""

    whole: Group
    by: Mapping[str, tuple[Group, ...]]
    shadows: tuple[Shadow, ...]


def report(log: DecisionLog, since_unix_s: float | None = None, by: Sequence[str] = tuple(GROUPINGS)) -> Report:
    """Make the report.

    Parameters
    ----------
    log : DecisionLog
    since_unix_s : float, optional
        Earlier requests are left out.
    by : sequence of str
        Some of :data:`GROUPINGS`.

    Returns
    -------
    Report

    Raises
    ------
    LogUnreadable
        See :class:`training.decision_log.DecisionLog`.
    """
    where, parameters = "WHERE", list[object]()
    if since_unix_s is not None:
        where += " day >= ? AND time_unix_s >= ? AND"
        parameters = [datetime.fromtimestamp(since_unix_s, UTC).date(), since_unix_s]
    sets = ", ".join(f"({name})" for name in by)
    # Which grouping a row belongs to: all the others are NULL in it, and none is NULL in the data.
    frame = log.query(
        f"{_ROWS.format(where=where + ' true')} SELECT {', '.join(by)}{', ' if by else ''}{_MEASURES} FROM row "
        f"GROUP BY GROUPING SETS (({')' if not by else '), ' + sets})",
        parameters,
    )
    is_whole = frame[list(by)].isna().all(axis=1) if by else pd.Series(True, index=frame.index)
    whole = _group("", frame[is_whole].iloc[0], None)
    grouped = {}
    for name in by:
        rows = frame[frame[name].notna()]
        groups = [_group(_label(row[name]), row, whole.n_routed) for _, row in rows.iterrows()]
        groups.sort(key=lambda group: group.label)
        if GROUPINGS[name] == "n DESC":
            groups.sort(key=lambda group: -group.n)
        grouped[name] = tuple(groups)
    shadows = log.query(_SHADOW.format(where=where), parameters)
    return Report(whole, grouped, tuple(_shadow(row) for _, row in shadows.iterrows()))


def _label(value: object) -> str:
    return f"{value:%Y-%m-%d}" if isinstance(value, datetime) else str(value)


def _group(label: str, row: pd.Series, n_all: int | None) -> Group:
    n, n_routed = int(row["n"]), int(row["n_routed"])
    n_voted, n_compared = int(row["n_voted"]), int(row["n_compared"])
    own, predicted = _known(row["own_usd"]), _known(row["own_predicted_usd"])
    return Group(
        label=label,
        n=n,
        n_routed=n_routed,
        n_failed=int(row["n_failed"]),
        n_of_caller=int(row["n_of_caller"]),
        n_replayed=int(row["n_replayed"]),
        n_designated=int(row["n_designated"]),
        n_explored=int(row["n_explored"]),
        n_emulated=int(row["n_emulated"]),
        n_unknown_cost=int(row["n_unknown_cost"]),
        n_compared=n_compared,
        n_voted=n_voted,
        share=n_routed / of if (of := n_routed if n_all is None else n_all) else None,
        spend_usd=float(row["spend_usd"]),
        reference_usd=_known(row["reference_usd"]),
        saving=_saving(
            n_compared,
            row["compared_usd"],
            row["reference_usd"],
            row["cost_cost"],
            row["reference_reference"],
            row["cost_reference"],
        ),
        prediction_ratio=own / predicted if int(row["n_reference"]) >= _LEAST_N and own and predicted else None,
        voted_quality=_mean(n_voted, row["voted_quality"], row["vote_deviation"]),
        predicted_of_voted=_known(row["predicted_of_voted"]),
        predicted_quality=_known(row["predicted_quality"]),
        p50_s=_known(row["p50_s"]),
        p95_s=_known(row["p95_s"]),
        first_byte_p50_s=_known(row["first_byte_p50_s"]),
    )


def _shadow(row: pd.Series) -> Shadow:
    n, agreement = int(row["n"]), float(row["agreement"])
    return Shadow(
        bundle=str(row["bundle"]),
        n=n,
        agreement=_mean(n, agreement, math.sqrt(agreement * (1 - agreement))),
        saving=_saving(
            n, row["shadow_usd"], row["expected_usd"], row["shadow_shadow"], row["cost_cost"], row["cost_shadow"]
        ),
        predicted_quality=_known(row["predicted_quality"]),
        shadow_quality=_known(row["shadow_quality"]),
    )


def _saving(n: int, spent: float, reference: float, cc: float, rr: float, cr: float) -> Estimate:
    """Return ``1 − Σc / Σr``, its variance that of a ratio of sums: ``Σ(c − q·r)² / (Σr)²`` at ``q = Σc / Σr``."""
    if n == 0 or not reference:
        return Estimate(None)
    ratio = float(spent / reference)
    if n < _LEAST_N:
        return Estimate(1 - ratio)
    half = _Z * math.sqrt(max(float(cc - 2 * ratio * cr + ratio**2 * rr), 0.0)) / float(reference)
    return Estimate(1 - ratio, 1 - ratio - half, 1 - ratio + half)


def _mean(n: int, mean: float, deviation: float) -> Estimate:
    if n == 0:
        return Estimate(None)
    if n < _LEAST_N or deviation != deviation:
        return Estimate(float(mean))
    half = _Z * float(deviation) / math.sqrt(n)
    return Estimate(float(mean), max(0.0, float(mean) - half), min(1.0, float(mean) + half))


def _known(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]
