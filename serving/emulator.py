"""Emulated providers on loopback."""

from __future__ import annotations


class EmulatorServer:
    """``await start()`` -> base URL ("http://127.0.0.1:PORT/v1"); ``await stop()``; ``app`` is the ASGI app."""

    def __init__(self, *, port: int = 0, speed: float = 1.0) -> None: ...

    async def start(self) -> str:
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError
