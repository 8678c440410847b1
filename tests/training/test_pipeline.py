from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

import routing_data
from router.bundle import load
from router.policy import choose
from router.pricing import expected_cost_usd
from router.routing import Router
from training.errors import NotEnoughData
from training.pipeline import load as load_tables
from training.pipeline import train
from training.settings import HeadSettings, Settings, read_settings


@pytest.fixture(scope="module")
def test_rows(trained, sample):
    """Return the sample's test rows with what the bundle says of them and the known truth."""
    table = routing_data.read(sample)
    parts = routing_data.split(table.groups, asdict(Settings().split), 0)
    table = table.select(parts == "test")
    truth = pd.read_parquet(sample / "truth.parquet").set_index(["prompt_id", "candidate"]).unstack()
    truth = truth.loc[list(table.prompt_ids)]
    probability, cost = (
        truth[name][list(table.candidates)].to_numpy() for name in ("probability", "expected_cost_usd")
    )
    return cost, probability, load(trained.directory).predict(table.prompts)


def test_the_run_leaves_a_bundle_that_loads_and_routes(trained):
    decision = Router.load(trained.directory).route("How many times does the letter r occur in strawberry?")
    assert decision.candidate.startswith("sample-")
    assert decision.bundle == "sample@1"


def test_the_report_says_what_was_measured_on_what(trained):
    report = json.loads((trained.directory / "report.json").read_text())
    assert report["simulated"] is True
    assert sum(report["parts"].values()) == 2000
    assert report["n_prompts"] == report["parts"]["test"]
    for name in ("naiq", "gap_closed", "save_95", "save_99", "save_99_quality", "save_100", "regret", "auc_macro"):
        entry = report["metrics"][name]
        assert entry["low"] <= entry["value"] <= entry["high"], name
    for name in ("brier_macro", "brier_skill_macro", "ece_macro", "cost_error_mean", "p90_coverage_mean"):
        assert report["metrics"][name]["value"] is not None, name
    assert set(report["presets"]) == {"quality", "balanced", "price", "latency"}
    assert report["best_single"] in report["singles"]
    assert report["oracle"]["quality"] >= report["singles"][report["best_single"]]["quality"]
    assert len(report["curve"]) == len(report["oracle_curve"]) > 20


def test_the_manifest_names_data_settings_and_prices(trained):
    manifest = load(trained.directory).manifest
    assert manifest.training["simulated"] is True
    assert manifest.training["data"][0]["licence"] == "Apache-2.0"
    assert manifest.training["config"]["heads"]["n_nets"] == 2
    prices = {c.name: c.reference_price for c in manifest.candidates}
    assert prices["sample-large"].output_usd_per_mtok == pytest.approx(20.0)
    assert all(c.knows_output_tokens and c.n_observed > 1000 for c in manifest.candidates)


def test_the_card_says_simulated(trained):
    assert "SIMULATED" in (trained.directory / "CARD.md").read_text()


def test_predictions_are_calibrated_against_the_known_truth(test_rows):
    _, truth, said = test_rows
    # Calibrated on some 200 binary labels: their mean alone errs by .5 / sqrt(200) = .035; of four, 2.5 times that.
    assert np.abs(said.quality.mean(axis=0) - truth.mean(axis=0)).max() < 2.5 * 0.5 / np.sqrt(200)
    for j in range(truth.shape[1]):
        order = np.argsort(said.quality[:, j])
        gaps = [said.quality[part, j].mean() - truth[part, j].mean() for part in np.array_split(order, 4)]
        assert np.abs(gaps).max() < 0.1
    # What is left of the variance of the truth once the prediction is known.
    assert ((said.quality - truth) ** 2).mean() < 0.35 * truth.var(axis=0).mean()


def test_intervals_hold_the_true_mean_of_prompts_scored_alike(test_rows):
    _, truth, said = test_rows
    inside = []
    for j in range(truth.shape[1]):
        for part in np.array_split(np.argsort(said.quality[:, j]), 6):
            mean = truth[part, j].mean()
            inside.append(said.quality_low[part, j].mean() <= mean <= said.quality_high[part, j].mean())
    assert np.mean(inside) >= 0.7


def test_decisions_have_little_regret_against_the_known_truth(test_rows, trained):
    cost, truth, said = test_rows
    w = trained.manifest.presets["balanced"].value
    utility = truth * w - cost
    predicted_cost = expected_cost_usd(
        [column.reference_price for column in trained.manifest.candidates], said.input_tokens, said.output_tokens
    )
    choice = choose(said.quality, predicted_cost, trained.manifest.presets["balanced"])
    best, own = utility.max(axis=1).mean(), utility[np.arange(len(choice)), choice].mean()
    assert best - own < 0.3 * (best - utility.mean())
    # And less than the best that one candidate for all can do.
    assert own >= utility.mean(axis=0).max() - 0.01 * w


def test_output_token_quantiles_cover(trained):
    for name, entry in trained.report["candidates"].items():
        assert 0.82 <= entry["p90_coverage"]["value"] <= 0.97, name
        assert abs(entry["cost_error"]["value"]) < 0.12, name


def test_the_same_seed_makes_the_same_bundle_and_missing_outcomes_are_allowed(tmp_path, sample):
    table = routing_data.read(sample)
    table = table.select(np.arange(500))
    hidden = np.random.default_rng(0).random(table.quality.shape) < 0.3
    quality = np.where(hidden, np.float32("nan"), table.quality)
    routing_data.write(replace(table, quality=quality), tmp_path / "holes")
    settings = Settings(
        heads=HeadSettings(kinds=("mlp",), hidden=8, n_nets=1, epochs=2, min_steps=20),
        evaluation=replace(Settings().evaluation, n_resamples=50),
    )
    made = [train([tmp_path / "holes"], tmp_path / "m" / name / "1", settings) for name in ("a", "b")]
    files = [
        {k: v.sha256 for k, v in run.manifest.files.items() if k not in ("CARD.md", "report.json")} for run in made
    ]
    assert files[0] == files[1]
    other = train([tmp_path / "holes"], tmp_path / "m" / "c" / "1", replace(settings, seed=1, refit=True))
    assert {k: other.manifest.files[k].sha256 for k in files[0]} != files[0]
    assert other.report["refit"] is True


def test_an_existing_bundle_is_not_replaced_unasked(trained, sample, small_config):
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        train([sample], trained.directory, read_settings(small_config))


def test_candidates_are_chosen_by_glob(sample):
    assert load_tables([sample], ("*-nano", "*-large")).candidates == ("sample-large", "sample-nano")
    with pytest.raises(NotEnoughData, match="no candidate matches gpt"):
        load_tables([sample], ("gpt*",))


def test_too_little_data_is_said_so(tmp_path, sample):
    routing_data.write(routing_data.read(sample).select(np.arange(40)), tmp_path / "few")
    with pytest.raises(NotEnoughData, match="the train part has"):
        train([tmp_path / "few"], tmp_path / "m" / "1", Settings())
