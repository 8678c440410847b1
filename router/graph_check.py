"""Look into an ONNX file before anything executes it, without the ``onnx`` package.

Walks the protobuf wire format of the parts that matter (graphs, nodes, tensors) and refuses what a bundle never
needs: tensors stored outside the file, operators of foreign domains, functions, NaN weights. Field numbers are those
of ``onnx.proto`` (ONNX IR 10). It does not validate the graph; the runtime does that. Entry point:
:func:`check_graph`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from router.errors import BundleCorrupt, BundleUnsafe

#: Operator sets that onnxruntime itself brings.
ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_MAX_DEPTH = 8
_FLOAT_TYPES: dict[int, type[np.floating]] = {1: np.float32, 10: np.float16, 11: np.float64}
# Trees list their nodes as hundreds of thousands of one-number fields, which Python would walk for seconds.
_RUN = re.compile(
    rb"(?P<floats>(?:\x3d.{4}){2,})|(?P<ints>(?:\x40[\x80-\xff]{0,9}[\x00-\x7f]){2,})"
    rb"|(?P<modes>(?:\x4a(?:\x04LEAF|\x0aBRANCH_LEQ)){2,})",
    re.DOTALL,
)
#: The longest stretch of a run taken in one step: nothing else of the process runs during a step.
_RUN_BYTES = 16 * 1024
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(data: bytes, name: str) -> None:
    """Refuse an ONNX file that a bundle may not hold.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name, for messages.

    Raises
    ------
    BundleUnsafe
        External data, an operator domain outside :data:`ALLOWED_DOMAINS`, local functions, nesting too deep.
    BundleCorrupt
        Not a protobuf message, no graph, or NaN among its weights.
    """
    view = memoryview(data)
    n_graphs = 0
    for field, value in _fields(view, name):
        if field == 7:
            n_graphs += 1
            _graph(_nested(value, name), name, 0)
        elif field == 25:
            raise BundleUnsafe(f"{name} defines functions of its own")
    if n_graphs != 1:
        raise BundleCorrupt(f"{name} holds {n_graphs} graphs, expected 1")


def _graph(view: memoryview, name: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise BundleUnsafe(f"{name} nests graphs more than {_MAX_DEPTH} deep")
    for field, value in _fields(view, name):
        if field == 1:
            _node(_nested(value, name), name, depth)
        elif field == 5:
            _tensor(_nested(value, name), name)
        elif field == 15:
            raise BundleUnsafe(f"{name} holds sparse weights, which this program does not inspect")


def _node(view: memoryview, name: str, depth: int) -> None:
    for field, value in _fields(view, name):
        if field == 7:
            domain = bytes(_nested(value, name)).decode("utf-8", "replace")
            if domain not in ALLOWED_DOMAINS:
                raise BundleUnsafe(f"{name} uses operators of the domain {domain!r}")
        elif field == 5:
            _attribute(_nested(value, name), name, depth)


def _attribute(view: memoryview, name: str, depth: int) -> None:
    for field, value in _fields(view, name, with_runs=True):
        if field in (5, 10):
            _tensor(_nested(value, name), name)
        elif field in (6, 11):
            _graph(_nested(value, name), name, depth + 1)
        elif field in (2, 7):
            _finite(_nested(value, name), np.float32, name)
        elif field in (22, 23):
            raise BundleUnsafe(f"{name} holds sparse weights, which this program does not inspect")


def _tensor(view: memoryview, name: str) -> None:
    data_type = 0
    payloads: list[tuple[int, memoryview]] = []
    for field, value in _fields(view, name):
        if field == 2 and isinstance(value, int):
            data_type = value
        elif field == 13 or (field == 14 and value == 1):
            raise BundleUnsafe(f"{name} refers to data outside the file")
        elif field in (4, 9, 10):
            payloads.append((field, _nested(value, name)))
    for field, payload in payloads:
        if field == 4:
            _finite(payload, np.float32, name)
        elif field == 10:
            _finite(payload, np.float64, name)
        elif data_type in _FLOAT_TYPES:
            _finite(payload, _FLOAT_TYPES[data_type], name)


def _finite(payload: memoryview, dtype: type[np.floating], name: str) -> None:
    size = np.dtype(dtype).itemsize
    if len(payload) % size:
        raise BundleCorrupt(f"{name}: a tensor's bytes are not a whole number of {np.dtype(dtype)}")
    if np.isnan(np.frombuffer(payload, dtype)).any():
        raise BundleCorrupt(f"{name} contains NaN weights")


def _nested(value: int | memoryview, name: str) -> memoryview:
    if isinstance(value, int):
        raise BundleCorrupt(f"{name} is not an ONNX file: a message was expected, a number found")
    return value


def _fields(view: memoryview, name: str, *, with_runs: bool = False) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value): int for varints, the bytes for everything else.

    ``with_runs``, for attributes: a run of numbers is taken in one step; integers are passed over, single-precision
    numbers come as if they were packed.
    """
    position, end = 0, len(view)
    while position < end:
        if with_runs and (run := _RUN.match(view, position, position + _RUN_BYTES)):
            if run.lastgroup == "floats":
                fields = np.frombuffer(run[0], np.uint8).reshape(-1, 5)
                yield 7, memoryview(np.ascontiguousarray(fields[:, 1:]).tobytes())
            position = run.end()
            continue
        key, position = _varint(view, position, name)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            number, position = _varint(view, position, name)
            yield field, number
            continue
        if wire == _BYTES:
            n_bytes, position = _varint(view, position, name)
        elif wire in (_FIXED64, _FIXED32):
            n_bytes = 8 if wire == _FIXED64 else 4
        else:
            raise BundleCorrupt(f"{name} is not an ONNX file: wire type {wire}")
        if position + n_bytes > end:
            raise BundleCorrupt(f"{name} is cut short")
        yield field, view[position : position + n_bytes]
        position += n_bytes


def _varint(view: memoryview, position: int, name: str) -> tuple[int, int]:
    result = shift = 0
    while position < len(view) and shift < 64:
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise BundleCorrupt(f"{name} is cut short or not an ONNX file")
