from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import onnx
import pandas as pd
import pytest
from click.testing import CliRunner
from onnx import helper

import routing_data
from router.bundle import load
from training.commands import evaluate
from training.commands import onboard as command
from training.commands import train as train_command
from training.errors import ExportMismatch
from training.newcomer_graph import with_quality

NEW = "sample-medium"


def run(command, *arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def table(sample):
    return routing_data.read(sample)


@pytest.fixture(scope="module")
def three(tmp_path_factory, sample, small_config):
    """Return a bundle trained without the newcomer."""
    out = tmp_path_factory.mktemp("models") / "three" / "1"
    globs = [word for name in ("nano", "small", "large") for word in ("--candidates", f"*-{name}")]
    done = run(train_command, "--data", sample, "--out", out, "--config", small_config, "--no-tracking", *globs)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def held_out(table, three):
    config = load(three).manifest.training["config"]
    return np.flatnonzero(routing_data.split(table.groups, config["split"], config["seed"]) == "test")


@pytest.fixture(scope="module")
def labels(tmp_path_factory, table, held_out):
    """Return 64 labelled prompts, none of the held-out ones."""
    allowed = np.setdiff1d(np.flatnonzero(np.isfinite(table.quality[:, table.candidates.index(NEW)])), held_out)
    rows = np.random.default_rng(4).choice(allowed, 64, replace=False)
    folder = tmp_path_factory.mktemp("labels") / "few"
    routing_data.write(table.select(rows), folder)
    return folder


@pytest.fixture(scope="module")
def four(tmp_path_factory, three, labels):
    out = tmp_path_factory.mktemp("models") / "four" / "2"
    done = run(command, three, "--data", labels, "--candidate", NEW, "--out", out, "--prices", "1.5/6")
    assert done.exit_code == 0, done.output
    assert "64 labels" in done.output and "four@2, 4 candidates" in done.output
    assert "note: the presets were chosen without the new candidate" in done.output
    return out


def test_the_manifest_says_what_was_added_and_how(three, four):
    before, after = load(three).manifest, load(four).manifest
    assert after.names == (*before.names, NEW) and after.id == "four@2"
    assert after.tasks == before.tasks and len(after.tasks) > 1, "the newcomer's column reads the tasks too"
    column = after.candidates[-1]
    assert column.n_observed == 64 and column.knows_output_tokens
    assert asdict(column.reference_price)["output_usd_per_mtok"] == 6.0
    assert column.input_tokens_per_character == pytest.approx(before.candidates[0].input_tokens_per_character, rel=0.05)
    (record,) = after.training["onboarded"]
    assert record["candidate"] == NEW and record["bundle"] == before.id and record["n_labels"] == 64
    kept = {name: p for name, p in before.presets.items() if name not in before.certificates}
    assert after.presets == kept and after.certificate is None
    assert f"## Onboarded: {NEW}" in (four / "CARD.md").read_text()


def test_prices_change_without_any_training(four):
    """Prices belong to who serves: the same bundle routes elsewhere when one changes, with the same predictions."""
    from router import Candidate, Policy, Price, Router

    bundle = load(four)
    chosen, qualities = [], []
    for usd in (0.001, 1_000.0):
        pool = [Candidate(NEW, Price(usd, usd)), Candidate("sample-small", Price(1.0, 1.0))]
        decision = Router(bundle, pool).route("What is 17 * 23?", Policy("threshold", 0.1))
        chosen.append(decision.candidate)
        qualities.append(decision.forecast(NEW).quality)
    assert chosen == [NEW, "sample-small"]
    assert qualities[0] == qualities[1]


def test_it_comes_near_the_truth_and_its_intervals_cover(four, sample, table, held_out):
    truth = pd.read_parquet(sample / "truth.parquet").query("candidate == @NEW").set_index("prompt_id")["probability"]
    true = truth.loc[[table.prompt_ids[i] for i in held_out]].to_numpy()
    said = load(four).predict([table.prompts[i] for i in held_out])
    assert abs(said.quality[:, -1].mean() - true.mean()) < 0.06
    assert np.corrcoef(said.quality[:, -1], true)[0, 1] > 0.6
    low, high = said.quality_low[:, -1], said.quality_high[:, -1]
    assert np.mean((low <= true) & (true <= high)) > 0.75
    for alike in np.array_split(np.argsort(said.quality[:, -1]), 8):
        assert low[alike].mean() <= true[alike].mean() <= high[alike].mean()
    tokens = table.output_tokens[held_out, table.candidates.index(NEW)]
    known = np.isfinite(tokens)
    assert said.output_tokens[known, -1].mean() == pytest.approx(tokens[known].mean(), rel=0.2)


def test_the_others_stay_bit_for_bit(three, four, table):
    before, after = load(three).predict(table.prompts[:50]), load(four).predict(table.prompts[:50])
    for name in ("quality", "quality_low", "quality_high", "output_tokens", "output_tokens_p90"):
        assert np.array_equal(getattr(after, name)[:, :-1], getattr(before, name)), name


def test_evaluate_measures_the_new_pool_and_says_whose_labels_it_may_hold(four, sample):
    done = run(evaluate, "--bundle", four, "--data", sample, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["points_from"] == "the other half of these rows"
    assert NEW in report["singles"] and report["metrics"]["naiq"]["value"] > 0
    assert report["notes"] == [f"{NEW} was onboarded from 64 labels; those among these rows flatter it"]


def test_a_second_newcomer_joins_the_first(four, table, tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.choice(len(table.prompts), 40, replace=False)
    known = table.select(rows, [NEW])
    doubled = replace(known, candidates=("another",), output_tokens=known.output_tokens * np.nan)
    routing_data.write(doubled, tmp_path / "more")
    done = run(command, four, "--data", tmp_path / "more", "--candidate", "another", "--out", tmp_path / "five" / "1")
    assert done.exit_code == 0, done.output
    assert "its output tokens, and so its cost, stay unknown" in done.output
    manifest = load(tmp_path / "five" / "1").manifest
    assert manifest.names[-2:] == (NEW, "another")
    assert [record["candidate"] for record in manifest.training["onboarded"]] == [NEW, "another"]
    assert np.isnan(load(tmp_path / "five" / "1").predict(["hi"]).output_tokens[0, -1])


def test_a_certificate_is_dropped_with_a_word(three, labels, tmp_path):
    assert {"safe", "quality"} <= set(load(three).manifest.presets)
    out = tmp_path / "m" / "1"
    done = run(command, three, "--data", labels, "--candidate", NEW, "--out", out)
    assert done.exit_code == 0 and "the certificate is gone" in done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["certificate"] is None
    assert "safe" not in manifest["presets"] and "quality" in manifest["presets"]


@pytest.mark.parametrize(
    ("change", "candidate", "message"),
    [
        (lambda t: t, "sample-nano", "has the candidate 'sample-nano' already"),
        (lambda t: t, "sample-mediun", "the nearest is 'sample-medium'"),
        (lambda t: t.select(np.arange(7)), NEW, "at least 8 are needed"),
        (lambda t: replace(t, quality=np.ones_like(t.quality)), NEW, "labels of 'sample-medium' are 1"),
    ],
)
def test_it_says_what_is_wrong(change, candidate, message, three, labels, tmp_path):
    routing_data.write(change(routing_data.read(labels)), tmp_path / "data")
    arguments = ("--candidate", candidate, "--out", tmp_path / "m" / "1")
    done = run(command, three, "--data", tmp_path / "data", *arguments)
    assert done.exit_code == 1 and message in done.output
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("prices", ["3", "a/b", "-1/2", "1/2/3"])
def test_prices_are_two_numbers(prices, three, labels, tmp_path):
    done = run(command, three, "--data", labels, "--candidate", NEW, "--out", tmp_path / "m", "--prices", prices)
    assert done.exit_code == 1 and "two numbers" in done.output


def test_a_graph_that_differs_from_the_formula_is_refused(three, labels, tmp_path, monkeypatch):
    def wrong(graph, placement, m):
        return with_quality(graph, replace(placement, bias=placement.bias + 0.1), m)

    monkeypatch.setattr("training.onboard.with_quality", wrong)
    with pytest.raises(ExportMismatch, match="quality: the graph differs from the formula"):
        from training.onboard import onboard

        onboard(three, [labels], NEW, tmp_path / "m" / "1")
    assert not (tmp_path / "m").exists()


def test_outputs_it_does_not_know_stay(three, labels):
    """A graph may say more than the three outputs, in other widths."""
    import onnxruntime

    from training.ability import fit_quality

    model = onnx.load(three / "quality.onnx")
    model.graph.node.append(helper.make_node("Neg", ["quality"], ["further"]))
    model.graph.output.append(helper.make_tensor_value_info("further", onnx.TensorProto.FLOAT, ["N", 3]))
    rng = np.random.default_rng(0)
    labels, outcomes = (rng.random(30) < 0.5).astype(float), np.full((30, 3), np.nan)
    placed = fit_quality(rng.random((30, 3)), np.zeros((30, 0)), labels, outcomes)
    grown = onnxruntime.InferenceSession(with_quality(model.SerializeToString(), placed, 3))
    given = {"features": np.zeros((2, load(three).manifest.dim), np.float32)}
    quality, further = grown.run(["quality", "further"], given)
    assert quality.shape == (2, 4)
    assert np.array_equal(further, -quality[:, :3])
