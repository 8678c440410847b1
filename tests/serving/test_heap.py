from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from serving import turns
from serving.heap import trim

CODE = """
from serving.heap import trim
blocks = [bytes(40_000) for _ in range(2_000)]
kept = blocks[::100]  # scattered over the heap, so that it cannot simply shrink
del blocks
def resident_kb():
    return int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])
before = resident_kb()
trim()
print(before - resident_kb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_free_is_given_back():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library gives nothing back")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40_000


def test_a_system_that_cannot_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    trim()


def test_turns_are_quick_only_as_long_as_somebody_computes():
    with turns.quick_turns():
        assert sys.getswitchinterval() == pytest.approx(turns.SWITCH_S)
        with turns.quick_turns():
            pass
    assert sys.getswitchinterval() == pytest.approx(turns.USUAL_S)
