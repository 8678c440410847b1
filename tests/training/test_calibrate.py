from __future__ import annotations

import numpy as np
import pytest

from router.runtime import Graph
from training.calibrate import Calibration, Ramps, calibrate
from training.export import _calibrate, _ramps
from training.graph import GraphWriter


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(rng, n, truth):
    z = rng.normal(0, 1.5, n)
    return z[:, None], (rng.random(n) < truth(z)).astype(float)[:, None]


def test_ramps_pass_through_their_points_and_are_flat_outside():
    ramps = Ramps.through([(np.array([0.0, 1.0, 3.0]), np.array([0.1, 0.5, 0.4])), (np.array([2.0]), np.array([0.7]))])
    x = np.array([[-1.0, -9], [0.0, 0], [0.5, 2], [1.0, 3], [2.0, 4], [3.0, 5], [9.0, 9]])
    assert ramps(x)[:, 0] == pytest.approx([0.1, 0.1, 0.3, 0.5, 0.45, 0.4, 0.4])
    assert ramps(x)[:, 1] == pytest.approx([0.7] * 7)


def test_overconfident_scores_are_pulled_in():
    rng = np.random.default_rng(0)
    z, y = drawn(rng, 4000, lambda z: sigmoid(0.4 * z - 0.3))
    calibration = calibrate(z, y, 0)
    assert calibration.methods[0] in ("platt", "beta")
    grid = np.linspace(-3, 3, 13)[:, None]
    assert np.abs(calibration.quality(grid) - sigmoid(0.4 * grid - 0.3)).max() < 0.04


def test_a_map_that_no_sigmoid_follows_becomes_isotonic():
    rng = np.random.default_rng(1)
    z, y = drawn(rng, 6000, lambda z: np.where(z > 0, 0.75, 0.25))
    calibration = calibrate(z, y, 0)
    assert calibration.methods == ("isotonic",)
    assert calibration.quality(np.array([[-2.0], [2.0]]))[:, 0] == pytest.approx([0.25, 0.75], abs=0.04)


def test_too_few_rows_leave_scores_as_they_are():
    calibration = calibrate(np.zeros((10, 1)), np.ones((10, 1)), 0)
    assert calibration.methods == ("identity",)
    assert calibration.quality(np.array([[0.3]]))[0, 0] == pytest.approx(sigmoid(0.3))


def test_nothing_observed_gives_the_widest_interval():
    calibration = calibrate(np.zeros((5, 1)), np.full((5, 1), np.nan), 0)
    low, high = calibration.interval(np.array([[0.5]]))
    assert (low[0, 0], high[0, 0]) == (0.0, 1.0)


def test_the_interval_holds_the_mean_of_new_rows_scored_alike():
    rng = np.random.default_rng(2)
    truth = lambda z: sigmoid(z)  # noqa: E731
    hits = []
    for _ in range(40):
        z, y = drawn(rng, 1500, truth)
        calibration = calibrate(z, y, 0)
        at = np.array([[-2.0], [-0.7], [0.0], [0.7], [2.0]])
        low, high = calibration.interval(calibration.quality(at))
        hits.append((low <= truth(at)) & (truth(at) <= high))
    assert np.mean(hits) > 0.85


def test_low_quality_high_are_in_order_and_low_and_high_rise_with_quality():
    rng = np.random.default_rng(3)
    z, y = drawn(rng, 1200, sigmoid)
    calibration = calibrate(z, y, 0)
    quality = np.linspace(0, 1, 101)[:, None]
    low, high = calibration.interval(quality)
    assert (low <= quality).all() and (quality <= high).all()
    assert (np.diff(low[:, 0]) >= -1e-12).all() and (np.diff(high[:, 0]) >= -1e-12).all()


def test_wilson_by_hand():
    # 8 of 10 right: centre (.8 + 2.7055/20) / (1 + .27055) = .73611;
    # half 1.64485 / 1.27055 · sqrt(.016 + .0067638) = .19533.
    quality = np.repeat([[1.0], [0.0]], [8, 2], axis=0)
    calibration = calibrate(np.zeros((10, 1)), quality, 0)
    low, high = calibration.interval(np.array([[0.75]]))
    assert low[0, 0] == pytest.approx(0.73611 - 0.19533, abs=1e-4)
    assert high[0, 0] == pytest.approx(0.73611 + 0.19533, abs=1e-4)


def in_graph(calibration: Calibration, z: np.ndarray) -> dict[str, np.ndarray]:
    graph = GraphWriter("features", z.shape[1])
    quality = _calibrate(graph, calibration, "features")
    outputs = {"quality": quality, "low": _ramps(graph, calibration.low, quality)}
    made = graph.finish({name: (inner, z.shape[1]) for name, inner in outputs.items()})
    return Graph(made, "test").run({"features": z.astype(np.float32)})


def test_the_graph_computes_the_same_calibration():
    rng = np.random.default_rng(4)
    columns = [
        drawn(rng, 3000, lambda z: sigmoid(0.5 * z)),
        drawn(rng, 3000, lambda z: np.where(z > 0, 0.8, 0.3)),
        drawn(rng, 3000, lambda z: sigmoid(z) ** 3),
    ]
    z, y = np.hstack([c[0] for c in columns]), np.hstack([c[1] for c in columns])
    calibration = calibrate(z, y, 0)
    assert "isotonic" in calibration.methods and len(set(calibration.methods)) > 1
    extreme = np.vstack([z[:200], np.full((1, 3), 50.0), np.full((1, 3), -50.0)])
    found = in_graph(calibration, extreme)
    assert found["quality"] == pytest.approx(calibration.quality(extreme), abs=2e-6)
    assert found["low"] == pytest.approx(calibration.low(calibration.quality(extreme)), abs=2e-5)
