"""What goes to a provider that speaks the client's own dialect."""

from __future__ import annotations

import orjson
import pytest

from serving.asked import Asked
from serving.asked import parse_chat as parse
from serving.client_api import CLIENT_APIS
from serving.deployment import Deployment, line_of
from serving.errand import Errand
from serving.providers.quirks import NO_QUIRKS
from serving.reasoning_states import ReasoningStates
from serving.relay import PassThrough, relay_of

MESSAGES = [{"role": "user", "content": "Say hello."}]
GOOD = {"model": "auto", "messages": MESSAGES}


def to_upstream(asked: Asked, model: str, parameters: dict[str, object]) -> tuple[bytes, tuple[str, ...]]:
    line = line_of("chat", "http://provider/v1", model, {}, parameters)
    deployment = Deployment("d", "c", "p", model, False, NO_QUIRKS, {"chat": line})
    errand = Errand("req_1", "key", "c", 0, asked.body)
    relay = relay_of(CLIENT_APIS["/v1/chat/completions"], asked, deployment, ReasoningStates(), errand)
    assert isinstance(relay, PassThrough)
    return relay.body(), tuple(loss.field for loss in relay.losses)


def test_only_model_and_parameters_change_and_order_is_kept() -> None:
    body = {
        "x_unknown": {"deep": [1, 2.50, None]},
        "model": "auto",
        "turnout": {"threshold": 0.5},
        "messages": MESSAGES,
        "reasoning_effort": "high",
        "temperature": 0.7,
    }
    sent, lost = to_upstream(parse(body), "big-2026", {"reasoning_effort": "low", "seed": 1})
    assert lost == ()
    expected = (
        b'{"x_unknown":{"deep":[1,2.5,null]},"model":"big-2026","messages":[{"role":"user","content":"Say hello."}],'
        b'"reasoning_effort":"low","temperature":0.7,"seed":1}'
    )
    assert sent == expected
    assert body["model"] == "auto", "the client's own body is not touched"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}),
    ],
)
def test_usage_is_always_asked_for_in_a_stream(options: object, expected: object) -> None:
    body = {**GOOD, "stream": True} | ({} if options is None else {"stream_options": options})
    assert orjson.loads(to_upstream(parse(body), "m", {})[0])["stream_options"] == expected


def test_a_plain_request_is_not_given_stream_options() -> None:
    assert b"stream_options" not in to_upstream(parse(GOOD), "m", {})[0]


def test_the_body_a_provider_gets_is_valid_json_of_the_same_values() -> None:
    awkward = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "big": 2**63, "small": 1e-7}
    assert orjson.loads(to_upstream(parse(awkward), "auto", {})[0]) == awkward
