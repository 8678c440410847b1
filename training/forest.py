"""Randomised trees over all candidates at once, which also learn where only some were observed.

The shape of a tree is scikit-learn's (extremely randomised, all candidates joint); what a leaf says of a candidate is
the mean over the training rows in it where that candidate was observed, so a missing outcome is neither a zero nor a
guess. Leaf values are kept as eight bits: a hundred trees average the rounding away. Entry point: :class:`JointForest`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.ensemble import ExtraTreesRegressor

from router.domain import Floats
from training.settings import ForestSettings

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
LEVELS = 255
#: A leaf leans on this many rows' worth of the guess for candidates that were not observed in it.
_PRIOR_ROWS = 2.0
_LEAST_COUNT = 1e-9


class Tree(NamedTuple):
    """Nodes of one tree, as scikit-learn lays them out; ``leaf`` is the row of :attr:`JointForest.values_`, or -1."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.int64]


class JointForest(BaseEstimator):  # type: ignore[misc]
    """Extremely randomised trees with one value per candidate and leaf.

    Parameters
    ----------
    settings : ForestSettings
    seed : int, default=0

    Attributes
    ----------
    trees_ : list of Tree
    values_ : ndarray of shape (leaves of all trees, m), uint8
        Mean quality times :data:`LEVELS`.
    """

    def __init__(self, settings: ForestSettings, *, seed: int = 0) -> None:
        self.settings = settings
        self.seed = seed

    def fit(self, X: Floats, y: Matrix, guess: Matrix | None = None, weights: Matrix | None = None) -> JointForest:
        """Fit.

        Parameters
        ----------
        X : ndarray of shape (n, d), float32
        y : ndarray of shape (n, m), in [0, 1]
            NaN where unobserved.
        guess : ndarray of shape (n, m), optional
            What to shape the trees with where unobserved; by default each candidate's mean.
        weights : ndarray of shape (n, m), optional
            How many rows each outcome counts for, at least 0; default 1. A row shapes the trees with the mean of its
            own.

        Returns
        -------
        JointForest
            Itself.
        """
        if weights is not None:
            y = np.where(weights > 0, y, np.nan)
        observed = ~np.isnan(y)
        counts = observed.astype(np.float64) if weights is None else np.where(observed, weights, 0.0)
        if guess is None:
            seen = np.maximum(counts.sum(axis=0), _LEAST_COUNT)
            guess = np.broadcast_to((np.where(observed, y, 0.0) * counts).sum(axis=0) / seen, y.shape)
        of_rows = None
        if weights is not None:
            n_seen = observed.sum(axis=1)
            of_rows = np.where(n_seen > 0, counts.sum(axis=1) / np.maximum(n_seen, 1), 1.0)
        model = ExtraTreesRegressor(
            self.settings.n_trees,
            min_samples_leaf=self.settings.min_leaf,
            max_features=self.settings.max_features,
            random_state=self.seed,
        ).fit(X, np.where(observed, y, guess), sample_weight=of_rows)
        rows: list[NDArray[np.uint8]] = []
        self.trees_: list[Tree] = []
        n_leaves = 0
        for member in model.estimators_:
            shape = member.tree_
            is_leaf = shape.children_left < 0
            leaf = np.full(shape.node_count, -1)
            leaf[is_leaf] = np.arange(is_leaf.sum()) + n_leaves
            of_row = leaf[shape.apply(X)] - n_leaves
            rows.append(_leaf_values(of_row, int(is_leaf.sum()), y, counts, guess, of_rows))
            n_leaves += int(is_leaf.sum())
            self.trees_.append(
                Tree(
                    np.maximum(shape.feature, 0).astype(np.int64),
                    # The graph compares in single precision; rounding down keeps float32 features on the same side.
                    _rounded_down(shape.threshold),
                    shape.children_left.astype(np.int64),
                    shape.children_right.astype(np.int64),
                    leaf,
                )
            )
        self.values_: NDArray[np.uint8] = np.vstack(rows)
        return self

    def predict(self, X: Floats) -> Matrix:
        """Return the mean quality over trees, shape (n, m), in [0, 1]."""
        total = np.zeros((len(X), self.values_.shape[1]))
        for tree in self.trees_:
            total += self.values_[tree.leaf[_descend(tree, X)]]
        result: Matrix = total / (LEVELS * len(self.trees_))
        return result


def _leaf_values(
    of_row: NDArray[np.int64], n_leaves: int, y: Matrix, counts: Matrix, guess: Matrix, of_rows: Vector | None
) -> NDArray[np.uint8]:
    observed = ~np.isnan(y)
    of_rows = np.ones(len(y)) if of_rows is None else of_rows

    def per_leaf(values: NDArray[Any]) -> Matrix:
        return np.column_stack([np.bincount(of_row, weights=column, minlength=n_leaves) for column in values.T])

    n_rows = np.maximum(np.bincount(of_row, of_rows, n_leaves), _LEAST_COUNT)[:, None]
    n_seen = per_leaf(counts)
    prior = per_leaf(np.where(observed, y, guess) * of_rows[:, None]) / n_rows
    means = (per_leaf(np.where(observed, y, 0.0) * counts) + _PRIOR_ROWS * prior) / (n_seen + _PRIOR_ROWS)
    rounded: NDArray[np.uint8] = np.round(means.clip(0, 1) * LEVELS).astype(np.uint8)
    return rounded


def _rounded_down(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    near = threshold.astype(np.float32)
    lower = np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
    result: NDArray[np.float64] = lower.astype(np.float64)
    return result


def _descend(tree: Tree, X: Floats) -> NDArray[np.int64]:
    """Return the leaf node that each row reaches, all rows one level at a time."""
    node = np.zeros(len(X), np.int64)
    moving = np.flatnonzero(tree.leaf[node] < 0)
    while len(moving):
        at = node[moving]
        goes_left = X[moving, tree.feature[at]] <= tree.threshold[at]
        node[moving] = np.where(goes_left, tree.left[at], tree.right[at])
        moving = moving[tree.leaf[node[moving]] < 0]
    return node
