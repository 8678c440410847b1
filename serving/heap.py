"""Memory that nobody uses any more, given back to the system.

Loading a bundle takes many times its size for a moment. The C library keeps what is freed, in an arena for each thread
that ever loaded one: 150 MB more after thirty bundles, though no object is left. Entry point: :func:`trim`.
"""

from __future__ import annotations

import ctypes


def trim() -> None:
    """Give back what is free; takes milliseconds and other threads go on. Does nothing where the C library cannot."""
    try:
        # Of glibc; neither musl nor macOS has it.
        release = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return
    release(0)
