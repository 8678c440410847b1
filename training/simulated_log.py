"""A decision log of known truth, SIMULATED: for tests and notebooks, in the layout of ``turnout log export``.

Prompts and truth are those of the project's own sample (:mod:`routing_data.sample`). Requests are decided by the
router's own policy code on what is predicted, with exploration of known propensity; votes are drawn from the true
quality of whoever answered. What changes half-way, and an experiment's arms, can be asked for. Equal arguments give
equal rows. Entry point: :func:`simulate`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from router.domain import Policy
from router.policy import choose
from routing_data.sample import Sample
from training.simulated_world import Shift, columns_of, shifted

Matrix = NDArray[np.float64]

DAY_S = 86_400
START_UNIX_S = 1_793_750_400.0
"""2026-11-04, midnight."""
POLICY = Policy("willingness_to_pay_usd", 0.05, "balanced")
KEYS = tuple(f"team-{i}" for i in range(8))

_FAILED_OVER = 0.02
_OUTPUT_TOKENS = 100.0
_OUTLOOK = pa.list_(
    pa.struct(
        [("candidate", pa.string()), ("excluded_by", pa.string())]
        + [(name, pa.float64()) for name in ("quality", "quality_low", "quality_high", "output_tokens", "cost_usd")]
    )
)
_ARROW = {"outlook": _OUTLOOK, "tags": pa.list_(pa.string()), "features": pa.list_(pa.float32())}


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm of the simulated experiment: users come to it with a probability, and its policy decides."""

    name: str
    share: float
    policy: Policy = POLICY


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedLog:
    """What was written, and what is true of it.

    Parameters
    ----------
    path : Path
        The log's folder.
    requests, feedback, retained : pandas.DataFrame
        Its tables.
    truth : pandas.DataFrame
        True quality: a row per request id, a column per candidate.
    """

    path: Path
    requests: pd.DataFrame
    feedback: pd.DataFrame
    retained: pd.DataFrame
    truth: pd.DataFrame


def write_tables(path: Path, **tables: pd.DataFrame) -> Path:
    """Write tables as an exported log, after what is there.

    Parameters
    ----------
    path : Path
        Made if need be.
    **tables : pandas.DataFrame
        ``requests``, ``feedback``, ``retained``; a row's UTC day is that of its ``time_unix_s``.

    Returns
    -------
    Path
        The same.
    """
    for name, frame in tables.items():
        days = pd.to_datetime(frame["time_unix_s"], unit="s").dt.strftime("%Y-%m-%d")
        fields = [
            (column, _ARROW[column]) if column in _ARROW else pa.field(column, pa.Array.from_pandas(frame[column]).type)
            for column in frame.columns
        ]
        for day, part in frame.groupby(days):
            folder = path / name / f"day={day}"
            folder.mkdir(parents=True, exist_ok=True)
            n_files = len(list(folder.iterdir()))
            table = pa.Table.from_pandas(part, schema=pa.schema(fields), preserve_index=False)
            pq.write_table(table, folder / f"part-{n_files}.parquet")
    return path


def simulate(
    path: Path,
    sample: Sample,
    *,
    n_requests: int = 2000,
    n_days: int = 4,
    keys: Sequence[str] = KEYS,
    vote_share: float = 0.6,
    explored: float = 0.2,
    level: str = "content",
    scenario: str | None = None,
    seed: int = 0,
    policy: Policy = POLICY,
    predicted: Matrix | None = None,
    bundle: str = "sample@1",
    shifts: Iterable[Shift] = (),
    late_task: str | None = None,
    grudges: Mapping[str, str] = MappingProxyType({}),
    arms: Sequence[Arm] = (),
    n_users: int = 400,
) -> SimulatedLog:
    """Make a log and write it.

    A vote is a Bernoulli draw of the true quality of the candidate that answered; 2 % of requests fail over, so that
    ``candidate`` is not ``chosen``.

    Parameters
    ----------
    path : Path
        Of the log; what is there stays.
    sample : Sample
        Prompts, which come again and again, and the truth.
    n_requests, n_days : int
    keys : sequence of str
        Who asks and votes, each as often; more often who is named again.
    vote_share : float in [0, 1]
        Of requests.
    explored : float in [0, 1]
        Share of requests whose candidate is drawn evenly.
    level : {'none', 'features', 'content'}
        What is retained. At ``features`` no feature row is made up: only the task.
    scenario : str, optional
        Default: none, the requests are for ``auto``.
    seed : int
    policy : Policy
        Decides, but for an experiment.
    predicted : ndarray of shape (n_prompts, m), optional
        Quality by the sample's prompts and its candidates by name, as of
        :func:`training.simulated_world.columns_of`. Default: the truth with
        noise of 0.1, so that who is chosen is predicted too well.
    bundle : str
        ``name@version`` whose predictions these are.
    shifts : iterable of Shift
    late_task : str, optional
        Is asked after half of the requests only, and predicted with the interval [0, 1] of what is unfamiliar.
    grudges : Mapping of str to str
        A key's votes on that candidate are always 0.
    arms : sequence of Arm
        Those of an experiment named ``trial`` over all requests, assigned by user.
    n_users : int
        Of the experiment, a few of them with most requests.

    Returns
    -------
    SimulatedLog
    """
    # The order of the draws is part of what equal seeds mean; what is optional has a stream of its own.
    rng, more = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    names = columns_of(sample)
    m, every = len(names), np.arange(n_requests)
    prompts = sample.table
    tasks = np.asarray(prompts.tasks)
    row = rng.integers(len(tasks), size=n_requests)
    if late_task is not None:
        early = np.flatnonzero((tasks[row] == late_task) & (every < n_requests // 2))
        row[early] = more.choice(np.flatnonzero(tasks != late_task), len(early))
    ids = np.asarray(prompts.prompt_ids)[row]
    quality, cost = (
        sample.truth.pivot(index="prompt_id", columns="candidate", values=value).loc[ids, list(names)].to_numpy()
        for value in ("probability", "expected_cost_usd")
    )
    said = np.clip(quality + rng.normal(0, 0.1, quality.shape), 0.01, 0.99) if predicted is None else predicted[row]
    arm, user = _assigned(arms, n_requests, n_users, more)
    best = _best(said, cost, policy, arms, arm)
    propensities = np.full((n_requests, m), explored / m)
    propensities[every, best] += 1 - explored
    chosen = _drawn(propensities, rng)
    answered = np.where(rng.random(n_requests) < _FAILED_OVER, (chosen + 1) % m, chosen)
    time_unix_s = np.sort(START_UNIX_S + rng.random(n_requests) * n_days * DAY_S)
    true, length = shifted(quality, names, tasks[row], shifts)
    by, spread = rng.choice(list(keys), n_requests), rng.lognormal(0, 0.2, n_requests)
    total_s = rng.lognormal(0, 0.4, n_requests)
    request_ids = [f"req-{seed}-{i:06d}" for i in every]
    own, dearest = length[every, answered], int(cost.mean(axis=0).argmax())
    requests = pd.DataFrame(
        {
            "id": request_ids,
            "time_unix_s": time_unix_s,
            "key": by,
            "requested_model": "auto",
            "status": 200,
            "outcome": "ok",
            "is_stream": False,
            "candidate": [names[j] for j in answered],
            "chosen": [names[j] for j in chosen],
            "deployment": [f"{names[j]}@emulated" for j in answered],
            "scenario": scenario,
            "binding": policy.kind,
            "policy_kind": policy.kind,
            "policy_value": policy.value,
            "policy_name": policy.name,
            "policy_version": "0123456789ab",
            "propensity": propensities[every, chosen],
            "is_explored": chosen != best,
            "bundle": bundle,
            "predicted_quality": said[every, chosen],
            "expected_cost_usd": cost[every, chosen],
            "input_tokens": 40,
            "output_tokens": np.round(_OUTPUT_TOKENS * own).astype(int),
            "cost_usd": cost[every, answered] * own * spread,
            "total_s": total_s,
            "reference": names[dearest],
            "reference_cost_usd": cost[:, dearest],
            "retention": level,
            "task": tasks[row] if level != "none" else None,
            "is_emulated": True,
            "outlook": _outlook(names, said, cost, tasks[row] == late_task),
        }
    )
    if arms:
        own_policy = [arms[i].policy for i in arm]
        requests["policy_kind"] = requests["binding"] = [each.kind for each in own_policy]
        requests["policy_value"] = [each.value for each in own_policy]
        requests["experiment"] = "trial"
        requests["arm"] = [arms[i].name for i in arm]
        requests["arm_share"] = [arms[i].share for i in arm]
        requests["unit"] = user
    rated = true[every, answered]
    for key, candidate in grudges.items():
        rated[(by == key) & (answered == names.index(candidate))] = 0.0
    voted = np.flatnonzero(rng.random(n_requests) < vote_share)
    feedback = pd.DataFrame(
        {
            "request_id": [request_ids[i] for i in voted],
            "key": by[voted],
            "source": "vote",
            "kind": "correct",
            "score": (rng.random(len(voted)) < rated[voted]).astype(float),
            "grader": None,
            "tags": [[] for _ in voted],
            "time_unix_s": time_unix_s[voted] + rng.exponential(600, len(voted)),
        }
    )
    retained = pd.DataFrame(
        {
            "request_id": request_ids,
            "time_unix_s": time_unix_s,
            "level": level,
            "prompt": np.asarray(prompts.prompts, dtype=object)[row] if level == "content" else None,
            "encoder": None,
            "features": None,
            "task": tasks[row],
            "task_probability": 0.9,
        }
    )
    retained = retained if level != "none" else retained.iloc[:0]
    kept = {} if retained.empty else {"retained": retained}
    write_tables(path, requests=requests, feedback=feedback, **kept)
    return SimulatedLog(path, requests, feedback, retained, pd.DataFrame(true, columns=list(names), index=request_ids))


def _assigned(
    arms: Sequence[Arm], n_requests: int, n_users: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], list[str]]:
    """Draw each request's user and return their arms and digests; some users ask far more often than others."""
    if not arms:
        return np.zeros(n_requests, dtype=np.intp), []
    habit = rng.lognormal(0, 1, n_users)
    user = rng.choice(n_users, n_requests, p=habit / habit.sum())
    arm = rng.choice(len(arms), n_users, p=[own.share for own in arms])
    digests = [hashlib.sha256(f"user {i}".encode()).hexdigest()[:16] for i in range(n_users)]
    return arm[user].astype(np.intp), [digests[i] for i in user]


def _best(said: Matrix, cost: Matrix, policy: Policy, arms: Sequence[Arm], arm: NDArray[np.intp]) -> NDArray[np.intp]:
    if not arms:
        return choose(said, cost, policy)
    each = np.stack([choose(said, cost, own.policy) for own in arms])
    best: NDArray[np.intp] = each[arm, np.arange(len(said))]
    return best


def _drawn(propensities: Matrix, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw a column of each row."""
    cumulative = propensities.cumsum(axis=1)
    drawn: NDArray[np.intp] = (cumulative / cumulative[:, -1:] <= rng.random(len(propensities))[:, None]).sum(axis=1)
    return drawn


def _outlook(
    names: Sequence[str], said: Matrix, cost: Matrix, is_unfamiliar: NDArray[np.bool_]
) -> list[list[dict[str, object]]]:
    low = np.where(is_unfamiliar[:, None], 0.0, np.maximum(said - 0.1, 0.0))
    high = np.where(is_unfamiliar[:, None], 1.0, np.minimum(said + 0.1, 1.0))
    return [
        [
            {
                "candidate": name,
                "excluded_by": None,
                "quality": said[i, j],
                "quality_low": low[i, j],
                "quality_high": high[i, j],
                "output_tokens": _OUTPUT_TOKENS,
                "cost_usd": cost[i, j],
            }
            for j, name in enumerate(names)
        ]
        for i in range(len(said))
    ]
