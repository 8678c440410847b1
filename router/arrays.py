"""Named arrays as bytes: the only form in which a bundle holds numbers outside ONNX.

An uncompressed-size limit guards against archives that unfold without end; object arrays (pickles) are
refused; so is any NaN. Start at :func:`read_arrays`.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from router.errors import BundleCorrupt, BundleUnsafe

MAX_UNFOLDED_BYTES = 256 * 1024 * 1024
# A fixed time stamp, so that the same arrays give the same bytes and so the same sha256.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def read_arrays(data: bytes, name: str, max_bytes: int = MAX_UNFOLDED_BYTES) -> dict[str, NDArray[np.generic]]:
    """Read the arrays of an ``.npz`` held in memory.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its name, for messages.
    max_bytes : int, default=256 MiB
        Refuse archives that unfold to more.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    BundleCorrupt
        Not an archive of arrays, or a NaN in one of them.
    BundleUnsafe
        Too large unfolded, or pickled objects inside.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            n_bytes = sum(max(member.file_size, _claimed_bytes(archive, member)) for member in archive.infolist())
        if n_bytes > max_bytes:
            raise BundleUnsafe(f"{name} unfolds to {n_bytes:,} bytes; at most {max_bytes:,} are allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            arrays: dict[str, NDArray[np.generic]] = {key: loaded[key] for key in loaded.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, NotImplementedError, RuntimeError) as exc:
        raise BundleCorrupt(f"{name} is not an archive of arrays: {exc}") from exc
    except ValueError as exc:
        # numpy's only words for an object array; anything else malformed lands here too.
        raise BundleUnsafe(f"{name} holds something other than plain arrays: {exc}") from exc
    for key, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise BundleCorrupt(f"{name}: array {key!r} contains NaN")
    return arrays


def _claimed_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return how large an array its own header says it is, which numpy would believe."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    return math.prod(shape) * dtype.itemsize


def write_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Write arrays as a compressed ``.npz``; the same arrays give the same bytes.

    Parameters
    ----------
    arrays : Mapping of str to ndarray
        Plain dtypes only.

    Returns
    -------
    bytes
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(arrays[key]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", _EPOCH), member.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()
