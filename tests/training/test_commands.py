from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import routing_data
from router.bundle import load
from training.commands import encoder, evaluate, predict, train
from training.predict import COLUMNS

TINY = "[heads]\nkinds = ['mlp']\nhidden = 8\nn_nets = 1\nepochs = 2\nmin_steps = 20\n[evaluation]\nn_resamples = 50\n"


def run(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


def test_train_prints_the_table_and_says_simulated(tmp_path, sample):
    (tmp_path / "tiny.toml").write_text(TINY)
    out = tmp_path / "models" / "mine" / "7"
    arguments = ("--data", sample, "--out", out, "--config", tmp_path / "tiny.toml", "--no-tracking")
    result = run(train, *arguments, "--seed", 3, "--candidates", "*-small", "--candidates", "*-large")
    assert result.exit_code == 0, result.output
    for words in ("SIMULATED", "mine@7", "nAIQ", "best single", "hull", "oracle", "preset quality", "CPT(50)"):
        assert words in result.output
    manifest = load(out).manifest
    assert [c.name for c in manifest.candidates] == ["sample-large", "sample-small"]
    assert manifest.training["config"]["seed"] == 3
    again = run(train, *arguments)
    assert again.exit_code == 1 and "--overwrite" in again.output


def test_train_names_the_key_that_is_wrong(tmp_path, sample):
    (tmp_path / "bad.toml").write_text("[heads]\nhiden = 8\n")
    result = run(train, "--data", sample, "--out", tmp_path / "m" / "1", "--config", tmp_path / "bad.toml")
    assert result.exit_code == 1
    assert "unknown key 'hiden'; the nearest known key is 'hidden'" in result.output


@pytest.fixture
def prompts(tmp_path):
    frame = pd.DataFrame({"prompt_id": ["1", "2", "3"], "prompt": ["What is 2 + 2?", "Sort: pear, fig", "x" * 9_000]})
    frame.to_parquet(tmp_path / "p.parquet")
    frame.to_csv(tmp_path / "p.csv", index=False)
    frame.to_json(tmp_path / "p.jsonl", orient="records", lines=True)
    return tmp_path


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.jsonl"])
def test_predict_writes_one_row_per_prompt_and_candidate(name, prompts, trained):
    out = prompts / "new" / "predictions.parquet"
    result = run(predict, "--bundle", trained.directory, "--prompts", prompts / name, "--out", out)
    assert result.exit_code == 0, result.output
    frame = pd.read_parquet(out)
    assert tuple(frame.columns) == COLUMNS
    assert frame["prompt_id"].tolist() == [i for i in ("1", "2", "3") for _ in range(4)]
    assert frame["candidate"].tolist()[:4] == ["sample-large", "sample-medium", "sample-nano", "sample-small"]
    assert ((frame["quality_low"] <= frame["quality"]) & (frame["quality"] <= frame["quality_high"])).all()
    assert (frame["cost_usd"] > 0).all()
    # cost = input tokens · price + output tokens · price, at the sample's own prices of 5 and 20 USD per million.
    rate = next(c.input_tokens_per_character for c in load(trained.directory).manifest.candidates)
    expected = (14 * rate * 5 + frame["output_tokens"][0] * 20) / 1e6
    assert frame["cost_usd"][0] == pytest.approx(expected, rel=1e-4)


def test_predict_takes_prices_and_leaves_unknown_ones_null(prompts, trained):
    (prompts / "prices.toml").write_text('["sample-nano"]\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 1.0\n')
    out = prompts / "o.parquet"
    arguments = ("--bundle", trained.directory, "--prompts", prompts / "p.csv", "--out", out)
    assert run(predict, *arguments, "--prices", prompts / "prices.toml").exit_code == 0
    frame = pd.read_parquet(out)
    nano = frame["candidate"] == "sample-nano"
    assert frame.loc[~nano, "cost_usd"].isna().all()
    assert frame.loc[nano, "cost_usd"].to_numpy() == pytest.approx(frame.loc[nano, "output_tokens"].to_numpy() / 1e6)
    (prompts / "prices.toml").write_text('["sample-nono"]\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 1.0\n')
    wrong = run(predict, *arguments, "--prices", prompts / "prices.toml")
    assert wrong.exit_code == 1 and "the nearest is 'sample-nano'" in wrong.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt_id,text\n1,hi\n", "column prompt is missing; found prompt_id, text"),
        ("prompt_id,prompt\n1,hi\n2, \n", "row 1: prompt_id or prompt is empty"),
        ("prompt_id,prompt\n1,hi\n1,ho\n", "row 1: prompt_id '1' is there twice"),
        ("prompt_id,prompt\n", "there is no row"),
    ],
)
def test_predict_names_what_is_wrong_with_the_prompts(text, message, tmp_path, trained):
    (tmp_path / "p.csv").write_text(text)
    arguments = ("--prompts", tmp_path / "p.csv", "--out", tmp_path / "o.parquet")
    result = run(predict, "--bundle", trained.directory, *arguments)
    assert result.exit_code == 1 and message in result.output
    assert not (tmp_path / "o.parquet").exists()


def test_evaluate_uses_the_rows_held_out_and_repeats_the_report(trained, sample):
    result = run(evaluate, "--bundle", trained.directory, "--data", sample, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["rows"] == "held out from this bundle's training"
    assert report["n_prompts"] == trained.report["n_prompts"]
    assert report["points_from"] == "the bundle's validation rows"
    for name, entry in trained.report["metrics"].items():
        assert report["metrics"][name]["value"] == pytest.approx(entry["value"], abs=2e-3), name


def test_evaluate_of_all_rows_warns(trained, sample):
    result = run(evaluate, "--bundle", trained.directory, "--data", sample, "--rows", "all")
    assert result.exit_code == 0, result.output
    assert "they flatter it" in result.output and "SIMULATED" in result.output
    assert "2,000 prompts (all)" in result.output


def test_evaluate_on_other_data_and_fewer_candidates_chooses_points_on_half(trained, sample, tmp_path):
    table = routing_data.read(sample).select(np.arange(600), ["sample-nano", "sample-large"])
    routing_data.write(table, tmp_path / "two")
    result = run(evaluate, "--bundle", trained.directory, "--data", tmp_path / "two", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["rows"] == "all"
    assert report["points_from"] == "the other half of these rows"
    assert 200 < report["n_prompts"] < 400
    assert {"apgr", "cpt_50", "cpt_80"} <= set(report["metrics"])


def test_evaluate_says_when_no_candidate_is_shared(tiny_bundle, sample):
    result = run(evaluate, "--bundle", tiny_bundle, "--data", sample)
    assert result.exit_code == 1
    assert "the data has no candidate of the bundle" in result.output


def test_a_missing_bundle_is_one_line(tmp_path, sample):
    result = run(evaluate, "--bundle", tmp_path / "none", "--data", sample)
    assert result.exit_code == 1 and "there is no bundle at" in result.output


def test_encoder_export_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "something").write_text("x")
    result = run(encoder, "export", "model", "--out", tmp_path)
    assert result.exit_code == 1 and "not an empty folder" in result.output


def test_of_a_refitted_bundle_nothing_is_held_out(trained, sample):
    from dataclasses import replace

    from training.errors import NotEnoughData
    from training.measure import measure
    from training.pipeline import load as load_table

    bundle = load(trained.directory)
    config = {**bundle.manifest.training["config"], "refit": True}
    refitted = replace(
        bundle, manifest=replace(bundle.manifest, training={**bundle.manifest.training, "config": config})
    )
    with pytest.raises(NotEnoughData, match="nothing is held out"):
        measure(refitted, load_table([sample]))


def test_predict_to_a_place_that_cannot_be_written_is_one_line(prompts, trained, tmp_path):
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(
        predict,
        ["--bundle", str(trained.directory), "--prompts", str(prompts), "--out", str(tmp_path / "file" / "p.parquet")],
    )
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
