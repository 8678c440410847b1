"""The dials: what a caller says about routing, in the body's ``turnout`` field or in ``x-turnout-*`` headers.

At most one dial chooses the policy (threshold, preset, willingness to pay); any number of constraints may stand
beside it. What limits adds up over headers and body: the least amount, the lesser retention, all that is denied or
demanded, only what every ``allow`` allows. Of any other dial the body wins over a header of the same name; two
different policies are refused rather than ranked. In headers lists are written with commas, and may be sent in several;
whatever else is sent twice, and an ``x-turnout-*`` header that means nothing, are refused: a limit that is not
understood would be none.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from router import Constraints, Policy
from serving import fields
from serving.demand import EXPECTED, NO_DEMAND, WORD, Demand
from serving.dialects.losses import MODES
from serving.errors import InvalidRequest
from serving.keys import PRIORITIES
from serving.records import RETENTIONS

FIELD = "turnout"
_IN_HEADERS: Mapping[bytes, str] = {
    b"x-turnout-threshold": "threshold",
    b"x-turnout-preset": "preset",
    b"x-turnout-willingness-to-pay-usd": "willingness_to_pay_usd",
    b"x-turnout-max-cost-usd": "max_cost_usd",
    b"x-turnout-max-latency-s": "max_latency_s",
    b"x-turnout-allow": "allow",
    b"x-turnout-deny": "deny",
    b"x-turnout-regions": "regions",
    b"x-turnout-data-policies": "data_policies",
    b"x-turnout-priority": "priority",
    b"x-turnout-explain": "explain",
    b"x-turnout-losses": "losses",
    b"x-turnout-retention": "retention",
}
#: Our request headers that are no dials, and who reads them.
_READ_ELSEWHERE = frozenset({b"x-turnout-conversation"})  # serving.conversations
#: What every header of ours begins with, however its dashes were written.
_OURS = (b"x-turnout-", b"x_turnout", b"x-turnout_")
#: Of one list of globs; more than anybody has candidates, and little enough to compare for each of them.
MOST_GLOBS, MOST_GLOB_CHARACTERS = 64, 128
_POLICIES = ("threshold", "preset", "willingness_to_pay_usd")
_LISTS = frozenset({"allow", "deny", "regions", "data_policies"})
_WORDS = frozenset({"preset", "losses", "retention"})
_KNOWN = tuple(_IN_HEADERS.values())


@dataclass(frozen=True, slots=True)
class Dials:
    """What the caller asked of the routing.

    Parameters
    ----------
    policy : Policy, str or None
        A preset's name, a policy, or None for the default.
    policy_param : str or None
        The field or header that asked for it, for the words of an error.
    losses : str or None
        What to do about fields that a translation cannot carry: one of :data:`~serving.dialects.losses.MODES`.
    demand : Demand
        What deployments must meet.
    priority : str or None
        One of :data:`~serving.keys.PRIORITIES`.
    explain : bool
        Whether a response header shall say how it was decided.
    retention : str or None
        How much of the prompt may be kept, at most: one of :data:`~serving.records.RETENTIONS`.
    also_allow : tuple of str
        Globs that must match besides ``constraints.allow``, where header and body both allow some; empty allows all.
    """

    policy: Policy | str | None = None
    constraints: Constraints = field(default_factory=Constraints)
    policy_param: str | None = field(default=None, compare=False)
    losses: str | None = None
    demand: Demand = NO_DEMAND
    priority: str | None = None
    explain: bool = False
    also_allow: tuple[str, ...] = ()
    retention: str | None = None


_UNTOUCHED = Dials()
#: Dial -> (the field or header it came by, its value).
Asked = Mapping[str, tuple[str, object]]


def read(extension: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> Dials:
    """Read the dials of one request.

    Parameters
    ----------
    extension : object
        The body's ``turnout`` field; None when absent.
    headers : iterable of (bytes, bytes)
        Raw request headers, lower-case names.

    Returns
    -------
    Dials

    Raises
    ------
    InvalidRequest
        An unknown field or header, a value out of range, a header sent twice that is no list, or two dials for one
        policy.
    """
    by_header = _of_headers(headers)
    by_body: Asked = {} if extension is None else _of_body(extension)
    if not by_header and not by_body:
        return _UNTOUCHED
    asked = {**by_header, **by_body}
    sources = [source for source in (by_header, by_body) if source]
    policy, param = _policy(asked)
    allow = [globs for source in sources if (globs := _globs(source, "allow"))]
    demand = NO_DEMAND
    for source in sources:
        demand = demand.also(Demand.of(_labels(source, "regions"), _labels(source, "data_policies")))
    return Dials(
        policy,
        Constraints(
            allow[0] if allow else (),
            tuple(glob for source in sources for glob in _globs(source, "deny")),
            _least(sources, "max_cost_usd"),
            _least(sources, "max_latency_s"),
        ),
        param,
        _choice(asked, "losses", MODES),
        demand,
        _choice(asked, "priority", PRIORITIES),
        _flag(asked, "explain"),
        allow[1] if allow[1:] else (),
        min(
            (level for source in sources if (level := _choice(source, "retention", RETENTIONS)) is not None),
            key=RETENTIONS.index,
            default=None,
        ),
    )


def _least(sources: Sequence[Asked], key: str) -> float | None:
    """Return the least amount that header or body asks for."""
    return min((amount for source in sources if (amount := _amount(source, key)) is not None), default=None)


def _amount(asked: Asked, key: str) -> float | None:
    if key not in asked:
        return None
    param, value = asked[key]
    return fields.amount(value, param)


def _choice(asked: Asked, key: str, words: Sequence[str]) -> str | None:
    if key not in asked:
        return None
    param, value = asked[key]
    if value not in words:
        raise fields.wrong(param, value, f"one of {', '.join(words)}")
    return str(value)


def _flag(asked: Asked, key: str) -> bool:
    if key not in asked:
        return False
    param, value = asked[key]
    if not isinstance(value, bool):
        raise fields.wrong(param, value, "true or false")
    return value


def _of_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, tuple[str, object]]:
    asked: dict[str, tuple[str, object]] = {}
    for name, value in headers:
        if not name.startswith(_OURS) or name in _READ_ELSEWHERE:
            continue
        written = name.decode("latin-1")
        key = _IN_HEADERS.get(name)
        if key is None:
            known = [one.decode() for one in (*_IN_HEADERS, *_READ_ELSEWHERE)]
            nearest = difflib.get_close_matches(written[:64].replace("_", "-"), known, n=1, cutoff=0.0)[0]
            raise InvalidRequest(
                f"no such x-turnout header is known; the nearest known one is {nearest}", param=nearest
            )
        read = _of_header(key, value)
        if key in asked:
            before = asked[key][1]
            if not isinstance(before, list) or not isinstance(read, list):
                raise InvalidRequest(f"{written} is sent twice: expected it once", param=written)
            read = before + read
        asked[key] = (written, read)
    return asked


def _of_header(key: str, value: bytes) -> object:
    text = value.decode("latin-1").strip()
    if key == "priority":
        return text.lower()  # as serving.admission reads it
    if key in _WORDS:
        return text
    if key in _LISTS:
        return [item.strip() for item in text.split(",")]
    if key == "explain":
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return float(text)
    except ValueError:
        return text


def _of_body(extension: object) -> dict[str, tuple[str, object]]:
    if not isinstance(extension, dict):
        raise fields.wrong(FIELD, extension, "an object")
    for key in extension:
        if key not in _KNOWN:
            nearest = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.0)[0]
            raise InvalidRequest(f"{FIELD} has no such field; the nearest known one is {nearest}", param=FIELD)
    return {key: (f"{FIELD}.{key}", value) for key, value in extension.items() if value is not None}


def _policy(asked: Asked) -> tuple[Policy | str | None, str | None]:
    """Return the policy asked for, and by which field or header."""
    given = [key for key in _POLICIES if key in asked]
    if len(given) > 1:
        params = " and ".join(asked[key][0] for key in given)
        raise InvalidRequest(f"{params} exclude each other: expected one of them", param=asked[given[1]][0])
    if not given:
        return None, None
    param, value = asked[given[0]]
    if given[0] == "preset":
        if not isinstance(value, str) or not value:
            raise fields.wrong(param, value, "the name of a preset")
        return value, param
    return Policy(given[0], fields.amount(value, param, 1.0 if given[0] == "threshold" else float("inf"))), param


def _globs(asked: Asked, key: str) -> tuple[str, ...]:
    if key not in asked:
        return ()
    param, value = asked[key]
    if not isinstance(value, list) or not all(isinstance(glob, str) and glob for glob in value):
        raise fields.wrong(param, value, "a list of candidate names or globs")
    if len(value) > MOST_GLOBS or any(len(glob) > MOST_GLOB_CHARACTERS for glob in value):
        raise fields.wrong(
            param, value, f"a list of at most {MOST_GLOBS} globs of at most {MOST_GLOB_CHARACTERS} characters"
        )
    return tuple(value)


def _labels(asked: Asked, key: str) -> tuple[str, ...]:
    if key not in asked:
        return ()
    param, value = asked[key]
    if not isinstance(value, list) or not all(isinstance(word, str) and WORD.fullmatch(word) for word in value):
        raise fields.wrong(param, value, EXPECTED)
    return tuple(value)
