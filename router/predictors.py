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
#: Probability of each kind of task; only in bundles whose data named tasks.
TASK_OUTPUT = "task_probability"
#: How unfamiliar the prompt is, above 1 where averages stand in for predictions; only where the encoder can tell.
NOVELTY_OUTPUT = "novelty"
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
    n_tasks : int, default=0
        Columns of the probabilities of tasks; 0 where there are none.

    Raises
    ------
    BundleMissing
        A graph is absent.
    BundleCorrupt
        A graph's inputs or outputs have other names or dimensions.
    """

    def __init__(self, files: Mapping[str, bytes], dim: int, n_candidates: int, n_tasks: int = 0) -> None:
        widths = dict.fromkeys(QUALITY_OUTPUTS, n_candidates)
        if n_tasks:
            widths[TASK_OUTPUT] = n_tasks
        self._quality = _graph(files, QUALITY_FILE, widths, dim)
        self._tokens = _graph(files, TOKENS_FILE, dict.fromkeys(TOKENS_OUTPUTS, n_candidates), dim)

    def predict(self, features: Floats) -> dict[str, Floats]:
        """Predict for n feature rows.

        Parameters
        ----------
        features : ndarray of shape (n, dim), float32

        Returns
        -------
        dict of str to ndarray of shape (n, m), float32
            Keys are :data:`QUALITY_OUTPUTS` and :data:`TOKENS_OUTPUTS`; :data:`TASK_OUTPUT` (n, n_tasks) where there
            are tasks; :data:`NOVELTY_OUTPUT` (n, 1) where the graph has it.
        """
        given: dict[str, NDArray[np.generic]] = {INPUT: features}
        outputs = {**self._quality.run(given), **self._tokens.run(given)}
        return {name: np.asarray(values, np.float32) for name, values in outputs.items()}


def _graph(files: Mapping[str, bytes], name: str, widths: Mapping[str, int], dim: int) -> Graph:
    if name not in files:
        raise BundleMissing(f"the bundle has no {name}")
    graph = Graph(files[name], name)
    widths = {**widths, **({NOVELTY_OUTPUT: 1} if NOVELTY_OUTPUT in graph.outputs else {})}
    if set(graph.inputs) != {INPUT} or set(graph.outputs) != set(widths):
        raise BundleCorrupt(
            f"{name} maps {sorted(graph.inputs)} to {sorted(graph.outputs)}; expected {INPUT!r} to {', '.join(widths)}"
        )
    if graph.inputs[INPUT][-1] != dim:
        raise BundleCorrupt(f"{name} reads {graph.inputs[INPUT][-1]} features; the manifest says {dim}")
    for output, expected in widths.items():
        width = graph.outputs[output][-1]
        if isinstance(width, int) and width != expected:
            raise BundleCorrupt(f"{name} gives {width} columns of {output}; the manifest says {expected}")
    return graph
