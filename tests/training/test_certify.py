"""Promises: kept at the promised rate when the truth is known, and refused where the rows do not carry them."""

from __future__ import annotations

import numpy as np
import pytest

from router.certificate import Certificate
from router.domain import Candidate, Price
from router.policy import choose
from training.certify import Goal, bound, certify, independent, labels_needed, p_value
from training.evaluate import Rows

PRICES = (Price(1.0, 1.0), Price(10.0, 10.0))


def rows_of(predicted, quality, cost=(0.001, 0.01), groups=None) -> Rows:
    n, m = quality.shape
    costs = np.broadcast_to(np.array(cost[:m]), (n, m)).astype(float)
    return Rows(
        candidates=("cheap", "dear")[:m],
        predicted=predicted,
        predicted_cost=costs,
        output_tokens=costs,
        output_tokens_p90=costs,
        quality=quality,
        cost_usd=costs,
        true_output_tokens=costs,
        tasks=["a" if i % 2 else "b" for i in range(n)],
        groups=groups or [str(i) for i in range(n)],
    )


def world(n: int, rng: np.random.Generator, noise: float = 0.15) -> Rows:
    """Two candidates whose chances depend on one number; predictions are those chances, disturbed."""
    x = rng.random(n)
    chance = np.column_stack([0.95 - 0.6 * x, np.full(n, 0.9)])
    predicted = np.clip(chance + noise * rng.normal(size=chance.shape), 0.01, 0.99)
    return rows_of(predicted, (rng.random(chance.shape) < chance).astype(float))


def risk(rows: Rows, goal: Goal, policy) -> float:
    """How far the promise is from being kept on very many rows: above 0 is a violation."""
    chosen = choose(rows.predicted, rows.predicted_cost, policy, anchor=1)
    got, safe = rows.quality[np.arange(len(chosen)), chosen], rows.quality[:, 1]
    if goal.kind == "fall_below":
        return float((got < safe).mean() - goal.level)
    return float(((goal.level * safe if goal.kind == "keep" else goal.level) - got).mean())


@pytest.mark.parametrize("goal", [Goal("fall_below", 0.1, 0.8), Goal("keep", 0.97, 0.8), Goal("quality", 0.85, 0.8)])
def test_a_promise_is_broken_no_more_often_than_it_says(goal):
    truth = world(60_000, np.random.default_rng(1))
    broken, bold = 0, 0
    for draw in range(60):
        certificate, policy = certify(world(400, np.random.default_rng(100 + draw)), goal, 1, PRICES)
        bold += not certificate.abstained
        broken += not certificate.abstained and risk(truth, goal, policy) > 0
    assert bold > 20
    # δ = .2 of 60 draws is 12; 20 or more would have a chance below one in a hundred.
    assert broken < 20


def test_more_labels_save_more():
    few, many = (
        certify(world(n, np.random.default_rng(3)), Goal("fall_below", 0.08), 1, PRICES)[0] for n in (300, 8000)
    )
    assert many.saving["value"] > few.saving["value"] > 0
    assert many.measured <= many.bound <= 0.08 + 1e-9


def test_too_few_labels_abstain_and_say_how_many_would_do():
    certificate, policy = certify(world(20, np.random.default_rng(0)), Goal("fall_below", 0.05), 1, PRICES)
    assert certificate.abstained and certificate.measured is None
    assert certificate.labels_needed >= np.log(0.1) / np.log(0.95)
    fresh = world(500, np.random.default_rng(5))
    assert (choose(fresh.predicted, fresh.predicted_cost, policy, anchor=1) == 1).all()
    assert "chosen always" in certificate.sentence()
    enough = world(certificate.labels_needed * 4, np.random.default_rng(0))
    assert not certify(enough, Goal("fall_below", 0.05), 1, PRICES)[0].abstained


def test_a_predictor_that_knows_nothing_saves_nothing():
    rng = np.random.default_rng(0)
    quality = (rng.random((1000, 2)) < [0.3, 0.9]).astype(float)
    certificate, _ = certify(rows_of(np.full((1000, 2), 0.5), quality), Goal("fall_below", 0.05), 1, PRICES)
    assert certificate.saving["value"] < 0.01


def test_the_exact_bound_is_the_tail_of_the_binomial():
    loss = np.zeros(100)
    loss[:3] = 1
    assert p_value(loss, Goal("fall_below", 0.1)) == pytest.approx(0.007836, abs=1e-5)
    # The upper limit at which three or fewer of a hundred have a chance of .1.
    limit = bound(loss, Goal("fall_below", 0.1, 0.9))
    assert p_value(loss, Goal("fall_below", limit)) == pytest.approx(0.1, abs=1e-6)


def test_no_number_of_labels_helps_where_the_promise_is_not_true():
    assert labels_needed(np.array([1.0, 0.0, 1.0]), Goal("fall_below", 0.1)) is None
    assert labels_needed(np.full(50, 0.6), Goal("keep", 1.0)) is None


def test_one_row_of_a_group_is_used():
    rows = world(300, np.random.default_rng(0))
    grouped = rows_of(rows.predicted, rows.quality, groups=[str(i // 3) for i in range(300)])
    assert sorted(independent(grouped).groups, key=int) == [str(i) for i in range(100)]
    assert certify(grouped, Goal("fall_below", 0.1), 1, PRICES)[0].n_labels == 100


def test_a_certificate_survives_the_manifest_and_knows_when_it_is_void():
    certificate, _ = certify(world(500, np.random.default_rng(0)), Goal("keep", 0.95), 1, PRICES)
    import json

    again = Certificate.from_json(json.loads(json.dumps(certificate.to_json())))
    assert again == certificate
    pool = [Candidate("cheap", PRICES[0]), Candidate("dear", PRICES[1])]
    assert again.void_for(pool) is None
    assert "the pool differs from the certified one in cheap" in again.void_for(pool[1:])
    assert "prices of dear changed" in again.void_for([pool[0], Candidate("dear", Price(9.0, 10.0))])


def test_training_certifies_and_a_decision_says_so(trained):
    from router import Router

    manifest = trained.manifest
    assert {"safe", "assured"} <= set(manifest.certificates) <= set(manifest.presets)
    router = Router.load(trained.directory)
    decision = router.route("What is 2 + 2?", "safe")
    assert decision.promise == manifest.certificates["safe"].sentence()
    assert decision.candidate in manifest.names
    dearer = [Candidate(c.name, Price(50.0, 50.0)) for c in router.candidates]
    assert "not certified here: the prices of" in Router.load(trained.directory, dearer).route("Hello", "safe").promise
    denied = router.route("Hello", "safe", constraints=_deny(manifest.names[0]))
    assert "some candidates may not answer" in denied.promise
    assert router.route("Hello", "quality").promise is None


def _deny(name):
    from router.domain import Constraints

    return Constraints(deny=(name,))


def test_the_command_gives_a_bundle_a_promise(trained, sample, tmp_path):
    import shutil

    from click.testing import CliRunner

    from router.bundle import load
    from training.commands import certify as command

    copy = tmp_path / "b" / "1"
    shutil.copytree(trained.directory, copy)
    found = CliRunner().invoke(command, [str(copy), "--data", str(sample), "--keep", "0.9", "--confidence", "0.8"])
    assert found.exit_code == 0, found.output
    assert "preset assured: mean quality is at least 90.0%" in found.output
    assert "held out from this bundle's training" in found.output
    assert load(copy).manifest.certificates["assured"].level == 0.9
    assert "safe" in load(copy).manifest.certificates
    both = CliRunner().invoke(command, [str(copy), "--data", str(sample), "--keep", "0.9", "--at-most", "0.1"])
    assert both.exit_code == 2 and "give one of" in both.output
