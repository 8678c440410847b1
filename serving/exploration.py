"""Exploration: now and then another candidate answers than the policy would choose, to learn how good it is.

With probability ε, the share, the choice is drawn uniformly among the candidates that may be explored; the policy's own
is one of them. So of k of them the policy's own is chosen with probability 1 − ε + ε/k and each of the others with ε/k,
exactly (Horvitz & Thompson 1952 is what that is for). Who may be explored is fixed before the draw, by what is left of
the day's money. The draw is a function of the request's id, which nobody outside chooses, so a record replays itself:
:func:`drawn` of its id, share and candidates is the candidate it names.

Pure. Entry points: :func:`explorable`, :func:`drawn`, :func:`explored`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from router import Decision
from router.decision import known

#: What a decision says bound it where chance did.
EXPLORED = "explored"
_N_BITS = 53  # as many as a float between 0 and 1 holds


@dataclass(frozen=True, slots=True)
class ExploreRate:
    """How often is explored, in [0, 1], and what that may cost a day more than the policy's own choices, in USD."""

    share: float
    max_usd_per_day: float


@dataclass(frozen=True, slots=True)
class Exploration:
    """Who may answer one request by chance.

    Parameters
    ----------
    share : float
        Probability of a draw.
    left_usd : float
        Of the day's money, before this request.
    candidates : tuple of str
        The policy's own choice, then the others by name; the own alone where nothing is drawn.
    extra_usd : tuple of float
        What each is expected to cost more than the own choice, at the 90 % quantile of its output; at least 0.
    why_not : str or None
        Why nothing is drawn.
    """

    share: float
    left_usd: float
    candidates: tuple[str, ...]
    extra_usd: tuple[float, ...]
    why_not: str | None = None

    def propensity(self, candidate: str) -> float:
        """Return the probability with which a candidate is chosen; 0 for one that may not be explored."""
        n = len(self.candidates)
        if candidate == self.candidates[0]:
            return 1.0 if n == 1 else 1.0 - self.share + self.share / n
        return self.share / n if candidate in self.candidates else 0.0


def explorable(
    decision: Decision, rate: ExploreRate, left_usd: float, is_up: Callable[[str], bool], why_not: str | None = None
) -> Exploration:
    """Say who may be explored in the place of a decision.

    The candidates that the decision ranked, so every filter and limit holds, of which the cost is known, whose
    deployments may be called now, and which what is left of the day's money pays for.

    Parameters
    ----------
    decision : Decision
        The policy's own.
    rate : ExploreRate
    left_usd : float
        Of the day's money; nothing is drawn once it is spent.
    is_up : callable (candidate) -> bool
        Whether one of its deployments may be called.
    why_not : str or None
        What forbids it, if anything does.

    Returns
    -------
    Exploration
    """
    own = decision.candidate
    why_not = why_not or _forbidden(decision, left_usd)
    if why_not is not None or decision.outlook is None:
        return Exploration(rate.share, left_usd, (own,), (0.0,), why_not)
    outlook, own_usd = decision.outlook, decision.cost_usd
    assert own_usd is not None
    at = {name: i for i, name in enumerate(outlook.candidates)}
    others = []
    for name in sorted(decision.ranking[1:]):
        extra_usd = max(0.0, outlook.cost_usd_p90[at[name]] - own_usd)
        if outlook.cost_usd[at[name]] == outlook.cost_usd[at[name]] and extra_usd <= left_usd and is_up(name):
            others.append((name, extra_usd))
    if not others:
        return Exploration(rate.share, left_usd, (own,), (0.0,), "no other candidate may be explored")
    return Exploration(
        rate.share, left_usd, (own, *(name for name, _ in others)), (0.0, *(extra_usd for _, extra_usd in others))
    )


def drawn(request_id: str, share: float, candidates: Sequence[str]) -> str:
    """Draw one of some candidates; the first is the policy's own.

    Parameters
    ----------
    request_id : str
        The same id draws the same.
    share : float in [0, 1]
    candidates : sequence of str
        At least one.
    """
    u = chance(request_id, b"explore")
    if u >= share:
        return candidates[0]
    return candidates[min(int(u / share * len(candidates)), len(candidates) - 1)]


def explored(decision: Decision, exploration: Exploration, request_id: str | None) -> Decision:
    """Return the decision with what chance made of it; without an id nothing is drawn, and the propensity told.

    Parameters
    ----------
    decision : Decision
        The policy's own.
    exploration : Exploration
    request_id : str or None

    Returns
    -------
    Decision
        The same one where nothing may be drawn.
    """
    candidates = exploration.candidates
    if len(candidates) == 1:
        return decision
    name = candidates[0] if request_id is None else drawn(request_id, exploration.share, candidates)
    propensity = exploration.propensity(name)
    if name == decision.candidate:
        return replace(decision, propensity=propensity, explorable=candidates)
    outlook = decision.outlook
    assert outlook is not None
    i = outlook.candidates.index(name)
    return replace(
        decision,
        candidate=name,
        ranking=(name, *(other for other in decision.ranking if other != name)),
        reason=f"explored, with probability {propensity:.3g}; the policy's own choice is {candidates[0]}: "
        f"{decision.reason}",
        binding=EXPLORED,
        propensity=propensity,
        like=outlook.like[i],
        quality=known(outlook.quality[i]),
        cost_usd=known(outlook.cost_usd[i]),
        is_explored=True,
        explorable=candidates,
    )


def chance(request_id: str, purpose: bytes) -> float:
    """Return a number in [0, 1) that a request's id stands for, another for each purpose."""
    digest = blake2b(request_id.encode(), digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest) >> (64 - _N_BITS)) / 2.0**_N_BITS


def _forbidden(decision: Decision, left_usd: float) -> str | None:
    """Say what of a decision itself forbids to explore in its place."""
    if decision.outlook is None:
        return "nothing is predicted here"
    if decision.is_promised:
        return "what the policy promises would be void"
    if decision.cost_usd is None:
        return "the cost of the policy's own choice is unknown"
    return None if left_usd > 0 else "the day's money is spent"
