"""The only importer of onnxruntime: checked bytes in, a callable graph out.

Graphs are made from bytes (never from a path, so nothing outside the file can be reached), after
:func:`router.graph_check.check_graph`, with one thread: requests run in parallel, not one request's sums.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from router.errors import BundleCorrupt
from router.graph_check import check_graph


class Graph:
    """An ONNX graph ready to run.

    Parameters
    ----------
    data : bytes
        The whole ONNX file.
    name : str
        Its name, for messages.

    Raises
    ------
    BundleUnsafe, BundleCorrupt
        See :func:`router.graph_check.check_graph`; also when the runtime refuses the graph.
    """

    def __init__(self, data: bytes, name: str) -> None:
        check_graph(data, name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Arenas keep the largest batch's memory for ever; requests are single rows.
        options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime's errors share no public base class
            raise BundleCorrupt(f"onnxruntime refuses {name}: {type(exc).__name__}: {exc}") from exc
        self.name = name
        self.inputs = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self.outputs = {o.name: tuple(o.shape) for o in self._session.get_outputs()}
        self._output_names = list(self.outputs)

    def run(self, inputs: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Run the graph once.

        Parameters
        ----------
        inputs : dict of str to ndarray
            One array per input, shapes and dtypes as the graph declares them.

        Returns
        -------
        dict of str to ndarray
            One array per output.
        """
        return dict(zip(self.outputs, self._session.run(self._output_names, inputs), strict=True))
