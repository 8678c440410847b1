"""From predictions to a ranking: pure arrays, one implementation for serving and for evaluation.

Each kind of policy is one row of :data:`KINDS`. Columns must be in a fixed order of the caller's choice
(:class:`router.routing.Router` sorts by name): ties beyond quality and cost go to the first column. Nothing here
knows names, prices or requests; entry points are :func:`eligible`, :func:`rank`, :func:`choose` and :func:`order`.

A policy may name an anchor, the safe candidate: with a margin it leaves the anchor only for candidates predicted better
by at least that much.

The rules keep these promises, each a property test: the choice is eligible; a dominated candidate never changes it,
unless it is the anchor; raising a threshold or a willingness to pay never lowers the predicted quality of the choice,
and raising what a fall below the anchor costs never raises its predicted chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from router.domain import Candidate, Constraints, Policy, Shape
from router.errors import InvalidPolicy

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Order = NDArray[np.intp]
Floats = Sequence[float]
Flags = Sequence[bool]
Key = tuple[float, ...]

#: What an answer below the anchor's costs, in USD; the kind of policy that certificates are given for.
FALL_BELOW = "fall_below_usd"

DEFAULT_PRESETS: Mapping[str, Policy] = {
    "quality": Policy("willingness_to_pay_usd", 10.0, "quality"),
    "balanced": Policy("threshold", 0.75, "balanced"),
    "price": Policy("quality_per_usd", 0.5, "price"),
    "latency": Policy("latency", 0.75, "latency"),
}


def eligible(
    candidates: Sequence[Candidate],
    shape: Shape,
    constraints: Constraints,
    input_tokens: Sequence[float],
) -> tuple[str | None, ...]:
    """Apply the filters that need no prediction.

    Parameters
    ----------
    candidates : sequence of m Candidate
    shape : Shape
        What the request asks for.
    constraints : Constraints
        What the caller demands; its ``max_cost_usd`` is applied later, when costs are known.
    input_tokens : sequence of m float
        Estimated input tokens of this request, per candidate.

    Returns
    -------
    tuple of m (str or None)
        None where the candidate may answer, else the name of the filter that removed it.
    """
    return tuple(
        _filter_of(candidate, shape, constraints, tokens)
        for candidate, tokens in zip(candidates, input_tokens, strict=True)
    )


def _filter_of(candidate: Candidate, shape: Shape, constraints: Constraints, input_tokens: float) -> str | None:
    if candidate.name in constraints.ruled_out:
        return constraints.ruled_out[candidate.name]
    can = candidate.capabilities
    if constraints.deny and any(fnmatchcase(candidate.name, glob) for glob in constraints.deny):
        return "deny"
    if constraints.allow and not any(fnmatchcase(candidate.name, glob) for glob in constraints.allow):
        return "allow"
    if shape.n_tools and not can.tools:
        return "tools"
    if shape.has_images and not can.vision:
        return "vision"
    if shape.needs_json_schema and not can.json_schema:
        return "json_schema"
    asked = shape.max_output_tokens or 0
    if can.max_output_tokens is not None and asked > can.max_output_tokens:
        return "max_output_tokens"
    if can.context_window_tokens is not None and input_tokens + asked > can.context_window_tokens:
        return "context_window"
    return None


def dominated(quality: Matrix, cost: Matrix, allowed: Mask) -> Mask:
    """Say which candidates another one makes pointless.

    Parameters
    ----------
    quality, cost : ndarray of shape (n, m), float64
        ``cost`` in any unit; infinite where unknown.
    allowed : ndarray of shape (n, m), bool
        Only allowed candidates dominate.

    Returns
    -------
    ndarray of shape (n, m), bool
        True where some allowed candidate has at least the quality for at most the cost, and is better in one of
        them or, when equal in both, comes first.
    """
    q_i, q_j = quality[:, :, None], quality[:, None, :]
    c_i, c_j = cost[:, :, None], cost[:, None, :]
    n_candidates = quality.shape[1]
    comes_first = np.tri(n_candidates, k=-1, dtype=bool)[None, :, :]
    better = (q_j > q_i) | (c_j < c_i) | comes_first
    result: Mask = ((q_j >= q_i) & (c_j <= c_i) & better & allowed[:, None, :]).any(axis=2)
    return result


def _by_threshold(quality: Matrix, cost: Matrix, value: float, allowed: Mask, anchor: int | None) -> tuple[Matrix, ...]:
    """Cheapest that clears; when none clears, the best predicted."""
    clears = quality >= value
    tier = np.where(clears, dominated(quality, cost, allowed).astype(np.float64), 2.0)
    return tier, np.where(clears, cost, -quality), np.where(clears, -quality, cost)


def _by_willingness_to_pay(
    quality: Matrix, cost: Matrix, value: float, allowed: Mask, anchor: int | None
) -> tuple[Matrix, ...]:
    """Largest quality · value − cost; ties go to the better, then to the cheaper."""
    return cost - quality * value, -quality, cost


def _by_quality_per_usd(
    quality: Matrix, cost: Matrix, value: float, allowed: Mask, anchor: int | None
) -> tuple[Matrix, ...]:
    """Best quality per USD among those that reach the floor; when none does, the best predicted."""
    clears = quality >= value
    free = (cost == 0) & (quality > 0)
    ratio = np.where(free, np.inf, quality / np.where(cost > 0, cost, np.inf))
    return (~clears).astype(np.float64), np.where(clears, -ratio, -quality), np.where(clears, -quality, cost), cost


def _by_fall_below(
    quality: Matrix, cost: Matrix, value: float, allowed: Mask, anchor: int | None
) -> tuple[Matrix, ...]:
    """Least cost + value · chance of falling below the anchor; without the anchor, the best predicted."""
    if anchor is None:
        return -quality, cost
    chance = quality[:, [anchor]] * (1 - quality)
    chance[:, anchor] = 0.0
    there = allowed[:, [anchor]]
    return np.where(there, cost + value * chance, -quality), np.where(there, -quality, cost)


def _threshold_keys(quality: Floats, cost: Floats, value: float, allowed: Flags, anchor: int | None) -> list[Key]:
    pointless = dominated_one(quality, cost, allowed)
    return [
        (float(pointless[i]), c, -q) if q >= value else (2.0, -q, c)
        for i, (q, c) in enumerate(zip(quality, cost, strict=True))
    ]


def _willingness_to_pay_keys(
    quality: Floats, cost: Floats, value: float, allowed: Flags, anchor: int | None
) -> list[Key]:
    return [(c - q * value, -q, c) for q, c in zip(quality, cost, strict=True)]


def _quality_per_usd_keys(quality: Floats, cost: Floats, value: float, allowed: Flags, anchor: int | None) -> list[Key]:
    keys: list[Key] = []
    for q, c in zip(quality, cost, strict=True):
        ratio = q / c if c > 0 else (inf if q > 0 else 0.0)
        keys.append((0.0, -ratio, -q, c) if q >= value else (1.0, -q, c, c))
    return keys


def _fall_below_keys(quality: Floats, cost: Floats, value: float, allowed: Flags, anchor: int | None) -> list[Key]:
    if anchor is None or not allowed[anchor]:
        return [(-q, c) for q, c in zip(quality, cost, strict=True)]
    best = quality[anchor]
    return [
        (c + value * (0.0 if i == anchor else best * (1 - q)), -q)
        for i, (q, c) in enumerate(zip(quality, cost, strict=True))
    ]


def dominated_one(quality: Floats, cost: Floats, allowed: Flags) -> list[bool]:
    """Say which candidates of one request another one makes pointless: :func:`dominated` for a single row."""
    rivals = [(j, quality[j], cost[j]) for j, may in enumerate(allowed) if may]
    return [
        any(q_j >= q and c_j <= c and (q_j > q or c_j < c or j < i) for j, q_j, c_j in rivals)
        for i, (q, c) in enumerate(zip(quality, cost, strict=True))
    ]


_Rule = Callable[[Matrix, Matrix, float, Mask, int | None], tuple[Matrix, ...]]
_Keys = Callable[[Floats, Floats, float, Flags, int | None], list[Key]]

#: kind -> (rule over arrays, the same for one request, largest value that makes sense, whether latency stands in the
#: place of cost). The two forms are one rule, which a property test holds them to: on the six numbers of one request
#: the array form spends ten times as long in calls as in sums.
KINDS: Mapping[str, tuple[_Rule, _Keys, float, bool]] = {
    "threshold": (_by_threshold, _threshold_keys, 1.0, False),
    "willingness_to_pay_usd": (_by_willingness_to_pay, _willingness_to_pay_keys, inf, False),
    "quality_per_usd": (_by_quality_per_usd, _quality_per_usd_keys, 1.0, False),
    "latency": (_by_threshold, _threshold_keys, 1.0, True),
    FALL_BELOW: (_by_fall_below, _fall_below_keys, inf, False),
}


def check(policy: Policy) -> Policy:
    """Return the policy, or raise.

    Raises
    ------
    InvalidPolicy
        An unknown kind, or a value outside its range.
    """
    if policy.kind not in KINDS:
        raise InvalidPolicy(f"policy kind {policy.kind!r} is unknown; expected one of {', '.join(KINDS)}")
    largest = KINDS[policy.kind][2]
    if not (isfinite(policy.value) and 0 <= policy.value <= largest):
        upper = f" and at most {largest:g}" if isfinite(largest) else ""
        raise InvalidPolicy(f"{policy.kind} must be a number of at least 0{upper}, got {policy.value!r}")
    if policy.anchor is None and (policy.kind == FALL_BELOW or policy.margin is not None):
        raise InvalidPolicy(f"anchor must be the name of a candidate for {policy.kind}, got None")
    if policy.margin is not None and not -1 <= policy.margin <= 1:
        raise InvalidPolicy(f"margin must be a number in [-1, 1], got {policy.margin!r}")
    return policy


def rank(
    quality: NDArray[np.floating],
    cost_usd: NDArray[np.floating],
    policy: Policy,
    *,
    allowed: Mask | None = None,
    latency_s: NDArray[np.floating] | None = None,
    anchor: int | None = None,
) -> Order:
    """Order the candidates of n requests, best first.

    Parameters
    ----------
    quality : ndarray of shape (n, m), in [0, 1]
        Predicted quality; NaN (the bundle says nothing) is never allowed.
    cost_usd : ndarray of shape (n, m)
        Expected cost, at least 0; NaN where unknown. An unknown cost ranks behind every known one.
    policy : Policy
    allowed : ndarray of shape (n, m), bool, optional
        Default: every candidate with a prediction.
    latency_s : ndarray of shape (n, m), optional
        Expected latency, for the kind ``latency``; NaN where unknown.
    anchor : int, optional
        Column of the policy's anchor; None where the pool has not got it. The policy's margin and the kind
        ``fall_below_usd`` are without effect on rows where the anchor is not allowed.

    Returns
    -------
    ndarray of shape (n, m), intp
        Column numbers; those not allowed come last, in any order.

    Raises
    ------
    InvalidPolicy
        See :func:`check`; also ``latency`` without latencies.
    """
    rule, _, _, uses_latency = KINDS[check(policy).kind]
    burden = cost_usd
    if uses_latency:
        if latency_s is None:
            raise InvalidPolicy("policy kind 'latency' needs latency_s, got None")
        burden = latency_s
    known = ~np.isnan(quality)
    allowed = known if allowed is None else allowed & known
    q = np.where(known, quality, 0.0).astype(np.float64)
    c = np.where(np.isnan(burden), np.inf, burden).astype(np.float64)
    keys = rule(q, c, policy.value, allowed, anchor)
    outside = np.zeros_like(allowed)
    if policy.margin is not None and anchor is not None:
        outside = (q < q[:, [anchor]] + policy.margin) & allowed[:, [anchor]]
        outside[:, anchor] = False
    # lexsort's last key is its first criterion, and it is stable: ties keep the column order.
    return np.lexsort((*reversed(keys), outside, ~allowed), axis=-1)


def order(
    quality: Floats,
    cost_usd: Floats,
    policy: Policy,
    *,
    allowed: Flags,
    latency_s: Floats | None = None,
    anchor: int | None = None,
) -> list[int]:
    """Order the candidates of one request, best first: :func:`rank` for a single row, without arrays.

    Parameters
    ----------
    quality, cost_usd : sequences of m float
        As in :func:`rank`.
    policy : Policy
        Already checked.
    allowed : sequence of m bool
    latency_s : sequence of m float, optional
    anchor : int, optional

    Returns
    -------
    list of m int

    Raises
    ------
    InvalidPolicy
        ``latency`` without latencies.
    """
    _, keys_of, _, uses_latency = KINDS[policy.kind]
    burden = cost_usd
    if uses_latency:
        if latency_s is None:
            raise InvalidPolicy("policy kind 'latency' needs latency_s, got None")
        burden = latency_s
    # NaN alone differs from itself: an unknown quality is never allowed, an unknown cost is the worst.
    usable = [may and q == q for may, q in zip(allowed, quality, strict=True)]
    q = [value if value == value else 0.0 for value in quality]
    c = [value if value == value else inf for value in burden]
    keys = keys_of(q, c, policy.value, usable, anchor)
    if policy.margin is None or anchor is None or not usable[anchor]:
        return sorted(range(len(q)), key=lambda i: (not usable[i], keys[i]))
    least = q[anchor] + policy.margin
    return sorted(range(len(q)), key=lambda i: (not usable[i], i != anchor and q[i] < least, keys[i]))


def choose(
    quality: NDArray[np.floating],
    cost_usd: NDArray[np.floating],
    policy: Policy,
    *,
    allowed: Mask | None = None,
    latency_s: NDArray[np.floating] | None = None,
    anchor: int | None = None,
) -> Order:
    """Return the first of :func:`rank` for each request, shape (n,)."""
    order: Order = rank(quality, cost_usd, policy, allowed=allowed, latency_s=latency_s, anchor=anchor)[:, 0]
    return order
