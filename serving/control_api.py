"""The control API: decisions without calls, what may be asked for, how everything is doing.

FastAPI, because these routes are rare and their documentation matters; the inference routes are plain ASGI and live
in :mod:`serving.app`. Every ``/v1`` route asks for a key when there are keys; ``/healthz`` and ``/readyz`` do not.

Entry point: :func:`control_api`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request, Response, Security
from fastapi.security import HTTPBearer

from router import Candidate, Policy, Price
from router.domain import Capabilities
from serving import fields
from serving.admission import AdmissionStatus
from serving.course import judged, models_for
from serving.deciding import decide, turn_in
from serving.errors import NotFound
from serving.explanation import RuledExplanation, told
from serving.exploring import explore
from serving.gateway import Gateway
from serving.keys import Principal
from serving.messages_models import MessagesModel, MessagesModels, messages_model, messages_models
from serving.metrics import CONTENT_TYPE, Observed, exposition
from serving.pool import DeploymentStatus
from serving.question import read_question
from serving.records import RecordStatus
from serving.scenario_settings import SCENARIO
from serving.shadow import shadowed
from serving.shadow_tally import ShadowStatus
from serving.state import State

_ROUTE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "prompt": {"type": "string", "description": "A single message; or a body of any API."},
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "input": {"description": "A string, or a list of items: a Responses body."},
                        "api": {
                            "enum": ["chat", "responses", "messages", "completions"],
                            "description": "Whose body it is; absent: told by its fields, `completions` never.",
                        },
                        "model": {"type": "string", "default": "auto"},
                        "turnout": {"$ref": "#/components/schemas/Dials"},
                    },
                },
                "example": {"prompt": "What is 17 * 23?", "turnout": {"threshold": 0.8}},
            }
        },
    }
}


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the process, or the whole gateway, can serve."""

    status: str
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One name that ``model`` accepts, in the OpenAI shape and with what we know of it.

    ``policy`` is of aliases; ``price`` (null when unknown), ``like`` and ``is_emulated`` are of candidates.
    """

    id: str
    created: int
    owned_by: str
    object: str = "model"
    policy: Policy | None = None
    price: Price | None = None
    like: str | None = None
    is_emulated: bool = False


@dataclass(frozen=True, slots=True)
class Models:
    """All of them."""

    data: list[Model]
    object: str = "list"


@dataclass(frozen=True, slots=True)
class DeletedResponse:
    """A kept response that is no longer."""

    id: str
    object: str = "response"
    deleted: bool = True


@dataclass(frozen=True, slots=True)
class PoolDeployment:
    """A deployment and its live status."""

    provider: str
    model: str
    is_emulated: bool
    status: DeploymentStatus


@dataclass(frozen=True, slots=True)
class PoolCandidate:
    """A candidate: what it costs and can do, whose predictions it borrows, how its deployments are doing.

    ``price`` is null when unknown; ``is_in_bundle`` is false when the bundle predicts nothing for it;
    ``is_embedder`` is true where it embeds text and nothing decides for it.
    """

    name: str
    like: str | None
    is_in_bundle: bool
    price: Price | None
    capabilities: Capabilities
    parameters: Mapping[str, object]
    deployments: list[PoolDeployment]
    is_embedder: bool = False


@dataclass(frozen=True, slots=True)
class PoolExploration:
    """How often is explored, and what that has cost today (UTC) beyond the policy's own choices, in this process."""

    share: float
    max_usd_per_day: float
    spent_usd: float
    reserved_usd: float
    n_explored: int


@dataclass(frozen=True, slots=True)
class PoolView:
    """The whole pool as it is now; ``records`` says whether the records of requests are still being kept.

    ``admission`` says how much is in hand and how much was turned away; ``exploration`` is by scenario, "" of requests
    without one; ``shadow`` is null where no challenger is configured.
    """

    bundle: str
    loaded_unix_s: float
    default_preset: str
    presets: Mapping[str, Policy]
    records: RecordStatus
    admission: AdmissionStatus
    exploration: Mapping[str, PoolExploration]
    shadow: ShadowStatus | None
    candidates: list[PoolCandidate]


def control_api(gateway: Gateway) -> APIRouter:
    """Make the routes over one gateway.

    Parameters
    ----------
    gateway : Gateway

    Returns
    -------
    APIRouter
    """
    api = APIRouter()
    started_unix_s = time.time()

    async def principal(request: Request) -> Principal:
        return gateway.ready().keys.authenticate(request.scope["headers"])

    asking = Depends(principal)
    asks_key = [Security(HTTPBearer(auto_error=False, description="A key of `turnout key new`."))]

    @api.get("/healthz", tags=["health"])
    async def healthz() -> Health:
        """Say that the process lives."""
        return Health("ok")

    @api.get("/readyz", tags=["health"], responses={503: {"description": "Not yet, or no longer."}})
    async def readyz() -> Health:
        """Say whether requests can be served: 503 until bundle and connections are ready, and from SIGTERM on."""
        gateway.drain.check()
        return Health("ready", gateway.ready().bundle_id)

    @api.post("/v1/route", tags=["routing"], dependencies=asks_key, openapi_extra=_ROUTE_BODY)
    async def route(request: Request, caller: Principal = asking) -> RuledExplanation:
        """Decide, call nobody: the body of a Chat, Responses, Messages or completions request, or just a prompt.

        Says of every rule whether it matches, and the first condition that does not hold.
        """
        raw, headers = await request.body(), request.scope["headers"]
        asked, api = read_question(fields.request_of(raw), headers)
        state = gateway.ready()
        turn = turn_in(gateway.conversations, state, caller, asked, headers, raw)
        decided = decide(state, gateway.pool, caller, asked, api, turn=turn)
        decided = explore(decided, state, gateway.pool, gateway.exploration, asked.prompt, turn, time.time())
        beside = await asyncio.to_thread(shadowed, state, decided, asked.prompt, gateway.pool.speeds())
        return told(decided, judged(state, caller, asked, api), caller.may_use, beside)

    @api.get("/v1/models", tags=["inference"], dependencies=asks_key, response_model=None)
    async def models(
        request: Request, caller: Principal = asking, limit: int = 1000, after_id: str = "", before_id: str = ""
    ) -> Models | MessagesModels:
        """List every name that `model` accepts: auto, auto:PRESET, scenario:NAME, candidates and exact aliases.

        In the OpenAI shape; in Anthropic's, page by page, for those who send `anthropic-version`.
        """
        state = gateway.ready()
        names = models_for(state, caller)
        if "anthropic-version" in request.headers:
            return messages_models(state, names, limit, after_id, before_id)
        return Models([_model(state, name) for name in names])

    @api.get("/v1/models/{model:path}", tags=["inference"], dependencies=asks_key, response_model=None)
    async def model(request: Request, model: str, caller: Principal = asking) -> Model | MessagesModel:
        """Describe one name; what the key may not use does not exist."""
        state = gateway.ready()
        if model not in models_for(state, caller):
            raise NotFound("no such model: GET /v1/models lists them", param="model")
        return messages_model(state, model) if "anthropic-version" in request.headers else _model(state, model)

    @api.get("/v1/responses/{response}", tags=["inference"], dependencies=asks_key)
    async def kept_response(response: str, caller: Principal = asking) -> Response:
        """Return a response that is kept for `previous_response_id` (`responses.keep_for_s`)."""
        kept = gateway.responses.get(caller.name, response)
        if kept is None:
            raise NotFound("no such response is kept for this key", param="response_id", code="not_found")
        return Response(kept.response, media_type="application/json")

    @api.delete("/v1/responses/{response}", tags=["inference"], dependencies=asks_key)
    async def forget_response(response: str, caller: Principal = asking) -> DeletedResponse:
        """Forget a kept response."""
        if not gateway.responses.delete(caller.name, response):
            raise NotFound("no such response is kept for this key", param="response_id", code="not_found")
        return DeletedResponse(response)

    @api.get("/v1/pool", tags=["routing"], dependencies=asks_key)
    async def pool(caller: Principal = asking) -> PoolView:
        """Show candidates, prices, capabilities, the live status of their deployments, and that of the records.

        All of it is of the requests that passed: nothing is probed, which would cost money.
        """
        state = gateway.ready()
        status = {row.deployment: row for row in gateway.pool.snapshot()}
        return PoolView(
            bundle=state.bundle_id,
            loaded_unix_s=state.loaded_unix_s,
            default_preset=state.settings.routing.default,
            presets=state.router.presets,
            records=gateway.records.status(),
            admission=gateway.admission.status(),
            exploration=_exploration(gateway, state),
            shadow=gateway.shadow.status(state),
            candidates=[
                _pool_candidate(state, candidate, status)
                for candidate in state.everyone.values()
                if caller.may_use(candidate.name)
            ],
        )

    @api.get(
        "/metrics",
        tags=["health"],
        dependencies=asks_key,
        response_class=Response,
        responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}},
    )
    async def scrape(caller: Principal = asking) -> Response:
        """Expose the pool's counts to Prometheus: requests, times, tokens, costs, health, and the records'."""
        state = gateway.ready()
        return Response(
            exposition(
                Observed(
                    deployments=[row for row in gateway.pool.snapshot() if caller.may_use(row.candidate)],
                    histograms=gateway.pool.histograms(),
                    retries=gateway.pool.retries,
                    records=gateway.records.status(),
                    admission=gateway.admission.status(),
                    feedback=gateway.feedback.status(),
                    exploration=_exploration(gateway, state),
                    shadow=gateway.shadow.status(state),
                    bundle=state.bundle_id,
                    loaded_unix_s=state.loaded_unix_s,
                    started_unix_s=started_unix_s,
                )
            ),
            media_type=CONTENT_TYPE,
        )

    return api


def _exploration(gateway: Gateway, state: State) -> dict[str, PoolExploration]:
    now = time.time()
    return {
        name: PoolExploration(
            rate.share, rate.max_usd_per_day, account.spent_usd, account.reserved_usd, account.n_explored
        )
        for name, rate in state.explores.items()
        for account in [gateway.exploration.status(name, now)]
    }


def _model(state: State, name: str) -> Model:
    created = int(state.loaded_unix_s)
    meant = state.meant(name)
    if meant in state.aliases:
        scenario = state.scenarios.get(meant.removeprefix(SCENARIO)) if meant.startswith(SCENARIO) else None
        if scenario is not None:
            decides = None if scenario.candidate else scenario.policy or state.settings.routing.default
            return Model(name, created, "turnout", policy=None if decides is None else state.router.policy(decides))
        preset = meant.partition(":")[2] or state.settings.routing.default
        return Model(name, created, "turnout", policy=state.router.policy(preset))
    candidate = state.candidate(meant)
    ways = [d for d in state.deployments.values() if d.candidate == meant]
    return Model(
        name,
        created,
        ways[0].provider,
        price=candidate.price,
        like=candidate.like,
        is_emulated=any(d.is_emulated for d in ways),
    )


def _pool_candidate(state: State, candidate: Candidate, status: Mapping[str, DeploymentStatus]) -> PoolCandidate:
    known = {column.name for column in state.router.bundle.manifest.candidates}
    return PoolCandidate(
        name=candidate.name,
        like=candidate.like,
        is_in_bundle=candidate.name in known,
        price=candidate.price,
        capabilities=candidate.capabilities,
        parameters=dict(candidate.parameters),
        deployments=[
            PoolDeployment(d.provider, d.model, d.is_emulated, status[d.name])
            for d in state.deployments.values()
            if d.candidate == candidate.name
        ],
        is_embedder=candidate.name in state.embedders,
    )
