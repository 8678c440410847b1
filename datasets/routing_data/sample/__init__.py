"""The sample this project made itself: prompts from templates, outcomes SIMULATED from a known law.

It lets training run on a fresh machine and lets tests compare predictions with the truth. It says
nothing about any real LLM. Equal arguments give equal rows on every machine.

Entry point: ``generate``, and ``write_sample`` for the files.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pandas as pd

from routing_data.frames import to_table
from routing_data.sample import quantities, reasoning, words, world
from routing_data.sample.instance import Instance, Kind
from routing_data.table import OutcomeTable, Source
from routing_data.writer import write, write_parquet

SEED, N_PROMPTS = 2026, 2_000
"""What the committed sample was generated with."""

KINDS: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        quantities.arithmetic,
        quantities.unit_conversion,
        quantities.date_arithmetic,
        quantities.geometry,
        quantities.probability,
        words.string_manipulation,
        words.number_words,
        words.sorting,
        words.letter_counting,
        reasoning.logic_puzzle,
        reasoning.table_lookup,
        reasoning.code_tracing,
    )
}
"""Every kind of problem, by its task name."""

_MISSING, _DISTRACTED, _PARAPHRASED = 0.05, 0.25, 0.4
_DISTRACTORS = (
    "By the way, it has been raining here since the morning.",
    "My neighbour, who is 47, asked me the same thing last week.",
    "I read this in a book with 312 pages.",
    "Please keep in mind that the meeting starts at 9:30.",
    "The bus to the harbour leaves every 12 minutes.",
    "This is not urgent, I am only curious.",
    "There are three other questions after this one.",
    "A friend told me that the answer surprised everybody.",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold the sample and what is true about it.

    Parameters
    ----------
    table : OutcomeTable
        Prompts and simulated outcomes, 5 % of them missing.
    truth : DataFrame
        Per ``prompt_id`` and ``candidate``: ``probability`` of quality 1, ``expected_cost_usd``.
    answers : DataFrame
        Per ``prompt_id``: the right ``answer``, and the ``level``, 1 to 5.
    """

    table: OutcomeTable
    truth: pd.DataFrame
    answers: pd.DataFrame


@dataclass(frozen=True, slots=True)
class _Drawn:
    task: str
    level: int
    group: str
    text: str
    answer: str
    hardness: float


def generate(seed: int = SEED, n_prompts: int = N_PROMPTS) -> Sample:
    """Make the sample.

    Parameters
    ----------
    seed : int
        Another seed is another sample.
    n_prompts : int
        How many prompts, >= 1.

    Returns
    -------
    Sample
        Tasks and levels equally frequent, texts unique; wordings of one problem share a group.
    """
    # random.Random and not numpy: its stream is the same in every version.
    rng = Random(seed)
    prompts: list[dict[str, str]] = []
    outcomes: list[dict[str, str | float]] = []
    truth: list[dict[str, str | float]] = []
    answers: list[dict[str, str | int]] = []
    for number, drawn in zip(range(n_prompts), _draw(rng), strict=False):
        prompt_id = f"sample-{number:05d}"
        prompts.append({"prompt_id": prompt_id, "prompt": drawn.text, "task": drawn.task, "group": drawn.group})
        answers.append({"prompt_id": prompt_id, "answer": drawn.answer, "level": drawn.level})
        n_input = world.count_tokens(drawn.text)
        for candidate in world.CANDIDATES:
            chance = world.probability_right(candidate, drawn.task, drawn.hardness)
            mu, sigma = world.output_tokens_law(candidate, drawn.task, drawn.level)
            n_output = max(1, round(rng.lognormvariate(mu, sigma)))
            right, kept = rng.random() < chance, rng.random() >= _MISSING
            named = {"prompt_id": prompt_id, "candidate": candidate.name}
            expected = _cost_usd(candidate, n_input, math.exp(mu + sigma**2 / 2))
            truth.append({**named, "probability": chance, "expected_cost_usd": expected})
            if kept:
                cost = _cost_usd(candidate, n_input, n_output)
                seen = {"quality": float(right), "input_tokens": n_input, "output_tokens": n_output, "cost_usd": cost}
                outcomes.append({**named, **seen})
    origin = Source(
        name="checkable",
        path="checkable",
        sha256=hashlib.sha256(f"checkable {seed} {n_prompts}".encode()).hexdigest(),
        licence="Apache-2.0",
        attribution="made by the Turnout project; outcomes are simulated",
        simulated=True,
        n_prompts=n_prompts,
    )
    table = to_table(pd.DataFrame(prompts), pd.DataFrame(outcomes), origin)
    return Sample(table, pd.DataFrame(truth), pd.DataFrame(answers))


def write_sample(folder: str | os.PathLike[str], seed: int = SEED, n_prompts: int = N_PROMPTS) -> Path:
    """Generate the sample and write its files.

    Parameters
    ----------
    folder : path
        Where to; made if need be. Gets the folder form and ``truth.parquet``, ``answers.parquet``.
    seed : int
        Another seed is another sample.
    n_prompts : int
        How many prompts, >= 1.

    Returns
    -------
    Path
        The folder.
    """
    sample = generate(seed, n_prompts)
    place = write(sample.table, folder)
    write_parquet(sample.truth, place / "truth.parquet")
    write_parquet(sample.answers, place / "answers.parquet")
    return place


def _draw(rng: Random) -> Iterator[_Drawn]:
    """Yield prompts for ever: kinds and levels in turn, wordings of one problem together."""
    seen: set[str] = set()
    turn = 0
    while True:
        for level in range(1, 6):
            for task, kind in KINDS.items():
                turn += 1
                instance = _fresh(rng, kind, level, seen)
                hidden = rng.gauss(0.0, 0.3)
                chosen = rng.sample(instance.wordings, 2 if rng.random() < _PARAPHRASED else 1)
                for wording in chosen:
                    distracted = rng.random() < _DISTRACTED
                    text = _distract(rng, wording) if distracted else wording
                    hardness = world.difficulty(task, level, distracted, hidden)
                    yield _Drawn(task, level, f"problem-{turn:05d}", text, instance.answer, hardness)


def _fresh(rng: Random, kind: Kind, level: int, seen: set[str]) -> Instance:
    """Draw until the problem is new: its first wording stands for all of them."""
    while True:
        instance = kind(rng, level)
        if instance.wordings[0] not in seen:
            seen.add(instance.wordings[0])
            return instance


def _distract(rng: Random, wording: str) -> str:
    sentence = rng.choice(_DISTRACTORS)
    return f"{sentence} {wording}" if rng.random() < 0.5 else f"{wording}\n\n{sentence}"


def _cost_usd(candidate: world.SampleCandidate, n_input: int, n_output: float) -> float:
    return (n_input * candidate.input_price + n_output * candidate.output_price) / 1e6
