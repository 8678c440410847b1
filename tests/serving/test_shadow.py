"""A challenger in the shadow: asked beside the champion, never in its way, told in records and in the pool.

The challenger is the tiny bundle with ``small`` predicted at .84 for "Say hello.": ``balanced`` (.75) goes to it, not
to ``medium``; so does ``quality``, which in the challenger's own presets is .83, and not to ``large`` as with .85.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from router import Policy, Prompt, bundle
from router.errors import NoEligibleCandidate
from router.predictors import Predictor
from serving.asked import parse_chat
from serving.deciding import Decided, decide
from serving.errors import SettingsError
from serving.experiment import defined
from serving.explain_command import explain as explain_command
from serving.keys import ANONYMOUS
from serving.pool import Pool
from serving.shadow import Shadow, Shadowed, policy_in
from serving.shadow_tally import ShadowTally
from serving.state import State, build
from serving.trial import Setting, Trial

Write = Callable[..., Path]


def toml(folder: Path, share: float = 1.0, most: int = 64) -> str:
    return f'[shadow]\nbundle = "{folder}"\nshare = {share}\nmax_in_flight = {most}\n'


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def write_rival(tiny_bundle: Path, tiny_bundle_files: dict[str, bytes]) -> Write:
    """Return a function (folder, version) that writes the challenger."""
    champion = bundle.load(tiny_bundle)

    def write(folder: Path, version: str = "1") -> Path:
        files = dict(tiny_bundle_files)
        graph = onnx.load_from_string(files["quality.onnx"])
        for weights in graph.graph.initializer:
            if weights.name.endswith(".b"):
                raised = numpy_helper.to_array(weights) + np.array([0.0, 0.0, 0.15], np.float32)
                weights.CopyFrom(numpy_helper.from_array(raised, weights.name))
        files["quality.onnx"] = graph.SerializeToString()
        files["parity.npz"] = bundle.parity(champion.encoder, Predictor(files, 2, 3), ("Say hello.", "And 17 * 23?"))
        presets = {**champion.manifest.presets, "quality": Policy("threshold", 0.83, "quality")}
        manifest = replace(champion.manifest, name="rival", version=version, presets=presets)
        bundle.write(folder, manifest, files, overwrite=True)
        return folder

    return write


@pytest.fixture
def rival(write_rival: Write, tmp_path: Path) -> Path:
    return write_rival(tmp_path / "rival")


@pytest.fixture
def state(configure, pool_toml, rival: Path) -> State:
    return build(configure(toml(rival) + pool_toml), is_offline=True)


@pytest.fixture
def shadow(state: State) -> Iterator[Shadow]:
    made = Shadow()
    made.follow(state)
    yield made
    made.close()


def decided_by(state: State, content: str = "Say hello.", **more: object) -> tuple[Decided, Prompt]:
    asked = parse_chat({"model": "auto", "messages": [{"role": "user", "content": content}], **more})
    return decide(state, Pool(state.candidate_of()), ANONYMOUS, asked), asked.prompt


def wait(job) -> Shadowed:
    """Wait for the thread, and take what it says."""
    for _ in range(2000):
        if job.shadowed is not None:
            return job.taken()
        threading.Event().wait(0.005)
    raise AssertionError("the challenger did not decide")


async def test_the_record_says_what_the_challenger_would_have_done(start, pool_toml, rival) -> None:
    async with start(toml(rival) + pool_toml) as gateway:
        for model, champions, its in (
            ("auto", "medium", "small"),
            ("auto:quality", "large", "small"),
            ("auto:price", "small", "small"),
        ):
            said = await gateway.chat(model=model, emulate={"delay_s": 0.05})
            record = gateway.records.kept[-1]
            assert (said.headers["x-turnout-candidate"], record.candidate, record.bundle) == (
                champions,
                champions,
                "tiny@1",
            )
            assert (record.shadow_bundle, record.shadow_candidate) == ("rival@1", its)
            assert record.shadow_quality == pytest.approx(0.84, abs=1e-3)
            assert record.shadow_cost_usd == pytest.approx((2.5 * 0.1 + 100 * 0.4) / 1e6)
        await gateway.chat(model="large", emulate={"delay_s": 0.05})
        assert gateway.records.kept[-1].shadow_bundle is None, "nothing is decided where somebody is named"


async def test_the_pool_and_the_metrics_sum_it_up(start, pool_toml, rival) -> None:
    async with start(toml(rival) + pool_toml) as gateway:
        slowly = {"delay_s": 0.2}
        for _ in range(4):
            asked = [gateway.chat(model=name, emulate=slowly) for name in ("auto", "auto:price") for _ in range(30)]
            await asyncio.gather(*asked)
        await eventually(lambda: gateway.gateway.shadow.status(gateway.gateway.ready()).n == 240)
        told = (await gateway.client.get("/v1/pool")).json()["shadow"]
        assert (told["bundle"], told["champion"], told["problem"]) == ("rival@1", "tiny@1", None)
        assert (told["n"], told["n_dropped"], told["n_failed"], told["agreement"]) == (240, 0, 0, 0.5)
        assert 0 < told["agreement_low"] < 0.5 < told["agreement_high"] < 1
        small, medium = (2.5 * 0.1 + 100 * 0.4) / 1e6, (2.5 * 1 + 200 * 4) / 1e6
        assert told["saving"] == pytest.approx(1 - 2 * small / (small + medium), abs=1e-6)
        assert told["saving_low"] < told["saving"] < told["saving_high"] <= 1
        assert told["quality_change"] == pytest.approx((0.84 - 0.8) / 2, abs=1e-3)
        exposed = (await gateway.client.get("/metrics")).text
        assert 'turnout_shadow_decisions{bundle="rival@1"} 240.0' in exposed
        assert 'turnout_shadow_agreement{bundle="rival@1"} 0.5' in exposed


async def test_without_a_challenger_nothing_is_asked(start, pool_toml) -> None:
    async with start(pool_toml) as gateway:
        await gateway.chat()
        assert gateway.records.kept[-1].shadow_bundle is None
        assert (await gateway.client.get("/v1/pool")).json()["shadow"] is None
        assert "shadow" not in {thread.name for thread in threading.enumerate()}
        assert "# TYPE turnout_shadow_agreement gauge" in (await gateway.client.get("/metrics")).text


def test_a_busy_challenger_is_passed_by_and_that_is_counted(state: State, shadow: Shadow, monkeypatch) -> None:
    decided, prompt = decided_by(state)
    few = replace(state, settings=replace(state.settings, shadow=replace(state.settings.shadow, max_in_flight=2)))
    may_go_on = threading.Event()
    route = state.challenger.router.route
    monkeypatch.setattr(state.challenger.router, "route", lambda *a, **k: may_go_on.wait(10) and route(*a, **k))
    jobs = [shadow.ask(few, decided, prompt, {}, f"req_{n}") for n in range(5)]
    assert [job is None for job in jobs] == [False, False, True, True, True]
    assert shadow.status(few).n_dropped == 3
    may_go_on.set()
    assert wait(jobs[1]).candidate == "small"
    assert shadow.ask(few, decided, prompt, {}, "req_9") is not None


def test_a_share_is_drawn_by_the_requests_id(state: State, shadow: Shadow) -> None:
    decided, prompt = decided_by(state)
    half = replace(
        state, settings=replace(state.settings, shadow=replace(state.settings.shadow, share=0.5, max_in_flight=10**6))
    )
    first = [shadow.ask(half, decided, prompt, {}, f"req_{n}") is not None for n in range(600)]
    again = [shadow.ask(half, decided, prompt, {}, f"req_{n}") is not None for n in range(600)]
    assert first == again and 230 < sum(first) < 370


def test_the_prompt_goes_with_the_request(state: State, shadow: Shadow, monkeypatch) -> None:
    class Words(str):
        """Text that can be watched."""

    decided, prompt = decided_by(state)
    may_go_on = threading.Event()
    route = state.challenger.router.route
    monkeypatch.setattr(state.challenger.router, "route", lambda *a, **k: may_go_on.wait(10) and route(*a, **k))
    busy = shadow.ask(state, decided, prompt, {}, "req_1")
    words = Words("a secret")
    seen = weakref.ref(words)
    waiting = shadow.ask(state, decided, Prompt.of(words), {}, "req_2")
    del words
    assert seen() is not None
    assert waiting.taken() is None, "its request is over before the challenger came to it"
    assert seen() is None
    may_go_on.set()
    assert wait(busy).candidate == "small"
    shadow.close()
    assert shadow.status(state).n == 1, "what is over is not decided any more"


def test_what_a_challenger_cannot_decide_is_counted_and_the_next_is_decided(state: State, shadow: Shadow) -> None:
    decided, prompt = decided_by(state)
    nobody = decided._replace(constraints=replace(decided.constraints, allow=("nobody",)))
    with pytest.raises(NoEligibleCandidate):
        state.challenger.router.route(prompt, None, nobody.constraints)
    broken = decided._replace(constraints=None)
    jobs = [shadow.ask(state, one, prompt, {}, "req") for one in (nobody, broken, decided)]
    assert wait(jobs[2]).candidate == "small"
    assert (jobs[0].taken(), jobs[1].taken()) == (None, None)
    assert (shadow.status(state).n_failed, shadow.status(state).n) == (2, 1)


def test_constraints_hold_in_the_shadow_and_chance_is_not_the_champions_choice(state: State, shadow: Shadow) -> None:
    decided, prompt = decided_by(state, turnout={"deny": ["small"]})
    assert wait(shadow.ask(state, decided, prompt, {}, "req")).candidate == "medium"
    assert shadow.status(state).agreement == 1.0
    drawn = decided.decision
    drawn = replace(drawn, candidate="large", is_explored=True, explorable=("medium", "large"))
    wait(shadow.ask(state, decided._replace(decision=drawn), prompt, {}, "req"))
    assert shadow.status(state).agreement == 1.0


def test_what_an_experiment_puts_first_is_no_choice_of_the_champions(state: State, shadow: Shadow) -> None:
    arms = [{"name": "control", "share": 0.5}, {"name": "dear", "share": 0.5, "candidate": "large"}]
    settings = {"control": Setting(), "dear": Setting(candidate="large")}
    trial = Trial(defined({"name": "x", "on": "auto", "unit": "user", "arms": arms}), settings, bytes(32))
    comparing = replace(state, trials={"auto": trial})
    asked = {}
    for i in range(8):
        decided, prompt = decided_by(comparing, user=f"u{i}")
        job = shadow.ask(comparing, decided, prompt, {}, "req")
        asked[decided.entry.arm, decided.decision.candidate] = None if job is None else wait(job).candidate
    assert asked == {("control", "medium"): "small", ("dear", "large"): None}


def test_a_preset_is_the_challengers_own_and_a_policy_of_the_callers_is_the_callers(state: State) -> None:
    router = state.challenger.router
    named, _ = decided_by(state, model="auto:quality")
    assert policy_in(router, named).value == 0.83
    own, _ = decided_by(state, turnout={"threshold": 0.61})
    assert policy_in(router, own).value == 0.61
    hurried, _ = decided_by(state, model="auto:latency")
    assert policy_in(router, hurried).kind == "latency"
    assert policy_in(router, hurried._replace(priority="batch")).kind == "threshold"


BAD = {
    "damaged": lambda folder: (folder / "CARD.md").write_bytes(b"edited"),
    "corrupt": lambda folder: (folder / "quality.onnx").write_bytes(b"nonsense"),
    "a stranger in it": lambda folder: (folder / "more.bin").write_bytes(b"x"),
}


async def test_a_place_that_cannot_be_looked_at_keeps_nobody_from_serving(start, pool_toml, tmp_path) -> None:
    async with start(toml(tmp_path / ("x" * 300)) + pool_toml) as gateway:
        assert (await gateway.chat()).status_code == 200
        assert (await gateway.client.get("/v1/pool")).json()["shadow"]["problem"]


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
async def test_a_bad_challenger_is_logged_and_the_champion_serves(start, pool_toml, rival, damage, caplog) -> None:
    damage(rival)
    with caplog.at_level("INFO", "turnout"):
        async with start(toml(rival) + pool_toml) as gateway:
            assert (await gateway.chat()).headers["x-turnout-bundle"] == "tiny@1"
            told = (await gateway.client.get("/v1/pool")).json()["shadow"]
            assert told["bundle"] is None and told["problem"]
            assert await gateway.app.reloader.reload(), "it keeps no reload of the champion from happening"
    assert "shadow_refused" in caplog.messages


async def test_no_challenger_and_the_champion_itself_are_no_fault(start, pool_toml, tmp_path, tiny_bundle, caplog):
    with caplog.at_level("INFO", "turnout"):
        for folder, said in ((tmp_path / "none", "there is no challenger"), (tiny_bundle, "it is the champion")):
            async with start(toml(folder) + pool_toml) as gateway:
                await gateway.chat(emulate={"delay_s": 0.02})
                assert gateway.records.kept[-1].shadow_bundle is None
                assert (await gateway.client.get("/v1/pool")).json()["shadow"]["problem"] == said
    assert not {"shadow_refused", "shadow_loaded"} & set(caplog.messages)


async def test_the_challengers_folder_is_watched(start, pool_toml, tmp_path, write_rival, caplog) -> None:
    link = tmp_path / "challenger"
    versions = [write_rival(tmp_path / "versions" / f"rival@{n}", str(n)) for n in (1, 2)]

    def point(target: Path) -> None:
        fresh = tmp_path / ".fresh"
        fresh.symlink_to(target)
        os.replace(fresh, link)

    async with start(toml(link) + pool_toml, watch_bundle_s=0.01) as gateway:

        def present() -> str | None:
            return gateway.gateway.ready().challenger.bundle_id

        champion = gateway.gateway.ready().router
        assert present() is None
        for version in (0, 1, 0):
            point(versions[version])
            await eventually(lambda: present() == f"rival@{version + 1}")  # noqa: B023
            await gateway.chat(emulate={"delay_s": 0.05})
            assert gateway.records.kept[-1].shadow_bundle == f"rival@{version + 1}"
            assert gateway.gateway.shadow.status(gateway.gateway.ready()).n == 1, "another pair, another count"
        with caplog.at_level("INFO", "turnout"):
            (versions[0] / "CARD.md").write_bytes(b"edited")
            await eventually(lambda: "shadow_refused" in caplog.messages)
            await asyncio.sleep(0.05)
        assert caplog.messages.count("shadow_refused") == 1
        assert present() == "rival@1", "the last good one stays"
        assert gateway.gateway.ready().challenger.problem
        link.unlink()
        await eventually(lambda: present() is None)
        assert gateway.gateway.ready().router is champion, "the champion was not touched"


async def test_challengers_that_were_swapped_out_are_freed_at_once(start, pool_toml, tmp_path, write_rival) -> None:
    folder = tmp_path / "rival"
    write_rival(folder, "0")
    async with start(toml(folder) + pool_toml) as gateway:
        former = []
        gc.collect()
        gc.disable()
        try:
            for n in range(1, 11):
                await gateway.chat(emulate={"delay_s": 0.02})
                former.append(weakref.ref(gateway.gateway.ready().challenger.router))
                write_rival(folder, str(n))
                await gateway.app.reloader._follow_challenger()
                assert gateway.gateway.ready().challenger.bundle_id == f"rival@{n}"
            gateway.records.kept.clear()
            await eventually(lambda: not any(ref() for ref in former))
        finally:
            gc.enable()


async def test_a_new_champion_keeps_the_challenger_that_is_loaded(start, pool_toml, rival, caplog) -> None:
    async with start(toml(rival) + pool_toml) as gateway:
        before = gateway.gateway.ready().challenger.router.bundle
        with caplog.at_level("INFO", "turnout"):
            caplog.clear()  # another test may have left the logger talking while this gateway started
            assert await gateway.app.reloader.reload()
        assert gateway.gateway.ready().challenger.router.bundle is before
        assert "shadow_loaded" not in caplog.messages


async def test_route_and_explain_say_it(start, pool_toml, rival, configure) -> None:
    async with start(toml(rival) + pool_toml) as gateway:
        said = (await gateway.client.post("/v1/route", json={"prompt": "Say hello."})).json()
        assert said["candidate"] == "medium"
        assert (said["shadow"]["bundle"], said["shadow"]["candidate"]) == ("rival@1", "small")
        named = (await gateway.client.post("/v1/route", json={"prompt": "Say hello.", "model": "large"})).json()
        assert named["shadow"] is None
        file = gateway.gateway.ready().settings.source
    told = CliRunner().invoke(explain_command, ["Say hello.", "--config", str(file)])
    assert "in the shadow rival@1 would choose small" in told.output, told.output


def test_bounds_hold_at_every_look() -> None:
    random = np.random.default_rng(3)
    n_wrong = 0
    for _ in range(60):
        tally, is_wrong = ShadowTally(), False
        for n in range(1, 801):
            own, its = random.lognormal(-7, 1), random.lognormal(-7.2, 1)
            tally.add(bool(random.random() < 0.7), own, its, 0.0)
            if n % 40 == 0:
                seen = tally.status("b", "a", None, 1.0)
                if seen.agreement_low is not None:
                    truth = 1 - np.exp(-0.2)
                    is_wrong |= not seen.agreement_low <= 0.7 <= seen.agreement_high
                    is_wrong |= not seen.saving_low <= truth <= seen.saving_high
        n_wrong += is_wrong
    assert n_wrong <= 6, "of sixty pairs of sequences at 95 % each"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[shadow]\nshare = 2\n", "shadow.share = 2: expected a number from 0 to 1"),
        ("[shadow]\nmax_in_flight = 0\n", "shadow.max_in_flight = 0: expected a whole number from 1"),
        ("[shadow]\nbundel = 'x'\n", "shadow.bundel: unknown key"),
    ],
)
def test_settings_that_cannot_be_are_refused(configure, pool_toml, written: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        configure(written + pool_toml)
    assert expected in str(caught.value)
