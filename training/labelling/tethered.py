"""Run ``turnout`` in this process until whoever started it is gone: when standard input ends, so do we.

The system closes our end of the pipe however the parent ends, so a gateway that was started for a run never outlives
it. Run as ``python -m training.labelling.tethered serve …``; imported by nobody.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def _end_with_parent() -> None:
    # Not through sys.stdin: the interpreter, when it ends, would wait for the lock of its buffer.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from router.cli import main

    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(sys.argv[1:], prog_name="turnout")
