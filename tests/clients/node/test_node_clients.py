"""The openai package for Node and Vercel's AI SDK, unchanged, in front of a provider of each dialect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.clients]

SCENARIO = json.loads(Path(__file__).parents[1].joinpath("python", "scenario.json").read_text("utf-8"))


@pytest.mark.parametrize("model", ["auto", "large"])
@pytest.mark.parametrize("upstream", ["chat", "responses", "messages", "gemini"])
@pytest.mark.parametrize("client", ["openai-node", "ai-sdk"])
def test_a_client_completes_its_exchanges(client, upstream, model, program_of, run_program, noted, gateways) -> None:
    script = program_of(client)
    gateway = gateways[upstream]
    gateway.provider.received = []
    with noted(client, upstream, model):
        finished = run_program("node", script, gateway.key, gateway.origin, model)
        assert finished.status == 0, finished
        report = json.loads(finished.said)
        assert not report["failed"], "\n\n".join(f"{name}: {why}" for name, why in report["failed"].items())
        assert report["found"]
        measured = [f"{degrees}, measured by {script.stem}".encode() for degrees in SCENARIO["weather"].values()]
        bodies = [received.body for received in gateway.provider.received]
        assert any(all(result in body for result in measured) for body in bodies)
