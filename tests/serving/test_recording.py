"""The record: what of a decision it holds, and what the reference candidate would have cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router import Candidate, Price, Router
from router.bundle import load
from router.decision import Outlook
from router.pricing import Usage, charge_usd, counterfactual_usd
from serving import logs, recording
from serving.emulated_faults import Fault
from serving.errors import SettingsError
from serving.recording import outlook_json
from serving.records import NullRecordStore
from serving.reference import reference_cost_usd, reference_of
from serving.state import build

NAN = float("nan")
DEFAULT_BUNDLE = Path(__file__).resolve().parents[2] / "models" / "default"


def outlook(**columns: list) -> Outlook:
    """Make the outlook of two candidates, the second of whom reads twice as many tokens."""
    return Outlook(
        **{
            "candidates": ["a", "b"],
            "like": [None, None],
            "excluded_by": [None, None],
            "quality": [0.123456, 0.9],
            "quality_low": [0.1, 0.8],
            "quality_high": [0.2, 1.0],
            "input_tokens": [100.0, 200.0],
            "output_tokens": [50.04, 80.0],
            "output_tokens_p90": [100.0, 160.0],
            "cost_usd": [0.0000123456789, 0.1],
            "cost_usd_p90": [0.1, 0.2],
            **columns,
        }
    )


def test_an_outlook_is_compact_json_with_null_for_the_unknown() -> None:
    said = outlook_json(
        outlook(excluded_by=[None, "deny"], output_tokens=[50.04, NAN], cost_usd=[0.0000123456789, NAN])
    )
    assert json.loads(said) == [
        ["a", None, 0.1235, 0.1, 0.2, 50.0, 0.000012346],
        ["b", "deny", 0.9, 0.8, 1.0, None, None],
    ]
    assert " " not in said and len(said) < 100


async def test_a_record_says_who_was_decided_for_and_all_that_was_predicted(running) -> None:
    assert (await running.chat("Say hello.")).status_code == 200
    (record,) = running.records.kept
    assert (record.chosen, record.candidate, record.propensity) == ("medium", "medium", 1.0)
    assert (record.is_explored, record.is_emulated, record.retention, record.task) == (False, True, "none", None)
    rows = {name: rest for name, *rest in json.loads(record.outlook)}
    assert rows["medium"][:4] == [None, 0.8, 0.75, 0.85]
    assert list(rows) == ["large", "medium", "small"] and rows["large"][4] == 300.0
    assert rows["medium"][5] == pytest.approx(record.expected_cost_usd, abs=1e-9)
    assert record.policy_version == running.gateway.state.policy_version
    assert len(record.policy_version) == 12 and int(record.policy_version, 16) >= 0


async def test_who_stands_in_after_a_failure_is_not_who_was_chosen(start, pool_toml) -> None:
    server = (
        '[server]\nport = 0\nbundle = "{bundle}"\ndatabase = ""\nwatch_bundle_s = {watch_bundle_s}\n{settings}\n'
        '[[providers]]\nname = "emulator"\nemulated = true\n'
    )
    async with start(pool_toml, server=server) as gateway:
        gateway.provider.faults.put("medium-at-provider", Fault(status=500))
        assert (await gateway.chat("Say hello.")).status_code == 200
        (record,) = gateway.records.kept
        assert record.chosen == "medium" and record.candidate == "large" and record.attempts


async def test_the_reference_costs_what_it_would_have_cost(running) -> None:
    await running.chat("Say hello.")
    await running.chat("What is 17 * 23?")
    cheap, dear = running.records.kept
    assert cheap.reference == dear.reference == "large"  # the dearest, since the tiny bundle names no anchor
    price = Price(10.0, 40.0)
    # All candidates of the tiny bundle read a quarter of a token per character; large is predicted to write 300.
    assert cheap.reference_cost_usd == charge_usd(Usage(cheap.input_tokens, 300), price)
    assert cheap.reference_cost_usd > cheap.cost_usd
    assert dear.candidate == "large" and dear.reference_cost_usd == dear.cost_usd


async def test_a_request_that_failed_has_no_counterfactual(running) -> None:
    running.provider.faults.put("*", Fault(status=500))
    assert (await running.chat("Say hello.")).status_code >= 500
    assert (await running.chat("Say hello.", model="nobody")).status_code == 404
    failed, unknown = running.records.kept
    assert (failed.chosen, failed.reference, failed.reference_cost_usd) == ("medium", "large", None)
    assert (unknown.chosen, unknown.outlook, unknown.reference, unknown.policy_version) == (None,) * 4


async def test_the_log_says_what_is_out_of_the_ordinary(running) -> None:
    await running.chat("Say hello.")
    (record,) = running.records.kept
    said = {name: value for name, value in recording.logged(record).items() if value is not None}
    assert not {"propensity", "retention", "experiment", "arm", "signals"} & set(said)
    odd = record._replace(propensity=0.05, retention="content", experiment="e", arm="a", signals="abandoned")
    assert recording.logged(odd)["propensity"] == 0.05
    assert set(recording.logged(odd)) <= set(logs.FIELDS)


async def test_without_a_store_nothing_is_made_for_one(start, pool_toml, monkeypatch) -> None:
    monkeypatch.setattr(recording, "outlook_json", lambda outlook: pytest.fail("made for nobody"))
    async with start(pool_toml, records=NullRecordStore()) as gateway:
        assert (await gateway.chat()).status_code == 200


@pytest.mark.parametrize(
    ("usage", "changes", "expected"),
    [
        (Usage(1000, 7), {}, (2000 * 10 + 80 * 40) / 1e6),
        # Read from the cache or written there: the same shares, at the reference's own prices.
        (Usage(1000, 7, 500, 100), {}, (800 * 10 + 1000 * 1 + 200 * 12.5 + 80 * 40) / 1e6),
        (Usage(None, 7), {}, None),
        (Usage(1000, None), {}, (2000 * 10 + 80 * 40) / 1e6),
        (Usage(1000, 7), {"output_tokens": [50.0, NAN]}, None),
        (Usage(1000, 7), {"excluded_by": [None, "vision"]}, None),
        (Usage(1000, 7), {"excluded_by": [None, "deny"]}, (2000 * 10 + 80 * 40) / 1e6),
        (Usage(1000, 7), {"input_tokens": [0.0, 0.0]}, (1000 * 10 + 80 * 40) / 1e6),
        (Usage(1000, 7), {"candidates": ["a", "c"]}, None),
    ],
)
def test_the_formula_of_the_counterfactual(usage, changes, expected) -> None:
    pool = {"a": Candidate("a", Price(0.1, 0.4)), "b": Candidate("b", Price(10.0, 40.0, 1.0, 12.5))}
    usd = reference_cost_usd(outlook(**changes), "a", usage, 0.001, "b", pool)
    assert usd == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_an_unknown_price_is_an_unknown_cost_and_the_references_own_answer_costs_what_it_cost() -> None:
    assert counterfactual_usd(Usage(10, 10), None, input_scale=1.0, output_tokens=5.0) is None
    assert reference_cost_usd(None, "b", Usage(), 0.25, "b", {}) == 0.25
    assert reference_cost_usd(None, "a", Usage(10, 10), 0.25, "b", {}) is None


def test_the_reference_is_named_or_the_anchor_or_the_best_or_the_dearest(tiny_bundle) -> None:
    tiny, shipped = load(tiny_bundle), load(DEFAULT_BUNDLE)
    assert reference_of(Router(tiny)) == "large"
    assert reference_of(Router(tiny), "small") == "small"
    assert reference_of(Router(shipped)) == shipped.manifest.presets["quality"].anchor
    stand_in = [Candidate("mine", Price(1, 1), like="gpt-4o-2024-05-13"), Candidate("phi-3-mini", Price(99, 99))]
    assert reference_of(Router(shipped, stand_in)) == "mine"
    assert reference_of(Router(shipped, [Candidate("phi-3-mini"), Candidate("unknown", Price(1, 1))])) is None


def test_the_reference_must_answer_and_be_foreseen(configure, pool_toml) -> None:
    with pytest.raises(SettingsError, match=r"routing.reference = 'huge': expected the name of a candidate"):
        configure('[routing]\nreference = "huge"\n' + pool_toml)
    other = pool_toml + '[[candidates]]\nname = "x"\ndeployments = [{ provider = "emulator", model = "x" }]\n'
    with pytest.raises(SettingsError, match=r"routing.reference = 'x': bundle tiny@1 predicts nothing for it"):
        build(configure('[routing]\nreference = "x"\n' + other), is_offline=True)
    assert build(configure('[routing]\nreference = "small"\n' + pool_toml), is_offline=True).reference == "small"


def test_the_policy_version_is_that_of_what_decides(configure, pool_toml) -> None:
    def version(toml: str) -> str:
        return build(configure(toml), is_offline=True).policy_version

    rows = pool_toml.split("\n[[candidates]]")
    base = version(pool_toml)
    assert base == version(rows[0] + "".join("\n[[candidates]]" + row for row in reversed(rows[1:])))
    key = f'\n[[keys]]\nname = "k"\nsha256 = "{"ab" * 32}"\n'
    assert base == version('[routing]\nreference = "small"\nlosses = "strict"\n' + pool_toml + key)
    others = {
        version('[routing]\ndefault = "price"\n' + pool_toml),
        version(pool_toml.replace("input_usd_per_mtok = 1.0", "input_usd_per_mtok = 1.1")),
        version('[routing.presets.price]\nkind = "threshold"\nvalue = 0.4\n' + pool_toml),
        version("[scenarios.s]\nthreshold = 0.5\n" + pool_toml),
        version('[[rules]]\nname = "r"\nscenario = "small"\nhas_tools = true\n' + pool_toml),
        version('[aliases]\n"gpt-*" = "auto"\n' + pool_toml),
    }
    assert len(others) == 6 and base not in others
