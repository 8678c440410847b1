"""The processes of one run: started, found to be ready, their CPU time read, ended.

Entry points: :func:`started`, :func:`environment`, :class:`Server`, :func:`say_port`.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Bit pattern of Linux's clock of a process: all its threads, those that ended included.
_SCHEDULED = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves, and where."""

    pid: int
    origin: str
    ready_s: float

    def cpu_s(self) -> float:
        """Return the CPU time it has used: user and system, to the nanosecond."""
        return time.clock_gettime((~self.pid << 3) | _SCHEDULED)

    def memory_mb(self, key: str) -> float:
        """Return VmRSS (now) or VmHWM (most ever)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) / 1024


@contextmanager
def started(
    arguments: list[str],
    ready_path: str,
    log: Path | None = None,
    *,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    within_s: float = 90.0,
) -> Iterator[Server]:
    """Start a server, wait until it answers, end it afterwards.

    Parameters
    ----------
    arguments : list of str
        Program first.
    ready_path : str
        Answers 200 once it is ready.
    log : Path or None
        Takes standard error.
    port : int or None
        Where it listens; None reads it from the first line of standard output that says so.
    env : Mapping or None
        Its environment, None for :func:`environment`.
    within_s : float
        How long it may take.

    Raises
    ------
    RuntimeError
        It ended, or was not ready in time.
    """
    began = time.perf_counter()
    with open(log or os.devnull, "w") as sink:
        output = subprocess.PIPE if port is None else sink
        process = subprocess.Popen(arguments, env=env or environment(), stdout=output, stderr=sink, text=True)
    try:
        listening = _port_of(process, log) if port is None else port
        while not _answers(listening, ready_path):
            if process.poll() is not None or time.perf_counter() - began > within_s:
                raise RuntimeError(f"{arguments[:3]} did not start: {log.read_text()[-2000:] if log else ''}")
            time.sleep(0.01)
        yield Server(process.pid, f"http://127.0.0.1:{listening}", time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ours(*arguments: str) -> list[str]:
    """Return the command line of this benchmark's own subcommands."""
    return [sys.executable, str(HERE), *arguments]


def environment() -> dict[str, str]:
    """Return the environment of every process: one thread for sums, this checkout first, no proxy for loopback."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "datasets"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_PROXY": "*"}


def say_port(port: int) -> None:
    """Tell whoever started this process where it listens."""
    sys.stdout.write(f"127.0.0.1:{port}\n")
    sys.stdout.flush()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _port_of(process: subprocess.Popen[str], log: Path | None) -> int:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "127.0.0.1:" in line:
            return int("".join(c for c in line.split("127.0.0.1:")[1].split("/")[0].split()[0] if c.isdigit()))
    raise RuntimeError("".join(seen) + (log.read_text() if log else "") + "a server did not start")
