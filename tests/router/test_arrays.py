from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from router.arrays import read_arrays, write_arrays
from router.errors import BundleCorrupt, BundleUnsafe

ARRAYS = {"table": np.arange(6, dtype=np.int8).reshape(2, 3), "names": np.array(["a", "ü"])}


def test_what_is_written_is_read():
    back = read_arrays(write_arrays(ARRAYS), "x.npz")
    assert back.keys() == ARRAYS.keys()
    assert all(np.array_equal(back[k], ARRAYS[k]) and back[k].dtype == ARRAYS[k].dtype for k in ARRAYS)


def test_the_same_arrays_give_the_same_bytes():
    assert write_arrays(ARRAYS) == write_arrays(dict(reversed(ARRAYS.items())))


def test_objects_are_refused():
    out = io.BytesIO()
    np.savez(out, bad=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleUnsafe, match=r"x\.npz holds something other than plain arrays"):
        read_arrays(out.getvalue(), "x.npz")


def test_nan_is_refused_by_name():
    with pytest.raises(BundleCorrupt, match="array 'w' contains NaN"):
        read_arrays(write_arrays({"w": np.array([1.0, np.nan])}), "x.npz")


def test_an_archive_that_unfolds_too_far_is_refused_before_unfolding():
    data = write_arrays({"zeros": np.zeros(1_000_000)})
    assert len(data) < 100_000
    with pytest.raises(BundleUnsafe, match="unfolds to"):
        read_arrays(data, "x.npz", max_bytes=1_000_000)


@pytest.mark.parametrize("data", [b"", b"not a zip", write_arrays(ARRAYS)[:-30]])
def test_anything_else_is_corrupt(data):
    with pytest.raises(BundleCorrupt, match=r"x\.npz is not an archive"):
        read_arrays(data, "x.npz")


def test_a_damaged_member_is_corrupt():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY garbage")
    with pytest.raises((BundleCorrupt, BundleUnsafe)):
        read_arrays(out.getvalue(), "x.npz")


def test_a_header_that_claims_too_much_is_refused_before_anything_is_made():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**14,)})
        archive.writestr("a.npy", header.getvalue())
    with pytest.raises(BundleUnsafe, match="unfolds to 400,000,000,000,000"):
        read_arrays(out.getvalue(), "x.npz")


def test_a_flipped_bit_anywhere_is_a_named_error_or_other_numbers():
    whole = write_arrays({"a": np.arange(500, dtype=np.float32), "b": np.arange(50)})
    for position in range(0, len(whole), 7):
        data = bytearray(whole)
        data[position] ^= 0x10
        try:
            read_arrays(bytes(data), "x.npz")
        except (BundleCorrupt, BundleUnsafe):
            continue
