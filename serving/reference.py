"""The reference: the candidate that savings are measured against, as if it had answered every request.

Pure. Entry points: :func:`reference_of`, :func:`reference_cost_usd`.
"""

from __future__ import annotations

from collections.abc import Mapping

from router import Candidate, Router
from router.decision import Outlook
from router.pricing import Usage, counterfactual_usd

#: Filters of what a candidate cannot do; one that they exclude could not have answered at any price.
_UNABLE = frozenset({"tools", "vision", "json_schema", "max_output_tokens", "context_window", "not_in_bundle"})
_BEST_PRESET = "quality"


def reference_of(router: Router, wanted: str | None = None) -> str | None:
    """Return the reference candidate of a pool.

    Parameters
    ----------
    router : Router
        Of that pool.
    wanted : str or None
        Its name, where the settings have one.

    Returns
    -------
    str or None
        Of the others the first in the pool: the anchor of the preset ``quality``, the bundle's best single candidate,
        the one of the highest price (of input and output tokens together). None where no price is known.
    """
    if wanted is not None:
        return wanted
    known = frozenset(router.bundle.manifest.names)
    pool = [one for one in router.candidates if one.name in known or one.like is not None]
    # Who borrows somebody's predictions stands in for it.
    place = {**{one.like: one.name for one in pool if one.like}, **{one.name: one.name for one in pool}}
    best = router.presets.get(_BEST_PRESET)
    for name in (best.anchor if best else None, router.bundle.manifest.metrics.get("best_single")):
        if isinstance(name, str) and name in place:
            return place[name]
    # Candidates are sorted by name, and of equal ones the first is taken.
    dearest = max((one for one in pool if one.price is not None), key=_dear, default=None)
    return dearest.name if dearest else None


def reference_cost_usd(
    outlook: Outlook | None,
    who: str,
    usage: Usage,
    cost_usd: float | None,
    reference: str,
    candidates: Mapping[str, Candidate],
) -> float | None:
    """Price one answer as if the reference had given it; :func:`router.pricing.counterfactual_usd` is the formula.

    Parameters
    ----------
    outlook : Outlook or None
        What was predicted for the request.
    who : str
        The candidate that answered.
    usage : Usage
        Of the answer, as the provider counted it.
    cost_usd : float or None
        What it cost; the reference's own answers cost what they cost.
    reference : str
    candidates : Mapping of str to Candidate

    Returns
    -------
    float or None
        USD; None where something of it is unknown, or the reference is unable to answer such a request.
    """
    if who == reference:
        return cost_usd
    if outlook is None or usage.input_tokens is None:
        return None
    names = outlook.candidates
    if reference not in names or who not in names:
        return None
    at, own = names.index(reference), names.index(who)
    if outlook.excluded_by[at] in _UNABLE:
        return None
    read, own_read = outlook.input_tokens[at], outlook.input_tokens[own]
    scale = read / own_read if own_read else 1.0
    return counterfactual_usd(
        usage, candidates[reference].price, input_scale=scale, output_tokens=outlook.output_tokens[at]
    )


def _dear(candidate: Candidate) -> float:
    price = candidate.price
    return 0.0 if price is None else price.input_usd_per_mtok + price.output_usd_per_mtok
