"""What a run of labelling is told, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How to label.

    Parameters
    ----------
    out : Path
        The table's folder; its answers are kept there too.
    max_usd : float
        The folder's calls may cost so much in all, those of earlier runs included.
    candidates : tuple of str
        Globs on names; empty takes every candidate of the gateway.
    grader : str or None
        For rows that name none.
    judge : str or None
        The candidate that judges.
    judge_reference : str or None
        The candidate whose answers a judge compares with, where a row brings none.
    n_judge_checks : int
        So many answers with another grader are judged too, to see how far the judge can be trusted.
    similarity : str
        A method of :class:`~training.labelling.graders.similarity.Similarity`.
    max_output_tokens : int
        Of each answer.
    temperature : float or None
        Sent to candidates; None leaves it to them, as their users do.
    n_at_once : int
        Calls under way.
    n_tries : int
        Of a call that fails for a while.
    retry_wait_s : float
        Before the second try, doubled for each further one, where the gateway does not say.
    timeout_s : float
        Of one call.
    code_timeout_s : float
        Of one program and its tests.
    name : str
        Of the data, in ``source.json``; "" is the folder's.
    """

    out: Path
    max_usd: float
    candidates: tuple[str, ...] = ()
    grader: str | None = None
    judge: str | None = None
    judge_reference: str | None = None
    n_judge_checks: int = 50
    similarity: str = "chrf"
    max_output_tokens: int = 1024
    temperature: float | None = None
    n_at_once: int = 8
    n_tries: int = 3
    retry_wait_s: float = 1.0
    timeout_s: float = 300.0
    code_timeout_s: float = 10.0
    name: str = ""
