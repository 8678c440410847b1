"""Starts programs in limited processes, those of :mod:`training.labelling.confined`, and reads what became of them."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from training.errors import NotConfined

_SCRIPT = Path(__file__).with_name("confined.py")
_MAX_RESULT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program and its tests may use.

    Parameters
    ----------
    time_s : float
        By the clock; CPU time is limited to the next whole second.
    memory_bytes : int
        Address space, Python's own included.
    file_bytes : int
        Of each file.
    """

    time_s: float = 10.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a program.

    Parameters
    ----------
    n_passed : int
        Tests that passed.
    why : str
        Where it went wrong first, "" nowhere. Names an exception, never quotes one.
    """

    n_passed: int
    why: str


class Confinement:
    """Runs programs, several at once.

    Parameters
    ----------
    limits : Limits
    n_at_once : int, default=2
        More wait.

    Attributes
    ----------
    protections : str
        What held when a program ran last, for people; "" before.
    """

    def __init__(self, limits: Limits, n_at_once: int = 2) -> None:
        self.protections = ""
        self._limits = limits
        self._slots = threading.BoundedSemaphore(n_at_once)

    def run(self, program: str, tests: Sequence[str], within_s: float | None = None) -> Ended:
        """Run a program and then its tests, in one process of their own with an empty environment.

        Parameters
        ----------
        program : str
            Python source.
        tests : sequence of str
            Python sources that see what the program defined; one passes where it raises nothing.
        within_s : float, optional
            In the place of the limit of time.

        Returns
        -------
        Ended

        Raises
        ------
        NotConfined
            The machine limits too little to run it at all.
        """
        time_s = self._limits.time_s if within_s is None else within_s
        with self._slots, tempfile.TemporaryDirectory(prefix="turnout-code-") as place:
            folder, out = Path(place) / "work", Path(place) / "result"
            folder.mkdir()
            word = secrets.token_hex(16)
            order = {
                "program": program,
                "tests": list(tests),
                "folder": str(folder),
                "out": str(out),
                "word": word,
                "limits": {
                    "cpu_s": int(time_s) + 1,
                    "memory_bytes": self._limits.memory_bytes,
                    "file_bytes": self._limits.file_bytes,
                },
            }
            status = _ended_by(json.dumps(order).encode("utf-8", "surrogatepass"), time_s, str(folder))
            return self._read(out, word, status)

    def _read(self, out: Path, word: str, status: int | None) -> Ended:
        if status is None:
            return Ended(0, "out of time")
        try:
            with out.open("rb") as stream:
                found = json.loads(stream.read(_MAX_RESULT_BYTES))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("word") != word:
            return Ended(
                0, "out of time" if status in (-signal.SIGXCPU, -signal.SIGKILL) else "ended before its tests did"
            )
        if found.get("refused"):
            raise NotConfined(
                "programs are not run: as root without seccomp and Landlock nothing would keep them in; "
                "run turnout label as an ordinary user"
            )
        held = {"no network, no processes": found["is_alone"], "no files but its own": found["is_fenced"]}
        self.protections = "; ".join(name if holds else f"NOT {name}" for name, holds in held.items())
        return Ended(int(found["n_passed"]), str(found["why"]))


def _ended_by(order: bytes, time_s: float, folder: str) -> int | None:
    """Return the exit status; None where it had to be ended."""
    process = subprocess.Popen(
        (sys.executable, "-I", "-B", str(_SCRIPT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        # Libraries of linear algebra would reserve memory for a thread per core.
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        # One that has died takes no order: its status says so.
        with suppress(BrokenPipeError):
            process.communicate(order, timeout=time_s)
        return process.wait(timeout=time_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.kill()
        process.wait()
