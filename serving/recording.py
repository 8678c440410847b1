"""From what is known of a request to its record, and to what is retained of its prompt.

A record holds numbers and configured names only, never a word of the request or the answer. What of the prompt is
retained is another row, made only where the key has chosen a level and the request was decided under it: whatever is
unclear is not kept. Entry points: :class:`Recording`, :func:`outlook_json`, :func:`logged`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import orjson

from router import Decision, Prompt
from router.decision import Outlook
from router.pricing import Usage
from router.text import clip
from serving import logs
from serving.attempt import Attempt
from serving.conversations import Turn
from serving.deciding import Decided
from serving.dialects.losses import Loss
from serving.exploration_budget import Reservation
from serving.keys import Principal
from serving.records import RequestRecord, Retained
from serving.reference import reference_cost_usd
from serving.shadow import ShadowJob
from serving.state import State
from serving.trial import Entry

_NOTHING_USED = Usage()
#: Of a prompt that is kept, in UTF-8; of a longer one what encoders read is kept, which is always less.
MAX_PROMPT_BYTES = 32_768
_LARGEST_FLOAT16 = 65_504.0
#: Decimals of quality and its bounds, of output tokens, and of USD, by which costs are rounded in headers too.
_DECIMALS = np.array([[4], [4], [4], [1], [9]])
_SCALE = 10.0**_DECIMALS


class _Learned(NamedTuple):
    """What of a record only learning needs."""

    outlook: str | None = None
    reference: str | None = None
    reference_cost_usd: float | None = None
    policy_version: str | None = None
    task: str | None = None


_NOTHING_LEARNED = _Learned()


class Recording:
    """What is known of one request.

    Attributes
    ----------
    id : str
        Names the request and its decision, in headers, records and logs.
    time_unix_s : float
        When it arrived.
    principal : Principal or None
        Who asks.
    requested_model : str
        What was asked for, once it is known to be configured: a stranger's word is not kept.
    api : str
        The API it came by, such as "messages".
    attempt : Attempt or None
        The one that counts: under way, or what answered.
    attempts : tuple of (str, str)
        Deployments that failed before the one that answered, and how.
    state : State or None
        What it is served with; None until it is decided, as the next three.
    decision : Decision or None
        Who shall answer.
    how : Decided or None
        The decision with what goes with it.
    prompt : Prompt or None
        What was decided by.
    usage : Usage
        As the provider counted it.
    is_usage_estimated : bool
        It did not, since the answer was cut off: it is our estimate of what was sent.
    cost_usd : float or None
        What the usage cost, once settled; None when price or usage is unknown.
    outcome : str
        How it ended, once settled.
    turn : Turn or None
        Its place in a conversation, where one is recognised.
    entry : Entry or None
        Its place in an experiment, from before it is decided.
    signals : tuple of str
        Implicit signs of how good the answer was.
    reservation : Reservation or None
        What was set aside for it, where it explores.
    shadow : ShadowJob or None
        What a challenger was asked for.
    """

    __slots__ = (
        "_began_at",
        "api",
        "attempt",
        "attempts",
        "cost_usd",
        "decision",
        "entry",
        "how",
        "id",
        "is_stream",
        "is_usage_estimated",
        "outcome",
        "principal",
        "prompt",
        "requested_model",
        "reservation",
        "shadow",
        "signals",
        "state",
        "time_unix_s",
        "turn",
        "usage",
    )

    def __init__(self) -> None:
        self.time_unix_s = time.time()
        # Later ids sort later, so that the index of the records grows at its end. An id names; it admits nobody.
        self.id = f"req_{int(self.time_unix_s * 1000):011x}{random.getrandbits(52):013x}"
        self.principal: Principal | None = None
        self.requested_model = ""
        self.is_stream = False
        self.state: State | None = None
        self.decision: Decision | None = None
        self.how: Decided | None = None
        self.prompt: Prompt | None = None
        self.attempt: Attempt | None = None
        self.attempts: tuple[tuple[str, str], ...] = ()
        self.usage = _NOTHING_USED
        self.is_usage_estimated = False
        self.cost_usd: float | None = None
        self.api = ""
        self.outcome = ""
        self.turn: Turn | None = None
        self.entry: Entry | None = None
        self.signals: tuple[str, ...] = ()
        self.reservation: Reservation | None = None
        self.shadow: ShadowJob | None = None
        self._began_at = time.perf_counter()

    def enter(self, entry: Entry) -> None:
        """Note its place in an experiment."""
        self.entry = entry

    def record(self, outcome: str, status: int, *, is_kept: bool = True) -> RequestRecord:
        """Make the record.

        Parameters
        ----------
        outcome : str
        status : int
            What the client was sent.
        is_kept : bool
            Whether it goes to a store; what is for the store alone is left out otherwise.
        """
        decision, how, attempt, usage, entry = self.decision, self.how, self.attempt, self.usage, self.entry
        policy = decision.policy if decision else None
        learned = self._learned(decision, how) if is_kept and decision and how else _NOTHING_LEARNED
        shadow = None if self.shadow is None else self.shadow.taken()
        return RequestRecord(
            self.id,
            self.time_unix_s,
            self.principal.name if self.principal else "",
            self.requested_model,
            status,
            outcome,
            self.is_stream,
            candidate=self._who(),
            deployment=attempt.deployment.name if attempt else None,
            policy_kind=policy.kind if policy else None,
            policy_value=policy.value if policy else None,
            policy_name=policy.name if policy else None,
            binding=decision.binding if decision else None,
            propensity=decision.propensity if decision else None,
            bundle=decision.bundle if decision else None,
            predicted_quality=decision.quality if decision else None,
            expected_cost_usd=decision.cost_usd if decision else None,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost_usd=self.cost_usd,
            first_byte_s=attempt.call.first_byte_s if attempt and attempt.call else None,
            total_s=time.perf_counter() - self._began_at,
            api=self.api or None,
            upstream_dialect=attempt.relay.line.dialect if attempt else None,
            losses=(lost(attempt.relay.losses) if attempt else "") or None,
            attempts=self.failed() or None,
            is_usage_estimated=self.is_usage_estimated,
            scenario=how.scenario if how else None,
            rule=how.rule if how else None,
            chosen=decision.candidate if decision else None,
            outlook=learned.outlook,
            reference=learned.reference,
            reference_cost_usd=learned.reference_cost_usd,
            policy_version=learned.policy_version,
            retention=how.retention if how else "none",
            task=learned.task,
            is_emulated=attempt.deployment.is_emulated if attempt else None,
            signals=",".join(self.signals) or None,
            experiment=entry.experiment if entry else None,
            arm=entry.arm if entry else None,
            arm_share=entry.share if entry else None,
            unit=entry.unit if entry else None,
            is_explored=decision is not None and decision.is_explored,
            explorable=",".join(decision.explorable) or None if decision else None,
            explore_usd=self.reservation.extra_usd if self.reservation else None,
            shadow_bundle=shadow.bundle if shadow else None,
            shadow_candidate=shadow.candidate if shadow else None,
            shadow_quality=shadow.quality if shadow else None,
            shadow_cost_usd=shadow.cost_usd if shadow else None,
        )

    def _learned(self, decision: Decision, how: Decided) -> _Learned:
        state = self.state
        assert state is not None, "decided with the state"
        who = self._who()
        # What embeds has nothing to be measured against.
        reference = state.reference if who in state.candidates else None
        usd: float | None = None
        if reference is not None and who is not None:
            usd = reference_cost_usd(decision.outlook, who, self.usage, self.cost_usd, reference, state.candidates)
        return _Learned(
            None if decision.outlook is None else outlook_json(decision.outlook),
            reference,
            usd,
            state.policy_version,
            None if how.retention == "none" else decision.task,
        )

    def retained(self) -> Retained | None:
        """Return what is kept of the prompt, at the level it was decided under; None at ``none``."""
        how, decision = self.how, self.decision
        if how is None or decision is None or how.retention not in ("features", "content"):
            return None
        encoded = decision.encoded
        return Retained(
            self.id,
            self.time_unix_s,
            how.retention,
            prompt=_kept(self.prompt.text) if how.retention == "content" and self.prompt else None,
            features=None if encoded is None else _float16(encoded.features),
            encoder=None if encoded is None else encoded.encoder,
            task_probability=decision.task_probability,
        )

    def failed(self) -> str:
        """Write the attempts that did not answer, such as ``large@provider/model;overloaded``."""
        return ", ".join(f"{name};{outcome}" for name, outcome in self.attempts)

    def _who(self) -> str | None:
        """Return the candidate that answered, else the one decided for."""
        if self.attempt is not None:
            return self.attempt.deployment.candidate
        return self.decision.candidate if self.decision else None


def outlook_json(outlook: Outlook) -> str:
    """Write all that was predicted for a request, compactly.

    Returns
    -------
    str
        JSON: a list of [candidate, what excluded it or null, quality, its low and high bound, output tokens, expected
        cost in USD]; null where unknown. Quality has four decimals, tokens one, costs nine.
    """
    numbers = np.array(
        (outlook.quality, outlook.quality_low, outlook.quality_high, outlook.output_tokens, outlook.cost_usd)
    )
    columns = (np.rint(numbers * _SCALE) / _SCALE).tolist()
    # NaN is written as null.
    return orjson.dumps(list(zip(outlook.candidates, outlook.excluded_by, *columns, strict=True))).decode()


def lost(losses: Iterable[Loss]) -> str:
    """Write a loss report: paths, each dropped unless it says otherwise, such as ``seed, tools[1];emulated``."""
    return ", ".join(loss.field if loss.what == "dropped" else f"{loss.field};{loss.what}" for loss in losses)


def logged(record: RequestRecord) -> dict[str, logs.Value]:
    """Return what the log says of a record."""
    return {
        "id": record.id,
        "key": record.key,
        "status": record.status,
        "outcome": record.outcome,
        "requested_model": record.requested_model,
        "candidate": record.candidate,
        "deployment": record.deployment,
        "is_emulated": record.is_emulated,
        "is_stream": record.is_stream,
        "api": record.api,
        "upstream_dialect": record.upstream_dialect,
        "lost": record.losses or "",
        "is_usage_estimated": record.is_usage_estimated,
        "binding": record.binding,
        "scenario": record.scenario,
        "rule": record.rule,
        "bundle": record.bundle,
        "expected_cost_usd": record.expected_cost_usd,
        "cost_usd": record.cost_usd,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "total_s": record.total_s,
        # Said only where there is something to say.
        "propensity": record.propensity if record.propensity != 1.0 else None,
        "retention": record.retention if record.retention != "none" else None,
        "experiment": record.experiment,
        "arm": record.arm,
        "signals": record.signals,
    }


def _kept(text: str) -> str:
    """Return as much of a prompt as is kept: all of it, or of a very long one what encoders read of it."""
    # A database holds no half of a surrogate pair.
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= MAX_PROMPT_BYTES else clip(text).encode("utf-8", "replace").decode()


def _float16(features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    return np.clip(features, -_LARGEST_FLOAT16, _LARGEST_FLOAT16).astype("<f2").tobytes()
