"""Live status of deployments: what is in flight, how fast, how often it fails, what it cost, whom to leave alone.

Numbers only, in memory, of this process; no request is ever held up here. What a caller did (its 4xx, its going
away) never counts against a deployment. Who is to be avoided is said by :mod:`serving.health`. All methods run on
the event loop's thread. Entry points: :meth:`Pool.begin`, :meth:`Pool.choose`, :meth:`Pool.snapshot`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from serving.health import Health, RetryBudget
from serving.latency import Durations, TokenRate

#: Outcomes that say nothing about the deployment.
_NOT_ITS_FAULT = frozenset({"ok", "client_disconnected", "caller_error", "gateway_error", "overtaken", "shutting_down"})
#: Answers by which it is known how slow is slow.
_N_KNOWN = 20


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A snapshot of one deployment; None is "nothing observed yet".

    ``n_errors`` is the sum of ``errors`` (outcome to count). ``first_byte_s`` and ``total_s`` are moving averages
    of successful calls, the percentiles are of the last few hundred. ``cost_usd`` sums the known costs,
    ``n_unknown_cost`` counts the successful calls of unknown cost. ``cooling_for_s`` and ``ejected_for_s`` say how
    long it is left alone still, because it asked for it or failed too often; 0 where it is not.
    """

    deployment: str
    candidate: str
    n_in_flight: int
    n_requests: int
    n_errors: int
    errors: Mapping[str, int]
    n_client_disconnects: int
    n_caller_errors: int
    first_byte_s: float | None
    first_byte_p50_s: float | None
    first_byte_p95_s: float | None
    total_s: float | None
    total_p50_s: float | None
    total_p95_s: float | None
    output_tokens_per_s: float | None
    cost_usd: float | None
    n_unknown_cost: int
    last_error: str | None
    last_error_age_s: float | None
    last_used_age_s: float | None
    cooling_for_s: float
    ejected_for_s: float
    n_ejections: int


class _Deployment:
    """The counters of one deployment."""

    __slots__ = (
        "candidate",
        "cost_usd",
        "first_byte",
        "health",
        "last_error",
        "last_error_at",
        "last_used_at",
        "n_in_flight",
        "n_requests",
        "n_unknown_cost",
        "name",
        "outcomes",
        "rate",
        "total",
    )

    def __init__(self, name: str, candidate: str) -> None:
        self.name = name
        self.candidate = candidate
        self.n_in_flight = 0
        self.n_requests = 0
        self.outcomes: Counter[str] = Counter()
        self.first_byte = Durations()
        self.health = Health()
        self.total = Durations()
        self.rate = TokenRate()
        self.cost_usd: float | None = None
        self.n_unknown_cost = 0
        self.last_error: str | None = None
        self.last_error_at = 0.0
        self.last_used_at: float | None = None


class Call:
    """One request in flight at a deployment.

    Attributes
    ----------
    deployment : str
        Its name.
    first_byte_s, total_s : float or None
        From the beginning to the first byte and to the end, once known.
    """

    __slots__ = ("_began_at", "_clock", "_status", "deployment", "first_byte_s", "total_s")

    def __init__(self, status: _Deployment, clock: Callable[[], float]) -> None:
        self.deployment = status.name
        self.first_byte_s: float | None = None
        self.total_s: float | None = None
        self._status = status
        self._clock = clock
        self._began_at = clock()

    def first_byte(self) -> None:
        """Note that the first byte of the answer has arrived; only the first time counts."""
        if self.first_byte_s is None:
            self.first_byte_s = self._clock() - self._began_at

    def finish(
        self,
        outcome: str = "ok",
        output_tokens: int | None = None,
        cost_usd: float | None = None,
        *,
        wait_s: float | None = None,
    ) -> None:
        """End the call; only the first time counts.

        Parameters
        ----------
        outcome : str
            "ok", or the ``outcome`` of the :class:`~serving.errors.GatewayError` that ended it.
        output_tokens : int or None
            As the provider counted them.
        cost_usd : float or None
            Charged; None is unknown and is never summed as 0.
        wait_s : float or None
            How long the deployment asked to be left alone, of the outcome "overloaded".
        """
        if self.total_s is not None:
            return
        now = self._clock()
        self.total_s = now - self._began_at
        status = self._status
        status.n_in_flight -= 1
        status.last_used_at = now
        status.outcomes[outcome] += 1
        if cost_usd is not None:
            status.cost_usd = (status.cost_usd or 0.0) + cost_usd
        if outcome == "ok":
            if cost_usd is None:
                status.n_unknown_cost += 1
            status.total.add(self.total_s)
            if self.first_byte_s is not None:
                status.first_byte.add(self.first_byte_s)
            if output_tokens:
                status.rate.add(output_tokens, self.total_s)
            status.health.succeeded(now)
        elif outcome in _NOT_ITS_FAULT:
            status.health.passed()
        else:
            status.last_error = outcome
            status.last_error_at = now
            if outcome == "overloaded":
                status.health.throttled(now, wait_s)
            else:
                status.health.failed(now)


class Pool:
    """The live status of every deployment.

    Parameters
    ----------
    deployments : Mapping[str, str]
        Deployment name to candidate name, in the order of the settings.
    clock : Callable[[], float]
        Monotonic seconds.
    seed : int or None
        Of the choice of two; None takes one from the system.

    Attributes
    ----------
    retries : RetryBudget
        Of all further attempts together.
    """

    def __init__(
        self, deployments: Mapping[str, str], clock: Callable[[], float] = time.monotonic, seed: int | None = None
    ) -> None:
        self.retries = RetryBudget()
        self._clock = clock
        self._random = random.Random(seed)
        self._by_name: dict[str, _Deployment] = {}
        self._by_candidate: dict[str, list[_Deployment]] = {}
        self.replace(deployments)

    def replace(self, deployments: Mapping[str, str]) -> None:
        """Swap the configured set; a deployment that stays for the same candidate keeps its history.

        Calls in flight at one that goes end well: they hold their own counters.
        """
        by_name: dict[str, _Deployment] = {}
        by_candidate: dict[str, list[_Deployment]] = {}
        for name, candidate in deployments.items():
            known = self._by_name.get(name)
            status = known if known and known.candidate == candidate else _Deployment(name, candidate)
            by_name[name] = status
            by_candidate.setdefault(candidate, []).append(status)
        self._by_name, self._by_candidate = by_name, by_candidate

    def choose(self, candidate: str, tried: Collection[str] = (), *, or_ejected: bool = False) -> str | None:
        """Name the deployment for the next call: of two at random the lesser (in flight + 1) x average latency.

        One that has finished no request counts as the fastest known of its candidate, so that it gets its turn;
        one that has, but never succeeded, as the slowest. Ties go to the fewest requests so far, then to the first
        in the settings.

        Parameters
        ----------
        candidate : str
        tried : collection of str
            Deployments not to name.
        or_ejected : bool, default=False
            Name an ejected one rather than none: the last one is never ejected. One that is cooling asked for it.

        Returns
        -------
        str or None
            None when every deployment of the candidate was tried or is to be left alone.
        """
        now = self._clock()
        deployments = [d for d in self._by_candidate.get(candidate, ()) if d.name not in tried]
        available = [d for d in deployments if d.health.is_available(now)]
        if not available and or_ejected:
            available = [d for d in deployments if now >= d.health.cooling_until]
        if len(available) > 2:
            available = sorted(self._random.sample(available, 2), key=available.index)
        if len(available) < 2:
            return available[0].name if available else None
        known = [d.total.average_s for d in available if d.total.average_s is not None]
        untried_s, failing_s = min(known, default=1.0), max(known, default=1.0)

        def burden(d: _Deployment) -> tuple[float, int]:
            average_s = d.total.average_s
            if average_s is None:
                average_s = failing_s if d.outcomes else untried_s
            return (d.n_in_flight + 1) * average_s / d.health.weight(now), d.n_requests

        return min(available, key=burden).name

    def wait_s(self, candidates: Iterable[str]) -> float | None:
        """Return how long until one of these candidates has cooled down; None where none has a deployment."""
        now = self._clock()
        waits = [d.health.cooling_until - now for name in candidates for d in self._by_candidate.get(name, ())]
        return max(0.0, min(waits)) if waits else None

    def now(self) -> float:
        """Return the pool's own time, in monotonic seconds."""
        return self._clock()

    def begin(self, deployment: str) -> Call:
        """Start the clock of one call.

        One that a reload took away is counted by itself.
        """
        status = self._by_name.get(deployment) or _Deployment(deployment, "")
        status.n_in_flight += 1
        status.n_requests += 1
        status.health.begin(self._clock())
        return Call(status, self._clock)

    def latency_s(self, candidate: str) -> float | None:
        """Return how long a candidate's answers take on average, at its fastest deployment.

        Parameters
        ----------
        candidate : str
            Name.

        Returns
        -------
        float or None
            Seconds; None until a call has succeeded.
        """
        averages = (d.total.average_s for d in self._by_candidate.get(candidate, ()))
        return min((average_s for average_s in averages if average_s is not None), default=None)

    def slow_after_s(self, deployment: str, is_stream: bool) -> float | None:
        """Return after which time without content a call is slower than 95 in 100; None until enough are known."""
        status = self._by_name.get(deployment)
        if status is None:
            return None
        seen = status.first_byte if is_stream else status.total
        return seen.quantile_s(0.95) if seen.n_seen >= _N_KNOWN else None

    def snapshot(self) -> tuple[DeploymentStatus, ...]:
        """Return the status of every deployment, in the order of the settings."""
        now = self._clock()
        return tuple(_status_of(d, now) for d in self._by_name.values())


def _status_of(d: _Deployment, now: float) -> DeploymentStatus:
    errors = {outcome: n for outcome, n in d.outcomes.items() if outcome not in _NOT_ITS_FAULT}
    return DeploymentStatus(
        deployment=d.name,
        candidate=d.candidate,
        n_in_flight=d.n_in_flight,
        n_requests=d.n_requests,
        n_errors=sum(errors.values()),
        errors=errors,
        n_client_disconnects=d.outcomes["client_disconnected"],
        n_caller_errors=d.outcomes["caller_error"],
        first_byte_s=d.first_byte.average_s,
        first_byte_p50_s=d.first_byte.quantile_s(0.5),
        first_byte_p95_s=d.first_byte.quantile_s(0.95),
        total_s=d.total.average_s,
        total_p50_s=d.total.quantile_s(0.5),
        total_p95_s=d.total.quantile_s(0.95),
        output_tokens_per_s=d.rate.tokens_per_s(),
        cost_usd=d.cost_usd,
        n_unknown_cost=d.n_unknown_cost,
        last_error=d.last_error,
        last_error_age_s=None if d.last_error is None else now - d.last_error_at,
        last_used_age_s=None if d.last_used_at is None else now - d.last_used_at,
        cooling_for_s=max(0.0, d.health.cooling_until - now),
        ejected_for_s=max(0.0, d.health.ejected_until - now),
        n_ejections=d.health.n_ejections,
    )
