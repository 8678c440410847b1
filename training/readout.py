"""An experiment read out from the log: differences to the control over time, as confidence sequences.

The same statistics as in serving (:mod:`router.sequences`), over every look at once: at each look only what had come
by then counts. Units are those that the log names (keyed digests); a vote counts at its request's time.
Entry point: :func:`read_out`; pictures are in :mod:`training.readout_plot`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from router.sequences import ArmTotals, Interval, RatioCheck, difference, relative, sample_ratio
from training.errors import NotEnoughData

if TYPE_CHECKING:
    import pandas as pd

    from training.decision_log import DecisionLog

Vector = NDArray[np.float64]

N_LOOKS = 80
#: metric -> whether more of it is worse.
METRICS: Mapping[str, bool] = {"cost_usd": True, "quality": False, "latency_s": True, "failures": True}
#: Metrics that people compare relative to the control.
RELATIVE = ("cost_usd", "latency_s")
#: Whose end was nobody's failure on our side: the caller's own, or ours on purpose.
_NO_FAILURES = "'ok', 'caller_error', 'client_disconnected', 'replayed', 'shutting_down'"
_QUERY = f"""
    SELECT r.time_unix_s, r.unit, r.arm, r.arm_share, r.cost_usd,
        CASE WHEN r.outcome = 'ok' THEN r.total_s END AS latency_s,
        CAST(r.outcome NOT IN ({_NO_FAILURES}) OR r.candidate IS NULL AS DOUBLE) AS failures,
        v.score AS quality
    FROM requests AS r
    LEFT JOIN (
        SELECT request_id, avg(score) AS score FROM feedback WHERE source = 'vote' OR source IS NULL GROUP BY 1
    ) AS v ON v.request_id = r.id
    WHERE r.experiment = ? AND r.unit IS NOT NULL AND r.arm IS NOT NULL
    ORDER BY r.time_unix_s, r.id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One metric of one arm against the control, at every look.

    Parameters
    ----------
    arm, metric : str
    difference : Interval
        Arrays of shape (n_looks,).
    relative : Interval
        Likewise; for costs and latencies what people speak of.
    """

    arm: str
    metric: str
    difference: Interval
    relative: Interval

    @property
    def says(self) -> str:
        """What the last look says: "too early to say", "no difference shown yet", "better" or "worse"."""
        low, high = float(np.asarray(self.difference.low)[-1]), float(np.asarray(self.difference.high)[-1])
        if not (np.isfinite(low) and np.isfinite(high)):
            return "too early to say"
        if low <= 0 <= high:
            return "no difference shown yet"
        return "worse" if (low > 0) is METRICS[self.metric] else "better"


@dataclass(frozen=True, slots=True, eq=False)
class Readout:
    """An experiment, look by look.

    Parameters
    ----------
    name, control : str
    arms : tuple of str
        The control first.
    alpha : float
        Of each sequence.
    times_unix_s, n_units : ndarray of shape (n_looks,)
        When each look was, and how many units there were in all arms.
    n_units_of : Mapping of str to int
        By arm, at the end.
    traces : tuple of Trace
    sample_ratio : RatioCheck or None
        None where the log does not say which shares were meant.
    """

    name: str
    control: str
    arms: tuple[str, ...]
    alpha: float
    times_unix_s: Vector
    n_units: Vector
    n_units_of: Mapping[str, int]
    traces: tuple[Trace, ...]
    sample_ratio: RatioCheck | None


def read_out(log: DecisionLog, name: str, *, control: str | None = None, alpha: float = 0.05) -> Readout:
    """Read an experiment out.

    Parameters
    ----------
    log : DecisionLog
    name : str
        Of the experiment.
    control : str, optional
        Default: the arm of that name, else the first that the log names.
    alpha : float in (0, 1), default=0.05

    Returns
    -------
    Readout

    Raises
    ------
    NotEnoughData
        The log has no request of this experiment, or of one arm only; names those it has.
    """
    frame = log.query(_QUERY, [name])
    if frame.empty:
        known = log.query("SELECT DISTINCT experiment FROM requests WHERE experiment IS NOT NULL ORDER BY 1")
        names = ", ".join(known["experiment"]) or "none at all"
        raise NotEnoughData(f"{log.path}: no request of experiment {name!r}; it knows {names}")
    arms = list(dict.fromkeys(frame["arm"]))
    first = control or ("control" if "control" in arms else arms[0])
    if len(arms) < 2 or first not in arms:
        raise NotEnoughData(f"{log.path}: {name} has requests of {', '.join(arms)}; expected {first} and another arm")
    arms = [first, *(arm for arm in arms if arm != first)]
    counted = _counted(frame)
    times, totals = _totals(counted, arms)
    traces = tuple(
        Trace(
            arm,
            metric,
            difference(totals[arm, metric], totals[first, metric], alpha),
            relative(totals[arm, metric], totals[first, metric], alpha),
        )
        for metric in METRICS
        for arm in arms[1:]
    )
    units = {arm: int(np.asarray(totals[arm, "failures"].n_units)[-1]) for arm in arms}
    n_units = np.sum([np.asarray(totals[arm, "failures"].n_units) for arm in arms], axis=0)
    return Readout(name, first, tuple(arms), alpha, times, n_units, units, traces, _ratio(counted, units))


def _counted(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the requests of units in the arm that they came to, while the shares were those of the start.

    Once an arm is stopped its units, old and new, are the control's. The old are known by where they were; the new are
    not, and would make the control's units later ones than the other arms'.
    """
    first = frame.groupby("unit")[["arm", "time_unix_s"]].transform("first")
    meant = frame.groupby("arm")["arm_share"].transform("first")
    changed = frame["time_unix_s"][frame["arm_share"].notna() & (frame["arm_share"] != meant)]
    until = changed.iloc[0] if len(changed) else np.inf
    return frame[(frame["arm"] == first["arm"]) & (first["time_unix_s"] < until)]


def _totals(frame: pd.DataFrame, arms: list[str]) -> tuple[Vector, dict[tuple[str, str], ArmTotals]]:
    """Return the times of the looks, and by arm and metric the totals at each, fields of shape (n_looks,)."""
    names, unit = np.unique(frame["unit"].to_numpy(dtype=str), return_inverse=True)
    arm = frame["arm"].map({name: i for i, name in enumerate(arms)}).to_numpy(dtype=np.intp)
    arm_of = np.zeros(len(names), dtype=np.intp)
    arm_of[unit] = arm
    ends = np.unique(np.linspace(1, len(frame), min(N_LOOKS, len(frame))).astype(int))
    values = {metric: frame[metric].to_numpy(dtype=np.float64) for metric in METRICS}
    sums = {metric: np.zeros((2, len(names))) for metric in METRICS}
    seen: dict[tuple[str, str], list[ArmTotals]] = {(a, metric): [] for a in arms for metric in METRICS}
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        for metric, column in values.items():
            known = np.flatnonzero(np.isfinite(column[start:end])) + start
            sums[metric][0] += np.bincount(unit[known], minlength=len(names))
            sums[metric][1] += np.bincount(unit[known], column[known], minlength=len(names))
            for i, a in enumerate(arms):
                own = arm_of == i
                seen[a, metric].append(ArmTotals.of(sums[metric][0][own], sums[metric][1][own]))
    times = frame["time_unix_s"].to_numpy(dtype=np.float64)[ends - 1]
    return times, {key: _stacked(parts) for key, parts in seen.items()}


def _stacked(parts: list[ArmTotals]) -> ArmTotals:
    fields = ("n_units", "n_requests", "value_sum", "n_squares", "value_squares", "products")
    return ArmTotals(*(np.array([getattr(part, field) for part in parts], dtype=np.float64) for field in fields))


def _ratio(frame: pd.DataFrame, units: Mapping[str, int]) -> RatioCheck | None:
    """Test the counts against the shares at the start."""
    shares = [float(frame.loc[frame["arm"] == arm, "arm_share"].iloc[0]) for arm in units]
    if not abs(sum(shares) - 1) < 1e-6:
        return None
    return sample_ratio(tuple(units.values()), tuple(shares))
