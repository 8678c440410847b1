"""What was fitted offline, loaded: features in, calibrated quality and token counts out.

Two graphs, both with all candidates as columns: ``quality.onnx`` (quality with its interval, calibration inside)
and ``output_tokens.onnx`` (mean and 90 % quantile). No prices here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from router.domain import Floats
from router.errors import BundleCorrupt, BundleMissing
from router.runtime import Graph

QUALITY_FILE, TOKENS_FILE = "quality.onnx", "output_tokens.onnx"
QUALITY_OUTPUTS = ("quality", "quality_low", "quality_high")
TOKENS_OUTPUTS = ("output_tokens", "output_tokens_p90")
INPUT = "features"


class Predictor:
    """The two graphs of a bundle.

    Parameters
    ----------
    files : Mapping of str to bytes
        Must hold both graphs.
    dim : int
        Length of a feature row.
    n_candidates : int
        Columns.

    Raises
    ------
    BundleMissing
        A graph is absent.
    BundleCorrupt
        A graph's inputs or outputs have other names or dimensions.
    """

    def __init__(self, files: Mapping[str, bytes], dim: int, n_candidates: int) -> None:
        self._quality = _graph(files, QUALITY_FILE, QUALITY_OUTPUTS, dim, n_candidates)
        self._tokens = _graph(files, TOKENS_FILE, TOKENS_OUTPUTS, dim, n_candidates)

    def predict(self, features: Floats) -> dict[str, Floats]:
        """Predict for n feature rows.

        Parameters
        ----------
        features : ndarray of shape (n, dim), float32

        Returns
        -------
        dict of str to ndarray of shape (n, m), float32
            Keys are :data:`QUALITY_OUTPUTS` and :data:`TOKENS_OUTPUTS`.
        """
        given: dict[str, NDArray[np.generic]] = {INPUT: features}
        outputs = {**self._quality.run(given), **self._tokens.run(given)}
        return {name: np.asarray(values, np.float32) for name, values in outputs.items()}


def _graph(files: Mapping[str, bytes], name: str, outputs: tuple[str, ...], dim: int, n_candidates: int) -> Graph:
    if name not in files:
        raise BundleMissing(f"the bundle has no {name}")
    graph = Graph(files[name], name)
    if set(graph.inputs) != {INPUT} or set(graph.outputs) != set(outputs):
        raise BundleCorrupt(
            f"{name} maps {sorted(graph.inputs)} to {sorted(graph.outputs)}; expected {INPUT!r} to {', '.join(outputs)}"
        )
    if graph.inputs[INPUT][-1] != dim:
        raise BundleCorrupt(f"{name} reads {graph.inputs[INPUT][-1]} features; the manifest says {dim}")
    for output in outputs:
        width = graph.outputs[output][-1]
        if isinstance(width, int) and width != n_candidates:
            raise BundleCorrupt(f"{name} gives {width} columns of {output}; the manifest has {n_candidates} candidates")
    return graph
