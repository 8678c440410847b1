"""From a decision log's votes to weighted observations: who answered, how good it was, for how much that counts.

A vote is about the candidate that answered. Where that is the one the policy chose, with a known probability, it
counts by the inverse of that probability, clipped and scaled to a mean of 1: an answer rarely tried speaks for the
many prompts where it was not. After a failover, or where no probability is known, it counts 1, since nothing says how
likely the observation was. Then keys are believed and capped (:mod:`training.influence`). What is dropped is counted.
Entry point: :func:`votes_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.decision_log import DecisionLog
from training.influence import capped, trust
from training.retrain_settings import FeedbackSettings

Mask = NDArray[np.bool_]

_DAY_S = 86_400.0
#: The last word of each key and source on each request, with the request where there is one.
_JOINED = """
SELECT f.request_id, f.key, f.score, f.time_unix_s AS voted_unix_s, coalesce(f.source, 'vote') AS source,
       r.id, r.time_unix_s, r.candidate, r.chosen, r.propensity, r.predicted_quality,
       r.input_tokens, r.output_tokens, r.cost_usd, coalesce(r.is_usage_estimated, false) AS is_estimated,
       coalesce(r.is_emulated, false) AS is_emulated
FROM (
    SELECT * FROM feedback
    QUALIFY row_number() OVER (PARTITION BY request_id, key, coalesce(source, 'vote') ORDER BY time_unix_s DESC) = 1
) f
LEFT JOIN requests r ON r.id = f.request_id
WHERE f.time_unix_s >= ?
ORDER BY f.time_unix_s, f.request_id, f.key, 5
"""


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """What was said of answers.

    Parameters
    ----------
    frame : pandas.DataFrame
        A row per request: ``request_id, time_unix_s, candidate, score`` (mean of its votes, in [0, 1]), ``weight``
        (above 0), ``input_tokens, output_tokens, cost_usd`` (NaN where unknown or estimated), ``is_emulated``.
    counts : Mapping of str to int
        What was used, and what was dropped for which reason.
    keys : pandas.DataFrame
        A row per key: ``key, n_votes, trust, cap, share`` (of the weight of what is used, in the end).
    until_unix_s : float or None
        Time of the newest vote there is, used or not.
    """

    frame: pd.DataFrame
    counts: Mapping[str, int]
    keys: pd.DataFrame
    until_unix_s: float | None


def votes_of(
    log: DecisionLog, settings: FeedbackSettings, since_unix_s: float = 0.0, among: Collection[str] | None = None
) -> Votes:
    """Read the votes of a log and weigh them.

    Parameters
    ----------
    log : DecisionLog
    settings : FeedbackSettings
    since_unix_s : float, default=0
        Earlier votes are left out.
    among : collection of str, optional
        Requests whose votes will be used. Weights are scaled and capped over these, so that no key has more than its
        share of what is used; the others help to tell whom to believe. Default: all.

    Returns
    -------
    Votes

    Raises
    ------
    LogUnreadable
        See :class:`training.decision_log.DecisionLog`.
    NotEnoughData
        ``is_strict``, and too few keys.
    """
    found = log.query(_JOINED, [since_unix_s])
    n_all = int(log.query("SELECT count(*) AS n FROM feedback WHERE time_unix_s >= ?", [since_unix_s])["n"][0])
    counts = {"n_votes": len(found), "n_replaced": n_all - len(found)}
    until = None if found.empty else float(found["voted_unix_s"].max())

    def dropping(frame: pd.DataFrame, name: str, wrong: pd.Series) -> pd.DataFrame:
        counts[name] = int(wrong.sum())
        return frame[~wrong.to_numpy(dtype=bool)]

    votes = dropping(found, "n_unknown_id", found["id"].isna())
    votes = dropping(votes, "n_late", votes["voted_unix_s"] > votes["time_unix_s"] + settings.window_days * _DAY_S)
    votes = dropping(votes, "n_without_answer", votes["candidate"].isna())
    votes = dropping(votes, "n_invalid", ~votes["score"].between(0, 1))
    is_signal = votes["source"] == "signal"
    unwanted = is_signal & (votes["request_id"].isin(votes.loc[~is_signal, "request_id"]) | (not settings.signals))
    votes = dropping(votes, "n_signals_unused", unwanted).copy()

    is_choice = votes["candidate"] == votes["chosen"]
    known = (is_choice & (votes["propensity"] > 0) & (votes["propensity"] <= 1)).to_numpy(dtype=bool)
    counts["n_failed_over"] = int((~is_choice & votes["chosen"].notna()).sum())
    counts["n_without_propensity"] = int((~known).sum())
    inverse = np.ones(len(votes))
    inverse[known] = 1 / votes["propensity"].to_numpy(dtype=np.float64)[known]
    counts["n_clipped"] = int((inverse > settings.clip).sum())
    inverse = np.minimum(inverse, settings.clip)
    is_used = np.ones(len(votes), bool) if among is None else votes["request_id"].isin(among).to_numpy(dtype=bool)
    if (known & is_used).any():
        inverse[known] /= inverse[known & is_used].mean()
    votes["inverse"] = inverse * np.where(votes["source"] == "signal", settings.signal_weight, 1.0)

    votes, keys = _influence(votes, is_choice.to_numpy(dtype=bool), is_used, settings)
    votes = votes[votes["weight"] > 0]
    counts["n_weighed"] = len(votes)
    return Votes(_by_request(votes, settings.weight), counts, keys, until)


def _influence(
    votes: pd.DataFrame, is_choice: Mask, is_used: Mask, settings: FeedbackSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Weigh each vote by what its key may say; return also a row per key."""
    keys = votes["key"].astype(str).tolist()
    predicted = np.where(is_choice, votes["predicted_quality"].to_numpy(dtype=np.float64), np.nan)
    is_vote = (votes["source"] != "signal").to_numpy(dtype=bool)
    predicted[~is_vote] = np.nan  # a signal tells of trouble only, so it always disagrees
    believed = trust(
        votes["score"].to_numpy(np.float64), predicted, keys, votes["candidate"].tolist(), settings.tolerance
    )
    believed |= dict.fromkeys(settings.trusted, 1.0)
    weight = votes["inverse"].to_numpy(np.float64) * np.array([believed[key] for key in keys])
    is_capped = ~votes["key"].isin(settings.trusted).to_numpy(dtype=bool)
    is_capped &= is_used
    caps = dict.fromkeys(keys, 1.0) | capped(
        weight[is_capped],
        [k for k, c in zip(keys, is_capped, strict=True) if c],
        settings.share,
        is_strict=settings.is_strict,
    )
    votes = votes.assign(weight=weight * np.array([caps[key] for key in keys]))
    used = votes.assign(used=votes["weight"] * is_used).groupby("key", sort=True)
    of_key = used.agg(n_votes=("score", "size"), used=("used", "sum")).reset_index()
    of_key["trust"] = [believed[key] for key in of_key["key"]]
    of_key["cap"] = [caps[key] for key in of_key["key"]]
    of_key["share"] = of_key["used"] / max(float(of_key["used"].sum()), 1e-12)
    return votes, of_key[["key", "n_votes", "trust", "cap", "share"]]


def _by_request(votes: pd.DataFrame, weight: float) -> pd.DataFrame:
    """Return one row per request: the weighted mean score, the sum of weights (so that caps still hold)."""
    votes = votes.assign(weighted=votes["score"] * votes["weight"], weight=votes["weight"])
    grouped = votes.groupby("request_id", sort=False)
    frame = grouped.agg(
        time_unix_s=("time_unix_s", "first"),
        candidate=("candidate", "first"),
        weighted=("weighted", "sum"),
        weight=("weight", "sum"),
        input_tokens=("input_tokens", "first"),
        output_tokens=("output_tokens", "first"),
        cost_usd=("cost_usd", "first"),
        is_estimated=("is_estimated", "first"),
        is_emulated=("is_emulated", "first"),
    ).reset_index()
    frame["score"] = (frame["weighted"] / frame["weight"]).clip(0, 1)
    amounts = ["input_tokens", "output_tokens", "cost_usd"]
    frame[amounts] = frame[amounts].astype(np.float64)
    frame.loc[frame["is_estimated"].to_numpy(dtype=bool), amounts] = np.nan
    frame["weight"] *= weight
    return frame.drop(columns=["weighted", "is_estimated"])
