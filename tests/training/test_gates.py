"""The gates over contests whose truth is known, many of each: what they refuse, and what they let pass."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from router.bundle import load
from router.certificate import Certificate
from router.domain import Policy
from training.contest import Contest, chosen, measured_time_ratio
from training.difference import difference, shares
from training.duplicates import Overlap
from training.evaluate import Rows
from training.gates import judge
from training.retrain_settings import GateSettings

NAMES = ("large", "medium", "small")
SETTINGS = GateSettings()
SLICES = tuple(f"task {k}" for k in range(6))
COSTS = np.array([0.01, 0.002, 0.0005])


@pytest.fixture(scope="module")
def bundle(tiny_bundle):
    return load(tiny_bundle)


def with_presets(bundle, **presets):
    return replace_manifest(bundle, presets={name: Policy(*policy, name) for name, policy in presets.items()})


def replace_manifest(bundle, **changes):
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


def world(rng, n=500):
    """Prompts with a truth: a level per prompt, a strength per candidate and task."""
    task = rng.integers(len(SLICES), size=n)
    strength = np.array([0.85, 0.7, 0.5]) + rng.normal(0, 0.1, (len(SLICES), 3))
    truth = np.clip(strength[task] + rng.normal(0, 0.12, (n, 1)), 0.02, 0.98)
    return task, truth, (rng.random(truth.shape) < truth).astype(float)


def said(rng, truth, noise=0.05):
    return np.clip(truth + rng.normal(0, noise, truth.shape), 0.01, 0.99)


def contest(bundle, task, quality, old, new, *, challenger=None, overlap=None, ratio=1.0, missing_cost=False):
    n = len(task)
    cost = np.full((n, 3), np.nan) if missing_cost else np.tile(COSTS, (n, 1))
    names = [SLICES[k] for k in task]

    def rows(predicted):
        tokens = np.full((n, 3), 100.0)
        groups = [f"g{i // 2}" for i in range(n)]
        return Rows(NAMES, predicted, cost, tokens, tokens, quality, cost, tokens, names, groups)

    champion = with_presets(bundle, balanced=("willingness_to_pay_usd", 0.05), price=("willingness_to_pay_usd", 0.01))
    return Contest(
        champion,
        champion if challenger is None else challenger,
        rows(old),
        rows(new),
        tuple(names),
        overlap or Overlap(n, 0, 0),
        ratio,
        SETTINGS.confidence,
    )


def refused(found):
    return [gate.name for gate in judge(found, SETTINGS) if not gate.is_passed]


def many(bundle, n_seeds, spoil, n=500):
    found = []
    for seed in range(n_seeds):
        rng = np.random.default_rng(seed)
        task, truth, quality = world(rng, n)
        old = said(rng, truth)
        found.append(refused(contest(bundle, task, quality, old, spoil(rng, task, truth, old))))
    return found


def test_an_honest_equal_challenger_passes_nearly_always(bundle):
    found = many(bundle, 30, lambda rng, task, truth, old: said(rng, truth))
    assert sum(map(bool, found)) <= 2, found


def test_a_better_challenger_passes(bundle):
    found = many(bundle, 15, lambda rng, task, truth, old: said(rng, truth, 0.02))
    assert sum(map(bool, found)) <= 1, found


def test_one_that_learned_shuffled_labels_is_refused_always(bundle):
    found = many(bundle, 15, lambda rng, task, truth, old: np.tile(truth.mean(), truth.shape) + 0 * truth)
    assert all("loss" in names for names in found)


def test_one_that_says_the_mean_of_each_candidate_is_refused(bundle):
    found = many(bundle, 15, lambda rng, task, truth, old: np.tile(truth.mean(axis=0), (len(truth), 1)))
    assert np.mean([bool(names) for names in found]) > 0.9


def test_one_damaged_slice_of_six_is_refused_and_named(bundle):
    def spoil(rng, task, truth, old):
        new = said(rng, truth)
        return np.where((task == 2)[:, None], new[:, ::-1], new)  # who is good there is turned round

    found = many(bundle, 20, spoil, 1200)
    assert np.mean(["loss in task 2" in names for names in found]) > 0.9
    assert np.mean([any(name.startswith("loss in") and "2" not in name for name in names) for names in found]) < 0.05


def test_a_slice_whose_level_came_right_while_its_order_went_wrong_is_refused_and_named(bundle):
    def spoil(rng, task, truth, old):
        flat = np.tile(truth.mean(axis=1, keepdims=True), 3)
        old[task == 2] = np.clip(old[task == 2] - 0.2, 0, 1)  # the champion thought too little of everybody there
        return np.where((task == 2)[:, None], flat, said(rng, truth))

    found = many(bundle, 15, spoil, 1800)
    assert np.mean(["loss in task 2" in names for names in found]) > 0.75
    rng = np.random.default_rng(3)
    task, truth, quality = world(rng, 1800)
    old = said(rng, truth)
    one = contest(bundle, task, quality, old, spoil(rng, task, truth, old))
    kept = one.rows_in("task 2")
    assert one.loss(kept).low < SETTINGS.slice_loss < one.order(kept).low


def test_the_order_of_candidates_by_hand(bundle):
    # Of differences between candidates: the mean over pairs of the squared error, halved, is the variance of errors.
    quality = np.array([[1.0, 0, 0], [1, 1, np.nan], [np.nan, 1, np.nan]] * 5)
    old, new = np.full((15, 3), 0.5), np.tile([0.7, 0.5, 0.9], (15, 1))
    found = contest(bundle, np.zeros(15, int), quality, old, new)
    errors = [np.var([0.3, -0.5, -0.9], ddof=1) - np.var([1.0, 0, 0], ddof=1), np.var([0.3, 0.5], ddof=1)]
    assert found.order(found.rows_in(None)).value == pytest.approx((2 * errors[0] + errors[1]) / 3)
    moved = 2 * np.var([0.7, 0.5, 0.9], ddof=1) + np.var([0.7, 0.5], ddof=1)
    assert found.moved_order(found.rows_in(None)) == pytest.approx(5 * moved)
    assert found.moved(found.rows_in(None)) == pytest.approx(5 * (0.04 + 0.16 + 0.04))
    # A level does not matter to it, and rows known by votes alone do not count.
    assert contest(bundle, np.zeros(15, int), quality, old, old + 0.2).order(found.rows_in(None)).value == (
        pytest.approx(0)
    )
    voted = replace(found, is_voted=np.ones(15, bool))
    assert voted.order(voted.rows_in(None)).n_groups == 0 and voted.moved_order(voted.rows_in(None)) == 0


def test_most_is_asked_where_most_has_moved():
    assert shares([]) == [] and shares([0.0, 0.0]) == [0.5, 0.5]
    assert shares([3.0, 1.0]) == pytest.approx([0.8 * 0.9 + 0.1, 0.8 * 0.1 + 0.1])
    assert sum(shares([5.0, 2.0, 0.0, 1e-9])) == pytest.approx(1)


def test_bounds_that_share_the_error_by_what_moved_hold_together():
    # Many slices, no harm in any, wildly different amounts of movement: at most 5 % of families have a bound above 0.
    rng = np.random.default_rng(0)
    groups, n_false = [f"g{i}" for i in range(60)], 0
    for _ in range(400):
        scale = rng.exponential(1, 10) ** 2
        each = shares((scale**2).tolist())
        lows = [
            difference(rng.normal(0, s, 60), np.ones(60), groups, 1 - 0.05 * share).low
            for s, share in zip(scale, each, strict=True)
        ]
        n_false += max(lows) > 0
    assert 4 <= n_false <= 32  # expected 20


def test_one_damaged_candidate_is_refused_and_named(bundle):
    def spoil(rng, task, truth, old):
        new = said(rng, truth)
        new[:, 1] = np.clip(new[:, 1] - 0.25, 0, 1)
        return new

    found = many(bundle, 15, spoil)
    assert np.mean(["loss of medium" in names for names in found]) > 0.9


def test_presets_that_spend_more_for_nothing_are_refused(bundle):
    rng = np.random.default_rng(0)
    task, _, _ = world(rng, 400)
    quality = np.full((400, 3), 0.7)  # nobody is better than the cheapest
    found = contest(bundle, task, quality, quality, quality + np.array([0.25, 0.0, 0.0]))
    by_name = {gate.name: gate for gate in judge(found, SETTINGS)}
    # 0.01 instead of 0.0005 USD, where a unit of quality is worth 0.05.
    assert by_name["utility at balanced"].measured == pytest.approx(0.19)
    assert not by_name["utility at balanced"].is_passed and by_name["utility at price"].is_passed


def test_at_a_preset_that_may_lose_no_quality_cost_is_nothing(bundle):
    anchored = Policy("willingness_to_pay_usd", 1e-6, "quality", "large", 0.0)
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 400)
    found = contest(bundle, task, quality, truth, said(rng, truth))
    champion = replace_manifest(found.champion, presets={**found.champion.manifest.presets, "quality": anchored})
    found = replace(found, champion=champion, challenger=champion)
    assert abs(found.utility_loss("quality", found.rows_in(None)).value) < 1


def test_overlap_volume_speed_and_missing_candidates_are_each_refused(bundle):
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 60)
    same = said(rng, truth)
    lacking = replace_manifest(bundle, candidates=bundle.manifest.candidates[:2])
    lacking = with_presets(lacking, balanced=("willingness_to_pay_usd", 0.05))
    found = contest(bundle, task, quality, same, same, challenger=lacking, overlap=Overlap(60, 2, 3), ratio=1.7)
    by_name = {gate.name: gate for gate in judge(found, SETTINGS)}
    for name in ("holdout", "holdout repeated", "holdout nearly repeated", "candidates", "presets", "decision time"):
        assert not by_name[name].is_passed, name
    assert by_name["candidates"].reason == "the challenger does not know small"
    assert by_name["presets"].reason == "the challenger has no preset price"
    assert by_name["decision time"].measured == 1.7 and by_name["decision time"].bound == 1.5
    assert by_name["size"].is_passed


def test_a_bundle_may_grow_to_twice_or_to_twenty_megabytes(bundle):
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 200)
    entry = next(iter(bundle.manifest.files.values()))
    grown = replace_manifest(bundle, files={"quality.onnx": replace(entry, n_bytes=21_000_000)})
    same = said(rng, truth)
    assert "size" in refused(contest(bundle, task, quality, same, same, challenger=grown))


def test_a_lost_or_weaker_certificate_is_refused(bundle):
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 200)
    same = said(rng, truth)

    def certified(level, abstained=False, anchor="large"):
        certificate = Certificate(
            preset="safe",
            goal="fall_below",
            level=level,
            confidence=0.9,
            anchor=anchor,
            candidates=NAMES,
            prices=(None, None, None),
            method="by hand",
            n_labels=100,
            abstained=abstained,
            measured=None if abstained else 0.01,
            bound=None if abstained else 0.02,
            saving={"value": 0.1, "low": 0.0, "high": 0.2},
            labels_needed=None,
            slices=(),
        )
        return replace_manifest(bundle, certificate={"certificates": [certificate.to_json()]})

    def names(champion, challenger):
        met = contest(bundle, task, quality, same, same, challenger=challenger)
        return refused(replace(met, champion=champion))

    promising = certified(0.05)
    assert "certificate safe" not in names(promising, certified(0.05))
    assert "certificate safe" not in names(promising, certified(0.03))
    assert "certificate safe" in names(promising, certified(0.08))
    assert "certificate safe" in names(promising, certified(0.05, abstained=True))
    assert "certificate safe" in names(promising, bundle)
    # Hardly anything falls below the poorest candidate: that is no promise in the place of this one.
    assert "certificate safe" in names(promising, certified(0.05, anchor="small"))
    assert "certificate safe" in names(promising, certified(0.05, anchor="newcomer"))
    assert "certificate safe" not in names(certified(0.05, anchor="small"), promising)
    assert "certificate safe" not in names(certified(0.05, abstained=True), bundle)
    met = replace(contest(bundle, task, quality, same, same), champion=promising)
    unasked = judge(met, replace(SETTINGS, certificates=False))
    assert [gate.is_passed for gate in unasked if gate.name == "certificate safe"] == [True]


def test_without_rows_that_compare_nothing_is_said_of_deciding(bundle):
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 300)
    same = said(rng, truth)
    found = judge(contest(bundle, task, quality, same, same, missing_cost=True), SETTINGS)
    words = "not measured: too few held-out answers that these presets would have chosen"
    assert {gate.reason for gate in found if gate.name.startswith("utility")} == {words}


def test_a_handful_of_rows_that_compare_leave_deciding_to_the_votes(bundle):
    rng = np.random.default_rng(0)
    found, _ = votes_only(bundle, rng, lambda old: np.clip(1 - old, 0, 1))
    by_votes = [name for name in refused(found) if name.startswith("utility")]
    assert by_votes
    for own in (found.old, found.new):
        own.quality[:4], own.cost_usd[:4] = 0.5, COSTS
    assert [name for name in refused(found) if name.startswith("utility")] == by_votes


def votes_only(bundle, rng, spoil):
    """One answer a prompt, by a policy of known propensities, and nobody else's."""
    task, truth, quality = world(rng, 1500)
    propensity = rng.dirichlet([2, 2, 2], len(task))
    asked = np.array([rng.choice(3, p=p) for p in propensity])
    every = np.arange(len(task))
    seen = np.full(quality.shape, np.nan)
    seen[every, asked] = quality[every, asked]
    weights = np.zeros(quality.shape)
    weights[every, asked] = np.minimum(1 / propensity[every, asked], 10)
    old = said(rng, truth)
    found = contest(bundle, task, seen, old, spoil(old))
    cost = np.where(np.isfinite(seen), np.tile(COSTS, (len(task), 1)), np.nan)
    rows = [replace(own, weights=weights, cost_usd=cost) for own in (found.old, found.new)]
    return replace(found, old=rows[0], new=rows[1]), truth


def test_by_votes_alone_a_worse_choice_is_refused_and_an_equal_one_passes(bundle):
    kept, spoilt = [], []
    for seed in range(12):
        found, _ = votes_only(bundle, np.random.default_rng(seed), lambda old: old)
        assert not found.compares
        kept.append([name for name in refused(found) if name.startswith("utility")])
        found, _ = votes_only(bundle, np.random.default_rng(seed), lambda old: np.clip(1 - old, 0, 1))
        spoilt.append([name for name in refused(found) if name.startswith("utility")])
    assert not any(kept)
    assert np.mean([bool(names) for names in spoilt]) > 0.7


def test_the_value_by_votes_is_the_true_value_up_to_chance(bundle):
    errors = []
    for seed in range(12):
        found, truth = votes_only(bundle, np.random.default_rng(seed), lambda old: old[:, ::-1].copy())
        every = np.arange(len(truth))
        ours, theirs = (chosen(rows, found.champion, "balanced") for rows in (found.new, found.old))
        utility = truth - COSTS / 0.05
        true = (utility[every, theirs] - utility[every, ours]).mean()
        loss = found.voted_utility_loss("balanced")
        errors.append((loss.value - true) / ((loss.high - loss.value) / 1.645))
    assert abs(np.mean(errors)) < 0.9 and np.std(errors) < 1.8


def test_overconfidence_is_a_matter_of_calibration(bundle):
    rng = np.random.default_rng(0)
    task, truth, quality = world(rng, 900)
    sure = np.clip(0.5 + 2.2 * (truth - 0.5), 0.01, 0.99)
    assert "calibration" in refused(contest(bundle, task, quality, truth, sure))


def test_a_difference_by_hand_and_its_cover():
    # Two groups of two rows and three of one: cluster sums 2, 0, 1, 1, 1 of counts 2, 2, 1, 1, 1.
    found = difference(np.array([1.0, 1, 0, 0, 1, 1, 1]), np.ones(7), list("aabbcde"), 0.9)
    assert found.value == pytest.approx(5 / 7) and found.n_groups == 5
    assert difference(np.ones(3), np.ones(3), list("abc"), 0.9).low != found.low
    assert np.isnan(difference(np.ones(3), np.ones(3), list("abc"), 0.9).low)
    assert np.isnan(difference(np.zeros(0), np.zeros(0), [], 0.9).value)
    rng = np.random.default_rng(0)
    above = []
    for _ in range(400):
        level = rng.normal(0, 1, 40)
        values = np.repeat(level, 5) + rng.normal(0, 0.2, 200)  # five rows of a group say hardly more than one
        above.append(difference(values, np.ones(200), [f"g{i // 5}" for i in range(200)], 0.9).low > 0)
    assert np.mean(above) == pytest.approx(0.1, abs=0.045)


def test_the_time_ratio_is_of_the_challenger_over_the_champion():
    def bundle_of(n):
        work = np.random.default_rng(0).normal(size=(n, n))
        return SimpleNamespace(
            encoder=SimpleNamespace(encode=lambda texts: work), predictor=SimpleNamespace(predict=lambda x: x @ x)
        )

    assert measured_time_ratio(bundle_of(4), bundle_of(250), ["a", "b"]) > 2
    assert measured_time_ratio(bundle_of(4), bundle_of(4), []) == 1.0
