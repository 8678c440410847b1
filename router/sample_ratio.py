"""Did units come to the arms of an experiment in the shares they were meant to? A test that holds at every look.

Where they did not, something besides chance decides who is counted where, and no other figure can be trusted. Entry
point: :func:`sample_ratio`.

References
----------
.. [1] Lindon, Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022, arXiv 2011.03567.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isfinite, lgamma, log

from router.errors import InvalidInference

#: How strongly a wrong share is expected to be near the right one: about ±2 points around one half.
CONCENTRATION = 500.0


@dataclass(frozen=True, slots=True)
class RatioCheck:
    """Whether units came to the arms in the shares they were meant to.

    Parameters
    ----------
    e_value : float
        Evidence against the shares; exceeds 1/a at any look with probability at most a when they are right.
    p_value : float
        1 / ``e_value``, at most 1; below 0.001 the experiment's figures are not to be trusted.
    shares : tuple of float
        What the counts say.
    """

    e_value: float
    p_value: float
    shares: tuple[float, ...]


def sample_ratio(
    n_units: Sequence[int], shares: Sequence[float], *, concentration: float = CONCENTRATION
) -> RatioCheck:
    """Test at any look whether units were assigned in the shares meant.

    The e-process of [1]_: the likelihood of the counts under a Dirichlet prior around the shares, over that under the
    shares themselves.

    Parameters
    ----------
    n_units : sequence of k int
        Units per arm so far, at least 0.
    shares : sequence of k float
        Meant, each above 0, with sum 1; fixed since the first unit.
    concentration : float, default=CONCENTRATION
        Of the prior, above 0: larger looks for smaller departures, later.

    Returns
    -------
    RatioCheck

    Raises
    ------
    InvalidInference
        Lengths differ, a count is negative, or shares cannot be.
    """
    if len(n_units) != len(shares) or len(shares) < 2:
        raise InvalidInference(f"n_units and shares must name the same arms, at least 2; got {n_units} and {shares}")
    if any(n < 0 for n in n_units):
        raise InvalidInference(f"n_units must be at least 0, got {n_units}")
    if not (all(0 < share < 1 for share in shares) and abs(sum(shares) - 1) < 1e-6):
        raise InvalidInference(f"shares must be above 0 with sum 1, got {shares}")
    if not (isfinite(concentration) and concentration > 0):
        raise InvalidInference(f"concentration must be a number above 0, got {concentration}")
    total = sum(n_units)
    evidence = lgamma(concentration) - lgamma(concentration + total)
    for n, share in zip(n_units, shares, strict=True):
        prior = concentration * share
        evidence += lgamma(prior + n) - lgamma(prior) - n * log(share)
    e_value = exp(min(evidence, 700.0))  # the largest that a float holds
    return RatioCheck(e_value, min(1.0, 1 / e_value), tuple(n / total if total else 0.0 for n in n_units))
