"""From a log to a proposal, an experiment, its read-out and its promotion; on a log whose truth is known."""

from __future__ import annotations

import asyncio
import hashlib
import json
import queue
import threading

import httpx
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from router.domain import Policy
from training.decision_log import DecisionLog
from training.errors import GoalUnreachable, NoOverlap, NotEnoughData
from training.ope import Estimate
from training.quality_source import Feedback, Predicted
from training.readout import read_out
from training.replay import read_replay
from training.tune import Stop, Wish, best_of, smoothed, tune
from training.tune_command import tune as command

BINDING = {"scenario": None, "binding": "willingness_to_pay_usd"}


@pytest.fixture(scope="module")
def routed(write_log, log_tables, tmp_path_factory):
    """Return a log of 6,000 requests on ``auto``, 40 % of them explored, and its truth."""
    made = write_log(tmp_path_factory.mktemp("made") / "LOG", n_requests=6_000, is_explored=0.4, seed=3)
    folder = tmp_path_factory.mktemp("routed") / "LOG"
    log_tables(folder, requests=made.requests.assign(**BINDING), feedback=made.feedback)
    return folder, made.truth


@pytest.fixture(scope="module")
def replay(routed):
    return read_replay(DecisionLog(routed[0]))


@pytest.fixture(scope="module")
def feedback(routed, replay):
    return Feedback(replay, DecisionLog(routed[0]).feedback())


def true_quality(replay, truth: pd.DataFrame, policy: Policy) -> float:
    table = truth.loc[replay.ids, list(replay.candidates)].to_numpy()
    return float(table[np.arange(len(table)), replay.choices(policy)].mean())


def test_the_proposal_is_the_cheapest_that_keeps_the_quality_and_really_does(replay, feedback, routed):
    found = tune(replay, feedback, Wish(quality=0.8))
    best = found.proposal
    assert abs(best.quality.value - 0.8) < 0.02  # the dial is fine enough
    at = found.stops.index(best)
    assert best.quality.value > found.stops[at - 3].quality.value and best.cost_usd.value < found.cost_usd.value
    assert true_quality(replay, routed[1], best.policy) == pytest.approx(0.8, abs=0.04)


def stop_of(value: float, quality: float | None, usd: float, error: float = 0.01) -> Stop:
    def about(x: float) -> Estimate:
        return Estimate(x, error, x - 2 * error, x + 2 * error)

    judged = None if quality is None else about(quality)
    return Stop(Policy("threshold", value), about(usd), about(0.0), judged, None, None, 0.5, {})


def test_noise_along_the_dial_is_not_paid_for():
    # The third stop is lucky, the fifth unlucky: bolder stops cannot be worse by what the router knows, so the first
    # four are .7 together and the others .8 and .9.
    qualities, costs = (0.70, 0.69, 0.73, 0.68, 0.80, 0.90), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    stops = [stop_of(0.1 * k, q, usd) for k, (q, usd) in enumerate(zip(qualities, costs, strict=True))]
    assert smoothed(stops) == pytest.approx([0.695, 0.695, 0.705, 0.705, 0.8, 0.9])
    assert best_of(stops, Wish(quality=0.71)) is stops[4]
    assert best_of(stops, Wish(usd_per_1000=4_000)) is stops[2]
    assert best_of(stops, Wish(usd_per_1000=1_500)) is stops[0]
    # A stop that nobody can speak of is never proposed.
    stops[4] = stop_of(0.4, None, 5.0)
    assert best_of(stops, Wish(quality=0.71)) is stops[5]


def test_the_intervals_of_stops_hold_the_truth(replay, feedback, routed):
    stops = [s for s in tune(replay, feedback, Wish(quality=0.5)).stops if s.quality is not None]
    assert len(stops) > 10
    for stop in stops:
        error = stop.quality.value - true_quality(replay, routed[1], stop.policy)
        assert abs(error) < 3.5 * stop.quality.standard_error < 0.12


def test_a_budget_buys_the_best_quality_it_can(replay, feedback):
    dear, poor = (tune(replay, feedback, Wish(usd_per_1000=usd)).proposal for usd in (2.0, 0.1))
    assert poor.cost_usd.value <= 0.0001 and poor.cost_usd.value < dear.cost_usd.value
    assert dear.quality.value > poor.quality.value
    by_wtp = tune(replay, feedback, Wish(usd_per_1000=0.1), "willingness_to_pay_usd").proposal
    assert by_wtp.policy.kind == "willingness_to_pay_usd" and by_wtp.cost_usd.value <= 0.0001


def test_what_cannot_be_had_says_what_comes_nearest(replay, feedback):
    with pytest.raises(GoalUnreachable, match=r"reaches quality 1; the best is threshold 0\.\d+ with 0\.\d+"):
        tune(replay, feedback, Wish(quality=1.0))
    with pytest.raises(GoalUnreachable, match="the cheapest is threshold"):
        tune(replay, feedback, Wish(usd_per_1000=1e-6))


def test_a_log_without_exploration_is_refused_for_feedback_and_not_for_predictions(write_log, log_tables, tmp_path):
    made = write_log(tmp_path / "made", n_requests=1_000, is_explored=0.0)
    log_tables(tmp_path / "LOG", requests=made.requests.assign(**BINDING), feedback=made.feedback)
    replay = read_replay(DecisionLog(tmp_path / "LOG"))
    with pytest.raises(NoOverlap, match=r"of none of .* stops .*expected"):
        tune(replay, Feedback(replay, made.feedback), Wish(quality=0.8))
    found = tune(replay, Predicted(replay), Wish(quality=0.8))
    assert found.proposal.quality.value >= 0.8 and "nothing of it was observed" in found.source


def test_requests_in_which_chance_could_not_choose_freely_say_nothing(write_log, log_tables, tmp_path, replay):
    made = write_log(tmp_path / "made", n_requests=4_000, is_explored=0.4, seed=5)
    rng = np.random.default_rng(0)
    requests = made.requests.assign(**BINDING, explorable=",".join(sorted(made.truth.columns)))
    # In the afternoon the money is spent: who is chosen is the policy's own, for certain.
    spent = (rng.random(len(requests)) < 0.5) & ~requests["is_explored"]
    requests.loc[spent, ["explorable", "propensity"]] = [None, 1.0]
    log_tables(tmp_path / "LOG", requests=requests, feedback=made.feedback)
    replay = read_replay(DecisionLog(tmp_path / "LOG"))
    assert replay.is_open is not None and replay.is_open.sum() == (~spent).sum()
    source = Feedback(replay, made.feedback)
    assert "more where chance could not choose freely" in source.words
    n_voted = np.isin(replay.ids, made.feedback["request_id"])
    assert source.evaluation(replay.chosen).overlap.n == (n_voted & replay.is_open).sum()
    closed = requests.assign(explorable=None)
    closed.loc[closed.index[0], "explorable"] = requests["candidate"].iloc[0]
    log_tables(tmp_path / "CLOSED", requests=closed, feedback=made.feedback)
    with pytest.raises(NotEnoughData, match="chance could choose among all candidates in none"):
        Feedback(read_replay(DecisionLog(tmp_path / "CLOSED")), made.feedback)


def test_signals_are_no_votes(replay, routed):
    votes = DecisionLog(routed[0]).feedback().assign(source="signal")
    with pytest.raises(NotEnoughData, match="has a vote"):
        Feedback(replay, votes)


def run(*arguments, **options):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False, **options)


def test_the_command_proposes(routed):
    said = run("--log", routed[0], "--quality", 0.8)
    assert said.exit_code == 0, said.output
    assert "proposal: threshold = 0." in said.output and "6,000 requests replayed, 0 left out" in said.output
    document = json.loads(run("--log", routed[0], "--usd-per-1000", 0.2, "--by", "predictions", "--json").output)
    assert document["proposal"]["cost_usd"]["value"] <= 0.0002


def test_a_log_of_calls_that_cost_nothing_is_no_division_by_it(write_log, log_tables, tmp_path):
    made = write_log(tmp_path / "made", n_requests=1_000)
    log_tables(tmp_path / "LOG", requests=made.requests.assign(**BINDING, cost_usd=0.0), feedback=made.feedback)
    said = run("--log", tmp_path / "LOG", "--quality", 0.5)
    assert said.exit_code == 0 and "proposal: threshold = 0." in said.output, said.output


def test_labels_need_the_logged_bundle(routed, trained, sample):
    said = run("--log", routed[0], "--quality", 0.8, "--data", sample)
    assert said.exit_code == 2 and "--data and --bundle" in said.output
    said = run("--log", routed[0], "--quality", 0.6, "--data", sample, "--bundle", trained.directory)
    assert said.exit_code == 0 and "labels of" in said.output, said.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give one of"),
        (("--quality", 0.5, "--usd-per-1000", 1), "give one of"),
        (("--quality", 0.5), "--log"),
        (("--read", "x", "--log", "y", "--start", "z"), "--start goes with"),
        (("--promote", "x"), "--promote needs --arm"),
        (("--read", "x", "--log", "nowhere"), "no such folder"),
    ],
)
def test_what_is_missing_is_said(arguments, words):
    said = run(*arguments)
    assert said.exit_code != 0 and words in said.output


CONFIG = """
[server]
port = 0
bundle = "{bundle}"
database = "turnout.sqlite"
[[providers]]
name = "emulator"
emulated = true
[[candidates]]
name = "small"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.4
deployments = [{{ provider = "emulator", model = "small" }}]
[[keys]]
name = "boss"
sha256 = "{sha256}"
admin = true
"""
SECRET = "sk-turnout-boss-00000000000000000"


@pytest.fixture
def gateway(tiny_bundle, tmp_path, monkeypatch):
    """Return the address of a real gateway on loopback, in a thread; its key is in ADMIN_KEY."""
    from serving.app import create_app
    from serving.commands import server_of
    from serving.settings import load

    monkeypatch.setenv("ADMIN_KEY", SECRET)
    config = tmp_path / "turnout.toml"
    config.write_text(CONFIG.format(bundle=tiny_bundle, sha256=hashlib.sha256(SECRET.encode()).hexdigest()))
    settings, ports = load(config), queue.Queue()
    server = server_of(create_app(settings, reread=lambda: settings), settings, ready=ports.put)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        yield f"http://127.0.0.1:{ports.get(timeout=20)}"
    finally:
        server.should_exit = True
        thread.join()


def known(url: str) -> list[dict]:
    headers = {"authorization": f"Bearer {SECRET}"}
    return httpx.get(f"{url}/v1/experiments", headers=headers, trust_env=False).json()["data"]


def test_a_proposal_becomes_an_experiment_and_its_arm_everybodys_once_approved(routed, gateway):
    at = ("--url", gateway, "--key-env", "ADMIN_KEY")
    wanted = ("--log", routed[0], "--quality", 0.8, "--start", "cheaper", "--share", 0.3, *at)
    assert run(*wanted, input="n\n").exit_code == 1 and not known(gateway)
    said = run(*wanted, input="y\n")
    assert said.exit_code == 0 and SECRET not in said.output, said.output
    (made,) = known(gateway)
    assert (made["on"], made["unit"], made["state"]) == ("auto", "key", "running")
    assert [(arm["name"], arm["share"]) for arm in made["arms"]] == [("control", 0.7), ("proposed", 0.3)]
    assert 0 < made["definition"]["arms"][1]["threshold"] < 1
    assert [guard["metric"] for guard in made["definition"]["guards"]] == ["failures", "quality"]
    said = run(*wanted, "--yes")
    assert said.exit_code == 1 and "cheaper" in said.output.splitlines()[-1], "a name is used once"

    ended = ("--promote", "cheaper", "--arm", "proposed", *at)
    assert run(*ended, input="\n").exit_code == 1 and known(gateway)[0]["state"] == "running"
    said = run("--promote", "cheaper", "--arm", "ghost", *at, "--yes")
    assert said.exit_code == 1 and "400: arm: expected one of control, proposed" in said.output
    said = run(*ended, "--yes")
    assert said.exit_code == 0 and "to make it permanent, write" in said.output
    assert known(gateway)[0]["promoted"] == "proposed"


def test_who_is_no_admin_or_asks_for_what_is_not_there_is_told_so(gateway):
    asked = ("--promote", "ghost", "--arm", "x", "--yes", "--url", gateway)
    said = run(*asked)
    assert said.exit_code == 1 and "asks for a key with admin = true: name the variable" in said.output
    said = run(*asked, "--key-env", "ADMIN_KEY")
    assert said.exit_code == 1 and "404: no experiment is named 'ghost'" in said.output


def test_a_gateway_that_is_not_there_or_a_key_that_is_not_set_is_said():
    said = run("--promote", "x", "--arm", "y", "--yes", "--url", "http://127.0.0.1:9")
    assert said.exit_code == 1 and "no gateway answers at http://127.0.0.1:9 (ConnectError)" in said.output
    said = run("--promote", "x", "--arm", "y", "--yes", "--key-env", "NO_SUCH_KEY")
    assert said.exit_code == 1 and "NO_SUCH_KEY is not set" in said.output


@pytest.fixture(scope="module")
def tried(log_tables, tmp_path_factory):
    """Return a log with an experiment of 600 users an arm, 1 to 5 requests each: 30 % cheaper, otherwise alike."""
    rng = np.random.default_rng(0)
    n_of = rng.integers(1, 6, 1_200)
    arm = rng.random(1_200) < 0.5
    unit = np.repeat(np.arange(1_200), n_of)
    n = len(unit)
    usd = 0.002 * rng.lognormal(-0.32, 0.8, n) * np.where(arm[unit], 0.7, 1.0)
    requests = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "time_unix_s": 1_793_750_400.0 + np.arange(n),
            "key": "team",
            "outcome": np.where(rng.random(n) < 0.05, "timeout", "ok"),
            "candidate": "small",
            "cost_usd": usd,
            "total_s": rng.lognormal(0, 0.3, n),
            "experiment": "cheaper",
            "arm": np.where(arm[unit], "proposed", "control"),
            "arm_share": 0.5,
            "unit": [f"u{u}" for u in unit],
        }
    )
    # Once a user of the arm is served by the control: a stopped arm. He counts where he came to.
    requests.loc[n - 1, ["unit", "arm"]] = [requests.loc[requests["arm"] == "proposed", "unit"].iloc[0], "control"]
    feedback = pd.DataFrame(
        {
            "request_id": requests["id"][::2],
            "key": "team",
            "source": "vote",
            "score": (rng.random(len(requests[::2])) < 0.8).astype(float),
            "time_unix_s": requests["time_unix_s"][::2] + 60,
        }
    )
    return log_tables(tmp_path_factory.mktemp("tried") / "LOG", requests=requests, feedback=feedback)


def test_an_experiment_is_read_out_of_the_log(tried):
    found = read_out(DecisionLog(tried), "cheaper")
    frame = DecisionLog(tried).requests()
    says = {trace.metric: trace.says for trace in found.traces}
    assert says["cost_usd"] == "better" and says["failures"] == says["quality"] == "no difference shown yet"
    mean = {arm: part["cost_usd"].mean() for arm, part in frame.iloc[:-1].groupby("arm")}
    cost = next(trace for trace in found.traces if trace.metric == "cost_usd")
    assert cost.difference.value[-1] == pytest.approx(mean["proposed"] - mean["control"])
    assert -0.4 < cost.relative.low[-1] < -0.3 < cost.relative.high[-1] < 0 or cost.relative.value[-1] < -0.2
    assert len(found.times_unix_s) == 80 and found.n_units[-1] == sum(found.n_units_of.values()) == 1_200
    assert found.sample_ratio is not None and found.sample_ratio.p_value > 0.01
    assert not cost.difference.is_said[0]


def test_users_who_come_after_an_arm_was_stopped_count_for_nobody(log_tables, tmp_path):
    rng = np.random.default_rng(1)
    n = 6_000
    place = np.searchsorted([0.5, 0.75], rng.random(n), side="right")
    arm = np.array(["control", "dear", "cheap"])[place]
    # Half-way `dear` is stopped; what comes to it is the control's. Everything costs twice as much from then on.
    is_late = np.arange(n) >= n // 2
    asked = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(n)],
            "time_unix_s": 1_793_750_400.0 + np.arange(n),
            "key": "team",
            "outcome": "ok",
            "candidate": "small",
            "cost_usd": 0.002 * np.where(is_late, 2, 1),
            "total_s": 1.0,
            "experiment": "three",
            "arm": np.where(is_late & (arm == "dear"), "control", arm),
            "arm_share": np.where(arm == "cheap", 0.25, np.where(is_late, 0.75, np.where(arm == "dear", 0.25, 0.5))),
            "unit": [f"u{i}" for i in range(n)],
        }
    )
    # Who came before goes on counting, and who is served by the control in the place of `dear` does not.
    again = asked[: n // 2].assign(id=[f"s{i}" for i in range(n // 2)], time_unix_s=1_793_750_400.0 + n)
    again["arm"] = again["arm"].where(again["arm"] != "dear", "control")
    again["arm_share"] = np.where(again["arm"] == "control", 0.75, 0.25)
    log_tables(tmp_path / "LOG", requests=pd.concat([asked, again]))
    found = read_out(DecisionLog(tmp_path / "LOG"), "three")
    assert found.n_units[-1] == n // 2
    assert found.sample_ratio is not None and found.sample_ratio.p_value > 0.05
    cost = next(trace for trace in found.traces if (trace.arm, trace.metric) == ("cheap", "cost_usd"))
    assert cost.difference.value[-1] == pytest.approx(0.0, abs=1e-9), "alike at every moment, so alike"


def test_the_read_out_is_a_table_and_a_picture(tried, tmp_path):
    picture = tmp_path / "cheaper.png"
    said = run("--log", tried, "--read", "cheaper", "--plot", picture)
    assert said.exit_code == 0, said.output
    assert "no difference shown yet" in said.output and "better" in said.output
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    said = json.loads(run("--log", tried, "--read", "cheaper", "--plot", picture, "--json").output)
    assert said["n_units"]["control"] + said["n_units"]["proposed"] == 1_200
    assert run("--log", tried, "--read", "ghost").output.strip().endswith("it knows cheaper")


def test_estimates_are_plain_numbers(replay, feedback):
    stop = tune(replay, feedback, Wish(quality=0.5)).proposal
    assert isinstance(stop.quality, Estimate) and type(stop.quality.value) is float
