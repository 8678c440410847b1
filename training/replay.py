"""Replay another policy over a decision log: whom it would have chosen, and what that would have cost.

The log holds what was predicted of every candidate for every request, so the router's own policy code
(:mod:`router.policy`) chooses again, exactly. Costs are the expected ones, corrected by what calls of each candidate
really cost. Only requests that a policy decided are replayed: who named a candidate got it, and a conversation keeps
whom it has.

Entry points: :func:`read_replay`, :class:`Replay`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from router.domain import Policy
from router.policy import KINDS, choose
from training.errors import NotEnoughData
from training.ope import Choices, Estimate, Matrix, Vector, estimate

if TYPE_CHECKING:
    import pandas as pd

    from training.decision_log import DecisionLog

MOST_REQUESTS = 50_000
#: With fewer keys than this, keys cannot stand for independent units, and each request is taken to be one.
LEAST_KEYS = 20
#: Calls of its own that a candidate's correction needs to be as much its own as that of all together.
_PRIOR_CALLS = 20.0
_AT_ONCE = 5_000
_LATENCY = "latency"
_COLUMNS = (
    *("id", "time_unix_s", "key", "chosen", "candidate", "propensity", "cost_usd", "outcome", "is_usage_estimated"),
    *("is_explored", "explorable", "policy_kind", "policy_value", "bundle"),
)
_DECIDED = "binding IS NOT NULL AND binding NOT IN ('', 'designated', 'conversation', 'experiment')"


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What was logged of n requests and m candidates, as arrays.

    Parameters
    ----------
    candidates : tuple of m str
        By name, as the router sorts them.
    bundle : str
        Whose predictions these are.
    ids, keys : ndarray of shape (n,), str
    quality, cost_usd : ndarray of shape (n, m), float64
        Predicted; NaN where unknown.
    allowed : ndarray of shape (n, m), bool
        Who might answer.
    chosen : ndarray of shape (n,), intp
        Column of who was chosen.
    propensity : ndarray of shape (n,), in (0, 1]
    paid_usd : ndarray of shape (n,)
        What the call of ``chosen`` cost; NaN where another answered, none did, or the cost is an estimate.
    n_left_out : int
        Requests of the log that cannot be replayed: named, in a conversation, of another bundle, or too old.
    agreement : float or None
        Share of the requests, explored ones aside, in which replaying the logged policy gives the logged choice;
        None where no logged policy can be replayed.
    is_open : ndarray of shape (n,), bool, or None
        Where chance could choose anybody who might answer; None where no request of the log says who.
    """

    candidates: tuple[str, ...]
    bundle: str
    ids: NDArray[np.str_]
    keys: NDArray[np.str_]
    quality: Matrix
    cost_usd: Matrix
    allowed: NDArray[np.bool_]
    chosen: Choices
    propensity: Vector
    paid_usd: Vector
    n_left_out: int
    agreement: float | None
    is_open: NDArray[np.bool_] | None = None

    @property
    def clusters(self) -> NDArray[np.intp]:
        """What is independent: keys where there are enough of them, else requests; numbers of shape (n,)."""
        names, numbers = np.unique(self.keys, return_inverse=True)
        return numbers if len(names) >= LEAST_KEYS else np.arange(len(self.keys))

    def choices(self, policy: Policy) -> Choices:
        """Return the column that a policy chooses for each request, shape (n,)."""
        return _choices(self.quality, self.cost_usd, self.allowed, policy)

    def expected_usd(self, choices: Choices) -> tuple[Estimate, Estimate]:
        """Say what choices would have cost a request.

        Parameters
        ----------
        choices : ndarray of shape (n,), intp

        Returns
        -------
        cost, change : Estimate
            Mean cost in USD, and the same minus that of what was chosen; 95 % intervals, of requests and of the
            corrections.

        Raises
        ------
        NotEnoughData
            No call of known cost; or a choice has no expected cost.
        """
        cost, own = self._influence(choices), self._influence(self.chosen)
        clusters = self.clusters
        return estimate(float(cost.mean()), cost, clusters), estimate(float((cost - own).mean()), cost - own, clusters)

    def corrections(self) -> Vector:
        """Return what calls cost relative to what was expected of them, per candidate, shape (m,).

        Of a candidate with few calls, mostly what holds of all together.

        Raises
        ------
        NotEnoughData
            No call of known cost.
        """
        return self._observed().corrections

    def _observed(self) -> _Observed:
        expected = self.cost_usd[np.arange(len(self.chosen)), self.chosen]
        seen = np.isfinite(self.paid_usd) & np.isfinite(expected) & (expected > 0)
        if not seen.any():
            raise NotEnoughData("the log has no call of known cost, so nothing is known of what calls cost")
        paid, expected = np.where(seen, self.paid_usd, 0.0), np.where(seen, expected, 0.0)
        m = len(self.candidates)
        calls = np.bincount(self.chosen, seen.astype(np.float64), minlength=m)
        totals = np.bincount(self.chosen, expected, minlength=m).astype(np.float64)
        all_ratio = float(paid.sum() / expected.sum())
        ratios = np.full(m, all_ratio)
        np.divide(np.bincount(self.chosen, paid, minlength=m), totals, out=ratios, where=totals > 0)
        own_weight = calls / (calls + _PRIOR_CALLS)
        corrections = own_weight * ratios + (1 - own_weight) * all_ratio
        return _Observed(paid, expected, totals, ratios, all_ratio, own_weight, corrections)

    def _influence(self, choices: Choices) -> Vector:
        """Return each request's part in the mean corrected cost: its own, and through the corrections."""
        usd = self.cost_usd[np.arange(len(choices)), choices]
        if not np.isfinite(usd).all():
            name = self.candidates[int(choices[~np.isfinite(usd)][0])]
            raise NotEnoughData(f"{name} would be chosen and has no known cost; give it a price")
        o = self._observed()
        share = np.bincount(choices, usd, minlength=len(self.candidates))
        # A correction is made of ratios of sums: a request moves that of its own candidate, and that of all.
        own = share * o.own_weight / np.where(o.totals > 0, o.totals, np.inf)
        of_all = float((share * (1 - o.own_weight)).sum() / o.totals.sum())
        moved = own[self.chosen] * (o.paid - o.ratios[self.chosen] * o.expected)
        moved += of_all * (o.paid - o.all_ratio * o.expected)
        influence: Vector = usd * o.corrections[choices] + moved
        return influence


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """Calls of known cost: what was paid and expected by request (0 elsewhere), and their ratios by candidate."""

    paid: Vector
    expected: Vector
    totals: Vector
    ratios: Vector
    all_ratio: float
    own_weight: Vector
    corrections: Vector


def read_replay(
    log: DecisionLog,
    *,
    on: str = "auto",
    bundle: str | None = None,
    since_unix_s: float | None = None,
    most_requests: int = MOST_REQUESTS,
) -> Replay:
    """Read what can be replayed.

    Parameters
    ----------
    log : DecisionLog
    on : str, default='auto'
        Which requests: ``auto`` (those of no scenario), ``auto:PRESET`` or ``scenario:NAME``.
    bundle : str, optional
        ``name@version`` whose predictions are replayed. Default: that of the newest request.
    since_unix_s : float, optional
        Earlier requests are left out.
    most_requests : int, default=MOST_REQUESTS
        The newest are kept.

    Returns
    -------
    Replay

    Raises
    ------
    NotEnoughData
        No request can be replayed.
    LogUnreadable
        As of :class:`training.decision_log.DecisionLog`.
    """
    kind, _, name = on.partition(":")
    of = ("scenario = ?", name) if kind == "scenario" else ("requested_model = ? AND scenario IS NULL", on)
    where, parameters = f"({of[0]}) AND time_unix_s >= ?", [of[1], since_unix_s or 0.0]
    decided = f"{where} AND {_DECIDED} AND outlook IS NOT NULL AND chosen IS NOT NULL AND propensity > 0"
    (n_all,) = log.query(f"SELECT count(*) AS n FROM requests WHERE {where}", parameters)["n"]
    if bundle is None:
        newest = log.query(f"SELECT arg_max(bundle, time_unix_s) AS b FROM requests WHERE {decided}", parameters)["b"]
        bundle = None if newest.isna()[0] else str(newest[0])
    kept = f"{decided} AND bundle = ? ORDER BY time_unix_s DESC, id LIMIT {int(most_requests)}"
    parameters = [*parameters, bundle]
    frame = log.query(f"SELECT {', '.join(_COLUMNS)} FROM requests WHERE {kept}", parameters)
    if frame.empty:
        raise NotEnoughData(
            f"{log.path}: of {n_all:,} requests on {on} since then, none was decided by a policy of "
            f"{bundle or 'any bundle'} and logged with what was predicted"
        )
    foreseen = log.query(
        "SELECT r.id, o.candidate, o.excluded_by, o.quality, o.cost_usd FROM "
        f"(SELECT id, unnest(outlook) AS o FROM (SELECT id, outlook FROM requests WHERE {kept})) AS r",
        parameters,
    )
    return _assembled(frame, foreseen, bundle or "", int(n_all) - len(frame))


def _assembled(frame: pd.DataFrame, foreseen: pd.DataFrame, bundle: str, n_left_out: int) -> Replay:
    import pandas as pd

    names = tuple(sorted(set(foreseen["candidate"])))
    column = {name: j for j, name in enumerate(names)}
    ids = frame["id"].to_numpy(dtype=str)
    at = (pd.Index(ids).get_indexer(foreseen["id"]), foreseen["candidate"].map(column).to_numpy(dtype=np.intp))
    shape = (len(ids), len(names))
    quality, cost, allowed = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    quality[at] = foreseen["quality"].to_numpy(dtype=float)
    cost[at] = foreseen["cost_usd"].to_numpy(dtype=float)
    allowed[at] = foreseen["excluded_by"].isna().to_numpy() & np.isfinite(quality[at])
    chosen = frame["chosen"].map(column)
    known = chosen.notna().to_numpy() & allowed.any(axis=1)
    chosen_at = chosen.fillna(0).to_numpy(dtype=np.intp)
    known &= allowed[np.arange(len(ids)), chosen_at]
    if not known.any():
        raise NotEnoughData("no logged choice is among the candidates that were predicted to be able to answer")
    is_own = (frame["candidate"] == frame["chosen"]) & (frame["outcome"] == "ok")
    is_own &= ~frame["is_usage_estimated"].fillna(False).astype(bool)
    paid = np.where(is_own, frame["cost_usd"].to_numpy(dtype=float), np.nan)
    agreement = _agreement(frame[known], quality[known], cost[known], allowed[known], chosen_at[known])
    return Replay(
        candidates=names,
        bundle=bundle,
        ids=ids[known],
        keys=frame["key"].to_numpy(dtype=str)[known],
        quality=quality[known],
        cost_usd=cost[known],
        allowed=allowed[known],
        chosen=chosen_at[known],
        propensity=frame["propensity"].to_numpy(dtype=float)[known],
        paid_usd=paid[known],
        n_left_out=n_left_out + int((~known).sum()),
        agreement=agreement,
        is_open=_open(frame, names, allowed & np.isfinite(cost), known),
    )


def _open(
    frame: pd.DataFrame, names: tuple[str, ...], payable: NDArray[np.bool_], known: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    said = frame["explorable"].fillna("").to_numpy(dtype=str)
    texts, which = np.unique(said, return_inverse=True)
    if not any(texts):
        return None
    among = np.array([[name in text.split(",") for name in names] for text in texts])[which]
    is_open: NDArray[np.bool_] = ((among | ~payable).all(axis=1) | (payable.sum(axis=1) == 1))[known]
    return is_open


def _agreement(
    frame: pd.DataFrame, quality: Matrix, cost: Matrix, allowed: NDArray[np.bool_], chosen: Choices
) -> float | None:
    is_explored = frame["is_explored"].fillna(False).astype(bool).to_numpy()
    same, seen = 0, 0
    kinds, values = frame["policy_kind"].to_numpy(), frame["policy_value"].to_numpy(dtype=float)
    for kind, value in {(k, v) for k, v in zip(kinds, values, strict=True) if k in KINDS and k != _LATENCY}:
        rows = np.flatnonzero((kinds == kind) & (values == value) & ~is_explored)
        if kind == "fall_below_usd" or not len(rows):  # measured from an anchor, which the log does not name
            continue
        again = _choices(quality[rows], cost[rows], allowed[rows], Policy(kind, float(value)))
        same, seen = same + int((again == chosen[rows]).sum()), seen + len(rows)
    return same / seen if seen else None


def _choices(quality: Matrix, cost: Matrix, allowed: NDArray[np.bool_], policy: Policy) -> Choices:
    parts = [
        choose(quality[rows], cost[rows], policy, allowed=allowed[rows]) for rows in _slices(len(quality), _AT_ONCE)
    ]
    return np.concatenate(parts)


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))
