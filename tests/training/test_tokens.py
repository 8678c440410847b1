from __future__ import annotations

import numpy as np
import pytest

from training.settings import HeadSettings
from training.tokens import calibrate_tokens, fit_tokens

SETTINGS = HeadSettings(epochs=20, min_steps=300, batch=64)


def drawn(seed: int, n: int = 1200):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return X, np.exp(5 + 0.8 * X[:, :1] + rng.normal(0, 0.7, (n, 1)))


def test_the_mean_is_unbiased_and_the_quantile_covers_nine_in_ten():
    model = calibrate_tokens(fit_tokens(*drawn(0), SETTINGS, 0), *drawn(1))
    X, tokens = drawn(2)
    mean, p90 = model.predict(X)
    assert mean.sum() == pytest.approx(tokens.sum(), rel=0.1)
    assert (tokens <= p90).mean() == pytest.approx(0.9, abs=0.03)
    assert np.corrcoef(np.log(mean[:, 0]), X[:, 0])[0, 1] > 0.95


def test_no_token_counts_at_all_is_no_error():
    X, tokens = drawn(0, 50)
    unknown = np.full_like(tokens, np.nan)
    model = calibrate_tokens(fit_tokens(X, unknown, SETTINGS, 0), X, unknown)
    assert not model.known.any()
    assert (model.predict(X)[0] == 1).all()
