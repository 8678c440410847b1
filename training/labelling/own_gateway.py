"""A gateway of our own: started from a config file for the time of a run, found to be listening, always ended."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import GatewayFailed

_LISTENING = re.compile(rb"Turnout on (http://127\.0\.0\.1:\d+)")
_START_WITHIN_S = 60.0
_END_WITHIN_S = 20.0
_MAX_SAID_CHARACTERS = 800


@contextmanager
def own_gateway(config: Path) -> Iterator[str]:
    """Start a gateway on a free port of this machine.

    Parameters
    ----------
    config : Path
        Its TOML file; host and port in it do not count.

    Yields
    ------
    str
        Its root.

    Raises
    ------
    GatewayFailed
        It did not start; says what it said.
    """
    command = (sys.executable, "-m", "training.labelling.tethered", "serve", "--config", str(config))
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            (*command, "--host", "127.0.0.1", "--port", "0"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            # ctrl-c is for us, and we end it ourselves.
            start_new_session=True,
        )
        try:
            url = _url_of(process)
            if url is None:
                said.seek(0)
                words = said.read().decode("utf-8", "replace").strip()[-_MAX_SAID_CHARACTERS:]
                raise GatewayFailed(f"a gateway from {config} did not start: {words}")
            yield url
        finally:
            _end(process)


def _url_of(process: subprocess.Popen[bytes]) -> str | None:
    """Return where it listens; None where it ends, or is not ready in time. What it prints is read to its end."""
    found: list[str] = []
    is_known = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            match = _LISTENING.search(line)
            if match and not found:
                found.append(match[1].decode())
                is_known.set()
        is_known.set()

    threading.Thread(target=read, daemon=True).start()
    is_known.wait(_START_WITHIN_S)
    return found[0] if found else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
