"""A process of the suite's own: started, found to be listening, looked at, ended.

It is ended by its own handle, never by name. What it writes goes into a file of the scratch folder. Entry points:
:func:`started`, :class:`Process`.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from serving.errors import GatewayError

_LISTENING = re.compile(rb"127\.0\.0\.1:(\d+)")
_START_WITHIN_S = 60.0
_END_WITHIN_S = 15.0


class NotStarted(GatewayError):
    """A process of the suite did not start."""


@dataclass(slots=True)
class Process:
    """One that listens on loopback."""

    handle: asyncio.subprocess.Process
    port: int

    def memory_mb(self) -> float | None:
        """Return its resident memory; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.handle.pid}/status").read_text()
        except OSError:
            return None
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def n_descriptors(self) -> int | None:
        """Return how many file descriptors it holds; None where the system does not tell."""
        try:
            return sum(1 for _ in Path(f"/proc/{self.handle.pid}/fd").iterdir())
        except OSError:
            return None

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(ProcessLookupError):
            self.handle.send_signal(signal.SIGTERM)

    async def ended(self, within_s: float = _END_WITHIN_S) -> int | None:
        """Wait for its end; return its status, None where it goes on."""
        try:
            return await asyncio.wait_for(self.handle.wait(), within_s)
        except TimeoutError:
            return None


@asynccontextmanager
async def started(arguments: Sequence[str], log: Path) -> AsyncIterator[Process]:
    """Start ``turnout`` with these arguments in a process of its own, and end it afterwards.

    Parameters
    ----------
    arguments : sequence of str
        Such as ``["serve", "--port", "0"]``; the program must print where on 127.0.0.1 it listens.
    log : Path
        Takes its standard error.

    Yields
    ------
    Process

    Raises
    ------
    NotStarted
        It ended, or was not ready in time; says what it said.
    """
    with log.open("wb") as sink:
        handle = await _spawned(arguments, sink)
    try:
        try:
            port = await asyncio.wait_for(_port_of(handle), _START_WITHIN_S)
        except TimeoutError:
            port = None
        if port is None:
            said = log.read_text("utf-8", "replace")[-800:]
            raise NotStarted(f"turnout {arguments[0]} did not start: {said}")
        yield Process(handle, port)
    finally:
        await _end(handle)


async def output_of(arguments: Sequence[str]) -> str:
    """Return what ``turnout`` prints with these arguments."""
    handle = await _spawned(arguments, None)
    try:
        printed, _ = await handle.communicate()
    finally:
        await _end(handle)
    return printed.decode("utf-8", "replace")


async def _spawned(arguments: Sequence[str], errors: IO[bytes] | None) -> asyncio.subprocess.Process:
    """Start a process; if we are stopped meanwhile, it is not left behind."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router.cli", *arguments), stdout=asyncio.subprocess.PIPE, stderr=errors
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _end(await starting)
        raise


async def _port_of(handle: asyncio.subprocess.Process) -> int | None:
    assert handle.stdout is not None
    async for line in handle.stdout:
        found = _LISTENING.search(line)
        if found is not None:
            return int(found[1])
    return None


async def _end(handle: asyncio.subprocess.Process) -> None:
    if handle.returncode is not None:
        return
    with suppress(ProcessLookupError):
        handle.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(handle.wait(), _END_WITHIN_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            handle.kill()
        await handle.wait()
