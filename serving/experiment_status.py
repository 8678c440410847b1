"""What an experiment's sums say: figures, differences, the sample ratio, guards; honest about what is not shown. Pure.

All of it may be looked at at any time: intervals are confidence sequences (:mod:`router.sequences`), each right at all
looks at once with probability 1 − ``alpha``. Guards share one ``alpha`` among themselves, since each may stop an arm.
Entry point: :func:`read_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from router.sequences import LEAST_UNITS, ArmTotals, difference, interval, relative, sample_ratio
from serving.experiment import METRICS, Experiment, Guard

#: Of the sample-ratio test at any look: rarer than this by chance is no chance.
SUSPICIOUS = 0.001
TOO_EARLY, NOT_SHOWN = "too early to say", "no difference shown yet"
_RANGES: Mapping[str, tuple[float, float]] = {
    "cost_usd": (0.0, inf),
    "quality": (0.0, 1.0),
    "latency_s": (0.0, inf),
    "failures": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over requests and the bounds of its sequence; None is unknown. Requests without the metric do not count.

    ``n_units`` and ``n_requests`` are those with the metric.
    """

    value: float | None
    low: float | None
    high: float | None
    n_units: int
    n_requests: int


@dataclass(frozen=True, slots=True)
class ArmFigures:
    """One arm: units that came to it, whatever became of them, and the figures of its requests."""

    arm: str
    is_control: bool
    n_units: int
    n_requests: int
    metrics: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm's mean minus the control's, and relative to it (−0.1 is a tenth less).

    ``says`` is "too early to say", "no difference shown yet", "better" or "worse".
    """

    arm: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    says: str


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether units came to the arms in the shares they were meant to; where they did not, trust no figure."""

    e_value: float
    p_value: float
    is_alarming: bool
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class GuardVerdict:
    """What a guard says of one arm; ``why`` is for people, "" where it is not tripped."""

    arm: str
    metric: str
    is_tripped: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Readout:
    """Everything an experiment's figures say at one look.

    ``is_full`` says that further units are no longer counted; ``metric`` is what it is about.
    """

    alpha: float
    metric: str
    n_units: int
    n_requests: int
    arms: tuple[ArmFigures, ...]
    differences: tuple[Difference, ...]
    guards: tuple[GuardVerdict, ...]
    sample_ratio: SampleRatio
    is_full: bool = False

    def tripped(self) -> tuple[GuardVerdict, ...]:
        """Return for each arm that is to be stopped the first guard that says so."""
        first: dict[str, GuardVerdict] = {}
        for verdict in self.guards:
            if verdict.is_tripped:
                first.setdefault(verdict.arm, verdict)
        return tuple(first.values())


def read_out(
    experiment: Experiment,
    totals: Mapping[str, Mapping[str, ArmTotals]],
    n_assigned: Sequence[int],
    halted: frozenset[str] = frozenset(),
    *,
    is_full: bool = False,
) -> Readout:
    """Say what sums say.

    Parameters
    ----------
    experiment : Experiment
    totals : Mapping of str to Mapping of str to ArmTotals
        By arm, then by metric.
    n_assigned : sequence of int
        Units that came to each arm, in the order of the definition.
    halted : frozenset of str
        Arms that no guard need stop any more.
    is_full : bool, default=False

    Returns
    -------
    Readout
    """
    control = experiment.control.name
    others = [arm.name for arm in experiment.arms if arm.name != control]
    metrics = sorted(METRICS, key=lambda metric: metric != experiment.metric)
    ratio = sample_ratio(list(n_assigned), experiment.shares)
    arms = tuple(
        ArmFigures(
            arm.name,
            arm.name == control,
            n,
            int(totals[arm.name]["failures"].n_requests),
            {metric: _figure(experiment, metric, totals[arm.name][metric]) for metric in metrics},
        )
        for arm, n in zip(experiment.arms, n_assigned, strict=True)
    )
    return Readout(
        alpha=experiment.alpha,
        metric=experiment.metric,
        n_units=sum(n_assigned),
        n_requests=sum(arm.n_requests for arm in arms),
        arms=arms,
        differences=tuple(
            _difference(experiment, arm, metric, totals[arm][metric], totals[control][metric])
            for metric in metrics
            for arm in others
        ),
        guards=tuple(
            _judged(experiment, guard, arm, totals[arm][guard.metric], totals[control][guard.metric])
            for arm in others
            if arm not in halted
            for guard in experiment.guards
        ),
        sample_ratio=SampleRatio(ratio.e_value, ratio.p_value, ratio.p_value < SUSPICIOUS, ratio.shares),
        is_full=is_full,
    )


def _figure(experiment: Experiment, metric: str, totals: ArmTotals) -> Figure:
    found = interval(totals, experiment.alpha).within(*_RANGES[metric])
    is_said = _is_enough(experiment, totals)
    return Figure(
        _known(found.value),
        _known(found.low) if is_said else None,
        _known(found.high) if is_said else None,
        int(totals.n_units),
        int(totals.n_requests),
    )


def _difference(experiment: Experiment, arm: str, metric: str, own: ArmTotals, control: ArmTotals) -> Difference:
    found = difference(own, control, experiment.alpha)
    share = relative(own, control, experiment.alpha)
    is_said = _is_enough(experiment, own, control) and bool(found.is_said)
    says = TOO_EARLY
    if is_said:
        says = NOT_SHOWN
        if found.excludes(0.0):
            says = "worse" if bool(found.value > 0) == METRICS[metric] else "better"
    low, high, share_low, share_high = (
        _known(bound) if is_said else None for bound in (found.low, found.high, share.low, share.high)
    )
    return Difference(arm, metric, _known(found.value), low, high, _known(share.value), share_low, share_high, says)


def _judged(experiment: Experiment, guard: Guard, arm: str, own: ArmTotals, control: ArmTotals) -> GuardVerdict:
    alpha = experiment.alpha / (len(experiment.guards) * (len(experiment.arms) - 1))
    more_is_worse = METRICS[guard.metric]
    limit = guard.worse_by
    most = control
    if limit is None:
        # Against so many times the control's mean: a ratio says nothing of a mean at 0, though that may be the worst.
        assert guard.worse_by_share is not None
        share = guard.worse_by_share
        limit, most = 0.0, control.scaled(1 + share if more_is_worse else 1 - share)
    found = difference(own, most, alpha)
    beyond = found.low > limit if more_is_worse else found.high < -limit
    if not (_is_enough(experiment, own, control) and bool(beyond)):
        return GuardVerdict(arm, guard.metric, False)
    return GuardVerdict(arm, guard.metric, True, _why(guard, own, control, alpha))


def _why(guard: Guard, own: ArmTotals, control: ArmTotals, alpha: float) -> str:
    found, is_share = difference(own, control, alpha), False
    if guard.worse_by_share is not None and (ratio := relative(own, control, alpha)).is_said:
        found, is_share = ratio, True

    def said(number: float, *, is_share: bool) -> str:
        return f"{100 * number:+.3g} %" if is_share else f"{number:+.4g}"

    value, low, high = (said(float(number), is_share=is_share) for number in (found.value, found.low, found.high))
    limit = guard.worse_by_share if guard.worse_by is None else guard.worse_by
    assert limit is not None
    allowed = said(limit if METRICS[guard.metric] else -limit, is_share=guard.worse_by is None)
    return f"{guard.metric} against the control: {value} ({low} to {high}), where the guard allows {allowed}"


def _is_enough(experiment: Experiment, *totals: ArmTotals) -> bool:
    least = max(experiment.min_units, LEAST_UNITS)
    return all(one.n_units >= least for one in totals)


def _known(value: object) -> float | None:
    number = float(value)  # type: ignore[arg-type]
    return number if isfinite(number) else None
