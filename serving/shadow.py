"""Deciding in the shadow: what a challenger would choose for the requests that the champion decides.

One thread decides, off the request path; what waits for it is bounded, and what comes while it is busy is left out and
counted, so no answer waits for it. A decision that is there when its request is settled stands in the record. The
prompt is let go with the request, whether the thread came to it or not. Entry point: :class:`Shadow`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from queue import SimpleQueue

from router import Constraints, Policy, Prompt, Router, Speed
from router.errors import RouterError
from router.history import History
from serving import logs
from serving.deciding import Decided
from serving.exploration import chance
from serving.shadow_tally import ShadowStatus, ShadowTally
from serving.state import State


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What a challenger would have done, and what it expects of that."""

    bundle: str
    candidate: str
    quality: float | None
    cost_usd: float | None


class ShadowJob:
    """One decision asked of the challenger; :meth:`taken` ends it."""

    __slots__ = ("_constraints", "_history", "_own", "_policy", "_prompt", "_router", "_speeds", "_tally", "shadowed")

    def __init__(
        self,
        router: Router,
        decided: Decided,
        prompt: Prompt,
        speeds: Mapping[str, Speed],
        tally: ShadowTally,
    ) -> None:
        decision = decided.decision
        self._router = router
        self._prompt: Prompt | None = prompt
        self._policy = policy_in(router, decided)
        self._constraints: Constraints = decided.constraints
        self._history: History | None = decided.history
        self._speeds = speeds
        self._tally = tally
        # What chance made of it is no choice of the champion's.
        self._own = decision.explorable[0] if decision.explorable else decision.candidate
        self.shadowed: Shadowed | None = None

    def decide(self) -> None:
        """Ask the challenger, unless the request is over."""
        prompt = self._prompt
        if prompt is None:
            self._tally.miss()
            return
        try:
            self._decide(prompt)
        except Exception as error:  # nothing a request holds may end the thread
            self._tally.fail()
            if not isinstance(error, RouterError):
                logs.failure("shadow_failed", error)

    def _decide(self, prompt: Prompt) -> None:
        decision = self._router.route(prompt, self._policy, self._constraints, self._speeds, history=self._history)
        outlook = decision.outlook
        assert outlook is not None
        own, its = (outlook.candidates.index(name) for name in (self._own, decision.candidate))
        self._tally.add(
            decision.candidate == self._own,
            outlook.cost_usd[own],
            outlook.cost_usd[its],
            outlook.quality[its] - outlook.quality[own],
        )
        self.shadowed = Shadowed(decision.bundle, decision.candidate, decision.quality, decision.cost_usd)

    def taken(self) -> Shadowed | None:
        """Let the prompt go, and return what there is."""
        self._prompt = None
        return self.shadowed


class Shadow:
    """The challenger at work; its thread begins with the first decision."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[ShadowJob | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Each has one writing thread: the event loop's, and the one that decides.
        self._n_asked = self._n_done = 0
        self._pair: tuple[str | None, str] = (None, "")
        self._tally = ShadowTally()

    def follow(self, state: State) -> None:
        """Begin a new count where the challenger or the champion is another one now."""
        pair = (None if state.challenger is None else state.challenger.bundle_id, state.bundle_id)
        if pair != self._pair:
            self._pair, self._tally = pair, ShadowTally()

    def ask(
        self, state: State, decided: Decided, prompt: Prompt, speeds: Mapping[str, Speed], request_id: str
    ) -> ShadowJob | None:
        """Ask for a decision beside one that was made; never waits.

        Not of candidates that were named, nor in the middle of a turn: nothing is decided there. Nor beside another
        bundle than the champion's, such as an experiment's.

        Returns
        -------
        ShadowJob or None
            None where there is no challenger, the lot left this request out, or too many wait already.
        """
        challenger, settings = state.challenger, state.settings.shadow
        if challenger is None or challenger.router is None or not is_decided(decided):
            return None
        if decided.decision.bundle != state.bundle_id:
            return None
        if settings.share < 1.0 and chance(request_id, b"shadow") >= settings.share:
            return None
        if self._n_asked - self._n_done >= settings.max_in_flight:
            self._tally.n_dropped += 1
            return None
        job = ShadowJob(challenger.router, decided, prompt, speeds, self._tally)
        if self._thread is None:
            self._thread = threading.Thread(target=self._decide_until_closed, name="shadow", daemon=True)
            self._thread.start()
        self._n_asked += 1
        self._queue.put(job)
        return job

    def status(self, state: State) -> ShadowStatus | None:
        """Return how the challenger does; None where the settings name none."""
        challenger = state.challenger
        if challenger is None:
            return None
        return self._tally.status(
            challenger.bundle_id, state.bundle_id, challenger.problem, state.settings.shadow.share
        )

    def close(self) -> None:
        """End the thread after what it is at. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _decide_until_closed(self) -> None:
        while (job := self._queue.get()) is not None:
            job.decide()
            self._n_done += 1
            del job  # and with it the prompt


def is_decided(decided: Decided) -> bool:
    """Say whether a policy had a choice: nobody was named, by an experiment neither, and no turn was pending."""
    history, entry = decided.history, decided.entry
    if entry is not None and entry.setting.candidate is not None:
        return False
    return decided.decision.policy.kind != "designated" and (history is None or not history.is_pending)


def shadowed(state: State, decided: Decided, prompt: Prompt, speeds: Mapping[str, Speed]) -> Shadowed | None:
    """Return what the challenger would do, at once: for explanations. None where it is not asked, or cannot say."""
    challenger = state.challenger
    if challenger is None or challenger.router is None or not is_decided(decided):
        return None
    job = ShadowJob(challenger.router, decided, prompt, speeds, ShadowTally())
    job.decide()
    return job.taken()


def policy_in(router: Router, decided: Decided) -> Policy:
    """Return the policy that would decide if this router's bundle served: of a preset what the name means there."""
    policy = decided.decision.policy
    its = router.presets.get(policy.name)
    if its is None:
        return policy
    # As in deciding: who is in no hurry pays for none.
    is_unhurried = its.kind == "latency" and decided.priority == "batch"
    return replace(its, kind="threshold") if is_unhurried else its
