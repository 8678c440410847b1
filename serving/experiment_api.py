"""Experiments over HTTP: made, looked at, stopped, promoted; each change is answered once it is on disk.

For keys with ``admin = true``, and for the anonymous caller of this machine; for all others nothing is served here.
Entry point: :func:`experiment_api`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import HTTPBearer

from serving import fields
from serving.errors import InvalidRequest, NotFound
from serving.experiment import Experiment, defined
from serving.experiment_status import Readout
from serving.experiments import Experiments
from serving.gateway import Gateway
from serving.keys import Principal
from serving.promotion import permanent
from serving.storage.experiments import ExperimentRow

_SALT = re.compile(r"[0-9a-f]{64}")
#: Of a reason that an operator gives.
_MOST_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class ArmView:
    """An arm: what it sets, and whether it was stopped (``why``, since when)."""

    name: str
    share: float
    sets: str
    is_control: bool
    is_stopped: bool
    why: str = ""
    stopped_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """An experiment as it is kept.

    ``state`` is running, stopped or promoted; ``problem`` says why it is not in force on this replica although it
    should be; ``permanent`` are the lines of a config file that make the promoted arm permanent.
    """

    name: str
    on: str
    unit: str
    state: str
    why: str
    arms: list[ArmView]
    promoted: str | None
    created_unix_s: float
    ended_unix_s: float | None
    problem: str | None
    definition: Mapping[str, Any]
    permanent: str | None = None


@dataclass(frozen=True, slots=True)
class ExperimentStatus:
    """An experiment and its figures at this look."""

    experiment: ExperimentView
    readout: Readout


@dataclass(frozen=True, slots=True)
class ExperimentList:
    """All of them, the oldest first."""

    data: list[ExperimentView]
    object: str = "list"


_DEFINITION = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["name", "on", "arms"],
                    "properties": {
                        "name": {"type": "string", "description": "Used once: records refer to it for ever."},
                        "on": {"type": "string", "description": "auto, auto:PRESET or scenario:NAME."},
                        "unit": {"enum": ["key", "user", "conversation"], "default": "key"},
                        "arms": {
                            "type": "array",
                            "description": "name, share, and one of threshold, willingness_to_pay_usd, preset, "
                            "candidate, or none; bundle alone or with a policy.",
                            "items": {"type": "object", "required": ["name", "share"]},
                        },
                        "guards": {
                            "type": "array",
                            "description": "metric (cost_usd, quality, latency_s, failures), and worse_by or "
                            "worse_by_share.",
                            "items": {"type": "object", "required": ["metric"]},
                        },
                        "metric": {"enum": ["cost_usd", "quality", "latency_s", "failures"], "default": "cost_usd"},
                        "alpha": {"type": "number", "default": 0.05},
                        "min_units": {"type": "integer", "default": 50},
                        "ends_at": {"type": "string", "format": "date-time"},
                        "salt": {
                            "type": "string",
                            "pattern": "^[0-9a-f]{64}$",
                            "description": "The same for replicas that share no database; absent: a random one.",
                        },
                    },
                },
                "example": {
                    "name": "cheaper",
                    "on": "auto",
                    "unit": "user",
                    "arms": [{"name": "control", "share": 0.5}, {"name": "cheap", "share": 0.5, "threshold": 0.6}],
                    "guards": [{"metric": "failures", "worse_by": 0.02}],
                },
            }
        },
    }
}


def _body(**properties: Mapping[str, str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def experiment_api(gateway: Gateway, experiments: Experiments) -> APIRouter:
    """Make the routes.

    Parameters
    ----------
    gateway : Gateway
    experiments : Experiments

    Returns
    -------
    APIRouter
    """
    bearer = HTTPBearer(auto_error=False, description="A key with `admin = true`.")

    async def admin(request: Request) -> Principal:
        caller = gateway.ready().keys.authenticate(request.scope["headers"])
        if not caller.is_admin:
            raise NotFound("nothing is served at this path", code="not_found")
        return caller

    api = APIRouter(prefix="/v1/experiments", tags=["experiments"], dependencies=[Depends(admin), Security(bearer)])

    def view(row: ExperimentRow) -> ExperimentView:
        return _view(gateway, experiments, row)

    @api.get("")
    async def every() -> ExperimentList:
        """List experiments: those in force, and those that were."""
        return ExperimentList([view(row) for row in await experiments.all()])

    @api.post("", status_code=201, openapi_extra=_DEFINITION)
    async def create(request: Request) -> ExperimentView:
        """Begin an experiment. One acts on a request at most, so there may be none in force on the same."""
        asked = fields.request_of(await request.body())
        salt = asked.pop("salt", None)
        if salt is not None and not (isinstance(salt, str) and _SALT.fullmatch(salt)):
            raise InvalidRequest("salt: expected 64 hexadecimal digits", param="salt")
        return view(await experiments.create(defined(asked), None if salt is None else bytes.fromhex(salt)))

    @api.get("/{name}")
    async def status(name: str) -> ExperimentStatus:
        """Read an experiment out: figures with confidence sequences, so looking early and often is allowed."""
        row = await experiments.get(name)
        return ExperimentStatus(view(row), await experiments.readout(name))

    @api.post("/{name}/stop", openapi_extra=_body(arm={"type": "string"}, why={"type": "string"}))
    async def stop(name: str, request: Request) -> ExperimentView:
        """Stop it, so that the settings hold again; or one `arm`, whose share then goes to the control."""
        asked = fields.request_of(await request.body() or b"{}")
        arm = fields.optional(asked, "arm", str, "the name of an arm")
        why = fields.optional(asked, "why", str, "a sentence")
        return view(await experiments.stop(name, arm, (why or "asked for")[:_MOST_CHARACTERS]))

    @api.post("/{name}/promote", openapi_extra=_body(arm={"type": "string"}, force={"type": "boolean"}))
    async def promote(name: str, request: Request) -> ExperimentView:
        """Give everything it acts on to one `arm` from now on, until it is stopped; `permanent` says what to write."""
        asked = fields.request_of(await request.body() or b"{}")
        arm = fields.optional(asked, "arm", str, "the name of an arm")
        if arm is None:
            raise fields.wrong("arm", arm, "the name of an arm")
        is_forced = fields.optional(asked, "force", bool, "true or false") or False
        return view(await experiments.promote(name, arm, is_forced=is_forced))

    return api


def _view(gateway: Gateway, experiments: Experiments, row: ExperimentRow) -> ExperimentView:
    document = json.loads(row.definition)
    experiment = defined(document)
    lines = None
    if row.promoted is not None:
        lines = permanent(experiment, experiment.arm(row.promoted), gateway.ready().router.presets)
    return ExperimentView(
        row.name,
        row.acts_on,
        experiment.unit,
        row.state,
        row.why,
        [_arm(experiment, i, row) for i in range(len(experiment.arms))],
        row.promoted,
        row.created_unix_s,
        row.ended_unix_s,
        experiments.problem(row.name),
        document,
        lines,
    )


def _arm(experiment: Experiment, i: int, row: ExperimentRow) -> ArmView:
    arm = experiment.arms[i]
    halt = row.halted.get(arm.name)
    return ArmView(
        arm.name,
        arm.share,
        arm.sets(),
        arm is experiment.control,
        halt is not None,
        halt.why if halt else "",
        halt.at_unix_s if halt else None,
    )
