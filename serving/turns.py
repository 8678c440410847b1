"""Whose turn it is in the interpreter while one thread computes and the event loop serves.

The loop lets the interpreter go at every call to the system, many times a request, and by default waits up to 5 ms each
time to have it back from a thread that computes. Entry point: :func:`quick_turns`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

USUAL_S, SWITCH_S = sys.getswitchinterval(), 0.0002


@contextmanager
def quick_turns() -> Iterator[None]:
    """Have a thread that computes give way sooner than usual, as long as this lasts."""
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        # Not what was found: two of these may overlap.
        sys.setswitchinterval(USUAL_S)
