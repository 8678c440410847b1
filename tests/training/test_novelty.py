"""What no training prompt is like is called unfamiliar, and averages decide."""

from __future__ import annotations

import numpy as np
import pytest

import routing_data
from router.bundle import load
from router.routing import Router
from training.novelty import fit_novelty
from training.pipeline import train
from training.settings import EvaluationSettings, HeadSettings, Settings

FOREIGN = "Hoeveel appels heeft Jantje nog over wanneer hij er zeven weggeeft aan zijn zusje en daarna drie opeet?"


def test_few_held_out_prompts_are_unfamiliar():
    rng = np.random.default_rng(0)
    features = rng.random((2000, 3)).astype(np.float32)
    quality = np.where(features[:, 1:2] > 0.99, 0.0, [[0.2, 0.8]])
    novelty = fit_novelty(1, features, quality)
    assert (novelty.score(features) > 1).mean() == pytest.approx(0.005, abs=1e-3)
    said, low, high = novelty.apply(features, quality, quality - 0.1, quality + 0.1)
    unfamiliar = novelty.score(features) > 1
    assert (said[unfamiliar] == novelty.means).all() and (said[~unfamiliar] == quality[~unfamiliar]).all()
    assert (low[unfamiliar] == 0).all() and (high[unfamiliar] == 1).all()


def test_a_text_of_mostly_known_words_is_never_unfamiliar():
    features = np.full((100, 1), 0.01, np.float32)
    assert fit_novelty(0, features, np.ones((100, 1))).score(np.array([[0.2]], np.float32))[0] < 1


def test_a_router_says_so_of_another_language(sample, tmp_path):
    routing_data.write(routing_data.read(sample).select(np.arange(600)), tmp_path / "data")
    settings = Settings(heads=HeadSettings(kinds=("logistic",)), evaluation=EvaluationSettings(20))
    bundle = load(train([tmp_path / "data"], tmp_path / "m" / "1", settings).directory)
    router = Router(bundle)
    known = router.route(routing_data.read(sample).prompts[5])
    foreign = router.route(FOREIGN)
    assert known.novelty < 1 < foreign.novelty
    assert "averages" in foreign.reason and "averages" not in known.reason
    assert foreign.explain().novelty == foreign.novelty
    other = router.route(FOREIGN.replace("appels", "peren").replace("Jantje", "Pietje"))
    assert [f.quality for f in other.forecasts] == [f.quality for f in foreign.forecasts]
    assert {(f.quality_low, f.quality_high) for f in foreign.forecasts} == {(0, 1)}
