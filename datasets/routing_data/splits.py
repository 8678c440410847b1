"""Split prompts by hash of their group.

A group's side depends on the seed and its own name only, so adding or removing rows moves nobody
else, and the same question never lies on two sides. Fractions therefore hold on average, not
exactly.

Entry point: ``split``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def split(groups: Sequence[str], fractions: Mapping[str, float], seed: int) -> NDArray[np.str_]:
    """Assign every prompt to a part.

    Parameters
    ----------
    groups : sequence of str, n long
        Group of each prompt.
    fractions : mapping of str to float
        Share of the groups per part, each >= 0, summing to 1; the order counts.
    seed : int
        Another seed is another split.

    Returns
    -------
    ndarray of shape (n,), str
        Name of the part of each prompt.

    Raises
    ------
    ValueError
        If a fraction is negative or they do not sum to 1.
    """
    names = list(fractions)
    for name, fraction in fractions.items():
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"fraction of {name!r} is {fraction}; expected a number in [0, 1]")
    if not math.isclose(math.fsum(fractions.values()), 1.0, abs_tol=1e-6):
        raise ValueError(f"fractions {dict(fractions)} sum to {math.fsum(fractions.values())}; expected 1")
    edges = np.cumsum([fractions[name] for name in names])
    # A part of size zero is never chosen, and rounding must not leave a gap above the last edge.
    edges[np.isclose(edges, 1.0, atol=1e-6)] = 1.0
    unique = sorted(set(groups))
    positions = np.array([_position(seed, group) for group in unique])
    chosen = np.array(names)[np.searchsorted(edges, positions, side="right")] if unique else np.array([])
    part = dict(zip(unique, chosen, strict=True))
    return np.array([part[group] for group in groups], dtype=np.str_)


def _position(seed: int, group: str) -> float:
    """Hash a group to [0, 1)."""
    digest = hashlib.blake2b(f"{seed}\x1f{group}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
