"""``POST /v1/feedback``: what callers say of answers, one vote or many.

Part of the control API. A vote is answered once it is on disk. Entry point: :func:`feedback_api`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPBearer

from serving import fields
from serving.errors import InvalidRequest, NotFound, RequestError
from serving.feedback import DAY_S, MAX_TAGS, MAX_VOTES, STANDING, Verdict, Vote, Voter, read_vote
from serving.gateway import Gateway
from serving.keys import Principal

_VOTE: dict[str, Any] = {
    "type": "object",
    "description": "Exactly one of rating, thumbs, correct, and grader with score.",
    "required": ["request_id"],
    "additionalProperties": False,
    "properties": {
        "request_id": {"type": "string", "description": "The answer's x-request-id."},
        "rating": {"type": "number", "minimum": 0, "maximum": 1},
        "thumbs": {"enum": ["up", "down"]},
        "correct": {"type": "boolean"},
        "grader": {"type": "string", "description": "Name of whoever or whatever judged."},
        "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "What the grader gave."},
        "tags": {
            "type": "array",
            "maxItems": MAX_TAGS,
            "items": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,64}$"},
            "description": "Short words; free text has no place here.",
        },
        "time_unix_s": {"type": "number", "description": "When it was given; absent is now."},
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        _VOTE,
                        {
                            "type": "object",
                            "required": ["votes"],
                            "additionalProperties": False,
                            "properties": {"votes": {"type": "array", "maxItems": MAX_VOTES, "items": _VOTE}},
                        },
                    ]
                },
                "example": {"request_id": "req_019b0a7c1d2e3f4a5b6c7d8e", "rating": 0.8, "tags": ["tone.good"]},
            }
        },
    },
    "responses": {
        "404": {"description": "No request of this id is known to this key."},
        "503": {"description": "`storage_unavailable`: nothing was kept."},
    },
}
#: Votes read before others have their turn.
_N_AT_ONCE = 100
#: What a verdict that does not stand is called on the wire.
_CODES: Mapping[str, str] = {
    "unknown": "request_not_found",
    "late": "feedback_too_late",
    "refused": "feedback_refused",
}


@dataclass(frozen=True, slots=True)
class VoteError:
    """Why a vote does not stand."""

    message: str
    param: str | None
    code: str | None


@dataclass(frozen=True, slots=True)
class CastVote:
    """What became of one vote.

    ``status`` is kept, replaced (an earlier one of this key), unchanged (the same was there), superseded (a later one
    is there), unknown, late or refused; the last three have an ``error``, and nothing of the vote is kept.
    """

    request_id: str | None
    status: str
    replaced: bool
    error: VoteError | None = None


@dataclass(frozen=True, slots=True)
class CastVotes:
    """What became of many, in their order, and how many of each status there are."""

    votes: list[CastVote]
    counts: Mapping[str, int]


def feedback_api(gateway: Gateway) -> APIRouter:
    """Make the route over one gateway."""
    api = APIRouter()

    async def principal(request: Request) -> Principal:
        return gateway.ready().keys.authenticate(request.scope["headers"])

    asking = Depends(principal)
    asks_key = [Security(HTTPBearer(auto_error=False, description="A key of `turnout key new`."))]

    @api.post(
        "/v1/feedback",
        tags=["learning"],
        dependencies=asks_key,
        openapi_extra=_BODY,
        response_model=CastVote | CastVotes,
    )
    async def feedback(request: Request, caller: Principal = asking) -> Response:
        """Say how good an answer was: a rating, thumbs, correct or not, or the score of a grader.

        One vote of a key counts for a request, the latest. A key votes on its own requests, and on those of the keys
        that its `grades` name; other requests are unknown to it. Votes are taken for `feedback.window_days` after the
        request. The answer comes once the vote is on disk. Many votes, as `{"votes": [...]}`, are answered one by one.
        """
        body = fields.request_of(await request.body())
        voter = Voter(caller.name, caller.grades)
        if "votes" in body:
            return _written(await _cast_many(gateway, body, voter))
        (verdict,) = await _cast(gateway, [_read(gateway, body)], voter)
        if verdict.status not in STANDING:
            raise _error(verdict)
        return _written(_told(verdict))

    return api


def _written(said: CastVote | CastVotes) -> Response:
    # A thousand votes checked against the model would hold up everybody else's events.
    return Response(orjson.dumps(said), media_type="application/json")


async def _cast(gateway: Gateway, votes: Sequence[Vote], voter: Voter) -> Sequence[Verdict]:
    window_s = gateway.ready().settings.feedback.window_days * DAY_S
    return await gateway.feedback.cast([(vote, voter) for vote in votes], time.time(), window_s)


async def _cast_many(gateway: Gateway, body: Mapping[str, object], voter: Voter) -> CastVotes:
    given = body["votes"]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_VOTES or len(body) > 1:
        raise InvalidRequest(f"votes must be a list of 1 to {MAX_VOTES} votes, with nothing beside it", param="votes")
    told: list[CastVote | None] = []
    votes: list[Vote] = []
    for i, one in enumerate(given):
        if i % _N_AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            votes.append(_read(gateway, one, f"votes[{i}]."))
            told.append(None)
        except InvalidRequest as error:
            told.append(CastVote(None, "refused", False, VoteError(error.message, error.param, error.code)))
    verdicts = iter(await _cast(gateway, votes, voter))
    answered = [_told(next(verdicts)) if one is None else one for one in told]
    return CastVotes(answered, Counter(one.status for one in answered))


def _read(gateway: Gateway, given: object, at: str = "") -> Vote:
    try:
        return read_vote(given, at)
    except InvalidRequest:
        gateway.feedback.count("refused")
        raise


def _told(verdict: Verdict) -> CastVote:
    error = None if verdict.why is None else VoteError(verdict.why, verdict.param, _CODES[verdict.status])
    return CastVote(verdict.request_id, verdict.status, verdict.status == "replaced", error)


def _error(verdict: Verdict) -> RequestError:
    kind = NotFound if verdict.status == "unknown" else InvalidRequest
    return kind(verdict.why or "", param=verdict.param, code=_CODES[verdict.status])
