"""The peers, re-implemented in the manner of what is published: embeddings in, a score per candidate out.

Each is a function of a :class:`Task` that yields its whole (small) grid as (settings, logits[, cost]) of the rows that
are not training rows; :mod:`run` calibrates each and keeps the one with least regret on validation rows.
Entry point: :data:`PEERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from ability import Ability

from training.estimators import PerCandidate
from training.network import JointNetwork
from training.topics import logit_of

Offer = tuple[str, np.ndarray] | tuple[str, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Task:
    """Standardised features of training rows and of the others, and what happened on the former.

    ``quality`` may hold NaN; ``filled`` and ``cost`` hold the candidate's mean there.
    """

    X: np.ndarray
    other: np.ndarray
    quality: np.ndarray
    filled: np.ndarray
    cost: np.ndarray
    seed: int

    def components(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the leading k principal components of both, shape (n, k)."""
        _, vectors = np.linalg.eigh(self.X.T @ self.X)
        basis = vectors[:, ::-1][:, :k]
        return self.X @ basis, self.other @ basis


def _neighbours(near: np.ndarray, far: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows most like each other row by cosine, nearest first, and the cosines."""
    near, far = (a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-9) for a in (near, far))
    found, cosines = [], []
    for start in range(0, len(far), 1_000):
        like = far[start : start + 1_000] @ near.T
        top = np.argpartition(-like, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(like, top, 1), axis=1)
        found.append(np.take_along_axis(top, order, 1))
        cosines.append(np.take_along_axis(like, found[-1], 1))
    return np.concatenate(found), np.concatenate(cosines)


def knn(task: Task) -> Iterator[Offer]:
    for metric, (near, far) in (("cosine", (task.X, task.other)), ("cosine of 64 PCs", task.components(64))):
        sizes = [k for k in (20, 50, 100, 200) if k <= len(near)]
        rows, like = _neighbours(near, far, sizes[-1])
        for k in sizes:
            for kind in ("uniform", "by distance"):
                weight = np.ones((len(rows), k)) if kind == "uniform" else np.exp(8 * (like[:, :k] - like[:, :1]))
                weight /= weight.sum(1, keepdims=True)
                yield f"k={k}, {metric}, {kind}", logit_of(np.einsum("nk,nkm->nm", weight, task.filled[rows[:, :k]]))


def _ridge(task: Task, y: np.ndarray, alphas: tuple[float, ...]) -> Iterator[tuple[float, np.ndarray]]:
    values, vectors = np.linalg.eigh(task.X.T @ task.X)
    mean = y.mean(0)
    projected = vectors.T @ (task.X.T @ (y - mean))
    for alpha in alphas:
        yield alpha, task.other @ (vectors @ (projected / (np.maximum(values, 0) + alpha)[:, None])) + mean


_ALPHAS = (300.0, 1_000.0, 3_000.0, 10_000.0)


def ridge(task: Task) -> Iterator[Offer]:
    for alpha, predicted in _ridge(task, task.filled, _ALPHAS):
        yield f"alpha={alpha:g}", logit_of(np.clip(predicted, 0.01, 0.99))


def logistic(task: Task) -> Iterator[Offer]:
    from sklearn.linear_model import LogisticRegression

    for c in (0.0003, 0.001, 0.003):
        model = PerCandidate(LogisticRegression(C=c, max_iter=100, tol=1e-2), np.arange(task.X.shape[1]))
        yield f"C={c:g}", model.fit(task.X, task.quality).decision_function(task.other)


def mlp(task: Task) -> Iterator[Offer]:
    for dropout in (0.3, 0.6):
        net = JointNetwork(n_nets=2, epochs=15, hidden=128, dropout=dropout, feature_dropout=0.25, seed=task.seed)
        yield f"dropout={dropout:g}", net.fit(task.X, task.quality).decision_function(task.other)


def svm(task: Task) -> Iterator[Offer]:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.svm import LinearSVC

    near, far = task.components(128)
    scale = 1 / np.sqrt((near**2).sum(1).mean())
    near, far = near * scale, far * scale
    for gamma in (0.5, 1.0):
        kernel = Nystroem(gamma=gamma, n_components=min(256, len(near)), random_state=task.seed).fit(near)
        model = PerCandidate(_Margin(LinearSVC, C=0.1, dual=False, tol=1e-2), np.arange(kernel.n_components))
        model.fit(kernel.transform(near), np.where(np.isnan(task.quality), np.nan, task.quality >= 0.5).astype(float))
        yield f"RBF, gamma={gamma:g}", model.decision_function(kernel.transform(far))


def _Margin(kind: type, **settings: object) -> object:
    """Make a regressor whose prediction is sigmoid(2 · margin): what :class:`PerCandidate` takes back to a logit."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Margin(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            self.model_ = kind(**settings).fit(X, y.astype(int))
            return self

        def predict(self, X):
            return 1 / (1 + np.exp(-2 * self.model_.decision_function(X)))

    return Margin()


def forest(task: Task) -> Iterator[Offer]:
    from sklearn.ensemble import RandomForestRegressor

    near, far = task.components(128)
    for leaf in (5, 20):
        trees = RandomForestRegressor(80, min_samples_leaf=leaf, max_features="sqrt", random_state=task.seed)
        yield f"min leaf {leaf}", logit_of(trees.fit(near, task.filled).predict(far))


def cluster(task: Task) -> Iterator[Offer]:
    from sklearn.cluster import MiniBatchKMeans

    overall = task.filled.mean(0)
    for k in (16, 32, 64):
        means = MiniBatchKMeans(min(k, len(task.X) // 4), n_init=1, random_state=task.seed).fit(task.X)
        member = np.eye(means.n_clusters)[means.labels_]
        table = (member.T @ task.filled + 10 * overall) / (member.sum(0)[:, None] + 10)
        distance = means.transform(task.other)
        for nearest in (1, 4):
            order = np.argsort(distance, axis=1)[:, :nearest]
            away = np.take_along_axis(distance, order, 1)
            weight = np.exp(-(away - away[:, :1]))
            weight /= weight.sum(1, keepdims=True)
            yield f"{k} clusters, {nearest} nearest", logit_of(np.einsum("nk,nkm->nm", weight, table[order]))


def factorisation(task: Task) -> Iterator[Offer]:
    for rank in (4, 16):
        yield (
            f"rank {rank}",
            Ability(rank, False, 1.0, task.seed).fit(task.X, task.quality).decision_function(task.other),
        )


def response(task: Task) -> Iterator[Offer]:
    for rank in (4, 16):
        yield (
            f"{rank} abilities",
            Ability(rank, True, 1.0, task.seed).fit(task.X, task.quality).decision_function(task.other),
        )


def carrot(task: Task) -> Iterator[Offer]:
    least = np.maximum(task.cost.min(0) / 2, 1e-9)
    costs = dict(_ridge(task, task.cost, _ALPHAS))
    for alpha, predicted in _ridge(task, task.filled, _ALPHAS):
        yield f"linear, alpha={alpha:g}", logit_of(np.clip(predicted, 0.01, 0.99)), np.maximum(costs[alpha], least)
    sizes = [k for k in (50, 100, 200) if k <= len(task.X)]
    rows, _ = _neighbours(task.X, task.other, sizes[-1])
    for k in sizes:
        yield f"kNN, k={k}", logit_of(task.filled[rows[:, :k]].mean(1)), task.cost[rows[:, :k]].mean(1)


PEERS: dict[str, Callable[[Task], Iterator[Offer]]] = {
    "kNN": knn,
    "ridge": ridge,
    "logistic": logistic,
    "MLP": mlp,
    "SVM (Nystroem RBF)": svm,
    "random forest (RoRF manner)": forest,
    "clusters (Avengers-Pro manner)": cluster,
    "matrix factorisation (EmbedLLM manner)": factorisation,
    "item response (MIRT manner)": response,
    "CARROT": carrot,
}
#: These are also given the lexical features of the default tier beside the embeddings.
ALSO_LEXICAL = ("ridge", "MLP")
