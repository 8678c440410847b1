"""Dials: limits of headers and body add up, and what is not understood is refused instead of passed over."""

from __future__ import annotations

import pytest

from serving import dials
from serving.errors import InvalidRequest


def test_lists_of_several_headers_are_one() -> None:
    read = dials.read(None, [(b"x-turnout-deny", b"medium"), (b"x-turnout-deny", b"large, small")])
    assert read.constraints.deny == ("medium", "large", "small")


@pytest.mark.parametrize("name", [b"x-turnout-max-cost-usd", b"x-turnout-threshold", b"x-turnout-explain"])
def test_what_is_no_list_is_sent_once(name: bytes) -> None:
    with pytest.raises(InvalidRequest, match="sent twice") as caught:
        dials.read(None, [(name, b"0.5"), (name, b"0.5")])
    assert caught.value.param == name.decode()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        (b"x-turnout-region", "x-turnout-regions"),
        (b"x-turnout-max_cost_usd", "x-turnout-max-cost-usd"),
        (b"x_turnout_deny", "x-turnout-deny"),
        (b"x-turnout-conversations", "x-turnout-conversation"),
    ],
)
def test_a_header_of_ours_that_means_nothing_is_refused_with_the_nearest(name: bytes, nearest: str) -> None:
    with pytest.raises(InvalidRequest, match=nearest):
        dials.read(None, [(name, b"canary")])


def test_headers_that_others_read_are_no_dials() -> None:
    assert dials.read(None, [(b"x-turnout-conversation", b"c1"), (b"x-turnoutish", b"1")]) == dials.Dials()


def test_limits_of_header_and_body_add_up() -> None:
    headers = [
        (b"x-turnout-max-cost-usd", b"0.01"),
        (b"x-turnout-max-latency-s", b"2"),
        (b"x-turnout-deny", b"a"),
        (b"x-turnout-allow", b"a*,b*"),
        (b"x-turnout-regions", b"eu,us"),
        (b"x-turnout-data-policies", b"zdr"),
        (b"x-turnout-threshold", b"0.8"),
    ]
    body = {
        "max_cost_usd": 0.5,
        "max_latency_s": 1,
        "deny": ["b"],
        "allow": ["b*"],
        "regions": ["us", "ch"],
        "data_policies": ["no-training"],
        "threshold": 0.2,
    }
    read = dials.read(body, headers)
    assert (read.constraints.max_cost_usd, read.constraints.max_latency_s) == (0.01, 1.0)
    assert read.constraints.deny == ("a", "b")
    assert (read.constraints.allow, read.also_allow) == (("a*", "b*"), ("b*",))
    assert read.demand.regions == {"us"}
    assert read.demand.data_policies == {"zdr", "no-training"}
    assert read.policy is not None and read.policy.value == 0.2  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["allow", "deny"])
@pytest.mark.parametrize("globs", [["a"] * 65, ["a" * 129]])
def test_globs_are_few_and_short(field: str, globs: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="at most 64 globs of at most 128") as caught:
        dials.read({field: globs})
    assert caught.value.param == f"turnout.{field}"
    dials.read({field: ["a" * 128] * 64})


async def test_what_header_and_body_allow_must_both_hold(start, pool_toml) -> None:
    async with start(pool_toml) as gateway:
        for model in ("auto", "large"):
            both = await gateway.chat(
                model=model, headers={"x-turnout-allow": "large,medium"}, turnout={"allow": ["medium", "small"]}
            )
            if model == "auto":
                assert both.headers["x-turnout-candidate"] == "medium"
            else:
                assert both.status_code == 400
                assert "allow" in both.json()["error"]["message"]
        refused = await gateway.chat(headers={"x-turnout-region": "eu"})
        assert refused.status_code == 400
