"""The world of the demo: questions whose true quality is known for every candidate, before and after a change.

Questions, candidates and the law of quality are those of the project's own sample (``routing_data.sample``): SIMULATED.
The change moves that law for some candidates and kinds of task, as a provider's silent update would. Whether an answer
is right is drawn once for each candidate, question and phase. Entry point: :func:`world_of`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from routing_data.sample import generate, world

CANDIDATES = tuple(candidate.name for candidate in world.CANDIDATES)
PHASES = ("before", "after")
#: What the change adds on the logistic scale: the second dearest forgets what it was bought for, the second cheapest
#: learns something new.
CHANGE: Mapping[str, Mapping[str, float]] = {
    "sample-medium": {"code_tracing": -3.5, "date_arithmetic": -3.5, "arithmetic": -2.5, "unit_conversion": -2.0},
    "sample-small": {"geometry": 2.5, "probability": 2.5, "logic_puzzle": 2.5, "code_tracing": 1.5},
}


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """n questions and what m candidates are worth on them.

    Parameters
    ----------
    texts, answers, tasks, groups : sequences of n str
    quality : mapping of str to ndarray of shape (n, m)
        By phase: the true probability of a right answer.
    cost_usd : ndarray of shape (n, m)
        True expected cost of a call.
    output_tokens : ndarray of shape (n, m)
        What a call writes.
    """

    texts: Sequence[str]
    answers: Sequence[str]
    tasks: Sequence[str]
    groups: Sequence[str]
    quality: Mapping[str, NDArray[np.float64]]
    cost_usd: NDArray[np.float64]
    output_tokens: NDArray[np.intp]

    def is_right(self, phase: str, i: int, j: int) -> bool:
        """Say whether candidate j answers question i right in a phase; always the same."""
        drawn = blake2b(f"{phase}/{CANDIDATES[j]}/{self.texts[i]}".encode(), digest_size=8).digest()
        return bool(int.from_bytes(drawn) / 2**64 < self.quality[phase][i, j])


def world_of(n: int, seed: int) -> World:
    """Make a world of n questions."""
    sample = generate(seed, n)
    names = list(CANDIDATES)
    truth = sample.truth.pivot(index="prompt_id", columns="candidate")
    before = truth["probability"][names].to_numpy()
    cost = truth["expected_cost_usd"][names].to_numpy()
    tasks, texts = sample.table.tasks, sample.table.prompts
    moved = np.array([[CHANGE.get(name, {}).get(task, 0.0) for name in names] for task in tasks])
    span = world.CEILING - world.FLOOR
    share = (before - world.FLOOR) / span
    after = world.FLOOR + span / (1 + np.exp(-(np.log(share / (1 - share)) + moved)))
    prices = np.array([(c.input_price, c.output_price) for c in world.CANDIDATES])
    n_input = np.array([world.count_tokens(text) for text in texts])
    written = np.maximum(1, np.rint((cost * 1e6 - n_input[:, None] * prices[:, 0]) / prices[:, 1])).astype(int)
    answers = dict(zip(sample.answers["prompt_id"], sample.answers["answer"], strict=True))
    return World(
        texts,
        [str(answers[prompt_id]) for prompt_id in sample.table.prompt_ids],
        tasks,
        sample.table.groups,
        {"before": before, "after": after},
        (n_input[:, None] * prices[:, 0] + written * prices[:, 1]) / 1e6,
        written,
    )


def regret(
    world: World, phase: str, rows: NDArray[np.intp], chosen: NDArray[np.intp], worth_usd: float
) -> dict[str, float]:
    """Return mean true quality and cost of some choices, and how far they are from the best there is.

    Parameters
    ----------
    rows, chosen : ndarray of shape (k,)
        Questions, and who answered them.
    worth_usd : float
        What a whole unit of quality is worth; utility = worth · quality − cost.

    Returns
    -------
    dict
        ``quality``, ``usd_per_1000``, of both with ``oracle_``, ``regret_usd_per_1000`` and ``regret_share``: divided
        by the regret of a random choice. The oracle knows every probability, not the luck.
    """
    quality, cost = world.quality[phase][rows], world.cost_usd[rows]
    utility = worth_usd * quality - cost
    best, pick = utility.argmax(axis=1), np.arange(len(rows))
    own, ideal, random = utility[pick, chosen].mean(), utility[pick, best].mean(), utility.mean()
    return {
        "n": len(rows),
        "quality": float(quality[pick, chosen].mean()),
        "usd_per_1000": float(1000 * cost[pick, chosen].mean()),
        "oracle_quality": float(quality[pick, best].mean()),
        "oracle_usd_per_1000": float(1000 * cost[pick, best].mean()),
        "regret_usd_per_1000": float(1000 * (ideal - own)),
        "regret_share": float((ideal - own) / max(ideal - random, 1e-12)),
        "quality_ci": float(1.96 * quality[pick, chosen].std() / math.sqrt(len(rows))),
    }
