"""What a run came to: a row per candidate, and how far the judge can be trusted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.labelling.agreement import Estimate, kappa, share
from training.labelling.call import Answer
from training.labelling.label import Label

#: A graded quality above this counts as good, where a judge and a grader are compared.
GOOD_ABOVE = 0.5


@dataclass(frozen=True, slots=True)
class CandidateSummary:
    """One candidate.

    Parameters
    ----------
    name : str
    quality : Estimate
        Mean over its labels.
    cost_usd : float or None
        Mean of the calls of known cost.
    n_truncated : int
        Answers that the limit on output cut off.
    unobserved : tuple of (str, int)
        Why there is no label, and how often; most frequent first.
    """

    name: str
    quality: Estimate
    cost_usd: float | None
    n_truncated: int
    unobserved: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class JudgeSummary:
    """The judge.

    Parameters
    ----------
    name : str
    consistency : Estimate
        Share of pairs judged alike in both orders.
    preference_for_first : Estimate
        Of the others, the share in which the first place won; 0.5 is no preference.
    kappa : Estimate
        Cohen's, with the other graders, over answers that both graded; good is above 0.5.
    n_unread : int
        Answers that it was to grade and did not.
    is_candidate : bool
        It grades answers of its own.
    """

    name: str
    consistency: Estimate
    preference_for_first: Estimate
    kappa: Estimate
    n_unread: int
    is_candidate: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole run.

    Parameters
    ----------
    candidates : tuple of CandidateSummary
        By name.
    judge : JudgeSummary or None
    n_asked, n_cached : int
        Calls made now, and answers that were there.
    spent_usd, overrun_usd : float
        Of the folder in all, and by how much calls cost more than their worst.
    is_budget_reached, is_simulated : bool
    protections : str
        What held around tested programs; "" where none ran.
    """

    candidates: tuple[CandidateSummary, ...]
    judge: JudgeSummary | None
    n_asked: int
    n_cached: int
    spent_usd: float
    overrun_usd: float
    is_budget_reached: bool
    is_simulated: bool
    protections: str

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it: what is not a number is null."""
        cleaned = _clean(asdict(self))
        assert isinstance(cleaned, dict)
        return cleaned


def candidate_summaries(labels: Sequence[Label]) -> tuple[CandidateSummary, ...]:
    """Summarise labels by candidate."""
    names = sorted({label.candidate for label in labels})
    return tuple(_candidate(name, [label for label in labels if label.candidate == name]) for name in names)


def judge_kappa(labels: Sequence[Label]) -> Estimate:
    """Compare the judge with the other graders, where both graded an answer."""
    both = [
        (label.grade.quality > GOOD_ABOVE, label.judged.quality > GOOD_ABOVE)
        for label in labels
        if label.grade is not None and label.grade.quality is not None
        if label.judged is not None and label.judged.quality is not None
    ]
    return kappa(both)


def _candidate(name: str, labels: Sequence[Label]) -> CandidateSummary:
    answers = [label.answer for label in labels if isinstance(label.answer, Answer)]
    costs = [answer.cost_usd for answer in answers if answer.cost_usd is not None]
    reasons = Counter(why for label in labels if (why := label.unobserved) is not None)
    return CandidateSummary(
        name=name,
        quality=share([label.quality for label in labels if label.quality is not None]),
        cost_usd=math.fsum(costs) / len(costs) if costs else None,
        n_truncated=sum(answer.is_truncated for answer in answers),
        unobserved=tuple(reasons.most_common()),
    )


def _clean(value: object) -> object:
    if isinstance(value, dict):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
