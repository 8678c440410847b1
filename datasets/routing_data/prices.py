"""Recover the prices behind a table from its costs and token counts.

It knows no price list: it only asks whether ``cost = input * a + output * b`` explains the rows.

Entry point: ``implied_prices``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from routing_data.table import OutcomeTable

_TOLERANCE = 0.01
_LEAST_INDEPENDENCE = 1e-4


def implied_prices(table: OutcomeTable) -> dict[str, tuple[float, float] | None]:
    """Fit two non-negative prices per candidate to its costs.

    Parameters
    ----------
    table : OutcomeTable
        Rows where tokens or cost are unknown are left out.

    Returns
    -------
    dict of str to (float, float) or None
        USD per million input and output tokens. None where nothing is known, where the two token
        counts are proportional (no telling the prices apart), or where the fitted costs are off by
        more than 1 % of the true ones on average.
    """
    return {
        name: _fit(table.input_tokens[:, i], table.output_tokens[:, i], table.cost_usd[:, i])
        for i, name in enumerate(table.candidates)
    }


def _fit(
    input_tokens: NDArray[np.float64], output_tokens: NDArray[np.float64], cost_usd: NDArray[np.float64]
) -> tuple[float, float] | None:
    known = ~(np.isnan(input_tokens) | np.isnan(output_tokens) | np.isnan(cost_usd))
    tokens = np.column_stack([input_tokens[known], output_tokens[known]]) / 1e6
    cost = cost_usd[known]
    lengths = np.linalg.norm(tokens, axis=0)
    if len(cost) < 2 or not lengths.all():
        return None
    scaled = tokens / lengths
    if np.linalg.svd(scaled, compute_uv=False)[-1] < _LEAST_INDEPENDENCE:
        return None
    prices = _non_negative(scaled, cost) / lengths
    if np.abs(tokens @ prices - cost).sum() > _TOLERANCE * cost.sum():
        return None
    return float(prices[0]), float(prices[1])


def _non_negative(scaled: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve the two-variable problem exactly: inside, else on the better of the two edges."""
    inside, *_ = np.linalg.lstsq(scaled, cost)
    if (inside >= 0).all():
        return np.asarray(inside)
    # Columns have length 1, so each edge's minimiser is an inner product, floored at zero.
    edges = np.diag(np.maximum(scaled.T @ cost, 0.0))
    residuals = np.linalg.norm(scaled @ edges - cost[:, None], axis=0)
    return edges[:, int(residuals.argmin())]
