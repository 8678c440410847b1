"""Who is tried next for one request, and when to stop.

In this order: the other deployments of the candidate chosen, then the candidates after it in the ranking (those
predicted good enough, then the best of the rest), then the same deployment once more after a pause. Further attempts
are few, are paid out of a budget that all requests share, and share the caller's deadline: one that can be followed by
another does not get the whole rest of it (:meth:`Failover.first_content_s`), and one that is seldom quick enough for
what is left is not made. A request that is too long for one candidate goes to one that reads more, and to no other.
What was sent to the client ends all attempts, and that is for :mod:`serving.gateway` to see to. Entry point:
:class:`Failover`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Container, Mapping, Sequence
from math import inf

from router import Candidate
from serving.errors import UpstreamDenied, UpstreamError, UpstreamOverloaded
from serving.health import RetryBudget
from serving.pool import Pool

#: Codes of refusals that are about length: another candidate may read more.
TOO_LONG = "context_length_exceeded"
#: Pauses before the same deployment is tried again: full jitter, doubled each time.
LEAST_PAUSE_S, MOST_PAUSE_S = 0.1, 2.0
#: While too little is known of how long a deployment takes: what an attempt gets at least until the first content of a
#: stream, or for a whole answer, which may be long; and at most until the first content of a stream.
UNKNOWN_STREAM_S, UNKNOWN_WHOLE_S, MOST_UNKNOWN_S = 10.0, 60.0, 60.0
#: How long a request waits in all for a deployment that asked for a short pause or has no room, where there is no
#: other; one that is in no hurry waits longer. It looks again this often.
PATIENCE_S, BATCH_PATIENCE_S = 2.0, 30.0
_LOOK_S, _LEAST_LOOK_S = 0.1, 0.05


class Failover:
    """The attempts of one request.

    Parameters
    ----------
    pool : Pool
    order : sequence of str
        Candidates, best first; at least one.
    candidates : Mapping of str to Candidate
        What is known of them.
    deployments : container of str
        Those that the request knows; the pool may have newer ones.
    max_attempts : int
        At least 1.
    until : float
        Monotonic seconds by which an answer must have begun.
    is_stream : bool, default=False
        Whether the answer will be streamed.
    patience_s : float
        For deployments that asked for a pause.
    """

    def __init__(
        self,
        pool: Pool,
        order: Sequence[str],
        candidates: Mapping[str, Candidate],
        deployments: Container[str],
        *,
        max_attempts: int,
        until: float,
        is_stream: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._order = list(order)
        self._candidates = candidates
        self._deployments = deployments
        self._max_attempts = max_attempts
        self._until = until
        self._is_stream = is_stream
        self._tried: list[str] = []
        self._barred: list[str] = []  # not to be tried again: it denied us, or cannot be sent the request
        self._n_attempts = 0
        pool.retries.earn(pool.now())

    def first(self) -> str:
        """Name the first deployment, or the first after a rest.

        Raises
        ------
        UpstreamOverloaded
            Every one of them asked to be left alone, or takes no more calls at once; says for how long.
        """
        name = self._next() or (self._again() if self._n_attempts else None) or self._next(or_ejected=True)
        if name is None:
            wait_s = self._pool.wait_s(self._order, self._deployments)
            raise UpstreamOverloaded(
                "every deployment that could answer asked to be left alone for now, or takes no more calls at once",
                status=503,
                retry_after_s=wait_s,
            )
        return self._begun(name)

    def rest_s(self) -> float | None:
        """Return how long to rest where :meth:`first` found nobody; None where that is not worth it."""
        wait_s = self._pool.free_in_s(self._order, self._deployments, self._barred)
        if wait_s is None or wait_s > self._patience_s or self._pool.now() + wait_s >= self._until:
            return None
        # Who waits with others does not come back with all of them at once.
        pause_s = max(_LEAST_LOOK_S, min(wait_s, _LOOK_S)) * random.uniform(1.0, 1.5)
        self._patience_s -= pause_s
        return pause_s

    def after(self, error: UpstreamError, candidate: str) -> tuple[str | None, float] | None:
        """Name the next deployment after a failure, and how long to wait before it.

        Parameters
        ----------
        error : UpstreamError
            Why the last attempt failed.
        candidate : str
            Whose deployment that was.

        Returns
        -------
        tuple of (str or None, float) or None
            Deployment, and seconds; no deployment where all of them rest for so short that it is worth waiting
            (:meth:`first` names one then). None where the failure is final.
        """
        if isinstance(error, UpstreamDenied):
            self._barred += self._tried[-1:]
        if self._n_attempts >= self._max_attempts or self._pool.now() >= self._until:
            return None
        if error.code == TOO_LONG:
            self._order = [name for name in self._order if self._reads_more(name, candidate)]
        elif not error.is_retryable:
            return None
        name, pause_s = self._next_in_time(), 0.0
        if name is None and error.code != TOO_LONG:
            name, pause_s = self._again(), self._pause_s()
            if name is not None and not self._is_in_time(name, pause_s):
                return None
            if name is None:
                rest_s = self.rest_s()
                if rest_s is None or not self._pool.retries.take(self._pool.now()):
                    return None
                return None, rest_s
        if name is None or not self._pool.retries.take(self._pool.now()):
            return None
        return self._begun(name), pause_s

    def first_content_s(self, deployment: str) -> float:
        """Return how long an attempt may take: until the first content of a stream, or for the whole of an answer.

        While another deployment could be asked after it, that is its share of what is left for the attempts, but at
        least twice the 99 % quantile of its answers, and never more than its own deadline
        (:meth:`~serving.pool.Pool.first_content_deadline_s`). Where there is no other, an answer that takes longer than
        usual is better than none, and the caller's deadline is the only one.

        Parameters
        ----------
        deployment : str
            The one about to be called, already counted as an attempt.

        Returns
        -------
        float
            Seconds, at least 0; infinite where there is no other.
        """
        n_left = self._max_attempts - self._n_attempts
        if n_left < 1 or not self._pool.has_another(self._order, self._tried, self._deployments):
            return inf
        left_s = max(0.0, self._until - self._pool.now())
        least_s, deadline_s = self._pool.waits_s(deployment, self._is_stream)
        if least_s == inf:
            least_s, deadline_s = (UNKNOWN_STREAM_S, MOST_UNKNOWN_S) if self._is_stream else (UNKNOWN_WHOLE_S, inf)
        return min(left_s, deadline_s, max(left_s / (n_left + 1), least_s))

    def is_hurried(self, deployment: str, given_s: float, ours_s: float) -> bool:
        """Say whether a time-out would be the caller's own: it leaves less than the deployment normally needs.

        Parameters
        ----------
        deployment : str
        given_s : float
            Seconds until its first content, or its whole answer.
        ours_s : float
            How long we wait ourselves at most.
        """
        needs_s, _ = self._pool.waits_s(deployment, self._is_stream)
        return given_s < min(needs_s, ours_s, UNKNOWN_STREAM_S if self._is_stream else UNKNOWN_WHOLE_S)

    def instead(self) -> str | None:
        """Name a deployment in the place of one that the request cannot be sent to: no attempt, and no failure.

        One that failed before may be tried again in its place.
        """
        self._barred += self._tried[-1:]
        name = self._next() or self._again()
        if name is not None:
            self._tried.append(name)
        return name

    def beside(self, candidate: str, hedges: RetryBudget) -> str | None:
        """Name another deployment of a candidate whose first one is slow, where attempts and budget are left for it."""
        now = self._pool.now()
        if self._n_attempts >= self._max_attempts or now >= self._until:
            return None
        name = self._next_of(candidate)
        return self._begun(name) if name is not None and hedges.take(now) else None

    def _next(self, *, or_ejected: bool = False) -> str | None:
        named = (self._next_of(candidate, or_ejected=or_ejected) for candidate in self._order)
        return next((name for name in named if name is not None), None)

    def _next_of(self, candidate: str, *, or_ejected: bool = False) -> str | None:
        while (name := self._choose(candidate, self._tried, or_ejected=or_ejected)) is not None:
            if name in self._deployments:
                return name
            self._tried.append(name)  # a demand rules it out, or a reload brought it after this request began
        return None

    def _choose(self, candidate: str, tried: Collection[str] = (), *, or_ejected: bool = False) -> str | None:
        return self._pool.choose(candidate, tried, or_ejected=or_ejected, is_stream=self._is_stream)

    def _next_in_time(self) -> str | None:
        """Return the next that is quick enough, half of the time, for what is left."""
        while (name := self._next()) is not None and not self._is_in_time(name):
            self._tried.append(name)
        return name

    def _is_in_time(self, name: str, pause_s: float = 0.0) -> bool:
        left_s = self._until - self._pool.now() - pause_s
        return left_s > 0 and left_s >= (self._pool.quantile_s(name, 0.5, self._is_stream) or 0.0)

    def _again(self) -> str | None:
        """Return a deployment that was tried and may be once more."""
        for candidate in self._order:
            passed = [*self._barred]
            while (name := self._choose(candidate, passed)) is not None:
                if name in self._deployments:
                    return name
                passed.append(name)
        return None

    def _pause_s(self) -> float:
        return random.uniform(0, min(MOST_PAUSE_S, LEAST_PAUSE_S * 2.0**self._n_attempts))

    def _reads_more(self, name: str, than: str) -> bool:
        longest, window = (self._candidates[n].capabilities.context_window_tokens for n in (name, than))
        return longest is not None and window is not None and longest > window

    def _begun(self, name: str) -> str:
        self._tried.append(name)
        self._n_attempts += 1
        return name
