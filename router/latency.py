"""The only place where tokens become seconds: how long an answer is expected to take, from how fast its candidate is.

An unknown speed gives an unknown latency (NaN), never 0. Entry points: :func:`expected_latencies_s`, :func:`with_mean`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

from router.domain import Speed


def expected_latencies_s(
    names: Sequence[str], speeds: Mapping[str, Speed], output_tokens: Sequence[float], n_choices: int = 1
) -> list[float]:
    """Expect the seconds until the answer of each candidate is whole: first content + output tokens x time of one.

    Parameters
    ----------
    names : sequence of m str
    speeds : Mapping of str to Speed
        By name; a candidate that is not in it was never observed.
    output_tokens : sequence of m float
        Expected, of all answers asked for at once; NaN where unknown.
    n_choices : int, default=1
        How many those are: they are written side by side.

    Returns
    -------
    list of m float
        NaN where the speed or the number of tokens is unknown.
    """
    return [
        nan if (speed := speeds.get(name)) is None else speed.first_content_s + n / n_choices * speed.s_per_output_token
        for name, n in zip(names, output_tokens, strict=True)
    ]


def with_mean(latency_s: Sequence[float]) -> list[float] | None:
    """Put the mean of the known in the place of the unknown, so that these get their turn; None where all are."""
    known = [s for s in latency_s if s == s]
    if not known:
        return None
    mean = sum(known) / len(known)
    return [s if s == s else mean for s in latency_s]
