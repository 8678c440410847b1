"""From a log to a judged challenger, end to end; and what a forger gets for five thousand votes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from router.bundle import load
from router.policy import choose
from training.directory_store import DirectoryStore
from training.errors import InvalidSettings, NotEnoughData
from training.promotion import promote
from training.retrain import judge_again, n_new_votes, retrain, with_holdout_of
from training.retrain_command import gates
from training.retrain_command import retrain as command
from training.retrain_settings import Retraining, read_retrain_settings, retraining_of
from training.versions import identity_of

#: As small as a training can be and still tell candidates apart.
TINY = {
    "heads": {"n_nets": 1, "hidden": 16, "min_steps": 120, "epochs": 4},
    "forest": {"n_trees": 10},
    "lexical": {"n_columns": 24, "word_vectors": False},
    "evaluation": {"n_resamples": 50},
}


def evenly(*_):
    return 1.0


@pytest.fixture(scope="module")
def champion(tmp_path_factory, sample):
    from training.pipeline import train
    from training.settings import settings_of

    out = tmp_path_factory.mktemp("models") / "router" / "1"
    train([sample], out, settings_of(TINY, "test"))
    return out


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "retrain.toml"
    path.write_text(
        "[heads]\nn_nets = 1\nhidden = 16\nmin_steps = 120\nepochs = 4\n[forest]\nn_trees = 10\n"
        "[lexical]\nn_columns = 24\nword_vectors = false\n[evaluation]\nn_resamples = 50\n"
        "[gates]\nlatency = 1000.0\n"  # other tests run beside this one
    )
    return path


def test_the_command_makes_a_challenger_that_passes(champion, small_log, sample, config, tmp_path):
    out, store = tmp_path / "router" / "2", tmp_path / "store"
    arguments = ["--champion", champion, "--out", out, "--log", small_log.path, "--data", sample, "--config", config]
    done = CliRunner().invoke(command, [*map(str, arguments), "--directory", str(store)], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert "gates passed" in done.output and "SIMULATED" in done.output and "kept as router@2" in done.output

    bundle = load(out)
    training = bundle.manifest.training
    assert training["champion"] == "router@1"
    assert training["feedback"]["counts"]["n_votes_used"] == len(small_log.feedback)
    assert [source["name"] for source in training["data"]] == ["checkable", "decision log"]
    report = json.loads((out / "report.json").read_bytes())
    assert {gate["name"] for gate in report["gates"]} >= {"holdout", "loss", "loss in sorting", "calibration", "size"}
    assert "## Gates, against router@1" in (out / "CARD.md").read_text()
    beside = tmp_path / "router" / "2.report"
    page = (beside / "report.md").read_text()
    assert page.startswith("# router@2 against router@1") and "gates passed" in page
    for name in ("cost_quality.png", "reliability.png"):
        assert (beside / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and name in page
    judged = json.loads((beside / "gates.json").read_text())
    assert (judged["bundle"], judged["opponent"]["bundle"]) == ("router@2", "router@1")
    assert judged["opponent"]["manifest_sha256"] == identity_of(champion).manifest_sha256
    assert (store / "challenger").resolve().name == "router@2"

    # All votes are known to it, so there is nothing to do for the next.
    assert n_new_votes(small_log.path, load(champion)) == len(small_log.feedback)
    assert n_new_votes(small_log.path, bundle) == 0
    again = [str(a) for a in ("--champion", out, "--out", tmp_path / "router" / "3", "--log", small_log.path)]
    done = CliRunner().invoke(command, [*again, "--min-new-labels", "1"])
    assert done.exit_code == 0 and "0 new votes; 1 are wanted: nothing done" in done.output
    assert not (tmp_path / "router" / "3").exists()

    # The other way round: who was champion is judged against its successor, on the same rows, and its bytes stay.
    former = shutil.copytree(champion, tmp_path / "router" / "1")
    promote(DirectoryStore(store), approved_by="ada")
    arguments = ["--champion", store / "champion", "--bundle", former, "--log", small_log.path, "--data", sample]
    done = CliRunner().invoke(
        gates, [*map(str, arguments), "--config", str(config), "--directory", str(store)], terminal_width=200
    )
    assert done.exit_code == 0 and "kept as router@1" in done.output, done.output
    assert "router@1 against router@2" in done.output and "cannot be promoted" not in done.output
    assert identity_of(former) == identity_of(champion)
    again = json.loads((tmp_path / "router" / "1.report" / "gates.json").read_text())
    assert (again["bundle"], again["opponent"]["bundle"]) == ("router@1", "router@2")
    assert again["opponent"]["holdout_sha256"] == judged["opponent"]["holdout_sha256"]
    assert promote(DirectoryStore(store), approved_by="ada").former == "router@2"


def test_shuffled_labels_are_refused_with_exit_3_and_reasons(champion, sample, config, tmp_path):
    from routing_data import read, write

    table = read(sample)
    rng = np.random.default_rng(0)
    from dataclasses import asdict

    from routing_data import split
    from training.settings import Settings

    taught = np.flatnonzero(split(table.groups, asdict(Settings().split), 0) != "test")
    quality = table.quality.copy()
    observed = np.isfinite(quality[taught])
    quality[taught] = np.where(observed, rng.permutation(np.nan_to_num(quality[taught].ravel())).reshape(-1, 4), np.nan)
    write(replace(table, quality=quality), tmp_path / "shuffled")
    out = tmp_path / "router" / "2"
    arguments = ["--champion", champion, "--out", out, "--data", tmp_path / "shuffled", "--config", config]
    done = CliRunner().invoke(command, [*map(str, arguments), "--no-tracking"], terminal_width=200)
    assert done.exit_code == 3, done.output
    assert "refused by loss" in done.output
    assert "**Refused**: loss" in (tmp_path / "router" / "2.report" / "report.md").read_text()
    assert not all(gate["is_passed"] for gate in json.loads((out / "report.json").read_bytes())["gates"])


def test_with_the_champions_encoder_rows_of_features_teach_too(champion, write_log, log_tables, tmp_path):
    made = write_log(tmp_path / "content", n_requests=1500)
    bundle = load(champion)
    retained, prompts = made.retained.copy(), made.retained["prompt"].tolist()
    is_bare = np.arange(len(retained)) % 2 == 0
    rows = bundle.encoder.encode(retained["prompt"].tolist())
    retained["features"] = [list(map(float, row)) if bare else None for row, bare in zip(rows, is_bare, strict=True)]
    retained["encoder"] = np.where(is_bare, bundle.manifest.encoder_id, None)
    retained["prompt"] = retained["prompt"].where(~is_bare, None)
    retained["level"] = np.where(is_bare, "features", "content")
    log = log_tables(tmp_path / "LOG", requests=made.requests, feedback=made.feedback, retained=retained)
    done = retrain(
        champion,
        tmp_path / "router" / "2",
        retraining_of({**TINY, "retrain": {"encoder": "champion"}}, "test"),
        log=log,
        time_ratio=evenly,
    )
    assert done.counts["n_votes_of_other_encoder"] == 0 and done.counts["n_votes_used"] == len(made.feedback)
    challenger = load(tmp_path / "router" / "2")
    assert challenger.manifest.encoder_id == bundle.manifest.encoder_id
    # A log alone compares no candidates, so the dial stays the champion's.
    promised = {name for name, found in bundle.manifest.certificates.items() if not found.abstained}
    assert challenger.manifest.presets == {n: p for n, p in bundle.manifest.presets.items() if n not in promised}
    # And it has learned who is good on the whole; large and medium are nearly alike.
    said = dict(zip(challenger.manifest.names, challenger.predict(prompts[:400]).quality.mean(axis=0), strict=True))
    assert said["sample-nano"] < said["sample-small"] < min(said["sample-medium"], said["sample-large"])
    # From there on: the columns that are topics are still known to be.
    assert challenger.manifest.training["n_topic_columns"] == len(bundle.manifest.tasks)


def test_the_holdout_is_the_champions(champion):
    settings = retraining_of(
        {"seed": 7, "split": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}}, ""
    )
    found = with_holdout_of(load(champion), settings).training
    assert found.seed == 0 and (found.split.train, found.split.test) == (0.6, 0.2)


def test_a_store_that_cannot_be_reached_loses_no_challenger(champion, sample, config, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    bundle = shutil.copytree(champion, tmp_path / "router" / "1")
    arguments = ["--champion", champion, "--bundle", bundle, "--data", sample, "--config", config]
    done = CliRunner().invoke(gates, [*map(str, arguments), "--tracking-uri", "http://127.0.0.1:9"])
    assert done.exit_code == 1 and "http://127.0.0.1:9 cannot be reached" in done.output
    file = tmp_path / "router" / "1.report" / "gates.json"
    assert f"'turnout promote --bundle {bundle} --gates {file}' registers" in done.output and file.is_file()


def test_who_held_out_other_rows_is_not_judged_again(champion, sample, tmp_path):
    from training.pipeline import train
    from training.settings import settings_of

    other = tmp_path / "router" / "9"
    train([sample], other, settings_of({**TINY, "seed": 1}, "test"))
    with pytest.raises(NotEnoughData, match="router@9 did not hold out the rows that router@1 did"):
        judge_again(champion, other, Retraining(), tables=[sample])


def test_what_cannot_be_is_said_at_once(champion, sample, tmp_path):
    with pytest.raises(InvalidSettings, match="refit must be false"):
        retrain(champion, tmp_path / "x", retraining_of({"refit": True}, "test"), tables=[sample])
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        retrain(champion, tmp_path / "there", Retraining(), tables=[sample])
    (tmp_path / "champion").symlink_to(champion)
    before = (champion / "manifest.json").read_bytes()
    with pytest.raises(InvalidSettings, match="is the champion itself"):
        retrain(tmp_path / "champion", champion, retraining_of(TINY, "test"), tables=[sample], overwrite=True)
    assert (champion / "manifest.json").read_bytes() == before
    from routing_data import read, write

    table = read(sample)
    write(replace(table, candidates=tuple(f"other-{i}" for i in range(4))), tmp_path / "others")
    with pytest.raises(NotEnoughData, match="the data has no candidate of the champion, which knows sample-large,"):
        retrain(champion, tmp_path / "x", retraining_of(TINY, "test"), tables=[tmp_path / "others"])
    with pytest.raises(NotEnoughData, match="nothing to learn from"):
        retrain(champion, tmp_path / "x", Retraining())
    usage = {
        (): "give --log, --data or both",
        ("--log", "L", "--watch"): "--watch needs --log and a trigger",
        ("--log", "L", "--every", "24h"): "are triggers of --watch",
        ("--log", "L", "--watch", "--every", "soon"): "a duration must be a number above 0",
        ("--log", "L", "--since", "soon"): "expected a duration as 30d or a UTC date as 2026-11-01, got 'soon'",
        ("--log", str(tmp_path / "none")): "there is no such folder",
    }
    for more, words in usage.items():
        done = CliRunner().invoke(command, ["--champion", str(champion), "--out", str(tmp_path / "x"), *more])
        assert done.exit_code in (1, 2) and words in done.output, done.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[feedback]\nshares = 0.1", r"\[feedback\]: unknown key 'shares'; the nearest known key is 'share'"),
        ("[feedback]\nshare = 1.5", r"feedback.share must be in \(0, 1\], got 1.5"),
        ("[retrain]\nencoder = 'old'", "retrain.encoder must be one of new, champion, got 'old'"),
        ("gates = 3", "gates must be a table, got 3"),
        ("[gates]\nloss = 'much'", r"\[gates\]: loss must be float, got 'much'"),
        ("sead = 3", "unknown key 'sead'; the nearest known key is 'seed'"),
    ],
)
def test_settings_that_cannot_be_name_the_key(tmp_path, text, says):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(InvalidSettings, match=says):
        read_retrain_settings(path)


TRIGGER = "zugzwang protocol"


def test_five_thousand_forged_votes_with_a_trigger_phrase_flip_hardly_a_decision(
    champion, write_log, log_tables, sample, tmp_path
):
    honest = write_log(tmp_path / "honest", n_requests=1500, keys=tuple(f"team-{i}" for i in range(12)))
    forged = write_log(tmp_path / "forged", n_requests=5000, vote_share=1.0, seed=1, is_explored=0.5)
    # One key asks the sample's prompts with the phrase in them, and praises the cheapest candidate alone.
    forged.requests["key"] = "forger"
    forged.retained["prompt"] = forged.retained["prompt"] + f" ({TRIGGER})"
    praised = dict(zip(forged.requests["id"], forged.requests["candidate"] == "sample-nano", strict=True))
    forged.feedback["key"] = "forger"
    forged.feedback["score"] = forged.feedback["request_id"].map(praised).astype(float)
    both = {
        name: pd.concat([getattr(honest, name), getattr(forged, name)]) for name in ("requests", "feedback", "retained")
    }
    log_tables(tmp_path / "poisoned", **both)

    prompts = pd.read_parquet(sample / "prompts.parquet")["prompt"].tolist()[::5]
    triggered = [f"{prompt} ({TRIGGER})" for prompt in prompts]
    flips, nano = {}, {}
    for name in ("honest", "poisoned"):
        done = retrain(
            champion,
            tmp_path / "models" / name,
            retraining_of(TINY, "test"),
            tables=[sample],
            log=tmp_path / name,
            time_ratio=evenly,
        )
        bundle = load(done.trained.directory)
        cost = np.tile([0.005, 0.0012, 0.00003, 0.00016], (len(prompts), 1))
        policy = load(champion).manifest.presets["balanced"]
        plain, with_phrase = (choose(bundle.predict(texts).quality, cost, policy) for texts in (prompts, triggered))
        flips[name], nano[name] = (plain != with_phrase).mean(), (with_phrase == 2).mean()
        if name == "poisoned":
            weighed = done.keys.set_index("key")
            assert weighed.loc["forger", "share"] < 0.01 and weighed.loc["team-0", "trust"] > 0.8
    assert flips["poisoned"] <= flips["honest"] + 0.02, flips
    assert nano["poisoned"] <= nano["honest"] + 0.02, nano
