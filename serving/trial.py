"""A trial: an experiment made ready to decide by, and what a request that enters it takes with it. Pure.

Entry points: :meth:`Trial.enter`, :func:`preferring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from router import Decision, Policy, Router
from router.decision import known
from serving.assignment import digest_of, place_of
from serving.experiment import Experiment

#: Names the unit of a request: what kind it is of, then its parts.
UnitOf = Callable[[str], Sequence[bytes]]


class Setting(NamedTuple):
    """What an arm puts in the place of the settings; None leaves them.

    ``policy`` is a policy or a preset's name, ``candidate`` comes first wherever it may answer, ``router`` predicts.
    """

    policy: Policy | str | None = None
    candidate: str | None = None
    router: Router | None = None


class Entry(NamedTuple):
    """A request's place in an experiment.

    Parameters
    ----------
    experiment, arm : str
    share : float
        Probability with which a unit comes to this arm now; 1 once it is promoted.
    unit : str or None
        Keyed digest of who was assigned; None where nobody is any more.
    setting : Setting
    """

    experiment: str
    arm: str
    share: float
    unit: str | None
    setting: Setting


@dataclass(frozen=True, slots=True)
class Trial:
    """An experiment in force.

    Parameters
    ----------
    experiment : Experiment
    settings : Mapping of str to Setting
        By arm, of those that somebody comes to.
    salt : bytes or None
        None once it is promoted.
    halted : frozenset of str
        Arms whose units are the control's now.
    promoted : str or None
        The arm that everybody gets.
    """

    experiment: Experiment
    settings: Mapping[str, Setting]
    salt: bytes | None = field(repr=False)
    halted: frozenset[str] = frozenset()
    promoted: str | None = None

    def enter(self, unit_of: UnitOf) -> Entry:
        """Give a request its arm.

        Parameters
        ----------
        unit_of : callable (kind) -> sequence of bytes
            Names its unit.
        """
        experiment = self.experiment
        if self.promoted is not None:
            return Entry(experiment.name, self.promoted, 1.0, None, self.settings[self.promoted])
        assert self.salt is not None, "what runs has its salt"
        digest = digest_of(self.salt, experiment.name, unit_of(experiment.unit))
        arm = experiment.arms[place_of(digest, experiment.shares)]
        if arm.name in self.halted:
            arm = experiment.control
        share = arm.share
        if self.halted and arm is experiment.control:
            share += sum(other.share for other in experiment.arms if other.name in self.halted)
        return Entry(experiment.name, arm.name, share, digest, self.settings[arm.name])

    def candidates(self) -> tuple[str, ...]:
        """Return the candidates that those arms name; who may not use all of them takes no part."""
        return tuple(setting.candidate for setting in self.settings.values() if setting.candidate is not None)


def preferring(decision: Decision, candidate: str, experiment: str) -> Decision:
    """Put a candidate first where it may answer and no conversation keeps another; the others keep their order."""
    if candidate not in decision.ranking or candidate == decision.candidate or decision.binding == "conversation":
        return decision
    outlook = decision.outlook
    assert outlook is not None, "what was ranked was predicted"
    at = outlook.candidates.index(candidate)
    return replace(
        decision,
        candidate=candidate,
        ranking=(candidate, *(name for name in decision.ranking if name != candidate)),
        reason=f"the experiment {experiment} puts it first",
        binding="experiment",
        like=outlook.like[at],
        quality=known(outlook.quality[at]),
        cost_usd=known(outlook.cost_usd[at]),
        promise=decision.promise and "not certified here: an experiment decided, not the policy alone",
    )
