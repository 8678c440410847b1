"""What has drifted since a bundle began to serve: the candidates' quality, what calls cost, the prompts.

Rows of data say what is looked at (:data:`MEASURES`), each per candidate, per candidate and task, or for all requests.
Two things are asked of each: is it off, where something is expected of it (votes against predictions, cost against
expected cost), and has it changed, since when (:mod:`training.change_points`)? Something is shown when the bounds
exclude everything within the measure's tolerance.

Bounds hold together: over all measures, candidates, tasks and days, and every time one looks again from the same
first request on, the chance of anything shown that is not so is at most ``alpha``, once there are some 50 votes (each
family of rows has a quarter of it, each row of a family as much as another; asymptotically). Votes count as in
retraining: an answer rarely tried by its inverse propensity, keys by what they may say (:mod:`training.feedback`). That
all candidates are off by as much says more of the voters' scale than of the candidates. Entry points:
:func:`drift_of`, :func:`advice`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from router.sequences import Interval
from training.change_points import Change, Series, change, is_beyond, level
from training.decision_log import DecisionLog
from training.foreseen import Foreseen
from training.two_sample import Apart, tell_apart

ALPHA = 0.05
#: A classifier that tells early from late prompts apart by no more than this beyond one half has found little.
_APART_TOLERANCE = 0.05
#: Of what is retained, about so many rows are read; of them the distinct ones are told apart.
_MOST_READ = 20_000
_RETAINED = """
SELECT r.prompt, r.features, r.encoder FROM retained AS r JOIN requests AS q ON q.id = r.request_id
WHERE q.bundle = ? AND q.time_unix_s >= ? AND hash(r.request_id) % ? = 0
ORDER BY r.time_unix_s, r.request_id
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is looked at.

    Parameters
    ----------
    name, family : str
        Rows of one family share its part of ``alpha``.
    tolerance : float
        What is not worth a word.
    expected : float or None
        What it would be if predictions were right.
    origin : float
        Where its scale begins: totals are sums of what is at least 0.
    """

    name: str
    family: str
    tolerance: float
    expected: float | None = None
    origin: float = 0.0


QUALITY = Measure("quality", "quality", 0.05, expected=0.0, origin=-1.0)
QUALITY_BY_TASK = Measure("quality", "quality by task", 0.05, expected=0.0, origin=-1.0)
COST = Measure("cost", "calls", 0.1, expected=1.0)
LENGTH = Measure("output tokens", "calls", 0.1, expected=1.0)
TASK_SHARE = Measure("share of task", "prompts", 0.05)
UNFAMILIAR = Measure("unfamiliar", "prompts", 0.05)
INPUT = Measure("input tokens", "prompts", 0.2)
MEASURES = (QUALITY, QUALITY_BY_TASK, COST, LENGTH, TASK_SHARE, UNFAMILIAR, INPUT)
"""Quality: votes − predictions. Cost, output tokens: actual / expected. Input tokens: relative to their mean."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One row.

    Parameters
    ----------
    measure : Measure
    candidate, task : str or None
    n : int
        Requests it is about.
    level : Interval
        Over all of them.
    change : Change or None
        None where no boundary has enough on both sides.
    since : datetime or None
        When the change was, to the period.
    """

    measure: Measure
    candidate: str | None
    task: str | None
    n: int
    level: Interval
    change: Change | None
    since: datetime | None

    @property
    def is_off(self) -> bool:
        """Whether it is shown not to be what was expected."""
        expected = self.measure.expected
        return expected is not None and is_beyond(self.level, self.measure.tolerance, expected)

    @property
    def is_changed(self) -> bool:
        """Whether it is shown to have changed."""
        return self.change is not None and is_beyond(self.change.difference, self.measure.tolerance)


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """What was found of one bundle's requests.

    Parameters
    ----------
    seen : Foreseen
    alpha : float
    findings : tuple of Finding
        In the order of :data:`MEASURES`.
    apart : Apart or None
        Prompts of the first and of the second half of what was retained; None where too little was.
    """

    seen: Foreseen
    alpha: float
    findings: tuple[Finding, ...]
    apart: Apart | None

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The findings that are off or changed."""
        return tuple(finding for finding in self.findings if finding.is_off or finding.is_changed)

    @property
    def is_apart(self) -> bool:
        """Whether early and late prompts are plainly told apart."""
        return self.apart is not None and self.apart.low > 0.5 + _APART_TOLERANCE

    @property
    def is_shown(self) -> bool:
        """Whether anything drifts."""
        return bool(self.shown) or self.is_apart


def drift_of(seen: Foreseen, log: DecisionLog | None = None, alpha: float = ALPHA) -> Drift:
    """Look for drift.

    Parameters
    ----------
    seen : Foreseen
        See :func:`training.foreseen.foreseen`.
    log : DecisionLog, optional
        Where retained prompts are read; without it they are not looked at.
    alpha : float in (0, 1), default=0.05

    Returns
    -------
    Drift
    """
    cells = sorted(_cells(seen), key=lambda cell: MEASURES.index(cell.measure))
    families = [cell.measure.family for cell in cells]
    n_families = len({measure.family for measure in MEASURES})
    units = seen.units
    findings = []
    for cell in cells:
        own = alpha / n_families / families.count(cell.measure.family)
        own = own if cell.measure.expected is None else own / 2
        findings.append(_finding(cell, seen, units, own))
    return Drift(seen, alpha, tuple(findings), None if log is None else _apart(seen, log))


def advice(drift: Drift, log: str = "LOG") -> list[str]:
    """Return what to do about it, a sentence each; ``log`` is how to name the log in commands."""
    if not drift.is_shown:
        return ["no drift is shown"]
    said = []
    label, retrain = f"turnout label --log {log}", f"turnout retrain --log {log} --data LABELS …"
    judged = [finding for finding in drift.shown if finding.measure.name == QUALITY.name]
    names = {name: _names(drift, name) for name in (QUALITY.name, COST.name, LENGTH.name)}
    if _is_scale(drift):
        said.append(
            "votes on all candidates are off alike and steadily: that is the voters' scale, or the predictions'"
        )
    elif judged:
        globs = " ".join(f"--candidates {name}" for name in names[QUALITY.name])
        said.append(
            f"what is predicted of {', '.join(names[QUALITY.name])} does not hold: label again ({label} {globs} "
            f"--out LABELS --max-usd USD …), then {retrain}"
        )
    if names[LENGTH.name]:
        said.append(f"answers of {', '.join(names[LENGTH.name])} are not as long as predicted: {retrain}")
    if dearer := [name for name in names[COST.name] if name not in names[LENGTH.name]]:
        said.append(f"calls of {', '.join(dearer)} do not cost what was predicted at that length: look at their prices")
    if drift.is_apart or any(finding.measure.family == TASK_SHARE.family for finding in drift.shown):
        said.append(
            f"prompts are not what they were: label some of the new ones ({label} --out LABELS --max-usd USD …)"
        )
    return said


def _names(drift: Drift, measure: str) -> list[str]:
    return list(dict.fromkeys(str(each.candidate) for each in drift.shown if each.measure.name == measure))


def _is_scale(drift: Drift) -> bool:
    """Say whether every candidate is off, to the same side, and none has changed."""
    judged = [finding for finding in drift.findings if finding.measure is QUALITY]
    changed = any(each.is_changed for each in drift.findings if each.measure.name == QUALITY.name)
    sides = {float(np.sign(finding.level.value)) for finding in judged}
    return len(judged) > 1 and len(sides) == 1 and all(each.is_off for each in judged) and not changed


@dataclass(frozen=True, slots=True, eq=False)
class _Cell:
    """One row to be: which requests, and what is summed over them."""

    measure: Measure
    rows: pd.DataFrame
    y: pd.Series
    n: pd.Series
    candidate: str | None = None
    task: str | None = None
    variance: pd.Series | None = None


def _cells(seen: Foreseen) -> Iterator[_Cell]:
    """Yield the rows of the table to be."""
    rows = seen.rows
    one = pd.Series(1.0, index=rows.index)
    # Which rows there are hangs on requests, not on votes, so that alpha is divided alike at every look.
    candidates = sorted(rows["candidate"].dropna().unique())
    tasks = sorted(rows["task"].dropna().unique())
    # A vote on an answer that is right with probability p varies by p (1 − p), or less where votes are graded.
    variance = rows["weight"] ** 2 * rows["predicted"] * (1 - rows["predicted"])
    surprise = rows["weight"] * (rows["score"] - rows["predicted"] - QUALITY.origin)
    for candidate in candidates:
        is_own = rows["candidate"] == candidate
        yield _cell(QUALITY, rows, surprise, rows["weight"], is_own, candidate, None, variance)
        yield _cell(COST, rows, rows["cost_usd"], rows["expected_usd"], is_own, candidate)
        yield _cell(LENGTH, rows, rows["output_tokens"], rows["expected_tokens"], is_own, candidate)
        for task in tasks:
            is_both = is_own & (rows["task"] == task)
            yield _cell(QUALITY_BY_TASK, rows, surprise, rows["weight"], is_both, candidate, task, variance)
    for task in tasks:
        share = (rows["task"] == task).astype(float)
        yield _cell(TASK_SHARE, rows, share, one, rows["task"].notna(), None, task)
    unfamiliar = rows["is_unfamiliar"].astype(float)
    yield _cell(UNFAMILIAR, rows, unfamiliar, one, unfamiliar.notna())
    yield _cell(INPUT, rows, rows["input_tokens"] / rows["input_tokens"].mean(), one, rows["input_tokens"].notna())


def _cell(
    measure: Measure,
    rows: pd.DataFrame,
    y: pd.Series,
    n: pd.Series,
    kept: pd.Series,
    candidate: str | None = None,
    task: str | None = None,
    variance: pd.Series | None = None,
) -> _Cell:
    kept = kept & y.notna() & n.notna() & (n > 0)
    own = None if variance is None else variance[kept]
    return _Cell(measure, rows[kept], y[kept], n[kept], candidate, task, own)


def _finding(cell: _Cell, seen: Foreseen, units: np.ndarray | None, alpha: float) -> Finding:
    origin = cell.measure.origin
    at = cell.rows.index.to_numpy()
    series = Series(
        cell.rows["period"].to_numpy(dtype=np.intp),
        cell.y.to_numpy(dtype=np.float64),
        cell.n.to_numpy(dtype=np.float64),
        None if units is None else units[at],
        None if cell.variance is None else cell.variance.to_numpy(dtype=np.float64),
    )
    whole = level(series, alpha)
    step = change(series, alpha, cell.measure.tolerance)
    if step is not None:
        step = Change(step.period, step.before + origin, step.after + origin, step.difference)
    return Finding(
        measure=cell.measure,
        candidate=cell.candidate,
        task=cell.task,
        n=len(at),
        level=Interval(whole.value + origin, whole.low + origin, whole.high + origin),
        change=step,
        since=None if step is None else seen.begins(step.period),
    )


def _apart(seen: Foreseen, log: DecisionLog) -> Apart | None:
    every = max(1, len(seen.rows) // _MOST_READ)
    kept = log.query(_RETAINED, [seen.bundle, seen.start_unix_s, every])
    has_text, has_features = kept["prompt"].notna(), kept["features"].notna()
    if has_features.sum() > has_text.sum():
        # Rows of another encoder lie elsewhere whatever the prompt.
        kept = kept[has_features & (kept["encoder"] == kept.loc[has_features, "encoder"].iloc[-1])]
        lot: Sequence[str] | np.ndarray = np.array(kept["features"].tolist(), dtype=np.float32)
    else:
        lot = kept.loc[has_text, "prompt"].tolist()
    half = len(lot) // 2
    return tell_apart(lot[:half], lot[half:])
