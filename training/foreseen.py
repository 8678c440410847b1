"""What was predicted of each answer, beside what became of it: votes, cost and tokens of a log's requests, by bundle.

Entry points: :func:`foreseen`, :class:`Foreseen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.sequences import LEAST_SPREAD, LEAST_UNITS
from training.decision_log import DecisionLog
from training.errors import InvalidSettings, NotEnoughData
from training.feedback import votes_of
from training.ope import estimate
from training.retrain_settings import FeedbackSettings

#: Fewer units than this have no interval worth drawing.
_LEAST_UNITS_A_PERIOD = 10
_MOST_PERIODS = 1_000
# Of who answered, not of who was chosen: after a failover they differ.
_ROWS = """
SELECT id, time_unix_s, key, candidate, task, input_tokens,
    CASE WHEN is_measured THEN output_tokens END AS output_tokens,
    CASE WHEN is_measured THEN cost_usd END AS cost_usd,
    seen.quality AS predicted, seen.output_tokens AS expected_tokens, seen.cost_usd AS expected_usd,
    list_bool_and(list_transform(outlook, lambda o: o.quality_high - o.quality_low >= 1)) AS is_unfamiliar
FROM (
    SELECT *, list_filter(outlook, lambda o: o.candidate = requests.candidate)[1] AS seen,
        outcome = 'ok' AND NOT coalesce(is_usage_estimated, false) AS is_measured
    FROM requests WHERE bundle = ? AND time_unix_s >= ? AND day >= ?
) ORDER BY time_unix_s, id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Foreseen:
    """Requests of one bundle.

    Parameters
    ----------
    bundle : str
    rows : pandas.DataFrame
        By time: ``id, time_unix_s, key, candidate, task, input_tokens, output_tokens, cost_usd`` (what happened),
        ``predicted, expected_tokens, expected_usd, is_unfamiliar`` (what was foreseen of who answered), ``score,
        weight`` (what votes said, and for how much they count; see :func:`training.feedback.votes_of`), ``period``.
        NaN where unknown.
    start_unix_s, period_s : float
        When period 0 begins, and how long each is.
    is_by_key : bool
        Keys are many enough to stand for independent units; else each request is taken to be one.
    """

    bundle: str
    rows: pd.DataFrame
    start_unix_s: float
    period_s: float
    is_by_key: bool

    @property
    def units(self) -> NDArray[np.intp] | None:
        """Number of each row's unit, shape (n,); None where each row is one."""
        if not self.is_by_key:
            return None
        return np.asarray(self.rows["key"].cat.codes, dtype=np.intp)

    @property
    def voted(self) -> pd.DataFrame:
        """The rows with a vote and a prediction to hold it against."""
        return self.rows[self.rows["score"].notna() & self.rows["predicted"].notna()]

    def begins(self, period: int) -> datetime:
        """Return when a period begins."""
        return datetime.fromtimestamp(self.start_unix_s + period * self.period_s, UTC)

    def by_period(self) -> pd.DataFrame:
        """Return what was voted and predicted per candidate and period, in which the bounds hold for one period each.

        Returns
        -------
        pandas.DataFrame
            ``candidate, period, begins, n_votes, voted, predicted, gap`` (voted − predicted), ``low, high`` (95 %, of
            the gap; NaN with fewer than ten units). Means are weighted as votes are.
        """
        found = []
        for (candidate, period), rows in self.voted.groupby(["candidate", "period"], sort=True, observed=True):
            weight = rows["weight"].to_numpy(dtype=np.float64)
            voted, predicted = (float(np.average(rows[name], weights=weight)) for name in ("score", "predicted"))
            gap, low, high = voted - predicted, np.nan, np.nan
            units = np.unique(rows["key"], return_inverse=True)[1] if self.is_by_key else np.arange(len(rows))
            if units.max() + 1 >= _LEAST_UNITS_A_PERIOD:
                influence = weight * (rows["score"] - rows["predicted"] - gap).to_numpy() / weight.mean()
                bounds = estimate(gap, influence, units)
                low, high = bounds.low, bounds.high
            begins = self.begins(int(period))  # type: ignore[call-overload]
            found.append((candidate, period, begins, len(rows), voted, predicted, gap, low, high))
        columns = ["candidate", "period", "begins", "n_votes", "voted", "predicted", "gap", "low", "high"]
        return pd.DataFrame(found, columns=columns)


def foreseen(
    log: DecisionLog,
    *,
    bundle: str | None = None,
    since_unix_s: float | None = None,
    period_s: float = 86_400.0,
    settings: FeedbackSettings | None = None,
) -> Foreseen:
    """Read the requests of one bundle.

    Parameters
    ----------
    log : DecisionLog
    bundle : str, optional
        ``name@version``. Default: that of the newest request.
    since_unix_s : float, optional
        Earlier requests are left out.
    period_s : float, default=86400
        Periods begin at multiples of it since 1970: days of UTC by default.
    settings : FeedbackSettings, optional
        What votes count for.

    Returns
    -------
    Foreseen

    Raises
    ------
    NotEnoughData
        No request of that bundle; names those there are.
    InvalidSettings
        Periods are so short that there are more than 1,000.
    LogUnreadable
        See :class:`training.decision_log.DecisionLog`.
    """
    since = since_unix_s or 0.0
    day = datetime.fromtimestamp(since, UTC).date()
    known = log.query(
        "SELECT bundle, max(time_unix_s) AS last FROM requests WHERE bundle IS NOT NULL AND time_unix_s >= ? "
        "GROUP BY bundle ORDER BY last DESC, bundle",
        [since],
    )["bundle"].tolist()
    wanted = bundle or (str(known[0]) if known else None)
    if wanted is None or wanted not in known:
        raise NotEnoughData(
            f"{log.path}: no request since then was decided by {wanted or 'a bundle'}; bundles: "
            f"{', '.join(known) or 'none'}"
        )
    rows = log.query(_ROWS, [wanted, since, day])
    votes = votes_of(log, settings or FeedbackSettings(), since).frame[["request_id", "score", "weight"]]
    rows = rows.merge(votes, how="left", left_on="id", right_on="request_id").drop(columns="request_id")
    start = float(rows["time_unix_s"].iloc[0]) // period_s * period_s
    for name in ("key", "candidate", "task"):
        rows[name] = rows[name].astype("category")
    n_periods = (float(rows["time_unix_s"].iloc[-1]) - start) / period_s
    if n_periods > _MOST_PERIODS:
        raise InvalidSettings(
            f"period must leave at most {_MOST_PERIODS:,} periods, got {period_s:g} s, which makes {n_periods:,.0f}"
        )
    rows["period"] = ((rows["time_unix_s"] - start) // period_s).astype(np.intp)
    return Foreseen(wanted, rows, start, period_s, _is_by_key(rows["key"]))


def _is_by_key(keys: pd.Series) -> bool:
    """Say whether requests are spread over enough keys for these to be counted in the place of requests."""
    n = keys.value_counts().to_numpy(dtype=np.float64)
    return len(n) >= LEAST_UNITS and float(n.sum() ** 2 / (n**2).sum()) >= LEAST_SPREAD
