"""What is counted of one deployment, and the calls that count it.

Numbers only, in memory, of this process. What a caller did (its 4xx, its going away) never counts against a
deployment. Streamed answers are timed by their first content, the others by their whole duration, and the two are
never mixed: half a second to a first word says nothing of a whole answer. Used by :mod:`serving.pool`. Entry points:
:class:`Tally`, :class:`Call`, :class:`DeploymentStatus`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf

from router import Speed
from router.pricing import Usage
from serving.capacity import Capacity
from serving.health import Health
from serving.latency import Durations, Timing, TokenRate
from serving.recent import Recent

#: Outcomes that say nothing about the deployment.
_NOT_ITS_FAULT = frozenset(
    {"ok", "client_disconnected", "caller_error", "gateway_error", "overtaken", "shutting_down", "caller_deadline"}
)
_THROTTLED = "overloaded"
#: A deadline is this many times the 99 % quantile, once so many answers are known; the least and the longest of it,
#: the longest of streamed answers only: a whole answer may be long.
DEADLINE_TIMES, DEADLINE_OF = 2.0, 20
LEAST_DEADLINE_S, MOST_DEADLINE_S = 10.0, 120.0


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of all calls, as the provider counted them, those of calls that broke off included.

    The cache's are parts of ``input_tokens``, ``reasoning_tokens`` of ``output_tokens``.
    """

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """A snapshot of one deployment; None is "nothing observed yet".

    ``health`` is one of :data:`serving.health.WORDS`; ``cooling_for_s`` and ``ejected_for_s`` say how long it is left
    alone still, because it asked for it or failed too often; 0 where it is not. ``n_in_flight_limit`` is what was
    learned of how many calls at once it takes, None where it never refused one for that.

    ``outcomes`` counts the calls that ended since the start, ``errors`` those of them that are the deployment's own
    doing, and ``n_errors`` is the sum of these. ``error_share`` and ``throttle_share``
    are of the calls of the last minute that say something of the deployment, apart: a throttled call is no error.

    ``signals`` counts the signs against its answers (:attr:`serving.records.RequestRecord.signals`, ``regenerated``).
    ``first_content`` times streamed answers, up to their first content; ``whole`` those not streamed, up to their
    end. ``output_tokens_per_s`` counts what followed the first content of streamed answers, without reasoning; until
    there was one, all output tokens over the duration of whole answers. ``cost_usd`` sums the known costs,
    ``n_unknown_cost`` counts the successful calls of unknown cost.
    """

    deployment: str
    candidate: str
    health: str
    n_in_flight: int
    n_in_flight_limit: int | None
    n_requests: int
    outcomes: Mapping[str, int]
    n_errors: int
    errors: Mapping[str, int]
    n_client_disconnects: int
    n_caller_errors: int
    error_share: float | None
    throttle_share: float | None
    first_content: Timing
    whole: Timing
    output_tokens_per_s: float | None
    tokens: TokenCounts
    cost_usd: float | None
    n_unknown_cost: int
    last_error: str | None
    last_error_age_s: float | None
    last_used_age_s: float | None
    cooling_for_s: float
    ejected_for_s: float
    n_ejections: int
    signals: Mapping[str, int]


class Tally:
    """The counters of one deployment.

    Attributes
    ----------
    answered_at : float
        Monotonic seconds of its latest success; minus infinity before.
    """

    __slots__ = (
        "_after_first",
        "_after_first_all",
        "_cut_s",
        "_has_cuts",
        "_last_error",
        "_last_error_at",
        "_last_used_at",
        "_n_tokens",
        "_of_whole",
        "_recent",
        "answered_at",
        "candidate",
        "capacity",
        "cost_usd",
        "first_content",
        "health",
        "n_in_flight",
        "n_requests",
        "n_unknown_cost",
        "name",
        "outcomes",
        "signals",
        "whole",
    )

    def __init__(self, name: str, candidate: str) -> None:
        self.name = name
        self.candidate = candidate
        self.n_in_flight = 0
        self.n_requests = 0
        self.outcomes: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.first_content = Durations()
        self.whole = Durations()
        self.health = Health()
        self.capacity = Capacity()
        self.cost_usd: float | None = None
        self.n_unknown_cost = 0
        self.answered_at = -inf
        # Of streamed answers after their first content: visible tokens, and all of them. The second prices a predicted
        # number of tokens, in which reasoning is counted although it passes before the first content.
        self._after_first = TokenRate()
        self._after_first_all = TokenRate()
        self._of_whole = TokenRate()
        self._cut_s = [0.0, 0.0]  # longest call cut short since its last answer: whole, streamed
        self._has_cuts = False
        self._n_tokens = [0, 0, 0, 0, 0]
        self._recent = Recent()
        self._last_error: str | None = None
        self._last_error_at = 0.0
        self._last_used_at: float | None = None

    def durations(self, is_stream: bool) -> Durations:
        """Return the times that matter to such a request: to the first content, or of the whole answer."""
        return self.first_content if is_stream else self.whole

    def average_s(self, is_stream: bool, since: float) -> float | None:
        """Return the moving average of these times; None before any, or where its latest answer is older than that."""
        return (self.first_content if is_stream else self.whole).average_s if self.answered_at >= since else None

    def waits_s(self, is_stream: bool) -> tuple[float, float]:
        """Return what an answer needs at most, all but always, and how long it is waited for.

        Returns
        -------
        tuple of (float, float)
            Seconds until a streamed answer has begun, or a whole one has ended: twice the 99 % quantile; and that made
            10 to 120 for streamed answers, at least 10 for whole ones. Both infinite before 20 answers.
        """
        durations = self.first_content if is_stream else self.whole
        p99_s = durations.quantile_s(0.99)
        if p99_s is None or durations.n_recent() < DEADLINE_OF:
            return inf, inf
        least_s = DEADLINE_TIMES * p99_s
        deadline_s = max(least_s, LEAST_DEADLINE_S)
        return least_s, min(deadline_s, MOST_DEADLINE_S) if is_stream else deadline_s

    def speed(self) -> Speed | None:
        """Return how fast it answers; None before any answer.

        Without a streamed answer the duration of whole ones stands for both: all of it falls to their tokens where
        those are known, else to the first content.
        """
        s_per_token = self._of_whole.s_per_token()
        first_content_s = self.first_content.quantile_s(0.9)
        if first_content_s is not None:
            after_s = self._after_first_all.s_per_token()
            return Speed(first_content_s, s_per_token or 0.0 if after_s is None else after_s)
        if s_per_token is not None:
            return Speed(0.0, s_per_token)
        whole_s = self.whole.quantile_s(0.9)
        return None if whole_s is None else Speed(whole_s, 0.0)

    def ended(
        self,
        now: float,
        call: Call,
        outcome: str,
        output_tokens: int | None,
        cost_usd: float | None,
        wait_s: float | None,
        usage: Usage | None,
    ) -> None:
        """Count a call that has ended; see :meth:`Call.finish`."""
        self.n_in_flight -= 1
        self._last_used_at = now
        self.outcomes[outcome] += 1
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        if usage is not None:
            self._count(usage)
        if outcome == "ok":
            if cost_usd is None:
                self.n_unknown_cost += 1
            self.answered_at = now
            if self._has_cuts:
                self._learn_cuts()
            self._time(call, output_tokens, usage)
            self._recent.add(now)
            self.health.succeeded(now)
            self.capacity.answered(call.began_at, call.n_in_flight)
        elif outcome in _NOT_ITS_FAULT:
            self.health.passed()
        else:
            self._last_error = outcome
            self._last_error_at = now
            is_throttle = outcome == _THROTTLED
            self._recent.add(now, is_error=not is_throttle, is_throttle=is_throttle)
            if is_throttle:
                self.health.throttled(now, wait_s)
                self.capacity.throttled(now, call.began_at, call.n_in_flight)
                return
            self.health.failed(now)
            if wait_s is not None:
                self.health.rests(now, wait_s)
            if outcome == "timeout":
                self._cut_short(call)

    def status(self, now: float) -> DeploymentStatus:
        """Return the snapshot."""
        errors = {outcome: n for outcome, n in self.outcomes.items() if outcome not in _NOT_ITS_FAULT}
        n_recent, n_recent_errors, n_recent_throttles = self._recent.counts(now)
        limit = self.capacity.limit
        rate = self._after_first.tokens_per_s()
        return DeploymentStatus(
            deployment=self.name,
            candidate=self.candidate,
            health=self.health.word(now),
            n_in_flight=self.n_in_flight,
            n_in_flight_limit=None if limit is None else int(limit),
            n_requests=self.n_requests,
            outcomes=dict(self.outcomes),
            n_errors=sum(errors.values()),
            errors=errors,
            n_client_disconnects=self.outcomes["client_disconnected"],
            n_caller_errors=self.outcomes["caller_error"],
            error_share=n_recent_errors / n_recent if n_recent else None,
            throttle_share=n_recent_throttles / n_recent if n_recent else None,
            first_content=self.first_content.timing(),
            whole=self.whole.timing(),
            output_tokens_per_s=self._of_whole.tokens_per_s() if rate is None else rate,
            tokens=TokenCounts(*self._n_tokens),
            cost_usd=self.cost_usd,
            n_unknown_cost=self.n_unknown_cost,
            last_error=self._last_error,
            last_error_age_s=None if self._last_error is None else now - self._last_error_at,
            last_used_age_s=None if self._last_used_at is None else now - self._last_used_at,
            cooling_for_s=max(0.0, self.health.cooling_until - now),
            ejected_for_s=max(0.0, self.health.ejected_until - now),
            n_ejections=self.health.n_ejections,
            signals=dict(self.signals),
        )

    def _time(self, call: Call, output_tokens: int | None, usage: Usage | None) -> None:
        total_s, first_s = call.total_s, call.first_byte_s
        assert total_s is not None, "it has ended"
        if not call.is_stream:
            self.whole.add(total_s)
            if output_tokens:
                self._of_whole.add(output_tokens, total_s)
        elif first_s is not None:
            self.first_content.add(first_s)
            if output_tokens:
                reasoning = usage.reasoning_tokens or 0 if usage is not None else 0
                self._after_first_all.add(output_tokens, total_s - first_s)
                if output_tokens - reasoning > 1:
                    self._after_first.add(output_tokens - reasoning - 1, total_s - first_s)

    def _cut_short(self, call: Call) -> None:
        """Note an answer that was not waited for, of which it is only known that it takes longer.

        It counts once the deployment answers again, or is ejected for it: then the next are waited for longer. Else
        one whose requests grew longer would be cut off for ever. Until then it does not, so that one that has fallen
        silent is waited for no longer each time. What ended before twice the 99 % quantile says nothing.
        """
        is_stream, total_s = call.is_stream, call.total_s
        if total_s is None or total_s < self.waits_s(is_stream)[0] or (is_stream and call.first_byte_s is not None):
            return
        self._cut_s[is_stream] = max(self._cut_s[is_stream], total_s)
        self._has_cuts = True
        if self.health.n_ejections:
            self._learn_cuts()

    def _learn_cuts(self) -> None:
        for is_stream in (False, True):
            if self._cut_s[is_stream]:
                self.durations(is_stream).add_at_least(self._cut_s[is_stream])
        self._cut_s = [0.0, 0.0]
        self._has_cuts = False

    def _count(self, usage: Usage) -> None:
        counts = self._n_tokens
        counts[0] += usage.input_tokens or 0
        counts[1] += usage.output_tokens or 0
        counts[2] += usage.cache_read_tokens or 0
        counts[3] += usage.cache_write_tokens or 0
        counts[4] += usage.reasoning_tokens or 0


class Call:
    """One request in flight at a deployment.

    Attributes
    ----------
    deployment : str
        Its name.
    is_stream : bool
    began_at : float
        Monotonic seconds.
    n_in_flight : int
        Calls at the deployment when it began, itself counted.
    first_byte_s, total_s : float or None
        From the beginning to the first byte (of a stream: the first content) and to the end, once known.
    """

    __slots__ = ("_clock", "_tally", "began_at", "deployment", "first_byte_s", "is_stream", "n_in_flight", "total_s")

    def __init__(self, tally: Tally, clock: Callable[[], float], began_at: float, is_stream: bool) -> None:
        self.deployment = tally.name
        self.is_stream = is_stream
        self.began_at = began_at
        self.n_in_flight = tally.n_in_flight
        self.first_byte_s: float | None = None
        self.total_s: float | None = None
        self._tally = tally
        self._clock = clock

    def first_byte(self) -> None:
        """Note the first byte of the answer, of a stream its first content; only the first time counts."""
        if self.first_byte_s is None:
            self.first_byte_s = self._clock() - self.began_at

    def signal(self, signs: Iterable[str]) -> None:
        """Count signs against the answer."""
        self._tally.signals.update(signs)

    def finish(
        self,
        outcome: str = "ok",
        output_tokens: int | None = None,
        cost_usd: float | None = None,
        *,
        wait_s: float | None = None,
        usage: Usage | None = None,
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
        usage : Usage or None
            All that the provider counted; the reasoning in it does not count as written after the first content.
        """
        if self.total_s is None:
            now = self._clock()
            self.total_s = now - self.began_at
            self._tally.ended(now, self, outcome, output_tokens, cost_usd, wait_s, usage)
